"""``make run``: execute the notebooks in order, then print the table and where everything lies.

Each is a plain Jupyter notebook that also runs by hand; here papermill runs it with the data set
and profile asked for, and keeps the executed copy beside the results.
"""

import sys
import time
from pathlib import Path

import pandas as pd
import papermill
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from papermill.exceptions import PapermillExecutionError

from freesound_tagging.experiment import COMPARED, ROOT, Experiment, open_experiment
from freesound_tagging.model import make_model
from freesound_tagging.scoring.metrics import METRIC_TITLE


def notebook_files(neighbours: bool = False) -> list[Path]:
    """Return the notebooks of `make run`, or from 9 on its neighbours' (`make neighbours`)."""
    files = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))
    return [file for file in files if (int(file.stem[:2]) >= 9) == neighbours]


class ThisPython(AsyncKernelManager):
    """Kernels of the Python that runs this, whatever else is called python3 on the machine."""

    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return KernelSpecManager(kernel_dirs=[])  # what is left is ipykernel's own


def run_notebook(source: Path, target: Path, dataset: str, profile: str) -> None:
    """Execute one notebook and write the executed copy; it ends with the first cell that fails."""
    target.parent.mkdir(parents=True, exist_ok=True)
    given = {"dataset": dataset, "profile": profile, "representations": list(COMPARED)}
    known = papermill.inspect_notebook(source)
    papermill.execute_notebook(
        source,
        str(target).replace("{", "{{").replace("}", "}}"),  # papermill formats it
        parameters={name: value for name, value in given.items() if name in known},
        cwd=source.parent,
        kernel_name="python3",
        kernel_manager_class=ThisPython,
        progress_bar=sys.stderr.isatty(),
        coalesce_streams=True,  # of a progress bar only its last state stays
        extra_arguments=["--log-level=CRITICAL"],  # the kernel's notices are not for readers
    )


def run_experiment(dataset: str, profile: str, neighbours: bool = False) -> int:
    """Run the notebooks, or the neighbours, print what came out, and return the exit status."""
    experiment = open_experiment(dataset, profile)
    with experiment.hold_runs():
        for source in notebook_files(neighbours):
            target = experiment.run_folder / "notebooks" / source.name
            began = time.perf_counter()
            print(f"{source.name} ...", flush=True)
            try:
                run_notebook(source, target, dataset, profile)
            except PapermillExecutionError as error:
                if error.ename == "KeyboardInterrupt":  # the kernel was first to hear of Ctrl-C
                    raise KeyboardInterrupt from error
                print(f"error: {source.name}: {error.ename}: {error.evalue}", file=sys.stderr)
                print(f"see {target}; what is finished is kept", file=sys.stderr)
                return 1
            print(f"{source.name} done in {time.perf_counter() - began:.0f} s", flush=True)
        if not neighbours:
            print_outcome(experiment)
            if experiment.dataset == "microcalls":  # tagging works offline right after
                print(f"\nThe model for tagging lies in {make_model(experiment)}")
    return 0


def print_outcome(experiment: Experiment) -> None:
    """Print the ranked table, where files lie, and what is to be known about the scores."""
    folder = experiment.run_folder
    summary = pd.read_csv(folder / "summary.csv")
    print(f"\nRepresentations by out-of-fold {METRIC_TITLE}, best first:\n")
    print(summary.to_string(index=False, float_format=lambda value: f"{value:.4f}"))
    print(f"\nThese, results.csv (one row a run), chart.png and notebooks/ lie in {folder}")
    if number := len(pd.read_csv(folder / "unreadable.csv")):
        print(f"\n{number} clips could not be read and were left out: see unreadable.csv there")
    if experiment.profile_name == "smoke":
        print("\nThe smoke profile only shows that everything runs: these scores say nothing.")
