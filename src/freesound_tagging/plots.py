"""Pictures with axes in Hz, seconds and dB; the results chart; the confusion matrix."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from freesound_tagging.variants import DB_RANGE, FAMILIES, get_variant

COLOURS = "magma"
METRIC_TITLES = {"top3_error": "top-3 error", "top1_accuracy": "top-1 accuracy", "map3": "MAP@3"}
FAMILY_COLOURS = dict(zip(FAMILIES, ("tab:blue", "tab:orange", "tab:green"), strict=True))


def _edges(centres: np.ndarray) -> np.ndarray:
    """Return the n + 1 borders between n centres; even in the logarithm where the centres are."""
    ratios, steps = centres[1:] / np.maximum(centres[:-1], 1e-12), np.diff(centres)
    if np.allclose(ratios, ratios[0], rtol=1e-6) and not np.allclose(steps, steps[0], rtol=1e-6):
        return np.exp(_edges(np.log(centres)))
    middles = (centres[1:] + centres[:-1]) / 2
    return np.concatenate([[centres[0] - steps[0] / 2], middles, [centres[-1] + steps[-1] / 2]])


def _format_hertz(value: float, _position: int | None = None) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"


def show_spectrogram(
    values: np.ndarray,
    frequencies: np.ndarray,
    times: np.ndarray,
    *,
    ax: Axes | None = None,
    title: str = "",
    axis: str = "linear",
    limits: tuple[float, float] | None = None,
    unit: str = "dB",
    colorbar: bool = True,
) -> Axes:
    """Draw one spectrogram.

    Parameters
    ----------
    values : shape (frequency, time), lowest frequency first.
    frequencies : centre of each row in Hz, shape (frequency,).
    times : centre of each column in seconds, shape (time,).
    ax : where to draw; by default a new figure.
    title : a line above the picture.
    axis : how to space the frequencies: ``"linear"``, ``"log"`` or ``"mel"`` (rows evenly, labelled
        in Hz).
    limits : values of the darkest and the brightest colour.
    unit : what the colours mean; it stands at the colour bar.
    colorbar : draw it.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 3.2))
    low, high = limits or (float(np.min(values)), float(np.max(values)))
    if axis == "mel":
        rows = np.arange(len(frequencies) + 1) - 0.5
        ticks = np.array([100, 500, 1000, 2000, 4000, 8000])
        ticks = ticks[(ticks >= frequencies[0]) & (ticks <= frequencies[-1])]
        ax.set_yticks(np.interp(ticks, frequencies, np.arange(len(frequencies))))
        ax.set_yticklabels([_format_hertz(tick) for tick in ticks])
    else:
        rows = np.clip(_edges(np.asarray(frequencies)), 0, None)
    mesh = ax.pcolormesh(
        _edges(np.asarray(times)), rows, values, vmin=low, vmax=high, cmap=COLOURS, rasterized=True
    )
    if axis == "log":
        ax.set_yscale("log", base=2)
        ax.set_yticks([tick for tick in 62.5 * 2.0 ** np.arange(9) if rows[0] <= tick <= rows[-1]])
    if axis != "mel":
        ax.yaxis.set_major_formatter(FuncFormatter(_format_hertz))
    ax.set_xlabel("time (s)")
    ax.set_ylabel(f"frequency (Hz{', ' + axis if axis != 'linear' else ''})")
    ax.set_title(title, fontsize=10)
    if colorbar:
        ax.figure.colorbar(mesh, ax=ax, label=unit, pad=0.02)
    return ax


def show_picture(values: np.ndarray, axes, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw what a network sees: one plane in colours, or three planes as red, green and blue.

    Parameters
    ----------
    values : shape (planes, frequency, time), 8-bit codes or floats from 0 to 1.
    axes : `freesound_tagging.dataloaders.PictureAxes`, or None for row and column numbers.
    ax : where to draw; by default a new figure.
    title : a line above the picture.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(4, 3.2))
    scaled = values.astype(np.float32) / (255 if values.dtype == np.uint8 else 1)
    image = scaled[0] if len(scaled) == 1 else np.moveaxis(scaled[:3], 0, -1)
    ax.imshow(image, origin="lower", aspect="auto", cmap=COLOURS, vmin=0, vmax=1)
    ax.set_title(title, fontsize=9)
    if axes is None:
        ax.set_xlabel("column")
        ax.set_ylabel("row")
        return ax
    _label_evenly(ax.set_xticks, axes.times, [0, 0.5, 1, 1.5, 2], "{:g}")
    ax.set_xlabel("time (s)", fontsize=8)
    if axes.frequencies is None:
        ax.set_yticks([])
        ax.set_ylabel("frequency (axes differ)", fontsize=8)
    else:
        wanted = [100, 1000, 10_000]
        inside = [hertz for hertz in wanted if axes.frequencies[0] <= hertz <= axes.frequencies[-1]]
        places = np.interp(inside, axes.frequencies, np.arange(len(axes.frequencies)))
        ax.set_yticks(places, [_format_hertz(hertz) for hertz in inside])
        ax.set_ylabel("frequency (Hz)", fontsize=8)
    ax.tick_params(labelsize=7)
    return ax


