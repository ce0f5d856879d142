"""The challenge's test clips: averaged over fold models, scored by ranking, and submitted."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from freesound_tagging.experiment import open_experiment
from freesound_tagging.runs import train_and_score
from freesound_tagging.scoring.challenge import average_folds, submission, summarise_test
from freesound_tagging.scoring.metrics import map_at_k, top_k_error
from freesound_tagging.sounds import catalogue, fsdkaggle2018
from studies import submission as challenge_study

CLASSES = ["Bass_drum", "Hi-hat", "Oboe", "Violin_or_fiddle"]


def made_up(n: int = 8, folds: int = 3, seeds: int = 2, draw: int = 0) -> pd.DataFrame:
    """Scores of test clips by every network, rows in no order."""
    generator = np.random.default_rng(draw)
    rows = []
    for clip in range(n):
        label = CLASSES[clip % len(CLASSES)]
        for fold in range(folds):
            for seed in range(seeds):
                values = generator.dirichlet(np.ones(len(CLASSES)))
                rows.append((f"clip{clip:03d}", seed, fold, label, *values))
    frame = pd.DataFrame(rows, columns=["clip_id", "seed", "fold", "label", *CLASSES])
    return frame.sample(frac=1, random_state=draw, ignore_index=True)


def usage_of(scores: pd.DataFrame) -> pd.Series:
    ids = sorted(scores["clip_id"].unique())
    usage = ["Public" if i % 3 == 0 else "Private" for i in range(len(ids))]
    return pd.Series(usage, index=pd.Index(ids, name="clip_id"))


def test_every_network_has_the_same_weight():
    scores = made_up()
    averaged = average_folds(scores).set_index("clip_id")
    assert averaged.index.tolist() == sorted(scores["clip_id"].unique())
    expected = scores.groupby("clip_id")[CLASSES].mean()
    pd.testing.assert_frame_equal(averaged[CLASSES], expected)


def test_clips_are_scored_by_usage_and_all_together():
    scores = {"a": made_up(), "b": made_up(draw=1)}
    usage = usage_of(scores["a"])
    summary = summarise_test(scores, usage).set_index("variant")
    assert summary["map3"].is_monotonic_decreasing
    indices = {label: i for i, label in enumerate(CLASSES)}
    for variant, frame in scores.items():
        averaged = average_folds(frame).set_index("clip_id")
        public = usage.loc[averaged.index] == "Public"
        for column, own, metric in (
            ("map3_public", averaged[public], map_at_k),
            ("map3_private", averaged[~public], map_at_k),
            ("map3", averaged, map_at_k),
            ("top3_error", averaged, top_k_error),
        ):
            expected = metric(own[CLASSES], own["label"].map(indices))
            assert summary.at[variant, column] == pytest.approx(expected)
        assert summary.loc[variant, ["n", "networks"]].tolist() == [8, 6]


def test_a_submission_has_the_rows_of_the_sample():
    """The sample names all 9,400 test clips, of which most were not scored."""
    averaged = average_folds(made_up(n=3))
    names = ["clip002.wav", "zz.wav", "clip000.wav", "aa.wav", "clip001.wav"]
    sample = pd.DataFrame({"fname": names, "label": "Laughter Hi-Hat Flute"})
    lines = submission(averaged, sample)
    assert list(lines.columns) == ["fname", "label"]
    assert lines["fname"].tolist() == names
    assert (lines.loc[[1, 3], "label"] == "Laughter Hi-Hat Flute").all()
    own = submission(averaged)
    assert own["fname"].tolist() == [f"clip{i:03d}.wav" for i in range(3)]
    for labels, row in zip(own["label"], averaged.itertuples(index=False), strict=True):
        values = dict(zip(CLASSES, row[4:], strict=True))
        assert labels.split(" ") == sorted(CLASSES, key=values.get, reverse=True)[:3]
        assert lines.set_index("fname").at[f"{row.clip_id}.wav", "label"] == labels
    equal = averaged.assign(**dict.fromkeys(CLASSES, 0.25))  # the first class is named first
    assert (submission(equal)["label"] == " ".join(CLASSES[:3])).all()


def test_other_clips_are_scored_as_held_out_ones_are(table, store, profile):
    scores = train_and_score(table, store, "log_db", 0, 0, profile).drop(columns="strangeness")
    held_out = table[table["fold"] == 0]
    lacking = replace(store, failed={held_out.index[0]: "cannot be read"})
    training = table[table["fold"] != 0]
    few = pd.concat([training, held_out.iloc[1:4]])
    test = held_out.drop(held_out.index[1:4])
    both = train_and_score(few, lacking, "log_db", 0, 0, profile, test)
    others = both.iloc[3:].set_index("clip_id").drop(columns="strangeness")
    assert list(others.index) == sorted(held_out.index[4:])
    expected = scores.set_index("clip_id").loc[others.index]
    pd.testing.assert_frame_equal(others, expected, atol=1e-6, rtol=0)


def test_the_challenges_test_clips_are_scored_and_submitted(table, tmp_path, monkeypatch, capsys):
    is_test = table["fold"] == 2
    both = table.assign(split=np.where(is_test, "test", "train"))
    both.loc[is_test, "fold"] = -1
    usage = usage_of(both[is_test].reset_index())
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    monkeypatch.setattr(catalogue, "load", lambda *_, **__: both)
    monkeypatch.setattr(fsdkaggle2018, "usage_of_test_clips", lambda _: usage)
    monkeypatch.setattr(fsdkaggle2018, "sample_submission", lambda _: None)
    experiment = open_experiment("fsdkaggle2018", "smoke")
    train = experiment.load_table()
    experiment.run_grid(train, experiment.build_store(train, ["log"]), ["log_db"])
    challenge_study.main(["--profile", "smoke"])
    assert "map3_public" in capsys.readouterr().out
    summary = pd.read_csv(experiment.run_folder / "test_summary.csv")
    assert summary["variant"].tolist() == ["log_db"]
    assert summary.loc[0, ["n", "networks"]].tolist() == [is_test.sum(), 2]
    lines = pd.read_csv(experiment.run_folder / "submissions" / "log_db.csv")
    assert set(lines["fname"]) == {f"{clip}.wav" for clip in table.index[is_test]}
    assert lines["label"].str.split(" ").str.len().eq(3).all()
