"""Scores of the grid and of the studies -> the tables that answer them.

Scores of a study are ``cell -> variant -> frame`` (`studies.load_study_scores`), those of a grid
``variant -> frame``, so that the same code answers from a run just made and from the scores
committed under ``results/``. Every difference follows the one rule of
`freesound_tagging.scoring.statistics`.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from freesound_tagging.runs.questions import COMPARED, CONTRASTS, STUDIES
from freesound_tagging.scoring.metrics import (
    average_networks,
    bootstrap_interval,
    classes_of,
    clip_metrics,
    summarise,
)
from freesound_tagging.scoring.statistics import (
    METRICS,
    REFERENCES,
    VERDICT_METRIC,
    common_runs,
    compare,
    paired_tests,
    variance_shares,
)
from freesound_tagging.sounds import microcalls

Scores = dict[str, dict[str, pd.DataFrame]]

# (what is claimed, which representation should then be better, than which); each is written as
# condition/representation. The claims on q = 2 and on magnitude were added when the grid of
# microcalls had been seen, and before its controls had; those on unmoved filters came last, when
# all the others were known.
CLAIMS: tuple[tuple[str, str, str], ...] = (
    ("Sharper is better: q = 8 beats log dB on the same axis", "grid/hires_q8", "grid/log_db"),
    ("Sharper is better: q = 2 beats log dB on the same axis", "grid/hires_q2", "grid/log_db"),
    ("q = 1 beats the same filters unmoved", "grid/hires_q1", "unmoved/gabor_q1"),
    ("q = 2 beats the same filters unmoved", "grid/hires_q2", "unmoved/gabor_q2"),
    ("q = 4 beats the same filters unmoved", "grid/hires_q4", "unmoved/gabor_q4"),
    ("q = 8 beats the same filters unmoved", "grid/hires_q8", "unmoved/gabor_q8"),
    (
        "q = 2 beats an ordinary shorter window, not matched to it",
        "grid/hires_q2",
        "matched/log_short_db",
    ),
    ("In magnitude, too, q = 2 is better", "matched/hires_q2_magnitude", "grid/log_linear"),
    ("In magnitude, too, q = 8 is better", "matched/hires_q8_magnitude", "grid/log_linear"),
    ("Magnitude beats dB, standard", "grid/log_linear", "grid/log_db"),
    ("Magnitude beats dB, q = 2", "matched/hires_q2_magnitude", "grid/hires_q2"),
    (
        "q = 8 beats an ordinary longer window, not matched to it",
        "grid/hires_q8",
        "matched/log_long_db",
    ),
    ("Several ordinary windows beat one", "grid/3ch_log_db_windows", "grid/log_db"),
    ("The reference's mix beats log dB", "grid/3ch_hires_q1_q8_log_db", "grid/log_db"),
    (
        "The mix beats three ordinary windows",
        "grid/3ch_hires_q1_q8_log_db",
        "grid/3ch_log_db_windows",
    ),
    (
        "The q stack beats three ordinary windows",
        "grid/3ch_hires_q1_q4_q8",
        "grid/3ch_log_db_windows",
    ),
    ("A longer window alone helps", "matched/log_long_db", "grid/log_db"),
    ("A shorter window alone helps", "matched/log_short_db", "grid/log_db"),
    ("Hop 197 beats hop 512, log dB", "hop_197/log_db", "hop_512/log_db"),
    (
        "Unmatched hops, as in the reference: q = 8 at 197 beats log dB at 512",
        "hop_197/hires_q8",
        "hop_512/log_db",
    ),
    ("Matched hops: q = 8 at 197 beats log dB at 197", "hop_197/hires_q8", "hop_197/log_db"),
    ("26.2 rows an octave beat 13, log dB", "bins_26/log_db", "grid/log_db"),
    ("26.2 rows an octave beat 13, log dB", "grid/log_db", "bins_13/log_db"),
    ("26.2 rows an octave beat 13, q = 8", "bins_26/hires_q8", "grid/hires_q8"),
    ("26.2 rows an octave beat 13, q = 8", "grid/hires_q8", "bins_13/hires_q8"),
    ("On a linear axis, too, q = 8 beats dB", "matched/hires_q8_linear", "grid/linear_db"),
    ("On a mel axis (HTK), too, q = 8 beats dB", "matched/hires_q8_mel", "matched/mel_htk_db"),
    ("The axis matters: log beats linear, q = 8", "grid/hires_q8", "matched/hires_q8_linear"),
    ("The count threshold helps", "grid/hires_q8", "matched/hires_q8_all_points"),
    ("Consensus of two q beats one q", "matched/hires_consensus", "grid/hires_q8"),
)

SPEECH_CLAIMS: tuple[tuple[str, str, str], ...] = (
    ("q = 2 beats log dB", "grid/hires_q2", "grid/log_db"),
    ("q = 8 beats log dB", "grid/hires_q8", "grid/log_db"),
    ("q = 2 beats the same filters unmoved", "grid/hires_q2", "unmoved/gabor_q2"),
    ("q = 8 beats the same filters unmoved", "grid/hires_q8", "unmoved/gabor_q8"),
    ("After 21 epochs, too, q = 2 beats log dB", "longer/hires_q2", "longer/log_db"),
    ("After 21 epochs, too, q = 8 beats log dB", "longer/hires_q8", "longer/log_db"),
    ("After 21 epochs, q = 2 beats its filters unmoved", "longer/hires_q2", "longer/gabor_q2"),
    ("After 21 epochs, q = 8 beats its filters unmoved", "longer/hires_q8", "longer/gabor_q8"),
    ("On a mel axis (HTK), too, q = 2 beats dB", "matched/hires_q2_mel", "matched/mel_htk_db"),
    ("On a mel axis (HTK), too, q = 8 beats dB", "matched/hires_q8_mel", "matched/mel_htk_db"),
    ("PCEN beats dB, log axis", "matched/log_pcen", "grid/log_db"),
    ("PCEN beats dB, mel axis", "matched/mel_pcen", "grid/mel_db"),
)
"""Of the study of speech, fixed before its first run."""

OPTIMIZER_CLAIMS: tuple[tuple[str, str, str], ...] = tuple(
    (f"With {name} the mix beats log dB", f"{cell}/3ch_hires_q1_q8_log_db", f"{cell}/log_db")
    for name, cell in {
        "AdamW": "adamw",
        "Adam": "adam",
        "SGD": "sgd",
        "Lookahead-RAdam": "lookahead_radam",
    }.items()
)
"""Of the study of optimizers: whether the answer is that of one optimizer."""

BY_DETAIL: tuple[tuple[str, str], ...] = (
    ("grid/hires_q2", "grid/log_db"),
    ("matched/log_short_db", "grid/log_db"),
    ("unmoved/gabor_q2", "grid/log_db"),
    ("grid/hires_q2", "matched/log_short_db"),
    ("grid/hires_q2", "unmoved/gabor_q2"),
    ("grid/hires_q8", "unmoved/gabor_q8"),
)
"""Pairs that are compared for families of microcalls that differ in time, and in frequency."""

AS_CLIPS_GROW: tuple[tuple[str, str], ...] = (
    ("hires_q2", "log_db"),
    ("hires_q8", "log_db"),
    ("hires_q2", "gabor_q2"),
    ("hires_q8", "gabor_q8"),
)
"""The same, for each number of clips per class."""


def analyse_grid(
    results: pd.DataFrame, scores: dict[str, pd.DataFrame], table: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Return what is published of a grid besides its results: file name -> table.

    ``summary``: `metrics.summarise`. ``tests``: each representation against the references, with
    the seeds that all of them have. ``contrasts``: those of results/PLAN.md, where a pair was run,
    with the seeds that these have; ``averaged``: there, the summary of all networks' mean.
    ``variance``: where all have several seeds. Of a grid that is not finished only seeds with every
    fold count.
    """
    folds = set(results["fold"])
    seeds = {name: whole_seeds(frame, folds) for name, frame in scores.items()}
    whole = {
        name: frame[frame["seed"].isin(seeds[name])]
        for name, frame in scores.items()
        if seeds[name]
    }
    tables = {"summary": summarise(whole, table)} if whole else {}
    shared = common_runs(whole)
    references = [name for name in REFERENCES if name in whole]
    if references and len(whole) > 1:
        tables["tests"] = paired_tests(shared, table, references)
    pairs = [pair for pair in CONTRASTS if set(pair) <= set(whole)]
    if pairs and "gabor_q2" in whole:
        chosen = common_runs({name: whole[name] for pair in pairs for name in pair})
        tables["contrasts"] = compare(chosen, table, pairs)
        together = pd.concat(whole.values())
        # Of large sets low scores are not kept, and what is left has no mean.
        if np.allclose(together[classes_of(together)].sum(axis=1), 1, atol=1e-3):
            n = sum(frame["seed"].nunique() for frame in whole.values())
            tables["averaged"] = summarise({f"all {n} averaged": average_networks(together)}, table)
    seeds = next(iter(shared.values()))["seed"].unique() if shared else ()
    if len(seeds) > 1 and len(whole) > 1:
        runs = results[results["seed"].isin(seeds) & results["variant"].isin(whole)]
        tables["variance"] = pd.concat(
            variance_shares(runs, metric).assign(metric=metric)
            for metric in METRICS
            if metric in runs and runs[metric].notna().all()
        )
    return tables


