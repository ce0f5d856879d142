"""What the studies found follows from their scores, and from nothing else."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freesound_tagging.features.variants import CONTROL_VARIANTS, VARIANTS
from freesound_tagging.reporting.findings import (
    CLAIMS,
    average_seeds,
    compare_pair,
    compare_tuned,
    curve,
    judge_claims,
    tagger_steps,
)
from freesound_tagging.runs.questions import STUDIES
from freesound_tagging.runs.studies import COMPARED, TAGGER_STEPS
from freesound_tagging.scoring.metrics import KEYS, clip_metrics
from freesound_tagging.scoring.statistics import VERDICT_METRIC
from freesound_tagging.sounds.microcalls import CALLS, class_table

LABELS = sorted(CALLS)
PICTURES = sorted({picture for _, *both in CLAIMS for picture in both})


@pytest.fixture(scope="module")
def clips() -> pd.DataFrame:
    """Five clips of every class of microcalls, each a recording and one in each fold."""
    rows = [(f"{label}-{fold}", label, fold) for label in LABELS for fold in range(5)]
    table = pd.DataFrame(rows, columns=["clip_id", "label", "fold"]).set_index("clip_id")
    return table.assign(group=table.index)


def scores_of(table: pd.DataFrame, ranks, seeds=(0,)) -> pd.DataFrame:
    """Return scores in which each clip's true class has the rank given, 0 for the highest.

    ``ranks`` is one for all, one for each clip, or one for each seed and clip.
    """
    ranks = np.broadcast_to(ranks, (len(seeds), len(table)))
    frames = []
    for seed, own in zip(seeds, ranks, strict=True):
        keys = pd.DataFrame(
            {"clip_id": table.index, "seed": seed, "fold": table["fold"].to_numpy()}
        )
        keys["label"] = table["label"].to_numpy()
        values = []
        for label, rank in zip(table["label"], own, strict=True):
            order = [other for other in LABELS if other != label]
            order.insert(rank, label)
            values.append([len(LABELS) - order.index(name) for name in LABELS])
        values = np.array(values) / np.sum(values[0])
        frames.append(keys.join(pd.DataFrame(values, columns=LABELS)))
    return pd.concat(frames, ignore_index=True)


def random_ranks(table: pd.DataFrame, seed: int, n_seeds: int = 1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return np.minimum(generator.geometric(0.5, (n_seeds, len(table))) - 1, len(LABELS) - 1)


# --- claims ------------------------------------------------------------------------------------


def test_every_claim_is_about_two_pictures_that_the_controls_make(plan_study):
    made = {}
    for dataset in STUDIES["controls"].datasets:
        _, cells = plan_study("controls", dataset)
        made[dataset] = {cell.name: {run.variant for run in cell.runs} for cell in cells}
    for claim, *both in CLAIMS:
        pictures = [picture.split("/") for picture in both]
        assert pictures[0] != pictures[1]
        assert all(variant in VARIANTS | CONTROL_VARIANTS for _, variant in pictures)
        asked = [all(cell in cells for cell, _ in pictures) for cells in made.values()]
        assert any(asked), claim
        for cells in made.values():
            for cell, variant in pictures:
                assert variant in cells.get(cell, {variant}), (claim, cell)
    for cells in made.values():  # no claim is judged twice on one data set
        judged = [claim for claim, *both in CLAIMS if all(p.split("/")[0] in cells for p in both)]
        assert len(set(judged)) == len(judged) > 10


def test_every_control_is_there_for_a_claim():
    assert set(CONTROL_VARIANTS) <= {picture.split("/")[1] for picture in PICTURES}


@settings(deadline=None, max_examples=8)
@given(
    qualities=st.lists(st.integers(0, 2), min_size=len(PICTURES), max_size=len(PICTURES)),
    missing=st.sets(st.sampled_from(sorted({picture.split("/")[0] for picture in PICTURES}))),
)
def test_much_better_holds_much_worse_is_the_opposite_and_the_same_is_not_told_apart(
    clips, qualities, missing
):
    # All clips right, every other one, or none.
    half = np.arange(len(clips)) % 2 * 7
    levels = [scores_of(clips, ranks) for ranks in (7, half, 0)]
    quality = dict(zip(PICTURES, qualities, strict=True))
    scores = {}
    for picture, level in quality.items():
        cell, variant = picture.split("/")
        if cell not in missing:
            scores.setdefault(cell, {})[variant] = levels[level]
    judged = judge_claims(scores, clips)
    columns = ["claim", "picture", "than", "seeds", "difference", "low", "high", "p", "p_holm"]
    assert list(judged.columns) == [*columns, "outcome", "fragile"]
    expected = [
        (claim, picture, than)
        for claim, picture, than in CLAIMS
        if not {picture.split("/")[0], than.split("/")[0]} & missing
    ]
    assert list(judged[["claim", "picture", "than"]].itertuples(index=False)) == expected
    for row in judged.itertuples():
        apart = quality[row.picture] - quality[row.than]
        assert row.difference == pytest.approx(apart / 2)
        assert row.low <= row.difference <= row.high
        assert row.p <= row.p_holm <= 1
        words = {0: "not told apart", 1: "holds", -1: "the opposite"}
        assert row.outcome == words[int(np.sign(apart))]


def test_a_difference_that_chance_makes_is_not_told_apart(clips):
    # One clip in eighty: significant on no scale, whichever way it points.
    ranks = np.zeros(len(clips), dtype=int)
    ranks[3] = 7
    right, nearly = scores_of(clips, 0), scores_of(clips, ranks)
    for first, second in ((right, nearly), (nearly, right)):
        scores = {"grid": dict.fromkeys(VARIANTS, second) | {"hires_q8": first}}
        judged = judge_claims(scores, clips).set_index("claim")
        assert set(judged["outcome"]) == {"not told apart"}
        differences = judged.loc[judged["picture"] == "grid/hires_q8", "difference"]
        assert len(differences) > 0
        np.testing.assert_allclose(differences.abs(), 1 / len(clips))


def test_a_claim_in_the_company_of_others_needs_more_to_hold(clips):
    ranks = np.zeros(len(clips), dtype=int)
    ranks[:6] = 7
    better, worse = scores_of(clips, 0), scores_of(clips, ranks)
    scores = {}
    for picture in PICTURES:
        cell, variant = picture.split("/")
        scores.setdefault(cell, {})[variant] = better if variant == "hires_q8_mel" else worse
    judged = judge_claims(scores, clips)
    alone = compare_pair(better, worse, clips)
    assert alone["p"] < 0.05  # on its own it would hold
    (row,) = judged[judged["picture"] == "matched/hires_q8_mel"].itertuples()
    assert row.p == alone["p"]
    assert row.p_holm == pytest.approx(min(1, row.p * len(judged)))
    assert (judged.drop(row.Index)["p_holm"] == 1).all()


def test_nothing_scored_nothing_claimed(clips):
    assert len(judge_claims({}, clips)) == 0


def test_seeds_count_as_one_clip(clips):
    # The same run three times over is no more evidence than once.
    first, second = random_ranks(clips, 0), random_ranks(clips, 1)
    once = compare_pair(scores_of(clips, first), scores_of(clips, second), clips)
    seeds = (0, 1, 2)
    thrice = compare_pair(
        scores_of(clips, np.tile(first, (3, 1)), seeds),
        scores_of(clips, np.tile(second, (3, 1)), seeds),
        clips,
    )
    for name in ("difference", "low", "high", "p"):
        assert thrice[name] == pytest.approx(once[name])


def test_only_seeds_that_both_were_trained_with_are_compared(clips):
    ranks = np.stack([random_ranks(clips, seed)[0] for seed in range(3)])
    three, one = scores_of(clips, ranks, (0, 1, 2)), scores_of(clips, random_ranks(clips, 7), (1,))
    own = three[three["seed"] == 1]
    for first, second, alike in ((three, one, (own, one)), (one, three, (one, own))):
        pd.testing.assert_series_equal(
            compare_pair(first, second, clips), compare_pair(*alike, clips)
        )


def test_what_one_seed_found_is_fragile_and_what_three_found_alike_is_not(clips):
    half = np.arange(len(clips)) % 2 * 7
    better, worse = (scores_of(clips, ranks, (0, 1, 2)) for ranks in (0, half))
    for seeds, fragile in (([0], True), ([0, 1, 2], False)):
        few, fewer = (frame[frame["seed"].isin(seeds)] for frame in (better, worse))
        judged = judge_claims({"grid": dict.fromkeys(VARIANTS, fewer) | {"hires_q8": few}}, clips)
        assert (judged["seeds"] == len(seeds)).all()
        found = judged["outcome"] != "not told apart"
        assert found.any() and not found.all()
        assert judged["fragile"].equals(found & fragile)


# --- curves ------------------------------------------------------------------------------------


def test_perfect_scores_are_1_and_those_that_know_nothing_are_chance(clips):
    nothing = scores_of(clips, 0)
    nothing[LABELS] = 1 / len(LABELS)
    perfect = scores_of(clips, 0)
    found = curve({"1": {"log_db": nothing, "hires_q8": perfect}}, clips)
    found = found.set_index(["detail", "variant"])
    for detail in ("all", "frequency", "time"):
        row = found.loc[detail, "hires_q8"]
        assert row["top1_accuracy"] == row["map3"] == row["high"] == 1
        assert row["low"] < 1
    chance = found.loc["all", "log_db"]
    assert chance["top1_accuracy"] == pytest.approx(1 / len(LABELS))
    assert chance["low"] < 1 / len(LABELS) < chance["high"]
    gain = found.loc["all", "hires_q8"]
    assert gain["difference"] == pytest.approx(1 - 1 / len(LABELS))
    assert 0 < gain["difference_low"] <= gain["difference"] <= gain["difference_high"] <= 1


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 10_000), seeds=st.sampled_from([(0,), (0, 1)]))
def test_a_curve_is_cell_by_detail_by_variant(clips, seed, seeds):
    details = class_table()["detail"]
    cells = {
        cell: {
            name: scores_of(clips, random_ranks(clips, seed + 10 * i + j, len(seeds)), seeds)
            for j, name in enumerate(("log_db", "hires_q8"))
        }
        for i, cell in enumerate(("0.5", "2"))
    }
    found = curve(cells, clips)
    assert list(found[["cell", "detail", "variant"]].itertuples(index=False, name=None)) == [
        (cell, detail, name)
        for cell in cells
        for detail in ("all", "frequency", "time")
        for name in ("log_db", "hires_q8")
    ]
    rows = found.set_index(["cell", "detail", "variant"])
    for (cell, detail, name), row in rows.iterrows():
        frame = cells[cell][name]
        own = frame if detail == "all" else frame[frame["label"].map(details) == detail]
        metrics = clip_metrics(own)
        assert row["n"] == own["clip_id"].nunique()
        assert row["top1_accuracy"] == pytest.approx(metrics["top1_accuracy"].mean())
        assert row["map3"] == pytest.approx(metrics["map3"].mean())
        assert row["low"] <= row["top1_accuracy"] <= row["high"]
        reference = rows.loc[(cell, detail, "log_db")]
        expected = row["top1_accuracy"] - reference["top1_accuracy"]
        assert row["difference"] == pytest.approx(expected)
        if name == "log_db":
            assert row["difference"] == 0
            assert row["difference_low"] <= 0 <= row["difference_high"]
    wide = rows.unstack("detail")
    counts = wide["n"]
    assert (counts["frequency"] + counts["time"] == counts["all"]).all()
    weighted = wide["top1_accuracy"] * counts
    np.testing.assert_allclose(weighted["frequency"] + weighted["time"], weighted["all"])


def test_the_order_of_scores_moves_no_curve(clips):
    variants = {name: scores_of(clips, random_ranks(clips, i)) for i, name in enumerate(COMPARED)}
    shuffled = {
        name: frame.sample(frac=1, random_state=i)
        for i, (name, frame) in enumerate(variants.items())
    }
    pd.testing.assert_frame_equal(curve({"1": shuffled}, clips), curve({"1": variants}, clips))


# --- tuning ------------------------------------------------------------------------------------


def test_tuning_that_changes_nothing_gains_nothing(clips):
    variants = {name: scores_of(clips, random_ranks(clips, i)) for i, name in enumerate(COMPARED)}
    found = compare_tuned({"grid": variants, "tuned": variants}, clips)
    assert found["variant"].tolist() == list(COMPARED)
    assert (found["gain"] == 0).all()
    assert (found["gain_p_holm"] == 1).all()
    assert ((found["gain_low"] <= 0) & (found["gain_high"] >= 0)).all()
    assert (found["map3_default"] == found["map3_tuned"]).all()


def test_a_gain_is_tuned_minus_default_and_the_ranking_is_that_of_the_tuned(clips):
    default = {name: scores_of(clips, 2) for name in COMPARED}  # MAP@3 of 1/3
    tuned = {**default, "hires_q8": scores_of(clips, 0), "log_db": scores_of(clips, 1)}
    found = compare_tuned({"grid": default, "tuned": tuned}, clips).set_index("variant")
    assert found.columns.tolist() == [
        *("map3_default", "map3_tuned", "gain", "gain_low", "gain_high", "gain_p_holm"),
        *("difference", "low", "high", "p_holm"),
    ]
    assert found.loc["hires_q8", "gain"] == pytest.approx(1 - 1 / 3)
    assert found.loc["log_db", "gain"] == pytest.approx(1 / 2 - 1 / 3)
    assert found.loc["mel_db", "gain"] == 0
    np.testing.assert_allclose(found["map3_tuned"] - found["map3_default"], found["gain"])
    assert (found.loc[["hires_q8", "log_db"], "gain_p_holm"] < 0.05).all()
    assert found.loc["hires_q8", "difference"] == pytest.approx(1 / 2)
    assert found.loc["mel_db", "difference"] == pytest.approx(1 / 3 - 1 / 2)
    assert found.loc[["log_db"], ["difference", "low", "high", "p_holm"]].isna().all(axis=None)


# --- the tagger --------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(data=st.data(), n_seeds=st.integers(1, 4))
def test_averaging_seeds_is_the_mean_of_probabilities_a_clip(clips, data, n_seeds):
    seed = data.draw(st.integers(0, 10_000))
    seeds = tuple(range(3, 3 + n_seeds))
    scores = scores_of(clips, random_ranks(clips, seed, n_seeds), seeds)
    averaged = average_seeds(scores.sample(frac=1, random_state=seed))
    assert list(averaged.columns) == [*KEYS, *LABELS]
    assert averaged["clip_id"].tolist() == sorted(clips.index)
    assert (averaged["seed"] == 0).all()
    by_clip = clips.loc[averaged["clip_id"]]
    assert averaged["label"].tolist() == by_clip["label"].tolist()
    assert averaged["fold"].tolist() == by_clip["fold"].tolist()
    np.testing.assert_allclose(averaged[LABELS].sum(axis=1), 1)
    clip_id = data.draw(st.sampled_from(list(clips.index)))
    own = scores.loc[scores["clip_id"] == clip_id, LABELS]
    assert len(own) == n_seeds
    np.testing.assert_allclose(
        averaged.loc[averaged["clip_id"] == clip_id, LABELS].to_numpy()[0], own.mean().to_numpy()
    )


def steps_of(clips, n_seeds: int, seed: int = 0) -> tuple[dict, pd.DataFrame]:
    """Return the scores of every step of the tagger, and the seconds of their runs."""
    scores, rows = {}, []
    for number, (name, _, variant, _) in enumerate(TAGGER_STEPS):
        seeds = tuple(range(n_seeds if number == len(TAGGER_STEPS) - 1 else 1))
        ranks = random_ranks(clips, 100 * seed + number, len(seeds))
        scores[name] = {variant: scores_of(clips, ranks, seeds)}
        rows += [(name, one, 10.0 * number + second) for one in seeds for second in (1.0, 3.0)]
    return scores, pd.DataFrame(rows, columns=["cell", "seed", "seconds"])


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000), n_seeds=st.integers(1, 3))
def test_gains_of_the_steps_add_up(clips, seed, n_seeds):
    scores, results = steps_of(clips, n_seeds, seed)
    found = tagger_steps(scores, results, clips)
    names = [name for name, *_ in TAGGER_STEPS]
    assert found["step"].tolist() == names + ["averaged"] * (n_seeds > 1)
    assert found["adds"].tolist()[: len(names)] == [adds for _, adds, *_ in TAGGER_STEPS]
    assert found["gain"].isna().tolist() == [True] + [False] * (len(found) - 1)
    frames = [scores[name][variant] for name, _, variant, _ in TAGGER_STEPS]
    if n_seeds > 1:
        frames.append(average_seeds(frames[-1]))
    accuracies = [
        clip_metrics(frame[frame["seed"] == 0])["top1_accuracy"].mean() for frame in frames
    ]
    np.testing.assert_allclose(found["gain"].iloc[1:], np.diff(accuracies), atol=1e-12)
    assert found["gain"].sum() == pytest.approx(accuracies[-1] - accuracies[0])
    assert (found["gain_low"].iloc[1:] <= found["gain"].iloc[1:] + 1e-12).all()
    assert (found["gain_high"].iloc[1:] >= found["gain"].iloc[1:] - 1e-12).all()
    for row, frame in zip(found.itertuples(), frames, strict=True):
        metrics = clip_metrics(frame)
        assert row.seeds == frame["seed"].nunique()
        assert row.top1_accuracy == pytest.approx(metrics["top1_accuracy"].mean())
        assert row.top3_error == pytest.approx(metrics["top3_error"].mean())
        assert row.map3 == pytest.approx(metrics["map3"].mean())
        assert row.low <= row.top1_accuracy <= row.high


def test_a_step_takes_what_its_runs_took_and_an_average_all_of_them(clips):
    found = tagger_steps(*steps_of(clips, 3), clips)
    expected = [10.0 * number + 2 for number in range(len(TAGGER_STEPS))]
    assert found["seconds_per_run"].tolist() == [*expected, 3 * expected[-1]]
    assert found["adds"].iloc[-1] == "3 networks' probabilities averaged"
    assert found["seeds"].tolist() == [1] * (len(TAGGER_STEPS) - 1) + [3, 1]


def test_the_last_row_averages_every_network_of_the_grid(clips):
    steps, results = steps_of(clips, 2)
    grid = {
        name: scores_of(clips, random_ranks(clips, number, 2), (0, 1))
        for number, name in enumerate(COMPARED)
    }
    folds = clips["fold"].unique()
    runs = [(v, fold, seed, 7.0) for v in grid for fold in folds for seed in (0, 1)]
    grid_results = pd.DataFrame(runs, columns=["variant", "fold", "seed", "seconds"])
    found = tagger_steps(steps, results, clips, grid, grid_results)
    last = found.iloc[-1]
    assert (last["step"], last["seconds_per_run"]) == ("pictures", 7.0 * 2 * len(COMPARED))
    assert last["adds"].startswith(f"all {2 * len(COMPARED)} networks of the grid")
    scored = pd.concat(grid.values()).groupby(["clip_id", "label"])[LABELS].mean().reset_index()
    right = scored[LABELS].idxmax(axis=1) == scored["label"]
    assert last["top1_accuracy"] == pytest.approx(right.mean())
    pd.testing.assert_frame_equal(found.iloc[:-1], tagger_steps(steps, results, clips))


def test_the_metric_of_the_verdict_is_better_higher():
    assert VERDICT_METRIC in ("map3", "top1_accuracy")  # claims and choices of trials rely on it
