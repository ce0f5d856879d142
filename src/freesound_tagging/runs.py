"""Runs: one representation, one held-out fold and one seed each; and the grid of them.

A run leaves two files in ``runs/<representation>/`` when it ends: the scores of the clips that it
held out, and its row of results. What is there is not made again: a grid that was stopped goes on
with the same command, and the run that was stopped begins anew. One ``settings.json`` says what all
runs of a folder were made with; runs of other settings are refused.
"""

import gc
import hashlib
import json
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import joblib
import pandas as pd
from fastai.learner import Learner
from fastai.torch_core import set_seed
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.features.representations import ALGORITHM, get_variant
from freesound_tagging.features.store import Store
from freesound_tagging.files import write_atomically
from freesound_tagging.jobs import run_jobs
from freesound_tagging.learning import audio, networks, unknown
from freesound_tagging.learning import learner as training
from freesound_tagging.learning.dataloaders import ReadCodes, make_dataloaders
from freesound_tagging.learning.profiles import Profile
from freesound_tagging.scoring.metrics import METRICS, clip_metrics

TRAINING = 2
"""Version of the training: raise it when the same settings would give other scores."""

EXTENT = ("seeds", "folds", "clips_per_class", "max_clips")
"""Settings of a profile that say how many runs or clips there are: they change no single run."""

ROW = ["variant", "fold", "seed", "n", *METRICS, "epochs", "seconds"]
"""Columns of results; the metrics are means over the ``n`` clips held out."""


def train(
    table: pd.DataFrame, store: Store, variant: str, fold: int | None, seed: int, profile: Profile
) -> Learner:
    """Train one network with one fold held out, with None on all clips, and return its Learner."""
    set_seed(seed, reproducible=True)
    dls = make_dataloaders(table, store, variant, fold, profile, networks.best_device())
    training.order_by_seed(dls, seed)
    learner = training.make_learner(dls, profile)
    with learner.no_bar(), learner.no_logging(), learner.added_cbs([training.SkipValidation()]):
        training.fit(learner, profile)
    if not all(value.isfinite().all() for value in learner.model.state_dict().values()):
        held_out = "all clips" if fold is None else f"fold {fold}"
        run = f"{variant}, {held_out}, seed {seed}"
        raise ValueError(f"{run}: training diverged; lower the profile's lr_max, {profile.lr_max}")
    return learner


