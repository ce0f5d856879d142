"""Waveforms, spectrograms and what a network sees, drawn with axes in seconds, Hz and dB."""

from collections.abc import Callable
from dataclasses import dataclass

import librosa.display
import matplotlib.pyplot as plt
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import (
    CONTROL_VARIANTS,
    FAMILIES,
    OTHER_VARIANTS,
    VARIANTS,
    Variant,
    get_channel,
    get_variant,
)
from freesound_tagging.features.spectrograms import DB_RANGE

COLOURS = "magma"
FONT = 9
STYLE = {"figure.dpi": 100, "savefig.dpi": 100, "font.size": FONT, "axes.titlesize": FONT + 1}
"""For ``plt.rcParams.update``: what can be read where a figure is 1000 pixels wide."""

FAMILY_COLOURS = dict(
    zip(FAMILIES, ("tab:blue", "tab:orange", "tab:gray", "tab:green"), strict=True)
)
_SHADES = dict(zip(FAMILIES, ("Blues", "Oranges", "Greys", "Greens"), strict=True))
_LIBROSA_AXES = {"linear": "linear", "log": "cqt_hz", "mel": "mel", "mel_htk": "mel"}


def colour_of(representation: str) -> tuple[float, float, float, float]:
    """Return the colour of a representation in every chart: a shade of its family's.

    Members of a family that stand in one table of `representations` differ.
    """
    family = get_variant(representation).family
    tables = (VARIANTS, CONTROL_VARIANTS, OTHER_VARIANTS)
    table = next(table for table in tables if representation in table)
    members = [name for name, variant in table.items() if variant.family == family]
    shades = np.linspace(0.35, 0.95, len(members))
    return colormaps[_SHADES[family]](shades[members.index(representation)])


@dataclass(frozen=True)
class SpectrogramAxes:
    """What the rows, columns and brightness of a representation's spectrograms stand for.

    Attributes
    ----------
    frequencies : centre of each row in Hz, lowest first; None where the channels differ, or where
        rows are no frequencies.
    times : centre of each column in seconds.
    decibels : whether brightness is in decibels below the clip's maximum.
    rows : what the rows are, in words.
    """

    frequencies: np.ndarray | None
    times: np.ndarray
    decibels: bool
    rows: str = "frequency (Hz)"


def spectrogram_axes(variant: Variant, grid: Grid) -> SpectrogramAxes:
    """Return the axes of a representation on a grid."""
    channels = [get_channel(name) for name in variant.channels]
    if channels[0].axis == "waveform":
        times = np.arange(grid.n_samples) / grid.sample_rate
        return SpectrogramAxes(None, times, False, "amplitude")
    decibels = variant.planes[0][1] == "db" and channels[0].limits(grid) is None
    if len({channel.axis for channel in channels}) > 1:
        return SpectrogramAxes(None, grid.times, decibels, "frequency (axes differ)")
    frequencies = channels[0].frequencies(grid)
    rows = "coefficient" if frequencies is None else "frequency (Hz)"
    return SpectrogramAxes(frequencies, grid.times, decibels, rows)


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
    """Draw one spectrogram in Hz and seconds, with librosa.

    Parameters
    ----------
    values : shape (frequency, time), lowest frequency first.
    frequencies : centre of each row in Hz, shape (frequency,).
    times : centre of each column in seconds, shape (time,).
    ax : where to draw; by default a new figure.
    title : a line above.
    axis : how to space the frequencies: ``"linear"``, ``"log"``, ``"mel"`` or ``"mel_htk"``.
    limits : values of the darkest and the brightest colour.
    unit : what the colours mean; it stands at the colour bar.
    colorbar : draw it.
    """
    ax = ax or _new_axes(6, 3.2)
    low, high = limits or (float(np.min(values)), float(np.max(values)))
    mesh = librosa.display.specshow(
        values,
        x_coords=np.asarray(times),
        y_coords=np.asarray(frequencies),
        x_axis="s",
        y_axis=_LIBROSA_AXES[axis],
        ax=ax,
        vmin=low,
        vmax=high,
        cmap=COLOURS,
        rasterized=True,
    )
    scale = "" if axis == "linear" else f", {axis.removesuffix('_htk')} axis"
    _label(ax, title, "time (s)", f"frequency (Hz{scale})")
    if colorbar:
        bar = ax.figure.colorbar(mesh, ax=ax, pad=0.02)
        bar.set_label(unit, fontsize=FONT)
        bar.ax.tick_params(labelsize=FONT)
    return ax


