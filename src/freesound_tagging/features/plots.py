"""Pictures with axes in Hz, seconds and dB; the results chart; the confusion matrix."""

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from freesound_tagging.features.spectrograms import DB_RANGE

COLOURS = "magma"


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
    axes : `freesound_tagging.learning.dataloaders.PictureAxes`, or None for row and column numbers.
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


def decibels(magnitude: np.ndarray, reference: float | None = None) -> np.ndarray:
    """Return 20 log10(magnitude / reference), `DB_RANGE` below 0 at least.

    The reference is the maximum where none is given.
    """
    top = float(np.max(magnitude)) if reference is None else reference
    if top <= 0:
        return np.full(np.shape(magnitude), -DB_RANGE)
    return 20 * np.log10(np.maximum(magnitude / top, 10 ** (-DB_RANGE / 20)))
