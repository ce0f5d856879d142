"""Out-of-fold scores become the right figures, whatever the order of rows and classes."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import label_ranking_average_precision_score, top_k_accuracy_score

from freesound_tagging.scoring.charts import show_confusion
from freesound_tagging.scoring.metrics import (
    KEYS,
    bootstrap_interval,
    class_report,
    classes_of,
    clip_metrics,
    confusion,
    hardest_pairs,
    map_at_k,
    rank_metric,
    summarise,
    target_ranks,
    top_k_error,
)
from freesound_tagging.scoring.statistics import paired_tests

CLASSES = ["bark", "chirp", "clang", "hiss", "ring"]


def make_scores(
    skill: float = 1.0,
    n: int = 60,
    seeds: tuple[int, ...] = (0,),
    groups: int = 12,
    random_state: int = 0,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return out-of-fold scores and the table of their clips; greater skill, fewer errors."""
    generator = np.random.default_rng(random_state)
    clip_ids = [f"clip{i:03d}" for i in range(n)]
    labels = [CLASSES[i % len(CLASSES)] for i in range(n)]
    folds = [i // len(CLASSES) % groups % 3 for i in range(n)]
    recordings = [f"recording{i // len(CLASSES) % groups}" for i in range(n)]
    table = pd.DataFrame(
        {"label": labels, "fold": folds, "group": recordings}, index=pd.Index(clip_ids)
    )
    frames = []
    for seed in seeds:
        logits = generator.standard_normal((n, len(CLASSES)))
        logits[np.arange(n), [CLASSES.index(label) for label in labels]] += skill
        values = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        keys = pd.DataFrame({"clip_id": clip_ids, "seed": seed, "fold": folds, "label": labels})
        frames.append(pd.concat([keys, pd.DataFrame(values, columns=CLASSES)], axis=1))
    return pd.concat(frames, ignore_index=True), table


@st.composite
def scored(draw):
    """Draw scores with many ties, and targets."""
    n, classes = draw(st.integers(1, 12)), draw(st.integers(2, 7))
    values = draw(
        st.lists(
            st.lists(st.integers(-3, 3), min_size=classes, max_size=classes),
            min_size=n,
            max_size=n,
        )
    )
    targets = draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n))
    return np.array(values, float), np.array(targets)


# --- top-k error and MAP@k ---------------------------------------------------------------------


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


@settings(deadline=None)
@given(scored(), st.integers(1, 8))
def test_bounds_and_monotone_in_k(drawn, k):
    scores, targets = drawn
    error, precision = top_k_error(scores, targets, k), map_at_k(scores, targets, k)
    assert 0 <= error <= 1
    assert (1 - error) / k - 1e-12 <= precision <= 1 - error + 1e-12
    assert top_k_error(scores, targets, k + 1) <= error
    assert map_at_k(scores, targets, k + 1) >= precision
    assert map_at_k(scores, targets, 1) == pytest.approx(1 - top_k_error(scores, targets, 1))
    assert top_k_error(scores, targets, scores.shape[1]) == 0


@settings(deadline=None)
@given(scored(), st.randoms(use_true_random=False))
def test_order_of_rows_and_classes_means_nothing(drawn, random):
    scores, targets = drawn
    scores = scores + np.arange(scores.size).reshape(scores.shape) * 1e-6  # without ties
    rows, columns = list(range(len(scores))), list(range(scores.shape[1]))
    random.shuffle(rows)
    random.shuffle(columns)
    renamed = np.argsort(columns)[targets]
    for k in (1, 3):
        expected = top_k_error(scores, targets, k), map_at_k(scores, targets, k)
        shuffled = scores[rows], targets[rows]
        assert (top_k_error(*shuffled, k), map_at_k(*shuffled, k)) == pytest.approx(expected)
        relabelled = scores[:, columns], renamed
        assert (top_k_error(*relabelled, k), map_at_k(*relabelled, k)) == pytest.approx(expected)


