"""Differences are found when they are there, and about as often as promised when they are not."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from freesound_tagging.scoring.metrics import bootstrap_interval, clip_metrics
from freesound_tagging.scoring.statistics import (
    COLUMNS,
    METRICS,
    REFERENCES,
    VERDICT_METRIC,
    VERDICTS,
    common_runs,
    compare,
    holm,
    judge,
    paired_tests,
    standard_errors,
    variance_shares,
)

CLASSES = ["bark", "chirp", "clang", "hiss", "ring"]


def scores_of(ranks: np.ndarray, folds: int = 3) -> pd.DataFrame:
    """Return scores that rank the true class of each clip as asked.

    Parameters
    ----------
    ranks : 0 to 4, shape (clips,) or (clips, seeds).
    """
    ranks = np.asarray(ranks)
    ranks = ranks[:, None] if ranks.ndim == 1 else ranks
    frames = []
    for seed, own in enumerate(ranks.T):
        clip = np.arange(len(own))
        true = clip % len(CLASSES)
        # The class that is s steps after the true one comes (rank + s)-th.
        steps = (np.arange(len(CLASSES))[None, :] - true[:, None]) % len(CLASSES)
        places = (own[:, None] + steps) % len(CLASSES)
        keys = pd.DataFrame(
            {
                "clip_id": [f"clip{i:04d}" for i in clip],
                "seed": seed,
                "fold": clip % folds,
                "label": np.asarray(CLASSES)[true],
            }
        )
        frames.append(keys.join(pd.DataFrame((5 - places) / 15, columns=CLASSES)))
    return pd.concat(frames, ignore_index=True)


def table_of(groups: np.ndarray) -> pd.DataFrame:
    """Return the table of clips that belong to these source recordings."""
    index = pd.Index([f"clip{i:04d}" for i in range(len(groups))], name="clip_id")
    return pd.DataFrame({"group": [f"recording{g}" for g in groups]}, index=index)


def one_row(
    ranks: np.ndarray,
    other: np.ndarray,
    groups: np.ndarray,
    metric: str = "top1_accuracy",
    folds: int = 3,
) -> pd.Series:
    """Return the test of one variant against one reference."""
    scores = {"reference": scores_of(ranks, folds), "variant": scores_of(other, folds)}
    return paired_tests(scores, table_of(groups), ["reference"], [metric]).iloc[0]


def some_scores(seeds: int = 2) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return five variants of 60 clips of 20 recordings, both references among them."""
    generator = np.random.default_rng(0)
    names = (*REFERENCES, "good", "same", "poor")
    return {
        name: scores_of(
            np.minimum(generator.integers(0, 5, (60, seeds)), {"good": 1, "poor": 9}.get(name, 3))
        )
        for name in names
    }, table_of(np.arange(60) // 3)


# --- Holm --------------------------------------------------------------------------------------

p_lists = st.lists(st.floats(0, 1), max_size=12)


@pytest.mark.parametrize(
    ("p_values", "expected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.3, 0.6, 0.7], [0.9, 1, 1]),
        ([0.02, np.nan, 0.04, np.nan], [0.04, np.nan, 0.04, np.nan]),
        ([0.2], [0.2]),
        ([np.nan], [np.nan]),
        ([], []),
    ],
)
def test_holm_by_hand(p_values, expected):
    np.testing.assert_allclose(holm(p_values), expected)


@given(p_lists)
def test_holm_is_between_no_adjustment_and_bonferroni(p_values):
    adjusted, p_values = holm(p_values), np.array(p_values)
    assert (adjusted >= p_values).all() and (adjusted <= 1).all()
    assert (adjusted <= np.minimum(1, len(p_values) * p_values) + 1e-12).all()
    order = np.argsort(p_values, kind="stable")
    assert (np.diff(adjusted[order]) >= 0).all()


@given(p_lists, st.randoms(use_true_random=False))
def test_order_and_gaps_mean_nothing_to_holm(p_values, random):
    order = list(range(len(p_values)))
    random.shuffle(order)
    shuffled = holm(np.array(p_values)[order])
    np.testing.assert_array_equal(shuffled, holm(p_values)[order])
    with_gaps = holm([np.nan, *p_values, np.nan])
    np.testing.assert_array_equal(with_gaps[1:-1], holm(p_values))


@given(p_lists)
def test_holm_rejects_what_the_steps_one_by_one_reject(p_values):
    rejected = set()
    for step, i in enumerate(np.argsort(p_values, kind="stable")):
        if (len(p_values) - step) * p_values[i] >= 0.05:
            break
        rejected.add(i)
    assert set(np.flatnonzero(holm(p_values) < 0.05)) == rejected


@pytest.mark.parametrize(
    ("p_values", "message"),
    [([[0.1]], r"shape \(n,\); got \(1, 1\)"), ([1.1], r"0\.\.1"), ([-0.1], r"0\.\.1")],
)
def test_what_is_no_p_value_is_refused(p_values, message):
    with pytest.raises(ValueError, match=f"p_values must .*{message}"):
        holm(p_values)


# --- paired tests: what they find --------------------------------------------------------------


def test_better_on_all_clips_is_found_and_signs_follow_the_metric():
    poor, good = np.full(60, 3), np.full(60, 0)
    poor[::10], good[::10] = 4, 1
    scores = {"mel_db": scores_of(poor), "log_db": scores_of(poor), "good": scores_of(good)}
    tests = paired_tests(scores, table_of(np.arange(60) // 2))
    for row in tests[tests["variant"] == "good"].itertuples():
        assert (row.difference < 0) == (row.metric in ("top3_error", "log_loss"))
        assert row.verdict == "better"
        assert row.p < 1e-4 and row.p_holm == pytest.approx(min(1, 2 * row.p))
        assert row.folds_better == row.folds == 3
    scores = {"mel_db": scores_of(good), "log_db": scores_of(good), "poor": scores_of(poor)}
    tests = paired_tests(scores, table_of(np.arange(60) // 2))
    for row in tests[tests["variant"] == "poor"].itertuples():
        assert (row.difference > 0) == (row.metric in ("top3_error", "log_loss"))
        assert row.verdict == "worse"
        assert row.folds_better == 0


def test_equal_variants_are_found_different_as_often_as_promised():
    # The reference is second everywhere, MAP@3 = 1/2; the others are by chance first or last. So
    # the 200 differences do not depend on each other, though they share their reference.
    generator = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 3)
    scores = {"reference": scores_of(np.full(120, 1))}
    for i in range(200):
        recordings = generator.choice([0, 4], 40)[groups]
        clips = generator.choice([0, 4], 120)
        scores[f"variant{i}"] = scores_of(np.where(generator.random(120) < 0.6, recordings, clips))
    tests = paired_tests(scores, table_of(groups), ["reference"], ["map3"])
    assert 0.01 <= (tests["p"] < 0.05).mean() <= 0.12
    assert 0.4 <= (tests["p"] < 0.5).mean() <= 0.6
    # Of 200, some are below 0.05; adjusted for being 200, none.
    assert not tests["verdict"].isin(["better", "worse"]).any()
    # As if clips were recordings, far too many are.
    some = dict(list(scores.items())[:101])
    wrong = paired_tests(some, table_of(range(120)), ["reference"], ["map3"])
    assert (wrong["p"] < 0.05).mean() > 0.12


def test_the_smallest_detectable_difference_is_found_with_its_power():
    # Of 100 clips, shares s and w come out better and worse: s - w is 2.80 standard errors.
    generator = np.random.default_rng(0)
    s, w = 0.285, 0.115
    rows = []
    for _ in range(80):
        luck = generator.random(100)
        reference = np.where(luck < s, 1, 0)
        variant = np.where(luck > 1 - w, 1, 0)
        rows.append(one_row(reference, variant, np.arange(100), folds=50))
    assert np.mean([row["detectable"] for row in rows]) == pytest.approx(s - w, rel=0.1)
    assert 0.68 <= np.mean([row["verdict"] == "better" for row in rows]) <= 0.92


def test_interval_p_and_detectable_are_those_of_students_t():
    generator = np.random.default_rng(1)
    ranks, other = (generator.random((2, 400)) < [[0.30], [0.25]]).astype(int)
    row = one_row(ranks, other, np.arange(400))
    error = (ranks - other).std(ddof=1) / np.sqrt(400)
    assert row["difference"] == pytest.approx((ranks - other).mean())
    assert row["recordings_error"] == pytest.approx(error, rel=0.05)
    parts = row[["recordings_error", "folds_error", "seeds_error"]].astype(float)
    assert row["standard_error"] == pytest.approx(np.sqrt((parts**2).sum()))
    t = stats.t(row["df"])
    reach = t.ppf(0.975) * row["standard_error"]
    assert (row["low"], row["high"]) == pytest.approx(
        (row["difference"] - reach, row["difference"] + reach)
    )
    reach = t.ppf(0.95) * row["standard_error"]
    assert (row["low_90"], row["high_90"]) == pytest.approx(
        (row["difference"] - reach, row["difference"] + reach)
    )
    assert row["p"] == pytest.approx(2 * t.sf(abs(row["difference"]) / row["standard_error"]))
    needed = (t.ppf(0.975) + t.ppf(0.8)) * row["standard_error"]
    assert row["detectable"] == pytest.approx(needed)


def test_what_recordings_do_is_what_the_bootstrap_of_the_metrics_says():
    scores, table = some_scores()
    tests = paired_tests(scores, table).set_index(["metric", "reference", "variant"])
    for metric in METRICS:
        for reference in REFERENCES:
            measured = {
                name: clip_metrics(frame).set_index(["clip_id", "seed"])[metric]
                for name, frame in scores.items()
            }
            for variant in scores.keys() - {reference}:
                difference = measured[variant] - measured[reference]
                clip_ids = difference.index.get_level_values("clip_id")
                groups = pd.Series(clip_ids.map(table["group"]), difference.index)
                low, high = bootstrap_interval(difference, groups, limits=(-1.0, 1.0))
                own = tests.loc[(metric, reference, variant)]
                assert own["difference"] == pytest.approx(difference.mean())
                assert 2 * 1.96 * own["recordings_error"] == pytest.approx(high - low, rel=0.15)


# --- what luck of training does ----------------------------------------------------------------


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 9999), st.integers(2, 6), st.integers(1, 4))
def test_of_two_representations_the_parts_are_plain_variances(random_state, n_folds, n_seeds):
    generator = np.random.default_rng(random_state)
    folds = np.repeat(np.arange(n_folds), 8)
    cells = generator.normal(0, 0.2, (n_folds, n_seeds, 2))
    seeds = generator.normal(0, 0.3, (1, n_seeds, 2))
    values = (cells + seeds)[folds] + generator.normal(0, 0.3, (len(folds), n_seeds, 2))
    (row,) = standard_errors(values, folds, np.arange(len(folds)), [(1, 0)]).itertuples()
    apart = values[..., 1] - values[..., 0]
    table = np.stack([apart[folds == fold].mean(axis=0) for fold in range(n_folds)])
    assert row.difference == pytest.approx(apart.mean())
    by_fold = table.mean(axis=1).var(ddof=1) / n_folds
    whole = row.recordings_error**2 + row.folds_error**2
    assert whole == pytest.approx(max(by_fold, row.recordings_error**2))
    if n_seeds == 1:
        assert row.seeds_error == 0
        return
    rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    residual = (rest**2).sum() / ((n_folds - 1) * (n_seeds - 1)) / (n_folds * n_seeds)
    by_seed = table.mean(axis=0).var(ddof=1) / n_seeds
    assert row.seeds_error**2 == pytest.approx(max(0, by_seed - residual))


def test_with_luck_of_training_the_interval_covers_and_without_it_does_not():
    generator = np.random.default_rng(0)
    folds, pairs = np.repeat(np.arange(5), 20), [(v, 0) for v in range(1, 6)]
    covered = {"whole": [], "recordings alone": []}
    alarms = []
    for _ in range(150):
        values = generator.normal(0, 0.3, (100, 1, 6)) + generator.normal(0, 0.2, (100, 3, 6))
        values = values + generator.normal(0, 0.04, (1, 3, 6))
        values = values + generator.normal(0, 0.06, (5, 1, 6))[folds]
        frame = standard_errors(values, folds, np.arange(100), pairs).assign(metric="map3")
        frame = judge(frame, 100, ["metric"])
        covered["whole"] += list((frame["low"] <= 0) & (frame["high"] >= 0))
        reach = 1.96 * frame["recordings_error"]
        covered["recordings alone"] += list(frame["difference"].abs() <= reach)
        alarms.append(frame["verdict"].isin(["better", "worse"]).any())
    assert 0.92 <= np.mean(covered["whole"]) <= 0.985
    assert np.mean(covered["recordings alone"]) < 0.9
    assert np.mean(alarms) <= 0.09


@pytest.mark.parametrize(
    ("by_seed", "verdict"), [((1, 0, 0), "inconclusive"), ((1, 1, 1), "better")]
)
def test_a_difference_that_one_seed_carries_is_not_taken_for_one(by_seed, verdict):
    # With such a seed the reference ranks most clips second; the variant ranks all first.
    often = (np.arange(120) % 7 > 0)[:, None]
    reference = often * np.array(by_seed)[None, :]
    row = one_row(reference, np.zeros((120, 3), int), np.arange(120), "map3")
    assert row["verdict"] == verdict
    assert (row["seeds_error"] > 3 * row["recordings_error"]) == (verdict == "inconclusive")


def test_six_speakers_have_five_degrees_of_freedom():
    # What was drawn are the folds themselves: then nothing is counted twice.
    speakers = np.repeat(np.arange(6), 30)
    generator = np.random.default_rng(0)
    values = generator.normal(0, 0.3, (180, 3, 4)) + generator.normal(0, 0.1, (6, 1, 4))[speakers]
    errors = standard_errors(values, speakers, speakers, [(1, 0), (2, 0), (3, 0)])
    by_speaker = values.mean(axis=1).reshape(6, 30, 4).mean(axis=1)
    for row in errors.itertuples():
        own = by_speaker[:, row.Index + 1] - by_speaker[:, 0]
        assert row.recordings_error == pytest.approx(own.std(ddof=1) / np.sqrt(6), rel=0.05)
        # Six speakers alone have five; at most, the luck of seeds is known exactly.
        most = 5 * (row.standard_error / row.recordings_error) ** 4
        assert 4.3 < row.df < most + 0.7
    total = (errors["recordings_error"] ** 2).mean()
    assert (errors["folds_error"] ** 2 < 0.1 * total).all()


# --- verdicts ----------------------------------------------------------------------------------


def test_each_verdict_has_its_case():
    frame = pd.DataFrame(
        {
            "metric": "map3",
            "difference": [0.05, -0.05, 0.004, 0.004, 0.03],
            "standard_error": [0.01, 0.01, 0.008, 0.03, 0.014],
            "df": 100.0,
        }
    )
    judged = judge(frame, 100, ["metric"])
    words = ["better", "worse", "equivalent", "inconclusive", "inconclusive"]
    assert judged["verdict"].tolist() == words
    assert judged["p"].iloc[4] < 0.05 < judged["p_holm"].iloc[4]  # one of five
    alone = judge(frame.iloc[4:], 100, ["metric"])
    assert alone["verdict"].tolist() == ["better"]


@given(
    st.floats(-0.2, 0.2),
    st.floats(0.001, 0.1),
    st.floats(2, 200),
    st.sampled_from(["map3", "top3_error"]),
)
def test_a_verdict_follows_from_what_stands_beside_it(difference, error, df, metric):
    frame = pd.DataFrame(
        {"metric": [metric], "difference": difference, "standard_error": error, "df": df}
    )
    (row,) = judge(frame, 50, ["metric"]).itertuples()
    assert row.verdict in VERDICTS
    assert row.low <= row.low_90 <= difference <= row.high_90 <= row.high
    significant = row.low > 0 or row.high < 0
    assert (row.verdict in ("better", "worse")) == significant == (row.p_holm < 0.05)
    if significant:
        assert (row.verdict == "better") == ((difference > 0) == (metric == "map3"))
    elif row.verdict == "equivalent":
        assert row.low_90 >= -0.02 and row.high_90 <= 0.02


# --- paired tests: whole recordings are drawn --------------------------------------------------


def test_more_clips_of_the_same_recordings_narrow_nothing_but_more_recordings_do():
    generator = np.random.default_rng(0)
    ranks, other = generator.integers(0, 2, (2, 60))
    groups = np.sort(generator.integers(0, 30, 60))  # of unequal sizes
    once = one_row(ranks, other, groups)
    within = one_row(np.repeat(ranks, 4), np.repeat(other, 4), np.repeat(groups, 4))
    assert within["recordings_error"] == pytest.approx(once["recordings_error"])
    new_groups = np.concatenate([groups + 100 * i for i in range(4)])
    beside = one_row(np.tile(ranks, 4), np.tile(other, 4), new_groups)
    # Four times as many recordings, half the error.
    assert beside["recordings_error"] == pytest.approx(once["recordings_error"] / 2, rel=0.05)


def test_recordings_of_unequal_size_do_not_pass_for_a_difference():
    # One recording holds half of the clips: a resample has 40 clips more or fewer, and its mean is
    # over the clips that it has. Nearly all clips differ alike, so the mean hardly moves.
    groups = np.concatenate([np.zeros(40, int), np.arange(1, 41)])
    ranks, other = np.ones(80, int), np.zeros(80, int)
    other[::8] = 1
    assert one_row(ranks, other, groups)["recordings_error"] < 0.06


def test_more_runs_of_a_clip_are_not_more_recordings():
    generator = np.random.default_rng(0)
    ranks, other = generator.integers(0, 5, (2, 60))
    columns = ["difference", "low", "high", "p", "standard_error", "df"]
    once = one_row(ranks, other, np.arange(60))
    thrice = one_row(*(np.repeat(r[:, None], 3, axis=1) for r in (ranks, other)), np.arange(60))
    assert thrice[columns].tolist() == pytest.approx(once[columns].tolist())


def test_order_of_rows_and_names_of_other_variants_mean_nothing():
    scores, table = some_scores()
    expected = paired_tests(scores, table)
    shuffled = {v: scores[v].sample(frac=1, random_state=i) for i, v in enumerate(sorted(scores))}
    tests = paired_tests(shuffled, table.sample(frac=1, random_state=9))
    pd.testing.assert_frame_equal(tests, expected)
    pd.testing.assert_frame_equal(paired_tests(scores, table), expected)  # draws are the same
    # Others tell how much training moves a result, and nothing else.
    fewer = paired_tests({v: scores[v] for v in (*REFERENCES, "good")}, table)
    columns = ["metric", "reference", "variant", "difference", "recordings_error"]
    kept = expected[expected["variant"].isin(fewer["variant"])]
    pd.testing.assert_frame_equal(fewer[columns], kept[columns].reset_index(drop=True))


# --- paired tests: the table -------------------------------------------------------------------


def test_columns_order_and_families():
    assert VERDICT_METRIC in METRICS
    scores, table = some_scores()
    tests = paired_tests(scores, table)
    assert list(tests.columns) == COLUMNS
    assert set(tests["verdict"]) <= set(VERDICTS)
    families = tests.groupby(["metric", "reference"], sort=False)
    assert [key for key, _ in families] == [(m, r) for m in METRICS for r in REFERENCES]
    for (metric, reference), family in families:
        assert set(family["variant"]) == set(scores) - {reference}
        lower = metric in ("top3_error", "log_loss")
        best_first = family["difference"] if lower else -family["difference"]
        assert best_first.is_monotonic_increasing
        np.testing.assert_allclose(family["p_holm"], holm(family["p"]))
        factor = stats.t.ppf(1 - 0.05 / 8, family["df"]) + stats.t.ppf(0.8, family["df"])
        np.testing.assert_allclose(family["detectable"], factor * family["standard_error"])
        assert (family["seeds"] == 2).all()


def test_pairs_are_compared_in_the_order_asked_and_are_one_family_a_metric():
    scores, table = some_scores()
    pairs = [("good", "poor"), ("same", "mel_db"), ("poor", "good")]
    tests = compare(scores, table, pairs, ["map3", "log_loss"])
    assert list(zip(tests["variant"], tests["reference"], strict=True)) == 2 * pairs
    for _, family in tests.groupby("metric"):
        np.testing.assert_allclose(family["p_holm"], holm(family["p"]))
    forth, _, back = tests[tests["metric"] == "map3"].itertuples()
    assert forth.difference == pytest.approx(-back.difference)
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low))
    assert forth.standard_error == pytest.approx(back.standard_error)


