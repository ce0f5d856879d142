"""When is a difference real? One rule for every table of the repository.

The difference of two representations is the mean over clips and seeds of the paired difference.
Three kinds of luck move it, and its standard error holds all three:

- *recordings*: other recordings would have been drawn. Bootstrap over whole recordings.
- *folds*: another training set would have suited one representation more than the other
  (representation x fold), and another run on the same one, too.
- *seeds*: another first set of weights, another order of clips (representation x seed).

The last two come from an analysis of variance of all representations of the table: three seeds of
one pair alone would say next to nothing. Degrees of freedom are approximated after
Satterthwaite: each part of the variance counts with those of its own mean square. (His formula for
a difference of mean squares gives fewer. ``benchmarks/statistics/`` shows how often the rule as it
stands is wrong.) P values are adjusted over each family by Holm's procedure, and the verdict is one
of four words.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import pandas as pd
import scipy  # its stats are loaded when first used
from numpy.typing import ArrayLike

from freesound_tagging.scoring.metrics import clip_metrics

METRICS = ("top3_error", "top1_accuracy", "map3", "log_loss")
"""The metrics that are tested."""

LOWER_IS_BETTER = {"top3_error", "log_loss"}

VERDICT_METRIC = "map3"
"""The metric that carries the verdict on every data set: MAP@3.

