"""Keys: hashes of all that scores depend on, so that no run stands for one of other settings."""

import dataclasses
import hashlib
import json

import pandas as pd

from freesound_tagging.features.representations import get_variant
from freesound_tagging.features.store import Store
from freesound_tagging.learning import networks
from freesound_tagging.learning.profiles import Profile

TRAINING_ALGORITHM = 1
"""Raise it when the same settings would give other scores: it is part of every run's key."""

ADDED_SETTINGS = ("unverified_weight", "gain")
"""Settings that older runs were made without: at their defaults they are no part of a run's key."""

EXTENT = ("seeds", "folds", "clips_per_class", "max_clips")
"""Settings that say how many runs there are. They change no single run."""


def run_key(table: pd.DataFrame, store: Store, variant: str, profile: Profile) -> str:
    """Return a hash of all that a run's scores depend on besides fold and seed."""
    training = dataclasses.asdict(profile) | {"grid": profile.grid.settings()}
    for extent in EXTENT:
        training.pop(extent)
    pretrained = networks.is_pretrained(profile.architecture)
    if pretrained is not None:
        # Scores of networks that had to begin from nothing must not stand beside the others'.
        training["pretrained"] = pretrained
    for name in ADDED_SETTINGS:
        if training[name] == getattr(Profile, name):
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
    return _hash(json.dumps(content, sort_keys=True))


def key_of_test_clips(test: pd.DataFrame, store: Store, variant: str) -> str:
    """Return a hash of the test clips: their labels, and where the store has their spectrograms."""
    clips = test.sort_index()
    content = [list(map(str, row)) for row in clips["label"].items()]
    for channel in get_variant(variant).channels:
        places = store.places[channel]
        found = (places[clip_id] for clip_id in clips.index if clip_id in places)
        content.append([f"{file.name} {row}" for file, row in found])
    return _hash(json.dumps(content))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
