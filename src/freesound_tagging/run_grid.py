"""A grid: all runs of representation x fold x seed, made once and in a useful order.

A run that is done with the same settings, sounds and folds is never repeated; one whose settings
have changed is. So a stopped grid goes on where it was.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import joblib
import pandas as pd
from tqdm import tqdm

from freesound_tagging import run as one_run
from freesound_tagging.features.store import Store
from freesound_tagging.files import write_atomically
from freesound_tagging.jobs import run_jobs
from freesound_tagging.keys import run_key
from freesound_tagging.learning import networks
from freesound_tagging.learning.profiles import Profile
from freesound_tagging.run import Run

RESULT_COLUMNS = [
    "dataset",
    "profile",
    "variant",
    "fold",
    "seed",
    "n",
    "top1_accuracy",
    "top3_error",
    "map3",
    "log_loss",
    "train_loss",
    "epochs",
    "seconds",
]
"""Columns of the results. ``train_loss`` is that of the last steps, smoothed; the rest is of the
held-out clips."""


def profile_folds(table: pd.DataFrame, profile: Profile) -> list[int]:
    """Return the folds that a profile runs: all of the table's, or its first few."""
    return sorted(int(fold) for fold in table["fold"].unique())[: profile.folds]


def plan_runs(
    table: pd.DataFrame,
    store: Store,
    variants: Sequence[str],
    profile: Profile,
    folder: str | Path,
    *,
    dataset: str,
    profile_name: str,
    folds: Sequence[int] | None = None,
    keep_diverged: bool = False,
    test: pd.DataFrame | None = None,
) -> list[Run]:
    """Return the runs of representation x fold x seed, in this order; none is made yet.

    Parameters
    ----------
    table : clips, index ``clip_id``.
    store : holds the channels of all representations.
    variants : names that `freesound_tagging.features.representations.get_variant` knows.
    profile : network, schedule, folds and seeds.
    folder : where runs are kept, in ``folder/runs``.
    dataset, profile_name : names that go into the results.
    folds : the folds held out, by default the profile's.
    keep_diverged, test : see `Run`.
    """
    folds = profile_folds(table, profile) if folds is None else folds
    return [
        Run(
            table,
            store,
            variant,
            fold,
            seed,
            profile,
            dataset,
            profile_name,
            Path(folder) / "runs" / variant / f"fold{fold}-seed{seed}",
            key,
            keep_diverged,
            test,
        )
        for variant, key in [(name, run_key(table, store, name, profile)) for name in variants]
        for fold in folds
        for seed in profile.seeds
    ]


def make_runs(
    runs: Sequence[Run],
    *,
    n_jobs: int | None = None,
    progress: bool = True,
    results_so_far: Callable[[list[Run]], None] | None = None,
) -> None:
    """Make every run that is not done yet: all of the first seed, then all of the second.

    So a grid that is stopped compares every representation, if with fewer seeds. On a CPU one run
    goes to each core; on a GPU they follow one another; where SCHEDULER names a cluster, one goes
    to each of its workers, see `freesound_tagging.jobs`.

    Parameters
    ----------
    n_jobs : worker processes on this machine, by default one a core on a CPU and one on a GPU.
    progress : show a progress bar with an estimate of the remaining time; where runs follow one
        another, a second one counts the epochs of each.
    results_so_far : called with all finished runs, in the order given, whenever one ends.

    Raises
    ------
    ValueError
        Where training diverged and ``keep_diverged`` is not set.
    ClusterError
        As `freesound_tagging.jobs.run_jobs`.
    """
    done = {run.place for run in runs if run.is_done()}
    todo = sorted((run for run in runs if run.place not in done), key=lambda run: run.seed)
    if not todo:
        return
    _tell_of_others([run for run in todo if run.record_file.exists()])
    workers = n_jobs or (joblib.cpu_count() if networks.best_device().type == "cpu" else 1)
    one_by_one = progress and workers == 1
    made = run_jobs(one_run.make_run, [(run, one_by_one) for run in todo], workers)
    with tqdm(
        total=len(runs),
        initial=len(done),
        desc="runs",
        unit="run",
        smoothing=0,  # the time left by the mean of all runs: they take much the same
        disable=not progress,
    ) as bar:
        for place in made:
            bar.update()
            done.add(place)
            if results_so_far is not None:
                results_so_far([run for run in runs if run.place in done])


