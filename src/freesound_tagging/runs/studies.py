"""The studies around the grid: controls, tuning, how fine and how noisy, voices, the best tagger.

A study is a table of cells; a cell is a handful of variants trained under one condition. All runs
are those of `training`, so a stopped study goes on where it was. ``make study DATASET=esc10
STUDY=controls`` makes one, ``make publish STUDY=...`` copies it into ``results/``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from freesound_tagging.features import store
from freesound_tagging.features.variants import CONTROL_VARIANTS, channels_of
from freesound_tagging.files import write_atomically
from freesound_tagging.learning.profiles import Profile
from freesound_tagging.runs import runs as run_module
from freesound_tagging.runs.experiment import Experiment, open_experiment
from freesound_tagging.runs.questions import check_study
from freesound_tagging.runs.runs import Run
from freesound_tagging.scoring.metrics import clip_metrics
from freesound_tagging.scoring.statistics import VERDICT_METRIC
from freesound_tagging.sounds import catalogue

PROFILE = "cpu"
SEEDS = (0, 1, 2)
COMPARED = ("mel_db", "log_db", "hires_q8", "3ch_log_db_windows", "3ch_hires_q1_q8_log_db")
"""The two references, one high-resolution picture, the control stack, and the reference's mix."""

DIFFICULTIES = (0.5, 1.0, 2.0, 4.0)
NOISES = (-9.0, -1.0, 7.0, 21.0)
"""Signal-to-noise ratio in dB, the same for every clip; the grid's clips draw -4 to 16 dB."""

CURVE_FOLDS = (0, 1, 2)
"""Folds held out for every point of a curve: points cost more than they tell, so three of five."""

_RATES = {
    "adamw": (1e-2, 3e-2),
    "adam": (1e-2, 3e-2),
    "sgd": (1e-1, 3e-1),
    "lookahead_radam": (1e-2, 3e-2),
}
TRIALS: tuple[dict, ...] = tuple(
    {"optimizer": optimizer, "lr_max": rate, "mixup": 0.3 if (row + column) % 2 == 0 else 0.0}
    for row, (optimizer, rates) in enumerate(_RATES.items())
    for column, rate in enumerate(rates)
)
"""What is tried for every variant of `COMPARED`: half of optimizer x learning rate x mixup.

Every optimizer meets both of its rates and both sides of mixup. The first trial is the default.
"""

TRIAL_EPOCHS = 5
"""A trial is this short: what learns fastest is not always what learns most, and the judges, who
train in full, would show it."""

# What the tagger is made of, each step on top of those before; fixed before any was measured, but
# for "wider" and the averages, which were added when the steps before them had been.
TAGGER_STEPS: tuple[tuple[str, str, str, dict], ...] = (
    ("plain", "only shifted in time", "log_db", {"mask": 0.0, "mixup": 0.0}),
    ("mask", "hidden bands (SpecAugment)", "log_db", {"mask": 0.1}),
    ("mixup", "mixup", "log_db", {"mixup": 0.3}),
    ("stack", "q = 1, q = 8 and log dB as channels", "3ch_hires_q1_q8_log_db", {}),
    ("crops", "random 2 s of all 5 s", "3ch_hires_q1_q8_log_db", {"crop": 0.4}),
    ("longer", "half as many epochs again", "3ch_hires_q1_q8_log_db", {"epochs": 60}),
    ("wider", "twice as many planes", "3ch_hires_q1_q8_log_db", {"width": 16}),
)
TAGGER_SECONDS = 5.0
"""From the step "crops" on, pictures show the whole clip."""


@dataclass(frozen=True)
class Cell:
    """Runs under one condition: a name for folders, and the runs."""

    name: str
    runs: list[Run]


def _cell(
    experiment: Experiment,
    study: str,
    name: str,
    variants: Sequence[str],
    profile: Profile,
    table: pd.DataFrame,
    folds: Sequence[int] | None = None,
    keep_diverged: bool = False,
) -> Cell:
    """Build what the store lacks for a cell and plan its runs."""
    pictures = store.build(
        table, channels_of(variants), profile.grid, experiment.store_folder, progress=False
    )
    runs = run_module.plan_runs(
        table,
        pictures,
        variants,
        profile,
        study_folder(experiment, study) / name,
        dataset=experiment.name,
        profile_name=experiment.profile_name,
        folds=folds,
        keep_diverged=keep_diverged,
    )
    return Cell(name, runs)


def _grid_cell(experiment: Experiment, variants: Sequence[str], seeds: Sequence[int]) -> Cell:
    """Return runs of the main grid, which a study compares with: they are made once."""
    table = experiment.load_table()
    runs = run_module.plan_runs(
        table,
        experiment.build_store(table),
        variants,
        replace(experiment.profile, seeds=tuple(seeds)),
        experiment.run_folder,
        dataset=experiment.name,
        profile_name=experiment.profile_name,
    )
    return Cell("grid", runs)