def test_runs_in_common_are_the_seeds_that_all_have_on_every_fold():
    scores, _ = some_scores(seeds=3)
    assert all(common_runs(scores)[name].equals(frame) for name, frame in scores.items())
    partial = dict(scores)
    good = partial["good"]
    partial["good"] = good[(good["seed"] != 2) & ~((good["seed"] == 1) & (good["fold"] == 2))]
    partial["same"] = partial["same"][partial["same"]["fold"] < 3]
    for frame in common_runs(partial).values():
        assert set(frame["seed"]) == {0}
        assert set(frame["fold"]) == {0, 1, 2}
    assert common_runs({}) == {}


def test_folds_by_hand():
    # Six clips in folds 0, 1, 2, 0, 1, 2; two seeds.
    reference = np.array([[1, 1], [1, 1], [0, 0], [1, 1], [1, 1], [0, 0]])
    variant = np.array([[0, 0], [1, 1], [0, 1], [0, 1], [1, 1], [0, 0]])
    row = one_row(reference, variant, np.arange(6))
    assert row["difference"] == pytest.approx(1 / 6)  # 2/6 with one seed, 0 with the other
    # Fold 0 is better, fold 1 equal, fold 2 worse.
    assert (row["folds_better"], row["folds"], row["seeds"]) == (1, 3, 2)


