"""How large and how long: the profiles, declared once."""

from dataclasses import dataclass, replace

from freesound_tagging.errors import look_up
from freesound_tagging.features.grid import Grid


@dataclass(frozen=True, kw_only=True)
class Profile:
    """Everything that sets the size of an experiment; the same for every representation."""

    grid: Grid  # the rows and columns of all spectrograms
    architecture: str  # key of `freesound_tagging.learning.networks.NETWORKS`
    batch_size: int = 32
    # A first stage in which the head learns alone; of no epochs by default.
    frozen_epochs: int = 0
    frozen_lr: float = 3e-3
    # Then all layers learn: the head at lr_max, the early ones at lr_max / lr_ratio.
    epochs: int
    lr_max: float
    lr_ratio: float = 1.0
    weight_decay: float = 0.01  # of AdamW
    width: int = 8  # channels after the compact network's first convolution, half the waveform's
    # What varies in training, all off by default; held-out clips are always seen as they are.
    mixup: float = 0.0  # alpha of mixup's Beta distribution
    crop: float = 1.0  # share of the columns seen at a time, from a random start
    time_shift: float = 0.0  # largest circular shift, as a share of the length
    gain: float = 0.0  # largest change of a waveform's level, in dB either way
    mask: float = 0.0  # widest band of rows, and of columns, that is hidden, as a share
    unverified_weight: float = 1.0  # in the loss, 0 to 1, of clips whose label no person checked
    folds: int | None = None  # how many of the data set's folds are run; None for all
    seeds: tuple[int, ...] = (0,)  # one run for each
    clips_per_class: int = 20  # of the generated corpus microcalls
    max_clips: int | None = None  # of any other data set, drawn evenly over label and fold


_AUGMENTATION = {"mixup": 0.3, "time_shift": 0.5, "mask": 0.1}

PROFILES: dict[str, Profile] = {
    # The reference schedule, without augmentation. Its maximum rate of 6e-2 was unstable (single
    # folds ended with a validation loss of 14 and 26); a tenth of it is not.
    "gpu": Profile(
        grid=Grid(frames_per_column=2),
        architecture="resnext50_32x4d",
        batch_size=64,
        frozen_epochs=5,
        epochs=10,
        lr_max=6e-3,
        lr_ratio=100,
        clips_per_class=200,
    ),
    # Transfer learning as a practitioner does it: the whole clip, all 224 rows; first the new head,
    # then every layer, the early ones slowly. Chosen on inner folds, see results/PLAN.md.
    "pretrained": Profile(
        grid=Grid(duration=5.0, hop_length=788, frames_per_column=4),
        architecture="efficientnet_lite0",
        frozen_epochs=2,
        frozen_lr=5e-3,
        epochs=22,
        lr_max=5e-3,
        lr_ratio=10,
        **_AUGMENTATION,
    ),
    # A linear layer on what YAMNet, which has heard sounds and is not trained here, says of each
    # clip as a whole. Its rows are its own; of longer sounds it hears 5 s at a time.
    "audio": Profile(
        grid=Grid(sample_rate=16_000, duration=5.0, hop_length=160),
        architecture="yamnet",
        epochs=0,
        lr_max=0.0,
    ),
    # From random weights, in seconds. Half the rows and columns of the full grid: 112 x 112.
    "cpu": Profile(
        grid=Grid(hop_length=394, bins_per_octave=13.0),
        architecture="compact",
        epochs=40,
        lr_max=1e-2,
        **_AUGMENTATION,
    ),
    # Only to see that everything runs: its scores say nothing.
    "smoke": Profile(
        grid=Grid(hop_length=1576, bins_per_octave=3.3, oversampling=6),
        architecture="compact",
        batch_size=8,
        frozen_epochs=1,
        epochs=1,
        lr_max=1e-2,
        lr_ratio=3,
        **_AUGMENTATION,
        folds=2,
        clips_per_class=5,
        max_clips=60,
    ),
}

# Insects sing from a few hundred Hz to the 22,050 Hz that their recordings hold, for 1 to 39 s: as
# many rows as elsewhere, spread over that range, and five windows of 2 s of each recording.
_INSECTS = Grid(
    sample_rate=44_100,
    hop_length=788,
    bins_per_octave=38.5,
    fmin=400.0,
    fmax=22_050.0,
    frames_per_column=2,
    windows=5,
)

ADJUSTMENTS: dict[tuple[str, str], dict] = {
    # The generated calls differ in fine detail, which blending two clips or hiding a part of one
    # takes away. They last 0.4 to 1.2 s and lie between 400 and 6,000 Hz: the grid spends its cells
    # there. Small batches learn most in the few seconds of a run.
    ("cpu", "microcalls"): {
        "grid": Grid(duration=1.3, hop_length=394, bins_per_octave=26.2, fmin=400.0, fmax=6_000.0),
        "mixup": 0.0,
        "mask": 0.0,
        "epochs": 20,
        "batch_size": 16,
        "lr_max": 4e-3,
    },
    # Digits last 0.4 s and were recorded at 8 kHz.
    ("cpu", "fsdd"): {
        "grid": Grid(duration=0.75, hop_length=394, bins_per_octave=13.0, fmin=60.0, fmax=4_000.0),
        "mixup": 0.0,
        "mask": 0.2,
        "epochs": 21,
    },
    ("cpu", "insectset32"): {"grid": replace(_INSECTS, bins_per_octave=19.1, frames_per_column=1)},
    ("pretrained", "insectset32"): {"grid": _INSECTS, "epochs": 14},
    ("gpu", "insectset32"): {"grid": replace(_INSECTS, hop_length=394)},
    # YAMNet hears nothing above 7,500 Hz: 44,100 samples are played to it in 2.76 s.
    ("audio", "insectset32"): {
        "grid": replace(PROFILES["audio"].grid, sample_rate=44_100, duration=10.0)
    },
    ("audio", "microcalls"): {"grid": replace(PROFILES["audio"].grid, duration=1.3)},
    ("audio", "fsdd"): {"grid": replace(PROFILES["audio"].grid, duration=1.0)},
    ("smoke", "insectset32"): {"grid": replace(PROFILES["smoke"].grid, windows=2)},
}
"""Settings for a profile and a data set that take the place of the profile's own."""


def get_profile(name: str, dataset: str = "") -> Profile:
    """Return the profile of that name, adjusted to a data set where `ADJUSTMENTS` say so."""
    profile = look_up("PROFILE", name, PROFILES)
    return replace(profile, **ADJUSTMENTS.get((name, dataset), {}))


def parse_seeds(text: str | None) -> int | None:
    """Return the number of seeds that SEEDS asks for, None where it is empty or not set."""
    if text and not (text.isdecimal() and int(text) >= 1):
        raise ValueError(f"SEEDS must be a whole number of 1 or more, got {text!r}")
    return int(text) if text else None