def _tell_of_others(runs: Sequence[Run]) -> None:
    if runs:
        tqdm.write(
            f"{len(runs)} runs are damaged, or were made with other settings, sounds, folds or "
            f"code; they are made again, the first is {runs[0].place}"
        )


def collect_results(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row for each run that was made, columns `RESULT_COLUMNS`, in the order given."""
    rows = [json.loads(run.record_file.read_text())["row"] for run in runs]
    return pd.DataFrame(rows, columns=RESULT_COLUMNS)


def run_grid(
    table: pd.DataFrame,
    store: Store,
    variants: Sequence[str],
    profile: Profile,
    folder: str | Path,
    *,
    dataset: str,
    profile_name: str,
    n_jobs: int | None = None,
    progress: bool = True,
    test: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Make every run of representation x fold x seed not done yet, and return all results.

    Parameters as in `plan_runs` and `make_runs`. ``folder/results.csv`` is written once all runs
    are made; until then ``folder/results.partial.csv`` holds those that have ended.

    Returns
    -------
    One row a run, columns `RESULT_COLUMNS`, sorted by representation (in the order given), fold,
    seed.
    """
    runs = plan_runs(
        table,
        store,
        variants,
        profile,
        folder,
        dataset=dataset,
        profile_name=profile_name,
        test=test,
    )
    return make_and_collect(runs, Path(folder), collect_results, n_jobs=n_jobs, progress=progress)


def make_and_collect(
    runs: Sequence[Run],
    folder: Path,
    collect: Callable[[list[Run]], pd.DataFrame],
    **options,
) -> pd.DataFrame:
    """Make runs and write their results into a folder: see `run_grid`.

    ``collect`` makes the table of results of the runs that are done.
    """
    file, partial = folder / "results.csv", folder / "results.partial.csv"
    if not all(run.is_done() for run in runs):
        # Until all runs are made again, the old table does not fit the scores beside it.
        file.unlink(missing_ok=True)
        make_runs(
            runs, results_so_far=lambda done: _write_results(partial, collect(done)), **options
        )
    results = collect(runs)
    _write_results(file, results)
    partial.unlink(missing_ok=True)
    return results


def _write_results(file: Path, results: pd.DataFrame) -> None:
    write_atomically(file, results.to_csv(index=False).encode())


def finished_runs(folder: Path, variants: Sequence[str]) -> pd.DataFrame:
    """Return the results of all runs of some representations in a folder that have ended.

    Columns `RESULT_COLUMNS`; sorted by variant (in the order given), fold, seed.

    Raises
    ------
    FileNotFoundError
        Where no run has ended.
    ValueError
        Where runs of one representation are of different settings: some are to be made again.
    """
    records = [json.loads(file.read_text()) for file in sorted(folder.glob("runs/*/*.json"))]
    records = [record for record in records if record["row"]["variant"] in variants]
    if not records:
        raise FileNotFoundError(f"{folder} holds no run that has ended: make run or make study")
    rows = pd.DataFrame([record["row"] for record in records], columns=RESULT_COLUMNS)
    rows["key"] = [record["key"] for record in records]
    mixed = rows.groupby("variant")["key"].nunique().loc[lambda keys: keys > 1]
    if len(mixed):
        raise ValueError(
            f"{folder}: the runs of {mixed.index[0]} are of different settings, sounds or code; "
            "the same command that made them makes the old ones again"
        )
    place = rows["variant"].map({name: number for number, name in enumerate(variants)})
    rows = rows.assign(place=place).sort_values(["place", "fold", "seed"])
    return rows[RESULT_COLUMNS].reset_index(drop=True)


def load_scores(folder: str | Path, results: pd.DataFrame, suffix: str = ".csv") -> dict:
    """Return variant -> scores of the runs in ``results``, as in `freesound_tagging.scoring`.

    Out-of-fold scores; with the suffix ``.test.csv`` those of the test clips, where ``fold`` is the
    one that the network did not see and each clip has a row for each fold and seed.

    Raises
    ------
    FileNotFoundError
        Where the runs were made without test clips.
    """
    scores: dict[str, list[pd.DataFrame]] = {}
    for row in results.itertuples():
        place = Path(folder) / "runs" / row.variant / f"fold{row.fold}-seed{row.seed}"
        scores.setdefault(row.variant, []).append(
            pd.read_csv(
                place.with_suffix(suffix),
                dtype={"clip_id": str, "label": str},
                keep_default_na=False,
            )
        )
    return {variant: pd.concat(frames, ignore_index=True) for variant, frames in scores.items()}