def test_in_top3_error_a_fold_with_fewer_errors_is_better():
    reference, variant = np.full(6, 3), np.array([0, 3, 4, 0, 3, 4])
    row = one_row(reference, variant, np.arange(6), "top3_error")
    assert row["difference"] == pytest.approx(-1 / 3)
    assert row["folds_better"] == 1


def test_equal_differences_go_by_name():
    ranks, other = np.arange(30) % 5, np.arange(30) % 3
    scores = {name: scores_of(other) for name in ("c", "a", "b")} | {"r": scores_of(ranks)}
    tests = paired_tests(scores, table_of(np.arange(30)), ["r"])
    assert tests["variant"].tolist() == ["a", "b", "c"] * len(METRICS)


def test_no_difference_at_all():
    ranks = np.arange(30) % 5
    row = one_row(ranks, ranks, np.arange(30))
    assert row["difference"] == 0 and row["p"] == row["p_holm"] == 1
    assert (row["low"], row["high"]) == pytest.approx((-0.1, 0.1), abs=1e-3)
    assert row["standard_error"] == 0 and np.isnan(row["detectable"])
    assert row["verdict"] == "inconclusive" and row["folds_better"] == 0
    few = one_row(ranks[:2], ranks[:2], np.arange(2))
    assert (few["low"], few["high"]) == (-1, 1)
    many = np.arange(300) % 5
    assert one_row(many, many, np.arange(300))["verdict"] == "equivalent"


