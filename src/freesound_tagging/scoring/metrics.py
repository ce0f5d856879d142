"""Out-of-fold scores -> top-3 error, MAP@3, log loss, intervals, the ranked table, hardest pairs.

Scores are a DataFrame with one row for each clip and seed: ``clip_id``, ``seed``, ``fold``,
``label``, and one column of probabilities for each class. Everything is joined by ``clip_id``; the
order of rows means nothing.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy  # its stats are loaded when first used
from numpy.typing import ArrayLike

KEYS = ["clip_id", "seed", "fold", "label"]
"""Columns of the scores that are not classes."""

METRIC_TITLES = {
    "top3_error": "top-3 error",
    "top1_accuracy": "top-1 accuracy",
    "map3": "MAP@3",
    "log_loss": "log loss",
}

FEW_CLASSES = 3
"""With this many classes or fewer no top-3 error is made, and MAP@3 ranks in its place."""


def target_ranks(scores: ArrayLike, targets: ArrayLike) -> np.ndarray:
    """Return the place of the true class in each row's ranking, 0 for the highest score.

    Of equal scores the class with the lower index ranks first, so a constant row does not count as
    a hit for all.

    Parameters
    ----------
    scores : finite, shape (n, classes), higher is more likely.
    targets : index of the true class, shape (n,).

    Raises
    ------
    ValueError
        Where shapes do not agree, a target is no class, or a score is NaN or infinite.
    """
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ValueError(
            f"scores must be (n, classes) and targets (n,); got {scores.shape} and {targets.shape}"
        )
    if not np.isfinite(scores).all():
        raise ValueError("scores hold NaN or infinity")
    if len(targets) and (targets.min() < 0 or targets.max() >= scores.shape[1]):
        raise ValueError(f"targets must lie in 0..{scores.shape[1] - 1}")
    true = scores[np.arange(len(scores)), targets][:, None]
    before = np.arange(scores.shape[1])[None, :] < targets[:, None]
    return (scores > true).sum(axis=1) + ((scores == true) & before).sum(axis=1)


def top_k_error(scores: ArrayLike, targets: ArrayLike, k: int = 3) -> float:
    """Return the share of rows whose true class is not among the ``k`` highest scores, 0 to 1.

    Parameters and errors as in `target_ranks`.
    """
    return float((target_ranks(scores, targets) >= k).mean())


def map_at_k(scores: ArrayLike, targets: ArrayLike, k: int = 3) -> float:
    """Return the mean average precision at ``k`` for one true class a row, 0 to 1.

    With one true class it is the mean of 1/rank where the rank is at most ``k``, and 0 elsewhere:
    the challenge's metric (MAP@3). Parameters and errors as in `target_ranks`.
    """
    ranks = target_ranks(scores, targets)
    return float(np.where(ranks < k, 1 / (ranks + 1), 0).mean())


def classes_of(scores: pd.DataFrame) -> list[str]:
    """Return the names of the classes that the scores are about, in column order."""
    return [column for column in scores.columns if column not in KEYS]


def true_indices(scores: pd.DataFrame) -> np.ndarray:
    """Return the place of each row's label among the classes, shape (rows,).

    Raises
    ------
    ValueError
        A label is no class.
    """
    classes = classes_of(scores)
    indices = pd.Index(classes).get_indexer(scores["label"])
    if (indices < 0).any():
        unknown = scores["label"].iloc[int(np.flatnonzero(indices < 0)[0])]
        raise ValueError(
            f"label {unknown!r} is no column of the scores; they are: {', '.join(classes)}"
        )
    return indices


def clip_metrics(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each row's keys with its own top1_accuracy, top3_error, map3 and log_loss.

    The log loss is -ln of the true class's probability, which counts as 1e-12 at least.
    """
    values, targets = scores[classes_of(scores)].to_numpy(dtype=float), true_indices(scores)
    ranks = target_ranks(values, targets)
    true = values[np.arange(len(values)), targets]
    return scores[KEYS].assign(
        top1_accuracy=(ranks == 0).astype(float),
        top3_error=(ranks >= 3).astype(float),
        map3=np.where(ranks < 3, 1 / (ranks + 1), 0.0),
        log_loss=-np.log(np.clip(true, 1e-12, None)),
    )


