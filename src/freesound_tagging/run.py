"""One run: one representation, one held-out fold, one seed.

Its scores and its row of results are one file each, written when it ends.
"""

import gc
import hashlib
import io
import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from fastai.learner import Learner
from fastai.torch_core import set_seed
from tqdm import tqdm

from freesound_tagging import keys
from freesound_tagging.features.store import Store
from freesound_tagging.files import write_atomically
from freesound_tagging.learning import networks
from freesound_tagging.learning.dataloaders import make_dataloaders
from freesound_tagging.learning.learner import (
    CountEpochs,
    SkipValidation,
    fit,
    make_learner,
    order_by_seed,
    predict,
    predict_others,
    prepare_cpu,
)
from freesound_tagging.learning.profiles import Profile
from freesound_tagging.scoring.metrics import KEYS, classes_of, clip_metrics


@dataclass(frozen=True)
class Run:
    """One run to make, and where its files go.

    Attributes
    ----------
    table : clips, index ``clip_id``.
    store : holds the channels of the variant.
    variant, fold, seed : the representation, the fold held out, the seed.
    profile : network and schedule.
    dataset, profile_name : names that go into the row of results.
    place : path of its files without their suffixes.
    key : `freesound_tagging.keys.run_key` as the run was planned.
    keep_diverged : a run whose scores are not finite is no error: it is kept as one that gives
        every class the same score, and its record says so.
    test : clips that are in no fold; the network scores them too, into a file of their own.
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

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.variant}, fold {self.fold}, seed {self.seed}"

    @property
    def score_file(self) -> Path:
        """The scores of the held-out clips."""
        return self.place.with_suffix(".csv")

    @property
    def test_file(self) -> Path:
        """The scores of the test clips."""
        return self.place.with_suffix(".test.csv")

    @property
    def record_file(self) -> Path:
        """Key, checksum and row of results; written last."""
        return self.place.with_suffix(".json")

    def is_done(self) -> bool:
        """Say whether its record has its key, and the checksums of the scores that are there.

        One that diverged is done only where such runs are kept.
        """
        try:
            record = json.loads(self.record_file.read_text())
            done = record["key"] == self.key and record["sha256"] == _checksum(self.score_file)
            done = done and (self.keep_diverged or "note" not in record)
            return done and (self.test is None or record["test"] == self.test_record())
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False

    def test_record(self) -> dict[str, str]:
        """Return what the record says of the test clips' scores, which are there."""
        key = keys.key_of_test_clips(self.test, self.store, self.variant)
        return {"key": key, "sha256": _checksum(self.test_file)}


def train(
    table: pd.DataFrame,
    store: Store,
    variant: str,
    fold: int | None,
    seed: int,
    profile: Profile,
    progress: bool = False,
) -> Learner:
    """Train one network with one fold held out, with None on all clips, and return its Learner.

    With ``progress`` a bar counts the epochs.
    """
    set_seed(seed, reproducible=True)
    dls = make_dataloaders(table, store, variant, fold, profile, networks.best_device())
    order_by_seed(dls, seed)
    learner = make_learner(dls, profile)
    bar = tqdm(
        total=profile.frozen_epochs + profile.epochs,
        desc=f"{variant}, {'all clips' if fold is None else f'fold {fold}'}, seed {seed}",
        unit="epoch",
        leave=False,
        disable=not progress,
    )
    watching = [SkipValidation(), CountEpochs(bar)]
    with bar, learner.no_bar(), learner.no_logging(), learner.added_cbs(watching):
        fit(learner, profile)
    return learner