def test_the_same_difference_everywhere_is_not_a_point():
    row = one_row(np.full(30, 1), np.full(30, 0), np.arange(30))
    assert (row["difference"], row["low"], row["high"]) == pytest.approx((1, 0.9, 1), abs=1e-3)
    assert row["p"] == pytest.approx(2**-29) and row["standard_error"] == 0
    assert row["verdict"] == "better"


def test_differences_that_cancel_are_no_difference():
    # Halves and thirds: 1/2 - 1/3, 1/3 - 1/2 and the like add up to 0 but for the last digits.
    ranks, other = np.array([0, 1, 2] * 20), np.array([1, 2, 0] * 20)
    row = one_row(ranks, other, np.arange(60) // 3, "map3")
    assert row["difference"] == pytest.approx(0, abs=1e-12)
    assert row["p"] == 1 and row["recordings_error"] == 0 and row["folds_better"] >= 1
    row = one_row(ranks, other, np.arange(60), "map3")
    assert row["p"] == 1 and row["standard_error"] > 0


def test_one_recording_says_nothing():
    row = one_row(np.arange(6) % 5, np.arange(6) % 3, np.zeros(6, int))
    assert row[["low", "high", "p", "p_holm", "standard_error", "detectable"]].isna().all()
    assert row["verdict"] == "inconclusive"


def test_a_reference_alone_has_no_comparisons():
    tests = paired_tests({"r": scores_of(np.zeros(6, int))}, table_of(np.arange(6)), ["r"])
    assert tests.empty and list(tests.columns) == COLUMNS


# --- paired tests: what is refused -------------------------------------------------------------


def test_scores_that_do_not_pair_are_refused():
    scores, table = some_scores()
    good, same = scores["good"], "were not scored on the same clips, seeds and folds"

    def run(frame: pd.DataFrame, table: pd.DataFrame = table) -> pd.DataFrame:
        return paired_tests({**scores, "good": frame}, table)

    with pytest.raises(ValueError, match=f"good and mel_db {same}: clip 'clip0003', seed 0"):
        run(good.drop(index=3))
    with pytest.raises(ValueError, match=f"good and mel_db {same}"):
        run(good.assign(seed=good["seed"] + 1))
    with pytest.raises(ValueError, match=f"good and mel_db {same}"):
        run(good.assign(fold=0))
    with pytest.raises(ValueError, match="good: a clip is scored twice by one seed"):
        run(pd.concat([good, good.iloc[[3]]]))
    with pytest.raises(ValueError, match=r"by every seed; clip 'clip0003' lacks seed 0$"):
        paired_tests({v: frame.drop(index=3) for v, frame in scores.items()}, table)
    with pytest.raises(ValueError, match="scores hold no clips"):
        paired_tests({v: frame.iloc[:0] for v, frame in scores.items()}, table)
    with pytest.raises(ValueError, match="table has no group for clip 'clip0007'"):
        run(good, table.drop(index="clip0007"))
    with pytest.raises(ValueError, match="table has clip 'clip0000' twice"):
        run(good, pd.concat([table, table.iloc[:1]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"references": ["chroma"]}, "no scores of 'chroma'; there are: mel_db, log_db, good"),
        ({"metrics": ["f1"]}, "metrics must be of: top3_error, top1_accuracy, map3, .* got 'f1'"),
    ],
)
def test_unknown_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        paired_tests(*some_scores(), **options)


