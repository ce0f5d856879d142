"""A run that is killed in training goes on from its checkpoint and ends with the same bytes."""

import json
import multiprocessing
import os
import signal
import time
from dataclasses import replace

import pytest
import torch
from fastai.callback.core import Callback

from freesound_tagging import keys
from freesound_tagging import run as run_module
from freesound_tagging.features import store as stores
from freesound_tagging.learning import checkpoints
from freesound_tagging.learning import learner as training
from freesound_tagging.learning.checkpoints import CheckpointError, KeepCheckpoint
from freesound_tagging.learning.learner import OPTIMIZERS
from freesound_tagging.learning.profiles import PROFILES
from freesound_tagging.run_grid import make_runs, plan_runs

NAMES = {"dataset": "tiny", "profile_name": "smoke"}


class Killed(BaseException):
    """Stops a run where a kill would: nothing on the way catches it."""


class KillAfter(Callback):
    """Kill a training after so many epochs of both stages, counted from its start."""

    order = 99  # when the checkpoint is written

    def __init__(self, epochs: int):
        self.left = epochs

    def after_epoch(self):
        self.left -= 1
        if self.left == 0:
            raise Killed


@pytest.fixture(autouse=True)
def after_every_epoch(monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", 0)


@pytest.fixture
def longer(profile):
    """Two frozen epochs and three of all layers, with all that draws random numbers."""
    return replace(profile, frozen_epochs=2, epochs=3, crop=0.8, folds=1)


def plan(table, store, profile, folder, variant="log_db"):
    (run,) = plan_runs(table, store, [variant], profile, folder, **NAMES)
    return run


def checkpoint_of(run):
    return run.place.with_suffix(".checkpoint.pt")


def kill_after(run, epochs: int) -> None:
    """Make a run that ends after so many epochs, with its checkpoint behind it."""
    with pytest.MonkeyPatch.context() as patch:
        original = training.make_learner

        def doomed(*arguments):
            learner = original(*arguments)
            learner.add_cb(KillAfter(epochs))
            return learner

        patch.setattr(run_module, "make_learner", doomed)
        with pytest.raises(Killed):
            make_runs([run], n_jobs=1, progress=False)


def count_epochs(monkeypatch) -> list[int]:
    """Return a list to which every training epoch adds one."""
    trained, original = [], training.CountEpochs.after_epoch

    def count(self):
        if self.learn.train_iter:
            trained.append(self.learn.epoch)
        original(self)

    monkeypatch.setattr(training.CountEpochs, "after_epoch", count)
    return trained


@pytest.mark.parametrize(
    ("optimizer", "epochs"),
    # In the first stage, at its end, in the second, at its end; one of them for every optimizer.
    [("adamw", 1), ("adamw", 2), ("adamw", 5), *((name, 3) for name in OPTIMIZERS)],
)
def test_a_run_that_is_killed_goes_on_to_the_same_bytes(
    table, store, longer, tmp_path, monkeypatch, optimizer, epochs
):
    settings = replace(longer, optimizer=optimizer)
    whole = plan(table, store, settings, tmp_path / "whole")
    make_runs([whole], n_jobs=1, progress=False)
    broken = plan(table, store, settings, tmp_path / "broken")
    kill_after(broken, epochs)
    assert checkpoint_of(broken).exists()
    assert not broken.place.with_suffix(".csv").exists()

    trained = count_epochs(monkeypatch)
    torch.manual_seed(99)  # whatever the new process has drawn
    make_runs([broken], n_jobs=1, progress=False)
    assert len(trained) == 5 - epochs
    scores = [run.place.with_suffix(".csv").read_bytes() for run in (whole, broken)]
    assert scores[0] == scores[1]
    assert not checkpoint_of(broken).exists()
    assert not checkpoint_of(whole).exists()


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_run_with_layers_held_still_goes_on_to_the_same_bytes(
    table, store, longer, tmp_path, epochs
):
    # What they compute is computed again, by weights that have not moved.
    settings = replace(
        longer,
        architecture="efficientnet_lite0",
        fine_tuning="gradual_unfreezing",
        hold_still=True,
        frozen_epochs=1,
        crop=1.0,
        time_shift=0.0,
        mask=0.0,
    )
    whole, broken = (plan(table, store, settings, tmp_path / name) for name in ("whole", "broken"))
    make_runs([whole], n_jobs=1, progress=False)
    kill_after(broken, epochs)
    assert checkpoint_of(broken).exists()
    make_runs([broken], n_jobs=1, progress=False)
    scores = [run.place.with_suffix(".csv").read_bytes() for run in (whole, broken)]
    assert scores[0] == scores[1]


def test_seconds_are_those_of_both_parts(table, store, longer, tmp_path, monkeypatch):
    run = plan(table, store, longer, tmp_path)
    kill_after(run, 2)
    before = torch.load(checkpoint_of(run), weights_only=True)["state"]["seconds"]
    assert before > 0
    make_runs([run], n_jobs=1, progress=False)
    row = json.loads(run.place.with_suffix(".json").read_text())["row"]
    assert row["seconds"] > before
    assert row["epochs"] == 5


def test_short_runs_keep_no_checkpoint(table, store, longer, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_SECONDS", 60)
    run = plan(table, store, longer, tmp_path)
    kill_after(run, 4)
    assert not list(run.place.parent.iterdir())


def other(name: str, table, store, profile, folder):
    """Return a run that differs from the usual one in one thing."""
    if name == "variant":
        return plan(table, store, profile, folder, "mel_db")
    if name == "seed":
        return plan(table, store, replace(profile, seeds=(1,)), folder)
    if name == "settings, sounds and folds":
        return plan(table, store, replace(profile, lr_max=0.005), folder)
    return plan(table, store, profile, folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("variant", "of variant 'mel_db', not of 'log_db'"),
        ("seed", "of seed 1, not of 0"),
        ("settings, sounds and folds", "of settings, sounds and folds '[0-9a-f]{16}', not of"),
        ("training algorithm", "of training algorithm 0, not of 1"),
        ("torch", "of torch '2.0.0', not of"),
        ("format", "of format 0, not of 2"),
    ],
)
def test_a_checkpoint_of_another_run_or_code_version_is_refused_by_name(
    table, store, longer, tmp_path, monkeypatch, capsys, name, message
):
    run = plan(table, store, longer, tmp_path / "run")
    with monkeypatch.context() as patch:
        if name == "training algorithm":
            patch.setattr(keys, "TRAINING_ALGORITHM", 0)
        elif name == "torch":
            patch.setattr(torch, "__version__", "2.0.0")
        elif name == "format":
            patch.setattr(checkpoints, "CHECKPOINT_FORMAT", 0)
        foreign = other(name, table, store, longer, tmp_path / "foreign")
        kill_after(foreign, 2)
    run.place.parent.mkdir(parents=True)
    checkpoint_of(foreign).rename(checkpoint_of(run))

    with pytest.raises(CheckpointError, match=message) as refused:
        KeepCheckpoint(checkpoint_of(run), _identity_of(run))
    assert str(checkpoint_of(run)) in str(refused.value)

    # A grid that runs unattended says so and makes that run from its beginning.
    trained = count_epochs(monkeypatch)
    make_runs([run], n_jobs=1, progress=False)
    assert len(trained) == 5
    said = capsys.readouterr().out
    assert str(refused.value) in said
    assert "begins anew" in said


def _identity_of(run) -> dict:
    return {
        "variant": run.variant,
        "fold": run.fold,
        "seed": run.seed,
        "training algorithm": keys.TRAINING_ALGORITHM,
        "device": "cpu",
        "settings, sounds and folds": run.key,
    }


class Trap:
    """Makes a folder where it is unpickled."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("damage", ["truncated", "empty", "no state", "code"])
def test_a_damaged_checkpoint_is_named_and_not_used(
    table, store, longer, tmp_path, monkeypatch, capsys, damage
):
    run = plan(table, store, longer, tmp_path)
    kill_after(run, 2)
    file = checkpoint_of(run)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "no state":
        torch.save({"weights": torch.zeros(2)}, file)
    else:
        torch.save(Trap(tmp_path / "sprung"), file)
    trained = count_epochs(monkeypatch)
    make_runs([run], n_jobs=1, progress=False)
    assert len(trained) == 5
    assert f"{file} is damaged" in capsys.readouterr().out
    assert not file.exists()
    assert not (tmp_path / "sprung").exists()


def test_kill_9_in_training_loses_an_epoch_at_most_and_leaves_no_half_file(
    table, tmp_path, monkeypatch
):
    settings = replace(PROFILES["smoke"], folds=1, max_clips=None, epochs=30)
    folder = tmp_path / "store"
    store = stores.build(table, ["log"], settings.grid, folder, n_jobs=1, progress=False)
    whole, broken = (plan(table, store, settings, tmp_path / name) for name in ("whole", "broken"))
    make_runs([whole], n_jobs=1, progress=False)
    fork = multiprocessing.get_context("fork")  # a fresh process takes seconds to load fastai
    settled = {"n_jobs": 1, "progress": False}
    killed = fork.Process(target=make_runs, args=([broken],), kwargs=settled)
    killed.start()
    while not checkpoint_of(broken).exists():
        assert killed.exitcode is None
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.join()
    assert not broken.score_file.exists()
    place = broken.place.parent
    (place / ".fold0-seed0.checkpoint.pt.half").write_bytes(b"half of one")
    trained = count_epochs(monkeypatch)
    make_runs([broken], n_jobs=1, progress=False)
    assert len(trained) < 31
    assert sorted(found.name for found in place.iterdir()) == [
        "fold0-seed0.csv",
        "fold0-seed0.json",
    ]
    assert broken.score_file.read_bytes() == whole.score_file.read_bytes()
