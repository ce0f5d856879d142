"""Out-of-fold scores -> top-3 error, MAP@3, log loss, intervals, the ranked table, hardest pairs.

Scores are a DataFrame with one row for each clip and seed: ``clip_id``, ``seed``, ``fold``,
``label``, and one column of probabilities for each class. Everything is joined by ``clip_id``; the
order of rows means nothing.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

KEYS = ["clip_id", "seed", "fold", "label"]
"""Columns of the scores that are not classes; some have ``strangeness`` as well."""

METRICS = ["top1_accuracy", "top3_error", "map3"]
METRIC, METRIC_TITLE = "top1_accuracy", "top-1 accuracy"
"""The metric that ranks, and that decides about differences (results/PLAN.md says why)."""

SUMMARY = [
    *("variant", "n", "seeds", "top1_accuracy", "top3_error", "top3_error_low", "top3_error_high"),
    *("map3", "log_loss", "balanced_accuracy", "top1_accuracy_low", "top1_accuracy_high"),
]
"""Columns of `summarise`."""


def target_ranks(scores: ArrayLike, targets: ArrayLike) -> np.ndarray:
    """Return the place of the true class in each row's ranking, 0 for the highest score.

    ``scores`` are finite, shape (n, classes), ``targets`` the index of each row's true class. Of
    equal scores that with the lower index ranks first: a constant row is no hit for all. Anything
    else is a ValueError.
    """
    scores, targets = np.asarray(scores, dtype=np.float64), np.asarray(targets)
    if scores.ndim != 2 or targets.shape != scores.shape[:1]:
        raise ValueError(
            f"scores {scores.shape} must be (n, classes), targets {targets.shape} (n,)"
        )
    if not np.isfinite(scores).all():
        row = np.isfinite(scores).all(axis=1).argmin()
        raise ValueError(f"scores hold NaN or infinity, first in row {row}, counted from 0")
    if not ((targets >= 0) & (targets < scores.shape[1])).all():
        raise ValueError(f"targets must lie in 0..{scores.shape[1] - 1}")
    order = np.argsort(-scores, axis=1, kind="stable")
    return (order == targets[:, None]).argmax(axis=1)


def top_k_error(scores: ArrayLike, targets: ArrayLike, k: int = 3) -> float:
    """Return the share of rows whose true class is not among the ``k`` highest, 0 to 1."""
    return float((target_ranks(scores, targets) >= k).mean())


def map_at_k(scores: ArrayLike, targets: ArrayLike, k: int = 3) -> float:
    """Return the mean average precision at ``k`` for one true class a row, 0 to 1.

    It is the mean of 1/rank where the rank is at most ``k``, and 0 elsewhere.
    """
    ranks = target_ranks(scores, targets)
    return float(np.where(ranks < k, 1 / (ranks + 1), 0).mean())


def classes_of(scores: pd.DataFrame) -> list[str]:
    """Return the names of the classes that the scores are about, in column order."""
    return [column for column in scores.columns if column not in (*KEYS, "strangeness")]


def true_indices(scores: pd.DataFrame) -> np.ndarray:
    """Return the place of each row's label among the classes, shape (rows,)."""
    classes = classes_of(scores)
    places = pd.Index(classes).get_indexer(scores["label"])
    if (places < 0).any():
        unknown = scores["label"][places < 0].iloc[0]
        raise ValueError(f"no column has scores of label {unknown!r}; they are of {classes}")
    return places


