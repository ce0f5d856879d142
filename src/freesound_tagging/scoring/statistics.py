"""When is a difference real? Paired tests, shares of variance, smallest detectable difference.

Two sources of chance are kept apart. `paired_tests` asks what other source recordings would have
shown with the same trained networks; `variance_shares` asks how much another training run moves
a result.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.stats import norm

from freesound_tagging.scoring.metrics import clip_metrics

METRICS = ("top3_error", "top1_accuracy", "map3")
"""The metrics that are tested. Top-3 error is better lower, the others are better higher."""

VERDICT_METRIC = "map3"
"""The metric that carries the verdict on every data set: MAP@3.

Fixed before the three-seed grids were evaluated, so that no metric could be picked for its result.
It is the challenge's own metric, and unlike top-3 error it is not at its floor on ESC-10.
"""

REFERENCES = ("mel_db", "log_db")
"""The variants that all others are compared with."""

LEVEL = 0.05
"""Two-sided level of every test; intervals cover 1 - LEVEL."""

POWER = 0.8
"""Probability with which the smallest detectable difference is found."""

COLUMNS = [
    "metric",
    "reference",
    "variant",
    "difference",
    "low",
    "high",
    "p",
    "p_holm",
    "better",
    "worse",
    "fragile",
    "folds_better",
    "folds",
    "seed_deviation",
    "standard_error",
    "cautious_error",
    "detectable",
]
"""Columns of `paired_tests`."""

LOWER_IS_BETTER = {"top3_error"}

ROUNDING = 1e-12
"""Metrics are thirds and halves, whose sums differ in the last digits by the order of adding.

