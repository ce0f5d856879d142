"""The studies around the grid, declared as data: what each asks, of which data sets, by which runs.

`freesound_tagging.runs.studies` makes them. Nothing heavy is imported here, so that a command's
arguments can be checked at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from freesound_tagging.errors import look_up

COMPARED = ("mel_db", "log_db", "hires_q8", "3ch_log_db_windows", "3ch_hires_q1_q8_log_db")
"""The two references, one high-resolution spectrogram, the control stack, the reference's mix."""

CONTRASTS: tuple[tuple[str, str], ...] = (
    ("hires_q2", "gabor_q2"),
    ("hires_q8", "gabor_q8"),
    ("3ch_hires_q1_q8_log_db", "3ch_gabor_q1_q8_log_db"),
    ("3ch_hires_q1_q8_log_db", "3ch_log_db_windows"),
    ("3ch_hires_q1_q8_log_db", "log_db"),
    ("log_db", "mel_db"),
)
"""Representation and what it is compared with, as results/PLAN.md fixed them beforehand."""

STACKED = ("log_db", "log_linear", "hires_q2")
"""Networks below the stack of notebook 12: decibels, magnitude, high resolution. Each is trained
once more for every two folds, so they are few."""

FINE_TUNING: dict[str, str] = {
    "from_scratch": "random weights, one rate for all",
    "head_alone": "nothing but the head learns",
    "one_rate": "one rate for all from the first epoch",
    "frozen_then_one_rate": "first the head, then all at one rate",
    "frozen_then_slice": "first the head, then all, early layers slowest",
    "gradual_unfreezing": "one group of layers after the other",
}
"""Ways to fine-tune that are compared, of `freesound_tagging.learning.schedules.METHODS`."""


@dataclass(frozen=True)
class Condition:
    """Runs that share their settings.

    Attributes
    ----------
    name : of the folder of its runs, and in the tables.
    variants : the representations; none named means all of the main table.
    settings : what differs from the profile, and ``grid`` from its grid.
    sounds : options of the generated corpus.
    relabel : clips with other labels and folds, key of `freesound_tagging.runs.studies.RELABEL`.
    folds, seeds : how many of the folds and seeds there are, None for all.
    inner : each run holds out a pair of neighbouring folds, see `studies.inner_tables`.
    datasets : those of the study's on which it is asked, by default all.
    every_pair : each run holds out two folds, any two, see `studies.tables_of_pairs`.
    chosen_from : study whose conditions are candidates: for each representation and fold the one is
        taken that does best on inner folds, of those that share this condition's settings.
    """

    name: str
    variants: tuple[str, ...] = ()
    settings: Mapping = field(default_factory=dict)
    grid: Mapping = field(default_factory=dict)
    sounds: Mapping = field(default_factory=dict)
    relabel: str = ""
    folds: int | None = None
    seeds: int | None = None
    inner: bool = False
    every_pair: bool = False
    chosen_from: str = ""
    datasets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Study:
    """A question, the data sets on which it is asked, and the runs that answer it.

    Attributes
    ----------
    profile, seeds : by default; PROFILE and SEEDS take their place.
    keep_diverged : a run that diverges is kept as one that knows nothing.
    """

    question: str
    datasets: tuple[str, ...]
    conditions: tuple[Condition, ...]
    profile: str = "cpu"
    seeds: int = 3
    keep_diverged: bool = False


_EVERY_Q = ("hires_q1", "hires_q2", "hires_q4")  # q = 8 is in COMPARED

_CONTROLS = (
    Condition("grid", (*COMPARED, "linear_db", "log_linear", *_EVERY_Q, "3ch_hires_q1_q4_q8")),
    Condition(
        "matched",
        (
            "log_short_db",
            "log_long_db",
            "mel_htk_db",
            "hires_q2_magnitude",
            "hires_q8_magnitude",
            "hires_q8_linear",
            "hires_q8_mel",
            "hires_q8_all_points",
            "hires_consensus",
        ),
    ),
    Condition("unmoved", ("gabor_q1", "gabor_q2", "gabor_q4", "gabor_q8")),
    Condition("hop_197", ("log_db", "hires_q8"), grid={"hop_length": 197}),
    Condition("hop_512", ("log_db",), grid={"hop_length": 512}),
    Condition("bins_13", ("log_db", "hires_q8"), grid={"bins_per_octave": 13.0}),
    Condition("bins_26", ("log_db", "hires_q8"), grid={"bins_per_octave": 26.2}),
)

