"""Out-of-fold scores become the right figures, whatever the order of rows and classes."""

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax
from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score

from freesound_tagging.scoring.charts import show_confusion, show_differences, show_summary
from freesound_tagging.scoring.metrics import (
    SUMMARY,
    class_report,
    classes_of,
    clip_metrics,
    confusion,
    hardest_pairs,
    interval,
    map_at_k,
    summarise,
    target_ranks,
    top_k_error,
)
from freesound_tagging.scoring.statistics import by_fold_and_seed, compare

CLASSES = ["bark", "chirp", "clang", "hiss", "ring"]


def make_scores(skill: float = 1.0, seeds: int = 1, draw: int = 0):
    """Return out-of-fold scores of 60 clips, and their table; greater skill, fewer errors."""
    clip, random, frames = np.arange(60), np.random.default_rng(draw), []
    keys = pd.DataFrame({"clip_id": [f"clip{i:03d}" for i in clip], "seed": 0})
    keys = keys.assign(fold=clip // 5 % 3, label=np.array(CLASSES)[clip % 5])
    for seed in range(seeds):
        logits = random.standard_normal((60, 5)) + skill * np.eye(5)[clip % 5]
        values = pd.DataFrame(softmax(logits, axis=1), columns=CLASSES)
        frames.append(keys.assign(seed=seed).join(values))
    table = keys.set_index("clip_id").assign(group=[f"recording{i // 5}" for i in clip])
    return pd.concat(frames, ignore_index=True), table


def test_by_hand():
    scores = [
        [0.5, 0.3, 0.1, 0.1],  # true class first
        [0.5, 0.3, 0.15, 0.05],  # second
        [0.5, 0.3, 0.15, 0.05],  # third
        [0.5, 0.3, 0.15, 0.05],  # fourth
    ]
    targets = [0, 1, 2, 3]
    assert target_ranks(scores, targets).tolist() == [0, 1, 2, 3]
    assert [top_k_error(scores, targets, k) for k in (1, 2, 3, 4)] == [0.75, 0.5, 0.25, 0.0]
    assert top_k_error(scores, targets) == 0.25
    assert map_at_k(scores, targets, 1) == pytest.approx(1 / 4)
    assert map_at_k(scores, targets, 2) == pytest.approx((1 + 1 / 2) / 4)
    assert map_at_k(scores, targets) == pytest.approx((1 + 1 / 2 + 1 / 3) / 4)


def test_of_equal_scores_the_lower_index_ranks_first():
    constant = np.zeros((4, 4))
    assert target_ranks(constant, [0, 1, 2, 3]).tolist() == [0, 1, 2, 3]
    assert top_k_error(constant, [0, 1, 2, 3]) == 0.25  # not 0: a constant knows nothing
    assert target_ranks([[0.2, 0.4, 0.4]], [2]).tolist() == [1]
    assert target_ranks([[0.2, 0.4, 0.4]], [1]).tolist() == [0]


@pytest.mark.parametrize("k", [1, 2, 3, 5])
@pytest.mark.parametrize("random_state", range(5))
def test_agrees_with_sklearn(k, random_state):
    generator = np.random.default_rng(random_state)
    scores, targets = generator.random((80, 9)), generator.integers(0, 9, 80)
    theirs = top_k_accuracy_score(targets, scores, k=k, labels=range(9))
    assert top_k_error(scores, targets, k) == pytest.approx(1 - theirs)
    # With k as large as the number of classes, MAP@k is the mean reciprocal rank.
    reciprocal = label_ranking_average_precision_score(np.eye(9)[targets], scores)
    assert map_at_k(scores, targets, 9) == pytest.approx(reciprocal)


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ([[0.5, 0.5]], [0, 1], r"scores \(1, 2\) must be .* targets \(2,\)"),
        ([[0.5, 0.5]], [2], r"0\.\.1"),
        ([[0.5, 0.5]], [-1], r"0\.\.1"),
        ([[0.5, np.nan]], [0], "NaN or infinity"),
    ],
)
def test_shapes_and_targets_are_checked(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        target_ranks(scores, targets)


def test_a_label_without_a_column_is_named():
    scores, _ = make_scores()
    assert classes_of(scores) == CLASSES
    scores.loc[7, "label"] = "purr"
    with pytest.raises(ValueError, match="no column has scores of label 'purr'"):
        clip_metrics(scores)


def test_confusion_and_hardest_pairs_by_hand():
    truth = ["a", "a", "a", "a", "b", "b", "c", "c"]
    first = ["a", "b", "b", "a", "a", "b", "c", "c"]
    scores = pd.DataFrame({"clip_id": range(8), "seed": 0, "fold": 0, "label": truth})
    for name in "abc":
        scores[name] = [0.8 if choice == name else 0.1 for choice in first]
    counts = confusion(scores)
    assert counts.loc["a"].tolist() == [2, 2, 0]
    assert counts.loc["b"].tolist() == [1, 1, 0]
    assert counts.loc["c"].tolist() == [0, 0, 2]
    pairs = hardest_pairs(counts)
    assert pairs.loc[0].tolist() == ["a", "b", 2, 1, pytest.approx(3 / 6)]
    assert len(pairs) == 1  # the other pairs are never taken for each other
    report = class_report(scores)
    assert report.index[-1] == "c" and report.loc["c", "top1_accuracy"] == 1
    assert report.loc["a", "top1_accuracy"] == 0.5


def test_an_interval_is_never_a_point():
    groups = np.arange(30)
    assert interval(np.zeros((30, 2)), groups) == pytest.approx((0, 0.1))
    assert interval(np.ones((30, 2)), groups) == pytest.approx((0.9, 1))
    some = (np.random.default_rng(0).random((200, 3)) < 0.2).astype(float)
    low, high = interval(some, np.arange(200))
    assert 0 < low < some.mean() < high < 1


def test_summary_ranks_by_top1_accuracy_and_then_by_map3():
    better, table = make_scores(8.0)
    worse = better.copy()
    wrong = worse["label"] == "bark"
    better.loc[wrong, CLASSES] = [0.3, 0.4, 0.1, 0.1, 0.1]  # the true class second ...
    worse.loc[wrong, CLASSES] = [0.1, 0.4, 0.3, 0.15, 0.05]  # ... and fourth
    frames = {"poor": make_scores(0.5)[0], "worse": worse, "better": better}
    summary = summarise(frames, table)
    assert list(summary.columns) == SUMMARY
    assert summary["variant"].tolist() == ["better", "worse", "poor"]
    assert summary["top1_accuracy"].nunique() == 2
    assert (summary["n"] == 60).all() and (summary["seeds"] == 1).all()
    for row in summary.itertuples():
        metrics = clip_metrics(frames[row.variant])
        assert row.top3_error == pytest.approx(metrics["top3_error"].mean())
        assert row.map3 == pytest.approx(metrics["map3"].mean())
        assert row.top1_accuracy_low <= row.top1_accuracy <= row.top1_accuracy_high
        assert row.top3_error_low <= row.top3_error <= row.top3_error_high


def test_log_loss_and_balanced_accuracy_by_hand():
    scores = pd.DataFrame({"clip_id": list("abc"), "seed": 0, "fold": 0, "label": list("xxy")})
    scores = scores.assign(x=[0.5, 0.25, 1.0], y=[0.5, 0.75, 0.0])
    losses = clip_metrics(scores)["log_loss"]
    assert losses.tolist() == pytest.approx([np.log(2), np.log(4), -np.log(1e-12)])
    table = pd.DataFrame({"group": list("abc")}, index=list("abc"))
    row = summarise({"v": scores}, table).iloc[0]
    assert row["log_loss"] == pytest.approx(losses.mean())
    assert row["balanced_accuracy"] == pytest.approx((1 / 2 + 0) / 2)


def test_differences_are_drawn_with_every_fold_and_seed_on_one_scale():
    good, table = make_scores(3.0, 3)
    poor, _ = make_scores(0.2, 3, 1)
    scores = {"hires_q2": good, "log_db": poor, "mel_db": poor}
    pairs = [("hires_q2", "log_db"), ("log_db", "mel_db")]
    contrasts = compare(scores, table, pairs)
    dots = [by_fold_and_seed(scores[name], scores[other]) for name, other in pairs]
    figure = show_differences({"one": (contrasts, dots), "two": (contrasts[:1], dots[:1])})
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim()
    assert [label.get_text() for label in second.get_yticklabels()] == ["hires_q2 - log_db"]
    drawn = [line for line in second.lines if line.get_marker() == "."]
    shown = sorted(x for line in drawn for x in line.get_xdata())
    assert shown == pytest.approx(sorted(dots[0].to_numpy().ravel()))
    filled, open_ = (line for line in first.lines if line.get_marker() == "o")
    assert filled.get_xdata() == [contrasts.loc[0, "difference"]]
    assert filled.get_markerfacecolor() == filled.get_color()
    assert open_.get_markerfacecolor() == "white"


def test_the_ranked_table_is_drawn_best_on_top():
    frames = {"log_db": make_scores(3.0)[0], "hires_q2": make_scores(0.5)[0]}
    ax = show_summary(summarise(frames, make_scores()[1]))
    assert [label.get_text() for label in ax.get_yticklabels()] == ["log_db", "hires_q2"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1]


def test_a_confusion_matrix_of_600_classes_shows_the_worst_at_a_size_that_can_be_read():
    names = [f"species {i}" for i in range(600)]
    counts = pd.DataFrame(np.eye(600, dtype=int) * 10, index=names, columns=names)
    wrong = [f"species {i}" for i in range(0, 600, 15)]
    for name in wrong:
        counts.loc[name, name], counts.loc[name, "species 1"] = 5, 5
    ax = show_confusion(counts, title="600 kinds")
    width, height = ax.figure.get_size_inches()
    assert max(width, height) < 20
    assert [label.get_text() for label in ax.get_yticklabels()] == wrong
    assert "40 of 600 classes" in ax.get_title()


def test_a_confusion_matrix_shows_shares_and_never_mathematics():
    names = ["$x", "y$", "z"]
    counts = pd.DataFrame([[3, 1, 0], [0, 0, 0], [0, 0, 2]], index=names, columns=names)
    ax = show_confusion(counts, title="a $ b $")
    shown = [text.get_text() for text in ax.texts if text.get_visible()]
    assert sorted(shown) == ["100", "25", "75"]
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_xticklabels()] == names
    assert not any(label.get_parse_math() for label in (*ax.get_xticklabels(), ax.title))
