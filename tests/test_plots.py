"""Plots draw what they are given, where the axes say it is."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from freesound_tagging.features import plots
from freesound_tagging.features.filterbanks import axis_frequencies
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import (
    ALL_VARIANTS,
    get_channel,
    get_variant,
)

GRID = Grid(hop_length=788, bins_per_octave=8)


def bars_of(ax) -> list[str]:
    return [other.get_ylabel() for other in ax.figure.axes if other is not ax]


@pytest.mark.parametrize("axis", ["linear", "log", "mel"])
def test_a_spectrogram_is_drawn_in_hertz_and_seconds(axis):
    frequencies, times = axis_frequencies(axis, GRID), GRID.times
    values = np.zeros((GRID.n_bins, GRID.n_frames))
    row, column = GRID.n_bins // 2, 20
    values[row, column] = 1
    ax = plots.show_spectrogram(values, frequencies, times, axis=axis, unit="dB re peak")
    ax.figure.canvas.draw()
    (mesh,) = ax.collections
    assert np.array_equal(np.asarray(mesh.get_array()).reshape(values.shape), values)
    corners = mesh.get_coordinates()[row : row + 2, column : column + 2]
    assert corners[0, 0, 0] < times[column] < corners[1, 1, 0]
    assert corners[0, 0, 1] < frequencies[row] < corners[1, 1, 1]
    low, high = ax.get_ylim()
    assert low <= frequencies[0] < frequencies[-1] <= high
    ticks = [tick for tick in ax.get_yticks() if low <= tick <= high]
    assert len(ticks) >= 3
    # Labels say where their ticks are; spacing is the axis' own.
    for tick in ticks:
        assert float(ax.yaxis.get_major_formatter()(tick) or tick) == pytest.approx(tick, rel=0.01)
    assert (ax.get_yscale() == "linear") == (axis == "linear")
    assert ax.get_xlabel() == "time (s)" and ax.get_ylabel() == "frequency (Hz)"
    assert bars_of(ax) == ["dB re peak"]
    assert bars_of(plots.show_spectrogram(values, frequencies, times)) == []


@pytest.mark.parametrize("name", sorted(ALL_VARIANTS.keys() - {"yamnet"}))  # no embedding
def test_every_representation_is_drawn_in_its_units(name):
    variant, axes = get_variant(name), plots.spectrogram_axes(get_variant(name), GRID)
    shape = len(variant.planes), *get_channel(variant.channels[0]).shape(GRID)
    codes = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    levels = (codes / 255).astype(np.float32)  # as a network sees them
    ax = plots.show_planes(levels, axes, title=name, colorbar=True)
    assert ax.get_xlabel() == "time (s)"
    if name == "waveform":
        line = ax.lines[0].get_ydata()
        np.testing.assert_allclose(line, 2 * levels[0, 0] - 1)
        return
    mesh = ax.collections[0]
    drawn = np.asarray(mesh.get_array()).reshape(*shape[1:], -1)
    if len(variant.planes) == 3:  # red, green and blue
        np.testing.assert_allclose(drawn, np.moveaxis(levels, 0, -1))
        assert bars_of(ax) == []
    elif variant.planes[0][1] == "db":
        np.testing.assert_allclose(drawn[..., 0], 80 * levels[0] - 80, atol=1e-4)
        assert mesh.get_clim() == (-80, 0) and bars_of(ax) == ["dB"]
    else:
        np.testing.assert_allclose(drawn[..., 0], levels[0])
        assert mesh.get_clim() == (0, 1) and bars_of(ax) == ["magnitude / maximum"]
        assert bars_of(plots.show_planes(codes, axes, colorbar=True)) == ["dB"]  # codes are in dB
    assert ("coefficient" in ax.get_ylabel()) == ("mfcc" in name)
    if axes.frequencies is not None:
        low, high = ax.get_ylim()
        assert low <= axes.frequencies[0] < axes.frequencies[-1] <= high


def test_every_representation_has_a_colour_of_its_own():
    known = ALL_VARIANTS
    assert len({plots.colour_of(name) for name in known}) == len(known)


@pytest.mark.parametrize("label", ["Ba$$in", "$\\nonsense{$"])
def test_a_label_is_drawn_as_it_stands_whatever_the_users_settings(label):
    with matplotlib.rc_context({"text.usetex": True, "font.family": "serif"}):
        plots.use_style()
        ax = plots.show_waveform(np.zeros(100), 100, title=label)
        _, other = plt.subplots()
        other.set(title=label, xscale="log", xlim=(1, 1000))
        plots.draw_dollars(other.figure)
        for drawn in (ax, other):
            drawn.figure.canvas.draw()
            assert drawn.get_title() == label and not drawn.title.get_parse_math()
        assert any(text.get_parse_math() for text in other.figure.findobj(Text))  # 10 to a power


def test_decibels_reach_from_the_maximum_80_down():
    np.testing.assert_allclose(plots.decibels(np.array([[2.0, 0.2, 0.0]])), [[0, -20, -80]])
    assert (plots.decibels(np.zeros((2, 3))) == -80).all()