def whole_seeds(frame: pd.DataFrame, folds: set[int]) -> list[int]:
    """Return the seeds with which every fold was scored."""
    return [seed for seed, own in frame.groupby("seed") if folds <= set(own["fold"])]


def flat(scores: Scores) -> dict[str, pd.DataFrame]:
    """Return scores by condition/variant, with the runs that all of them have."""
    return common_runs(
        {
            f"{cell}/{name}": own
            for cell, variants in scores.items()
            for name, own in variants.items()
        }
    )


def judge_claims(
    scores: Scores, table: pd.DataFrame, claims: Sequence[tuple[str, str, str]] = CLAIMS
) -> pd.DataFrame:
    """Return how every claim came out whose two representations were scored.

    Returns
    -------
    The columns of `statistics.compare` in the verdict's metric, all claims being one family, and
    first the claim in words.
    """
    together = flat(scores)
    claims = [claim for claim in claims if {*claim[1:]} <= set(together)]
    tests = compare(together, table, [claim[1:] for claim in claims], [VERDICT_METRIC])
    tests.insert(0, "claim", [claim for claim, *_ in claims])
    return tests


def compare_by_detail(
    scores: Scores, table: pd.DataFrame, pairs: Sequence[tuple[str, str]] = BY_DETAIL
) -> pd.DataFrame:
    """Return pairs compared on the microcalls that differ in frequency, and in time.

    Returns
    -------
    The columns of `statistics.compare` in the verdict's metric, and first the detail. The pairs of
    one detail are a family.
    """
    details = microcalls.class_table()["detail"]
    together = flat(scores)
    parts = []
    for detail, classes in details.groupby(details):
        own = {name: frame[frame["label"].isin(classes.index)] for name, frame in together.items()}
        tests = compare(own, table, pairs, [VERDICT_METRIC])
        tests.insert(0, "detail", detail)
        parts.append(tests)
    return pd.concat(parts, ignore_index=True)