Fixed before the three-seed grids were evaluated, so that no metric could be picked for its result.
It is the challenge's own metric, and unlike top-3 error it is not at its floor on ESC-10.
"""

REFERENCES = ("mel_db", "log_db")
"""The representations that all others are compared with."""

LEVEL = 0.05
"""Two-sided level of every test; intervals cover 1 - LEVEL."""

MARGIN = 0.02
"""Two representations are equivalent where the 90 % interval of their difference lies within this
of 0."""

POWER = 0.8
"""Probability with which the smallest detectable difference is found."""

VERDICTS = ("better", "worse", "equivalent", "inconclusive")

COLUMNS = [
    "metric",
    "variant",
    "reference",
    "difference",
    "low",
    "high",
    "low_90",
    "high_90",
    "p",
    "p_holm",
    "verdict",
    "standard_error",
    "recordings_error",
    "folds_error",
    "seeds_error",
    "df",
    "detectable",
    "seeds",
    "folds_better",
    "folds",
]
"""Columns of `compare`."""

ROUNDING = 1e-12
"""Metrics are thirds and halves, whose sums differ in the last digits by the order of adding."""

RESAMPLES = 1999
"""Draws of the bootstrap: its standard error is then known to 2 %."""


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
) -> pd.DataFrame:
    """Compare every representation with each reference; each reference in each metric is a family.

    Parameters, columns and errors as in `compare`. The rows of a family stand together, the best
    representation first.
    """
    pairs = [(variant, other) for other in references for variant in scores if variant != other]
    tests = compare(scores, table, pairs, metrics, family=("metric", "reference"))
    if tests.empty:
        return tests
    # Rounded, so that equal differences go by name and not by their last digits.
    gain = (tests["difference"] * tests["metric"].map(_sign)).round(12)
    place = {name: number for number, name in enumerate((*metrics, *references))}
    order = pd.DataFrame(
        {
            "metric": tests["metric"].map(place),
            "reference": tests["reference"].map(place),
            "gain": -gain,
            "variant": tests["variant"],
        }
    ).sort_values(["metric", "reference", "gain", "variant"])
    return tests.loc[order.index].reset_index(drop=True)


def compare(
    scores: dict[str, pd.DataFrame],
    table: pd.DataFrame,
    pairs: Sequence[tuple[str, str]],
    metrics: Sequence[str] = METRICS,
    family: Sequence[str] = ("metric",),
) -> pd.DataFrame:
    """Compare pairs of representations on the same clips, folds and seeds.

    Parameters
    ----------
    scores : representation -> scores, as for `metrics.clip_metrics`. Every clip must be scored once
        by every seed, and all representations on the same clips, seeds and folds. All of them, also
        those in no pair, tell how much training moves a result.
    table : clips, index ``clip_id``, column ``group``: the recording, or whatever else was drawn as
        one (FSDD: the speaker).
    pairs : representation and what it is compared with.
    metrics : of `METRICS`.
    family : columns whose values tell the families apart, over each of which p values are adjusted.

    Returns
    -------
    One row for each metric and pair, in the order given. Columns:

    - metric, variant, reference.
    - difference : variant minus reference.
    - low, high : 95 % interval, not adjusted for many pairs; low_90, high_90 : 90 % interval.
    - p : two-sided p value of no difference; p_holm : adjusted over the family.
    - verdict : better or worse where p_holm is below `LEVEL`; else equivalent where the 90 %
      interval lies within `MARGIN` of 0; else inconclusive.
    - standard_error : of the difference; squared, it is the sum of the squares of recordings_error,
      folds_error and seeds_error, see `standard_errors`.
    - df : its degrees of freedom.
    - detectable : smallest true difference that is found with probability `POWER` at the strictest
      step of Holm.
    - seeds; folds_better, folds : folds in which the variant is better, without ties, and all.

    Where all recordings have the same difference, nothing varies: the standard error is 0, the
    interval is that of the rule of three, p that of a sign test, and detectable NaN. With one
    recording nothing can be said: all of these are NaN and the verdict is inconclusive.

    Raises
    ------
    ValueError
        Where a representation has no scores, a metric is unknown, a clip is scored twice by one
        seed or not by all seeds, a clip has no recording or is in the table twice, or two
        representations were not scored on the same clips, seeds and folds.
    """
    for name in dict.fromkeys(name for pair in pairs for name in reversed(pair)):
        if name not in scores:
            raise ValueError(f"no scores of {name!r}; there are: {', '.join(scores)}")
    for metric in metrics:
        if metric not in METRICS:
            raise ValueError(f"metrics must be of: {', '.join(METRICS)}; got {metric!r}")
    if not pairs or not metrics:
        return pd.DataFrame(columns=COLUMNS)
    values, folds, groups = _measure(scores, table, metrics)
    place = {name: number for number, name in enumerate(scores)}
    places = [(place[variant], place[reference]) for variant, reference in pairs]
    frame = pd.concat(
        [
            standard_errors(values[..., m], folds, groups, places).assign(
                metric=metric,
                variant=[variant for variant, _ in pairs],
                reference=[reference for _, reference in pairs],
            )
            for m, metric in enumerate(metrics)
        ],
        ignore_index=True,
    )
    frame["seeds"] = values.shape[1]
    upward = frame["metric"].map(_sign) > 0
    frame["folds_better"] = frame["folds_above"].where(upward, frame["folds_below"])
    return judge(frame, len(np.unique(groups)), family)[COLUMNS]


def judge(frame: pd.DataFrame, recordings: int, family: Sequence[str]) -> pd.DataFrame:
    """Add intervals, p values, verdicts and what is detectable to differences and their errors.

    Parameters
    ----------
    frame : columns difference, standard_error, df, metric, and those of ``family``.
    recordings : how many were drawn.
    """
    difference, error, df = (frame[name] for name in ("difference", "standard_error", "df"))
    frame = frame.copy()
    for suffix, level in (("", LEVEL), ("_90", 2 * LEVEL)):
        reach = scipy.stats.t.ppf(1 - level / 2, df) * error
        # Where nothing varies: the bound of an event never seen in so many recordings.
        reach = reach.where(error != 0, -np.log(level) / recordings)
        # But for the log loss, metrics lie between 0 and 1.
        limit = np.where(frame["metric"] == "log_loss", np.inf, 1.0)
        frame[f"low{suffix}"] = np.maximum(difference - reach, -limit)
        frame[f"high{suffix}"] = np.minimum(difference + reach, limit)
    some = difference.abs() > ROUNDING
    p = 2 * scipy.stats.t.sf((difference.abs() / error.where(error > 0)), df)
    p = pd.Series(p, frame.index).where(error != 0, 2.0 ** (1 - recordings))
    frame["p"] = p.where(some | error.isna(), 1.0)
    families = frame.groupby(list(family), sort=False)["p"]
    frame["p_holm"] = families.transform(lambda own: holm(own.to_numpy()))
    tests = families.transform("count").clip(lower=1)
    needed = scipy.stats.t.ppf(1 - LEVEL / (2 * tests), df) + scipy.stats.t.ppf(POWER, df)
    frame["detectable"] = (needed * error).where(error > 0)
    gain = difference * frame["metric"].map(_sign)
    found = frame["p_holm"] < LEVEL
    within = (frame["low_90"] >= -MARGIN) & (frame["high_90"] <= MARGIN)
    frame["verdict"] = np.select(
        [found & (gain > 0), found & (gain < 0), within], VERDICTS[:3], VERDICTS[3]
    )
    return frame


def _sign(metric: str) -> int:
    return -1 if metric in LOWER_IS_BETTER else 1


def standard_errors(
    values: np.ndarray, folds: np.ndarray, groups: np.ndarray, pairs: Sequence[tuple[int, int]]
) -> pd.DataFrame:
    """Return the difference of each pair of representations, and its error by source.

    Parameters
    ----------
    values : a metric of every clip, shape (clips, seeds, representations).
    folds, groups : fold and recording of each clip, whole numbers, shape (clips,).
    pairs : places of the representation and of what it is compared with.

    Returns
    -------
    One row a pair: difference; standard_error and its three parts; df; folds_above, folds_below (in
    which the difference is positive, negative) and folds. The parts, where MS are mean squares of a
    balanced analysis of variance of the means over each fold and seed:

    - recordings_error^2 : variance over bootstrap draws of whole recordings.
    - folds_error^2 : 2 MS(representation x fold) / (folds seeds), which holds the recordings, too,
      less the mean of recordings_error^2 over all pairs; 0 where that is negative.
    - seeds_error^2 : 2 (MS(representation x seed) - MS(residual)) / (folds seeds); 0 where that is
      negative, or with one seed, which tells nothing of it.

    Sources
    -------
    Field, C. A. & Welsh, A. H. (2007). Bootstrapping clustered data. Journal of the Royal
    Statistical Society B 69(3), 369-390: whole groups are drawn. Searle, S. R., Casella, G. &
    McCulloch, C. E. (1992). Variance Components. Wiley, chapter 4. Satterthwaite, F. E. (1946). An
    approximate distribution of estimates of variance components. Biometrics Bulletin 2(6), 110-114.
    ``benchmarks/statistics/`` shows how often all this together is wrong.
    """
    _, n_seeds, n_variants = values.shape
    first, second = np.array(pairs).T
    by_clip = values.mean(axis=1)
    difference = by_clip.mean(axis=0)[first] - by_clip.mean(axis=0)[second]

    sizes = np.bincount(groups)
    n_groups = len(sizes)
    sums = np.zeros((n_groups, n_variants))
    np.add.at(sums, groups, by_clip)
    draws = _draws(n_groups)
    means = (draws @ sums) / (draws @ sizes)[:, None]
    nothing_varies = np.full(len(pairs), n_groups < 2)
    if n_groups > 1:
        # A draw of n from n varies less than n from the world, by (n - 1) / n.
        covariance = np.atleast_2d(np.cov(means, rowvar=False)) * n_groups / (n_groups - 1)
        own = np.diag(covariance)
        recordings = own[first] + own[second] - 2 * covariance[first, second]
        usual = 2 * (own.sum() - covariance.sum() / n_variants) / max(1, n_variants - 1)
        each = sums / sizes[:, None]
        apart = np.abs(each[:, first] - each[:, second] - difference)
        nothing_varies = (apart < ROUNDING).all(axis=0)
        recordings = np.where(nothing_varies, 0.0, recordings.clip(min=0))
    else:
        recordings, usual = np.full(len(pairs), np.nan), np.nan

    fold_of, n_folds = np.unique(folds, return_inverse=True)[1], len(np.unique(folds))
    cells = np.zeros((n_folds, n_seeds, n_variants))
    np.add.at(cells, fold_of, values)
    cells /= np.bincount(fold_of)[:, None, None]
    squares, freedom = _interactions(cells)
    scale = 2 / (n_folds * n_seeds)
    fold, seed, residual = (scale * square for square in squares)
    in_folds, in_seeds = max(0.0, fold - usual), max(0.0, seed - residual)

    total = recordings + np.where(nothing_varies, 0.0, in_folds + in_seeds)
    spread = recordings**2 / max(1, n_groups - 1)
    for part, degrees in ((in_folds, freedom[0]), (in_seeds, freedom[1])):
        spread = spread + part**2 / max(1, degrees)
    by_fold = cells.mean(axis=1)[:, first] - cells.mean(axis=1)[:, second]
    return pd.DataFrame(
        {
            "difference": difference,
            "standard_error": np.sqrt(total),
            "recordings_error": np.sqrt(recordings),
            "folds_error": np.where(nothing_varies, 0.0, np.sqrt(in_folds)),
            "seeds_error": np.where(nothing_varies, 0.0, np.sqrt(in_seeds)),
            "df": np.divide(total**2, spread, out=np.full(len(pairs), np.nan), where=spread > 0),
            "folds_above": (by_fold > ROUNDING).sum(axis=0),
            "folds_below": (by_fold < -ROUNDING).sum(axis=0),
            "folds": n_folds,
        }
    )


@lru_cache(maxsize=8)
def _draws(n: int) -> np.ndarray:
    """Return how often each of ``n`` is in each bootstrap draw, shape (RESAMPLES, n)."""
    generator = np.random.default_rng(0)
    return generator.multinomial(n, np.full(n, 1 / n), RESAMPLES).astype(float)


def _interactions(cells: np.ndarray) -> tuple[list[float], list[int]]:
    """Return mean squares and degrees of freedom of what depends on the representation.

    ``cells`` are means, shape (folds, seeds, representations). The three are representation x
    fold, representation x seed, and the residual, which is representation x fold x seed.
    """
    n_folds, n_seeds, n_variants = cells.shape
    apart = cells - cells.mean(axis=2, keepdims=True)
    apart = apart - apart.mean(axis=(0, 1))  # what a representation is better everywhere
    by_fold, by_seed = apart.mean(axis=1, keepdims=True), apart.mean(axis=0, keepdims=True)
    sums = [
        n_seeds * (by_fold**2).sum(),
        n_folds * (by_seed**2).sum(),
        ((apart - by_fold - by_seed) ** 2).sum(),
    ]
    freedom = [
        (n_variants - 1) * (n_folds - 1),
        (n_variants - 1) * (n_seeds - 1),
        (n_variants - 1) * (n_folds - 1) * (n_seeds - 1),
    ]
    squares = [total / df if df else 0.0 for total, df in zip(sums, freedom, strict=True)]
    return squares, freedom


def _measure(
    scores: dict[str, pd.DataFrame], table: pd.DataFrame, metrics: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return values (clips, seeds, representations, metrics), and fold and recording of each clip.

    Clips and seeds are sorted; the order of rows means nothing.
    """
    levels = ["clip_id", "seed", "fold"]
    measured = {}
    for variant, frame in scores.items():
        own = clip_metrics(frame)
        if own.duplicated(["clip_id", "seed"]).any():
            raise ValueError(f"{variant}: a clip is scored twice by one seed; the folds overlap")
        measured[variant] = own.set_index(levels)[list(metrics)].sort_index()
    first, *_ = measured
    keys = measured[first].index
    for variant, own in measured.items():
        if not own.index.equals(keys):
            clip_id, seed, fold = own.index.symmetric_difference(keys)[0]
            raise ValueError(
                f"{variant} and {first} were not scored on the same clips, seeds and folds: "
                f"clip {clip_id!r}, seed {seed}, fold {fold} is in one of them only"
            )
    if not len(keys):
        raise ValueError("scores hold no clips")
    clip_ids, seeds, folds = (keys.get_level_values(level) for level in levels)
    n_seeds = seeds.nunique()
    if len(keys) != clip_ids.nunique() * n_seeds:
        short = seeds.groupby(clip_ids)
        clip_id = next(c for c, own in short.items() if len(own) < n_seeds)
        lacking = sorted(set(seeds) - set(short[clip_id]))
        raise ValueError(
            f"every clip must be scored by every seed; clip {clip_id!r} lacks seed "
            + ", ".join(map(str, lacking))
        )
    values = np.stack([own.to_numpy() for own in measured.values()], axis=1)
    values = values.reshape(-1, n_seeds, len(measured), len(metrics))
    return values, folds.to_numpy()[::n_seeds], _groups(clip_ids[::n_seeds], table)


def _groups(clip_ids: pd.Index, table: pd.DataFrame) -> np.ndarray:
    """Return the number of each clip's source recording, 0 up, by the recordings' sorted names."""
    if not table.index.is_unique:
        raise ValueError(f"table has clip {table.index[table.index.duplicated()][0]!r} twice")
    names = clip_ids.map(table["group"])
    if names.isna().any():
        raise ValueError(f"table has no group for clip {clip_ids[names.isna()][0]!r}")
    return pd.factorize(names, sort=True)[0]


def common_runs(scores: dict[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the scores of the seeds with which every representation was trained on every fold.

    So that a grid that is not finished can be compared so far. Folds are all that any of the
    representations was scored on.
    """
    folds = {fold for frame in scores.values() for fold in frame["fold"].unique()}
    whole = [
        {seed for seed, own in frame.groupby("seed") if set(own["fold"]) == folds}
        for frame in scores.values()
    ]
    common = set.intersection(*whole) if whole else set()
    return {name: frame[frame["seed"].isin(common)] for name, frame in scores.items()}


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