Differences below this are ties. A resample often has exactly the mean that it is compared with.
"""

DRAWS_AT_ONCE = 4_000_000
"""Group indices drawn at a time: about 100 MB with their counts."""


def holm(p_values: ArrayLike) -> np.ndarray:
    """Return p values adjusted for the number of tests by Holm's step-down procedure.

    The chance that any true null hypothesis has an adjusted p value below a level is at most that
    level, whatever the dependence between the tests.

    Parameters
    ----------
    p_values : shape (n,), each 0 to 1; NaN is no test and does not count.

    Returns
    -------
    Shape (n,), in the order of ``p_values``, each no smaller than its p value and at most 1; NaN
    where the p value is NaN.

    Raises
    ------
    ValueError
        Where the shape is not (n,) or a value lies outside 0..1.

    Sources
    -------
    Holm, S. (1979). A simple sequentially rejective multiple test procedure. Scandinavian Journal
    of Statistics 6(2), 65-70.
    """
    p_values = np.asarray(p_values, dtype=np.float64)
    if p_values.ndim != 1:
        raise ValueError(f"p_values must have shape (n,); got {p_values.shape}")
    if ((p_values < 0) | (p_values > 1)).any():
        raise ValueError("p_values must lie in 0..1, or be NaN")
    adjusted = np.full(len(p_values), np.nan)
    tests = np.flatnonzero(~np.isnan(p_values))
    order = tests[np.argsort(p_values[tests], kind="stable")]
    steps = np.arange(len(order), 0, -1) * p_values[order]
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted


def paired_tests(
    scores: dict[str, pd.DataFrame],
    table: pd.DataFrame,
    references: Sequence[str] = REFERENCES,
    metrics: Sequence[str] = METRICS,
    resamples: int = 9999,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every variant with each reference on the same clips and seeds.

    Differences are averaged over the seeds of a clip, then whole source recordings are drawn with
    replacement: clips of one recording are alike. All comparisons use the same draws. The variants
    compared with one reference in one metric are a family, over which p values are adjusted.

    Parameters
    ----------
    scores : variant -> out-of-fold scores, as for `evaluation.clip_metrics`. Every clip must be
        scored once by every seed, and all variants on the same clips, seeds and folds.
    table : clips, index ``clip_id``, column ``group`` (the source recording).
    references : variants that all others are compared with.
    metrics : of top3_error, top1_accuracy and map3.
    resamples : bootstrap resamples, 1 or more. No p value is below 1 / (1 + resamples), so a
        family of m variants needs more than 20 m of them for any to be found different.
    seed : of the resampling.

    Returns
    -------
    One row for each metric, reference and other variant; metrics and references in the order given,
    then the best variant first. Columns:

    - metric, reference, variant.
    - difference : variant minus reference, -1 to 1.
    - low, high : 95 % percentile interval of the difference, not adjusted for many variants.
    - p : two-sided p value of no difference, (1 + #{abs(mean* - mean) >= abs(mean)}) /
      (1 + resamples), where mean* is a resample's mean.
    - p_holm : p adjusted over the family (`holm`).
    - better, worse : whether p_holm is below 0.05 and the difference in that direction.
    - fragile : whether it is better or worse, but no longer so (normal p value over the family, by
      `holm`) when the standard error is the cautious one, or when there is one seed only.
    - folds_better, folds : folds in which the variant is better (ties do not count), and all.
    - seed_deviation : standard deviation over seeds of each seed's mean difference; NaN with one
      seed. The standard error does not hold what moves all clips of a training run together, so
      a verdict is fragile where this is not small beside the difference.
    - standard_error : standard deviation of the bootstrap means.
    - cautious_error : sqrt(standard_error^2 + seed_deviation^2 / seeds), which counts the luck of
      training as well, and some of the clips' chance twice; NaN with one seed.
    - detectable : smallest true difference that is found with probability 0.8 at the strictest step
      of Holm, (z(1 - 0.05 / (2 m)) + z(0.8)) * standard_error with m variants in the family.

    Where all recordings have the same difference, nothing varies: the standard error is 0,
    detectable is NaN, and the interval is that of the rule of three
    (`evaluation.bootstrap_interval`); p is 1 where that difference is 0. With one source recording
    nothing can be said: interval, p values, standard error and detectable are NaN.

    Raises
    ------
    ValueError
        Where a reference has no scores, a metric is unknown, resamples is below 1, a clip is scored
        twice by one seed or not by all seeds, a clip has no source recording or is in the table
        twice, or two variants were not scored on the same clips, seeds and folds.

    Sources
    -------
    Field, C. A. & Welsh, A. H. (2007). Bootstrapping clustered data. Journal of the Royal
    Statistical Society B 69(3), 369-390: whole groups are drawn. Hall, P. & Wilson, S. R. (1991).
    Two guidelines for bootstrap hypothesis testing. Biometrics 47(2), 757-762: the null
    distribution is that of mean* - mean. Davison, A. C. & Hinkley, D. V. (1997). Bootstrap Methods
    and their Application, chapter 4: the ones added to the p value.
    """
    for reference in references:
        if reference not in scores:
            raise ValueError(f"no scores of {reference!r}; there are: {', '.join(scores)}")
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(f"metrics must be of: {', '.join(METRICS)}; got {metric!r}")
    if resamples < 1:
        raise ValueError(f"resamples must be 1 or more; got {resamples}")
    if not references or not metrics:
        return _typed([])

    measured = _measure(scores, references[0])
    keys = measured[references[0]].index
    clip_ids = keys.get_level_values("clip_id").unique()
    folds = keys.get_level_values("fold").to_numpy()
    groups = _groups(clip_ids, table)

    variants = list(scores)
    # (clips, seeds, variants, metrics): sorted by clip and seed, and every clip has every seed.
    values = np.stack([measured[v][list(metrics)].to_numpy() for v in variants], axis=1)
    values = values.reshape(len(clip_ids), -1, len(variants), len(metrics))
    clips_each = np.bincount(groups)
    sums = np.zeros((len(clips_each), len(variants), len(metrics)))
    np.add.at(sums, groups, values.mean(axis=1))
    means = _bootstrap_means(sums, clips_each, resamples, seed)

    rows = []
    for m, metric in enumerate(metrics):
        sign = -1 if metric in LOWER_IS_BETTER else 1
        for reference in references:
            r = variants.index(reference)
            family = []
            for v, variant in enumerate(variants):
                if variant == reference:
                    continue
                each = values[:, :, v, m] - values[:, :, r, m]
                by_fold = pd.Series(each.ravel()).groupby(folds).mean()
                by_seed = each.mean(axis=0)
                family.append(
                    {
                        "metric": metric,
                        "reference": reference,
                        "variant": variant,
                        "difference": each.mean(),
                        **_interval_and_p(
                            each.mean(),
                            means[:, v, m] - means[:, r, m],
                            sums[:, v, m] - sums[:, r, m],
                            clips_each,
                        ),
                        "folds_better": int((sign * by_fold > ROUNDING).sum()),
                        "folds": len(by_fold),
                        "seed_deviation": by_seed.std(ddof=1) if len(by_seed) > 1 else np.nan,
                    }
                )
            critical = norm.ppf(1 - LEVEL / (2 * max(1, len(family))))
            for row in family:
                luck = row["seed_deviation"] ** 2 / values.shape[1]
                row["cautious_error"] = np.sqrt(row["standard_error"] ** 2 + luck)
            for row, p_holm, cautious_p in zip(
                family,
                holm([row["p"] for row in family]),
                holm([_normal_p(row["difference"], row["cautious_error"]) for row in family]),
                strict=True,
            ):
                found = bool(p_holm < LEVEL)
                row["p_holm"] = p_holm
                row["better"] = found and sign * row["difference"] > 0
                row["worse"] = found and sign * row["difference"] < 0
                error = row["standard_error"]
                row["fragile"] = found and not cautious_p < LEVEL
                row["detectable"] = (critical + norm.ppf(POWER)) * error if error > 0 else np.nan
            # Rounded, so that equal differences go by name and not by their last digits.
            rows += sorted(
                family, key=lambda row: (round(-sign * row["difference"], 12), row["variant"])
            )
    return _typed(rows)


