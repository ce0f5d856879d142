"""Waveforms, spectrograms and what a network sees, drawn with axes in seconds, Hz and dB."""

from dataclasses import dataclass

import librosa.display
import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from freesound_tagging.features.codes import CODE_LEVELS, DB_RANGE, relative_decibels
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import ALL_VARIANTS, Variant, get_channel

COLOURS = "magma"

_SHADES = {"standard": "Blues", "high resolution": "Oranges", "filters unmoved": "Greys"}
_LIBROSA_AXES = {"linear": "linear", "log": "cqt_hz", "mel": "mel", "yamnet": "mel"}


def use_style() -> None:
    """Draw from here on as the notebooks do, whatever the user's matplotlibrc says."""
    plt.style.use(["default", {"figure.dpi": 100, "savefig.dpi": 100, "font.size": 9}])


def colour_of(representation: str) -> tuple[float, float, float, float]:
    """Return the colour of a representation in every chart: a shade of its family's."""
    family = ALL_VARIANTS[representation].family
    members = [name for name, variant in ALL_VARIANTS.items() if variant.family == family]
    shade = np.linspace(0.35, 0.95, len(members))[members.index(representation)]
    return matplotlib.colormaps[_SHADES.get(family, "Greens")](shade)


@dataclass(frozen=True)
class SpectrogramAxes:
    """What the rows, columns and brightness of a representation's spectrograms stand for."""

    frequencies: np.ndarray | None  # centre of each row in Hz, lowest first; None where none is
    times: np.ndarray  # centre of each column in seconds
    unit: str = ""  # of the brightness; empty where it has none
    rows: str = "frequency (Hz)"  # what the rows are, in words
    axis: str = "linear"  # how the frequencies are spaced: linear, log, mel or yamnet


def spectrogram_axes(variant: Variant, grid: Grid) -> SpectrogramAxes:
    """Return the axes of a representation on a grid."""
    first, *others = [get_channel(name) for name in variant.channels]
    if first.axis == "waveform":
        times = np.arange(grid.n_samples) / grid.sample_rate
        return SpectrogramAxes(None, times, rows="amplitude")
    if any(channel.axis != first.axis for channel in others):
        return SpectrogramAxes(None, grid.times, rows="frequency (axes differ)")
    if first.axis == "mfcc":
        return SpectrogramAxes(None, grid.times, rows="coefficient")
    units, unit = {"db": "dB", "linear": "magnitude / maximum"}, ""
    if not others and first.reach is None:
        unit = units[variant.planes[0][1]]
    return SpectrogramAxes(first.frequencies(grid), grid.times, unit, axis=first.axis)


def show_spectrogram(
    values: np.ndarray,
    frequencies: np.ndarray | None,
    times: np.ndarray,
    *,
    ax: Axes | None = None,
    title: str = "",
    axis: str = "linear",
    limits: tuple[float, float] | None = None,
    unit: str = "",
    rows: str = "frequency (Hz)",
) -> Axes:
    """Draw one spectrogram in Hz and seconds, with librosa; the rest as `SpectrogramAxes` has it.

    ``values`` have the shape (frequency, time), lowest frequency first; or (frequency, time, 3),
    red, green and blue from 0 to 1. ``limits`` are of the darkest and the brightest colour. The
    unit stands at a colour bar; without it there is none.
    """
    ax = ax or plt.subplots(figsize=(6, 3.2))[1]
    mesh = librosa.display.specshow(
        values,
        x_coords=times,
        y_coords=np.arange(len(values)) if frequencies is None else frequencies,
        x_axis="s",
        y_axis=None if frequencies is None else _LIBROSA_AXES[axis],
        ax=ax,
        cmap=COLOURS,
        clim=limits,
    )
    _label(ax, title, "time (s)", rows)
    if unit:
        ax.figure.colorbar(mesh, ax=ax, pad=0.02, label=unit)
    return ax


def show_planes(
    values: np.ndarray,
    axes: SpectrogramAxes,
    *,
    ax: Axes | None = None,
    title: str = "",
    colorbar: bool = False,
) -> Axes:
    """Draw what a network sees: one channel in colours, or three as red, green and blue.

    ``values`` have the shape (channels, frequency, time), 8-bit codes or floats from 0 to 1; of a
    waveform one row, silence at 1/2, which is drawn as a line. A ``colorbar`` stands beside a
    channel whose brightness has a unit.
    """
    ax = ax or plt.subplots(figsize=(4, 3.2))[1]
    codes = values.dtype == np.uint8
    levels = values.astype(np.float32) / (CODE_LEVELS if codes else 1)
    image = levels[0] if len(levels) == 1 else np.moveaxis(levels, 0, -1)
    if axes.rows == "amplitude":
        ax.plot(axes.times, 2 * levels.ravel() - 1, linewidth=0.5)
        _label(ax, title, "time (s)", axes.rows)
        return ax
    unit, limits = axes.unit, (0, 1)
    if unit == "dB" or (unit and codes):  # codes are in dB on either loudness scale
        image, unit, limits = (image - 1) * DB_RANGE, "dB", (-DB_RANGE, 0)
    style = {"ax": ax, "title": title, "axis": axes.axis, "limits": limits, "rows": axes.rows}
    style["unit"] = unit if colorbar else ""
    return show_spectrogram(image, axes.frequencies, axes.times, **style)


def show_waveform(
    waveform: np.ndarray, sample_rate: int, *, ax: Axes | None = None, title: str = ""
) -> Axes:
    """Draw a waveform, shape (time,), against seconds."""
    ax = ax or plt.subplots(figsize=(7, 1.8))[1]
    ax.plot(np.arange(len(waveform)) / sample_rate, waveform, linewidth=0.5)
    ax.set_xlim(0, len(waveform) / sample_rate)
    _label(ax, title, "time (s)", "amplitude")
    return ax


def _label(ax: Axes, title: str, x: str, y: str) -> None:
    """Name an axes and its sides; a title is drawn as it stands, dollar signs and all."""
    ax.set_title(title, parse_math=False)
    ax.set(xlabel=x, ylabel=y)


def draw_dollars(figure: Figure) -> None:
    """Draw the dollar signs of a figure's texts as they are, not as a formula."""
    for text in figure.findobj(Text):
        if "$" in text.get_text() and "\\mathdefault" not in text.get_text():  # log axes' own
            text.set_parse_math(False)


def decibels(magnitude: np.ndarray) -> np.ndarray:
    """Return 20 log10(magnitude / its maximum), `DB_RANGE` below 0 at least."""
    return relative_decibels(torch.from_numpy(np.asarray(magnitude))).numpy()
