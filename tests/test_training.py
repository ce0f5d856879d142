"""Runs repeat to the byte, are made once, learn in two stages, and never see what they score."""

import io
import json
import random
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.torch_core import set_seed
from torch import nn

from freesound_tagging import keys
from freesound_tagging import run as run_module
from freesound_tagging import run_grid as grid_module
from freesound_tagging.features import store as stores
from freesound_tagging.features.store import Store
from freesound_tagging.learning import learner as training
from freesound_tagging.learning import networks
from freesound_tagging.learning.dataloaders import make_dataloaders
from freesound_tagging.learning.learner import (
    SkipValidation,
    fit,
    make_learner,
    predict,
)
from freesound_tagging.learning.networks import build_network, count_weights
from freesound_tagging.learning.profiles import ADJUSTMENTS, PROFILES, get_profile
from freesound_tagging.run import train_and_score
from freesound_tagging.run_grid import (
    RESULT_COLUMNS,
    collect_results,
    load_scores,
    make_runs,
    plan_runs,
    profile_folds,
    run_grid,
)
from freesound_tagging.scoring.metrics import KEYS, clip_metrics, map_at_k, summarise, top_k_error

NAMES = {"dataset": "tiny", "profile_name": "smoke"}


def grid_of(table, store, variants, profile, folder, **options) -> pd.DataFrame:
    options = {"n_jobs": 1, "progress": False, **options}
    return run_grid(table, store, variants, profile, folder, **NAMES, **options)


def run_files(folder: Path, variant: str = "*") -> dict[str, bytes]:
    """Return the scores of each run by name, to the byte."""
    files = sorted((folder / "runs").glob(f"{variant}/*.csv"))
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def stamps(folder: Path) -> dict[str, int]:
    files = [file for file in (folder / "runs").rglob("*") if file.is_file()]
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