def train_and_score(
    table: pd.DataFrame,
    store: Store,
    variant: str,
    fold: int,
    seed: int,
    profile: Profile,
    test: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Train one network with one fold held out, see `train`, and return that fold's scores.

    With ``test``, a table of clips that are in no fold, their scores by the same network follow.
    The columns are clip_id, seed, fold, label, strangeness (see `unknown`; NaN for a network's test
    clips), then the probability of each class; rows are sorted by clip id, test clips last.
    """
    if profile.architecture == audio.YAMNET:
        return audio.score_fold(table, store, fold, seed, test)
    learner = train(table, store, variant, fold, seed, profile)
    scores, labels = training.predict(learner), table["label"]
    strange = pd.Series(unknown.score(learner).numpy(), index=scores.index)
    scores = scores.sort_index()
    if test is not None:
        readable = sorted(set(test.index) - set(store.failed))
        others = training.predict(learner, ReadCodes(store, get_variant(variant), readable))
        scores, labels = pd.concat([scores, others]), pd.concat([labels, test["label"]])
    about = {"seed": seed, "fold": fold, "label": labels, "strangeness": strange}
    return pd.DataFrame(about, index=scores.index).join(scores).reset_index()


def workers() -> int:
    """Return how many runs are made at once on this machine: on a CPU, one a core."""
    cores = joblib.cpu_count()  # a CUDA device, idle while kernels are launched, is shared
    return {"cpu": cores, "cuda": max(1, cores // 2)}.get(networks.best_device().type, 1)


def check_representations(names: Iterable[str], profile: Profile) -> None:
    """Raise a ValueError about an unknown representation, or one that is not for the profile."""
    for name in names:
        get_variant(name)
        if (name == audio.YAMNET) != (profile.architecture == audio.YAMNET):
            raise DataError(f"{name}: the profile audio is for the representation yamnet alone")


def run_grid(
    table: pd.DataFrame,
    store: Store,
    variants: Sequence[str],
    profile: Profile,
    folder: str | Path,
    *,
    test: pd.DataFrame | None = None,
    n_jobs: int | None = None,
) -> pd.DataFrame:
    """Make every run of representation x fold x seed not made yet, and return one row for each.

    First comes all of the first seed, then all of the second: a grid that is stopped compares every
    representation, if with fewer seeds. With ``test``, a table of clips that are in no fold, every
    network scores those too, into ``.test.csv``. ``n_jobs`` is by default that of `workers`. The
    columns are `ROW`, sorted by representation (in the order given), fold, seed.
    """
    check_representations(variants, profile)
    settings = describe_settings(table, profile, store)
    check_settings(folder, settings)
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_atomically(Path(folder, "settings.json"), json.dumps(settings, indent=1).encode())
    folds = sorted(map(int, table["fold"].unique()))[: profile.folds]
    cells = [(name, fold, seed) for name in variants for fold in folds for seed in profile.seeds]
    rows = {cell: run_file(folder, *cell, ".json") for cell in cells}
    todo = sorted((cell for cell in cells if not rows[cell].exists()), key=lambda cell: cell[2])
    jobs = [(cell, table, store, profile, folder, test) for cell in todo]
    # The time left is told by the mean of all runs, for they take much the same: smoothing 0.
    with tqdm(total=len(jobs), desc="runs", unit="run", smoothing=0, disable=not jobs) as bar:
        for _ in run_jobs(_make_run, jobs, n_jobs or workers()):
            bar.update()
    return pd.DataFrame([json.loads(rows[cell].read_text()) for cell in cells], columns=ROW)


def load_scores(
    folder: str | Path, results: pd.DataFrame, suffix: str = ".csv"
) -> dict[str, pd.DataFrame]:
    """Return representation -> scores of the runs in ``results``, as `train_and_score` gives them.

    With the suffix ``.test.csv`` those of the test clips: each has a row for each fold and seed.
    """
    text, scores = {"clip_id": str, "label": str}, {}
    for variant, own in results.groupby("variant", sort=False):
        files = [run_file(folder, variant, run.fold, run.seed, suffix) for run in own.itertuples()]
        frames = [pd.read_csv(file, dtype=text, keep_default_na=False) for file in files]
        scores[variant] = pd.concat(frames, ignore_index=True)
    return scores


def describe_settings(
    table: pd.DataFrame, profile: Profile, store: Store | None = None
) -> dict[str, object]:
    """Return all that scores depend on besides representation, fold and seed, as plain values.

    Without a store the sounds themselves are left out.
    """
    settings = {name: value for name, value in asdict(profile).items() if name not in EXTENT}
    settings |= {f"grid {name}": value for name, value in settings.pop("grid").items()}
    grouped = ["group"] if profile.architecture == "yamnet" else []  # its C is chosen by groups
    clips = table.sort_index().filter(["label", "fold", "verified", *grouped])
    settings |= {
        "clips, labels and folds": hash_of(clips.to_csv()),
        "code of the training": TRAINING,
        "code of the spectrograms": [ALGORITHM, version("spectral-hyperresolution")],
        "pretrained weights": networks.is_pretrained(profile.architecture),
        "device": networks.best_device().type,
    }
    if store is not None:  # its files are named by hashes of the sounds
        places = next(iter(store.places.values())).values()
        settings["sounds"] = hash_of(str(sorted({file.name for file, _ in places})))
    return json.loads(json.dumps(settings))


def check_settings(folder: str | Path, settings: dict[str, object]) -> None:
    """Raise `DataError` where a folder holds runs of other settings; it names them."""
    file = Path(folder, "settings.json")
    found = json.loads(file.read_text()) if file.exists() else {}
    other = [name for name, value in settings.items() if found.get(name) != value]
    if other and any(Path(folder).glob("runs/*/*.json")):
        first = [f"{name} {found.get(name)!r}, now {settings[name]!r}" for name in other[:3]]
        raise DataError(
            f"{folder} holds runs of other settings: {', '.join(first)}; remove that folder, or "
            "name another place with WORK_FOLDER, and run again"
        )


def hash_of(text: str) -> str:
    """Return 16 digits that stand for a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def run_file(folder: str | Path, variant: str, fold: int, seed: int, suffix: str) -> Path:
    """Return where a run's scores (``.csv``, ``.test.csv``) or row of results (``.json``) lie."""
    return Path(folder, "runs", variant, f"fold{fold}-seed{seed}{suffix}")


def write_run(
    folder: str | Path,
    cell: tuple[str, int, int],
    scores: pd.DataFrame,
    epochs: int,
    seconds: float,
    test: pd.DataFrame | None = None,
) -> None:
    """Write the files of a run, representation, fold and seed; the row of results last."""
    is_test = scores["clip_id"].isin(() if test is None else test.index)
    own = scores[~is_test]
    parts = {".csv": own} if test is None else {".csv": own, ".test.csv": scores[is_test]}
    run_file(folder, *cell, "").parent.mkdir(parents=True, exist_ok=True)
    for suffix, part in parts.items():
        content = part.to_csv(index=False, float_format="%.9g")
        write_atomically(run_file(folder, *cell, suffix), content.encode())
    means = clip_metrics(own)[METRICS].mean().round(6)
    row = dict(zip(ROW, [*cell, len(own), *means, epochs, seconds], strict=True))
    write_atomically(run_file(folder, *cell, ".json"), json.dumps(row).encode())


def _make_run(
    cell: tuple[str, int, int],
    table: pd.DataFrame,
    store: Store,
    profile: Profile,
    folder: str | Path,
    test: pd.DataFrame | None,
) -> None:
    """Make one run and write its files."""
    training.prepare_cpu()
    start = time.perf_counter()
    scores = train_and_score(table, store, *cell, profile, test)
    seconds = time.perf_counter() - start
    epochs = profile.frozen_epochs + profile.epochs
    write_run(folder, cell, scores, epochs, round(seconds, 2), test)
    gc.collect()  # a Learner and its callbacks hold each other, and with them every spectrogram
