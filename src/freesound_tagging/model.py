"""``make model``: train on all clips of a data set, and save what tagging needs.

How good the tags will be is not measured on those clips, which the network knows, but on the grid's
out-of-fold scores: networks of the same settings, each on the clips of the fold it did not see.
"""

import json
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import pandas as pd
from fastai.learner import Learner
from torch import Tensor
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.experiment import Experiment, thin
from freesound_tagging.features.representations import channels_of
from freesound_tagging.features.store import Store
from freesound_tagging.jobs import run_jobs
from freesound_tagging.learning import audio, unknown
from freesound_tagging.learning.dataloaders import Loudness
from freesound_tagging.learning.learner import prepare_cpu
from freesound_tagging.learning.profiles import Profile
from freesound_tagging.learning.tagger import Tagger, read_settings, save
from freesound_tagging.runs import (
    check_representations,
    describe_settings,
    hash_of,
    load_scores,
    train,
    workers,
)
from freesound_tagging.scoring.calibration import calibrate
from freesound_tagging.scoring.metrics import summarise
from freesound_tagging.sounds import catalogue

REPRESENTATIONS = ("log_db", "hires_q2")
"""What a model's networks see: the standard spectrogram, and the high resolution one beside it."""

FOREIGN = {"microcalls": {"clips_per_class": 5}, "esc10": {}, "fsdd": {}}
"""Data sets whose sounds none of the other sets' classes fit, with the options of `load`."""

FOREIGN_CLIPS = 60  # of each of them, at most


def make_model(experiment: Experiment, representations: Sequence[str] = ()) -> Path:
    """Train on all clips, save the model and return its folder; one that is there is kept.

    Runs of the grid that are missing are made first: from them come the expected scores, the
    temperature and the limit. The representation with the best MAP@3 stands first.
    """
    folder, profile = experiment.model_folder, experiment.profile
    heard = profile.architecture == audio.YAMNET
    representations = representations or ((audio.YAMNET,) if heard else REPRESENTATIONS)
    check_representations(representations, profile)
    table = experiment.load_table()
    store = experiment.build_store(table, channels_of(representations))
    made_with = describe_settings(table, profile, store) | {"networks": list(representations)}
    extent = f"folds {profile.folds}, seeds {profile.seeds}"
    made_from = hash_of(f"{json.dumps(made_with)}; {extent}")
    with suppress(ValueError, OSError):  # no model is there, or no whole one
        there = read_settings(folder)
        if there.made_from == made_from and all(Tagger(folder, name) for name in there.networks):
            return folder
    made = experiment.make_runs(table, store, representations)
    scores = load_scores(experiment.run_folder, made)
    ranked = summarise(scores, table)  # the best first
    jobs = [(table, store, name, profile) for name in ranked["variant"]]
    trained = dict(run_jobs(_train_on_all, jobs, workers()))
    settings = describe_data(experiment, table[~table.index.isin(store.failed)])
    weights = {}
    for row in ranked.to_dict("records"):
        name = row.pop("variant")
        about, weights[name] = trained[name]
        sure = calibrate(scores[name])
        about |= {"temperature": sure.pop("temperature"), "limit": sure.pop("limit")}
        settings["networks"][name] = about | {"expected": {**row, **sure, "foreign": {}}}
    save(folder, settings, weights)
    for name in weights:
        alarms = count_false_alarms(Tagger(folder, name), experiment)
        settings["networks"][name]["expected"]["foreign"] = alarms
    save(folder, settings | {"made_from": made_from}, weights)  # only now it is finished
    return folder


def _train_on_all(
    table: pd.DataFrame, store: Store, representation: str, profile: Profile
) -> tuple[str, tuple[dict, dict[str, Tensor]]]:
    prepare_cpu()
    if representation == audio.YAMNET:
        return representation, audio.train_on_all(table, store)
    learner = train(table, store, representation, None, 0, profile)
    return representation, network_of(learner, profile)


def network_of(learner: Learner, profile: Profile) -> tuple[dict, dict[str, Tensor]]:
    """Return what tagging needs of a trained network: its settings, and its weights."""
    loudness = next(step for step in learner.dls.after_batch.fs if isinstance(step, Loudness))
    about = {
        "architecture": profile.architecture,
        "width": profile.width,
        "mean": loudness.mean.flatten().tolist(),
        "deviation": loudness.deviation.flatten().tolist(),
    }
    state = learner.model.state_dict() | unknown.learn(learner)
    return about, {name: value.cpu() for name, value in state.items()}


def describe_data(experiment: Experiment, table: pd.DataFrame) -> dict:
    """Return what a model says of the clips that it learned from, and no network yet."""
    sounds = {"clips": len(table), "licence": "of your own sounds", "citation": ""}
    if not catalogue.is_table(experiment.dataset):
        known = catalogue.describe(experiment.dataset)
        sounds |= {"licence": known.licence, "citation": known.citation}
    if experiment.profile.architecture == audio.YAMNET:
        sounds["licence"] += f"; {audio.LICENCE}"
    return {
        "dataset": experiment.name,
        "profile": experiment.profile_name,
        "sounds": sounds,
        "classes": sorted(table["label"].unique()),
        "grid": asdict(experiment.profile.grid),
        "networks": {},
    }


def count_false_alarms(tagger: Tagger, experiment: Experiment) -> dict[str, dict]:
    """Tag sounds of other data sets, none of which any class fits, and count those given a label.

    Only data sets that are at hand are asked: generated, unpacked, or under DATA_MIRROR. Returns,
    by data set, ``n`` (sounds) and ``labelled`` (the share that is not called unknown).
    """
    alarms = {}
    for other, options in FOREIGN.items():
        if other == experiment.dataset:
            continue
        table = catalogue.load_at_hand(other, experiment.raw_folder, **options)
        if table is not None:
            paths = tqdm(thin(table, FOREIGN_CLIPS)["path"], desc=f"sounds of {other}", leave=False)
            try:
                known = [tagger.tag_file(path).is_known for path in paths]
            except DataError as error:  # the model is made all the same
                warnings.warn(f"{other} is left out: {error}", stacklevel=2)
                continue
            alarms[other] = {"n": len(known), "labelled": sum(known) / len(known)}
    return alarms