@pytest.fixture(scope="module")
def _finished(_table, store, profile, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    grid_of(_table, store, ["log_db"], replace(profile, folds=2), folder)
    return folder


@pytest.fixture
def finished(_finished, tmp_path) -> Path:
    """A copy of a folder in which log_db was run on folds 0 and 1 with seed 0."""
    for file in _finished.rglob("*"):
        if file.is_file():
            target = tmp_path / "finished" / file.relative_to(_finished)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    return tmp_path / "finished"


@pytest.fixture
def two_folds(profile):
    return replace(profile, folds=2)


# --- the same seed, the same scores ------------------------------------------------------------


def test_same_seed_same_scores_other_seed_other_scores(table, store, profile):
    texts = [
        train_and_score(table, store, "log_db", 0, seed, profile).to_csv(index=False)
        for seed in (0, 0, 1)
    ]
    assert texts[0] == texts[1]
    assert texts[0] != texts[2].replace(",1,", ",0,")
    scores = [pd.read_csv(io.StringIO(text)).iloc[:, 4:].to_numpy() for text in texts]
    assert np.abs(scores[0] - scores[2]).max() > 1e-4


def test_a_run_does_not_depend_on_its_company(table, store, two_folds, finished, tmp_path):
    # After another variant, in other processes, from a table in another order: the same bytes.
    alone = run_files(finished)
    assert len(alone) == 2
    grid_of(table, store, ["mel_db", "log_db"], replace(two_folds, folds=1), tmp_path / "after")
    first = "runs/log_db/fold0-seed0.csv"
    assert run_files(tmp_path / "after", "log_db") == {first: alone[first]}
    grid_of(
        table.sample(frac=1, random_state=5),
        store,
        ["log_db"],
        two_folds,
        tmp_path / "parallel",
        n_jobs=2,
    )
    assert run_files(tmp_path / "parallel") == alone


def test_a_run_does_not_depend_on_what_other_threads_draw(table, store, profile, monkeypatch):
    # A Dask worker's own threads draw from the generator that fastai takes the clips' order from.
    original = run_module.make_dataloaders

    def disturbed(*arguments):
        random.random()
        return original(*arguments)

    short = replace(profile, frozen_epochs=1, epochs=1)
    alone = train_and_score(table, store, "log_db", 0, 0, short)
    monkeypatch.setattr(run_module, "make_dataloaders", disturbed)
    company = train_and_score(table, store, "log_db", 0, 0, short)
    pd.testing.assert_frame_equal(company, alone, check_exact=True)


def test_the_order_of_clips_is_the_one_that_fastai_draws(table, store, profile):
    # So runs that were made before the order was drawn apart are still the same to the byte.
    for seed in (0, 7):
        set_seed(seed, reproducible=True)
        dls = make_dataloaders(table, store, "log_db", 0, profile)
        drawn = [loader.rng.getstate() for loader in dls.loaders]
        training._order_by_seed(dls, seed)
        assert [loader.rng.getstate() for loader in dls.loaders] == drawn


def test_seeds_and_folds_that_are_added_change_no_run(table, store, two_folds, finished):
    before, written = run_files(finished), stamps(finished)
    results = grid_of(table, store, ["log_db"], replace(two_folds, seeds=(0, 1)), finished)
    assert len(results) == 4
    after = stamps(finished)
    assert written.items() <= after.items()
    assert before.items() <= run_files(finished).items()
    assert len(after) == 2 * len(written)


# --- done once ---------------------------------------------------------------------------------


def forbid_runs(monkeypatch) -> None:
    def refuse(*arguments, **options):
        raise AssertionError("trained again")

    monkeypatch.setattr(run_module, "train_and_score", refuse)


def test_done_runs_are_not_repeated(table, store, two_folds, finished, monkeypatch):
    before = stamps(finished)
    first = pd.read_csv(finished / "results.csv")
    forbid_runs(monkeypatch)
    again = grid_of(table.iloc[::-1], store, ["log_db"], two_folds, finished)
    assert stamps(finished) == before
    pd.testing.assert_frame_equal(again, first)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 2},
        {"lr_max": 2e-2},
        {"lr_ratio": 4},
        {"batch_size": 6},
        {"mixup": 0.0},
        {"time_shift": 0.1},
        {"mask": 0.0},
        {"weight_decay": 0.1},
        {"width": 16},
        {"crop": 0.5},
        {"architecture": "resnext50_32x4d"},
    ],
)
def test_a_changed_setting_is_run_again_and_said_so(
    table, store, two_folds, finished, monkeypatch, capsys, change
):
    forbid_runs(monkeypatch)
    monkeypatch.setattr(networks, "is_pretrained", lambda _: None)  # nothing to download
    with pytest.raises(AssertionError, match="trained again"):
        grid_of(table, store, ["log_db"], replace(two_folds, **change), finished)
    said = capsys.readouterr().out
    assert "2 runs are damaged, or were made with other settings" in said
    assert str(Path("log_db", "fold0-seed0")) in said


def test_changed_labels_folds_or_sounds_are_run_again(
    table, store, two_folds, finished, monkeypatch, grid, tmp_path
):
    forbid_runs(monkeypatch)
    clip_id = table.index[0]
    for column, value in (("label", "another"), ("fold", (table.loc[clip_id, "fold"] + 1) % 3)):
        changed = table.copy()
        changed.loc[clip_id, column] = value
        with pytest.raises(AssertionError, match="trained again"):
            grid_of(changed, store, ["log_db"], two_folds, finished)
    swapped = table.copy()
    swapped.iloc[:2, swapped.columns.get_loc("path")] = table["path"].iloc[1::-1].to_numpy()
    other = stores.build(swapped, ["log"], grid, tmp_path / "store", n_jobs=1, progress=False)
    with pytest.raises(AssertionError, match="trained again"):
        grid_of(swapped, other, ["log_db"], two_folds, finished)


