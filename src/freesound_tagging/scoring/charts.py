"""Charts of scores: the ranked table, paired differences, learning curves, the confusion matrix."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from freesound_tagging.features.plots import FAMILY_COLOURS, colour_of
from freesound_tagging.features.representations import get_variant
from freesound_tagging.scoring.metrics import METRIC_TITLES, rank_metric


def show_summary(summary: pd.DataFrame, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw the ranked table, best on top: top-3 error of each variant with its 95 % interval.

    With few classes it is MAP@3, see `freesound_tagging.scoring.metrics.rank_metric`.

    Parameters
    ----------
    summary : as returned by `freesound_tagging.scoring.metrics.summarise`.
    """
    metric = rank_metric(summary)
    columns = {f"{metric}_low": "low", f"{metric}_high": "high", metric: "middle"}
    ax = _bars(summary.rename(columns=columns), ax)
    ax.set_xlabel(
        f"{METRIC_TITLES[metric]}, out of fold (bar: 95 % interval over source recordings)",
        fontsize=9,
    )
    if metric == "top3_error":
        ax.set_xlim(left=0)
    _families(ax, summary["variant"], borderaxespad=3.8)
    ax.set_title(title, fontsize=10)
    return ax


def show_differences(
    tests: pd.DataFrame, *, reference: str, metric: str, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draw each variant's paired difference from a reference, with 95 % intervals, best on top.

    Filled dots are statistically significant after Holm's correction, open ones are not.

    Parameters
    ----------
    tests : as returned by `freesound_tagging.scoring.statistics.paired_tests`.
    reference, metric : which of the comparisons.
    """
    chosen = (tests["reference"] == reference) & (tests["metric"] == metric)
    ax = _bars(tests[chosen].rename(columns={"difference": "middle"}), ax)
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_xlabel(
        f"{METRIC_TITLES[metric]} minus that of {reference}\n"
        "(bar: 95 % interval; filled: statistically\nsignificant after Holm's correction)",
        fontsize=9,
    )
    shown = [*tests[chosen]["variant"], reference]
    _families(ax, shown, borderaxespad=6.6, handlelength=1.2, columnspacing=0.8)
    ax.set_title(title, fontsize=10)
    return ax


def _bars(ranked: pd.DataFrame, ax: Axes | None) -> Axes:
    """Draw a row for each representation, best on top: its ``middle`` and from ``low`` to ``high``.

    Dots are open where there is a ``verdict`` and it is neither better nor worse.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 0.32 * len(ranked) + 1.2))
    for place, row in enumerate(ranked.iloc[::-1].to_dict("records")):
        _bar(ax, place, row)
    ax.set_yticks(range(len(ranked)), ranked["variant"][::-1], fontsize=9)
    return ax


def _bar(ax: Axes, place: int, row: dict) -> None:
    colour = colour_of(row["variant"])
    filled = row.get("verdict", "better") in ("better", "worse")
    ax.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
    ax.plot(row["middle"], place, "o", color=colour, mfc=colour if filled else "white")


def _families(ax: Axes, variants: Iterable[str], **place) -> None:
    """Draw vertical lines, and below them the colours of the families that are there."""
    ax.grid(axis="x", alpha=0.3)
    present = {get_variant(name).family for name in variants}
    for family, colour in FAMILY_COLOURS.items():
        if family not in present:
            continue
        ax.plot([], [], "o-", color=colour, label=family)
    ax.legend(
        fontsize=9, loc="upper center", ncols=3, frameon=False, bbox_to_anchor=(0.5, 0), **place
    )