def show_planes(
    values: np.ndarray,
    axes: SpectrogramAxes | None,
    *,
    ax: Axes | None = None,
    title: str = "",
    colorbar: bool = False,
) -> Axes:
    """Draw what a network sees: one channel in colours, or three as red, green and blue.

    Parameters
    ----------
    values : shape (channels, frequency, time), 8-bit codes or floats from 0 to 1. Of a waveform one
        row, silence at 1/2; it is drawn as a line.
    axes : what rows and columns stand for; None for their numbers.
    ax : where to draw; by default a new figure.
    title : a line above.
    colorbar : draw one, in dB, beside one channel in decibels.
    """
    ax = ax or _new_axes(4, 3.2)
    scaled = values.astype(np.float32) / (255 if values.dtype == np.uint8 else 1)
    if axes is not None and axes.rows == "amplitude":
        signal = 2 * scaled.ravel() - 1
        ax.plot(np.linspace(0, axes.times[-1], len(signal)), signal, linewidth=0.5)
        _label(ax, title, "time (s)", axes.rows)
        return ax
    image = scaled[0] if len(scaled) == 1 else np.moveaxis(scaled[:3], 0, -1)
    drawn = ax.imshow(image, origin="lower", aspect="auto", cmap=COLOURS, vmin=0, vmax=1)
    if axes is None:
        _label(ax, title, "column", "row")
        return ax
    _tick(ax.set_xticks, _seconds_to_label(axes.times), axes.times)
    if axes.frequencies is None:
        ax.set_yticks([])
    else:
        _tick(ax.set_yticks, _hertz_to_label(axes.frequencies), axes.frequencies)
    _label(ax, title, "time (s)", axes.rows)
    if colorbar and axes.decibels and len(scaled) == 1:
        bar = ax.figure.colorbar(drawn, ax=ax, pad=0.02, ticks=[0, 0.25, 0.5, 0.75, 1])
        bar.ax.set_yticklabels([f"{(tick - 1) * DB_RANGE:g}" for tick in bar.get_ticks()])
        bar.set_label("dB", fontsize=FONT)
    return ax


def _seconds_to_label(times: np.ndarray) -> np.ndarray:
    step = next((step for step in (0.5, 1, 2, 5) if times[-1] <= 5 * step), 10)
    return np.arange(0, times[-1] + step, step)


def _hertz_to_label(frequencies: np.ndarray) -> np.ndarray:
    """Return round frequencies: evenly spaced where the rows are, otherwise 1, 2, 5 a decade."""
    steps = np.diff(frequencies)
    if np.allclose(steps, steps[0]):
        return np.arange(0, frequencies[-1], 2000 if frequencies[-1] > 6000 else 1000)
    return np.outer([10, 100, 1000, 10_000], [1, 2, 5]).flatten()


def _tick(set_ticks: Callable, wanted: np.ndarray, centres: np.ndarray) -> None:
    """Label those of the wanted values that lie in the picture, where they lie, if there is room.

    ``centres`` are those of its rows or columns; half of one lies outside them at either end.
    """
    first, last = centres[1] - centres[0], centres[-1] - centres[-2]
    edges = np.concatenate([[centres[0] - first / 2], centres, [centres[-1] + last / 2]])
    places = np.concatenate([[-0.5], np.arange(len(centres)), [len(centres) - 0.5]])
    chosen: dict[float, float] = {}
    for value in wanted:
        place = float(np.interp(value, edges, places))
        inside = edges[0] - 1e-9 <= value <= edges[-1] + 1e-9
        if inside and all(place - other > 0.06 * len(centres) for other in chosen.values()):
            chosen[float(value)] = place
    names = [f"{value / 1000:g}k" if value >= 1000 else f"{value:g}" for value in chosen]
    set_ticks(list(chosen.values()), names)


def show_waveform(
    waveform: np.ndarray, sample_rate: int, *, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draw a waveform, shape (time,), against seconds."""
    ax = ax or _new_axes(7, 1.8)
    ax.plot(np.arange(len(waveform)) / sample_rate, waveform, linewidth=0.5)
    ax.set_xlim(0, len(waveform) / sample_rate)
    _label(ax, title, "time (s)", "amplitude")
    return ax


def _new_axes(width: float, height: float) -> Axes:
    return plt.subplots(figsize=(width, height), dpi=STYLE["figure.dpi"])[1]


def _label(ax: Axes, title: str, x: str, y: str) -> None:
    """Name an axes and its sides; a title is drawn as it stands, dollar signs and all."""
    ax.set_title(title, fontsize=FONT + 1, parse_math=False)
    ax.set_xlabel(x, fontsize=FONT)
    ax.set_ylabel(y, fontsize=FONT)
    ax.tick_params(labelsize=FONT)


def draw_dollars(figure: Figure) -> None:
    """Draw the dollar signs in a figure's titles and labels as they are, not as a formula."""
    for text in figure.findobj(Text):
        if "$" in text.get_text() and "\\mathdefault" not in text.get_text():  # log axes' own
            text.set_parse_math(False)


def decibels(magnitude: np.ndarray) -> np.ndarray:
    """Return 20 log10(magnitude / its maximum), `DB_RANGE` below 0 at least."""
    top = float(np.max(magnitude))
    if top <= 0:
        return np.full(np.shape(magnitude), -DB_RANGE)
    return 20 * np.log10(np.maximum(magnitude / top, 10 ** (-DB_RANGE / 20)))
