"""``make model``: train on all clips of a data set, and save what tagging needs.

How good the tags will be is not measured on those clips, which the network knows, but on the grid's
out-of-fold scores: networks of the same settings, each on the clips of the fold it did not see.
"""

import hashlib
import importlib.metadata
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from fastai.learner import Learner
from torch import Tensor
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.experiment import Experiment, thin
from freesound_tagging.features.representations import channels_of
from freesound_tagging.features.store import Store
from freesound_tagging.jobs import run_jobs
from freesound_tagging.learning.dataloaders import Loudness
from freesound_tagging.learning.networks import best_device
from freesound_tagging.learning.profiles import Profile
from freesound_tagging.learning.tagger import Tagger, read_settings, save
from freesound_tagging.runs import describe_settings, load_scores, train, workers
from freesound_tagging.scoring.calibration import calibrate
from freesound_tagging.scoring.metrics import summarise
from freesound_tagging.sounds import catalogue

REPRESENTATIONS = ("log_db", "hires_q2")
"""What a model's networks see: the standard spectrogram, and the high resolution one beside it."""

FOREIGN_CLIPS = 200
"""Sounds of each other data set on which false alarms are counted."""

PACKAGES = ("torch", "fastai", "librosa", "soxr", "soundfile")


def make_model(experiment: Experiment, representations: Sequence[str] = REPRESENTATIONS) -> Path:
    """Train on all clips, save the model and return its folder; one that is there is kept.

    Runs of the grid that are missing are made first: the expected scores, the temperature and the
    threshold come from them. The representation with the best MAP@3 stands first.
    """
    folder, profile = experiment.model_folder, experiment.profile
    table = experiment.load_table()
    store = experiment.build_store(table, channels_of(representations))
    made_with = describe_settings(table, profile, store)
    key = hashlib.sha256(f"{made_with} {profile.folds} {profile.seeds}".encode()).hexdigest()[:16]
    keys = dict.fromkeys(representations, key)
    if _is_made(folder, keys):
        return folder
    scores = _scores(experiment, table, store, representations)
    ranked = summarise(scores, table).sort_values("map3", ascending=False, kind="stable")
    expected = {str(row["variant"]): _plain(row) for _, row in ranked.iterrows()}
    jobs = [(table, store, name, profile) for name in expected]
    trained = dict(run_jobs(_train_on_all, jobs, workers()))
    networks, weights = {}, {}
    for name in expected:
        about, weights[name] = trained[name]
        how_sure = calibrate(scores[name])
        networks[name] = {
            **about,
            "temperature": how_sure.pop("temperature"),
            "threshold": how_sure.pop("threshold"),
            "expected": {**expected[name], **how_sure, "foreign": {}},
        }
    settings = _describe(experiment, table[~table.index.isin(store.failed)]) | {
        "networks": networks
    }
    save(folder, settings, weights)
    for name, alarms in count_false_alarms(folder, experiment, list(networks)).items():
        networks[name]["expected"]["foreign"] = alarms
        networks[name]["key"] = keys[name]  # a model without keys is not finished
    save(folder, settings, weights)
    return folder


def save_network(
    folder: Path, experiment: Experiment, table: pd.DataFrame, representation: str, learner: Learner
) -> None:
    """Save one network as it is, not calibrated, with nothing known about how good it is."""
    about, state = _network(learner, experiment.profile)
    about |= {"temperature": 1.0, "threshold": 0.0, "expected": {}}
    settings = _describe(experiment, table) | {"networks": {representation: about}}
    save(folder, settings, {representation: state})


def _is_made(folder: Path, keys: dict[str, str]) -> bool:
    """Say whether a whole model of these keys is there."""
    try:
        networks = read_settings(folder)["networks"]
        for name in networks:
            Tagger(folder, name)
        return {name: about.get("key") for name, about in networks.items()} == keys
    except DataError:
        return False


