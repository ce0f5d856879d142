"""Studies around the grid: what is declared in `freesound_tagging.runs.questions` -> runs.

A study's runs lie in ``runs/<data set>/<profile>/studies/<study>/<condition>``, those that the main
grid makes too in its own folder, so that they are made once. A study that is stopped goes on where
it was. ``make study DATASET=esc10 STUDY=controls`` makes one, ``make publish STUDY=...`` copies it
into ``results/``.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from freesound_tagging.features.variants import VARIANTS, channels_of
from freesound_tagging.learning.networks import get_network
from freesound_tagging.learning.profiles import Profile, parse_seeds
from freesound_tagging.runs import grid
from freesound_tagging.runs.experiment import Experiment, open_experiment
from freesound_tagging.runs.questions import STUDIES, Condition, check_study
from freesound_tagging.runs.run import Run
from freesound_tagging.scoring.metrics import clip_metrics
from freesound_tagging.scoring.stacking import fold_pairs
from freesound_tagging.scoring.statistics import VERDICT_METRIC
from freesound_tagging.sounds import catalogue

COLUMNS = ["cell", *grid.RESULT_COLUMNS]
"""Of a study's results: the condition's name, then a run's row."""


@dataclass(frozen=True)
class Cell:
    """The runs of one condition."""

    name: str
    runs: list[Run]


def open_study(dataset: str, study: str, profile: str = "", seeds: int | None = None) -> Experiment:
    """Return the experiment of a study; by default with the study's own profile and seeds.

    ``seeds`` or, where it is None, SEEDS asks for another number of seeds.

    Raises
    ------
    ValueError
        Where the study or profile is unknown, or the study is not asked on this data set.
    """
    check_study(study, dataset)
    asked = STUDIES[study]
    seeds = seeds or parse_seeds(os.environ.get("SEEDS")) or asked.seeds
    return open_experiment(dataset, profile or asked.profile, seeds)


def study_folder(experiment: Experiment, study: str) -> Path:
    """Return where a study's runs are kept."""
    return experiment.run_folder / "studies" / study


def place_of(experiment: Experiment, study: str, condition: Condition) -> Path:
    """Return where the runs of a condition are kept: with the grid's own, where they are such."""
    profile = change_profile(experiment.profile, condition)
    others = condition.sounds or condition.relabel or condition.inner or condition.every_pair
    same = replace(profile, seeds=()) == replace(experiment.profile, seeds=())
    known = set(condition.variants or VARIANTS) <= set(VARIANTS)
    if same and known and not others and not condition.chosen_from:
        return experiment.run_folder
    return study_folder(experiment, study) / condition.name


def plan_study(experiment: Experiment, study: str) -> list[Cell]:
    """Build what the store lacks and return the study's runs; none is made yet."""
    check_study(study, experiment.dataset)
    main = experiment.load_table()
    return [
        Cell(condition.name, list(_plan(experiment, study, condition, main)))
        for condition in conditions_of(experiment, study)
    ]


def conditions_of(experiment: Experiment, study: str) -> list[Condition]:
    """Return a study's conditions, without those that are not asked on this data set.

    Nor are those that change nothing here: a grid that is the data set's own anyway, or starting
    from scratch a network that has no pretrained weights.
    """
    base = experiment.profile.grid
    scratch_is_usual = get_network(experiment.profile.architecture).pretrained is None
    return [
        condition
        for condition in STUDIES[study].conditions
        if (not condition.grid or replace(base, **condition.grid) != base)
        and (not condition.datasets or experiment.dataset in condition.datasets)
        and not (scratch_is_usual and condition.settings.get("fine_tuning") == "from_scratch")
    ]


