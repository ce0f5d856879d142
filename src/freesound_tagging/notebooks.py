"""``make run``: execute the notebooks in order, then print the table and where everything lies.

Each notebook is a plain Jupyter notebook that also runs by hand; here papermill runs it with the
data set and profile asked for, and keeps the executed copy beside the results.
"""

import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError

from freesound_tagging.experiment import ROOT, Experiment, open_experiment
from freesound_tagging.model import make_model
from freesound_tagging.scoring.metrics import METRIC, METRIC_TITLES

NOTEBOOKS = ROOT / "notebooks"

FIRST_NEIGHBOUR = 10
"""From this number on notebooks are about systems around the comparison; `make run` ends before."""


def notebook_files() -> list[Path]:
    """Return the numbered notebooks in order."""
    return sorted(NOTEBOOKS.glob("[0-9][0-9]_*.ipynb"))


def split_notebooks() -> tuple[list[Path], list[Path]]:
    """Return the notebooks of `make run`, and those of `make neighbours`."""
    parts: tuple[list[Path], list[Path]] = ([], [])
    for file in notebook_files():
        parts[int(file.stem[:2]) >= FIRST_NEIGHBOUR].append(file)
    return parts


class ThisPython(AsyncKernelManager):
    """Kernels of the Python that runs this, whatever else is called python3 on the machine."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])  # what is left is ipykernel's own


def run_notebook(
    source: Path, target: Path, parameters: dict[str, str | None], progress: bool = True
) -> None:
    """Execute one notebook from the notebooks folder and write the executed copy.

    Parameters that the notebook does not have are left out.

    Raises
    ------
    PapermillExecutionError
        Where a cell fails; the copy then holds everything up to it.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    known = papermill.inspect_notebook(source)
    papermill.execute_notebook(
        source,
        target,
        parameters={name: value for name, value in parameters.items() if name in known},
        cwd=source.parent,
        kernel_name="python3",
        kernel_manager_class=ThisPython,
        progress_bar=progress,
        extra_arguments=[
            "--log-level=CRITICAL"
        ],  # of the kernel, whose notices are not for readers
    )


def run_experiment(dataset: str, profile: str) -> int:
    """Run the notebooks, print what came out, and return the exit status.

    Raises
    ------
    DataError
        Where the data set's sounds or table cannot be used: before any notebook starts.
    OSError
        Where the run folder cannot be written.
    KeyboardInterrupt
        After Ctrl-C.
    """
    start = time.perf_counter()
    experiment = open_experiment(dataset, profile)
    with experiment.hold_checked_runs():
        status = run_notebooks(experiment, split_notebooks()[0])
        if status == 0:
            print_outcome(experiment.run_folder)
            print_test_outcome(experiment)
            print_cautions(experiment)
            if experiment.dataset == "microcalls":  # tagging works offline right after
                print(f"\n{'model for tagging':20s}{_relative(make_model(experiment))}")
            print(f"\n{(time.perf_counter() - start) / 60:.1f} minutes in all")
    return status


def run_neighbours(dataset: str, profile: str) -> int:
    """Run the notebooks about the systems around the comparison and return the exit status."""
    experiment = open_experiment(dataset, profile)
    with experiment.hold_checked_runs():
        return run_notebooks(experiment, split_notebooks()[1])


def run_notebooks(experiment: Experiment, sources: Sequence[Path]) -> int:
    """Execute notebooks in order and return the exit status.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, also where a notebook's kernel was first to hear of it.
    """
    parameters = {
        "dataset": experiment.dataset,
        "profile": experiment.profile_name,
        "representations": None,  # all of them
    }
    for source in sources:
        target = experiment.run_folder / "notebooks" / source.name
        began = time.perf_counter()
        print(f"{source.name} ...", flush=True)
        try:
            run_notebook(source, target, parameters, progress=sys.stderr.isatty())
        except PapermillExecutionError as error:
            if error.ename == "KeyboardInterrupt":
                raise KeyboardInterrupt from error
            print(f"error: {source.name}: {error.ename}: {error.evalue}", file=sys.stderr)
            print(
                f"The notebook up to there is {_relative(target)}; what is finished is kept.",
                file=sys.stderr,
            )
            return 1
        print(f"{source.name} done in {time.perf_counter() - began:.0f} s", flush=True)
    return 0


def print_outcome(folder: Path) -> None:
    """Print the ranked table and where the files of a run lie."""
    summary = pd.read_csv(folder / "summary.csv")
    print(f"\nRepresentations by out-of-fold {METRIC_TITLES[METRIC]}, best first:\n")
    print(summary.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    print()
    for what, file in {
        "executed notebooks": folder / "notebooks",
        "one row a run": folder / "results.csv",
        "one row a variant": folder / "summary.csv",
        "chart": folder / "chart.png",
    }.items():
        print(f"{what:20s}{_relative(file)}")


def print_test_outcome(experiment: Experiment) -> None:
    """Score the test split where the data set has one that was scored, and print how it went."""
    summary = experiment.write_test_summary()
    if summary is not None:
        print("\nThe challenge's test clips, the networks of all folds averaged:\n")
        print(summary.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
        print(f"\n{'one row a variant':20s}{_relative(experiment.run_folder / 'test_summary.csv')}")
        print(f"{'for Kaggle':20s}{_relative(experiment.run_folder / 'submissions')}")


def print_cautions(experiment: Experiment) -> None:
    """Say which clips could not be read, and what the scores of the smoke profile are worth."""
    file = experiment.run_folder / "unreadable.csv"
    unreadable = len(pd.read_csv(file))
    if unreadable:
        print(f"\n{unreadable} clips could not be read and were left out: {_relative(file)}")
    if experiment.profile_name == "smoke":
        print(
            "\nThe smoke profile trains for two epochs on a few clips and two folds, to see that "
            "everything runs: these scores say nothing."
        )


def _relative(path: Path) -> str:
    return os.path.relpath(path, Path.cwd())