def test_half_written_and_damaged_runs_are_made_again(table, store, two_folds, finished):
    scores, row = (finished / "runs" / "log_db" / f"fold0-seed0.{end}" for end in ("csv", "json"))
    other = finished / "runs" / "log_db" / "fold1-seed0.csv"
    whole, untouched = scores.read_bytes(), other.stat().st_mtime_ns
    for file, content in (
        (row, None),  # killed between its two files
        (scores, whole[:-20]),
        (row, row.read_bytes()[:-20]),
        (row, b"{}"),
        (row, b"\xff\xfe"),
    ):
        if content is None:
            file.unlink()
        else:
            file.write_bytes(content)
        grid_of(table, store, ["log_db"], two_folds, finished)
        assert scores.read_bytes() == whole
        assert json.loads(row.read_text())["row"]["n"] == 9
    assert other.stat().st_mtime_ns == untouched


def test_a_grid_that_stops_keeps_what_is_done(table, store, two_folds, tmp_path, monkeypatch):
    original, made = run_module.train_and_score, []

    def stop_at_the_second(*arguments, **options):
        if made:
            raise KeyboardInterrupt
        made.append(arguments)
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "train_and_score", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            grid_of(table, store, ["log_db"], two_folds, tmp_path)
    before = stamps(tmp_path)
    assert len(before) == 2
    assert not (tmp_path / "results.csv").exists()
    so_far = pd.read_csv(tmp_path / "results.partial.csv")
    assert list(so_far.columns) == RESULT_COLUMNS
    assert so_far["fold"].tolist() == [0]
    results = grid_of(table, store, ["log_db"], two_folds, tmp_path)
    assert results["fold"].tolist() == [0, 1]
    assert before.items() <= stamps(tmp_path).items()
    assert not (tmp_path / "results.partial.csv").exists()
    assert results.iloc[:1].equals(so_far)


def test_a_worker_with_other_code_makes_no_run(table, store, two_folds, tmp_path, monkeypatch):
    runs = plan_runs(table, store, ["log_db"], two_folds, tmp_path, **NAMES)
    monkeypatch.setattr(keys, "TRAINING_ALGORITHM", keys.TRAINING_ALGORITHM + 1)
    with pytest.raises(ValueError, match="would not make the run that was planned"):
        make_runs(runs, n_jobs=1, progress=False)
    assert not stamps(tmp_path)


def test_bars_count_runs_and_the_epochs_of_each(
    table, store, two_folds, tmp_path, monkeypatch, capsys
):
    ended = {}

    class Noted(training.tqdm):
        def close(self):
            ended[self.desc] = (self.n, self.total)
            super().close()

    monkeypatch.setattr(run_module, "tqdm", Noted)
    monkeypatch.setattr(grid_module, "tqdm", Noted)
    grid_of(table, store, ["log_db"], two_folds, tmp_path, progress=True)
    assert ended.pop("runs") == (2, 2)
    assert ended == {"log_db, fold 0, seed 0": (2, 2), "log_db, fold 1, seed 0": (2, 2)}
    shown = capsys.readouterr().err
    assert "log_db, fold 1, seed 0:   0%" in shown
    assert "2/2" in shown.splitlines()[-1]


def test_runs_that_follow_one_another_leave_no_pictures_in_memory(
    table, store, profile, tmp_path, monkeypatch
):
    held, alive, original = [], [], run_module.make_dataloaders

    def noted(*arguments):
        alive.append(sum(pictures() is not None for pictures in held))
        loaders = original(*arguments)
        held.append(weakref.ref(loaders.train))
        return loaders

    monkeypatch.setattr(run_module, "make_dataloaders", noted)
    grid_of(table, store, ["log_db"], replace(profile, seeds=(0, 1)), tmp_path)
    assert alive == [0] * 6
    assert held[-1]() is None


def test_a_run_that_diverges_is_an_error_and_leaves_nothing(
    table, store, two_folds, tmp_path, monkeypatch
):
    def diverge(*arguments, **options):
        scores = pd.DataFrame({"clip_id": ["a"], "seed": 0, "fold": 0, "label": "tone"})
        return scores.assign(clicks=0.1, sweep=np.nan, tone=0.9)

    monkeypatch.setattr(run_module, "train_and_score", diverge)
    with pytest.raises(ValueError, match="log_db, fold 0, seed 0: training diverged"):
        grid_of(table, store, ["log_db"], two_folds, tmp_path)
    assert not stamps(tmp_path)


