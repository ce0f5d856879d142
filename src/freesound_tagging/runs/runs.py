"""One run is one representation, one held-out fold, one seed; a grid is all of them.

A run's scores and its row of results are one file each, written when the run ends. A run that is
done with the same settings, sounds and folds is never repeated; one whose settings have changed is.
A long run that is killed goes on from its checkpoint.
"""

import dataclasses
import gc
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import fastai.callback.fp16
import fastai.callback.progress
import fastai.callback.schedule  # noqa: F401  (these three add to_fp16, no_bar and fit_one_cycle to Learner)
import joblib
import numpy as np
import pandas as pd
from fastai.learner import Learner
from fastai.torch_core import set_seed
from tqdm import tqdm

from freesound_tagging.features.store import Store
from freesound_tagging.features.variants import get_variant
from freesound_tagging.files import write_atomically
from freesound_tagging.jobs import run_jobs
from freesound_tagging.learning.checkpoints import CheckpointError, KeepCheckpoint
from freesound_tagging.learning.dataloaders import make_dataloaders
from freesound_tagging.learning.learner import (
    CountEpochs,
    SkipValidation,
    _order_by_seed,
    fit,
    make_learner,
    predict,
    predict_others,
    prepare_cpu,
)
from freesound_tagging.learning.networks import best_device, is_pretrained
from freesound_tagging.learning.profiles import Profile
from freesound_tagging.learning.schedules import training_stages
from freesound_tagging.scoring.metrics import KEYS, clip_metrics

TRAINING_ALGORITHM = 1
"""Raise it when the same settings would give other scores: it is part of every run's key."""

ADDED_SETTINGS = ("unverified_weight", "fine_tuning", "hold_still")
"""Settings that older runs were made without: at their defaults they are no part of a run's key."""

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
    "epochs",
    "seconds",
]


def train(
    table: pd.DataFrame,
    store: Store,
    variant: str,
    fold: int | None,
    seed: int,
    profile: Profile,
    checkpoint: KeepCheckpoint | None = None,
    progress: bool = False,
) -> Learner:
    """Train one network with one fold held out, with None on all clips, and return its Learner.

    With ``checkpoint`` training goes on where that says. With ``progress`` a bar counts the epochs.
    """
    set_seed(seed, reproducible=True)
    dls = make_dataloaders(table, store, variant, fold, profile, best_device())
    _order_by_seed(dls, seed)
    learner = make_learner(dls, profile)
    epochs = [stage.epochs for stage in training_stages(profile)]
    bar = tqdm(
        total=sum(epochs),
        initial=sum(epochs[: checkpoint.stage]) if checkpoint else 0,
        desc=f"{variant}, {'all clips' if fold is None else f'fold {fold}'}, seed {seed}",
        unit="epoch",
        leave=False,
        disable=not progress,
    )
    watching = [SkipValidation(), CountEpochs(bar)]
    with bar, learner.no_bar(), learner.no_logging(), learner.added_cbs(watching):
        fit(learner, profile, checkpoint)
    return learner


