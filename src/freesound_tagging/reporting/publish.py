"""Measurements -> ``results/`` (committed) -> the tables in the pages.

``publish`` copies the runs of a grid, or of a study, that have ended; ``report`` computes every
table and chart under ``results/`` anew from the scores that lie there, so that anyone can.
"""

import os
import platform
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import joblib
import pandas as pd
from matplotlib.figure import Figure

from freesound_tagging.errors import look_up
from freesound_tagging.features.variants import VARIANTS
from freesound_tagging.files import write_atomically
from freesound_tagging.learning.networks import best_device
from freesound_tagging.reporting import analyses, answers
from freesound_tagging.reporting.scores import (
    as_drawn,
    pack_scores,
    read_cells,
    read_scores,
    unpack_scores,
)
from freesound_tagging.runs import grid, studies
from freesound_tagging.runs.experiment import ROOT, Experiment, open_experiment
from freesound_tagging.runs.questions import CONTRASTS, STUDIES, TAGGER_STEPS
from freesound_tagging.runs.stack import stack_networks
from freesound_tagging.scoring import charts
from freesound_tagging.scoring.statistics import VERDICT_METRIC

RESULTS = ROOT / "results"
PAGES = ("README.md", "results/README.md", "docs/running.md")


def publish_into_results(dataset: str, profile: str, study: str = "") -> None:
    """Copy the runs of a grid, or of a study, into ``results/``; say where, and how much it is."""
    if study:
        experiment = studies.open_study(dataset, study, profile)
    else:
        experiment = open_experiment(dataset, profile or "cpu")
    if experiment.profile_name == "smoke":
        raise ValueError("the smoke profile's scores say nothing; publish another")
    if study and study not in GRIDS:
        folder, done = publish_study(experiment, study)
    else:
        folder, done = publish_grid(experiment)
    print(f"wrote {os.path.relpath(folder)}: {done}")


def publish_grid(experiment: Experiment) -> tuple[Path, str]:
    """Copy what is done of a grid to its results folder; return that and how much it is.

    Raises
    ------
    FileNotFoundError
        Where no run has ended.
    ValueError
        Where the runs are of different settings.
    """
    results = grid.finished_runs(experiment.run_folder, list(VARIANTS))
    folder, table = experiment.results_folder, experiment.load_table()
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    for name, frame in grid.load_scores(experiment.run_folder, results).items():
        content = pack_scores({name: frame}, table)
        write_atomically(folder / "scores" / f"{name}.csv.gz", content)
    results.to_csv(folder / "results.csv", index=False)
    write_grid(folder)
    done = how_much(results, grid.profile_folds(table, experiment.profile))
    (folder / "README.md").write_text(_about(experiment, results, done))
    return folder, done


def publish_study(experiment: Experiment, study: str) -> tuple[Path, str]:
    """Copy a study to the folder of that name in the data set's; return it and how much it is.

    Raises
    ------
    FileNotFoundError
        Where it was not begun.
    ValueError
        Where it is not finished: what answers it compares all of it.
    """
    results = studies.load_study_results(experiment, study)
    planned = studies.count_runs(experiment, study)
    if len(results) < planned:
        raise ValueError(
            f"{len(results)} of {planned} runs are done: make study DATASET={experiment.dataset} "
            f"STUDY={study} makes the others; SEEDS=1 asks for fewer"
        )
    folder, table = experiment.results_folder / study, experiment.load_table()
    asked = {condition.name: condition for condition in STUDIES[study].conditions}
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    for cell, variants in studies.load_study_scores(experiment, study).items():
        content = pack_scores(variants, studies.clips_of(experiment, asked[cell], table))
        write_atomically(folder / "scores" / f"{cell}.csv.gz", content)
    if study == "stack":
        stacks, importance = stack_networks(experiment)
        write_atomically(folder / "scores" / "stacked.csv.gz", pack_scores(stacks, table))
        importance.to_csv(folder / "importance.csv", index=False, float_format="%.6g")
    results.to_csv(folder / "results.csv", index=False)
    write_study(folder)
    return folder, f"{len(results)} of {planned} runs"