def test_unknown_variant_lists_the_known_ones(table, store, two_folds, tmp_path):
    with pytest.raises(
        ValueError, match="unknown representation 'nonesuch'; the known ones are: linear_lin"
    ):
        grid_of(table, store, ["log_db", "nonesuch"], two_folds, tmp_path)
    assert not stamps(tmp_path)


def test_a_channel_that_was_not_built_is_named(table, store, grid, two_folds, tmp_path):
    only_log = Store(grid, {"log": store.places["log"]})
    with pytest.raises(KeyError, match="mel"):
        grid_of(table, only_log, ["mel_db"], two_folds, tmp_path)


def kept(run) -> tuple[pd.DataFrame, dict]:
    """Return the scores of a run that was made and its record."""
    return pd.read_csv(run.place.with_suffix(".csv")), json.loads(
        run.place.with_suffix(".json").read_text()
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_run_that_diverges_is_kept_as_knowing_nothing_where_asked(
    table, store, two_folds, tmp_path, monkeypatch, value
):
    original = training.predict

    def diverge(learner):
        scores = original(learner)
        if "tone-1-0" in scores.index:  # in fold 1 alone
            scores.iloc[3, 1] = value
        return scores

    monkeypatch.setattr(run_module, "predict", diverge)
    short = replace(two_folds, frozen_epochs=1, epochs=1)
    with pytest.raises(ValueError, match="log_db, fold 1, seed 0: training diverged, the scores"):
        make_runs(
            plan_runs(table, store, ["log_db"], short, tmp_path / "strict", **NAMES),
            n_jobs=1,
            progress=False,
        )
    folder = tmp_path / "kept"
    runs = plan_runs(table, store, ["log_db"], short, folder, **NAMES, keep_diverged=True)
    make_runs(runs, n_jobs=1, progress=False)
    sound, diverged = (kept(run) for run in runs)
    assert "note" not in sound[1]
    assert not (sound[0][["clicks", "sweep", "tone"]] == 1 / 3).any(axis=None)
    scores, record = diverged
    assert record["note"] == "log_db, fold 1, seed 0: training diverged"
    assert [run.is_done() for run in runs] == [True, True]
    strict = plan_runs(table, store, ["log_db"], short, folder, **NAMES)
    assert [run.is_done() for run in strict] == [True, False]  # where such runs are an error
    assert sorted(scores["clip_id"]) == sorted(table.index[table["fold"] == 1])
    np.testing.assert_allclose(scores[["clicks", "sweep", "tone"]], 1 / 3, rtol=1e-6)
    # Of equal scores the first class ranks first: one clip in three is right, none by knowledge.
    results = collect_results(runs)
    assert results["top1_accuracy"].iloc[1] == pytest.approx(1 / 3, abs=1e-6)
    assert results["map3"].iloc[1] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3, abs=1e-6)

    before = stamps(folder)
    forbid_runs(monkeypatch)  # it is done: the same settings would diverge again
    make_runs(runs, n_jobs=1, progress=False)
    assert stamps(folder) == before


# --- plans -------------------------------------------------------------------------------------


def fake_scores(made: list):
    """Return a stand-in for training that notes each run and knows nothing."""

    def score(table, store, variant, fold, seed, *others, **options):
        made.append((variant, fold, seed))
        rows = table[table["fold"] == fold].sort_index()
        scores = pd.DataFrame({"clip_id": rows.index, "seed": seed, "fold": fold})
        return scores.assign(label=rows["label"].to_numpy(), clicks=0.5, sweep=0.25, tone=0.25)

    return score


