"""A stack learns from predictions: no label may find its own way back into one."""

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from freesound_tagging.features.clip_statistics import clip_statistics, table_statistics
from freesound_tagging.runs.studies import tables_of_pairs
from freesound_tagging.scoring import stacking
from freesound_tagging.scoring.metrics import KEYS, clip_metrics
from freesound_tagging.scoring.stacking import (
    STATISTICS,
    fold_pairs,
    make_forest,
    make_lightgbm,
    make_logistic,
    nested_features,
    out_of_fold,
    permutation_importance,
    simple_features,
)

CLASSES = ["a", "b", "c"]
FOLDS = 4


@pytest.fixture
def clips() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    n = 120
    table = pd.DataFrame(
        {"label": rng.choice(CLASSES, n), "fold": np.arange(n) % FOLDS},
        index=pd.Index([f"clip{i:03d}" for i in range(n)], name="clip_id"),
    )
    return table.sample(frac=1, random_state=1)


@pytest.fixture
def sounds(clips) -> pd.DataFrame:
    """What is heard of each clip: three numbers that tell something of its class."""
    rng = np.random.default_rng(1)
    places = clips["label"].map(CLASSES.index).to_numpy()
    values = np.eye(3)[places] + 0.9 * rng.standard_normal((len(clips), 3))
    return pd.DataFrame(values, index=clips.index, columns=["x", "y", "z"])


def network(table: pd.DataFrame, sounds: pd.DataFrame, fold: int) -> pd.DataFrame:
    """Stand in for a network: it learns from all folds but one, and scores that one."""
    held_out = table["fold"] == fold
    learned, scored = table.index[~held_out].sort_values(), table.index[held_out]
    model = LogisticRegression().fit(sounds.loc[learned], table.loc[learned, "label"])
    scores = table.loc[held_out, ["fold", "label"]].assign(seed=0)
    scores[CLASSES] = model.predict_proba(sounds.loc[scored])
    return scores.reset_index()[[*KEYS, *CLASSES]]


def networks(table, sounds) -> tuple[dict, dict]:
    """Return a network's scores with one fold held out, and with two."""
    outer = pd.concat([network(table, sounds, fold) for fold in range(FOLDS)])
    pairs = tables_of_pairs(table, range(FOLDS))
    inner = pd.concat([network(paired, sounds, number) for number, paired in pairs])
    return {"net": outer}, {"net": inner}


def stacked(table, sounds, model, nested: bool = True) -> pd.DataFrame:
    outer, inner = networks(table, sounds)
    statistics = sounds**2
    features = (
        nested_features(table, outer, inner, statistics)
        if nested
        else simple_features(table, outer, statistics)
    )
    return out_of_fold(model, table, features)[0].set_index("clip_id")[CLASSES]


def plain_tree(seed: int):
    return DecisionTreeClassifier(max_depth=6, random_state=seed)


@pytest.mark.parametrize("model", [plain_tree, make_logistic, make_lightgbm])
@pytest.mark.parametrize("clip_id", ["clip000", "clip057"])
def test_a_changed_label_moves_no_prediction_of_its_own_clip(clips, sounds, model, clip_id):
    before = stacked(clips, sounds, model)
    changed = clips.copy()
    others = [label for label in CLASSES if label != clips.loc[clip_id, "label"]]
    changed.loc[clip_id, "label"] = others[0]
    after = stacked(changed, sounds, model)
    own = clips.index[clips["fold"] == clips.loc[clip_id, "fold"]]
    pd.testing.assert_frame_equal(after.loc[own], before.loc[own], check_exact=True)
    assert not after.equals(before)  # it is learned from, elsewhere


def test_with_one_set_of_out_of_fold_scores_the_networks_below_carry_it(clips, sounds):
    # Why there are networks with two folds held out.
    before = stacked(clips, sounds, make_logistic, nested=False)
    changed = clips.copy()
    others = [label for label in CLASSES if label != clips.loc["clip000", "label"]]
    changed.loc["clip000", "label"] = others[0]
    after = stacked(changed, sounds, make_logistic, nested=False)
    moved = (after.loc["clip000"] - before.loc["clip000"]).abs().max()
    assert 0 < moved < 0.05