def train_and_score(
    table: pd.DataFrame,
    store: Store,
    variant: str,
    fold: int,
    seed: int,
    profile: Profile,
    test: pd.DataFrame | None = None,
    progress: bool = False,
) -> pd.DataFrame:
    """Train one network with one fold held out, see `train`, and return that fold's scores.

    With ``test``, a table of clips that are in no fold, their scores by the same network follow.

    Returns
    -------
    Columns clip_id, seed, fold, label, then the probability of each class; rows sorted by clip id.
    """
    learner = train(table, store, variant, fold, seed, profile, progress)
    train_loss = round(float(learner.recorder.values[-1][0]), 6)
    scores = predict(learner).sort_index()
    labels = table["label"]
    if test is not None:
        others = predict_others(learner, store, variant, sorted(test.index))
        scores, labels = pd.concat([scores, others]), pd.concat([labels, test["label"]])
    about = pd.DataFrame({"seed": seed, "fold": fold, "label": labels}, index=scores.index)
    scores = about.join(scores).reset_index()[[*KEYS, *scores.columns]]
    scores.attrs["train_loss"] = train_loss
    return scores


def make_run(run: Run, progress: bool = False) -> Path:
    """Make one run, write its files and return their place.

    Raises
    ------
    ValueError
        Where it would not be the run that was planned: on a worker of a cluster that has other code
        or no ImageNet weights. Or where training diverged and ``keep_diverged`` is not set.
    """
    _check_key(run)
    _prepare_place(run)
    if networks.best_device().type == "cpu":
        prepare_cpu()
    start = time.perf_counter()
    scores = train_and_score(
        run.table,
        run.store,
        run.variant,
        run.fold,
        run.seed,
        run.profile,
        run.test,
        progress=progress,
    )
    seconds = time.perf_counter() - start
    scores, extra = _replace_diverged(run, scores)
    if run.test is not None:
        is_test = scores["clip_id"].isin(run.test.index)
        _write_scores(run.test_file, scores[is_test])
        scores, extra["test"] = scores[~is_test], run.test_record()
    _write_scores(run.score_file, scores)
    record = {
        "key": run.key,
        "sha256": _checksum(run.score_file),
        "row": _row(run, scores, seconds),
    }
    write_atomically(run.record_file, json.dumps(record | extra, indent=1).encode())
    # A Learner and its callbacks hold each other, and with them every spectrogram: left to Python,
    # several runs' worth of them would stay in memory.
    gc.collect()
    return run.place


def _check_key(run: Run) -> None:
    if keys.run_key(run.table, run.store, run.variant, run.profile) != run.key:
        raise ValueError(
            f"{run.name}: this process would not make the run that was planned; its code, or "
            "whether it has the ImageNet weights, differs"
        )


def _prepare_place(run: Run) -> None:
    """Make the run's folder, and remove half a file that a killed run may have left."""
    run.place.parent.mkdir(parents=True, exist_ok=True)
    for leftover in run.place.parent.glob(f".{run.place.name}.*"):
        leftover.unlink(missing_ok=True)


def _replace_diverged(run: Run, scores: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, object]]:
    """Return the scores, equal for all classes where training diverged, and a note of that."""
    classes = classes_of(scores)
    if np.isfinite(scores[classes].to_numpy()).all():
        return scores, {}
    message = f"{run.name}: training diverged"
    if not run.keep_diverged:
        raise ValueError(f"{message}, the scores are not finite")
    scores[classes] = 1 / len(classes)
    return scores, {"note": message}


def _row(run: Run, scores: pd.DataFrame, seconds: float) -> dict[str, object]:
    """Return the run's row of results, see `freesound_tagging.run_grid.RESULT_COLUMNS`."""
    metrics = clip_metrics(scores)
    return {
        "dataset": run.dataset,
        "profile": run.profile_name,
        "variant": run.variant,
        "fold": run.fold,
        "seed": run.seed,
        "n": len(scores),
        "top1_accuracy": round(float(metrics["top1_accuracy"].mean()), 6),
        "top3_error": round(float(metrics["top3_error"].mean()), 6),
        "map3": round(float(metrics["map3"].mean()), 6),
        "log_loss": round(float(metrics["log_loss"].mean()), 6),
        "train_loss": scores.attrs.get("train_loss"),
        "epochs": run.profile.frozen_epochs + run.profile.epochs,
        "seconds": round(seconds, 2),
    }


def _write_scores(file: Path, scores: pd.DataFrame) -> None:
    text = io.StringIO()
    scores.to_csv(text, index=False, float_format="%.9g")
    write_atomically(file, text.getvalue().encode())


def _checksum(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