def plan_controls(experiment: Experiment) -> list[Cell]:
    """Undo one thing at a time: the resolution's axis, threshold, hop, rows, window."""
    table, grid = experiment.load_table(), experiment.profile.grid
    profile = replace(experiment.profile, seeds=SEEDS)
    references = (*COMPARED, "linear_db", "log_linear", "hires_q2", "3ch_hires_q1_q4_q8")
    conditions = {
        "matched": (tuple(CONTROL_VARIANTS), grid),
        "hop_197": (("log_db", "hires_q8"), replace(grid, hop_length=197)),
        "hop_512": (("log_db",), replace(grid, hop_length=512)),
        "bins_13": (("log_db", "hires_q8"), replace(grid, bins_per_octave=13.0)),
        "bins_26": (("log_db", "hires_q8"), replace(grid, bins_per_octave=26.2)),
    }
    cells = [_grid_cell(experiment, references, SEEDS)]
    for name, (variants, condition) in conditions.items():
        if condition == grid and name != "matched":
            continue  # the grid itself
        changed = replace(profile, grid=condition)
        cells.append(_cell(experiment, "controls", name, variants, changed, table))
    return cells


def plan_trials(experiment: Experiment) -> list[Cell]:
    """Try every setting on inner folds: each run holds out a pair of neighbouring folds.

    The pair's clips of one fold speak for the other: trials are chosen for a fold without any run
    that was scored on, or trained on, what the choice is judged on.
    """
    table = experiment.load_table()
    folds = sorted(table["fold"].unique())
    cells = []
    for number, trial in enumerate(TRIALS):
        profile = replace(experiment.profile, **trial, epochs=TRIAL_EPOCHS, seeds=SEEDS[:1])
        runs = []
        for pair, first in enumerate(folds):
            held_out = table["fold"].isin(pair_of(first, folds))
            paired = table.assign(fold=np.where(held_out, pair, len(folds)))
            name = f"trial{number:02d}"
            runs += _cell(
                experiment,
                "trials",
                name,
                COMPARED,
                profile,
                paired,
                folds=[pair],
                keep_diverged=True,
            ).runs
        cells.append(Cell(name, runs))
    return cells


def pair_of(fold: int, folds: Sequence[int]) -> tuple[int, int]:
    """Return a fold and the next one, the first after the last."""
    place = list(folds).index(fold)
    return fold, folds[(place + 1) % len(folds)]


def choose_trials(trials: dict[str, dict[str, pd.DataFrame]], table: pd.DataFrame) -> pd.DataFrame:
    """Return the trial chosen for each variant and outer fold, by the scores of inner folds alone.

    Parameters
    ----------
    trials : trial -> variant -> scores, ``fold`` counting the pairs of `plan_trials`.
    table : clips, index ``clip_id``, column ``fold``: the outer folds.

    Returns
    -------
    Columns variant, fold, trial, inner_score (mean of `statistics.VERDICT_METRIC`), inner_clips.
    Of equal trials the first is taken.
    """
    folds = sorted(table["fold"].unique())
    rows = []
    for name, variants in trials.items():
        for variant, scores in variants.items():
            metrics = clip_metrics(scores)
            own = metrics["clip_id"].map(table["fold"])
            for fold in folds:
                pairs = [p for p, first in enumerate(folds) if fold in pair_of(first, folds)]
                inner = metrics[metrics["fold"].isin(pairs) & (own != fold)]
                rows.append((variant, fold, name, inner[VERDICT_METRIC].mean(), len(inner)))
    columns = ["variant", "fold", "trial", "inner_score", "inner_clips"]
    tried = pd.DataFrame(rows, columns=columns)
    best = tried.groupby(["variant", "fold"], sort=False)["inner_score"].idxmax()
    return tried.loc[best].sort_values(["variant", "fold"]).reset_index(drop=True)


def plan_tuned(experiment: Experiment) -> list[Cell]:
    """Train each variant in full with what was chosen for each fold, beside the defaults."""
    table = experiment.load_table()
    trials = load_scores(experiment, "trials")
    choices = choose_trials(trials, table)
    runs = []
    for choice in choices.itertuples():
        trial = TRIALS[int(choice.trial.removeprefix("trial"))]
        profile = replace(experiment.profile, **trial, seeds=SEEDS[:1])
        runs += _cell(
            experiment,
            "tuned",
            "tuned",
            [choice.variant],
            profile,
            table,
            folds=[choice.fold],
            keep_diverged=True,
        ).runs
    return [_grid_cell(experiment, COMPARED, SEEDS[:1]), Cell("tuned", runs)]


def _microcalls(experiment: Experiment, **sounds: float) -> pd.DataFrame:
    """Return the clips of microcalls with other sounds; the draws of each clip stay the same."""
    return catalogue.load(
        "microcalls",
        experiment.raw_folder,
        clips_per_class=experiment.profile.clips_per_class,
        **sounds,
    )


def plan_difficulty(experiment: Experiment) -> list[Cell]:
    """Move the two classes of every family towards each other."""
    profile = replace(experiment.profile, seeds=SEEDS)
    as_it_is = _grid_cell(experiment, COMPARED, SEEDS)
    return [
        Cell("1", [run for run in as_it_is.runs if run.fold in CURVE_FOLDS])
        if difficulty == 1
        else _cell(
            experiment,
            "difficulty",
            f"{difficulty:g}",
            COMPARED,
            profile,
            _microcalls(experiment, difficulty=difficulty),
            folds=CURVE_FOLDS,
        )
        for difficulty in DIFFICULTIES
    ]


