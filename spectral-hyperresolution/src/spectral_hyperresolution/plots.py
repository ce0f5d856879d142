"""Pictures with axes in Hz, seconds and dB."""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps


def show_picture(
    power: np.ndarray,
    time_edges: np.ndarray,
    frequency_edges: np.ndarray,
    axes,
    limits: tuple[float, float] | None = None,
    range_db: float = 60.0,
):
    """Draw power in dB below its maximum on a logarithmic frequency axis.

    Parameters
    ----------
    power : array, shape (frequency, time)
        Energy, >= 0; empty cells get the lowest colour.
    time_edges, frequency_edges : arrays
        Edges of the cells in s and Hz, one more than cells.
    axes : matplotlib.axes.Axes
    limits : (float, float), optional
        Frequencies to show in Hz; by default all.
    range_db : float
        Range below the maximum in dB, > 0.

    Returns
    -------
    matplotlib.collections.QuadMesh
        For a colour bar.
    """
    floor = 10 ** (-range_db / 10)
    level = 10 * np.log10(np.maximum(power / max(power.max(), 1e-300), floor))
    # Steps of 2 dB: as much as an eye tells apart, and small files.
    colours = colormaps["magma"].resampled(max(round(range_db / 2), 2))
    mesh = axes.pcolormesh(
        time_edges, frequency_edges, level, cmap=colours, vmin=-range_db, vmax=0, rasterized=True
    )
    axes.set_yscale("log")
    axes.set_ylim(limits or (frequency_edges[0], frequency_edges[-1]))
    ticks = (100, 200, 500, 1000, 2000, 5000, 10_000, 20_000)
    low, high = axes.get_ylim()
    axes.set_yticks([t for t in ticks if low <= t <= high], minor=False)
    axes.yaxis.set_major_formatter("{x:.0f}")
    axes.yaxis.set_minor_formatter("")
    if axes.get_subplotspec() is None or axes.get_subplotspec().is_first_col():
        axes.set_ylabel("frequency (Hz)")
    if axes.get_subplotspec() is None or axes.get_subplotspec().is_last_row():
        axes.set_xlabel("time (s)")
    return mesh
