"""The two networks, and the three groups of layers that learn at different rates."""

import math
import urllib.error
import warnings
from functools import lru_cache

import torch
import torchvision
from fastai.torch_core import params
from torch import Tensor, nn

ARCHITECTURES = ("compact", "resnext50_32x4d")
PLANES = 3
"""Planes of a network's first convolution, whatever the variant."""


class RepeatPlane(nn.Module):
    """Repeat a one-plane picture, so that all variants meet the same network with the same weights.

    (n, 1 or 3, rows, columns) -> (n, 3, rows, columns).
    """

    def forward(self, picture: Tensor) -> Tensor:
        return picture.as_subclass(Tensor).expand(-1, PLANES, -1, -1)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a convolution and a pooling that make the picture twice smaller.

    Pooling comes before the normalisation, which then has a quarter of the numbers to go through.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.MaxPool2d(2, ceil_mode=True),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def compact_network(n_classes: int, width: int = 8) -> nn.Sequential:
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
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16 * width, n_classes)
    )
    return nn.Sequential(early, late, head)


@lru_cache(maxsize=1)
def imagenet_weights() -> dict[str, Tensor] | None:
    """Return resnext50_32x4d's ImageNet weights, which torchvision downloads on first use.

    Where that fails, a warning says so and what to do, and None is returned.
    """
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


def resnext_network(n_classes: int) -> nn.Sequential:
    """Return torchvision's resnext50_32x4d in three groups, with the reference head (dropout 0.33).

    It starts from `imagenet_weights`, where these can be had.
    """
    network = torchvision.models.resnext50_32x4d(weights=None)
    weights = imagenet_weights()
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
    head = nn.Sequential(
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(0.33),
        nn.Linear(network.fc.in_features, n_classes),
    )
    return nn.Sequential(early, late, head)


def build_network(architecture: str, n_classes: int, width: int = 8) -> nn.Sequential:
    """Return a new network of that architecture; ``width`` is for the compact one alone.

    Raises
    ------
    ValueError
        Where the architecture is unknown, or there are fewer than two classes.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes must be 2 or more, got {n_classes}")
    if architecture == "compact":
        return compact_network(n_classes, width)
    if architecture == "resnext50_32x4d":
        return resnext_network(n_classes)
    raise ValueError(
        f"unknown architecture {architecture!r}; the known ones are: {', '.join(ARCHITECTURES)}"
    )


def layer_groups(network: nn.Sequential) -> list[list[nn.Parameter]]:
    """Return the parameters of early layers, late layers and head: fastai's ``splitter``."""
    return [params(part) for part in network]


def count_weights(network: nn.Module) -> int:
    """Return the number of trainable numbers of a network."""
    return sum(math.prod(weight.shape) for weight in network.parameters())


def best_device() -> torch.device:
    """Return the device for training: CUDA where there is one, else Apple's MPS, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")