# --- shares of variance ------------------------------------------------------------------------


def results_of(values: np.ndarray) -> pd.DataFrame:
    """Return one row a run from values of shape (variants, folds, seeds)."""
    index = pd.MultiIndex.from_product(map(range, values.shape), names=["variant", "fold", "seed"])
    results = pd.DataFrame({"map3": values.ravel()}, index=index).reset_index()
    return results.assign(variant="v" + results["variant"].astype(str).str.zfill(3))


def simulated(
    variants: int, folds: int, seeds: int, deviations: tuple[float, float, float, float]
) -> pd.DataFrame:
    """Return results with known deviations of representation, fold, their product and seed."""
    generator = np.random.default_rng(0)
    shapes = [(variants, 1, 1), (1, folds, 1), (variants, folds, 1), (variants, folds, seeds)]
    parts = [d * generator.standard_normal(s) for d, s in zip(deviations, shapes, strict=True)]
    return results_of(0.8 + sum(parts))


def test_variances_by_hand():
    cells = np.array([[[1, 3], [5, 7]], [[5, 7], [13, 15]]])
    shares = variance_shares(results_of(cells), "map3")
    assert list(shares.columns) == ["source", "variance", "share", "deviation"]
    assert shares["source"].tolist() == ["representation", "fold", "representation x fold", "seed"]
    assert shares["variance"].tolist() == pytest.approx([16, 16, 3, 2])
    assert shares["share"].tolist() == pytest.approx([16 / 37, 16 / 37, 3 / 37, 2 / 37])
    assert shares["deviation"].tolist() == pytest.approx([4, 4, 3**0.5, 2**0.5])


