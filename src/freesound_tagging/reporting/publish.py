"""``freesound-tagging publish`` and ``report``: measurements -> ``results/`` -> tables.

``publish`` copies a finished run into ``results/<data set>``, or a study into a folder in it;
``report`` writes the tables of README.md, docs/running.md and results/README.md from what lies
there. All that is published is computed from the scores as they are published, so that anyone can
compute it again.
"""

import gzip
import io
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import joblib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from freesound_tagging.features.variants import VARIANTS
from freesound_tagging.files import write_atomically
from freesound_tagging.learning.networks import best_device
from freesound_tagging.reporting import answers, findings
from freesound_tagging.reporting.readme import scoreboard, write_section
from freesound_tagging.runs import studies
from freesound_tagging.runs.experiment import ROOT, Experiment, open_experiment
from freesound_tagging.runs.questions import check_study
from freesound_tagging.scoring import charts, statistics
from freesound_tagging.scoring import metrics as evaluation
from freesound_tagging.scoring.metrics import KEYS

RESULTS_MARKS = (
    "<!-- results: written by make report, do not edit -->",
    "<!-- results: end -->",
)
COSTS_MARKS = (
    "<!-- costs: written by make report, do not edit -->",
    "<!-- costs: end -->",
)
COSTS = ROOT / "benchmarks" / "fsdkaggle2018" / "full_size.json"
FULL_SCORES = 60_000
"""Of a variant with more scores than this, only those are published that its ranks depend on."""


def write_chart(summary: pd.DataFrame, file: Path, title: str) -> None:
    """Draw the ranked table into a PNG file."""
    save_figure(charts.show_summary(summary, title=title).figure, file)


def publish(experiment: Experiment) -> Path:
    """Copy a finished run's measurements and charts to ``results/<data set>``; return that folder.

    Raises
    ------
    FileNotFoundError
        Where the run is not finished.
    ValueError
        Where it was made with the smoke profile.
    """
    results, folder = experiment.load_results(), experiment.results_folder
    if experiment.profile_name == "smoke":
        raise ValueError("the smoke profile's scores say nothing; publish cpu or gpu")
    missing = set(VARIANTS) - set(results["variant"])
    if missing:
        raise FileNotFoundError(
            f"{experiment.run_folder}: no runs of {', '.join(sorted(missing))} yet"
        )
    table = experiment.load_table()
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    for name, frame in experiment.load_scores().items():
        content = pack_scores({name: frame}, table)
        write_atomically(folder / "scores" / f"{name}.csv.gz", content)
    results.to_csv(folder / "results.csv", index=False)
    scores, groups = read_scores(folder)
    for name, frame in analyse_grid(results, scores, groups).items():
        frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    summary = pd.read_csv(folder / "summary.csv")
    write_chart(summary, folder / "chart.png", chart_title(experiment.name, summary))
    axes = charts.show_differences(
        pd.read_csv(folder / "tests.csv"), reference="log_db", metric=statistics.VERDICT_METRIC
    )
    save_figure(axes.figure, folder / "differences.png")
    (folder / "README.md").write_text(_about(experiment, results))
    return folder


