"""ResNet-34 and ResNeXt-50 on one-channel images, with torchvision's parameter names.

Its weights load as they are, but for the stem, whose three colour filters are summed into one.
"""

from torch import Tensor, nn
from torch.nn import functional as F

__all__ = ["ResNet", "resnext50"]


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

    def forward(self, x: Tensor) -> Tensor:
        """Map (n, 1, H, W) to (n, n_outputs)."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((-2, -1)))


def resnext50(n_outputs: int) -> ResNet:
    """Build ResNeXt-50 (32 x 4d) with `n_outputs` outputs."""
    return ResNet(n_outputs, _Bottleneck, (3, 4, 6, 3), groups=32, base_width=4)
