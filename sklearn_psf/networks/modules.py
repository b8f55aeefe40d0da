"""Torch modules: patches in, encoded PSF parameters with their uncertainty and validity out.

Every backbone maps normalised patches (n, 1, H, W) to features or outputs; `PSFNetwork` wraps one.
`ResNet34` and `ResNeXt50` carry torchvision's parameter names, so that its weights load as they are
(but for the stem, whose three colour filters are summed into one).
"""

from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

__all__ = [
    "ARCHITECTURES",
    "Compact",
    "PSFNetwork",
    "ResNet",
    "build_network",
    "load_initial_weights",
    "log_power_spectra",
    "normalize_patches",
]

_RINGS = 80  # of the spectrum, 1/128 cycles per pixel apart: up to beyond the Nyquist frequency


def normalize_patches(x: torch.Tensor) -> torch.Tensor:
    """Bring each patch to mean 0 and standard deviation 1; a constant patch becomes 0.

    Parameters
    ----------
    x : Tensor of shape (n, H, W)
        Patches in any unit, with any offset.

    Returns
    -------
    Tensor of shape (n, 1, H, W)
        Normalised patches, float32.

    Examples
    --------
    >>> import torch
    >>> normalize_patches(torch.tensor([[[1.0, 3.0]], [[7.0, 7.0]]])).squeeze()
    tensor([[-1.,  1.],
            [ 0.,  0.]])
    """
    x = x.unsqueeze(1).float()
    mean = x.mean((-2, -1), keepdim=True)
    x = x - mean
    scale = x.square().mean((-2, -1), keepdim=True).sqrt()
    # Rounding of the offset, some 1e-7 of it, must not be blown up into texture.
    textured = scale > (1e-6 * mean.abs()).clamp(min=1e-20)
    return torch.where(textured, x / scale, torch.zeros_like(x))


def log_power_spectra(x: torch.Tensor) -> torch.Tensor:
    """Logarithms of two estimates of the power spectrum of normalised patches, half plane.

    Blur multiplies the power spectrum by the squared modulus of the OTF: in the logarithm it adds a
    pattern that depends on the PSF alone. A patch is no period of its image, and the jump at its
    borders would hide that pattern. The first estimate fades the borders out by a Hann window; the
    second takes off a smooth image with the same jumps (Moisan's periodic part), which uses every
    pixel and keeps twice the resolution, but leaves a cross along the axes.

    Parameters
    ----------
    x : Tensor of shape (n, 1, H, W)
        Normalised patches.

    Returns
    -------
    Tensor of shape (n, 2, H, W // 2)
        About zero mean and unit scale; frequency 0 is at row ``H // 2``, column 0. The spectrum of
        a real image is symmetric, so columns from 0 to Nyquist hold all of it.

    References
    ----------
    L. Moisan, "Periodic plus smooth image decomposition", J. Math. Imaging Vis. 39 (2011).
    """
    x = x.float()
    height, width = x.shape[-2:]
    window, inverse_laplacian = _spectral_constants(height, width, x.device)
    faded = torch.fft.rfft2(x * window)
    jumps = torch.zeros_like(x)
    jump_y, jump_x = x[..., -1, :] - x[..., 0, :], x[..., :, -1] - x[..., :, 0]
    jumps[..., 0, :] += jump_y
    jumps[..., -1, :] -= jump_y
    jumps[..., :, 0] += jump_x
    jumps[..., :, -1] -= jump_x
    periodic = torch.fft.rfft2(x) - torch.fft.rfft2(jumps) * inverse_laplacian
    spectra = torch.cat([faded, periodic / (height * width) ** 0.5], 1)[..., : width // 2]
    # White noise of unit variance has power 1; 1e-5 is far below any camera's noise.
    power = spectra.real**2 + spectra.imag**2 + 1e-5
    return torch.fft.fftshift(torch.log10(power), dim=-2) / 2 + 0.5


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is cached must also serve a training
def _spectral_constants(height: int, width: int, device: torch.device):
    """Hann window of unit energy, and the inverse of the discrete Laplacian's spectrum."""
    window = torch.outer(torch.hann_window(height), torch.hann_window(width))
    window = window / window.square().sum().sqrt()
    f_y, f_x = torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)
    laplacian = 2 * torch.cos(2 * torch.pi * f_y) + 2 * torch.cos(2 * torch.pi * f_x) - 4
    laplacian[0, 0] = 1  # the jumps have no mean
    return window.to(device), (1 / laplacian).to(device)


def _linear(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(n_in, n_out), nn.BatchNorm1d(n_out), nn.ReLU(inplace=True))


def _conv(n_in: int, n_out: int, kernel: int = 3, stride: int = 2) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, kernel, stride, (kernel - 1) // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    )