def average_networks(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with the probabilities of a clip's rows averaged, as seed 0.

    The rows are those of several seeds, or of several representations whose scores stand together.
    """
    classes = classes_of(scores)
    mean = scores.groupby(["clip_id", "fold", "label"])[classes].mean()
    return mean.reset_index().assign(seed=0)[[*KEYS, *classes]]


def bootstrap_interval(
    values: pd.Series,
    groups: pd.Series,
    resamples: int = 2999,
    seed: int = 0,
    limits: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """Return the 95 % interval of a mean, drawing whole source recordings with replacement.

    Clips of one recording are alike, and runs of one clip even more so; an interval that drew clips
    or runs on their own would be too narrow.

    Parameters
    ----------
    values : one number a row.
    groups : the source recording of each row, same index.
    limits : least and greatest value that the mean can have.
    """
    sums = values.groupby(groups.to_numpy()).agg(["sum", "count"])
    if len(sums) < 2:
        return float("nan"), float("nan")
    if values.nunique() == 1:
        # Nothing varies, so every resample is the same. Rule of three: the 95 % bound of an event
        # never seen in n.
        level, bound = float(values.iloc[0]), 3 / len(sums)
        return max(limits[0], level - bound), min(limits[1], level + bound)
    result = scipy.stats.bootstrap(
        (sums["sum"].to_numpy(), sums["count"].to_numpy()),
        lambda total, count, axis=-1: total.sum(axis=axis) / count.sum(axis=axis),
        paired=True,
        vectorized=True,
        method="percentile",
        n_resamples=resamples,
        batch=1000,
        rng=np.random.default_rng(seed),
    )
    return float(result.confidence_interval.low), float(result.confidence_interval.high)


def summarise(scores: dict[str, pd.DataFrame], table: pd.DataFrame) -> pd.DataFrame:
    """Return the ranked table of variants, best first: by `rank_metric`, then by MAP@3.

    Parameters
    ----------
    scores : variant -> out-of-fold scores.
    table : clips, index ``clip_id``, column ``group``.

    Returns
    -------
    Columns variant, n (clips), seeds, top1_accuracy, top3_error, top3_error_low, top3_error_high
    (95 %), map3, map3_low, map3_high, log_loss, balanced_accuracy (mean over classes of the top-1
    accuracy), classes (how many).

    Raises
    ------
    ValueError
        Where a clip is scored twice by one seed: then the folds overlap and the scores are not
        out-of-fold.
    """
    rows = []
    for variant, frame in scores.items():
        if frame.duplicated(["clip_id", "seed"]).any():
            raise ValueError(f"{variant}: a clip is scored twice by one seed; the folds overlap")
        metrics = clip_metrics(frame)
        groups = metrics["clip_id"].map(table["group"])
        low, high = bootstrap_interval(metrics["top3_error"], groups)
        map3_low, map3_high = bootstrap_interval(metrics["map3"], groups)
        rows.append(
            {
                "variant": variant,
                "n": metrics["clip_id"].nunique(),
                "seeds": metrics["seed"].nunique(),
                "top1_accuracy": metrics["top1_accuracy"].mean(),
                "top3_error": metrics["top3_error"].mean(),
                "top3_error_low": low,
                "top3_error_high": high,
                "map3": metrics["map3"].mean(),
                "map3_low": map3_low,
                "map3_high": map3_high,
                "log_loss": metrics["log_loss"].mean(),
                "balanced_accuracy": metrics.groupby("label")["top1_accuracy"].mean().mean(),
                "classes": len(classes_of(frame)),
            }
        )
    summary = pd.DataFrame(rows)
    by = [rank_metric(summary), "map3"]
    return summary.sort_values(by, ascending=[by[0] != "map3", False]).reset_index(drop=True)


def rank_metric(summary: pd.DataFrame) -> str:
    """Return what ranks the variants of a summary: top3_error, or map3 with `FEW_CLASSES`."""
    if "classes" in summary and summary["classes"].max() <= FEW_CLASSES:
        return "map3"
    return "top3_error"


def confusion(scores: pd.DataFrame) -> pd.DataFrame:
    """Return how often each class (row) was taken for each (column), counted over all seeds."""
    classes = classes_of(scores)
    predicted = np.asarray(classes)[scores[classes].to_numpy().argmax(axis=1)]
    counts = pd.crosstab(scores["label"].to_numpy(), predicted)
    counts = counts.reindex(index=classes, columns=classes, fill_value=0)
    return counts.rename_axis(index="true", columns=None)


def hardest_pairs(counts: pd.DataFrame, n: int = 5) -> pd.DataFrame:
    """Return the ``n`` pairs of classes most often taken for each other.

    Parameters
    ----------
    counts : as returned by `confusion`.

    Returns
    -------
    Columns class_a, class_b, a_as_b, b_as_a (counts) and share: confusions over all clips of the
    two classes.
    """
    values, names = counts.to_numpy(), list(counts.columns)
    totals = values.sum(axis=1)
    rows = [
        (
            names[a],
            names[b],
            values[a, b],
            values[b, a],
            (values[a, b] + values[b, a]) / (totals[a] + totals[b]),
        )
        for a in range(len(names))
        for b in range(a + 1, len(names))
        if totals[a] + totals[b]
    ]
    pairs = pd.DataFrame(rows, columns=["class_a", "class_b", "a_as_b", "b_as_a", "share"])
    pairs = pairs[pairs["share"] > 0]
    return pairs.sort_values("share", ascending=False, kind="stable").head(n).reset_index(drop=True)


def class_report(scores: pd.DataFrame, classes: Sequence[str] | None = None) -> pd.DataFrame:
    """Return each class's top-1 accuracy, top-3 error and MAP@3, worst MAP@3 first."""
    metrics = clip_metrics(scores)
    report = metrics.groupby("label")[["top1_accuracy", "top3_error", "map3"]].mean()
    return report.loc[list(classes)] if classes is not None else report.sort_values("map3")
