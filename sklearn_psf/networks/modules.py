"""Torch modules: patches in, encoded PSF parameters with their uncertainty and validity out.

Every backbone maps normalised patches (n, 1, H, W) to outputs; `PSFNetwork` wraps one.
"""

import torch
from torch import nn

from .outputs import split_outputs
from .polar import PolarNetwork
from .resnet import ResNet, resnext50
from .spectra import normalize_patches, polar_spectrum
from .unet import DenseNetwork, WindowReader

__all__ = [
    "ARCHITECTURES",
    "Compact",
    "PSFNetwork",
    "build_network",
    "load_initial_weights",
]


def _linear(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(inplace=True))


def _conv(n_in: int, n_out: int, kernel: int = 3, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, (kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


class Compact(nn.Module):
    """The default: a small network on the patch beside one on its polar power spectrum.

    The patch branch is pooled, since where a texture stands does not matter. The harmonics of the
    spectral branch go to the outputs directly too: an encoded axis is linear in them.

    Parameters
    ----------
    n_outputs : int
        Length of the output.
    """

    def __init__(self, n_outputs: int):
        super().__init__()
        self.patch = nn.Sequential(
            _conv(1, 32, 8, 4), _conv(32, 64), _conv(64, 96), _conv(96, 128),
            nn.AdaptiveAvgPool2d(1),
        )  # fmt: skip
        self.polar = PolarNetwork()
        self.hidden = _linear(128 + self.polar.n_features, 192)
        self.fc = nn.Linear(192 + self.polar.n_features, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 1, H, W) to (n, n_outputs)."""
        with torch.autocast(x.device.type, enabled=False):
            spectrum = polar_spectrum(x[:, 0])
        polar = self.polar(spectrum)
        hidden = self.hidden(torch.cat([self.patch(x).flatten(1), polar], 1))
        return self.fc(torch.cat([hidden, polar], 1))


ARCHITECTURES = {  # of patches
    "compact": Compact, "resnet34": ResNet, "resnext50": resnext50, "windows": WindowReader,
}  # fmt: skip


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
        """Map patches (n, H, W) to (n, 2 E + 1): means, log variances, logit of being invalid."""
        x = normalize_patches(patches).contiguous(memory_format=torch.channels_last)
        mixed = self.mixed_precision and self.training
        with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=mixed):
            outputs = self.backbone(x)
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
        A key of `ARCHITECTURES`, or "unet" for a network that maps whole images.
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
        The latter for "unet". In evaluation mode if a state was given.

    Raises
    ------
    ValueError
        If the architecture is unknown or the state does not fit.
    """
    known = (*ARCHITECTURES, "unet")
    if architecture not in known:
        raise ValueError(f"architecture must be one of {', '.join(known)}; got {architecture!r}.")
    with torch.random.fork_rng(devices=[], enabled=True):
        torch.manual_seed(0 if seed is None else seed)
        if architecture == "unet":
            network = DenseNetwork(n_encoded, mixed_precision)
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
    layer is taken over only where its shape fits; everything else must be there and fit.

    Parameters
    ----------
    network : PSFNetwork
        Changed in place.
    state : dict of str to array or Tensor
        Weights.

    Raises
    ------
    ValueError
        If names are missing or unknown, or a shape does not fit.
    """
    tensors = {name: _copied(value).float() for name, value in state.items()}
    prefix = "backbone."
    if any(name.startswith(prefix) for name in tensors):
        tensors = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    own = network.backbone.state_dict()
    stem = tensors.get("conv1.weight")
    if stem is not None and stem.ndim == 4 and stem.shape[1] == 3:
        tensors["conv1.weight"] = stem.sum(1, keepdim=True)
    for name in [n for n in tensors if n.startswith("fc.")]:
        if name in own and tensors[name].shape != own[name].shape:
            tensors[name] = own[name]
    tensors.setdefault("fc.weight", own["fc.weight"])
    tensors.setdefault("fc.bias", own["fc.bias"])
    try:
        network.backbone.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"initial_weights do not fit the architecture: {error}") from None
