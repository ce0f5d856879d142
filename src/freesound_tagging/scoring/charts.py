"""Charts of scores: the ranked table, paired differences, the confusion matrix."""

from collections.abc import Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from freesound_tagging.features.plots import colour_of
from freesound_tagging.scoring.metrics import METRIC, METRIC_TITLE


def show_summary(summary: pd.DataFrame, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw the table of `summarise`, best on top: top-1 accuracy with its 95 % interval."""
    ax = ax or plt.subplots(figsize=(7, 0.32 * len(summary) + 1.2), layout="constrained")[1]
    for place, row in enumerate(summary.to_dict("records")):
        colour = colour_of(row["variant"])
        ax.plot([row[f"{METRIC}_low"], row[f"{METRIC}_high"]], [place] * 2, color=colour, lw=2)
        ax.plot(row[METRIC], place, "o", color=colour)
    ax.set_yticks(range(len(summary)), summary["variant"])
    ax.invert_yaxis()
    ax.grid(axis="x", alpha=0.3)
    ax.set_xlabel(f"{METRIC_TITLE}, out of fold (line: 95 % interval)")
    ax.set_title(title)
    return ax


def show_differences(panels: dict[str, tuple[pd.DataFrame, Sequence[pd.DataFrame]]]) -> Figure:
    """Draw paired differences: a small dot for each fold and seed, the mean with its interval.

    The mean is filled where the verdict is better or worse. ``panels``, all on one x scale, are
    title -> rows of `statistics.compare`, and for each row its `statistics.by_fold_and_seed`.
    """
    heights = [len(contrasts) + 2 for contrasts, _ in panels.values()]  # with title and axis
    options = {"sharex": True, "squeeze": False, "layout": "constrained"}
    size = 8.5, 0.42 * sum(heights)
    figure, axes = plt.subplots(len(panels), 1, figsize=size, height_ratios=heights, **options)
    for ax, (title, (contrasts, dots)) in zip(axes.flat, panels.items(), strict=True):
        rows = zip(contrasts.to_dict("records"), dots, strict=True)
        for place, (row, cells) in enumerate(rows):
            colour = colour_of(row["variant"])
            for number, seed in enumerate(cells):
                below = [place + 0.12 * number] * len(cells)
                ax.plot(cells[seed], below, ".", color="0.6", markersize=4)
            above = place - 0.2
            ax.plot([row["low"], row["high"]], [above, above], color=colour, linewidth=2)
            face = colour if row["verdict"] in ("better", "worse") else "white"
            ax.plot(row["difference"], above, "o", color=colour, markerfacecolor=face)
        names = contrasts["variant"] + " - " + contrasts["reference"]
        ax.set_yticks(range(len(names)), names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.grid(axis="x", alpha=0.3)
        ax.set_title(title)
    key = "(dot: one fold and seed; line: 95 % interval; filled: better or worse)"
    axes[-1, 0].set_xlabel(f"difference in {METRIC_TITLE}\n{key}")
    return figure


def show_confusion(counts: pd.DataFrame, title: str = "", most: int = 40) -> Axes:
    """Draw counts in % of each true class; of more than ``most``, those with most errors."""
    from sklearn.metrics import ConfusionMatrixDisplay  # two seconds, for this chart alone

    shares = 100 * counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    if len(counts) > most:
        hard = sorted(shares.to_numpy().diagonal().argsort(kind="stable")[:most])
        shares = shares.iloc[hard, hard]
        title = f"{title}\nthe {most} of {len(counts)} classes with most errors".strip()
    side = max(0.38 * len(shares) + 2, 6.4)
    _, ax = plt.subplots(figsize=(side + 0.6, side))
    display = ConfusionMatrixDisplay(shares.to_numpy(), display_labels=shares.columns).plot(
        ax=ax,
        cmap="Blues",
        include_values=len(shares) <= 20,
        values_format=".0f",
        xticks_rotation="vertical",
        colorbar=False,
        im_kw={"vmin": 0, "vmax": 100},
    )
    if display.text_ is not None:
        for text, share in zip(display.text_.flat, shares.to_numpy().flat, strict=True):
            text.set_visible(share >= 1)
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set_parse_math(False)  # a label may hold dollars
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_title(title, parse_math=False)
    return ax