_CURVE_FOLDS = 3
"""Folds held out at each point of a curve: points cost more than they tell, so three of five."""

_LEARNING_RATES = {
    "adamw": (1e-2, 3e-2),
    "adam": (1e-2, 3e-2),
    "sgd": (1e-1, 3e-1),
    "lookahead_radam": (1e-2, 3e-2),
}
# Half of optimizer x learning rate x mixup: every optimizer meets both of its rates and both sides
# of mixup. The first is the default. A trial is short: what learns fastest is not always what
# learns most, and the judges, who train in full, would show it.
_TRIALS = tuple(
    {
        "optimizer": optimizer,
        "lr_max": rate,
        "mixup": 0.3 if (row + column) % 2 == 0 else 0.0,
        "epochs": 5,
    }
    for row, (optimizer, rates) in enumerate(_LEARNING_RATES.items())
    for column, rate in enumerate(rates)
)

# What a tagger is made of, each step with all of those before; fixed before any was measured, but
# for "wider" and the pretrained "longer", which were added when the steps before them had been.
_MIX = ("3ch_hires_q1_q8_log_db",)
_WHOLE = {"duration": 5.0}
TAGGER_STEPS: dict[str, dict[str, str]] = {
    "tagger": {
        "plain": "only shifted in time",
        "mask": "hidden bands (SpecAugment)",
        "mixup": "mixup",
        "stack": "q = 1, q = 8 and log dB as channels",
        "crops": "random 2 s of all 5 s",
        "longer": "half as many epochs again",
        "wider": "twice as many channels in every layer",
    },
    "pretrained_tagger": {
        "plain": "the grid's network, log dB",
        "whole": "all 5 s in one spectrogram, columns twice as long",
        "all_layers": "all layers learn, at one rate",
        "varied": "mixup, hidden bands, shifts in time; twice as many epochs",
        "longer": "twice as many epochs again",
    },
    "insect_tagger": {
        "plain": "the grid's network, log dB",
        "varied": "all layers learn, at one rate; mixup, hidden bands, shifts in time; twice as "
        "many epochs",
    },
}
_TAGGER = (
    Condition("plain", ("log_db",), {"mask": 0.0, "mixup": 0.0}, seeds=1),
    Condition("mask", ("log_db",), {"mixup": 0.0}, seeds=1),
    Condition("mixup", ("log_db",), seeds=1),
    Condition("stack", _MIX, seeds=1),
    Condition("crops", _MIX, {"crop": 0.4}, _WHOLE, seeds=1),
    Condition("longer", _MIX, {"crop": 0.4, "epochs": 60}, _WHOLE, seeds=1),
    Condition("wider", _MIX, {"crop": 0.4, "epochs": 60, "width": 16}, _WHOLE),
)

_WHOLE_CLIP = {"duration": 5.0, "hop_length": 788}
_ALL_LAYERS = {"fine_tuning": "one_rate"}
_VARIED = _ALL_LAYERS | {"mixup": 0.3, "mask": 0.1, "time_shift": 0.5, "epochs": 16}
_PRETRAINED_TAGGER = (
    Condition("plain", ("log_db",)),
    Condition("whole", ("log_db",), {}, _WHOLE_CLIP),
    Condition("all_layers", ("log_db",), _ALL_LAYERS, _WHOLE_CLIP),
    Condition("varied", ("log_db", "mel_db"), _VARIED, _WHOLE_CLIP),
    Condition("longer", ("log_db", "mel_db"), _VARIED | {"epochs": 32}, _WHOLE_CLIP),
)

_INSECT_TAGGER = (
    Condition("plain", ("log_db",)),
    Condition("varied", ("log_db", "mel_db"), _VARIED | {"epochs": 32}),
)

# Of each optimizer two rates; a trial has half the epochs of the judges.
_OPTIMIZER_TRIALS = tuple(
    Condition(
        f"{optimizer}_{rate:g}",
        ("log_db", *_MIX),
        {"optimizer": optimizer, "lr_max": rate, "epochs": 4},
        inner=True,
    )
    for optimizer, rates in {
        "adamw": (2e-3, 5e-3),
        "adam": (2e-3, 5e-3),
        "sgd": (3e-2, 1e-1),
        "lookahead_radam": (5e-3, 1.5e-2),
    }.items()
    for rate in rates
)