def clip_metrics(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each row's keys with its own top1_accuracy, top3_error, map3 and log_loss."""
    values, targets = scores[classes_of(scores)].to_numpy(dtype=float), true_indices(scores)
    ranks = target_ranks(values, targets)
    true = values[np.arange(len(values)), targets]
    return scores[KEYS].assign(
        top1_accuracy=(ranks == 0).astype(float),
        top3_error=(ranks >= 3).astype(float),
        map3=np.where(ranks < 3, 1 / (ranks + 1), 0.0),
        log_loss=-np.log(true.clip(min=1e-12)),
    )


def average_networks(scores: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with a clip's rows (seeds, representations) averaged to one, of seed 0."""
    classes = classes_of(scores)
    mean = scores.groupby(["clip_id", "fold", "label"])[classes].mean()
    return mean.reset_index().assign(seed=0)[[*KEYS, *classes]]


def bootstrap_means(
    values: np.ndarray, recordings: ArrayLike, draws: int = 1_999, seed: int = 0
) -> np.ndarray:
    """Return means over clips and seeds that are drawn with replacement, shape (draws, ...).

    ``values`` have the shape (clips, seeds, ...), ``recordings`` name each clip's source recording.
    Recordings and seeds are drawn together, as many as there are: a drawn recording brings all its
    clips, a drawn seed all its runs.

    Sources
    -------
    Field, C. A. & Welsh, A. H. (2007). Bootstrapping clustered data. Journal of the Royal
    Statistical Society B 69(3), 369-390. Owen, A. B. (2007). The pigeonhole bootstrap. Annals of
    Applied Statistics 1(2), 386-411: drawing both ways is on the safe side, for it counts the luck
    of one clip in one run more than once.
    """
    places = np.unique(recordings, return_inverse=True)[1]
    sizes = np.bincount(places)
    sums = np.zeros((len(sizes), *values.shape[1:]))
    np.add.at(sums, places, values)
    n, seeds = sums.shape[:2]
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, draws, 100):  # all at once would take gigabytes
        block = min(100, draws - start)
        drawn = rng.integers(n, size=(block, n))
        drawn_seeds = rng.integers(seeds, size=(block, seeds))
        totals = sums[drawn].sum(axis=1)[np.arange(block)[:, None], drawn_seeds].mean(axis=1)
        means.append((totals.T / sizes[drawn].sum(axis=1)).T)
    return np.concatenate(means)


def interval(values: np.ndarray, recordings: ArrayLike) -> tuple[float, float]:
    """Return the 95 % interval of a mean that lies between 0 and 1, as `bootstrap_means` draws.

    ``values`` have the shape (clips, seeds), ``recordings`` (clips,).
    """
    level = values.mean()
    if (values == level).all():
        # Nothing varies. Rule of three: the 95 % bound of an event never seen in n.
        bound = 3 / len(np.unique(recordings))
        return max(0.0, level - bound), min(1.0, level + bound)
    low, high = np.quantile(bootstrap_means(values, recordings), [0.025, 0.975])
    return float(low), float(high)


def summarise(scores: dict[str, pd.DataFrame], table: pd.DataFrame) -> pd.DataFrame:
    """Return the table of variants, best first: by top-1 accuracy, and where equal by MAP@3.

    ``scores`` are variant -> out-of-fold scores; each seed has scored the same clips. ``table`` has
    the index ``clip_id`` and a column ``group``. The columns are `SUMMARY`: ``n`` clips, means over
    clips and seeds (``balanced_accuracy``: over classes), 95 % intervals from _low to _high.
    """
    rows = []
    for variant, frame in scores.items():
        metrics = clip_metrics(frame)
        row = {"variant": variant, **metrics.drop(columns=KEYS).mean()}
        row["balanced_accuracy"] = metrics.groupby("label")["top1_accuracy"].mean().mean()
        for name in ("top1_accuracy", "top3_error"):
            by_clip = metrics.pivot(index="clip_id", columns="seed", values=name)
            low, high = interval(by_clip.to_numpy(), table["group"].loc[by_clip.index])
            row |= {f"{name}_low": low, f"{name}_high": high}
        row["n"], row["seeds"] = by_clip.shape
        rows.append(row)
    summary, by = pd.DataFrame(rows, columns=SUMMARY), [METRIC, "map3"]
    return summary.sort_values(by, ascending=False, kind="stable", ignore_index=True)


def confusion(scores: pd.DataFrame) -> pd.DataFrame:
    """Return how often each class (row) was taken for each (column), counted over all seeds."""
    from sklearn.metrics import confusion_matrix  # slow to load

    classes = classes_of(scores)
    counts = confusion_matrix(scores["label"], scores[classes].idxmax(axis=1), labels=classes)
    return pd.DataFrame(counts, pd.Index(classes, name="true"), classes)


def hardest_pairs(counts: pd.DataFrame, n: int = 5) -> pd.DataFrame:
    """Return the ``n`` pairs of classes most often taken for each other, from `confusion`'s counts.

    ``share`` is confusions over all clips of the two classes.
    """
    values, names, totals = counts.to_numpy(), counts.columns, counts.sum(axis=1).to_numpy()
    a, b = np.triu_indices(len(names), k=1)
    pairs = pd.DataFrame({"class_a": names[a], "class_b": names[b]})
    pairs = pairs.assign(a_as_b=values[a, b], b_as_a=values[b, a])
    pairs["share"] = (values[a, b] + values[b, a]) / (totals[a] + totals[b])
    return pairs[pairs["share"] > 0].nlargest(n, "share").reset_index(drop=True)


def class_report(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each class's top-1 accuracy, top-3 error and MAP@3, worst MAP@3 first."""
    return clip_metrics(scores).groupby("label")[METRICS].mean().sort_values("map3")