def _plan(
    experiment: Experiment, study: str, condition: Condition, main: pd.DataFrame
) -> Iterator[Run]:
    """Yield the runs of one condition; ``main`` are the clips of the main grid."""
    place = place_of(experiment, study, condition)
    profile = change_profile(experiment.profile, condition)
    table = clips_of(experiment, condition, main)
    variants = condition.variants or tuple(VARIANTS)
    folds = grid.profile_folds(table, profile)[: condition.folds]

    def plan(table, variants, profile, folder, folds) -> list[Run]:
        return grid.plan_runs(
            table,
            experiment.build_store(table, channels_of(variants), profile.grid),
            variants,
            profile,
            folder,
            dataset=experiment.name,
            profile_name=experiment.profile_name,
            folds=folds,
            keep_diverged=STUDIES[study].keep_diverged,
        )

    if condition.chosen_from:
        for variant, fold, chosen in _chosen(experiment, condition, main):
            settings = {name: value for name, value in chosen.items() if name != "epochs"}
            yield from plan(table, [variant], replace(profile, **settings), place, [fold])
    elif condition.every_pair:
        for pair, paired in tables_of_pairs(table, folds):
            yield from plan(paired, variants, profile, place, [pair])
    elif condition.inner:
        for pair, paired in inner_tables(table):
            yield from plan(paired, variants, profile, place, [pair])
    else:
        yield from plan(table, variants, profile, place, folds)


def change_profile(profile: Profile, condition: Condition) -> Profile:
    """Return the profile with what a condition changes."""
    return replace(
        profile,
        grid=replace(profile.grid, **condition.grid),
        seeds=profile.seeds[: condition.seeds],
        **condition.settings,
    )


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


RELABEL: dict[str, Callable[[pd.DataFrame], pd.DataFrame]] = {
    "digit and speaker": digit_and_speaker
}


def clips_of(experiment: Experiment, condition: Condition, main: pd.DataFrame) -> pd.DataFrame:
    """Return a condition's clips: those of the main grid, relabelled, or generated anew."""
    clips_per_class = condition.settings.get("clips_per_class")
    if condition.sounds or clips_per_class:
        # The draws of each clip stay the same.
        return catalogue.load(
            experiment.dataset,
            experiment.raw_folder,
            clips_per_class=clips_per_class or experiment.profile.clips_per_class,
            **condition.sounds,
        )
    return RELABEL[condition.relabel](main) if condition.relabel else main


# --- chosen by inner folds ----------------------------------------------------------------------


def pair_of(fold: int, folds: Sequence[int]) -> tuple[int, int]:
    """Return a fold and the next one, the first after the last."""
    place = list(folds).index(fold)
    return fold, folds[(place + 1) % len(folds)]


