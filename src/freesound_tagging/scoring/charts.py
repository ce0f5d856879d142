"""Charts of scores: the ranked table, paired differences, learning curves, the confusion matrix."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from freesound_tagging.features.plots import FAMILY_COLOURS, colour_of

METRIC_TITLES = {"top3_error": "top-3 error", "top1_accuracy": "top-1 accuracy", "map3": "MAP@3"}


def show_summary(summary: pd.DataFrame, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw the ranked table: top-3 error of each variant with its 95 % interval, best on top.

    Parameters
    ----------
    summary : as returned by `freesound_tagging.scoring.metrics.summarise`.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 0.32 * len(summary) + 1.2))
    ranked = summary.iloc[::-1].reset_index(drop=True)
    for row, entry in ranked.iterrows():
        colour = colour_of(entry["variant"])
        ax.plot(
            [entry["top3_error_low"], entry["top3_error_high"]],
            [row, row],
            color=colour,
            linewidth=2,
        )
        ax.plot(entry["top3_error"], row, "o", color=colour)
    ax.set_yticks(range(len(ranked)), ranked["variant"], fontsize=9)
    ax.set_xlabel(
        "top-3 error, out of fold (bar: 95 % interval over source recordings)", fontsize=9
    )
    ax.set_xlim(left=0)
    ax.grid(axis="x", alpha=0.3)
    for family, colour in FAMILY_COLOURS.items():
        ax.plot([], [], "o-", color=colour, label=family)
    ax.legend(fontsize=9, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    ax.set_title(title, fontsize=10)
    return ax


def show_differences(
    tests: pd.DataFrame, *, reference: str, metric: str, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draw each variant's paired difference from a reference, with 95 % intervals, best on top.

    Filled dots are differences that hold after Holm's correction, open ones those that do not.

    Parameters
    ----------
    tests : as returned by `freesound_tagging.scoring.statistics.paired_tests`.
    reference, metric : which of the comparisons.
    """
    chosen = (tests["reference"] == reference) & (tests["metric"] == metric)
    ranked = tests[chosen].iloc[::-1].reset_index(drop=True)
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 0.32 * len(ranked) + 1.2))
    for row, entry in ranked.iterrows():
        colour = colour_of(entry["variant"])
        ax.plot([entry["low"], entry["high"]], [row, row], color=colour, linewidth=2)
        found = entry["better"] or entry["worse"]
        ax.plot(entry["difference"], row, "o", color=colour, mfc=colour if found else "white")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(ranked)), ranked["variant"], fontsize=9)
    ax.set_xlabel(
        f"{METRIC_TITLES[metric]} minus that of {reference}\n"
        "(bar: 95 % interval; filled:\ntold apart after Holm's correction)",
        fontsize=9,
    )
    ax.grid(axis="x", alpha=0.3)
    for family, colour in FAMILY_COLOURS.items():
        ax.plot([], [], "o-", color=colour, label=family)
    ax.legend(
        fontsize=9,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.21),
        ncols=3,
        frameon=False,
        handlelength=1.2,
        columnspacing=0.8,
    )
    ax.set_title(title, fontsize=10)
    return ax


def show_against(
    tests: dict[str, pd.DataFrame],
    representations: list[str],
    *,
    reference: str = "log_db",
    metric: str = "map3",
) -> Figure:
    """Draw differences from a reference with 95 % intervals, a panel per data set, rows in common.

    Filled dots are differences that hold after Holm's correction, open ones those that do not, or
    that rest on the luck of training.

    Parameters
    ----------
    tests : data set -> paired tests, as `freesound_tagging.scoring.statistics.paired_tests`.
    representations : the rows, from the top; a data set that lacks one leaves its row empty.
    """
    lines = -(-len(tests) // 3)
    figure, axes = plt.subplots(
        lines,
        3,
        figsize=(9.8, lines * (0.3 * len(representations) + 1.3)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for ax in axes.flat[len(tests) :]:
        ax.set_axis_off()
    for ax, (name, frame) in zip(axes.flat, tests.items(), strict=False):
        chosen = (frame["metric"] == metric) & (frame["reference"] == reference)
        for row in frame[chosen & frame["variant"].isin(representations)].itertuples():
            place, colour = representations.index(row.variant), colour_of(row.variant)
            found = (row.better or row.worse) and not getattr(row, "fragile", False)
            ax.plot([row.low, row.high], [place, place], color=colour, linewidth=2)
            ax.plot(row.difference, place, "o", color=colour, mfc=colour if found else "white")
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(representations)), representations)
        ax.set(title=name, xlabel=f"{METRIC_TITLES[metric]} minus that of {reference}")
        ax.grid(axis="x", alpha=0.3)
    axes[0, 0].invert_yaxis()
    return figure


def show_curves(curve: pd.DataFrame, study: str) -> Figure:
    """Draw accuracy on microcalls against difficulty or noise, and the gain over log dB.

    Bars are 95 % intervals.

    Parameters
    ----------
    curve : as returned by `freesound_tagging.reporting.findings.curve`.
    study : ``"difficulty"`` or ``"noise"``.
    """
    labels = {
        "difficulty": "difficulty (1: the corpus; higher: finer)",
        "noise": "signal-to-noise ratio (dB)",
    }
    figure, axes = plt.subplots(2, 3, figsize=(10, 6), sharex=True, sharey="row")
    place = curve["cell"].str.removesuffix("dB").astype(float)
    style = {"fmt": "o-", "markersize": 3, "linewidth": 1.2, "elinewidth": 0.8}
    for column, detail in enumerate(["all", "frequency", "time"]):
        for number, (name, part) in enumerate(
            curve[curve["detail"] == detail].groupby("variant", sort=False)
        ):
            x = place[part.index]
            # Side by side, or the intervals would lie on one another.
            x = x * 2 ** (0.05 * (number - 2)) if study == "difficulty" else x + 0.5 * (number - 2)
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
        if study == "difficulty":
            bottom.set_xscale("log", base=2)
            bottom.set_xticks(sorted(place.unique()), [f"{x:g}" for x in sorted(place.unique())])
    axes[0, 0].set_ylabel("top-1 accuracy (chance: 1/16)", fontsize=9)
    axes[1, 0].set_ylabel("minus log_db's, same clips", fontsize=9)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    handles = axes[0, 0].get_legend_handles_labels()
    figure.legend(*handles, loc="lower center", ncols=5, fontsize=9, frameon=False)
    return figure


def show_confusion(counts: pd.DataFrame, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw a confusion matrix as shares of each true class; cells of 1 % or more carry a number."""
    if ax is None:
        side = 0.38 * len(counts) + 2
        _, ax = plt.subplots(figsize=(side + 0.6, side))
    shares = counts.to_numpy() / np.maximum(counts.to_numpy().sum(axis=1, keepdims=True), 1)
    ax.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(counts) <= 20:
        for row, column in zip(*np.nonzero(shares >= 0.01), strict=True):
            shade = "white" if shares[row, column] > 0.5 else "black"
            text = f"{100 * shares[row, column]:.0f}"
            ax.text(column, row, text, ha="center", va="center", fontsize=9, color=shade)
    ax.set_xticks(range(len(counts)), counts.columns, rotation=90, fontsize=9)
    ax.set_yticks(range(len(counts)), counts.index, fontsize=9)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title(title, fontsize=10)
    return ax
