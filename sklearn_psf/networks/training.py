"""Training of a network; the only module that knows skorch.

Batches come from an iterable of (patches, encoded targets); a target row of NaN means that the
patch is textureless. The result is a NumPy state: exponential moving average of the weights.
"""

import math
import time
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch import nn
from torch.nn import functional as F
from torch.utils.data import IterableDataset

from .regions import alike_loss

__all__ = ["ArrayBatches", "PSFLoss", "epochs_done", "train_network"]


class PSFLoss(nn.Module):
    r"""Loss of encoded parameters and of validity.

    "nll", the default, is the heteroscedastic Gaussian likelihood, whose gradient is weighted by
    :math:`\sigma^{2\beta}` with beta = 1: the mean learns as from the squared error, so that hard
    patches count in full, and the variance learns how large that error is; plus the binary
    cross-entropy of validity. "mse" is the published masked squared error,

    .. math:: \gamma (a_0 - \tilde a_0)^2 + \frac{1 - a_0}{2N} \sum_n (a_n - \tilde a_n)^2

    with a_0 = 1 for textureless patches and gamma = 1; it leaves the variances untrained.

    Parameters
    ----------
    kind : {"nll", "mse"}
        Which loss.

    References
    ----------
    A. Shajkofci and M. Liebling, "Spatially-variant CNN-based point spread function estimation for
    blind deconvolution and depth estimation in optical microscopy", IEEE TIP 29 (2020).
    M. Seitzer et al., "On the pitfalls of heteroscedastic uncertainty estimation", ICLR 2022.
    """

    def __init__(self, kind: str = "nll"):
        super().__init__()
        if kind not in ("nll", "mse"):
            raise ValueError(f"loss must be 'nll' or 'mse'; got {kind!r}.")
        self.kind = kind

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss of outputs (n, 2 E + 1) against standardised targets (n, E) with NaN rows.

        Maps of outputs (n, 2 E + 1, h, w) have targets (n, h, w, E), or (n, E) everywhere. Outputs
        of a first reading, which may follow them, count half as much, and coordinates of likeness
        in full.
        """
        if outputs.ndim == 2:
            return self._mean(outputs, targets)
        if targets.ndim == 2:
            targets = targets[:, None, None].expand(-1, *outputs.shape[2:], -1)
        n = 2 * targets.shape[-1] + 1
        last, first, coordinates = outputs[:, :n], outputs[:, n : 2 * n], outputs[:, 2 * n :]
        loss = self._of_maps(last, targets)
        if first.shape[1]:
            loss = loss + 0.5 * self._of_maps(first, targets)
        if coordinates.shape[1]:
            loss = loss + alike_loss(coordinates, targets)
        return loss

    def _of_maps(self, outputs, targets):
        return self._mean(outputs.movedim(1, -1).flatten(0, 2), targets.flatten(0, 2))

    def _mean(self, outputs, targets):
        n_encoded = targets.shape[1]
        mean, log_variance = outputs[:, :n_encoded], outputs[:, n_encoded:-1]
        invalid = torch.isnan(targets).any(1)
        weight = (~invalid).float()
        error = (mean - torch.where(invalid[:, None], mean.detach(), targets)).square()
        if self.kind == "mse":
            validity = (invalid.float() - outputs[:, -1].sigmoid()).square()
            return (validity + weight * error.mean(1) / 2).mean()
        log_variance = log_variance.clamp(-12, 6)
        likelihood = 0.5 * (error * torch.exp(-log_variance) + log_variance)
        likelihood = (likelihood * torch.exp(log_variance).detach()).mean(1)
        validity = F.binary_cross_entropy_with_logits(outputs[:, -1], invalid.float())
        return (weight * likelihood).mean() + 0.5 * validity


class ArrayBatches:
    """Endless shuffled batches of labelled patches.

    Parameters
    ----------
    X : ndarray of shape (n, H, W)
        Patches, float32.
    targets : ndarray of shape (n, E)
        Encoded parameters.
    batch_size : int
        Patches per batch.
    random_state : numpy.random.RandomState
        Order.
    device : torch.device
        Where batches go.
    """

    def __init__(self, X, targets, batch_size, random_state, device):
        self.X, self.targets, self.batch_size = X, targets, batch_size
        self.random_state, self.device = random_state, device

    def __iter__(self):
        while True:
            order = self.random_state.permutation(len(self.X))
            for start in range(0, len(order), self.batch_size):
                rows = order[start : start + self.batch_size]
                if len(rows) > 1 or len(order) == 1:  # batch statistics need two patches
                    yield tuple(
                        torch.as_tensor(a[rows], dtype=torch.float32, device=self.device)
                        for a in (self.X, self.targets)
                    )


class _Epoch(IterableDataset):
    """A fixed number of batches of an endless iterator, with standardised targets."""

    def __init__(self, batches, n_batches, mean, scale):
        self.iterator, self.n_batches = iter(batches), n_batches
        self.mean, self.scale = mean, scale

    def __iter__(self):
        for X, targets in islice(self.iterator, self.n_batches):
            yield X, (targets - self.mean) / self.scale


class _Finished(Exception):
    """Ends a training. Skorch's own signal is KeyboardInterrupt, which is the user's to give."""


class _Progress(Callback):
    """Learning rate, moving average, validation, checkpoints and the clock of one training.

    The learning rate rises over the first 2 % and falls as a cosine over the planned course, which
    is measured in epochs or in minutes, whichever ends first.
    """

    def __init__(self, plan, evaluate, checkpoint, report):
        self.plan, self.evaluate, self.report = plan, evaluate, report
        self.checkpoint = None if checkpoint is None else Path(checkpoint)

    def on_train_begin(self, net, **kwargs):
        self.start, self.epoch = time.monotonic(), self.plan["epoch"]
        self.batch, self.spent = 0, self.plan["spent"]

    def elapsed(self):
        return self.spent + time.monotonic() - self.start

    def progress(self):
        plan = self.plan
        done = (self.epoch + self.batch / plan["n_batches"]) / plan["max_epochs"]
        if plan["max_minutes"] is not None:
            done = max(done, self.elapsed() / 60 / plan["max_minutes"])
        return min(done, 1.0)

    def on_batch_begin(self, net, training=True, **kwargs):
        t = self.progress()
        factor = min(1.0, t / 0.02 + 0.02) * (0.5 + 0.5 * math.cos(math.pi * t)) + 1e-3
        for group in net.optimizer_.param_groups:
            group["lr"] = self.plan["learning_rate"] * factor

    def on_grad_computed(self, net, named_parameters, **kwargs):
        torch.nn.utils.clip_grad_norm_([p for _, p in named_parameters], 5.0)

    def on_batch_end(self, net, training=True, **kwargs):
        self.batch += 1
        self.plan["steps"] += 1
        decay = min(self.plan["ema_decay"], self.plan["steps"] / (self.plan["steps"] + 10))
        average = self.plan["average"]
        with torch.no_grad():
            for name, value in net.module_.state_dict().items():
                if value.is_floating_point():
                    average[name].lerp_(value, 1 - decay)
                else:
                    average[name].copy_(value)

    def on_epoch_end(self, net, **kwargs):
        self.epoch, self.batch = self.epoch + 1, 0
        figures = {
            "epoch": self.epoch,
            "minutes": round(self.elapsed() / 60, 3),
            "batches": self.plan["steps"],
            "train_loss": float(net.history[-1]["train_loss"]),
        }
        if self.evaluate is not None:
            figures["valid_score"] = float(self.evaluate(_numpy_state(self.plan["average"])))
        self.plan["history"].append(figures)
        if self.report is not None:
            self.report(figures)
        if self.checkpoint is not None:
            self._save(net)
        if self.finished():
            raise _Finished

    def finished(self):
        worn = False
        if self.evaluate is not None and self.plan["patience"] is not None:
            scores = [figures["valid_score"] for figures in self.plan["history"]]
            worn = bool(scores) and len(scores) - 1 - np.argmax(scores) >= self.plan["patience"]
        return worn or self.progress() >= 1.0

    def _save(self, net):
        partial = self.checkpoint.with_suffix(".part")
        state = {
            "module": net.module_.state_dict(),
            "optimizer": net.optimizer_.state_dict(),
            "average": self.plan["average"],
            "epoch": self.epoch,
            "steps": self.plan["steps"],
            "spent": self.elapsed(),
            "history": self.plan["history"],
        }
        torch.save(state, partial)
        partial.replace(self.checkpoint)


def _numpy_state(state):
    return {name: value.detach().cpu().numpy().copy() for name, value in state.items()}


def train_network(
    network,
    batches,
    target_sample,
    *,
    n_batches,
    max_epochs,
    learning_rate=2e-3,
    loss="nll",
    max_minutes=None,
    ema_decay=0.998,
    weight_decay=1e-2,
    patience=None,
    evaluate=None,
    report=None,
    checkpoint=None,
    device="cpu",
):
    """Train a network through skorch and return its averaged weights.

    Parameters
    ----------
    network : PSFNetwork
        Trained in place; its target statistics are set from `target_sample`.
    batches : iterable of (Tensor (n, H, W), Tensor (n, E))
        Endless; encoded targets, NaN rows for textureless patches.
    target_sample : ndarray of shape (m, E)
        Encoded parameters from which mean and scale of the targets are taken.
    n_batches : int
        Batches per epoch.
    max_epochs : int
        Length of the training.
    learning_rate : float
        Peak learning rate of AdamW.
    loss : {"nll", "mse"}
        See `PSFLoss`.
    max_minutes : float or None
        Ends the training, with its schedule, earlier than `max_epochs` would.
    ema_decay : float
        Decay per step of the moving average of the weights.
    weight_decay : float
        Of AdamW.
    patience : int or None
        Epochs without a better validation score after which to stop.
    evaluate : callable or None
        Takes a NumPy state, returns a score (higher is better), after each epoch.
    report : callable or None
        Takes the figures of an epoch (a dict).
    checkpoint : str, pathlib.Path or None
        Written after each epoch; if the file exists, the training resumes from it.
    device : torch.device
        Where to train.

    Returns
    -------
    state : dict of str to ndarray
        Averaged weights and buffers.
    history : list of dict
        Figures of each epoch.
    """
    if np.isnan(target_sample).all():
        raise ValueError("No valid training sample: every row of the parameters is NaN.")
    network.to(device)
    _set_target_statistics(network, target_sample)
    plan = {
        "n_batches": n_batches, "max_epochs": max_epochs, "max_minutes": max_minutes,
        "learning_rate": learning_rate, "ema_decay": ema_decay, "patience": patience,
        "epoch": 0, "steps": 0, "spent": 0.0, "history": [],
        "average": {k: v.detach().clone() for k, v in network.state_dict().items()},
    }  # fmt: skip
    progress = _Progress(plan, evaluate, checkpoint, report)
    net = NeuralNet(
        network,
        criterion=PSFLoss(loss),
        optimizer=torch.optim.AdamW,
        optimizer__weight_decay=weight_decay,
        lr=learning_rate,
        iterator_train__batch_size=None,
        train_split=None,
        callbacks=[progress],
        callbacks__print_log=None,
        verbose=0,
        device=device,
    ).initialize()
    if checkpoint is not None and Path(checkpoint).exists():
        _resume(net, plan, checkpoint, device)
    net.notify("on_train_begin", X=None, y=None)
    if not progress.finished():  # it may be a finished training that was resumed
        dataset = _Epoch(batches, n_batches, network.target_mean, network.target_scale)
        with suppress(_Finished):
            net.fit_loop(dataset, epochs=max_epochs - plan["epoch"])
    return _numpy_state(plan["average"]), plan["history"]


def _set_target_statistics(network, target_sample):
    """Let the network regress targets of mean 0 and standard deviation 1."""
    scale = np.nanstd(target_sample, 0)
    network.target_mean.copy_(torch.as_tensor(np.nanmean(target_sample, 0)))
    network.target_scale.copy_(torch.as_tensor(np.where(scale > 1e-6, scale, 1.0)))


def epochs_done(checkpoint):
    """Return how many epochs a training has behind it.

    Parameters
    ----------
    checkpoint : str, pathlib.Path or None
        Its checkpoint, which need not exist.

    Returns
    -------
    int
        0 for a training that has not begun.
    """
    if checkpoint is None or not Path(checkpoint).exists():
        return 0
    return torch.load(checkpoint, map_location="cpu", weights_only=True)["epoch"]


def _resume(net, plan, checkpoint, device):
    saved = torch.load(checkpoint, map_location=device, weights_only=True)
    net.module_.load_state_dict(saved["module"])
    net.optimizer_.load_state_dict(saved["optimizer"])
    plan["average"].update(saved["average"])
    for key in ("epoch", "steps", "spent", "history"):
        plan[key] = saved[key]