def inner_tables(table: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield number and table for each pair of neighbouring folds, which is then one fold.

    The pair's clips of one fold speak for the other: settings are chosen for a fold without any run
    that was scored on, or trained on, what the choice is judged on.
    """
    folds = sorted(table["fold"].unique())
    for pair, first in enumerate(folds):
        held_out = table["fold"].isin(pair_of(first, folds))
        yield pair, table.assign(fold=np.where(held_out, pair, len(folds)))


def tables_of_pairs(
    table: pd.DataFrame, folds: Sequence[int]
) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield number and table for every two of ``folds``, which are then one fold.

    Numbers are places in `freesound_tagging.scoring.stacking.fold_pairs` of all folds of the table.
    """
    pairs = fold_pairs(table["fold"].to_numpy())
    for number, pair in enumerate(pairs):
        if set(pair) <= set(folds):
            held_out = table["fold"].isin(pair)
            yield number, table.assign(fold=np.where(held_out, number, len(pairs)))


def choose_trials(trials: dict[str, dict[str, pd.DataFrame]], table: pd.DataFrame) -> pd.DataFrame:
    """Return the trial chosen for each variant and outer fold, by the scores of inner folds alone.

    Parameters
    ----------
    trials : trial -> variant -> scores, ``fold`` counting the pairs of `inner_tables`.
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


def candidates(condition: Condition) -> dict[str, Condition]:
    """Return name -> condition of the trials that a condition may take its settings from."""
    wanted = condition.settings.items()
    tried = STUDIES[condition.chosen_from].conditions
    return {trial.name: trial for trial in tried if wanted <= trial.settings.items()}


def _chosen(experiment: Experiment, condition: Condition, table: pd.DataFrame) -> Iterator[tuple]:
    """Yield variant, fold and the settings chosen for them."""
    allowed = candidates(condition)
    scores = load_study_scores(experiment, condition.chosen_from, finished=True)
    trials = {
        name: {variant: scores[name][variant] for variant in condition.variants} for name in allowed
    }
    for choice in choose_trials(trials, table).itertuples():
        yield choice.variant, choice.fold, allowed[choice.trial].settings


# --- made and read ------------------------------------------------------------------------------


def run_study(experiment: Experiment, study: str, *, progress: bool = True) -> pd.DataFrame:
    """Make a study's runs that are not done yet and return all results.

    Returns
    -------
    One row a run, columns `COLUMNS`. Also written to ``results.csv`` in the study's folder; until
    all are made, ``results.partial.csv`` holds those that have ended.

    Raises
    ------
    ValueError
        Where the study is unknown, or not asked on this data set.
    """
    cells = plan_study(experiment, study)
    folder = study_folder(experiment, study)
    folder.mkdir(parents=True, exist_ok=True)
    name_of = {run.place: cell.name for cell in cells for run in cell.runs}

    def collect(done: Sequence[Run]) -> pd.DataFrame:
        results = grid.collect_results(done)
        return results.assign(cell=[name_of[run.place] for run in done])[COLUMNS]

    # One list: no core waits for the last run of a condition.
    runs = [run for cell in cells for run in cell.runs]
    return grid.make_and_collect(runs, folder, collect, progress=progress)


def count_runs(experiment: Experiment, study: str) -> int:
    """Return how many runs a study has in all; no spectrogram is computed."""
    main, total = experiment.load_table(), 0
    for condition in conditions_of(experiment, study):
        profile = change_profile(experiment.profile, condition)
        clips = clips_of(experiment, condition, main)
        folds = grid.profile_folds(clips, profile)[: condition.folds]
        held_out = len(fold_pairs(np.asarray(folds))) if condition.every_pair else len(folds)
        total += len(condition.variants or VARIANTS) * held_out * len(profile.seeds)
    return total


def load_study_results(
    experiment: Experiment, study: str, *, finished: bool = False
) -> pd.DataFrame:
    """Return the results of a study, of the runs that have ended where it is not finished.

    Raises
    ------
    FileNotFoundError
        Where it was not begun, or not ``finished``; the message says how to run it.
    """
    folder = study_folder(experiment, study)
    for name in ("results.csv", "results.partial.csv")[: 1 if finished else 2]:
        if (folder / name).exists():
            return pd.read_csv(folder / name, dtype={"cell": str})
    raise FileNotFoundError(
        f"{folder / 'results.csv'} is not there yet: "
        f"make study DATASET={experiment.dataset} STUDY={study}"
    )


def load_study_scores(
    experiment: Experiment, study: str, *, finished: bool = False
) -> dict[str, dict[str, pd.DataFrame]]:
    """Return cell -> variant -> out-of-fold scores of a study; raises as `load_study_results`."""
    asked = {condition.name: condition for condition in STUDIES[study].conditions}
    rows = load_study_results(experiment, study, finished=finished)
    return {
        cell: grid.load_scores(place_of(experiment, study, asked[cell]), results)
        for cell, results in rows.groupby("cell", sort=False)
    }


def make_study(dataset: str, profile: str, study: str) -> None:
    """Make a study's runs and print their mean scores."""
    experiment = open_study(dataset, study, profile)
    with experiment.hold_runs():
        results = run_study(experiment, study)
    means = results.groupby(["cell", "variant"], sort=False)
    print(means[["top1_accuracy", "top3_error", "map3"]].mean().round(4).to_string())