def test_a_pair_of_folds_is_held_out_together_and_nothing_else(clips):
    pairs = fold_pairs(clips["fold"].to_numpy())
    assert len(pairs) == FOLDS * (FOLDS - 1) // 2
    for number, table in tables_of_pairs(clips, range(FOLDS)):
        held_out = table["fold"] == number
        assert set(clips.loc[held_out, "fold"]) == set(pairs[number])
        assert set(clips.loc[~held_out, "fold"]).isdisjoint(pairs[number])
    assert [number for number, _ in tables_of_pairs(clips, [0, 2])] == [pairs.index((0, 2))]


def test_every_clip_is_predicted_once_whatever_the_order_of_rows(clips, sounds):
    scores = stacked(clips, sounds, make_logistic)
    assert sorted(scores.index) == sorted(clips.index)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-9)
    again = stacked(clips.sort_index(), sounds, make_logistic).loc[scores.index]
    np.testing.assert_allclose(again, scores, atol=1e-4)


def test_importance_finds_the_member_that_knows_something(clips, sounds):
    noise = pd.DataFrame(np.random.default_rng(2).standard_normal((len(clips), 9)), clips.index)
    outer, _ = networks(clips, sounds)
    features = simple_features(clips, outer, noise)
    scores, models = out_of_fold(make_logistic, clips, features)
    importance = permutation_importance(models, clips, features).set_index("member")["importance"]
    assert importance["net"] > 0.1 > abs(importance[STATISTICS])
    assert clip_metrics(scores)["map3"].mean() > 0.6


def test_a_class_that_a_fold_never_saw_has_no_probability(clips, sounds):
    table = clips.assign(label=np.where(clips["fold"] == 0, "only here", clips["label"]))
    features = simple_features(table, {}, sounds)
    scores, _ = out_of_fold(make_forest, table, features)
    assert (scores.loc[scores["fold"] == 0, "only here"] == 0).all()


def test_lightgbm_repeats_to_the_bit(clips, sounds):
    features = simple_features(clips, {}, sounds)
    first, second = (out_of_fold(make_lightgbm, clips, features)[0] for _ in range(2))
    pd.testing.assert_frame_equal(first, second, check_exact=True)


def test_stacking_names_its_pairs_as_studies_do():
    assert stacking.fold_pairs(np.array([2, 0, 1, 0])) == [(0, 1), (0, 2), (1, 2)]


# --- clip statistics -----------------------------------------------------------------------------


def test_statistics_are_finite_and_as_numpy_has_them():
    rate = 22_050
    t = np.arange(rate) / rate
    waveform = (np.sin(2 * np.pi * 1000 * t) * (t > 0.5)).astype(np.float32)
    found = clip_statistics(waveform, rate)
    assert np.isfinite(found).all() and found.index.is_unique
    assert len(found) == 6 * (9 - 2 + 7 + 20 + 12)
    assert found["rms max"] == pytest.approx(np.sqrt(0.5), rel=0.02)
    assert found["rms min"] == pytest.approx(0, abs=1e-6)
    assert found["zero_crossings max"] == pytest.approx(2 * 1000 / rate, rel=0.05)
    steady = clip_statistics(waveform[rate // 2 + 2000 :], rate)
    assert steady["centroid mean"] == pytest.approx(1000, rel=0.15)


def test_silence_has_statistics_too():
    assert np.isfinite(clip_statistics(np.zeros(22_050, np.float32), 22_050)).all()


def test_louder_is_only_louder():
    waveform = np.random.default_rng(0).standard_normal(22_050).astype(np.float32)
    quiet, loud = clip_statistics(0.1 * waveform, 22_050), clip_statistics(0.2 * waveform, 22_050)
    same = [name for name in quiet.index if name.split()[0] in ("centroid", "zero_crossings")]
    np.testing.assert_allclose(loud[same], quiet[same], rtol=1e-3)
    assert loud["rms mean"] == pytest.approx(2 * quiet["rms mean"], rel=1e-3)


def test_statistics_of_a_table_are_by_clip_id(table, grid):
    few = table.head(4)
    found = table_statistics(few, grid, n_jobs=1)
    assert list(found.index) == sorted(few.index)
    broken = few.copy()
    broken.loc[broken.index[0], "path"] = "missing.wav"
    assert set(table_statistics(broken, grid, n_jobs=1).index) == set(few.index[1:])