def _label_evenly(set_ticks, centres: np.ndarray, wanted: list[float], form: str) -> None:
    step = centres[1] - centres[0]
    places = [(value - centres[0]) / step for value in wanted]
    kept = [
        (place, value)
        for place, value in zip(places, wanted, strict=True)
        if -1 <= place <= len(centres)
    ]
    set_ticks([place for place, _ in kept], [form.format(value) for _, value in kept])


def show_waveform(
    waveform: np.ndarray, sample_rate: int, *, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draw a waveform, shape (time,), against seconds."""
    if ax is None:
        _, ax = plt.subplots(figsize=(6, 1.8))
    ax.plot(np.arange(len(waveform)) / sample_rate, waveform, linewidth=0.5)
    ax.set_xlim(0, len(waveform) / sample_rate)
    ax.set_xlabel("time (s)")
    ax.set_ylabel("amplitude")
    ax.set_title(title, fontsize=10)
    return ax


def show_summary(summary: pd.DataFrame, *, ax: Axes | None = None, title: str = "") -> Axes:
    """Draw the ranked table: top-3 error of each variant with its 95 % interval, best on top.

    Parameters
    ----------
    summary : as returned by `freesound_tagging.evaluation.summarise`.
    """
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 0.32 * len(summary) + 1.2))
    ranked = summary.iloc[::-1].reset_index(drop=True)
    for row, entry in ranked.iterrows():
        colour = FAMILY_COLOURS[get_variant(entry["variant"]).family]
        ax.plot(
            [entry["top3_error_low"], entry["top3_error_high"]],
            [row, row],
            color=colour,
            linewidth=2,
        )
        ax.plot(entry["top3_error"], row, "o", color=colour)
    ax.set_yticks(range(len(ranked)), ranked["variant"], fontsize=8)
    ax.set_xlabel(
        "top-3 error, out of fold (bar: 95 % interval over source recordings)", fontsize=8
    )
    ax.set_xlim(left=0)
    ax.grid(axis="x", alpha=0.3)
    for family, colour in FAMILY_COLOURS.items():
        ax.plot([], [], "o-", color=colour, label=family)
    ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=3, frameon=False)
    ax.set_title(title, fontsize=10)
    return ax


def show_differences(
    tests: pd.DataFrame, *, reference: str, metric: str, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draw each variant's paired difference from a reference, with 95 % intervals, best on top.

    Filled dots are differences that hold after Holm's correction, open ones those that do not.

    Parameters
    ----------
    tests : as returned by `freesound_tagging.statistics.paired_tests`.
    reference, metric : which of the comparisons.
    """
    chosen = (tests["reference"] == reference) & (tests["metric"] == metric)
    ranked = tests[chosen].iloc[::-1].reset_index(drop=True)
    if ax is None:
        _, ax = plt.subplots(figsize=(7, 0.32 * len(ranked) + 1.2))
    for row, entry in ranked.iterrows():
        colour = FAMILY_COLOURS[get_variant(entry["variant"]).family]
        ax.plot([entry["low"], entry["high"]], [row, row], color=colour, linewidth=2)
        found = entry["better"] or entry["worse"]
        ax.plot(entry["difference"], row, "o", color=colour, mfc=colour if found else "white")
    ax.axvline(0, color="black", linewidth=0.8)
    ax.set_yticks(range(len(ranked)), ranked["variant"], fontsize=8)
    ax.set_xlabel(
        f"{METRIC_TITLES[metric]} minus that of {reference}\n"
        "(bar: 95 % interval; filled:\ntold apart after Holm's correction)",
        fontsize=8,
    )
    ax.grid(axis="x", alpha=0.3)
    for family, colour in FAMILY_COLOURS.items():
        ax.plot([], [], "o-", color=colour, label=family)
    ax.legend(
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.21),
        ncols=3,
        frameon=False,
        handlelength=1.2,
        columnspacing=0.8,
    )
    ax.set_title(title, fontsize=10)
    return ax


def show_curves(curve: pd.DataFrame, study: str) -> Figure:
    """Draw accuracy on microcalls against difficulty or noise, and the gain over log dB.

    Bars are 95 % intervals.

    Parameters
    ----------
    curve : as returned by `freesound_tagging.findings.curve`.
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
                    ax.errorbar(x, part[middle], reach, color=f"C{number}", label=name, **style)
        families = "all families" if detail == "all" else f"families that differ in {detail}"
        top.set_title(families, fontsize=10)
        bottom.axhline(0, color="black", linewidth=0.8)
        bottom.set_xlabel(labels[study], fontsize=8)
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
            ax.text(column, row, text, ha="center", va="center", fontsize=7, color=shade)
    ax.set_xticks(range(len(counts)), counts.columns, rotation=90, fontsize=8)
    ax.set_yticks(range(len(counts)), counts.index, fontsize=8)
    ax.set_xlabel("predicted")
    ax.set_ylabel("true")
    ax.set_title(title, fontsize=10)
    return ax


def decibels(magnitude: np.ndarray, reference: float | None = None) -> np.ndarray:
    """Return 20 log10(magnitude / reference), `DB_RANGE` below 0 at least.

    The reference is the maximum where none is given.
    """
    top = float(np.max(magnitude)) if reference is None else reference
    if top <= 0:
        return np.full(np.shape(magnitude), -DB_RANGE)
    return 20 * np.log10(np.maximum(magnitude / top, 10 ** (-DB_RANGE / 20)))