# Of notebook 10. As many epochs as the spectrograms have, and one rate for all layers.
_WAVEFORM = {
    "architecture": "waveform",
    "frozen_epochs": 0,
    "lr_max": 1e-2,
    "lr_ratio": 1.0,
    "crop": 0.75,
    "gain": 6.0,
    "mask": 0.0,
}

# Of notebook 11: what came fourth in the challenge (Kaggle discussion 62634), and each ingredient
# left out. Windows of 1.5 s are drawn in training and averaged in scoring.
_RECIPE = {"mixup": 0.3, "unverified_weight": 0.6}
_RECIPE_WINDOWS = {"duration": 1.5, "windows": 3}
_DELTAS = ("3ch_mel_deltas",)
RECIPE: dict[str, str] = {
    "whole": "log-mel with deltas, mixup, windows, weights",
    "mfcc": "MFCC in place of log-mel",
    "without_deltas": "log-mel alone",
    "without_mixup": "clips are not blended",
    "without_windows": "the best-centred crop alone",
    "without_weights": "unverified labels count in full",
    "from_scratch": "no pretrained weights",
    "grid": "nothing of it",
}

_FINE = ("log_db", "hires_q2", "gabor_q2", "hires_q8", "gabor_q8")

_SPEECH = (
    Condition("grid", ("mel_db", "log_db", "hires_q2", "hires_q8")),
    Condition("matched", ("mel_htk_db", "hires_q2_mel", "hires_q8_mel", "log_pcen", "mel_pcen")),
    Condition("unmoved", ("gabor_q2", "gabor_q8")),
    Condition("longer", _FINE, {"epochs": 20}),
)