def how_much(results: pd.DataFrame, folds: list[int]) -> str:
    """Return how much of a grid is done, in words."""
    seeds = results["seed"].nunique()
    whole = results.groupby(["variant", "seed"])["fold"].nunique().eq(len(folds))
    planned = {name for pair in CONTRASTS for name in pair}
    words = [f"{len(results)} runs"]
    for seed in range(seeds):
        done = {variant for (variant, own), full in whole.items() if full and own == seed}
        part = (
            f", {len(done & planned)} of the {len(planned)} that the contrasts need"
            if done & planned
            else ""
        )
        words.append(f"seed {seed}: {len(done)} representations on all {len(folds)} folds{part}")
    return "; ".join(words)


def write_grid(folder: Path) -> None:
    """Compute a grid's tables and charts from its published results and scores."""
    results = pd.read_csv(folder / "results.csv")
    scores, table = read_scores(folder)
    _write_tables(folder, analyses.analyse_grid(results, scores, table))
    if not (folder / "summary.csv").exists():
        return
    summary = pd.read_csv(folder / "summary.csv")
    title = answers.heading(folder.parent, folder.name)
    save_figure(charts.show_summary(summary, title=title).figure, folder / "chart.png")
    tests = folder / "tests.csv"
    if tests.exists() and "log_db" in set(pd.read_csv(tests)["reference"]):
        axes = charts.show_differences(
            pd.read_csv(tests), reference="log_db", metric=VERDICT_METRIC
        )
        save_figure(axes.figure, folder / "differences.png")


def write_study(folder: Path) -> None:
    """Compute a study's tables and charts from its published results and scores."""
    study = folder.name
    _write_tables(folder, analyse_study(study, folder))
    if (folder / "curve.csv").exists():
        curve = pd.read_csv(folder / "curve.csv", dtype={"cell": str})
        save_figure(charts.show_curves(curve, study), folder / "curve.png")


def _write_tables(folder: Path, tables: dict[str, pd.DataFrame]) -> None:
    """Write tables as CSV, and remove those that an earlier state of the results had."""
    for file in folder.glob("*.csv"):
        if file.stem not in (*tables, "results", "importance"):
            file.unlink()
    for name, frame in tables.items():
        frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")


GRIDS = ("contrasts",)
"""Studies that are published as the grid of their profile, with as many seeds as there are."""


class Published(NamedTuple):
    """What is published of a study.

    Attributes
    ----------
    folder : named as the study.
    results : a row per run.
    scores : out-of-fold probabilities by condition and representation.
    table : of its clips.
    """

    folder: Path
    results: pd.DataFrame
    scores: analyses.Scores
    table: pd.DataFrame


Tables = dict[str, pd.DataFrame]


def analyse_study(study: str, folder: Path) -> Tables:
    """Return the tables that answer a study, from its published results and scores."""
    answer = look_up("study", study, ANSWERS)
    results = pd.read_csv(folder / "results.csv", dtype={"cell": str})
    scores, table = read_cells(folder, results["cell"].unique())
    if not any(condition.relabel for condition in STUDIES[study].conditions):
        table = as_drawn(results["dataset"].iloc[0], table)
    return answer(Published(folder, results, scores, table))


def _controls(study: Published) -> Tables:
    tables = {"claims": analyses.judge_claims(study.scores, study.table)}
    if study.results["dataset"].iloc[0] == "microcalls" and "unmoved" in study.scores:
        tables["details"] = analyses.compare_by_detail(study.scores, study.table)
    return tables


def _speech(study: Published) -> Tables:
    return {"claims": analyses.judge_claims(study.scores, study.table, analyses.SPEECH_CLAIMS)}


def _curve(study: Published) -> Tables:
    return {"curve": analyses.curve(study.scores, study.table)}


def _learning(study: Published) -> Tables:
    return _curve(study) | {
        "families": analyses.curve(study.scores, study.table, by="family"),
        "details": analyses.compare_as_clips_grow(study.scores, study.table),
    }


def _grid(study: Published, names: tuple[str, ...]) -> Tables:
    (cell,) = study.scores
    tables = analyses.analyse_grid(study.results, study.scores[cell], study.table)
    return {name: tables[name] for name in names}


def _choices(study: Published) -> Tables:
    """Return what the inner folds choose, for each study that is chosen from this one."""
    grid_scores, _ = read_scores(study.folder.parent)
    folds = next(iter(grid_scores.values())).drop_duplicates("clip_id")
    folds = folds.set_index("clip_id")[["fold"]]
    choices = [
        studies.choose_trials(
            {trial: study.scores[trial] for trial in studies.candidates(judge)}, folds
        )
        for other in STUDIES.values()
        for judge in other.conditions
        if judge.chosen_from == study.folder.name
    ]
    choices = pd.concat(choices, ignore_index=True)
    return {"choices": analyses.chosen_settings(choices, study.folder.name)}


