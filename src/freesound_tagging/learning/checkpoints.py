"""A half-trained network on disk: a run that is killed goes on after its last kept epoch.

A checkpoint is one file of `torch.save` with nothing but tensors and plain values in it. It is read
with ``weights_only=True``, so that opening it executes nothing. It holds all that the rest of the
training depends on (weights, optimizer, loss scale, every random generator), so that a resumed run
ends with the bytes of an unbroken one.
"""

import io
import pickle
import random
import time
from pathlib import Path
from typing import Any

import fastai
import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.torch_core import to_device
from fastcore.foundation import L
from torch import Tensor

from freesound_tagging.files import write_atomically

EVERY_SECONDS = 30.0
"""How much training a kill may lose, besides the epoch that it falls in; short runs keep none."""

CHECKPOINT_FORMAT = 2
"""Raise it when checkpoints come to hold something else; older ones are then refused."""


class CheckpointError(ValueError):
    """A checkpoint is damaged or not of this run; the message names the file and what differs."""


class KeepCheckpoint(Callback):
    """Write a checkpoint after an epoch where the last is `EVERY_SECONDS` old; go on from one.

    Parameters
    ----------
    file : where the checkpoint is, or will be.
    identity : what the run is (variant, fold, seed, key of its settings); a checkpoint that says
        anything else is refused.

    Attributes
    ----------
    stage, start_epoch : where training begins: 0, 0, or after what the checkpoint has behind it.
        `freesound_tagging.learning.learner.fit` sets ``stage`` to the stage that it trains.
    seconds_before : how long the training behind the checkpoint took.

    Raises
    ------
    CheckpointError
        Where the file is there and is damaged, or is of another run, code or library version.
    """

    order = 90  # before_fit: when MixedPrecision (10) has made its scaler

    def __init__(self, file: Path, identity: dict[str, Any]):
        versions = {"torch": str(torch.__version__), "fastai": fastai.__version__}
        self.file = Path(file)
        self.identity = {**identity, "format": CHECKPOINT_FORMAT, **versions}
        self.stage, self.start_epoch, self.seconds_before, self.state = 0, 0, 0.0, None
        self.begun = self.written = time.monotonic()
        if self.file.exists():
            self.state = _read(self.file, self.identity)
            self.stage, self.start_epoch = self.state["stage"], self.state["epoch"]
            self.seconds_before = self.state["seconds"]

    def before_fit(self):
        self.first_epoch, self.start_epoch = self.start_epoch, 0  # later stages begin at 0
        if self.state is not None:
            _restore(self.learn, self.state)
            self.state = None

    def after_epoch(self):
        skipped = self.learn.epoch < self.first_epoch
        if skipped or time.monotonic() - self.written < EVERY_SECONDS:
            return
        behind = {
            "stage": self.stage,
            "epoch": self.learn.epoch + 1,
            "seconds": self.seconds_before + time.monotonic() - self.begun,
        }
        state = {**behind, **_state_of(self.learn)}
        content = io.BytesIO()
        torch.save({"identity": self.identity, "state": _plain(state)}, content)
        write_atomically(self.file, content.getvalue())
        self.written = time.monotonic()


def _state_of(learner) -> dict[str, Any]:
    """Return everything that the rest of a training depends on, as nested dicts and lists."""
    scaler = getattr(learner, "scaler", None)
    device = learner.dls.device
    return {
        "model": learner.model.state_dict(),
        "optimizer": learner.opt.state_dict(),
        "scaler": scaler.state_dict() if scaler else None,
        "order": [loader.rng.getstate() for loader in learner.dls.loaders],
        "python": random.getstate(),
        "numpy": np.random.get_state(legacy=False),  # noqa: NPY002  (libraries draw from it)
        "torch": torch.get_rng_state(),
        "device": None if device.type == "cpu" else torch.get_device_module(device).get_rng_state(),
    }


def _restore(learner, state: dict[str, Any]) -> None:
    """Put a learner, and the random generators of this process, into a state of `_state_of`."""
    device = learner.dls.device
    learner.model.load_state_dict(state["model"])
    learner.opt.load_state_dict(to_device(state["optimizer"], device))
    if state["scaler"]:
        learner.scaler.load_state_dict(state["scaler"])
    for loader, order in zip(learner.dls.loaders, state["order"], strict=True):
        loader.rng.setstate(order)
    random.setstate(state["python"])
    numpy = state["numpy"]["state"]
    numpy["key"] = numpy["key"].numpy().astype(np.uint32)
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["device"] is not None:
        torch.get_device_module(device).set_rng_state(state["device"])


def _plain(value: Any) -> Any:
    """Return a nested state as nothing but tensors, Python's own numbers and containers."""
    if isinstance(value, Tensor):
        return value.detach().as_subclass(Tensor).cpu()
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.astype(np.int64))
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(_plain(item) for item in value)
    if isinstance(value, (list, L)):
        return [_plain(item) for item in value]
    return value


def _read(file: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the state in a checkpoint; raises as `KeepCheckpoint`."""
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        found, state = content["identity"], content["state"]
    except (RuntimeError, EOFError, KeyError, TypeError, ValueError, pickle.PickleError) as error:
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{file} is damaged: {reason}") from error
    for name, expected in identity.items():
        if found.get(name) != expected:
            raise CheckpointError(
                f"{file} is a checkpoint of {name} {found.get(name)!r}, not of {expected!r}"
            )
    return state