def show_against(
    tests: dict[str, pd.DataFrame],
    representations: list[str],
    *,
    reference: str = "log_db",
    metric: str = "map3",
) -> Figure:
    """Draw differences from a reference with 95 % intervals, a panel per data set, rows in common.

    Filled dots have the verdict better or worse, open ones equivalent or inconclusive
    (`freesound_tagging.scoring.statistics`).

    Parameters
    ----------
    tests : data set -> paired tests, as `freesound_tagging.scoring.statistics.paired_tests`.
    representations : the rows, from the top; a data set that lacks one leaves its row empty.
    """
    columns = 2 if len(tests) in (2, 4) else 3  # so that no row is nearly empty
    lines = -(-len(tests) // columns)
    figure, axes = plt.subplots(
        lines,
        columns,
        figsize=(9.8, lines * (0.3 * len(representations) + 1.3)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[len(tests) :]:
        ax.set_axis_off()
    for ax, (name, frame) in zip(axes.flat, tests.items(), strict=False):
        chosen = (frame["metric"] == metric) & (frame["reference"] == reference)
        frame = frame[chosen & frame["variant"].isin(representations)]
        for row in frame.rename(columns={"difference": "middle"}).to_dict("records"):
            _bar(ax, representations.index(row["variant"]), row)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(representations)), representations)
        ax.set(title=name, xlabel=f"{METRIC_TITLES[metric]} minus that of {reference}")
        ax.grid(axis="x", alpha=0.3)
        ax.locator_params(axis="x", nbins=5)
    axes[0, 0].set_ylim(len(representations) - 0.5, -0.5)
    return figure


def show_curves(curve: pd.DataFrame, study: str) -> Figure:
    """Draw accuracy on microcalls against what a study varies, and the gain over log dB.

    Bars are 95 % intervals.

    Parameters
    ----------
    curve : as returned by `freesound_tagging.reporting.analyses.curve`.
    study : ``"difficulty"``, ``"noise"`` or ``"learning"``.
    """
    labels = {
        "difficulty": "difficulty (1: the corpus; higher: finer)",
        "noise": "signal-to-noise ratio (dB)",
        "learning": "clips per class",
    }
    in_octaves = study != "noise"
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), sharex=True, sharey="row")
    place = curve["cell"].str.removesuffix("dB").astype(float)
    style = {"fmt": "o-", "markersize": 3, "linewidth": 1.2, "elinewidth": 0.8}
    for column, detail in enumerate(["all", "frequency", "time"]):
        for number, (name, part) in enumerate(
            curve[curve["detail"] == detail].groupby("variant", sort=False)
        ):
            x = place[part.index]
            # Side by side, or the intervals would lie on one another.
            x = x * 2 ** (0.05 * (number - 2)) if in_octaves else x + 0.5 * (number - 2)
            top, bottom = axes[0, column], axes[1, column]
            for ax, middle, low, high in [
                (top, "top1_accuracy", "low", "high"),
                (bottom, "difference", "difference_low", "difference_high"),
            ]:
                if ax is top or name != "log_db":
                    reach = [part[middle] - part[low], part[high] - part[middle]]
                    ax.errorbar(x, part[middle], reach, color=colour_of(name), label=name, **style)
        families = "all families" if detail == "all" else f"families that differ in {detail}"
        top.set_title(families, fontsize=10)
        bottom.axhline(0, color="black", linewidth=0.8)
        bottom.set_xlabel(labels[study], fontsize=9)
        if in_octaves:
            bottom.set_xscale("log", base=2)
        bottom.set_xticks(sorted(place.unique()), [f"{x:g}" for x in sorted(place.unique())])
    axes[0, 0].set_ylabel("top-1 accuracy (chance: 1/16)", fontsize=9)
    axes[1, 0].set_ylabel("minus log_db's, same clips", fontsize=9)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="lower center", ncols=5, fontsize=9, frameon=False)
    return figure


MOST_CLASSES = 40
"""A confusion matrix shows no more classes than can be read."""


def show_confusion(counts: pd.DataFrame, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw a confusion matrix in % of each true class.

    Of more than `MOST_CLASSES` classes those with the largest share of errors are shown, and the
    title says so. Up to 20 classes, cells carry their number.
    """
    from sklearn.metrics import ConfusionMatrixDisplay  # two seconds, for this chart alone

    shares = 100 * counts.div(counts.sum(axis=1).clip(lower=1), axis=0)
    if len(counts) > MOST_CLASSES:
        right = pd.Series(shares.to_numpy().diagonal(), shares.index)
        hard = right.sort_values(kind="stable").index[:MOST_CLASSES]
        kept = [name for name in shares.columns if name in set(hard)]
        shares = shares.loc[kept, kept]
        title = f"{title}\nthe {MOST_CLASSES} of {len(counts)} classes with most errors".strip()
    if ax is None:
        side = max(0.38 * len(shares) + 2, 6.4)
        _, ax = plt.subplots(figsize=(side + 0.6, side))
    display = ConfusionMatrixDisplay(shares.to_numpy(), display_labels=shares.columns)
    display.plot(
        ax=ax,
        cmap="Blues",
        include_values=len(shares) <= 20,
        values_format=".0f",
        xticks_rotation="vertical",
        colorbar=False,
        im_kw={"vmin": 0, "vmax": 100},
        text_kw={"fontsize": 9},
    )
    if display.text_ is not None:
        for text, share in zip(display.text_.flat, shares.to_numpy().flat, strict=True):
            text.set_visible(share >= 1)
    for label in (*ax.get_xticklabels(), *ax.get_yticklabels()):
        label.set(fontsize=9, parse_math=False)  # a label may hold dollars
    ax.set(xlabel="predicted", ylabel="true")
    ax.set_title(title, fontsize=10, parse_math=False)
    return ax
