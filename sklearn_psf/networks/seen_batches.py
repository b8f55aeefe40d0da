"""Batches of what a network has seen of patches, each used several times and turned every time."""

import copy

import torch

from .polar_reader import N_PIXELS, PolarReader, see_both, turn_seen
from .spectra import SECTORS

__all__ = ["SeenBatches"]

_AT_LEAST = 4  # batches seen before the first is given out
_FORGOTTEN = 0.3  # of the features of pixels, which tell a patch that comes again


class SeenBatches:
    """Endless batches of what a `PolarReader` sees of the two parts of patches, and their targets.

    To draw a patch and to transform it takes several times as long as to learn from it. So what has
    been seen is kept in a pool, from which batches are drawn; new patches take the place of the
    oldest. Blur has no preferred direction: turned and mirrored, the same patch is another one.

    Parameters
    ----------
    batches : iterable of (Tensor (n, 2, H, W), Tensor (n, 2, P))
        Endless; parts of patches and the parameters of both, NaN for textureless ones.
    reader : PolarReader
        Its features of pixels are seen too. They stay as they are now.
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

    def __init__(
        self, batches, reader: PolarReader, model, *, batch_size, pool_size, reuse, random_state
    ):
        self.source = iter(batches)
        self.reader = copy.deepcopy(reader).eval()
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
        seen, there = see_both(self.reader.to(X.device), X.float())
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
        seen = seen.float()
        kept = torch.as_tensor(rng.rand(n, N_PIXELS) >= _FORGOTTEN).to(seen)
        seen[:, -N_PIXELS:] *= kept / (1 - _FORGOTTEN)
        if self.model.turns:
            steps = torch.as_tensor(rng.randint(2 * SECTORS, size=n), device=seen.device)
            mirrored = torch.as_tensor(rng.rand(n) < 0.5, device=seen.device)
            seen = turn_seen(seen, steps, mirrored)
            y = self.model.turned(y, steps * (torch.pi / SECTORS), mirrored)
        return seen, self.model.encode(y)