def train_and_score(
    table: pd.DataFrame,
    store: Store,
    variant: str,
    fold: int,
    seed: int,
    profile: Profile,
    test: pd.DataFrame | None = None,
    checkpoint: KeepCheckpoint | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Train one network with one fold held out, see `train`, and return that fold's scores.

    With ``test``, a table of clips that are in no fold, their scores by the same network follow.

    Returns
    -------
    Columns clip_id, seed, fold, label, then the probability of each class; rows sorted by clip id.
    """
    learner = train(table, store, variant, fold, seed, profile, checkpoint, progress)
    scores = predict(learner).sort_index()
    labels = table["label"]
    if test is not None:
        others = predict_others(learner, store, variant, sorted(test.index))
        scores, labels = pd.concat([scores, others]), pd.concat([labels, test["label"]])
    keys = pd.DataFrame({"seed": seed, "fold": fold, "label": labels}, index=scores.index)
    return keys.join(scores).reset_index()[[*KEYS, *scores.columns]]


def run_key(table: pd.DataFrame, store: Store, variant: str, profile: Profile) -> str:
    """Return a hash of all that a run's scores depend on besides fold and seed."""
    training = dataclasses.asdict(profile) | {"grid": profile.grid.settings()}
    for extent in ("seeds", "folds", "clips_per_class", "max_clips"):
        training.pop(extent)  # how many runs there are does not change any one of them
    pretrained = is_pretrained(profile.architecture)
    if pretrained is not None:
        # Scores of networks that had to begin from nothing must not stand beside the others'.
        training["pretrained"] = pretrained
    for name in ADDED_SETTINGS:
        if training[name] == Profile.__dataclass_fields__[name].default:
            training.pop(name)
    weighted = "unverified_weight" in training
    files = {
        str(file.relative_to(file.parents[1]))
        for name in get_variant(variant).channels
        for file, _ in store.places[name].values()
    }
    clips = table.sort_index()
    content = {
        "algorithm": TRAINING_ALGORITHM,
        "profile": training,
        "planes": get_variant(variant).planes,
        "store": sorted(files),
        "clips": [
            list(map(str, row))
            for row in zip(clips.index, clips["label"], clips["fold"], strict=True)
        ],
    }
    if weighted:
        content["verified"] = [bool(verified) for verified in clips["verified"]]
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def profile_folds(table: pd.DataFrame, profile: Profile) -> list[int]:
    """Return the folds that a profile runs: all of the table's, or its first few."""
    return sorted(int(fold) for fold in table["fold"].unique())[: profile.folds]


@dataclass(frozen=True)
class Run:
    """One run to make: one variant, one held-out fold, one seed, and where its files go.

    ``place`` is the path of its two files without their suffixes; ``key`` a hash of all that its
    scores depend on besides fold and seed. With ``keep_diverged`` a run whose scores are not finite
    is no error: it is kept as one that gives every class the same score, and its record says so.
    With ``test``, a table of clips that are in no fold, the network scores them too, into a third
    file.
    """

    table: pd.DataFrame
    store: Store
    variant: str
    fold: int
    seed: int
    profile: Profile
    dataset: str
    profile_name: str
    place: Path
    key: str
    keep_diverged: bool = False
    test: pd.DataFrame | None = None


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
    """Return the runs of variant x fold x seed, in this order; none is made yet.

    Parameters
    ----------
    table : clips, index ``clip_id``.
    store : holds the channels of all variants.
    variants : keys of `freesound_tagging.features.variants.VARIANTS` or ``CONTROL_VARIANTS``.
    profile : network, schedule, folds and seeds.
    folder : where runs are kept, in ``folder/runs``.
    dataset, profile_name : names that go into the results.
    folds : the folds held out, by default the profile's.
    keep_diverged, test : see `Run`.
    """
    runs = []
    for variant in variants:
        key = run_key(table, store, variant, profile)
        for fold in profile_folds(table, profile) if folds is None else folds:
            for seed in profile.seeds:
                place = Path(folder) / "runs" / variant / f"fold{fold}-seed{seed}"
                runs.append(
                    Run(
                        table,
                        store,
                        variant,
                        fold,
                        seed,
                        profile,
                        dataset,
                        profile_name,
                        place,
                        key,
                        keep_diverged,
                        test,
                    )
                )
    return runs


def make_runs(
    runs: Sequence[Run],
    *,
    n_jobs: int | None = None,
    progress: bool = True,
    results_so_far: Path | None = None,
) -> None:
    """Make every run that is not done yet.

    On a CPU one run goes to each core; on a GPU they follow one another; where SCHEDULER names a
    cluster, one goes to each of its workers, see `cluster`. Each run writes two files, its scores
    and its row of results, so a stopped grid goes on where it was; a run of several minutes goes on
    from its checkpoint.

    Parameters
    ----------
    n_jobs : worker processes on this machine, by default one a core on a CPU and one on a GPU.
    progress : show a progress bar with an estimate of the remaining time; where runs follow one
        another, a second one counts the epochs of each.
    results_so_far : a file that is given the rows of all finished runs whenever one ends.

    Raises
    ------
    ValueError
        Where training diverged and ``keep_diverged`` is not set.
    ClusterError
        As `freesound_tagging.jobs.run_jobs`.
    """
    done = [run for run in runs if _is_done(run)]
    places = {run.place for run in done}
    todo = [run for run in runs if run.place not in places]
    if not todo:
        return
    _tell_of_others([run for run in todo if _row_file(run.place).exists()])
    workers = n_jobs or (joblib.cpu_count() if best_device().type == "cpu" else 1)
    one_by_one = progress and workers == 1
    made = run_jobs(_make_run, [(run, one_by_one) for run in todo], workers)
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
            places.add(place)
            if results_so_far is not None:
                rows = collect_results([run for run in runs if run.place in places])
                _write_results(results_so_far, rows)


def _tell_of_others(runs: Sequence[Run]) -> None:
    """Say that runs which are there are not used, being of other settings, sounds or code."""
    if runs:
        tqdm.write(
            f"{len(runs)} runs are there that other settings, sounds, folds or code made, or that "
            f"are damaged; they are made again, the first is {runs[0].place}"
        )


def collect_results(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row for each run that was made, columns `RESULT_COLUMNS`, in the order given."""
    rows = [json.loads(_row_file(run.place).read_text())["row"] for run in runs]
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
    """Make every run of variant x fold x seed that is not done yet and return all results.

    Parameters as in `plan_runs` and `make_runs`. ``folder/results.csv`` is written once all runs
    are made; until then ``folder/results.partial.csv`` holds those that have ended.

    Returns
    -------
    One row a run, columns `RESULT_COLUMNS`, sorted by variant (in the order given), fold, seed.
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
    file, partial = Path(folder) / "results.csv", Path(folder) / "results.partial.csv"
    if not all(_is_done(run) for run in runs):
        # Until all runs are made again, the old table does not fit the scores beside it.
        file.unlink(missing_ok=True)
        make_runs(runs, n_jobs=n_jobs, progress=progress, results_so_far=partial)
    results = collect_results(runs)
    _write_results(file, results)
    partial.unlink(missing_ok=True)
    return results


def load_scores(folder: str | Path, results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return variant -> out-of-fold scores of the runs in ``results``, as in `evaluation`."""
    return _read_scores(folder, results, _score_file)


def load_test_scores(folder: str | Path, results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return variant -> scores of the test clips by each run in ``results``.

    Columns as of the out-of-fold scores; ``fold`` is the one that the network did not see, and
    each test clip has a row for each fold and seed.

    Raises
    ------
    FileNotFoundError
        Where the runs were made without test clips.
    """
    return _read_scores(folder, results, _test_file)


def _read_scores(
    folder: str | Path, results: pd.DataFrame, file_of: Callable[[Path], Path]
) -> dict[str, pd.DataFrame]:
    scores: dict[str, list[pd.DataFrame]] = {}
    for row in results.itertuples():
        file = file_of(Path(folder) / "runs" / row.variant / f"fold{row.fold}-seed{row.seed}")
        scores.setdefault(row.variant, []).append(
            pd.read_csv(file, dtype={"clip_id": str, "label": str}, keep_default_na=False)
        )
    return {variant: pd.concat(frames, ignore_index=True) for variant, frames in scores.items()}


def _score_file(place: Path) -> Path:
    return place.with_suffix(".csv")


def _test_file(place: Path) -> Path:
    return place.with_suffix(".test.csv")


def _row_file(place: Path) -> Path:
    return place.with_suffix(".json")


def _checkpoint_file(place: Path) -> Path:
    return place.with_suffix(".checkpoint.safetensors")


def _is_done(run: Run) -> bool:
    """Say whether a run is done: its row, written last, has its key and its scores' checksums."""
    try:
        record = json.loads(_row_file(run.place).read_text())
        done = record["key"] == run.key and record["sha256"] == _checksum(_score_file(run.place))
        if run.test is not None:
            done = done and record["test"] == {
                "key": _test_key(run.test, run.store, run.variant),
                "sha256": _checksum(_test_file(run.place)),
            }
        return done
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _test_key(test: pd.DataFrame, store: Store, variant: str) -> str:
    """Return a hash of the test clips: their labels, and where the store has their pictures."""
    clips = test.sort_index()
    content = [list(map(str, row)) for row in clips["label"].items()]
    for channel in get_variant(variant).channels:
        places = store.places[channel]
        found = (places[clip_id] for clip_id in clips.index if clip_id in places)
        content.append([f"{file.name} {row}" for file, row in found])
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]


def _write_results(file: Path, results: pd.DataFrame) -> None:
    write_atomically(file, results.to_csv(index=False).encode())


def _write_scores(file: Path, scores: pd.DataFrame) -> None:
    text = io.StringIO()
    scores.to_csv(text, index=False, float_format="%.9g")
    write_atomically(file, text.getvalue().encode())


def _open_checkpoint(run: Run) -> KeepCheckpoint:
    """Return a run's checkpoint; one that is not of this run is named, and training begins anew."""
    identity = {
        "variant": run.variant,
        "fold": run.fold,
        "seed": run.seed,
        "training algorithm": TRAINING_ALGORITHM,
        "device": best_device().type,
        "settings, sounds and folds": run.key,
    }
    file = _checkpoint_file(run.place)
    try:
        return KeepCheckpoint(file, identity)
    except CheckpointError as error:
        tqdm.write(f"{error}; it is not used, this run begins anew")
        file.unlink()
        return KeepCheckpoint(file, identity)


def _make_run(run: Run, progress: bool = False) -> Path:
    """Make one run, write its files and return their place.

    Raises
    ------
    ValueError
        Where it would not be the run that was planned: on a worker of a cluster that has other code
        or no ImageNet weights. Or where training diverged, see `make_runs`.
    """
    if run_key(run.table, run.store, run.variant, run.profile) != run.key:
        raise ValueError(
            f"{run.variant}, fold {run.fold}, seed {run.seed}: this process would not make the run "
            "that was planned; its code, or whether it has the ImageNet weights, differs"
        )
    run.place.parent.mkdir(parents=True, exist_ok=True)
    for leftover in run.place.parent.glob(f".{run.place.name}.*"):
        leftover.unlink(missing_ok=True)  # half a file, of a run that was killed
    if best_device().type == "cpu":
        prepare_cpu()
    checkpoint = _open_checkpoint(run)
    start = time.perf_counter()
    scores = train_and_score(
        run.table,
        run.store,
        run.variant,
        run.fold,
        run.seed,
        run.profile,
        run.test,
        checkpoint=checkpoint,
        progress=progress,
    )
    seconds = checkpoint.seconds_before + time.perf_counter() - start
    note: dict[str, object] = {}
    classes = [column for column in scores if column not in KEYS]
    if not np.isfinite(scores[classes].to_numpy()).all():
        message = f"{run.variant}, fold {run.fold}, seed {run.seed}: training diverged"
        if not run.keep_diverged:
            raise ValueError(f"{message}, the scores are not finite")
        scores[classes] = 1 / len(classes)
        note = {"note": message}
    if run.test is not None:
        is_test = scores["clip_id"].isin(run.test.index)
        _write_scores(_test_file(run.place), scores[is_test])
        scores = scores[~is_test]
        note["test"] = {
            "key": _test_key(run.test, run.store, run.variant),
            "sha256": _checksum(_test_file(run.place)),
        }
    metrics = clip_metrics(scores)
    row = {
        "dataset": run.dataset,
        "profile": run.profile_name,
        "variant": run.variant,
        "fold": run.fold,
        "seed": run.seed,
        "n": len(scores),
        "top1_accuracy": round(float(metrics["top1_accuracy"].mean()), 6),
        "top3_error": round(float(metrics["top3_error"].mean()), 6),
        "map3": round(float(metrics["map3"].mean()), 6),
        "epochs": sum(stage.epochs for stage in training_stages(run.profile)),
        "seconds": round(seconds, 2),
    }
    _write_scores(_score_file(run.place), scores)
    record = {"key": run.key, "sha256": _checksum(_score_file(run.place)), "row": row, **note}
    write_atomically(_row_file(run.place), json.dumps(record, indent=1).encode())
    _checkpoint_file(run.place).unlink(missing_ok=True)
    # A Learner and its callbacks hold each other, and with them every picture: left to Python,
    # several runs' worth of them would stay in memory.
    gc.collect()
    return run.place