def _conditions(study: Published, reference: str) -> Tables:
    return {"conditions": analyses.compare_conditions(study.scores, study.table, reference)}


def _optimizers(study: Published) -> Tables:
    claims = analyses.judge_claims(study.scores, study.table, analyses.OPTIMIZER_CLAIMS)
    return _conditions(study, "adamw") | {"claims": claims}


def _stack(study: Published) -> Tables:
    stacks, _ = unpack_scores(study.folder / "scores" / "stacked.csv.gz")
    return {"conditions": analyses.compare_stacks(stacks, study.scores["grid"], study.table)}


def _beside_grid(study: Published) -> Tables:
    published, _ = read_scores(study.folder.parent)
    return {"conditions": analyses.beside_grid(study.scores, study.table, published)}


def _tuned(study: Published) -> Tables:
    return {"tuned": analyses.compare_tuned(study.scores, study.table)}


def _tagger(study: Published) -> Tables:
    grids = [
        (read_scores(folder)[0], pd.read_csv(folder / "results.csv"))
        for folder in (study.folder.parent, study.folder.parent.parent)
        if (folder / "results.csv").exists()
    ]
    words = TAGGER_STEPS[study.folder.name]
    steps = analyses.tagger_steps(study.scores, study.results, study.table, words, grids)
    return {"steps": steps}


ANSWERS: dict[str, Callable[[Published], Tables]] = {
    "controls": _controls,
    "speech": _speech,
    "difficulty": _curve,
    "noise": _curve,
    "learning": _learning,
    "speakers": partial(_grid, names=("summary", "tests")),
    # The contrasts of "representations" are the grid's, with fewer seeds.
    "representations": partial(_grid, names=("summary", "tests")),
    "fine_rows": partial(_grid, names=("summary", "tests", "contrasts")),
    "trials": _choices,
    "optimizer_trials": _choices,
    "optimizers": _optimizers,
    "rates": partial(_conditions, reference="frozen_then_one_rate"),
    "recipe": partial(_conditions, reference="whole"),
    "waveform": _beside_grid,
    "stack": _stack,
    "tuned": _tuned,
    "tagger": _tagger,
    "pretrained_tagger": _tagger,
    "insect_tagger": _tagger,
}
"""What computes the tables that answer each study."""


def save_figure(figure: Figure, file: Path) -> None:
    """Write a figure as PNG, the same bytes for the same figure, and close it."""
    from matplotlib import pyplot as plt

    figure.savefig(file, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def _about(experiment: Experiment, results: pd.DataFrame, done: str) -> str:
    today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "fastai", "librosa", "numpy")
    )
    return f"""# {experiment.name}, {experiment.profile_name} profile

Measured with `make run` or `make study`, `DATASET={experiment.name}
PROFILE={experiment.profile_name}`, and copied here by `make publish` on {today};
{platform.system()} {platform.machine()}, {joblib.cpu_count()} cores, device {best_device().type},
Python {platform.python_version()}, {packages}.
Done: {done}. Their wall-clock times add up to {results["seconds"].sum() / 3600:.2f} hours.

- `results.csv` one row per run: representation, fold, seed.
- `summary.csv` one row per representation: out-of-fold figures, 95 % intervals over recordings.
- `tests.csv` each representation against mel_db and log_db, by the one rule of
  `freesound_tagging.scoring.statistics`; `contrasts.csv` the pairs that PLAN.md fixed, if run,
  and then `averaged.csv`, the summary of all networks averaged.
- `variance.csv` the shares of the variance between runs, where there are several seeds.
- `scores/` the out-of-fold probabilities of every clip, from which all else can be computed again;
  of large sets only those that the ranks depend on.
- `chart.png` the summary as a picture, `differences.png` the tests of MAP@3 against log_db.
- folders: studies, each with its results, scores, and the table that answers it.
"""


def write_results() -> None:
    """Compute every published table and chart anew from the published scores."""
    for scores in sorted(RESULTS.glob("**/scores")):
        (write_study if scores.parent.name in STUDIES else write_grid)(scores.parent)


def write_pages() -> None:
    """Write the tables of the pages anew from what is published."""
    for page in PAGES:
        file = ROOT / page
        file.write_text(answers.fill_in(file.read_text(), RESULTS))
    print(f"wrote the tables of {', '.join(PAGES)}")
