"""What the studies found follows from their scores, and from nothing else."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from freesound_tagging.features.variants import CONTROL_VARIANTS, VARIANTS
from freesound_tagging.reporting.analyses import (
    CLAIMS,
    SPEECH_CLAIMS,
    analyse_grid,
    compare_conditions,
    compare_tuned,
    curve,
    judge_claims,
    tagger_steps,
)
from freesound_tagging.runs.questions import COMPARED, CONTRASTS, STUDIES, TAGGER_STEPS
from freesound_tagging.scoring.metrics import KEYS, average_networks, clip_metrics
from freesound_tagging.scoring.statistics import COLUMNS, VERDICT_METRIC
from freesound_tagging.sounds.microcalls import CALLS, class_table

LABELS = sorted(CALLS)
TAGGER = {condition.name: condition for condition in STUDIES["tagger"].conditions}
STEPS = TAGGER_STEPS["tagger"]
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


def test_every_claim_about_speech_is_about_pictures_that_its_study_makes():
    conditions = STUDIES["speech"].conditions
    made = {f"{own.name}/{variant}" for own in conditions for variant in own.variants}
    assert {picture for _, *both in SPEECH_CLAIMS for picture in both} == made
    assert len({tuple(both) for _, *both in SPEECH_CLAIMS}) == len(SPEECH_CLAIMS)


@settings(deadline=None, max_examples=8)
@given(
    qualities=st.lists(st.integers(0, 2), min_size=len(PICTURES), max_size=len(PICTURES)),
    missing=st.sets(st.sampled_from(sorted({picture.split("/")[0] for picture in PICTURES}))),
)
def test_much_better_is_better_much_worse_is_worse_and_the_same_is_neither(
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
    assert list(judged.columns) == ["claim", *COLUMNS]
    expected = [
        (claim, picture, than)
        for claim, picture, than in CLAIMS
        if not {picture.split("/")[0], than.split("/")[0]} & missing
    ]
    assert list(judged[["claim", "variant", "reference"]].itertuples(index=False)) == expected
    for row in judged.itertuples():
        apart = quality[row.variant] - quality[row.reference]
        assert row.difference == pytest.approx(apart / 2)
        assert row.low <= row.difference <= row.high
        assert row.p <= row.p_holm <= 1
        words = {0: "inconclusive", 1: "better", -1: "worse"}
        assert row.verdict == words[int(np.sign(apart))]


def test_a_difference_that_chance_makes_is_inconclusive(clips):
    # One clip in eighty: significant on no scale, whichever way it points.
    ranks = np.zeros(len(clips), dtype=int)
    ranks[3] = 7
    right, nearly = scores_of(clips, 0), scores_of(clips, ranks)
    for first, second in ((right, nearly), (nearly, right)):
        scores = {"grid": dict.fromkeys(VARIANTS, second) | {"hires_q8": first}}
        judged = judge_claims(scores, clips).set_index("claim")
        assert set(judged["verdict"]) == {"inconclusive"}
        differences = judged.loc[judged["variant"] == "grid/hires_q8", "difference"]
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
    (row,) = judged[judged["variant"] == "matched/hires_q8_mel"].itertuples()
    assert row.p < 0.05  # on its own it would hold
    assert row.p_holm == pytest.approx(min(1, row.p * len(judged)))
    assert (judged.drop(row.Index)["p_holm"] == 1).all()


def test_nothing_scored_nothing_claimed(clips):
    assert len(judge_claims({}, clips)) == 0


def test_only_seeds_that_all_were_trained_with_are_compared(clips):
    ranks = np.stack([random_ranks(clips, seed)[0] for seed in range(3)])
    three, one = scores_of(clips, ranks, (0, 1, 2)), scores_of(clips, random_ranks(clips, 7), (1,))
    own = three[three["seed"] == 1]
    mixed, alike = (
        judge_claims({"grid": dict.fromkeys(VARIANTS, frame) | {"hires_q8": one}}, clips)
        for frame in (three, own)
    )
    assert (mixed["seeds"] == 1).all()
    pd.testing.assert_frame_equal(mixed, alike)


# --- the grid, and conditions side by side -----------------------------------------------------


def grid_of(clips: pd.DataFrame, names, seeds=(0, 1)) -> tuple[pd.DataFrame, dict]:
    """Return results and scores of representations by chance."""
    scores = {
        name: scores_of(clips, random_ranks(clips, number, len(seeds)), seeds)
        for number, name in enumerate(names)
    }
    rows = [
        (
            name,
            fold,
            seed,
            own["map3"].mean(),
            own["top3_error"].mean(),
            own["top1_accuracy"].mean(),
        )
        for name, frame in scores.items()
        for (fold, seed), own in clip_metrics(frame).groupby(["fold", "seed"])
    ]
    columns = ["variant", "fold", "seed", "map3", "top3_error", "top1_accuracy"]
    return pd.DataFrame(rows, columns=columns), scores


def test_a_grid_is_ranked_tested_and_contrasted_as_far_as_it_is_done(clips):
    names = ["log_db", "mel_db", "hires_q2", "gabor_q2", "hires_q8"]
    results, scores = grid_of(clips, names)
    whole = analyse_grid(results, scores, clips)
    assert whole.keys() == {"summary", "tests", "contrasts", "averaged", "variance"}
    assert whole["averaged"]["variant"].tolist() == ["all 10 averaged"]
    made = list(zip(whole["contrasts"]["variant"], whole["contrasts"]["reference"], strict=True))
    assert set(made) == {pair for pair in CONTRASTS if set(pair) <= set(names)}
    assert (whole["tests"]["seeds"] == 2).all()

    # One run of seed 1 is missing, and hires_q8 has not a single whole seed.
    missing = (results["variant"] == "gabor_q2") & (results["fold"] == 4) & (results["seed"] == 1)
    missing |= (results["variant"] == "hires_q8") & (results["fold"] == 0)
    gone = set(results[missing][["variant", "fold", "seed"]].itertuples(index=False, name=None))
    fewer = {
        name: frame[
            [(name, *key) not in gone for key in zip(frame["fold"], frame["seed"], strict=True)]
        ]
        for name, frame in scores.items()
    }
    partial = analyse_grid(results[~missing], fewer, clips)
    assert set(partial["summary"]["variant"]) == set(names) - {"hires_q8"}
    assert (partial["tests"]["seeds"] == 1).all()
    assert (partial["contrasts"]["seeds"] == 1).all()
    assert "variance" not in partial


def test_conditions_are_compared_with_one_of_them_on_the_same_clips(clips):
    scores = {
        cell: {"log_db": scores_of(clips, rank)} for cell, rank in (("a", 1), ("b", 0), ("c", 2))
    }
    found = compare_conditions(scores, clips, "a").set_index("cell")
    assert found.index.tolist() == ["a", "b", "c"]
    assert found["map3"].tolist() == pytest.approx([1 / 2, 1, 1 / 3])
    assert np.isnan(found.loc["a", "difference"])
    assert found.loc["b", "difference"] == pytest.approx(1 / 2)
    assert found.loc[["b", "c"], "verdict"].tolist() == ["better", "worse"]


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
    averaged = average_networks(scores.sample(frac=1, random_state=seed))
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
    for number, name in enumerate(STEPS):
        (variant,) = TAGGER[name].variants
        seeds = tuple(range(n_seeds if number == len(STEPS) - 1 else 1))
        ranks = random_ranks(clips, 100 * seed + number, len(seeds))
        scores[name] = {variant: scores_of(clips, ranks, seeds)}
        rows += [
            (name, variant, one, fold, 10.0 * number + second)
            for one in seeds
            for fold, second in enumerate((1.0, 3.0))
        ]
    columns = ["cell", "variant", "seed", "fold", "seconds"]
    return scores, pd.DataFrame(rows, columns=columns)


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000), n_seeds=st.integers(1, 3))
def test_gains_of_the_steps_add_up(clips, seed, n_seeds):
    scores, results = steps_of(clips, n_seeds, seed)
    found = tagger_steps(scores, results, clips, STEPS)
    names = list(STEPS)
    assert found["step"].tolist() == names + ["averaged"] * (n_seeds > 1)
    assert found["adds"].tolist()[: len(names)] == list(STEPS.values())
    assert found["gain"].isna().tolist() == [True] + [False] * (len(found) - 1)
    frames = [frame for name in names for frame in scores[name].values()]
    if n_seeds > 1:
        frames.append(average_networks(frames[-1]))
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
    found = tagger_steps(*steps_of(clips, 3), clips, STEPS)
    expected = [10.0 * number + 2 for number in range(len(STEPS))]
    assert found["seconds_per_run"].tolist() == [*expected, 3 * expected[-1]]
    assert found["adds"].iloc[-1] == "3 networks' probabilities averaged"
    assert found["seeds"].tolist() == [1] * (len(STEPS) - 1) + [3, 1]


def test_a_row_averages_every_network_of_the_grid(clips):
    steps, results = steps_of(clips, 2)
    grid = {
        name: scores_of(clips, random_ranks(clips, number, 2), (0, 1))
        for number, name in enumerate(COMPARED)
    }
    folds = clips["fold"].unique()
    runs = [(v, fold, seed, 7.0) for v in grid for fold in folds for seed in (0, 1)]
    grid_results = pd.DataFrame(runs, columns=["variant", "fold", "seed", "seconds"])
    found = tagger_steps(steps, results, clips, STEPS, [(grid, grid_results)])
    last = found.iloc[-2]
    assert (last["step"], last["seconds_per_run"]) == ("representations", 7.0 * 2 * len(COMPARED))
    assert last["adds"].startswith(f"all {2 * len(COMPARED)} networks of the grid")
    scored = pd.concat(grid.values()).groupby(["clip_id", "label"])[LABELS].mean().reset_index()
    right = scored[LABELS].idxmax(axis=1) == scored["label"]
    assert last["top1_accuracy"] == pytest.approx(right.mean())
    pd.testing.assert_frame_equal(found.iloc[:-2], tagger_steps(steps, results, clips, STEPS))


@pytest.mark.parametrize("n_grids", [1, 2])
def test_the_last_row_averages_everything(clips, n_grids):
    steps, results = steps_of(clips, 2)
    last = list(STEPS)[-1]
    more = scores_of(clips, random_ranks(clips, 99, 1), (0,))
    steps[last]["mel_db"] = more
    row = {"cell": last, "variant": "mel_db", "seed": 0, "fold": 0, "seconds": 5.0}
    results = pd.concat([results, pd.DataFrame([row])], ignore_index=True)
    grid = {"log_db": scores_of(clips, random_ranks(clips, 7, 1), (0,))}
    grid_results = pd.DataFrame({"variant": ["log_db"], "fold": 0, "seed": 0, "seconds": 7.0})
    grids = [(grid, grid_results)] * n_grids
    found = tagger_steps(steps, results, clips, STEPS, grids).set_index("step")
    assert found.index[-3:].tolist() == ["averaged", "representations", "everything"]
    assert found.loc["averaged", "adds"] == "3 networks' probabilities averaged"
    assert found.loc["everything", "adds"].startswith(f"all {3 + n_grids}: ")
    for name, frames in {
        "averaged": [*steps[last].values()],
        "everything": [*steps[last].values(), *list(grid.values()) * n_grids],
    }.items():
        scored = pd.concat(frames).groupby(["clip_id", "label"])[LABELS].mean().reset_index()
        right = scored[LABELS].idxmax(axis=1) == scored["label"]
        assert found.loc[name, "top1_accuracy"] == pytest.approx(right.mean())


def test_the_metric_of_the_verdict_is_better_higher():
    assert VERDICT_METRIC in ("map3", "top1_accuracy")  # claims and choices of trials rely on it
