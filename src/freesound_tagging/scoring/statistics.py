"""Is a difference real? One rule for every table, which can be checked by eye.

The difference of two representations is paired: same clip, same seed. Its mean over each fold and
seed is a dot of the figure (`by_fold_and_seed`). Its interval comes from drawing recordings and
seeds together (`freesound_tagging.scoring.metrics.bootstrap_means`). The verdict is "better" or
"worse" where the interval is clear of 0, after Holm's procedure over the planned contrasts, and
the sign is the same in every seed. With fewer than `MIN_SEEDS` or `MIN_RECORDINGS` there is a
difference, no verdict.
``benchmarks/statistics/`` shows how often the rule is wrong, and what it finds.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from freesound_tagging.scoring.metrics import METRIC, bootstrap_means, clip_metrics

LEVEL = 0.05
"""Largest share of families with a false verdict; intervals cover 1 - LEVEL."""

MIN_SEEDS = 3  # two say too little of their luck

MIN_RECORDINGS = 10  # an exact sign test over six has a p value of 1/32 at best

COLUMNS = ["variant", "reference", "metric", "seeds", "difference", "low", "high", "p", "same_sign"]

DRAWS = 9_999  # a p value of 0.05 / 15 then comes from some 17 draws in either tail


def holm(p_values: ArrayLike, planned: int | None = None) -> np.ndarray:
    """Return p values adjusted for the number of tests by Holm's step-down procedure.

    The chance that any true null hypothesis has an adjusted p value below a level is at most that
    level, whatever the dependence between the tests. NaN is no test, and stays. ``planned`` says
    how many tests there are, made or not; by default those that are not NaN.

    Sources
    -------
    Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal
    of Statistics 6(2), 65-70.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p_values, kind="stable")[: np.isfinite(p_values).sum()]  # NaN is last
    tests = len(order) if planned is None else planned
    steps = (tests - np.arange(len(order))) * p_values[order]
    adjusted = np.full(len(p_values), np.nan)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def paired_differences(
    first: pd.DataFrame, second: pd.DataFrame, metric: str = METRIC
) -> pd.DataFrame:
    """Return the first's metric minus the second's for each clip (index) and seed (columns).

    Seeds are those with which both scored all clips that either scored.
    """
    one, other = (
        clip_metrics(scores).pivot(index="clip_id", columns="seed", values=metric)
        for scores in (first, second)
    )
    differences = (one - other).dropna(axis=1)  # NaN where either lacks clip or seed
    if differences.empty:
        raise ValueError("the two were not scored on the same clips by any seed")
    return differences


def by_fold_and_seed(first: pd.DataFrame, second: pd.DataFrame) -> pd.DataFrame:
    """Return the mean of `paired_differences` for each fold (index) and seed (columns)."""
    folds = first.drop_duplicates("clip_id").set_index("clip_id")["fold"]
    return paired_differences(first, second).groupby(folds).mean()


def compare(
    scores: dict[str, pd.DataFrame], table: pd.DataFrame, contrasts: Sequence[tuple[str, str]]
) -> pd.DataFrame:
    """Compare pairs of representations; together they are a family for Holm.

    ``scores`` are representation -> out-of-fold scores, ``contrasts`` two of their keys each, and
    ``table`` has the index ``clip_id`` and a column ``group``, the recording. Of the columns, those
    of `judge` last, difference is the mean over clips and seeds, from low to high is its 95 %
    interval, p is two-sided, same_sign is that of every seed. With fewer than `MIN_SEEDS` or
    `MIN_RECORDINGS` low, high and p are NaN.
    """
    rows = []
    for variant, reference in contrasts:
        values = paired_differences(scores[variant], scores[reference])
        by_seed, low, high, p = values.mean(), np.nan, np.nan, np.nan
        recordings = table["group"].loc[values.index]
        if len(by_seed) >= MIN_SEEDS and recordings.nunique() >= MIN_RECORDINGS:
            means = bootstrap_means(values.to_numpy(), recordings, DRAWS)
            low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
            p = p_value(means)
        same_sign = bool((by_seed > 0).all() or (by_seed < 0).all())
        found = by_seed.mean(), low, high, p, same_sign
        rows.append((variant, reference, METRIC, len(by_seed), *found))
    return judge(pd.DataFrame(rows, columns=COLUMNS))


def p_value(means: np.ndarray) -> float:
    """Return twice the share of bootstrap means, shape (draws,), on the rarer side of 0."""
    rarer = min((means <= 0).sum(), (means >= 0).sum())
    return min(1.0, 2 * (rarer + 1) / (len(means) + 1))


def judge(comparisons: pd.DataFrame, planned: int | None = None) -> pd.DataFrame:
    """Return rows of `compare`, which may be of several tables, judged as one family.

    Columns added, or made anew: p_holm, and verdict: "better", "worse", "no difference found", and
    "" where there are too few seeds or recordings.
    """
    adjusted = holm(comparisons["p"], planned)
    found = (adjusted < LEVEL) & comparisons["same_sign"].to_numpy(bool)
    better = found & (comparisons["difference"] > 0).to_numpy(bool)
    words = [np.isnan(adjusted), better, found]
    verdict = np.select(words, ["", "better", "worse"], "no difference found")
    return comparisons.assign(p_holm=adjusted, verdict=verdict)
