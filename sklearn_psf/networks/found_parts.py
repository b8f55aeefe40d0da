"""Parts of images as a network tells them apart, to learn how to read those."""

import torch

__all__ = ["FoundParts"]


class FoundParts:
    """Endless parts of windows of images, with masks as a network of whole images finds them.

    Borders are found where they are not, and missed where they are, in ways that no drawn mask has.
    A reader that is to read such parts learns from such parts.

    Parameters
    ----------
    batches : iterable of (Tensor (n, H, W), Tensor (n, P, H / 4, W / 4))
        Endless; images and the parameters of their squares, NaN for textureless ones.
    network : DenseNetwork
        Of the architecture "unet-directed".
    n_places : int
        Places per image; those without texture are left out.
    random_state : numpy.random.RandomState
        Draws the places.
    """

    def __init__(self, batches, network, *, n_places, random_state):
        self.batches, self.network = batches, network.eval()
        self.n_places, self.random_state = n_places, random_state

    def __iter__(self):
        """Yield parts (m, 4, 256, 256) and the parameters (m, 1, P) of the first of them."""
        for images, y in self.batches:
            with torch.no_grad():
                yield self._find(images, y)

    def _find(self, images, y):
        height, width = y.shape[2:]
        rows, columns = (self.random_state.randint(n, size=self.n_places) for n in (height, width))
        places = list(zip(rows.tolist(), columns.tolist(), strict=True))
        parts = self.network.find_parts(images, places)
        known = torch.cat([y[:, :, row, column] for row, column in places])
        there = ~known.isnan().any(1)
        return parts[there], known[there, None]