def analyse_grid(
    results: pd.DataFrame, scores: dict[str, pd.DataFrame], table: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Return what is published of a grid besides its results: file name -> table.

    ``summary`` (`evaluation.summarise`), ``tests`` (`statistics.paired_tests`) and, where there are
    several seeds, ``variance`` (`statistics.variance_shares` of each metric).
    """
    tables = {
        "summary": evaluation.summarise(scores, table),
        "tests": statistics.paired_tests(scores, table),
    }
    if results["seed"].nunique() > 1:
        tables["variance"] = pd.concat(
            statistics.variance_shares(results, metric).assign(metric=metric)
            for metric in statistics.METRICS
        )
    return tables


def publish_study(experiment: Experiment, study: str) -> Path:
    """Copy a finished study to ``results/<data set>/<study>``; return that folder.

    Raises
    ------
    FileNotFoundError
        Where the study is not finished.
    ValueError
        Where it is unknown, or not asked on this data set.
    """
    check_study(study, experiment.dataset)
    scores = studies.load_scores(experiment, study)
    folder = experiment.results_folder / study
    (folder / "scores").mkdir(parents=True, exist_ok=True)
    table = experiment.load_table()
    if study == "speakers":
        table = studies.digit_and_speaker(table)
    for cell, variants in scores.items():
        write_atomically(folder / "scores" / f"{cell}.csv.gz", pack_scores(variants, table))
    file = studies.study_folder(experiment, study) / "results.csv"
    results = pd.read_csv(file, dtype={"cell": str})
    results.to_csv(folder / "results.csv", index=False)
    for name, frame in analyse_study(study, folder).items():
        frame.to_csv(folder / f"{name}.csv", index=False, float_format="%.6g")
    if study in ("difficulty", "noise"):
        figure = charts.show_curves(pd.read_csv(folder / "curve.csv", dtype={"cell": str}), study)
        save_figure(figure, folder / "curve.png")
    return folder


def analyse_study(study: str, folder: Path) -> dict[str, pd.DataFrame]:
    """Return the tables that answer a study, from its published results and scores."""
    results = pd.read_csv(folder / "results.csv", dtype={"cell": str})
    scores, table = read_cells(folder, results["cell"].unique())
    if study == "controls":
        # The study's own grid has the seeds of its controls; the published one may have more.
        published, _ = read_scores(folder.parent)
        scores["grid"] = {variant: published[variant] for variant in scores["grid"]}
        return {"claims": findings.judge_claims(scores, table)}
    if study in ("difficulty", "noise"):
        return {"curve": findings.curve(scores, table)}
    if study == "speakers":
        (cell,) = scores
        return analyse_grid(results, scores[cell], table)
    if study == "trials":
        folds = next(iter(read_scores(folder.parent)[0].values()))
        folds = folds.drop_duplicates("clip_id").set_index("clip_id")[["fold"]]
        choices = studies.choose_trials(scores, folds)
        settings = pd.DataFrame(studies.TRIALS)
        number = choices["trial"].str.removeprefix("trial").astype(int)
        return {"choices": choices.join(settings.loc[number].reset_index(drop=True))}
    if study == "tuned":
        return {"tuned": findings.compare_tuned(scores, table)}
    grid, _ = read_scores(folder.parent)
    grid_results = pd.read_csv(folder.parent / "results.csv")
    return {"steps": findings.tagger_steps(scores, results, table, grid, grid_results)}


def pack_scores(scores: dict[str, pd.DataFrame], table: pd.DataFrame) -> bytes:
    """Return out-of-fold scores as one compressed CSV, the same bytes for the same scores.

    Of a variant with more than `FULL_SCORES` scores only those are kept that are among a clip's
    three highest or no lower than that of its true class: ranks, and with them every metric, stay
    the same, and the file small. The others are left blank. Scores have five digits, or nine where
    five would make two of them equal and so move a rank.
    """
    frames = []
    for name, frame in scores.items():
        classes = evaluation.classes_of(frame)
        frame = frame.sort_values(["seed", "clip_id"]).reset_index(drop=True)
        if len(frame) * len(classes) > FULL_SCORES:
            values = frame[classes].to_numpy()
            places = frame["label"].map({label: i for i, label in enumerate(classes)})
            true = values[np.arange(len(frame)), places.to_numpy(dtype=int)]
            third = np.sort(values, axis=1)[:, -min(3, len(classes))]
            kept = values >= np.minimum(true, third)[:, None]
            frame = frame.assign(**frame[classes].where(kept))
        frames.append(frame.assign(variant=name, group=frame["clip_id"].map(table["group"])))
    first = ["variant", "group"]
    together = pd.concat(frames)
    together = together[[*first, *together.columns.drop(first)]]
    text = together.to_csv(index=False, float_format="%.5g")
    rounded = pd.read_csv(io.StringIO(text), usecols=classes)[classes]
    before = _true_ranks(together["label"], together[classes])
    if (before != _true_ranks(together["label"], rounded)).any():
        text = together.to_csv(index=False, float_format="%.9g")
    return gzip.compress(text.encode(), mtime=0)


def _true_ranks(labels: pd.Series, scores: pd.DataFrame) -> np.ndarray:
    """Return the rank of each row's true class; blank scores are the lowest."""
    places = labels.map({label: i for i, label in enumerate(scores)}).to_numpy(dtype=int)
    return evaluation.target_ranks(scores.fillna(0.0), places)


def unpack_scores(file: Path) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the scores that `pack_scores` wrote, and a clip table with the column group."""
    words = dict.fromkeys(("variant", "clip_id", "group", "label"), str)
    # A label may be "None" or "NA"; it is a word here, not a gap.
    frame = pd.read_csv(file, dtype=words, keep_default_na=False, na_values={})
    classes = [column for column in frame if column not in (*KEYS, "variant", "group")]
    frame[classes] = frame[classes].replace("", 0).astype(float)
    table = frame.drop_duplicates("clip_id").set_index("clip_id")[["group"]]
    scores = {
        name: part.drop(columns=["variant", "group"]).reset_index(drop=True)
        for name, part in frame.groupby("variant", sort=False)
    }
    return scores, table


def read_scores(folder: Path) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the published scores of a grid, in the order of its results, and a clip table."""
    scores = {}
    for variant in pd.read_csv(folder / "results.csv")["variant"].unique():
        own, table = unpack_scores(folder / "scores" / f"{variant}.csv.gz")
        scores |= own
    return scores, table


def read_cells(
    folder: Path, cells: Sequence[str]
) -> tuple[dict[str, dict[str, pd.DataFrame]], pd.DataFrame]:
    """Return the published scores of a study, cell -> variant -> frame, and a clip table."""
    unpacked = {cell: unpack_scores(folder / "scores" / f"{cell}.csv.gz") for cell in cells}
    tables = pd.concat(table for _, table in unpacked.values())
    return (
        {cell: scores for cell, (scores, _) in unpacked.items()},
        tables[~tables.index.duplicated()],
    )


def save_figure(figure: plt.Figure, file: Path) -> None:
    """Write a figure as PNG, the same bytes for the same figure, and close it."""
    figure.savefig(file, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)


def chart_title(name: str, summary: pd.DataFrame) -> str:
    """Return the line above a chart: data set, clips and seeds."""
    seeds = summary["seeds"].max()
    return f"{name}: {summary['n'].max()} clips, {seeds} seed{'s' if seeds > 1 else ''}"


def _about(experiment: Experiment, results: pd.DataFrame) -> str:
    device = best_device()
    packages = ", ".join(
        f"{name} {version(name)}" for name in ("torch", "fastai", "librosa", "numpy")
    )
    return f"""# {experiment.name}

Measured with `make run DATASET={experiment.name} PROFILE={experiment.profile_name}`, copied here by
`make publish` on {datetime.now(timezone.utc):%Y-%m-%d}; {platform.system()}
{platform.machine()}, {joblib.cpu_count()} cores, device {device.type},
Python {platform.python_version()}, {packages}.
{len(results)} runs; their wall-clock times add up to {results["seconds"].sum() / 3600:.2f} hours.

- `results.csv` one row a run: variant, fold, seed.
- `summary.csv` one row a variant: out-of-fold figures, 95 % interval of top-3 error over source
  recordings.
- `tests.csv` each variant against mel_db and log_db on the same clips and seeds, in three metrics:
  difference, 95 % interval over source recordings, p value, p value after Holm's correction, the
  smallest difference that this much data can detect.
- `variance.csv` the shares of the variance between runs: representation, fold, seed.
- `scores/` the out-of-fold probabilities of every clip, from which all else can be computed again;
  of large sets only those that the ranks depend on.
- `chart.png` the summary as a picture, `differences.png` the tests of MAP@3 against log_db.
- folders: studies, each with its results, scores, and the table that answers it.
"""


def publish_into_results(dataset: str, profile: str, study: str = "") -> None:
    """Copy a finished run, or a study, into ``results/`` and say where."""
    if study:
        folder = publish_study(studies.open_study(dataset, study, profile), study)
    else:
        folder = publish(open_experiment(dataset, profile or "cpu"))
    print(f"wrote {os.path.relpath(folder)}")


def write_pages() -> None:
    """Write the tables of README.md, docs/running.md and results/README.md anew."""
    results = ROOT / "results"
    write_section(ROOT / "README.md", RESULTS_MARKS, scoreboard(results))
    write_section(ROOT / "docs" / "running.md", COSTS_MARKS, answers.full_size_costs(COSTS))
    (results / "README.md").write_text(answers.results_page(results))
    print("wrote the tables of README.md, docs/running.md and results/README.md")