@given(scored())
def test_only_the_order_of_scores_counts(drawn):
    scores, targets = drawn
    np.testing.assert_array_equal(
        target_ranks(scores, targets), target_ranks(np.exp(scores) * 7, targets)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(value):
    with pytest.raises(ValueError, match="NaN or infinity"):
        top_k_error([[0.5, value, 0.1]], [0])
    with pytest.raises(ValueError, match="NaN or infinity"):
        map_at_k([[0.5, value, 0.1]], [0])


@pytest.mark.parametrize(
    ("scores", "targets", "message"),
    [
        ([[0.5, 0.5]], [0, 1], r"got \(1, 2\) and \(2,\)"),
        ([0.5, 0.5], [0, 1], r"got \(2,\) and \(2,\)"),
        ([[0.5, 0.5]], [2], r"0\.\.1"),
        ([[0.5, 0.5]], [-1], r"0\.\.1"),
    ],
)
def test_shapes_and_targets_are_checked(scores, targets, message):
    with pytest.raises(ValueError, match=message):
        target_ranks(scores, targets)


# --- one row a clip ----------------------------------------------------------------------------


def test_metrics_of_each_clip_average_to_those_of_all():
    scores, _ = make_scores()
    metrics = clip_metrics(scores)
    assert classes_of(scores) == CLASSES
    targets = scores["label"].map(CLASSES.index).to_numpy()
    values = scores[CLASSES].to_numpy()
    assert metrics["top1_accuracy"].mean() == pytest.approx(1 - top_k_error(values, targets, 1))
    assert metrics["top3_error"].mean() == pytest.approx(top_k_error(values, targets, 3))
    assert metrics["map3"].mean() == pytest.approx(map_at_k(values, targets, 3))
    pd.testing.assert_frame_equal(metrics[KEYS], scores[KEYS])


def test_columns_are_found_by_name():
    scores, _ = make_scores()
    moved = scores[[*KEYS[::-1], *CLASSES[::-1]]].sample(frac=1, random_state=0)
    pd.testing.assert_frame_equal(clip_metrics(moved).sort_index(), clip_metrics(scores))


def test_a_label_without_a_column_is_named():
    scores, _ = make_scores()
    scores.loc[7, "label"] = "purr"
    with pytest.raises(ValueError, match=r"'purr' is no column .* bark, chirp"):
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
    assert len(hardest_pairs(counts, n=1)) == 1
    report = class_report(scores)
    assert report.index[-1] == "c" and report.loc["c", "top1_accuracy"] == 1
    assert report.loc["a", "top1_accuracy"] == 0.5
    assert list(class_report(scores, ["c", "a"]).index) == ["c", "a"]


# --- intervals ---------------------------------------------------------------------------------


def test_drawing_recordings_is_wider_than_drawing_clips_when_clips_are_alike():
    generator = np.random.default_rng(0)
    each = (generator.random(20) < 0.3).astype(float)
    values = pd.Series(np.repeat(each, 10))  # ten clips of a recording, all right or all wrong
    by_group = bootstrap_interval(values, pd.Series(np.repeat(np.arange(20), 10)))
    by_clip = bootstrap_interval(values, pd.Series(np.arange(200)))
    widths = by_group[1] - by_group[0], by_clip[1] - by_clip[0]
    assert widths[0] > 2 * widths[1]
    for low, high in (by_group, by_clip):
        assert 0 <= low <= values.mean() <= high <= 1


def test_the_interval_is_that_of_theory():
    # A mean of n independent clips: about 1.96 standard errors to either side.
    values = pd.Series((np.random.default_rng(0).random(900) < 0.2).astype(float))
    low, high = bootstrap_interval(values, pd.Series(np.arange(900)))
    error = values.std() / np.sqrt(900)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_repeated_runs_of_a_clip_do_not_narrow_the_interval():
    generator = np.random.default_rng(0)
    values = pd.Series((generator.random(50) < 0.3).astype(float))
    groups = pd.Series(np.arange(50))
    once = bootstrap_interval(values, groups)
    five = bootstrap_interval(pd.concat([values] * 5), pd.concat([groups] * 5))
    assert five == pytest.approx(once, abs=0.02)


def test_order_of_rows_does_not_move_the_interval():
    generator = np.random.default_rng(0)
    values = pd.Series(generator.random(40))
    groups = pd.Series(generator.integers(0, 9, 40))
    order = generator.permutation(40)
    assert bootstrap_interval(values, groups) == pytest.approx(
        bootstrap_interval(values.iloc[order], groups.iloc[order])
    )


def test_an_interval_is_never_a_point():
    groups = pd.Series(np.arange(30))
    assert bootstrap_interval(pd.Series(np.zeros(30)), groups) == pytest.approx((0, 0.1))
    assert bootstrap_interval(pd.Series(np.ones(30)), groups) == pytest.approx((0.9, 1))
    one_recording = bootstrap_interval(pd.Series([0.0, 1.0]), pd.Series(["a", "a"]))
    assert np.isnan(one_recording).all()


# --- the ranked table --------------------------------------------------------------------------


def test_summary_ranks_by_top3_error():
    frames = {f"skill{skill}": make_scores(skill)[0] for skill in (0.5, 3.0, 1.5)}
    table = make_scores()[1]
    summary = summarise(frames, table)
    assert list(summary.columns) == [
        "variant",
        "n",
        "seeds",
        "top1_accuracy",
        "top3_error",
        "top3_error_low",
        "top3_error_high",
        "map3",
        "map3_low",
        "map3_high",
        "log_loss",
        "balanced_accuracy",
        "classes",
    ]
    assert summary["variant"].tolist() == ["skill3.0", "skill1.5", "skill0.5"]
    assert summary["top3_error"].is_monotonic_increasing
    assert (summary["top3_error_low"] <= summary["top3_error"]).all()
    assert (summary["top3_error"] <= summary["top3_error_high"]).all()
    assert (summary["n"] == 60).all() and (summary["seeds"] == 1).all()
    for row in summary.itertuples():
        metrics = clip_metrics(frames[row.variant])
        assert row.top3_error == pytest.approx(metrics["top3_error"].mean())
        assert row.top1_accuracy == pytest.approx(metrics["top1_accuracy"].mean())
        assert row.map3 == pytest.approx(metrics["map3"].mean())


def test_equal_top3_errors_rank_by_map3():
    better, table = make_scores(8.0)
    worse = better.copy()
    # The right class second instead of first: as good among three, worse in order.
    right = [CLASSES.index(label) for label in worse["label"]]
    values = np.full((len(worse), 5), 0.01)
    values[np.arange(len(worse)), right] = 0.4
    values[np.arange(len(worse)), [(i + 1) % 5 for i in right]] = 0.5
    worse[CLASSES] = values
    summary = summarise({"worse": worse, "better": better}, table)
    assert summary["top3_error"].nunique() == 1
    assert summary["variant"].tolist() == ["better", "worse"]


def test_seeds_are_averaged_and_counted():
    scores, table = make_scores(seeds=(0, 1, 2))
    (row,) = summarise({"v": scores}, table).itertuples()
    assert (row.n, row.seeds) == (60, 3)
    assert row.map3 == pytest.approx(
        np.mean([clip_metrics(one)["map3"].mean() for _, one in scores.groupby("seed")])
    )


def test_a_clip_scored_twice_is_refused():
    scores, table = make_scores()
    twice = pd.concat([scores, scores.iloc[[5]].assign(fold=2)])
    with pytest.raises(ValueError, match="v: a clip is scored twice by one seed; the folds ov"):
        summarise({"v": twice}, table)
    other_seed = pd.concat([scores, scores.assign(seed=1)])
    assert summarise({"v": other_seed}, table).loc[0, "n"] == 60


# --- pairs of variants -------------------------------------------------------------------------


def test_pairing_is_narrower_than_two_intervals():
    # Both err on the same clips but for a few: what they share cancels.
    a, table = make_scores(0.7, n=300, groups=60)
    b = a.copy()
    flip = np.arange(0, 300, 25)
    b.loc[flip, CLASSES] = 1 - b.loc[flip, CLASSES].to_numpy()
    (row,) = paired_tests({"a": a, "b": b}, table, ["a"], ["top3_error"]).itertuples()
    (single, _) = summarise({"a": a, "b": b}, table).itertuples()
    assert row.high - row.low < single.top3_error_high - single.top3_error_low


# --- few classes, many classes, odd names ------------------------------------------------------


def test_with_three_classes_map3_ranks_and_with_four_top3_error():
    def frame(ranks: list[int], classes: list[str]) -> pd.DataFrame:
        n = len(ranks)
        keys = pd.DataFrame({"clip_id": map(str, range(n)), "seed": 0, "fold": 0, "label": "a"})
        places = [[rank, *(p for p in range(len(classes)) if p != rank)] for rank in ranks]
        return keys.join(pd.DataFrame(-np.array(places, dtype=float), columns=classes))

    table = pd.DataFrame({"group": list("01234567")}, index=list("01234567"))
    # Often first and often last, or always third: by top-3 error the second wins.
    for n, winner in ((3, "bold"), (4, "timid")):
        classes = list("abcd")[:n]
        ranks = {"bold": [0, 0, 0, 0, 0, 0, n - 1, n - 1], "timid": [2] * 8}
        scores = {name: frame(own, classes) for name, own in ranks.items()}
        summary = summarise(scores, table)
        assert summary["variant"].iloc[0] == winner
        assert (summary["classes"] == n).all()
        assert rank_metric(summary) == ("map3" if n == 3 else "top3_error")


def test_log_loss_and_balanced_accuracy_by_hand():
    scores = pd.DataFrame({"clip_id": list("abc"), "seed": 0, "fold": 0, "label": list("xxy")})
    scores = scores.assign(x=[0.5, 0.25, 1.0], y=[0.5, 0.75, 0.0])
    losses = clip_metrics(scores)["log_loss"]
    assert losses.tolist() == pytest.approx([np.log(2), np.log(4), -np.log(1e-12)])
    table = pd.DataFrame({"group": list("abc")}, index=list("abc"))
    row = summarise({"v": scores}, table).iloc[0]
    assert row["log_loss"] == pytest.approx(losses.mean())
    assert row["balanced_accuracy"] == pytest.approx((1 / 2 + 0) / 2)


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
    plt.close(ax.figure)


def test_a_confusion_matrix_shows_shares_and_never_mathematics():
    names = ["$x", "y$", "z"]
    counts = pd.DataFrame([[3, 1, 0], [0, 0, 0], [0, 0, 2]], index=names, columns=names)
    ax = show_confusion(counts, title="a $ b $")
    shown = [text.get_text() for text in ax.texts if text.get_visible()]
    assert sorted(shown) == ["100", "25", "75"]
    ax.figure.canvas.draw()
    assert [label.get_text() for label in ax.get_xticklabels()] == names
    assert not any(label.get_parse_math() for label in (*ax.get_xticklabels(), ax.title))
    plt.close(ax.figure)