def test_a_plan_is_variant_then_fold_then_seed_and_trains_nothing(
    table, store, profile, tmp_path, monkeypatch
):
    forbid_runs(monkeypatch)
    variants, several = ["mel_db", "hires_q8", "log_db"], replace(profile, seeds=(4, 1))
    runs = plan_runs(table, store, variants, several, tmp_path, **NAMES)
    assert [(run.variant, run.fold, run.seed) for run in runs] == [
        (variant, fold, seed) for variant in variants for fold in (0, 1, 2) for seed in (4, 1)
    ]
    assert len({run.place for run in runs}) == len(runs)
    assert not any(tmp_path.iterdir())
    keys = {run.variant: {r.key for r in runs if r.variant == run.variant} for run in runs}
    assert all(len(own) == 1 for own in keys.values())  # fold and seed are in the file's name
    assert len(set.union(*keys.values())) == len(variants)


def test_folds_that_are_asked_for_take_the_place_of_the_profiles(table, store, two_folds, tmp_path):
    runs = plan_runs(table, store, ["log_db", "mel_db"], two_folds, tmp_path, **NAMES, folds=[2, 0])
    assert [(run.variant, run.fold) for run in runs] == [
        ("log_db", 2),
        ("log_db", 0),
        ("mel_db", 2),
        ("mel_db", 0),
    ]
    usual = plan_runs(table, store, ["log_db"], two_folds, tmp_path, **NAMES)
    assert [run.fold for run in usual] == [0, 1]
    assert (runs[1].place, runs[1].key) == (usual[0].place, usual[0].key)
    assert not plan_runs(table, store, ["log_db"], two_folds, tmp_path, **NAMES, folds=[])


def test_runs_that_are_done_are_not_made_again_whatever_the_plan(
    table, store, profile, tmp_path, monkeypatch
):
    made = []
    monkeypatch.setattr(run_module, "train_and_score", fake_scores(made))
    first = plan_runs(table, store, ["log_db"], profile, tmp_path, **NAMES, folds=[1])
    make_runs(first, n_jobs=1, progress=False)
    assert made == [("log_db", 1, 0)]
    runs = plan_runs(table, store, ["mel_db", "log_db"], profile, tmp_path, **NAMES)
    make_runs(runs, n_jobs=1, progress=False)
    assert len(made) == len(runs) == 6
    assert sorted(made) == sorted((run.variant, run.fold, run.seed) for run in runs)
    make_runs(runs[::-1], n_jobs=1, progress=False)
    assert len(made) == 6
    runs[3].place.with_suffix(".json").unlink()
    make_runs(runs, n_jobs=1, progress=False)
    assert made[6:] == [(runs[3].variant, runs[3].fold, runs[3].seed)]


def test_results_come_in_the_order_of_the_runs(table, store, profile, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "train_and_score", fake_scores([]))
    runs = plan_runs(table, store, ["mel_db", "log_db"], profile, tmp_path, **NAMES)
    make_runs(runs[::-1], n_jobs=1, progress=False)
    for order in (runs, runs[::-1], runs[2:4]):
        results = collect_results(order)
        assert list(results.columns) == RESULT_COLUMNS
        found = list(zip(results["variant"], results["fold"], results["seed"], strict=True))
        assert found == [(run.variant, run.fold, run.seed) for run in order]
    assert list(collect_results([]).columns) == RESULT_COLUMNS


def test_results_of_runs_that_were_not_made_are_an_error(table, store, profile, tmp_path):
    runs = plan_runs(table, store, ["log_db"], profile, tmp_path, **NAMES)
    with pytest.raises(FileNotFoundError, match="fold0-seed0"):
        collect_results(runs)


# --- results -----------------------------------------------------------------------------------