STUDIES: dict[str, Study] = {
    "contrasts": Study(
        "Does reassignment help a pretrained network? (results/PLAN.md)",
        ("esc10", "insectset32"),
        (Condition("grid", tuple(dict.fromkeys(sum(CONTRASTS, ())))),),
        profile="pretrained",
        keep_diverged=True,
    ),
    "representations": Study(
        "How does every other representation do with a pretrained network?",
        ("esc10", "insectset32"),
        (Condition("grid"),),
        profile="pretrained",
        seeds=1,
        keep_diverged=True,
    ),
    "rates": Study(
        "What do differential learning rates change?",
        ("esc10", "insectset32"),
        # Fixed beforehand: two epochs of the profile's eight for a head that learns alone.
        tuple(
            Condition(method, ("log_db",), {"fine_tuning": method, "frozen_epochs": 2, "epochs": 6})
            for method in FINE_TUNING
        ),
        profile="pretrained",
        keep_diverged=True,
    ),
    "optimizer_trials": Study(
        "Which learning rate does each optimizer want, by inner folds?",
        ("esc10",),
        _OPTIMIZER_TRIALS,
        profile="pretrained",
        seeds=1,
        keep_diverged=True,
    ),
    "optimizers": Study(
        "Does another optimizer change the answer?",
        ("esc10",),
        tuple(
            Condition(
                optimizer,
                ("log_db", *_MIX),
                {"optimizer": optimizer},
                chosen_from="optimizer_trials",
            )
            for optimizer in _LEARNING_RATES
        ),
        profile="pretrained",
        seeds=1,
        keep_diverged=True,
    ),
    "learning": Study(
        "With more clips and a training loss near 0, what is a family's difference?",
        ("microcalls",),
        tuple(
            Condition(
                f"{clips}", _FINE, {"clips_per_class": clips, "epochs": epochs}, folds=_CURVE_FOLDS
            )
            for clips, epochs in ((20, 120), (60, 60), (180, 30))
        ),
        seeds=1,
    ),
    "fine_rows": Study(
        "Is FSDD's answer that of its coarse rows?",
        ("fsdd",),
        (Condition("bins_26", ("mel_db", *_FINE), grid={"bins_per_octave": 26.2}),),
        seeds=1,
    ),
    "speech": Study(
        "What is FSDD's answer due to: few epochs, the axis, the loudness, or reassignment?",
        ("fsdd",),
        _SPEECH,
        seeds=1,
    ),
    "controls": Study(
        "What is a gain due to: reassignment, or the axis, the hop, the rows, the windows?",
        ("microcalls", "esc10"),
        _CONTROLS,
    ),
    "difficulty": Study(
        "How fine a distinction does it take?",
        ("microcalls",),
        tuple(
            # Of difficulty 1 is the corpus itself.
            Condition(
                f"{difficulty:g}",
                COMPARED,
                sounds={"difficulty": difficulty} if difficulty != 1 else {},
                folds=_CURVE_FOLDS,
            )
            for difficulty in (0.5, 1.0, 2.0, 4.0)
        ),
    ),
    "noise": Study(
        "How much noise takes a gain away?",
        ("microcalls",),
        tuple(
            # The same signal-to-noise ratio in every clip; those of the corpus draw -4 to 16 dB.
            Condition(f"{noise:+g}dB", COMPARED, sounds={"snr_db": noise}, folds=_CURVE_FOLDS)
            for noise in (-9.0, -1.0, 7.0, 21.0)
        ),
    ),
    "speakers": Study(
        "Do digits x speakers, 60 classes, need more detail?",
        ("fsdd",),
        (Condition("digit_and_speaker", COMPARED, relabel="digit and speaker"),),
        seeds=1,
    ),
    "trials": Study(
        "Which optimizer, learning rate and mixup does each variant want, by inner folds?",
        ("esc10",),
        tuple(
            Condition(f"trial{number:02d}", COMPARED, trial, inner=True)
            for number, trial in enumerate(_TRIALS)
        ),
        seeds=1,
        keep_diverged=True,
    ),
    "tuned": Study(
        "Does tuning change the ranking?",
        ("esc10",),
        (Condition("grid", COMPARED), Condition("tuned", COMPARED, chosen_from="trials")),
        seeds=1,
        keep_diverged=True,
    ),
    "waveform": Study(
        "How far does a network get on the waveform itself?",
        ("microcalls", "esc10"),
        (Condition("network", ("waveform",), _WAVEFORM),),
        seeds=1,
    ),
    "recipe": Study(
        "What does each ingredient of the 4th-place recipe gain?",
        ("microcalls", "esc10", "fsdkaggle2018"),
        (
            Condition("whole", _DELTAS, _RECIPE, _RECIPE_WINDOWS),
            Condition("mfcc", ("3ch_mfcc_deltas",), _RECIPE, _RECIPE_WINDOWS),
            Condition("without_deltas", ("mel_db",), _RECIPE, _RECIPE_WINDOWS),
            Condition("without_mixup", _DELTAS, _RECIPE | {"mixup": 0.0}, _RECIPE_WINDOWS),
            Condition("without_windows", _DELTAS, _RECIPE),
            Condition(
                "without_weights",
                _DELTAS,
                _RECIPE | {"unverified_weight": 1.0},
                _RECIPE_WINDOWS,
                datasets=("fsdkaggle2018",),  # the one with labels that nobody checked
            ),
            Condition(
                "from_scratch",
                _DELTAS,
                _RECIPE | {"fine_tuning": "from_scratch"},
                _RECIPE_WINDOWS,
            ),
            Condition("grid", ("mel_db",)),
        ),
        profile="pretrained",
        seeds=1,
    ),
    "stack": Study(
        "Does a stack of networks and clip statistics beat its best member?",
        ("microcalls", "esc10"),
        (
            Condition("grid", STACKED),
            Condition("pairs", STACKED, every_pair=True),
        ),
        seeds=1,
    ),
    "tagger": Study("How good a tagger does this make, from scratch?", ("esc10",), _TAGGER),
    "pretrained_tagger": Study(
        "How good a tagger does a pretrained network make?",
        ("esc10",),
        _PRETRAINED_TAGGER,
        profile="pretrained",
        seeds=1,
    ),
    "insect_tagger": Study(
        "The same, of insects",
        ("insectset32",),
        _INSECT_TAGGER,
        profile="pretrained",
        seeds=1,
    ),
}


def check_study(study: str, dataset: str) -> None:
    """Raise ValueError where a study is unknown or not asked on a data set."""
    asked = look_up("STUDY", study, STUDIES).datasets
    if dataset not in asked:
        raise ValueError(f"STUDY={study} is asked on {', '.join(asked)}, not on {dataset}")