def compare_as_clips_grow(scores: Scores, table: pd.DataFrame) -> pd.DataFrame:
    """Return the pairs of `AS_CLIPS_GROW` in every condition, as `compare_by_detail`.

    The pairs of one condition and detail are a family: they share the training's luck.
    """
    parts = []
    for cell, variants in scores.items():
        pairs = [(f"{cell}/{name}", f"{cell}/{other}") for name, other in AS_CLIPS_GROW]
        parts.append(compare_by_detail({cell: variants}, table, pairs))
    return pd.concat(parts, ignore_index=True)


def compare_conditions(scores: Scores, table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Return every condition's scores, and each against one of them, by representation.

    A representation that the reference condition lacks is compared with the first that it has.

    Returns
    -------
    One row a condition and representation: cell, variant, seeds, top1_accuracy, top3_error, map3,
    log_loss; then of the verdict's metric, against the reference: difference, low, high, p_holm,
    verdict. All comparisons are one family.
    """
    together = flat(scores)
    usual = next(iter(scores[reference]))
    pairs = [
        (f"{cell}/{name}", f"{reference}/{name if name in scores[reference] else usual}")
        for cell, variants in scores.items()
        for name in variants
        if cell != reference
    ]
    tests = compare(together, table, pairs, [VERDICT_METRIC]).set_index("variant")
    summary = summarise(together, table).set_index("variant").loc[list(together)]
    columns = ["seeds", "top1_accuracy", "top3_error", "map3", "log_loss"]
    frame = summary[columns].join(tests[["difference", "low", "high", "p_holm", "verdict"]])
    names = frame.index.str.partition("/")
    frame.insert(0, "cell", names.get_level_values(0))
    frame.insert(1, "variant", names.get_level_values(2))
    return frame.reset_index(drop=True)


def beside_grid(
    scores: Scores, table: pd.DataFrame, grid: dict[str, pd.DataFrame], reference: str = "log_db"
) -> pd.DataFrame:
    """Return a study's scores, each against a representation of the main grid.

    Returns
    -------
    Columns as of `compare_conditions`; the reference stands last, in the cell ``grid``.
    """
    return compare_conditions(scores | {"grid": {reference: grid[reference]}}, table, "grid")


def compare_stacks(
    stacks: dict[str, pd.DataFrame], members: dict[str, pd.DataFrame], table: pd.DataFrame
) -> pd.DataFrame:
    """Return the scores of stacks and of the networks below them, stacks against the best network.

    Returns
    -------
    Columns as of `compare_conditions`; the best network is the one with the highest MAP@3.
    """
    level = {name: clip_metrics(frame)["map3"].mean() for name, frame in members.items()}
    ranked = {name: members[name] for name in sorted(members, key=level.get, reverse=True)}
    return compare_conditions({"stacked": stacks, "grid": ranked}, table, "grid")


def curve(scores: Scores, table: pd.DataFrame, by: str = "detail") -> pd.DataFrame:
    """Return accuracy on microcalls by condition, for families that differ in frequency or in time.

    Parameters
    ----------
    by : ``"detail"``, or ``"family"`` for each family of classes by itself.

    Returns
    -------
    One row for each cell, detail (all, frequency, time; or the family) and variant. Columns cell,
    detail, variant, n (clips), top1_accuracy, low, high (95 %), map3, and against log_db on the
    same clips: difference of top-1 accuracy, difference_low, difference_high.
    """
    kind_of = microcalls.class_table()[by]
    rows = []
    for cell, variants in scores.items():
        for kind in ("all", *kind_of.unique()):
            own = {
                name: frame if kind == "all" else frame[frame["label"].map(kind_of) == kind]
                for name, frame in variants.items()
            }
            pairs = [(name, "log_db") for name in own]
            tests = compare(own, table, pairs, ["top1_accuracy"]).set_index("variant")
            for name, frame in own.items():
                metrics = clip_metrics(frame)
                rows.append(
                    {
                        "cell": cell,
                        "detail": kind,
                        "variant": name,
                        "n": metrics["clip_id"].nunique(),
                        **_accuracy(metrics, table),
                        "map3": metrics["map3"].mean(),
                        "difference": tests.loc[name, "difference"],
                        "difference_low": tests.loc[name, "low"],
                        "difference_high": tests.loc[name, "high"],
                    }
                )
    return pd.DataFrame(rows)


def _accuracy(metrics: pd.DataFrame, table: pd.DataFrame) -> dict[str, float]:
    """Return the top-1 accuracy of clip metrics with its 95 % interval over source recordings."""
    right = metrics["top1_accuracy"]
    low, high = bootstrap_interval(right, metrics["clip_id"].map(table["group"]))
    return {"top1_accuracy": right.mean(), "low": low, "high": high}


def compare_tuned(scores: Scores, table: pd.DataFrame) -> pd.DataFrame:
    """Return what tuning gained for each variant, and where it stands against log_db, both tuned.

    Returns
    -------
    One row a variant: map3_default, map3_tuned, gain, gain_low, gain_high, gain_p_holm (tuned minus
    default on the same clips), then tuned minus tuned log_db: difference, low, high, p_holm.
    """
    together = flat(scores)
    map3 = {name: clip_metrics(frame)["map3"].mean() for name, frame in together.items()}
    gains = [(f"tuned/{name}", f"grid/{name}") for name in COMPARED]
    others = [(f"tuned/{name}", "tuned/log_db") for name in COMPARED if name != "log_db"]
    gain, against = (
        compare(together, table, pairs, [VERDICT_METRIC]).set_index("variant")
        for pairs in (gains, others)
    )
    rows = []
    for name in COMPARED:
        own = gain.loc[f"tuned/{name}"]
        rows.append(
            {
                "variant": name,
                "map3_default": map3[f"grid/{name}"],
                "map3_tuned": map3[f"tuned/{name}"],
                "gain": own["difference"],
                "gain_low": own["low"],
                "gain_high": own["high"],
                "gain_p_holm": own["p_holm"],
            }
        )
    against.index = against.index.str.removeprefix("tuned/")
    columns = ["difference", "low", "high", "p_holm"]
    return pd.DataFrame(rows).join(against[columns], on="variant")


def tagger_steps(
    scores: Scores,
    results: pd.DataFrame,
    table: pd.DataFrame,
    steps: dict[str, str],
    grids: Sequence[tuple[dict[str, pd.DataFrame], pd.DataFrame]] = (),
) -> pd.DataFrame:
    """Return what every ingredient of a tagger gains over the step before it.

    A step is its first representation. Rows after the steps: ``averaged``, all networks of the last
    step, where it has several; and with published grids ``representations``, all networks of the
    first grid, and ``everything``, those of the last step and of every grid. None are chosen.

    Parameters
    ----------
    scores, results, table : of the study.
    steps : entry of `TAGGER_STEPS`: what each step adds, in words.
    grids : scores and results of each grid.

    Returns
    -------
    Columns step, adds (in words), seeds, top1_accuracy, low, high (95 % over source recordings),
    top3_error, map3, gain of top-1 accuracy over the step before (seed 0 of both), gain_low,
    gain_high, and seconds_per_run (wall clock, one core; of an average, all its networks').
    """
    measured = {}  # step -> what it adds, its scores, seconds a fold
    for name, adds in steps.items():
        variant, frame = next(iter(scores[name].items()))
        own = results[(results["cell"] == name) & (results["variant"] == variant)]
        measured[name] = (adds, frame, own["seconds"].mean())
    last_step = list(steps)[-1]
    last = results[results["cell"] == last_step]
    sources = [(scores[last_step], last)]
    if _networks(last) > 1:
        measured["averaged"] = _average("{n} networks' probabilities averaged", sources)
    if grids:
        words = "all {n} networks of the grid in their place, {variants} representations, averaged"
        measured["representations"] = _average(words, grids[:1])
        words = "all {n}: those of the last step and of every grid, averaged"
        measured["everything"] = _average(words, [*sources, *grids])
    first = {name: frame[frame["seed"] == 0] for name, (_, frame, _) in measured.items()}
    names = list(measured)
    pairs = list(zip(names[1:], names, strict=False))
    gains = compare(first, table, pairs, ["top1_accuracy"]).set_index("variant")
    gains = gains[["difference", "low", "high"]].add_prefix("gain_")
    rows = []
    for name, (adds, frame, seconds) in measured.items():
        metrics = clip_metrics(frame)
        rows.append(
            {
                "step": name,
                "adds": adds,
                "seeds": metrics["seed"].nunique(),
                **_accuracy(metrics, table),
                "top3_error": metrics["top3_error"].mean(),
                "map3": metrics["map3"].mean(),
                "seconds_per_run": round(seconds, 1),
            }
        )
    gains = gains.rename(columns={"gain_difference": "gain"})
    frame = pd.DataFrame(rows).join(gains, on="step")
    return frame[[*frame.columns.drop("seconds_per_run"), "seconds_per_run"]]


def _networks(results: pd.DataFrame) -> int:
    """Return how many networks score each clip."""
    return results.groupby(["variant", "seed"]).ngroups


def _average(
    words: str, sources: Sequence[tuple[dict[str, pd.DataFrame], pd.DataFrame]]
) -> tuple[str, pd.DataFrame, float]:
    """Return words with numbers, scores averaged over all networks, and what those took a fold."""
    frames = [frame for scores, _ in sources for frame in scores.values()]
    n = sum(_networks(results) for _, results in sources)
    seconds = sum(own["seconds"].sum() / own["fold"].nunique() for _, own in sources)
    return words.format(n=n, variants=len(frames)), average_networks(pd.concat(frames)), seconds


def chosen_settings(choices: pd.DataFrame, study: str) -> pd.DataFrame:
    """Return choices of trials with the settings of each."""
    tried = {condition.name: condition.settings for condition in STUDIES[study].conditions}
    settings = pd.DataFrame([dict(tried[trial]) for trial in choices["trial"]])
    return choices.join(settings)
