"""Plots draw what they are given, where the axes say it is."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.text import Text

from freesound_tagging.features import plots
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import (
    CONTROL_VARIANTS,
    OTHER_VARIANTS,
    VARIANTS,
    get_variant,
)
from freesound_tagging.features.spectrograms import axis_frequencies

GRID = Grid(hop_length=788, bins_per_octave=8)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def hertz_of(label: str) -> float:
    return float(label.removesuffix("k")) * (1000 if label.endswith("k") else 1)


@pytest.mark.parametrize("axis", ["linear", "log", "mel", "mel_htk"])
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
    assert ax.get_xlabel() == "time (s)" and "Hz" in ax.get_ylabel()
    assert [other.get_ylabel() for other in ax.figure.axes if other is not ax] == ["dB re peak"]


@pytest.mark.parametrize("name", ["linear_db", "log_db", "mel_db", "hires_q8_linear"])
@pytest.mark.parametrize("grid", [GRID, Grid(0x5622, 5.0, 788, 13, 400, 6000)])
def test_ticks_of_what_a_network_sees_lie_where_they_say(name, grid):
    axes = plots.spectrogram_axes(get_variant(name), grid)
    codes = np.random.default_rng(0).integers(0, 256, (1, grid.n_bins, grid.n_frames), np.uint8)
    ax = plots.show_planes(codes, axes, colorbar=True)
    assert np.allclose(ax.images[0].get_array(), codes[0] / 255)
    y = {
        hertz_of(t.get_text()): place
        for t, place in zip(ax.get_yticklabels(), ax.get_yticks(), strict=True)
    }
    x = {
        float(t.get_text()): place
        for t, place in zip(ax.get_xticklabels(), ax.get_xticks(), strict=True)
    }
    assert len(y) >= 3 and len(x) >= 3
    for hertz, place in y.items():
        assert np.interp(place, np.arange(grid.n_bins), axes.frequencies) == pytest.approx(
            np.clip(hertz, axes.frequencies[0], axes.frequencies[-1])
        )
    for seconds, place in x.items():  # column j is centred on (j + 1/2) hops
        hops = seconds * grid.sample_rate / grid.hop_length
        assert place == pytest.approx(hops - 0.5, abs=0.51)
    bar = next(other for other in ax.figure.axes if other is not ax)
    assert bar.get_ylabel() == "dB"
    assert [label.get_text() for label in bar.get_yticklabels()] == [
        "-80",
        "-60",
        "-40",
        "-20",
        "0",
    ]


def test_three_channels_are_red_green_and_blue():
    codes = np.random.default_rng(1).integers(0, 256, (3, 6, 5), np.uint8)
    image = plots.show_planes(codes, None).images[0].get_array()
    assert np.allclose(image, np.moveaxis(codes, 0, -1) / 255)


@pytest.mark.parametrize("name", VARIANTS | CONTROL_VARIANTS | OTHER_VARIANTS)
def test_every_representation_can_be_drawn(name):
    variant = get_variant(name)
    codes = np.zeros((len(variant.planes), GRID.n_bins, GRID.n_frames), np.uint8)
    ax = plots.show_planes(codes, plots.spectrogram_axes(variant, GRID), title=name)
    assert ("coefficient" in ax.get_ylabel()) == ("mfcc" in name)


@pytest.mark.parametrize("table", [VARIANTS, CONTROL_VARIANTS, OTHER_VARIANTS])
def test_every_representation_of_a_table_has_a_colour_of_its_own(table):
    assert len({plots.colour_of(name) for name in table}) == len(table)
    assert {variant.family for variant in table.values()} <= set(plots.FAMILY_COLOURS)


@pytest.mark.parametrize("label", ["$5_$", "Ba$$in", "$\\nonsense{$"])
def test_a_label_is_drawn_as_it_stands(label):
    ax = plots.show_waveform(np.zeros(100), 100, title=label)
    _, other = plt.subplots()
    other.set(title=label, xscale="log", xlim=(1, 1000))
    plots.draw_dollars(other.figure)
    for drawn in (ax, other):
        drawn.figure.canvas.draw()
        assert drawn.get_title() == label
        assert not drawn.title.get_parse_math()
    assert any(text.get_parse_math() for text in other.figure.findobj(Text))  # 10 to a power


def test_figures_can_be_read():
    ax = plots.show_spectrogram(np.eye(4), np.arange(1, 5) * 100.0, np.arange(4) / 10)
    assert ax.figure.dpi >= 100
    texts = [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.xaxis.label, ax.yaxis.label, ax.title]
    assert min(text.get_fontsize() for text in texts) >= 9
    assert ax.get_window_extent().width >= 220
