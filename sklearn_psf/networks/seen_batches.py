"""Batches of what a network has seen of patches, each used several times and turned every time."""

import torch

from .polar_reader import hide_pixels, see_both, turn_seen
from .spectra import SECTORS

__all__ = ["POOL_SIZE", "SeenBatches"]

POOL_SIZE = 8192  # parts: 1.1 GB of patches of 256 pixels
_AT_LEAST = 4  # batches seen before the first is given out
_HIDDEN = 0.15  # of the parts are given out without pixels: spectra alone tell their axis


class SeenBatches:
    """Endless batches of what a `PolarReader` sees of the two parts of patches, and their targets.

    To draw a patch and to transform it takes several times as long as to learn from it. So what has
    been seen is kept in a pool, from which batches are drawn; new patches take the place of the
    oldest. Blur has no preferred direction: turned and mirrored, the same patch is another one.

    Parameters
    ----------
    batches : iterable of (Tensor (n, 4 or 5, H, W), Tensor (n, 2, P))
        Endless; two parts of patches, their masks, and the parameters of both, or of the first
        (n, 1, P), NaN for textureless ones.
    model : PSFModel
        Encodes parameters, and turns them where that is possible.
    batch_size : int
        Parts per batch.
    pool_size : int
        Parts kept.
    reuse : int
        Batches, on average, in which a part is given out.
    random_state : numpy.random.RandomState
        Order, and turns.
    """

    def __init__(self, batches, model, *, batch_size, random_state, pool_size=POOL_SIZE, reuse=4):
        self.source = iter(batches)
        self.model, self.random_state = model, random_state
        self.batch_size, self.pool_size, self.reuse = batch_size, pool_size, reuse
        self._pool, self._filled, self._next = None, 0, 0

    def __iter__(self):
        due = min(_AT_LEAST * self.batch_size, self.pool_size)
        while True:
            due += self.batch_size / self.reuse
            while due > 0:
                due -= self._add()
            yield self._draw()

    @torch.no_grad()
    def _add(self):
        """Put the parts of a new batch of patches in the places of the oldest ones."""
        X, y = next(self.source)
        seen, there = (part[: len(X) * y.shape[1]] for part in see_both(X.float()))
        new = seen[there].half(), torch.cat(y.unbind(1))[there]
        if self._pool is None:
            self._pool = [part.new_empty(self.pool_size, part.shape[1]) for part in new]
        places = (self._next + torch.arange(len(new[0]))) % self.pool_size
        for kept, part in zip(self._pool, new, strict=True):
            kept[places] = part
        self._filled = max(self._filled, min(self._next + len(new[0]), self.pool_size))
        self._next = (self._next + len(new[0])) % self.pool_size
        return max(1, len(new[0]))

    def _draw(self):
        rng, n = self.random_state, self.batch_size
        rows = torch.as_tensor(rng.randint(self._filled, size=n))
        seen, y = (part[rows] for part in self._pool)
        seen = hide_pixels(seen.float(), torch.as_tensor(rng.rand(n) < _HIDDEN, device=seen.device))
        if self.model.turns:
            steps = torch.as_tensor(rng.randint(2 * SECTORS, size=n), device=seen.device)
            mirrored = torch.as_tensor(rng.rand(n) < 0.5, device=seen.device)
            seen = turn_seen(seen, steps, mirrored)
            y = self.model.turned(y, steps * (torch.pi / SECTORS), mirrored)
        return seen, self.model.encode(y)