def _measure(scores: dict[str, pd.DataFrame], reference: str) -> dict[str, pd.DataFrame]:
    """Return each variant's metrics by clip_id, seed and fold, all with one sorted, full index."""
    levels = ["clip_id", "seed", "fold"]
    measured = {}
    for variant, frame in scores.items():
        metrics = clip_metrics(frame)
        if metrics.duplicated(["clip_id", "seed"]).any():
            raise ValueError(f"{variant}: a clip is scored twice by one seed; the folds overlap")
        measured[variant] = metrics.set_index(levels)[list(METRICS)].sort_index()
    keys = measured[reference].index
    for variant, metrics in measured.items():
        if not metrics.index.equals(keys):
            clip_id, seed, fold = metrics.index.symmetric_difference(keys)[0]
            raise ValueError(
                f"{variant} and {reference} were not scored on the same clips, seeds and folds: "
                f"clip {clip_id!r}, seed {seed}, fold {fold} is in one of them only"
            )
    clip_ids, seeds = (keys.get_level_values(level) for level in levels[:2])
    if not len(keys):
        raise ValueError("scores hold no clips")
    if len(keys) != clip_ids.nunique() * seeds.nunique():
        short = seeds.groupby(clip_ids)
        clip_id = next(c for c, own in short.items() if len(own) < seeds.nunique())
        lacking = sorted(set(seeds) - set(short[clip_id]))
        raise ValueError(
            f"every clip must be scored by every seed; clip {clip_id!r} lacks seed "
            + ", ".join(map(str, lacking))
        )
    return measured


def _groups(clip_ids: pd.Index, table: pd.DataFrame) -> np.ndarray:
    """Return the number of each clip's source recording, 0 up, by the recordings' sorted names."""
    if not table.index.is_unique:
        raise ValueError(f"table has clip {table.index[table.index.duplicated()][0]!r} twice")
    names = clip_ids.map(table["group"])
    if names.isna().any():
        raise ValueError(f"table has no group for clip {clip_ids[names.isna()][0]!r}")
    return pd.factorize(names, sort=True)[0]


