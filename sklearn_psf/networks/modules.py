"""Torch modules: patches in, encoded PSF parameters with their uncertainty and validity out.

Every backbone maps normalised patches (n, 1, H, W) to outputs; `PSFNetwork` wraps one.
"""

import torch
from torch import nn

from .compact import Compact, DirectedCompact
from .dense import DENSE_ARCHITECTURES, DenseNetwork
from .outputs import split_outputs
from .polar_reader import PolarReader
from .resnet import ResNet, resnext50
from .spectra import normalize_parts, normalize_patches

__all__ = [
    "ARCHITECTURES",
    "READERS",
    "PSFNetwork",
    "build_network",
    "load_initial_weights",
]


_READERS = ("windows.reader.", "again.")  # the names of their weights within a dense network

ARCHITECTURES = {  # of patches
    "compact": Compact, "resnet34": ResNet, "resnext50": resnext50,
    "compact-directed": DirectedCompact, "polar": PolarReader,
}  # fmt: skip


# which of them read windows for a network of whole images
READERS = {"unet": "compact", "unet-directed": "compact-directed"}


class PSFNetwork(nn.Module):
    """A backbone with the normalisation of patches and targets around it.

    Parameters
    ----------
    architecture : str
        A key of `ARCHITECTURES`.
    n_encoded : int
        Length E of a PSF family's encoding.
    mixed_precision : bool
        Compute in bfloat16 where it is safe, while training.

    Attributes
    ----------
    target_mean, target_scale : Tensor of shape (E,)
        Buffers: the network regresses ``(encoding - mean) / scale``.
    """

    def __init__(self, architecture: str, n_encoded: int, mixed_precision: bool = False):
        super().__init__()
        self.architecture, self.n_encoded = architecture, n_encoded
        self.mixed_precision = mixed_precision
        self.backbone = ARCHITECTURES[architecture](2 * n_encoded + 1)
        self.register_buffer("target_mean", torch.zeros(n_encoded))
        self.register_buffer("target_scale", torch.ones(n_encoded))

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Map patches (n, H, W) to (n, 2 E + 1): means, log variances, logit of being invalid.

        "polar" also takes parts of patches (n, 4 or 5, H, W), or what it saw of them (n, L).
        """
        read, x = self.backbone, patches.float()
        if patches.ndim == 2:
            read = self.backbone.read_seen
        elif patches.ndim == 4:
            x = normalize_parts(x)
        else:
            x = normalize_patches(x).contiguous(memory_format=torch.channels_last)
        mixed = self.mixed_precision and self.training
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=mixed):
            outputs = read(x)
        return outputs.float()

    def read(self, patches: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return encoding (n, E), its variance (n, E) and the probability of being invalid (n,)."""
        parts = split_outputs(self(patches), self.target_mean, self.target_scale)
        encoding, variance, invalid = parts
        # A constant patch says nothing, whatever a network that was trained on noise makes of it.
        constant = patches.amax((-2, -1)) == patches.amin((-2, -1))
        return encoding, variance, invalid.masked_fill(constant, 1.0)


def build_network(
    architecture: str,
    n_encoded: int,
    state: dict | None = None,
    *,
    seed: int | None = None,
    mixed_precision: bool = False,
) -> PSFNetwork | DenseNetwork:
    """Build a network, either from a NumPy state or freshly initialised from a seed.

    Parameters
    ----------
    architecture : str
        A key of `ARCHITECTURES`, or of `DENSE_ARCHITECTURES` for a network that maps whole images.
    n_encoded : int
        Length of the family's encoding.
    state : dict of str to ndarray, optional
        A whole state; loaded strictly.
    seed : int, optional
        Seed of the initialisation; torch's global state is left as it was.
    mixed_precision : bool
        See `PSFNetwork`.

    Returns
    -------
    PSFNetwork or DenseNetwork
        The latter for a dense architecture. In evaluation mode if a state was given.

    Raises
    ------
    ValueError
        If the architecture is unknown or the state does not fit.
    """
    known = (*ARCHITECTURES, *DENSE_ARCHITECTURES)
    if architecture not in known:
        raise ValueError(f"architecture must be one of {', '.join(known)}; got {architecture!r}.")
    with torch.random.fork_rng(devices=[], enabled=True):
        torch.manual_seed(0 if seed is None else seed)
        if architecture in DENSE_ARCHITECTURES:
            network = DenseNetwork(architecture, n_encoded, mixed_precision)
        else:
            network = PSFNetwork(architecture, n_encoded, mixed_precision)
    if state is None:
        return network
    try:
        network.load_state_dict({name: _copied(value) for name, value in state.items()})
    except RuntimeError as error:
        raise ValueError(f"The weights do not fit architecture {architecture!r}: {error}") from None
    return network.eval()


def _copied(value) -> torch.Tensor:
    # as_tensor would share memory with arrays, and warn about read-only ones
    return value.detach().clone() if isinstance(value, torch.Tensor) else torch.tensor(value)


def load_initial_weights(network: PSFNetwork | DenseNetwork, state: dict) -> None:
    """Start a network from other weights: its own kind of state, or one with torchvision's names.

    A stem for three colours is summed over them (a grey image is three equal colours); the last
    layer is taken over only where its shape fits; everything else must be there and fit. A network
    that maps whole images also takes weights of its readers alone, and freezes those that it gets.

    Parameters
    ----------
    network : PSFNetwork or DenseNetwork
        Changed in place.
    state : dict of str to array or Tensor
        Weights.

    Raises
    ------
    ValueError
        If names are missing or unknown, or a shape does not fit.
    """
    tensors, own = _of_backbone(state), network.backbone.state_dict()
    again = any(name.startswith(_READERS[1]) for name in tensors)
    new = ("fc.", *getattr(network.backbone, "added", ()))
    if isinstance(network, DenseNetwork):
        if not any(name.startswith(_READERS) for name in tensors):
            tensors = {_READERS[0] + name: value for name, value in tensors.items()}
        if all(name.startswith(_READERS) for name in tensors):
            new = (*new, *(name for name in own if not name.startswith(_READERS)))
    for name in [n for n in tensors if n.startswith("fc.")]:
        if name in own and tensors[name].shape != own[name].shape:
            tensors[name] = own[name]
    tensors = {name: value for name, value in own.items() if name.startswith(new)} | tensors
    try:
        network.backbone.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"initial_weights do not fit the architecture: {error}") from None
    if isinstance(network, DenseNetwork):
        network.backbone.freeze(again)


def _of_backbone(state: dict) -> dict[str, torch.Tensor]:
    """Tensors of a backbone that sees one colour."""
    tensors = {name: _copied(value).float() for name, value in state.items()}
    prefix = "backbone."
    if any(name.startswith(prefix) for name in tensors):
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    stem = tensors.get("conv1.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] == 3:
        tensors["conv1.weight"] = stem.sum(1, keepdim=True)
    return tensors