def out_of_fold_scores(
    experiment: Experiment, representations: Sequence[str]
) -> dict[str, pd.DataFrame]:
    """Return the grid's scores of some representations; runs that are missing are made."""
    table = experiment.load_table()
    store = experiment.build_store(table, channels_of(representations))
    return _scores(experiment, table, store, representations)


def _scores(
    experiment: Experiment, table: pd.DataFrame, store: Store, representations: Sequence[str]
) -> dict[str, pd.DataFrame]:
    made = experiment.make_runs(table, store, representations)
    return load_scores(experiment.run_folder, made)


def _train_on_all(
    table: pd.DataFrame, store: Store, representation: str, profile: Profile
) -> tuple[str, tuple[dict, dict[str, Tensor]]]:
    if best_device().type == "cpu":
        torch.set_num_threads(1)  # one network on each core
    learner = train(table, store, representation, None, 0, profile)
    if not all(torch.isfinite(value).all() for value in learner.model.state_dict().values()):
        raise ValueError(f"{representation}: training diverged, the weights are not finite")
    return representation, _network(learner, profile)


def _network(learner: Learner, profile: Profile) -> tuple[dict, dict[str, Tensor]]:
    """Return what tagging needs of a trained network: its settings, and its weights."""
    loudness = next(step for step in learner.dls.after_batch.fs if isinstance(step, Loudness))
    about = {
        "architecture": profile.architecture,
        "width": profile.width,
        "mean": loudness.mean.flatten().tolist(),
        "deviation": loudness.deviation.flatten().tolist(),
    }
    return about, {name: value.cpu() for name, value in learner.model.state_dict().items()}


def _plain(row: pd.Series) -> dict:
    """Return a row of the summary as JSON can hold it."""
    values = row.drop("variant").to_dict()
    return {key: int(value) if key in ("n", "seeds") else value for key, value in values.items()}


def _describe(experiment: Experiment, table: pd.DataFrame) -> dict:
    is_own = catalogue.is_table(experiment.dataset)
    known = None if is_own else catalogue.describe(experiment.dataset)
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    return {
        "dataset": experiment.name,
        "profile": experiment.profile_name,
        "versions": {"python": platform.python_version(), **versions},
        "sounds": {
            "clips": len(table),
            "licence": known.licence if known else "of your own sounds",
            "citation": known.citation if known else "",
        },
        "classes": sorted(table["label"].unique()),
        "grid": asdict(experiment.profile.grid),
    }


def count_false_alarms(
    folder: Path, experiment: Experiment, representations: Sequence[str]
) -> dict[str, dict[str, dict]]:
    """Tag sounds of other data sets, none of which any class fits, and count those given a label.

    Only data sets that are at hand are asked: generated, unpacked, or under DATA_MIRROR.

    Returns
    -------
    representation -> data set -> ``n`` (sounds), ``labelled`` (the share that reached the
    threshold: the false-alarm rate).
    """
    tables = {
        name: thin(catalogue.load(name, experiment.raw_folder, **options), FOREIGN_CLIPS)
        for name, options in FOREIGN.items()
        if name != experiment.dataset and is_at_hand(name, experiment.raw_folder)
    }
    alarms: dict[str, dict[str, dict]] = {name: {} for name in representations}
    for representation in representations:
        tagger = Tagger(folder, representation)
        for name, table in tables.items():
            known = [
                tagger.tag_file(path).is_known
                for path in tqdm(table["path"], desc=f"sounds of {name}", leave=False, disable=None)
            ]
            labelled = sum(known) / len(known)
            alarms[representation][name] = {"n": len(known), "labelled": labelled}
    return alarms


FOREIGN: dict[str, dict] = {
    "microcalls": {"clips_per_class": 5},
    "esc10": {},
    "fsdd": {},
}
"""Data sets whose sounds none of the other sets' classes fit, with the options of `load`."""


def is_at_hand(name: str, root: Path) -> bool:
    """Say whether a data set can be loaded without a download."""
    mirror = os.environ.get("DATA_MIRROR")
    return all(
        (root / archive.folder).is_dir() or (mirror and (Path(mirror) / archive.file).is_file())
        for archive in catalogue.describe(name).archives
    )