def test_known_components_are_recovered():
    expected = (0.03, 0.05, 0.01, 0.02)
    shares = variance_shares(simulated(200, 150, 2, expected), "map3")
    assert shares["deviation"].tolist() == pytest.approx(expected, rel=0.15)
    assert shares["share"].sum() == pytest.approx(1)


@pytest.mark.parametrize("source", range(4))
def test_a_single_source_has_nearly_all(source):
    deviations = tuple(float(i == source) for i in range(4))
    shares = variance_shares(simulated(15, 10, 4, deviations), "map3")
    assert shares["share"].iloc[source] > 0.9
    assert (shares["variance"] >= 0).all() and shares["share"].sum() == pytest.approx(1)


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 999), st.floats(0.1, 100), st.floats(-10, 10))
def test_shares_know_neither_unit_nor_zero_nor_order(random_state, unit, zero):
    values = np.random.default_rng(random_state).standard_normal((3, 4, 2))
    expected = variance_shares(results_of(values), "map3")
    results = results_of(unit * values + zero).sample(frac=1, random_state=random_state)
    shares = variance_shares(results, "map3")
    assert shares["share"].tolist() == pytest.approx(expected["share"].tolist(), abs=1e-9)
    assert shares["deviation"].tolist() == pytest.approx(
        (unit * expected["deviation"]).tolist(), abs=1e-6 * unit
    )