def test_every_clip_is_scored_once_a_seed(table, store, profile, tmp_path):
    several = replace(profile, seeds=(3, 4))
    results = grid_of(table, store, ["hires_q1"], several, tmp_path)
    assert list(results.columns) == RESULT_COLUMNS
    assert results[["fold", "seed"]].to_numpy().tolist() == [
        [fold, seed] for fold in (0, 1, 2) for seed in (3, 4)
    ]
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "results.csv"), results)
    scores = load_scores(tmp_path, results)["hires_q1"]
    assert list(scores.columns) == [*KEYS, "clicks", "sweep", "tone"]
    for _, one_seed in scores.groupby("seed"):
        assert sorted(one_seed["clip_id"]) == sorted(table.index)
    by_clip = table.loc[scores["clip_id"]]
    assert scores["label"].tolist() == by_clip["label"].tolist()
    assert scores["fold"].tolist() == by_clip["fold"].tolist()
    np.testing.assert_allclose(scores[["clicks", "sweep", "tone"]].sum(axis=1), 1, atol=1e-5)
    for row in results.itertuples():
        own = scores[(scores["fold"] == row.fold) & (scores["seed"] == row.seed)]
        targets = own["label"].map({"clicks": 0, "sweep": 1, "tone": 2}).to_numpy()
        values = own[["clicks", "sweep", "tone"]].to_numpy()
        assert row.n == len(own) == 9
        assert row.top1_accuracy == pytest.approx(1 - top_k_error(values, targets, 1), abs=1e-6)
        assert row.top3_error == pytest.approx(top_k_error(values, targets), abs=1e-6)
        assert row.map3 == pytest.approx(map_at_k(values, targets), abs=1e-6)
        assert (row.dataset, row.profile, row.epochs) == ("tiny", "smoke", 2)
    summary = summarise({"hires_q1": scores}, table)
    assert summary.loc[0, ["n", "seeds"]].tolist() == [27, 2]


def test_clip_ids_and_labels_that_look_like_numbers_survive(table, store, two_folds, tmp_path):
    names = {clip_id: f"{i:03d}" for i, clip_id in enumerate(table.index)}
    numbered = table.rename(index=names)
    numbered["label"] = numbered["label"].map({"clicks": "007", "sweep": "10", "tone": "1e3"})
    places = {"log": {names[clip_id]: place for clip_id, place in store.places["log"].items()}}
    renamed = Store(store.grid, places)
    results = grid_of(numbered, renamed, ["log_db"], replace(two_folds, folds=1), tmp_path)
    scores = load_scores(tmp_path, results)["log_db"]
    assert set(scores["clip_id"]) <= set(numbered.index)
    assert scores["label"].tolist() == numbered.loc[scores["clip_id"], "label"].tolist()
    assert len(clip_metrics(scores)) == 9


def test_a_profile_runs_its_first_folds(table, profile):
    assert profile_folds(table, profile) == [0, 1, 2]
    assert profile_folds(table, replace(profile, folds=2)) == [0, 1]


# --- what a network may look at ----------------------------------------------------------------


class Recorder(Callback):
    """Note the rate of each group at every step, and the weights at the end of each stage."""

    def before_fit(self):
        self.stages = getattr(self, "stages", [])
        stage = {"rates": [], "momenta": [], "before": weights_of(self.learn.model)}
        self.stages.append(stage)

    def after_batch(self):
        if self.training:
            self.stages[-1]["rates"].append([group["lr"] for group in self.opt.hypers])
            self.stages[-1]["momenta"].append([group["mom"] for group in self.opt.hypers])

    def after_fit(self):
        self.stages[-1]["after"] = weights_of(self.learn.model)


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: weight.detach().clone() for name, weight in network.named_parameters()}


def fitted(table, store, profile, fold: int = 0, variant: str = "log_db"):
    """Train a learner as a run does and return it with its recorder."""
    set_seed(0, reproducible=True)
    learner = make_learner(make_dataloaders(table, store, variant, fold, profile), profile)
    recorder = Recorder()
    with learner.no_bar(), learner.no_logging(), learner.added_cbs([recorder, SkipValidation()]):
        fit(learner, profile)
    return learner, recorder


class HeldOutScrambled(Store):
    """A store whose clips of fold 0 are noise."""

    def read(self, channel, clip_ids):
        codes = super().read(channel, clip_ids)
        noise = np.random.default_rng(0).integers(0, 256, codes.shape, dtype=np.uint8)
        held_out = [clip_id.split("-")[1] == "0" for clip_id in clip_ids]
        codes[held_out] = noise[held_out]
        return codes


