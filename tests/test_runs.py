"""The grid of runs: made once, resumed after a kill, refused where the settings are others."""

import signal
import subprocess
import sys
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from freesound_tagging import experiment, runs
from freesound_tagging.errors import DataError
from freesound_tagging.features import store as stores
from freesound_tagging.learning.profiles import PROFILES
from freesound_tagging.scoring.metrics import map_at_k, top_k_error
from freesound_tagging.sounds import catalogue

CLASSES = ["clicks", "sweep", "tone"]


def stamps(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Return when each file of runs was written, and its bytes."""
    files = sorted((folder / "runs").rglob("fold*"))
    return {str(file): (file.stat().st_mtime_ns, file.read_bytes()) for file in files}


@pytest.fixture
def made(monkeypatch) -> list:
    """Put a stand-in that knows nothing in the place of training, and note what it is asked for."""
    cells = []

    def score(table, store, variant, fold, seed, profile, test=None):
        cells.append((variant, fold, seed))
        rows = pd.concat([table[table["fold"] == fold].sort_index(), test])
        scores = pd.DataFrame({"clip_id": rows.index, "seed": seed, "fold": fold})
        classes = sorted(table["label"].unique())
        return scores.assign(label=rows["label"].to_numpy(), **dict.fromkeys(classes, 1 / 3))

    monkeypatch.setattr(runs, "train_and_score", score)
    return cells


def test_every_clip_is_scored_once_a_seed_by_a_network_that_did_not_see_it(
    table, store, profile, tmp_path
):
    several = replace(profile, seeds=(3, 4))
    results = runs.run_grid(table, store, ["hires_q1"], several, tmp_path, n_jobs=1)
    assert list(results.columns) == runs.ROW
    cells = [[fold, seed] for fold in (0, 1, 2) for seed in (3, 4)]
    assert results[["fold", "seed"]].to_numpy().tolist() == cells
    scores = runs.load_scores(tmp_path, results)["hires_q1"]
    assert list(scores.columns) == ["clip_id", "seed", "fold", "label", "strangeness", *CLASSES]
    by_seed = [one.set_index("clip_id") for _, one in scores.groupby("seed")]
    for own in by_seed:
        assert own["label"].to_dict() == table["label"].to_dict()
        assert own["fold"].to_dict() == table["fold"].to_dict()
    assert not np.allclose(by_seed[0]["tone"], by_seed[1].loc[by_seed[0].index, "tone"])
    np.testing.assert_allclose(scores[CLASSES].sum(axis=1), 1, atol=1e-5)
    for row in results.itertuples():
        own = scores[(scores["fold"] == row.fold) & (scores["seed"] == row.seed)]
        targets, values = own["label"].map(CLASSES.index).to_numpy(), own[CLASSES].to_numpy()
        assert (row.n, row.epochs) == (len(own), 2)
        assert row.top1_accuracy == pytest.approx(1 - top_k_error(values, targets, 1), abs=1e-6)
        assert row.top3_error == pytest.approx(top_k_error(values, targets), abs=1e-6)
        assert row.map3 == pytest.approx(map_at_k(values, targets), abs=1e-6)
    again = runs.run_grid(table, store, ["hires_q1"], several, tmp_path / "again", n_jobs=1)
    pd.testing.assert_frame_equal(scores, runs.load_scores(tmp_path / "again", again)["hires_q1"])


def test_clip_ids_and_labels_that_look_like_numbers_survive(table, store, profile, tmp_path, made):
    table = table.rename(index={clip_id: f"{i:03d}" for i, clip_id in enumerate(table.index)})
    table["label"] = table["label"].map({"clicks": "007", "sweep": "NA", "tone": "1e3"})
    results = runs.run_grid(table, store, ["log_db"], profile, tmp_path, n_jobs=1)
    scores = runs.load_scores(tmp_path, results)["log_db"].set_index("clip_id")
    assert scores["label"].to_dict() == table["label"].to_dict()


def test_all_of_the_first_seed_comes_first_and_no_run_is_made_twice(
    table, store, profile, tmp_path, made
):
    two_seeds = replace(profile, folds=2, seeds=(0, 1))
    variants = ["mel_db", "log_db"]
    cells = [(v, fold, seed) for seed in (0, 1) for v in variants for fold in (0, 1)]
    first = replace(two_seeds, folds=1, seeds=(0,))
    runs.run_grid(table, store, ["log_db"], first, tmp_path, n_jobs=1)
    results = runs.run_grid(table, store, variants, two_seeds, tmp_path, n_jobs=1)
    assert made[1:] == [cell for cell in cells if cell != ("log_db", 0, 0)]
    by_variant = results[["variant", "fold", "seed"]].to_numpy().tolist()
    assert by_variant == [[v, fold, seed] for v in variants for fold in (0, 1) for seed in (0, 1)]
    before = stamps(tmp_path)
    reverse = table.sort_index(ascending=False)  # the order of rows is no setting
    again = runs.run_grid(reverse, store, variants, two_seeds, tmp_path, n_jobs=1)
    pd.testing.assert_frame_equal(again, results)
    assert stamps(tmp_path) == before and len(made) == 8


def make_grid() -> Path:
    """Make the smoke profile's runs of log_db, one after another; return the folder of results."""
    own = experiment.open_experiment("microcalls", "smoke")
    table = own.load_table()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "workers", lambda: 1)
        own.run_grid(table, own.build_store(table, ["log"]), ["log_db"])
    return own.run_folder


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_killed_in_mid_run_the_same_command_ends_with_the_same_results(tmp_path, monkeypatch):
    code = """
import os, signal
import test_runs

original = test_runs.runs.write_atomically

def write(file, content):
    original(file, content)
    if file.name == "fold1-seed0.csv":  # its row is not there yet
        os.kill(os.getpid(), signal.SIGKILL)

test_runs.runs.write_atomically = write
test_runs.make_grid()
"""
    found = []
    for name in ("killed", "whole"):
        monkeypatch.setenv("WORK_FOLDER", str(tmp_path / name))
        if name == "killed":
            ran = subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent)
            assert ran.returncode == -signal.SIGKILL
            made = stamps(experiment.open_experiment("microcalls", "smoke").run_folder)
            assert [Path(file).name for file in made] == [
                *("fold0-seed0.csv", "fold0-seed0.json", "fold1-seed0.csv")
            ]
        folder = make_grid()
        assert name == "whole" or dict(list(made.items())[:2]).items() <= stamps(folder).items()
        results = pd.read_csv(folder / "results.csv").drop(columns="seconds")
        scores = [file.read_bytes() for file in sorted(folder.glob("runs/log_db/*.csv"))]
        found.append((results, scores))
    pd.testing.assert_frame_equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


