"""Scores of the studies -> the tables that answer them: controls, curves, tuning, the tagger.

Every function takes scores as ``cell -> variant -> frame`` (`studies.load_scores`), so that the
same code answers from a run just made and from the scores committed under ``results/``.
"""

import pandas as pd

from freesound_tagging.runs.questions import COMPARED, TAGGER_STEPS
from freesound_tagging.scoring.metrics import KEYS, bootstrap_interval, clip_metrics
from freesound_tagging.scoring.statistics import LEVEL, VERDICT_METRIC, holm, paired_tests
from freesound_tagging.sounds import microcalls

Scores = dict[str, dict[str, pd.DataFrame]]

# (what is claimed, which picture should then be better, than which); a picture is cell/variant.
# The claims on q = 2 and on magnitude were added when the grid of microcalls had been seen, and
# before its controls had.
CLAIMS: tuple[tuple[str, str, str], ...] = (
    ("Sharper is better: q = 8 beats log dB on the same axis", "grid/hires_q8", "grid/log_db"),
    ("Sharper is better: q = 2 beats log dB on the same axis", "grid/hires_q2", "grid/log_db"),
    (
        "It is the reassignment: q = 2 beats an ordinary shorter window",
        "grid/hires_q2",
        "matched/log_short_db",
    ),
    ("In magnitude, too, q = 2 is better", "matched/hires_q2_magnitude", "grid/log_linear"),
    ("In magnitude, too, q = 8 is better", "matched/hires_q8_magnitude", "grid/log_linear"),
    ("Magnitude beats dB, standard", "grid/log_linear", "grid/log_db"),
    ("Magnitude beats dB, q = 2", "matched/hires_q2_magnitude", "grid/hires_q2"),
    (
        "It is the reassignment: q = 8 beats an ordinary longer window",
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


def compare_pair(first: pd.DataFrame, second: pd.DataFrame, table: pd.DataFrame) -> pd.Series:
    """Return the row of `statistics.paired_tests` of the verdict's metric, first minus second.

    Only the seeds that both have are compared.
    """
    seeds = set(first["seed"]) & set(second["seed"])
    pair = {
        name: frame[frame["seed"].isin(seeds)]
        for name, frame in {"first": first, "second": second}.items()
    }
    return paired_tests(pair, table, ["second"], [VERDICT_METRIC]).iloc[0]


def judge_claims(scores: Scores, table: pd.DataFrame) -> pd.DataFrame:
    """Return how every claim of `CLAIMS` came out whose two pictures were scored.

    Returns
    -------
    Columns claim, picture, than, seeds (that both were trained with), difference (of
    `statistics.VERDICT_METRIC`), low, high (95 %), p, p_holm (over all claims), outcome (holds, the
    opposite, or not told apart) and fragile: told apart, but not when the spread from seed to seed
    is counted in, or with one seed only (`statistics.paired_tests`, for a claim by itself).
    """
    rows = []
    for claim, picture, than in CLAIMS:
        (cell, variant), (other_cell, other) = picture.split("/"), than.split("/")
        if cell not in scores or other_cell not in scores:
            continue
        first, second = scores[cell][variant], scores[other_cell][other]
        row = compare_pair(first, second, table)
        seeds = len(set(first["seed"]) & set(second["seed"]))
        columns = ["difference", "low", "high", "p", "fragile"]
        rows.append((claim, picture, than, seeds, *row[columns]))
    columns = ["claim", "picture", "than", "seeds", "difference", "low", "high", "p", "fragile"]
    frame = pd.DataFrame(rows, columns=columns)
    fragile = frame.pop("fragile").astype(bool)
    frame["p_holm"] = holm(frame["p"].to_numpy(dtype=float))
    frame["outcome"] = "not told apart"
    found = frame["p_holm"] < LEVEL
    frame.loc[found & (frame["difference"] > 0), "outcome"] = "holds"
    frame.loc[found & (frame["difference"] < 0), "outcome"] = "the opposite"
    frame["fragile"] = found & fragile
    return frame


def curve(scores: Scores, table: pd.DataFrame) -> pd.DataFrame:
    """Return accuracy on microcalls by condition, for families that differ in frequency or in time.

    Returns
    -------
    One row for each cell, detail (all, frequency, time) and variant. Columns cell, detail, variant,
    n (clips), top1_accuracy, low, high (95 %), map3, and against log_db on the same clips:
    difference of top-1 accuracy, difference_low, difference_high.
    """
    details = microcalls.class_table()["detail"]
    rows = []
    for cell, variants in scores.items():
        measured = {
            name: clip_metrics(frame).set_index(["clip_id", "seed"])
            for name, frame in variants.items()
        }
        for detail in ("all", "frequency", "time"):
            for name, metrics in measured.items():
                if detail != "all":
                    metrics = metrics[metrics["label"].map(details) == detail]
                accuracy = metrics["top1_accuracy"]
                clip_ids = metrics.index.get_level_values("clip_id")
                groups = pd.Series(clip_ids.map(table["group"]), metrics.index)
                low, high = bootstrap_interval(accuracy, groups)
                difference = accuracy - measured["log_db"]["top1_accuracy"].loc[metrics.index]
                apart = bootstrap_interval(difference, groups, limits=(-1.0, 1.0))
                rows.append(
                    {
                        "cell": cell,
                        "detail": detail,
                        "variant": name,
                        "n": clip_ids.nunique(),
                        "top1_accuracy": accuracy.mean(),
                        "low": low,
                        "high": high,
                        "map3": metrics["map3"].mean(),
                        "difference": difference.mean(),
                        "difference_low": apart[0],
                        "difference_high": apart[1],
                    }
                )
    return pd.DataFrame(rows)


def compare_tuned(scores: Scores, table: pd.DataFrame) -> pd.DataFrame:
    """Return what tuning gained for each variant, and where it stands against log_db, both tuned.

    Returns
    -------
    One row a variant: map3_default, map3_tuned, gain, gain_low, gain_high, gain_p_holm (tuned minus
    default on the same clips), then tuned minus tuned log_db: difference, low, high, p_holm.
    """
    default, tuned = scores["grid"], scores["tuned"]
    against = paired_tests(tuned, table, ["log_db"], [VERDICT_METRIC]).set_index("variant")
    rows = []
    for name in COMPARED:
        gain = compare_pair(tuned[name], default[name], table)
        rows.append(
            {
                "variant": name,
                "map3_default": clip_metrics(default[name])["map3"].mean(),
                "map3_tuned": clip_metrics(tuned[name])["map3"].mean(),
                "gain": gain["difference"],
                "gain_low": gain["low"],
                "gain_high": gain["high"],
                "gain_p": gain["p"],
            }
        )
    frame = pd.DataFrame(rows)
    frame.insert(6, "gain_p_holm", holm(frame.pop("gain_p").to_numpy(dtype=float)))
    columns = ["difference", "low", "high", "p_holm"]
    return frame.join(against[columns], on="variant")


def average_seeds(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with the probabilities of a clip's rows averaged, as seed 0.

    Those of several seeds; or of several pictures, where their scores stand together.
    """
    classes = [column for column in scores if column not in KEYS]
    keys = ["clip_id", "fold", "label"]
    averaged = scores.groupby(keys, sort=True)[classes].mean().reset_index()
    averaged.insert(1, "seed", 0)
    return averaged[[*KEYS, *classes]]


def tagger_steps(
    scores: Scores,
    results: pd.DataFrame,
    table: pd.DataFrame,
    grid: dict[str, pd.DataFrame] | None = None,
    grid_results: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Return what every ingredient of the tagger gains over the step before it.

    Where the last step has several seeds, a row more averages its networks. With the scores and
    results of the main grid, a last row averages all of the grid's networks in their place: every
    picture and every seed, none chosen.

    Returns
    -------
    Columns step, adds (in words), seeds, top1_accuracy, low, high (95 % over source recordings),
    top3_error, map3, gain of top-1 accuracy over the step before (seed 0 of both), gain_low,
    gain_high, and seconds_per_run (wall clock, one core; of an average, all its networks').
    """
    steps = []
    for name, adds in TAGGER_STEPS.items():
        (frame,) = scores[name].values()
        seconds = results.loc[results["cell"] == name, "seconds"].mean()
        steps.append((name, adds, frame, seconds))
    name, _, last, seconds = steps[-1]
    n_seeds = last["seed"].nunique()
    if n_seeds > 1:
        adds = f"{n_seeds} networks' probabilities averaged"
        steps.append(("averaged", adds, average_seeds(last), n_seeds * seconds))
    if grid is not None:
        adds = f"all {grid_results.groupby(['variant', 'seed']).ngroups} networks of the grid in "
        adds += f"their place, {len(grid)} pictures, averaged"
        seconds = grid_results["seconds"].sum() / grid_results["fold"].nunique()
        steps.append(("pictures", adds, average_seeds(pd.concat(grid.values())), seconds))
    rows, before = [], None
    for name, adds, frame, seconds in steps:
        metrics = clip_metrics(frame)
        groups = metrics["clip_id"].map(table["group"])
        low, high = bootstrap_interval(metrics["top1_accuracy"], groups)
        row = {
            "step": name,
            "adds": adds,
            "seeds": metrics["seed"].nunique(),
            "top1_accuracy": metrics["top1_accuracy"].mean(),
            "low": low,
            "high": high,
            "top3_error": metrics["top3_error"].mean(),
            "map3": metrics["map3"].mean(),
        }
        if before is not None:
            now = frame[frame["seed"] == 0]
            tests = paired_tests(
                {"now": now, "before": before}, table, ["before"], ["top1_accuracy"]
            )
            gain = tests.iloc[0]
            row |= {
                "gain": gain["difference"],
                "gain_low": gain["low"],
                "gain_high": gain["high"],
            }
        rows.append({**row, "seconds_per_run": round(seconds, 1)})
        before = frame[frame["seed"] == 0]
    return pd.DataFrame(rows)
