"""Computing dask tasks, here or on a cluster, with a progress bar."""

import dask
from dask.callbacks import Callback
from distributed import as_completed, get_client
from tqdm.auto import tqdm

__all__ = ["compute"]


class _CountBlocks(Callback):
    """Moves a bar on when one of some tasks is done."""

    def __init__(self, keys, bar):
        super().__init__(posttask=self._done)
        self._keys, self._bar = set(keys), bar

    def _done(self, key, result, graph, state, worker):
        self._bar.update(key in self._keys)


def compute(tasks, description, verbose):
    """Compute delayed tasks, one per block, here or on the cluster of the current client."""
    with tqdm(total=len(tasks), desc=description, unit="block", disable=not verbose) as bar:
        client = _current_client()
        if client is None:
            with _CountBlocks([task.key for task in tasks], bar):
                return list(dask.compute(*tasks))
        futures = client.compute(tasks)
        results = {}
        for future, result in as_completed(futures, with_results=True):
            results[future.key] = result
            bar.update()
        return [results[future.key] for future in futures]


def _current_client():
    try:
        return get_client()
    except ValueError:  # no cluster: the threads of this process
        return None