def test_held_out_clips_leave_no_trace_in_the_network(table, store, profile):
    learner, _ = fitted(table, store, profile)
    items = set(learner.dls.train_ds.items)
    assert items == set(table.index[table["fold"] != 0])

    other = table.copy()
    held_out = other["fold"] == 0
    other.loc[held_out, "label"] = np.roll(other.loc[held_out, "label"].to_numpy(), 4)
    scrambled = HeldOutScrambled(store.grid, store.places)
    again, _ = fitted(other, scrambled, profile)
    for name, value in learner.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert not np.allclose(predict(learner), predict(again))  # the fold itself did change

    changed_training, _ = fitted(table, scrambled, profile, fold=1)
    plain_training, _ = fitted(table, store, profile, fold=1)
    weights = [next(run.model.parameters()) for run in (changed_training, plain_training)]
    assert not torch.equal(*weights)  # the comparison can fail


def test_predictions_are_those_of_each_clip_on_its_own(table, store, profile):
    learner, _ = fitted(table, store, profile)
    scores = predict(learner)
    assert scores.index.name == "clip_id"
    model = learner.model.eval()
    for i, clip_id in enumerate(learner.dls.valid_ds.items):
        picture = learner.dls.valid_ds[i][0][None]
        picture = learner.dls.valid.after_batch((picture,))[0]
        with torch.no_grad():
            alone = model(picture).softmax(dim=1)[0]
        np.testing.assert_allclose(scores.loc[clip_id], alone.numpy(), atol=1e-5)


# --- two stages, three rates -------------------------------------------------------------------


def test_frozen_first_then_all_layers_with_differential_rates(table, store, profile):
    profile = replace(profile, frozen_epochs=1, epochs=2)
    learner, recorder = fitted(table, store, profile)
    frozen, free = recorder.stages
    kernels = [
        f"{name}.weight"
        for name, part in learner.model.named_modules()
        if isinstance(part, nn.Conv2d)
    ]
    assert len(kernels) == 5
    head = [name for name in frozen["before"] if name.startswith("2.")]
    for name in kernels:
        assert torch.equal(frozen["before"][name], frozen["after"][name])
        assert not torch.equal(free["before"][name], free["after"][name])
    for name in head:
        assert not torch.equal(frozen["before"][name], frozen["after"][name])
        assert not torch.equal(free["before"][name], free["after"][name])

    steps = len(learner.dls.train)
    assert (len(frozen["rates"]), len(free["rates"])) == (steps, 2 * steps)
    rates = np.array(free["rates"])
    assert rates.shape[1] == 3
    assert (np.diff(rates, axis=1) > 0).all()  # early layers least, the head most, at every step
    np.testing.assert_allclose(rates[:, 2] / rates[:, 0], profile.lr_ratio, rtol=1e-6)
    assert rates.max() <= profile.lr_max * (1 + 1e-9)
    assert np.array(frozen["rates"]).max() <= profile.frozen_lr * (1 + 1e-9)
    assert rates[:, 2].argmax() not in (0, len(rates) - 1)  # one cycle: up, then down


def test_a_pretrained_run_repeats_to_the_byte(table, store, profile):
    settings = replace(profile, architecture="efficientnet_lite0", epochs=2)
    texts = [
        train_and_score(table, store, "log_db", 0, 0, settings).to_csv(index=False)
        for _ in range(2)
    ]
    assert texts[0] == texts[1]


def test_the_rate_finder_and_a_logged_epoch_work(table, store, profile):
    learner = make_learner(make_dataloaders(table, store, "log_db", 0, profile), profile)
    with learner.no_bar(), learner.no_logging():
        suggestion = learner.lr_find(show_plot=False, num_it=12)
        learner.fit_one_cycle(1, 1e-3)
    assert 1e-8 < suggestion.valley < 10
    names = ["epoch", "train_loss", "valid_loss", "top1_accuracy", "top3_error", "map3", "time"]
    assert list(learner.recorder.metric_names) == names
    assert len(learner.recorder.values) == 1


# --- metrics -----------------------------------------------------------------------------------