@pytest.mark.parametrize("change", ["epochs 1, now 7", "label", "fold", "device", "code", "sound"])
def test_runs_of_other_settings_are_refused(
    small_table, profile, tmp_path, monkeypatch, made, change
):
    def build(table):
        folder = tmp_path / "store"
        return stores.build(table, ["log"], profile.grid, folder, n_jobs=1, progress=False)

    table, store, settings = small_table, build(small_table), profile
    runs.run_grid(table, store, ["log_db"], profile, tmp_path, n_jobs=1)
    before = stamps(tmp_path)
    if change.startswith("epochs"):
        settings = replace(profile, epochs=7)
    elif change == "label":
        table = table.assign(label=table["label"].str[::-1])
    elif change == "fold":
        table = table.assign(fold=1 - table["fold"])
    elif change == "device":
        monkeypatch.setattr(runs.networks, "best_device", lambda: torch.device("cuda"))
    elif change == "code":
        monkeypatch.setattr(runs, "TRAINING", 99)
    else:
        first, second = table["path"].iloc[:2]
        Path(first).write_bytes(Path(second).read_bytes())
        store = build(table)
    with pytest.raises(DataError, match=rf"(?s)holds runs of other.*{change}.*remove that folder"):
        runs.run_grid(table, store, ["log_db"], settings, tmp_path, n_jobs=1)
    assert stamps(tmp_path) == before and len(made) == 2


def test_a_run_that_diverges_is_an_error_and_no_result(
    table, store, profile, tmp_path, monkeypatch
):
    original = runs.training.make_learner

    def explode(dls, profile):
        learner = original(dls, profile)
        with torch.no_grad():
            next(learner.model[2].parameters()).fill_(torch.nan)
        return learner

    monkeypatch.setattr(runs.training, "make_learner", explode)
    with pytest.raises(ValueError, match="log_db, fold 0, seed 0: training diverged"):
        runs.run_grid(table, store, ["log_db"], profile, tmp_path, n_jobs=1)
    assert not stamps(tmp_path)


@pytest.mark.parametrize("name", ["cpu", "pretrained"])
def test_no_layer_is_called_before_fastai_moves_the_network_to_its_device(table, store, name):
    begun, early = [], []

    class Begin(runs.training.SkipValidation):
        def before_fit(self):
            begun.append(True)

    def note(layer, inputs):
        if not begun:
            early.append(layer)

    settings = replace(PROFILES[name], grid=store.grid, frozen_epochs=0, epochs=1)
    watch = register_module_forward_pre_hook(note)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(runs.training, "SkipValidation", Begin)
            runs.train(table, store, "log_db", 0, 0, settings)
    finally:
        watch.remove()
    assert begun and not early


def test_runs_that_follow_one_another_leave_no_spectrograms_in_memory(
    table, store, profile, tmp_path, monkeypatch
):
    held, alive, original = [], [], runs.make_dataloaders

    def noted(*arguments):
        alive.append(sum(loader() is not None for loader in held))
        loaders = original(*arguments)
        held.append(weakref.ref(loaders.train))
        return loaders

    monkeypatch.setattr(runs, "make_dataloaders", noted)
    runs.run_grid(table, store, ["log_db"], profile, tmp_path, n_jobs=1)
    assert alive == [0] * 3 and held[-1]() is None


def test_an_experiment_names_its_results_and_lists_what_it_could_not_read(
    small_table, tmp_path, monkeypatch, made
):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    broken = small_table.index[0]
    Path(small_table.loc[broken, "path"]).write_text("no sound")
    monkeypatch.setattr(catalogue, "load", lambda *arguments, **options: small_table)
    own = experiment.open_experiment("esc10", "smoke")
    table = own.load_table()
    results = own.run_grid(table, own.build_store(table, ["log"]), ["log_db"])
    pd.testing.assert_frame_equal(pd.read_csv(own.run_folder / "results.csv"), results)
    assert list(results.columns) == ["dataset", "profile", *runs.ROW]
    assert set(results["dataset"]) == {"esc10"} and set(results["profile"]) == {"smoke"}
    unreadable = pd.read_csv(own.run_folder / "unreadable.csv")
    assert unreadable["clip_id"].tolist() == [broken]
    assert Path(small_table.loc[broken, "path"]).name in unreadable["reason"][0]
    assert own.write_summary(table)["variant"].tolist() == ["log_db"]
