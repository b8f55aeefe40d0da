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
        Places per image, where it has texture.
    random_state : numpy.random.RandomState
        Draws the places.
    """

    def __init__(self, batches, network, *, n_places, random_state):
        self.batches, self.network = batches, network.eval()
        self.n_places, self.random_state = n_places, random_state

    def __iter__(self):
        """Yield parts (m, 5, 256, 256) and the parameters (m, 1, P) of the first of them."""
        for images, y in self.batches:
            there = ~y.isnan().any(1).all(-1).all(-1)
            found = [self._find(*one) for one in zip(images[there], y[there], strict=True)]
            if found:
                yield tuple(torch.cat(part) for part in zip(*found, strict=True))

    @torch.no_grad()
    def _find(self, image, truth):
        squares = torch.nonzero(~truth.isnan().any(0)).cpu()
        places = squares[self.random_state.permutation(len(squares))[: self.n_places]]
        known = torch.stack([truth[:, row, column] for row, column in places])
        return self.network.find_parts(image[None], places.tolist()), known[:, None]