def _bootstrap_means(sums: np.ndarray, clips: np.ndarray, resamples: int, seed: int) -> np.ndarray:
    """Return the mean over clips of each resample of groups, shape (resamples, ...).

    Parameters
    ----------
    sums : sum over the clips of each group, shape (groups, ...).
    clips : number of clips of each group, shape (groups,). The groups differ in size, so each
        resample has its own number of clips.
    """
    generator = np.random.default_rng(seed)
    n, columns = len(clips), sums.reshape(len(clips), -1)
    at_once = max(1, DRAWS_AT_ONCE // n)
    parts = []
    for start in range(0, resamples, at_once):
        size = min(at_once, resamples - start)
        drawn = generator.integers(0, n, (size, n))
        drawn += np.arange(size)[:, None] * n
        # How often each group is in each resample; then all comparisons are one product.
        counts = np.bincount(drawn.ravel(), minlength=size * n).reshape(size, n).astype(float)
        parts.append((counts @ columns) / (counts @ clips)[:, None])
    return np.concatenate(parts).reshape(resamples, *sums.shape[1:])


def _interval_and_p(
    mean: float, means: np.ndarray, sums: np.ndarray, clips: np.ndarray
) -> dict[str, float]:
    """Return low, high, p and standard_error of a mean from its bootstrap means."""
    if len(clips) < 2:
        return dict.fromkeys(("low", "high", "p", "standard_error"), np.nan)
    if (np.abs(sums / clips - mean) < ROUNDING).all():
        # Every resample is the same. Rule of three: the 95 % bound of an event never seen in n.
        bound = 3 / len(clips)
        low, high, error = max(-1.0, mean - bound), min(1.0, mean + bound), 0.0
    else:
        low, high = np.quantile(means, [LEVEL / 2, 1 - LEVEL / 2])
        error = means.std(ddof=1)
    extreme = (np.abs(means - mean) >= abs(mean) - ROUNDING).sum()
    return {
        "low": low,
        "high": high,
        "p": (1 + extreme) / (1 + len(means)),
        "standard_error": error,
    }


def _normal_p(mean: float, error: float) -> float:
    """Return the two-sided p value of no difference; 1 where there is none, NaN without error."""
    if abs(mean) < ROUNDING:
        return 1.0
    return float(2 * norm.sf(abs(mean) / error)) if error > 0 else np.nan


def _typed(rows: list[dict]) -> pd.DataFrame:
    """Return rows as a frame whose types do not depend on whether there are any."""
    words, counts = COLUMNS[:3], ["folds_better", "folds"]
    flags = ["better", "worse", "fragile"]
    types = dict.fromkeys(COLUMNS, float) | dict.fromkeys(words, object)
    types |= dict.fromkeys(flags, bool) | dict.fromkeys(counts, int)
    return pd.DataFrame(rows, columns=COLUMNS).astype(types)


def variance_shares(results: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return how much of the variance between runs is due to representation, fold and seed.

    Balanced two-way random-effects analysis of variance with replication: run = mean +
    representation + fold + representation x fold + seed. The components follow from the mean
    squares by the method of moments. Representation x fold is what one representation gains on one
    fold in particular. Seeds are replications within a cell, so the seed's component is all that is
    left: the luck of a training run.

    Parameters
    ----------
    results : one row a run, columns ``variant``, ``fold``, ``seed`` and the metric; every variant
        on every fold with every seed, two or more of each.
    metric : column of ``results``, finite numbers, such as map3.

    Returns
    -------
    Four rows, sources representation, fold, representation x fold and seed. Columns source;
    variance (the metric's unit squared; a negative estimate, which means none, is set to 0); share
    of the sum of the variances, 0 to 1, NaN where all runs are equal; deviation, the square root
    of the variance, in the metric's unit.

    Raises
    ------
    ValueError
        Where a column is missing, the metric holds NaN or infinity, there are fewer than two
        variants, folds or seeds, or a cell lacks a seed or has it twice.

    Sources
    -------
    Searle, S. R., Casella, G. & McCulloch, C. E. (1992). Variance Components. Wiley, chapter 4:
    balanced data.
    """
    factors = ["variant", "fold", "seed"]
    missing = [column for column in [*factors, metric] if column not in results]
    if missing:
        raise ValueError(
            f"results has no column {missing[0]!r}; it has: {', '.join(map(str, results.columns))}"
        )
    values = results[metric].to_numpy(dtype=np.float64)
    if not np.isfinite(values).all():
        raise ValueError(f"results: column {metric!r} holds NaN or infinity")
    levels = {factor: sorted(results[factor].unique()) for factor in factors}
    for factor, names in levels.items():
        if len(names) < 2:
            raise ValueError(
                f"results must hold two or more of each {factor}; got {factor} "
                f"{', '.join(map(str, names)) or 'none'} only"
            )
    full = pd.MultiIndex.from_product(levels.values(), names=factors)
    runs = pd.Series(values, index=pd.MultiIndex.from_frame(results[factors]))
    for problem, index in (
        ("lacks", full.difference(runs.index)),
        ("has more than once", runs.index[runs.index.duplicated()]),
    ):
        if len(index):
            variant, fold, seed = index[0]
            raise ValueError(
                f"results must be balanced: variant {variant!r}, fold {fold} {problem} seed {seed}"
            )
    a, b, n = (len(names) for names in levels.values())
    y = runs.reindex(full).to_numpy().reshape(a, b, n)
    y = y - y[0, 0, 0]  # equal runs are then exactly 0

    cells = y.mean(axis=2)
    rows, columns, grand = cells.mean(axis=1), cells.mean(axis=0), cells.mean()
    interaction = cells - rows[:, None] - columns[None, :] + grand
    mean_square_rows = b * n * ((rows - grand) ** 2).sum() / (a - 1)
    mean_square_columns = a * n * ((columns - grand) ** 2).sum() / (b - 1)
    mean_square_interaction = n * (interaction**2).sum() / ((a - 1) * (b - 1))
    mean_square_seeds = ((y - cells[:, :, None]) ** 2).sum() / (a * b * (n - 1))
    variances = {
        "representation": (mean_square_rows - mean_square_interaction) / (b * n),
        "fold": (mean_square_columns - mean_square_interaction) / (a * n),
        "representation x fold": (mean_square_interaction - mean_square_seeds) / n,
        "seed": mean_square_seeds,
    }
    frame = pd.DataFrame({"source": list(variances), "variance": list(variances.values())})
    frame["variance"] = frame["variance"].clip(lower=0)
    total = frame["variance"].sum()
    frame["share"] = frame["variance"] / total if total > 0 else np.nan
    frame["deviation"] = np.sqrt(frame["variance"])
    return frame
