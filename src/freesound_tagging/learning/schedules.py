"""Which layers learn when, and how fast: the ways to fine-tune a network, declared as data."""

from collections.abc import Callable
from dataclasses import dataclass

from fastai.torch_core import even_mults

from freesound_tagging.errors import look_up
from freesound_tagging.learning.profiles import Profile

N_GROUPS = 3
"""Early layers, late layers, head: the groups of every network."""


@dataclass(frozen=True)
class Stage:
    """Some epochs of one-cycle training.

    Attributes
    ----------
    frozen : groups, counted from the picture, that do not learn: 2 leaves the head alone.
    epochs : how many.
    lr : largest rate of the head.
    ratio : by how much the earliest group that learns is slower; those between are spaced evenly.
    """

    frozen: int
    epochs: int
    lr: float
    ratio: float = 1.0

    @property
    def rates(self) -> list[float]:
        """Largest rate of each group; that of a frozen one is not used."""
        learning = N_GROUPS - self.frozen
        lowest = self.lr / self.ratio
        spread = list(even_mults(lowest, self.lr, learning)) if learning > 1 else [self.lr]
        return [lowest] * self.frozen + spread


@dataclass(frozen=True)
class Method:
    """A way to fine-tune: whether it begins from pretrained weights, and its stages in order."""

    stages: Callable[[Profile], list[Stage]]
    pretrained: bool = True


def _head_alone(profile: Profile) -> Stage:
    return Stage(2, profile.frozen_epochs, profile.frozen_lr)


def _all_epochs(profile: Profile) -> int:
    return profile.frozen_epochs + profile.epochs


METHODS: dict[str, Method] = {
    "from_scratch": Method(lambda p: [Stage(0, _all_epochs(p), p.lr_max)], pretrained=False),
    "head_alone": Method(lambda p: [Stage(2, _all_epochs(p), p.frozen_lr)]),
    "one_rate": Method(lambda p: [Stage(0, _all_epochs(p), p.lr_max)]),
    "frozen_then_one_rate": Method(lambda p: [_head_alone(p), Stage(0, p.epochs, p.lr_max)]),
    "frozen_then_slice": Method(
        lambda p: [_head_alone(p), Stage(0, p.epochs, p.lr_max, p.lr_ratio)]
    ),
    "late_layers": Method(lambda p: [_head_alone(p), Stage(1, p.epochs, p.lr_max, p.lr_ratio)]),
    "gradual_unfreezing": Method(
        lambda p: [
            _head_alone(p),
            Stage(1, p.epochs - p.epochs // 2, p.lr_max, p.lr_ratio),
            Stage(0, p.epochs // 2, p.lr_max / 2, p.lr_ratio),
        ]
    ),
}
"""The ways by name. All train for ``frozen_epochs + epochs`` epochs, so that they can be compared.

``late_layers`` never lets the early ones learn; ``gradual_unfreezing`` frees one group after the
other (Howard and Ruder 2018), the last at half the rate, as fastai's `fine_tune` lowers it.
"""


def get_method(name: str) -> Method:
    """Return an entry of `METHODS`."""
    return look_up("fine_tuning", name, METHODS)


def training_stages(profile: Profile) -> list[Stage]:
    """Return the stages of a profile's training, in order; those of no epochs are left out."""
    stages = get_method(profile.fine_tuning).stages(profile)
    return [stage for stage in stages if stage.epochs > 0]