def test_metrics_of_the_learner_are_those_of_the_evaluation(table, store, profile):
    learner, _ = fitted(table, store, profile)
    with learner.no_bar():
        _, top1, top3, mean_precision = learner.validate()
    scores = predict(learner)
    labels = table.loc[scores.index, "label"]
    targets = labels.map({label: i for i, label in enumerate(scores.columns)}).to_numpy()
    values = scores.to_numpy()
    assert top1 == pytest.approx(1 - top_k_error(values, targets, 1), abs=1e-6)
    assert top3 == pytest.approx(top_k_error(values, targets, 3), abs=1e-6)
    assert mean_precision == pytest.approx(map_at_k(values, targets, 3), abs=1e-6)


@pytest.mark.parametrize("ties", [False, True])
def test_metrics_on_many_classes_and_ties(ties):
    generator = np.random.default_rng(0)
    logits = generator.standard_normal((200, 12))
    if ties:
        logits = logits.round()
        logits[:5] = 0
    targets = generator.integers(0, 12, 200)
    given = torch.from_numpy(logits).float(), torch.from_numpy(targets)
    assert float(training.top1_accuracy(*given)) == pytest.approx(
        1 - top_k_error(logits, targets, 1)
    )
    assert float(training.top3_error(*given)) == pytest.approx(top_k_error(logits, targets, 3))
    assert float(training.map3(*given)) == pytest.approx(map_at_k(logits, targets, 3))


def test_a_network_that_gives_no_numbers_is_not_perfect():
    logits, targets = torch.full((4, 5), torch.nan), torch.tensor([0, 1, 2, 3])
    assert training.top1_accuracy(logits, targets) == 0
    assert training.top3_error(logits, targets) == 1
    assert training.map3(logits, targets) == 0


# --- networks and profiles ---------------------------------------------------------------------


def test_width_sets_the_planes_of_every_convolution(table, store, profile):
    dls = make_dataloaders(table, store, "log_db", 0, profile)
    weights = []
    for width in (4, 8, 16):
        network = make_learner(dls, replace(profile, width=width)).model
        planes = [part.out_channels for part in network.modules() if isinstance(part, nn.Conv2d)]
        assert planes == [width * 2**i for i in range(5)]
        with torch.no_grad():
            assert network.eval()(torch.randn(2, 1, 29, 28)).shape == (2, 3)
        weights.append(count_weights(network))
    assert weights[0] < weights[1] < weights[2]
    assert weights[1] == count_weights(build_network("compact", 3))


def test_a_network_that_trains_on_crops_scores_whole_pictures(table, store, profile):
    seen = {True: set(), False: set()}

    class Widths(Callback):
        def before_batch(self):
            seen[self.training].add(self.xb[0].shape[3])

    profile = replace(profile, crop=0.5)
    learner = make_learner(make_dataloaders(table, store, "log_db", 0, profile), profile)
    learner.add_cb(Widths())
    with learner.no_bar(), learner.no_logging(), learner.added_cbs(SkipValidation()):
        fit(learner, profile)
    assert not seen[False]
    scores = predict(learner)
    assert seen == {True: {14}, False: {28}}
    assert np.isfinite(scores.to_numpy()).all()
    assert len(scores) == 9


def test_adjustments_apply_to_their_profile_and_data_set_alone():
    for (name, dataset), changes in ADJUSTMENTS.items():
        assert get_profile(name, dataset) == replace(PROFILES[name], **changes)
    for name in PROFILES:
        assert get_profile(name, "esc10") == PROFILES[name]
    assert get_profile("gpu", "microcalls") == PROFILES["gpu"]


def test_insects_are_analysed_at_their_own_rate_in_a_picture_of_the_usual_size():
    for name in ("cpu", "pretrained", "gpu"):
        grid, usual = get_profile(name, "insectset32").grid, PROFILES[name].grid
        assert (grid.n_bins, grid.n_frames) == (usual.n_bins, usual.n_frames)
        assert (grid.sample_rate, grid.fmax) == (44_100, 22_050)
        assert grid.windows > 1