def plan_noise(experiment: Experiment) -> list[Cell]:
    """Give every clip the same signal-to-noise ratio, and change it."""
    profile = replace(experiment.profile, seeds=SEEDS)
    return [
        _cell(
            experiment,
            "noise",
            f"{noise:+g}dB",
            COMPARED,
            profile,
            _microcalls(experiment, snr_db=noise),
            folds=CURVE_FOLDS,
        )
        for noise in NOISES
    ]


def digit_and_speaker(table: pd.DataFrame) -> pd.DataFrame:
    """Return FSDD's clips with 60 classes, digit x speaker, and folds of every fifth take.

    A voice that is to be told must have been heard, so folds cannot leave a speaker out here.
    """
    parts = table.index.str.extract(r"^(?P<digit>\d)_(?P<speaker>\w+)_(?P<take>\d+)$")
    parts.index = table.index
    return table.assign(
        label=parts["digit"] + " " + parts["speaker"],
        fold=parts["take"].astype(int) % 5,
        group=table.index,
    )


def plan_speakers(experiment: Experiment) -> list[Cell]:
    """Tell digit and speaker together: 60 classes that differ less than ten digits do."""
    profile = replace(experiment.profile, seeds=SEEDS[:1])
    table = digit_and_speaker(experiment.load_table())
    return [_cell(experiment, "speakers", "digit_and_speaker", COMPARED, profile, table)]


def plan_tagger(experiment: Experiment) -> list[Cell]:
    """Add one ingredient after another, each on top of those before."""
    profile = replace(experiment.profile, seeds=SEEDS[:1])
    table, default, cells = experiment.load_table(), profile, []
    for name, _, variant, changes in TAGGER_STEPS:
        profile = replace(profile, **changes)
        if name == TAGGER_STEPS[-1][0]:
            profile = replace(profile, seeds=SEEDS)  # the last step's networks are averaged, too
        if "crop" in changes:
            profile = replace(profile, grid=replace(profile.grid, duration=TAGGER_SECONDS))
        if profile == default:
            cells.append(replace(_grid_cell(experiment, [variant], SEEDS[:1]), name=name))
        else:
            cells.append(_cell(experiment, "tagger", name, [variant], profile, table))
    return cells


PLANS: dict[str, Callable[[Experiment], list[Cell]]] = {
    "controls": plan_controls,
    "difficulty": plan_difficulty,
    "noise": plan_noise,
    "speakers": plan_speakers,
    "trials": plan_trials,
    "tuned": plan_tuned,
    "tagger": plan_tagger,
}
"""How each of `freesound_tagging.runs.questions.STUDIES` is planned."""


def study_folder(experiment: Experiment, study: str) -> Path:
    """Return where a study's runs are kept."""
    return experiment.run_folder.parent / "studies" / study


def run_study(experiment: Experiment, study: str, *, progress: bool = True) -> pd.DataFrame:
    """Make a study's runs that are not done yet and return all results.

    Returns
    -------
    One row a run: column cell, then `run_module.RESULT_COLUMNS`. Also written to ``results.csv`` in
    the study's folder.

    Raises
    ------
    ValueError
        Where the study is unknown, or not asked on this data set.
    """
    check_study(study, experiment.dataset)
    cells = PLANS[study](experiment)
    folder = study_folder(experiment, study)
    folder.mkdir(parents=True, exist_ok=True)
    # One list: no core waits for the last run of a cell.
    run_module.make_runs([run for cell in cells for run in cell.runs], progress=progress)
    results = pd.concat(
        [run_module.collect_results(cell.runs).assign(cell=cell.name) for cell in cells],
        ignore_index=True,
    )
    results = results[["cell", *run_module.RESULT_COLUMNS]]
    write_atomically(folder / "results.csv", results.to_csv(index=False).encode())
    return results


def load_scores(experiment: Experiment, study: str) -> dict[str, dict[str, pd.DataFrame]]:
    """Return cell -> variant -> out-of-fold scores of a study that was run.

    Raises
    ------
    FileNotFoundError
        Where it was not; the message says how to run it.
    """
    folder = study_folder(experiment, study)
    file = folder / "results.csv"
    if not file.exists():
        raise FileNotFoundError(
            f"{file} is not there yet: make study DATASET={experiment.dataset} STUDY={study}"
        )
    scores = {}
    for cell, results in pd.read_csv(file, dtype={"cell": str}).groupby("cell", sort=False):
        place = folder / cell if (folder / cell).exists() else experiment.run_folder
        scores[cell] = run_module.load_scores(place, results)
    return scores


def make_study(dataset: str, profile: str, study: str) -> None:
    """Make a study's runs and print their mean scores."""
    experiment = open_experiment(dataset, profile)
    with experiment.hold_runs():
        results = run_study(experiment, study)
    means = results.groupby(["cell", "variant"], sort=False)
    print(means[["top1_accuracy", "top3_error", "map3"]].mean().round(4).to_string())