@lru_cache(maxsize=8)
@torch.inference_mode(False)  # what is cached must also serve a training
def _harmonic_basis(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Rings and angular harmonics of a half-plane spectrum, (height * width, RINGS * 5).

    Column (k, a) averages over the ring at radius k / 128 cycles per pixel, weighted by 1, cos 2t,
    sin 2t, cos 4t or sin 4t of the angle t.
    """
    f_y = (torch.arange(height) - height // 2) / height * 128
    f_x = torch.arange(width) / (2 * width) * 128
    radius, angle = torch.hypot(f_y[:, None], f_x), torch.atan2(f_y[:, None], f_x)
    rings = (1 - (radius[..., None] - torch.arange(1, _RINGS + 1)).abs()).clamp(min=0)
    rings = rings / rings.sum((0, 1)).clamp(min=1e-6)
    waves = [f(k * angle) for k in (2, 4) for f in (torch.cos, torch.sin)]
    harmonics = torch.stack([torch.ones_like(angle), *waves], -1)
    basis = rings[..., None] * harmonics[:, :, None]
    return basis.reshape(height * width, -1).to(device)


class Compact(nn.Module):
    """The default: a small network on the patch beside three on its log power spectrum.

    The patch branch is pooled (where a texture stands does not matter), two spectral branches are
    flattened (position is frequency): one sees the whole spectrum, one the inner quarter at full
    resolution, where the zeros of strong blur lie. The third is a perceptron on the spectrum's
    rings and their second and fourth angular harmonics: averages over many frequencies, in which
    defocus is a profile and astigmatism a harmonic that turns with its axis.

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
        self.spectrum = nn.Sequential(_conv(2, 16), _conv(16, 32), _conv(32, 32, stride=1))
        self.inner = nn.Sequential(_conv(2, 16, stride=1), _conv(16, 32), _conv(32, 32))
        self.pools = nn.ModuleList([nn.AdaptiveAvgPool2d((32, 16)), nn.AdaptiveAvgPool2d((16, 8))])
        self.mix = nn.ModuleList([nn.Conv2d(32, 12, 1), nn.Conv2d(32, 24, 1)])
        self.harmonics = nn.Sequential(
            nn.BatchNorm1d(10 * _RINGS), _linear(10 * _RINGS, 192), _linear(192, 96)
        )
        self.hidden = _linear(128 + 12 * 512 + 24 * 128 + 96, 160)
        self.fc = nn.Linear(160, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 1, H, W) to (n, n_outputs)."""
        spectrum = log_power_spectra(x)
        height, width = spectrum.shape[-2:]
        inner = spectrum[..., height // 4 : height - height // 4, : width // 2]
        basis = _harmonic_basis(height, width, x.device)
        harmonics = spectrum.flatten(2) @ basis
        features = [self.patch(x).flatten(1), self.harmonics(harmonics.flatten(1))]
        branches = ((self.spectrum, spectrum), (self.inner, inner))
        for (branch, values), pool, mix in zip(branches, self.pools, self.mix, strict=True):
            features.append(mix(pool(branch(values))).flatten(1))
        return self.fc(self.hidden(torch.cat(features, 1)))


class _BasicBlock(nn.Module):
    expansion = 1

    def __init__(self, n_in, width, stride, **unused):
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(n_in, width * self.expansion, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class _Bottleneck(nn.Module):
    expansion = 4

    def __init__(self, n_in, width, stride, groups=1, base_width=64):
        super().__init__()
        inner = width * base_width // 64 * groups
        n_out = width * self.expansion
        self.conv1 = nn.Conv2d(n_in, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, n_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(n_out)
        self.downsample = _shortcut(n_in, n_out, stride)

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


def _shortcut(n_in, n_out, stride):
    if stride == 1 and n_in == n_out:
        return None
    return nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))


class ResNet(nn.Module):
    """Residual network of four stages on one-channel images.

    Parameters
    ----------
    n_outputs : int
        Length of the output.
    block : type
        Residual block.
    layers : tuple of 4 int
        Blocks per stage.
    **widths
        Groups and base width of a bottleneck.

    References
    ----------
    K. He et al., "Deep residual learning for image recognition", CVPR 2016.
    S. Xie et al., "Aggregated residual transformations for deep neural networks", CVPR 2017.
    """

    def __init__(self, n_outputs: int, block=_BasicBlock, layers=(3, 4, 6, 3), **widths):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 64, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        n_in = 64
        for i, n_blocks in enumerate(layers):
            width, stages = 64 * 2**i, []
            for k in range(n_blocks):
                stages.append(block(n_in, width, 2 if k == 0 and i > 0 else 1, **widths))
                n_in = width * block.expansion
            setattr(self, f"layer{i + 1}", nn.Sequential(*stages))
        self.fc = nn.Linear(n_in, n_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map (n, 1, H, W) to (n, n_outputs)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((-2, -1)))


def _resnext50(n_outputs: int) -> ResNet:
    return ResNet(n_outputs, _Bottleneck, (3, 4, 6, 3), groups=32, base_width=4)


ARCHITECTURES = {"compact": Compact, "resnet34": ResNet, "resnext50": _resnext50}


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
        outputs = self(patches)
        mean, log_variance = outputs[:, : self.n_encoded], outputs[:, self.n_encoded : -1]
        encoding = mean * self.target_scale + self.target_mean
        variance = log_variance.clamp(-12, 6).exp() * self.target_scale**2
        # A constant patch says nothing, whatever a network that was trained on noise makes of it.
        constant = patches.amax((-2, -1)) == patches.amin((-2, -1))
        return encoding, variance, outputs[:, -1].sigmoid().masked_fill(constant, 1.0)


def build_network(
    architecture: str,
    n_encoded: int,
    state: dict | None = None,
    *,
    seed: int | None = None,
    mixed_precision: bool = False,
) -> PSFNetwork:
    """Build a network, either from a NumPy state or freshly initialised from a seed.

    Parameters
    ----------
    architecture : str
        A key of `ARCHITECTURES`.
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
    PSFNetwork
        In evaluation mode if a state was given.

    Raises
    ------
    ValueError
        If the architecture is unknown or the state does not fit.
    """
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {', '.join(ARCHITECTURES)}; got {architecture!r}."
        )
    with torch.random.fork_rng(devices=[], enabled=True):
        torch.manual_seed(0 if seed is None else seed)
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


def load_initial_weights(network: PSFNetwork, state: dict) -> None:
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
