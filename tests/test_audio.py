"""A head on YAMNet: what is fitted is one affine map, scored, saved and tagged with as the rest."""

import json

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from freesound_tagging import model, runs
from freesound_tagging.cli import main
from freesound_tagging.experiment import open_experiment
from freesound_tagging.features import store as stores
from freesound_tagging.features import yamnet
from freesound_tagging.features.yamnet import embeddings, load_yamnet, log_mel_patches
from freesound_tagging.learning import audio, unknown
from freesound_tagging.learning.profiles import get_profile
from freesound_tagging.learning.tagger import Tagger
from freesound_tagging.sounds.clips import decode
from freesound_tagging.tag import newest_model


def drawn_rows(classes: int, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Return rows of 30 numbers around a mean for each class, and their labels."""
    random = np.random.default_rng(0)
    labels = np.arange(n) % classes
    means = random.standard_normal((classes, 30))
    rows = 5 + means[labels] + random.standard_normal((n, 30)) @ random.standard_normal((30, 30))
    return rows.astype(np.float32), np.array(["abc"[label] for label in labels])


@pytest.mark.parametrize("classes", [2, 3])
def test_the_head_is_logistic_regression_folded_into_one_map(classes):
    rows, labels = drawn_rows(classes)
    weights, strength = audio.fit(rows, labels, np.arange(60) // 6)
    head = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000, tol=1e-8))
    expected = head.fit(rows, labels).predict_proba(rows)
    logits, _ = audio.answer(torch.from_numpy(rows), weights)
    np.testing.assert_allclose(logits.softmax(dim=1), expected, atol=2e-3)
    assert strength in audio.STRENGTHS


def test_few_recordings_are_enough():
    rows, labels = drawn_rows(2, 12)
    for groups in (np.zeros(12), np.arange(12) % 2):  # no fold could train on both classes
        assert audio.fit(rows, labels, groups)[1] == 1
    rare = np.where(np.arange(12) < 2, "b", "a")  # one of the folds cannot
    assert audio.fit(rows, rare, np.arange(12) // 3)[1] in audio.STRENGTHS


def test_strangeness_is_the_relative_mahalanobis_distance():
    rows, labels = drawn_rows(3)
    asked = np.concatenate([rows[:5], rows[:5] + 20])
    learned = unknown.learn_classes(rows, labels)
    found = unknown.class_strangeness(torch.from_numpy(asked), learned).numpy()
    means = {label: rows[labels == label].mean(axis=0) for label in "abc"}
    within = LedoitWolf().fit(rows - np.stack([means[label] for label in labels]))
    overall = LedoitWolf().fit(rows)
    within.location_ = np.zeros(30)
    nearest = np.min([within.mahalanobis(asked - mean) for mean in means.values()], axis=0)
    np.testing.assert_allclose(found, nearest - overall.mahalanobis(asked), rtol=1e-2, atol=1e-2)


@pytest.fixture(scope="module")
def heard(_table, tmp_path_factory):
    folder, profile = tmp_path_factory.mktemp("audio"), get_profile("audio")
    store = stores.build(_table, ["yamnet"], profile.grid, folder, n_jobs=1, progress=False)
    rows = runs.run_grid(_table, store, ["yamnet"], profile, folder / "runs", n_jobs=1)
    return _table, profile, store, runs.load_scores(folder / "runs", rows)["yamnet"]


def test_a_clip_is_one_row_of_floats_for_the_whole_of_it(heard):
    table, _, store, _ = heard
    clip_id = table.index[0]
    vectors = embeddings(load_yamnet(), log_mel_patches(*decode(table.loc[clip_id, "path"])))
    expected = np.concatenate([vectors.mean(dim=0), vectors.amax(dim=0)])
    found = store.read("yamnet", [clip_id])
    assert found.dtype == np.float32 and found.shape == (1, 1, 2048)
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-4)


def test_scores_are_out_of_fold_and_of_the_form_of_all_others(heard):
    table, _, store, scores = heard
    assert list(scores.columns[:5]) == ["clip_id", "seed", "fold", "label", "strangeness"]
    assert sorted(scores["clip_id"]) == sorted(table.index)
    assert np.isfinite(scores["strangeness"]).all()
    np.testing.assert_allclose(scores[["clicks", "sweep", "tone"]].sum(axis=1), 1, atol=1e-6)
    assert (scores[["clicks", "sweep", "tone"]].idxmax(axis=1) == scores["label"]).mean() > 0.8
    other = table.copy()
    held_out = other["fold"] == 0
    other.loc[held_out, "label"] = np.roll(other.loc[held_out, "label"], 4)
    again = audio.score_fold(other, store, 0, 0).set_index("clip_id")
    own = scores[scores["fold"] == 0].set_index("clip_id")
    np.testing.assert_allclose(again["tone"], own["tone"], rtol=1e-6)  # labels leave no trace
    test = table[table["fold"] == 1].assign(fold=-1)
    two = table[table["fold"] != 1].assign(group=lambda clips: clips.index)  # one trains
    both = audio.score_fold(two, store, 0, 0, test)
    assert sorted(both["clip_id"]) == sorted(table.index[table["fold"] < 2])


def test_representations_that_cannot_be_had_are_named_before_any_run(heard, profile, tmp_path):
    table, own, store, _ = heard
    for names, settings, words in (
        (["log_db"], own, "log_db: the profile audio is for"),
        (["yamnet"], profile, "yamnet: the profile audio is for"),
        (["yamnet", "nonesuch"], own, "unknown representation 'nonesuch'"),
    ):
        with pytest.raises(ValueError, match=words):
            runs.run_grid(table, store, names, settings, tmp_path, n_jobs=1)
    assert not list(tmp_path.iterdir())


def test_make_model_saves_what_tags_as_the_scores_say(_table, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    monkeypatch.setattr(model, "FOREIGN", {"microcalls": {"clips_per_class": 1}})
    for name in ("SEEDS", "DATA_MIRROR"):
        monkeypatch.delenv(name, raising=False)
    csv = tmp_path / "mine.csv"
    _table.rename(columns={"path": "file"})[["file", "label", "fold", "group"]].to_csv(csv)
    assert main(["model", "--dataset", str(csv), "--profile", "audio"]) == 0
    folder = tmp_path / "models" / "mine" / "audio"
    about = json.loads((folder / "model.json").read_text())["networks"]["yamnet"]
    assert about["C"] in audio.STRENGTHS
    assert about["yamnet"] == yamnet.SHA256[yamnet.WEIGHTS]
    assert about["expected"]["top1_accuracy"] > 0.8
    other = tmp_path / "models" / "mine" / "cpu" / "model.json"
    other.parent.mkdir()
    other.write_text("{}")  # newer
    assert newest_model() == folder
    tagger = Tagger(folder)
    experiment = open_experiment(str(csv), "audio")
    table = experiment.load_table()
    store = experiment.build_store(table, ["yamnet"])
    weights, _ = audio.fit_clips(store, table)
    logits, strangeness = audio.answer(torch.from_numpy(audio.read_rows(store, table)), weights)
    for path, own, strange in list(zip(table["path"], logits, strangeness, strict=True))[::9]:
        tags = tagger.tag_file(path)  # shorter than a window, and heard as a whole
        expected = (own / tagger.about.temperature).softmax(dim=0)
        np.testing.assert_allclose(tags.probabilities, expected, atol=1e-3)
        assert tags.strangeness == pytest.approx([float(strange)], rel=1e-3, abs=0.1)
    noise = np.random.default_rng(0).standard_normal((2, 160_000)).astype(np.float32)
    tags = tagger(noise, 16_000)
    assert len(tags.starts) == 3 and tags.limit == about["limit"]
    codes = tagger.spectrogram(noise, 16_000)
    assert codes.dtype == np.uint8 and codes.shape[:2] == (1, 64) and codes.max() == 255
    capsys.readouterr()
    assert main(["tag", str(table["path"].iloc[0]), "--picture", "--folder", str(tmp_path)]) == 0
    assert "YAMNet" in capsys.readouterr().out  # whose weights they are
    assert list(tmp_path.glob("*.png"))


def test_slower_where_the_rate_of_the_grid_is_higher(_table, tmp_path):
    grids = [get_profile("audio", name).grid for name in ("esc10", "insectset32")]
    assert [grid.sample_rate for grid in grids] == [16_000, 44_100]
    table = _table.iloc[:1]
    kept = [
        stores.build(table, ["yamnet"], grid, tmp_path, n_jobs=1, progress=False) for grid in grids
    ]
    rows = [store.read("yamnet", list(table.index)) for store in kept]
    assert not np.allclose(*rows)
    slower, rate = decode(table["path"].iloc[0])
    vectors = embeddings(load_yamnet(), log_mel_patches(slower, round(rate * 16_000 / 44_100)))
    assert np.abs(rows[1][0, 0, :1024] - vectors.mean(dim=0).numpy()).max() < 0.05
