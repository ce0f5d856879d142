"""A half-trained network on disk: a run that is killed goes on after its last kept epoch.

A checkpoint is one safetensors file, so nothing is unpickled when it is loaded: tensors, and JSON
that says what they are. It holds all that the rest of the training depends on (weights, optimizer,
loss scale, every random generator), so that a resumed run ends with the bytes of an unbroken one.
"""

import json
import random
import time
from pathlib import Path
from typing import Any

import fastai
import numpy as np
import torch
from fastai.callback.core import Callback
from fastcore.foundation import L
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from freesound_tagging.files import write_atomically

EVERY_SECONDS = 30.0
"""How much training a kill may lose, besides the epoch that it falls in; short runs keep none."""

CHECKPOINT_FORMAT = 1
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
        Whoever fits sets ``stage`` to the stage at hand.
    seconds_before : how long the training behind the checkpoint took.

    Raises
    ------
    CheckpointError
        Where the file is there and is damaged, or is of another run, code or library version.
    """

    order = 90  # before_fit: when MixedPrecision (10) has made its scaler

    def __init__(self, file: Path, identity: dict[str, Any]):
        versions = {"torch": torch.__version__, "fastai": fastai.__version__}
        self.file = Path(file)
        self.identity = {**identity, "format": CHECKPOINT_FORMAT, **versions}
        self.stage, self.start_epoch, self.seconds_before, self.state = 0, 0, 0.0, None
        self.begun = self.kept = time.monotonic()
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
        if skipped or time.monotonic() - self.kept < EVERY_SECONDS:
            return
        behind = {
            "stage": self.stage,
            "epoch": self.learn.epoch + 1,
            "seconds": self.seconds_before + time.monotonic() - self.begun,
        }
        content = _pack({**behind, **_state_of(self.learn)}, self.identity)
        write_atomically(self.file, content)
        self.kept = time.monotonic()


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
    learner.opt.load_state_dict(_to_device(state["optimizer"], device))
    if state["scaler"]:
        learner.scaler.load_state_dict(state["scaler"])
    for loader, order in zip(learner.dls.loaders, state["order"], strict=True):
        loader.rng.setstate(_random_state(order))
    random.setstate(_random_state(state["python"]))
    np.random.set_state(state["numpy"])  # noqa: NPY002
    torch.set_rng_state(state["torch"])
    if state["device"] is not None:
        torch.get_device_module(device).set_rng_state(state["device"])


def _random_state(state: list) -> tuple:
    """Return a state of `random.Random` as it must be: JSON makes lists of its tuples."""
    version, numbers, gauss = state
    return version, tuple(numbers), gauss


def _to_device(state: Any, device: torch.device) -> Any:
    if isinstance(state, Tensor):
        return state.to(device)
    if isinstance(state, dict):
        return {name: _to_device(value, device) for name, value in state.items()}
    if isinstance(state, list):
        return [_to_device(value, device) for value in state]
    return state


def _pack(state: dict[str, Any], identity: dict[str, Any]) -> bytes:
    """Return a checkpoint's bytes: the tensors of a nested state, numbered, and the rest as JSON.

    Strides are kept too: sums over another layout of the same numbers may round otherwise.
    """
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            return {"array": plain(torch.from_numpy(value.astype(np.int64)))}
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, Tensor):
            name = str(len(tensors))
            value = value.detach().as_subclass(Tensor)
            tensors[name] = value.cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": name, "strides": list(value.stride())}
        if isinstance(value, dict):
            return {"dict": {name: plain(item) for name, item in value.items()}}
        if isinstance(value, (list, tuple, L)):
            return [plain(item) for item in value]
        return value

    about = {"identity": identity, "state": plain(state)}
    return save(tensors, {"about": json.dumps(about)})


def _read(file: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """Return the state in a checkpoint; raises as `KeepCheckpoint`."""
    try:
        with safe_open(file, framework="pt") as checkpoint:
            about = json.loads(checkpoint.metadata()["about"])
            tensors = {name: checkpoint.get_tensor(name) for name in checkpoint.keys()}  # noqa: SIM118
        found, state = about["identity"], about["state"]
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} is damaged: {error}") from error
    for name, expected in identity.items():
        if found.get(name) != expected:
            raise CheckpointError(
                f"{file} is a checkpoint of {name} {found.get(name)!r}, not of {expected!r}"
            )

    def full(value: Any) -> Any:
        if isinstance(value, list):
            return [full(item) for item in value]
        if not isinstance(value, dict):
            return value
        if "dict" in value:
            return {name: full(item) for name, item in value["dict"].items()}
        if "array" in value:
            return full(value["array"]).numpy()
        values = tensors[value["tensor"]]
        return torch.empty_strided(values.shape, value["strides"], dtype=values.dtype).copy_(values)

    return full(state)