def test_equal_runs_have_no_variance_to_share():
    shares = variance_shares(results_of(np.full((3, 3, 3), 0.1)), "map3")
    assert (shares["variance"] == 0).all() and shares["share"].isna().all()


def test_designs_that_are_not_balanced_are_refused():
    results = results_of(np.random.default_rng(0).random((3, 2, 2)))
    lacking = results[(results["variant"] != "v001") | (results[["fold", "seed"]].sum(axis=1) < 2)]
    with pytest.raises(ValueError, match="balanced: variant 'v001', fold 1 lacks seed 1"):
        variance_shares(lacking, "map3")
    with pytest.raises(ValueError, match="variant 'v000', fold 0 has more than once seed 1"):
        variance_shares(pd.concat([results, results.iloc[[1]]]), "map3")
    for factor in ("variant", "fold", "seed"):
        with pytest.raises(ValueError, match=f"two or more of each {factor}; got {factor} (v00)?0"):
            variance_shares(results[results[factor] == results.loc[0, factor]], "map3")
    with pytest.raises(ValueError, match="two or more of each variant; got variant none only"):
        variance_shares(results.iloc[:0], "map3")
    with pytest.raises(ValueError, match="no column 'top9'; it has: variant, fold, seed, map3"):
        variance_shares(results, "top9")
    with pytest.raises(ValueError, match="'map3' holds NaN or infinity"):
        variance_shares(results.assign(map3=[np.nan, *results["map3"][1:]]), "map3")
