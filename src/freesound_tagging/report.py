"""Measurements -> ``results/`` (committed) -> the tables in README.md.

``publish`` copies a finished run into ``results/<data set>``; without an argument, the README's
results section is written anew from what lies there. Nothing in that section is typed by hand.
"""

import argparse
import gzip
import io
import os
import platform
import sys
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

import joblib
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from freesound_tagging import evaluation, plots
from freesound_tagging.experiment import ROOT, Experiment, open_experiment
from freesound_tagging.profiles import best_device
from freesound_tagging.store import write_atomically
from freesound_tagging.variants import VARIANTS

BEGIN = "<!-- results: written by make report, do not edit -->"
END = "<!-- results: end -->"
METRICS = ("top3_error", "top1_accuracy", "map3")
REFERENCES = ("log_db", "mel_db")


def write_chart(summary: pd.DataFrame, file: Path, title: str) -> None:
    """Draw the ranked table into a PNG file."""
    axes = plots.show_summary(summary, title=title)
    axes.figure.savefig(file, dpi=110, bbox_inches="tight", metadata={"Software": None})
    plt.close(axes.figure)


def publish(experiment: Experiment) -> Path:
    """Copy a finished run's measurements and chart to ``results/<data set>``; return that folder.

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
    folder.mkdir(parents=True, exist_ok=True)
    table, scores = experiment.load_table(), experiment.load_scores()
    summary = evaluation.summarise(scores, table)
    differences = compare(scores, table)
    results.to_csv(folder / "results.csv", index=False)
    summary.to_csv(folder / "summary.csv", index=False, float_format="%.6g")
    differences.to_csv(folder / "differences.csv", index=False, float_format="%.6g")
    write_atomically(folder / "scores.csv.gz", pack_scores(scores, table))
    write_chart(summary, folder / "chart.png", chart_title(experiment.name, summary))
    (folder / "README.md").write_text(_about(experiment, results))
    return folder


def compare(scores: dict[str, pd.DataFrame], table: pd.DataFrame) -> pd.DataFrame:
    """Return the paired differences from each reference, in each metric.

    Columns metric, reference, variant, difference, low, high (`evaluation.paired_differences`).
    """
    parts = [
        evaluation.paired_differences(scores, table, reference, metric).assign(
            metric=metric, reference=reference
        )
        for metric in METRICS
        for reference in REFERENCES
    ]
    columns = ["metric", "reference", "variant", "difference", "low", "high"]
    return pd.concat(parts, ignore_index=True)[columns]


def pack_scores(scores: dict[str, pd.DataFrame], table: pd.DataFrame) -> bytes:
    """Return all out-of-fold scores as one compressed CSV, the same bytes for the same scores."""
    frames = pd.concat(
        frame.assign(variant=name, group=frame["clip_id"].map(table["group"]))
        for name, frame in scores.items()
    )
    first = ["variant", "group"]
    text = io.StringIO()
    frames[[*first, *frames.columns.drop(first)]].to_csv(text, index=False, float_format="%.5g")
    return gzip.compress(text.getvalue().encode(), mtime=0)


def unpack_scores(file: Path) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the scores that `pack_scores` wrote, and a clip table with the column group."""
    str_columns = {"variant": str, "clip_id": str, "group": str, "label": str}
    # A label may be "None" or "NA"; it is a word here, not a gap.
    frame = pd.read_csv(file, dtype=str_columns, keep_default_na=False)
    table = frame.drop_duplicates("clip_id").set_index("clip_id")[["group"]]
    scores = {
        name: part.drop(columns=["variant", "group"]).reset_index(drop=True)
        for name, part in frame.groupby("variant", sort=False)
    }
    return scores, table


def chart_title(name: str, summary: pd.DataFrame) -> str:
    """Return the line above a chart: data set, clips and seeds."""
    return f"{name}: {summary['n'].max()} clips, {_seeds(summary)}"


def _seeds(summary: pd.DataFrame) -> str:
    n = summary["seeds"].max()
    return f"{n} seed{'s' if n > 1 else ''}"


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
- `differences.csv` each variant against log_db and mel_db on the same clips, with 95 % intervals.
- `scores.csv.gz` the out-of-fold probabilities of every clip, from which all else can be
  computed again.
- `chart.png` the summary as a picture.
"""


def results_section(folder: Path) -> str:
    """Return the README's results section in Markdown, from every data set in the folder."""
    parts = []
    for summary_file in sorted(folder.glob("*/summary.csv")):
        name = summary_file.parent.name
        summary = pd.read_csv(summary_file)
        profile = pd.read_csv(summary_file.parent / "results.csv")["profile"].iloc[0]
        differences = pd.read_csv(summary_file.parent / "differences.csv")
        against = differences[
            (differences["metric"] == "top1_accuracy") & (differences["reference"] == "log_db")
        ].set_index("variant")
        lines = [
            f"### {name} ({profile} profile, {summary['n'].max()} clips, {_seeds(summary)})",
            "",
            "| variant | top-3 error | 95 % interval | MAP@3 | top-1 accuracy "
            "| minus log_db's | 95 % interval |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in summary.itertuples():
            paired = "| | |"
            if row.variant in against.index:
                other = against.loc[row.variant]
                paired = (
                    f"| {other['difference']:+.3f} | {other['low']:+.3f} to {other['high']:+.3f} |"
                )
            lines.append(
                f"| {row.variant} | {row.top3_error:.4f} "
                f"| {row.top3_error_low:.4f} to {row.top3_error_high:.4f} "
                f"| {row.map3:.3f} | {row.top1_accuracy:.3f} {paired}"
            )
        lines += ["", f"![{name}: top-3 error of each variant](results/{name}/chart.png)", ""]
        parts.append("\n".join(lines))
    return "\n".join(parts)


def write_readme(readme: Path, folder: Path) -> None:
    """Replace what stands between the two marks of the README by the results section.

    Raises
    ------
    ValueError
        Where the marks are not both there.
    """
    text = readme.read_text()
    if BEGIN not in text or END not in text:
        raise ValueError(f"{readme}: the marks {BEGIN!r} and {END!r} must both be there")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n\n{results_section(folder)}\n{END}{after}")


def main(arguments: list[str] | None = None) -> int:
    """Publish a run where asked to, write the README, and return the exit status."""
    parser = argparse.ArgumentParser(prog="make report", description=__doc__.partition("\n")[0])
    parser.add_argument("action", nargs="?", choices=["publish"])
    parser.add_argument("--dataset", default="microcalls")
    parser.add_argument("--profile", default="cpu")
    options = parser.parse_args(arguments)
    if options.action == "publish":
        try:
            folder = publish(open_experiment(options.dataset, options.profile))
        except (ValueError, FileNotFoundError) as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"wrote {os.path.relpath(folder)}")
    write_readme(ROOT / "README.md", ROOT / "results")
    print("wrote the results section of README.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
