"""LinearReassignment: physics, shapes, batches, blocks, both backends, both forms."""

import numpy as np
import pytest
import signals
import torch
from hyperresolution_helpers import cosine, relative_error
from hypothesis import given, settings
from hypothesis import strategies as st
from yardstick import linear_reassignment

from spectral_hyperresolution import (
    LinearReassignment,
    consensus_picture,
    high_resolution_spectrogram,
    reassigned_spectrogram,
)
from spectral_hyperresolution.pictures import smoothed
from spectral_hyperresolution.plan import (
    NODE_SPACING,
    NODE_SPACING_OF_F0,
    between_nodes,
    halfway_weights,
    make_plan,
)

RATE = 8000
GRID = {"hop_length": 80, "bins_per_octave": 12, "fmin": 100.0, "oversampling": 6}


def make(**changes) -> LinearReassignment:
    return LinearReassignment(RATE, **{**GRID, **changes})


def tensor(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x).float()


# ---------------------------------------------------------------------------------------- physics


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("q", [1.0, 2.0, 8.0])
@pytest.mark.parametrize("frequency", [237.0, 1000.0, 3100.0])
def test_a_sine_lies_within_half_a_bin_of_its_frequency(exact, q, frequency):
    transform = make(q=q, exact=exact)
    power = transform(tensor(signals.sine(RATE, 0.5, frequency))).sum(-1)
    bin_of_sine = np.searchsorted(transform.frequency_edges, frequency) - 1
    assert int(power.argmax()) == bin_of_sine
    # away from the ends of the clip nothing lies anywhere else
    middle = transform(tensor(signals.sine(RATE, 0.5, frequency)))[:, 15:-15].sum(-1)
    assert float(middle[bin_of_sine]) > 0.999 * float(middle.sum())


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("axis", [("log", None), ("mel", 60), ("linear", 90)])
def test_frequencies_are_the_centres_of_the_bins_on_every_axis(exact, axis):
    transform = make(q=4.0, exact=exact, axis=axis[0], n_bins=axis[1])
    centres, edges = transform.frequencies, transform.frequency_edges
    assert len(centres) == len(edges) - 1
    assert (edges[:-1] < centres).all()
    assert (centres < edges[1:]).all()
    for target in (400.0, 1700.0):
        nearest = int(np.abs(centres - target).argmin())
        power = transform(tensor(signals.sine(RATE, 0.3, centres[nearest])))
        assert int(power.sum(-1).argmax()) == nearest


@pytest.mark.parametrize("exact", [False, True])
@pytest.mark.parametrize("position", [0, 1, 1237, 2400, 3999])
def test_an_impulse_lies_within_half_a_hop_of_its_time(exact, position):
    transform = make(q=1.0, exact=exact, count_threshold=False)
    power = transform(tensor(signals.impulse(4000, position))).sum(0)
    assert torch.isfinite(power).all()
    loudest = transform.times(4000)[int(power.argmax())]
    # one sample of room: an impulse on the boundary of two frames belongs to either
    assert abs(loudest - position / RATE) <= (0.5 * 80 + 1) / RATE + 1e-12


@pytest.mark.parametrize("exact", [False, True])
def test_a_chirp_lies_along_its_line(exact):
    transform = make(q=2.0, exact=exact)
    x = tensor(signals.chirp(RATE, 0.5, 300, 3000))
    power = transform(x).numpy()
    times = transform.times(len(x))
    inside = slice(5, -5)
    track = 300 * (3000 / 300) ** (times / 0.5)
    loudest = transform.frequencies[power.argmax(0)]
    assert np.abs(12 * np.log2(loudest / track))[inside].max() <= 1.0
    distance = np.abs(12 * np.log2(transform.frequencies[:, None] / track[None]))
    assert power[:, inside][distance[:, inside] <= 1.5].sum() > 0.99 * power[:, inside].sum()


def test_two_close_partials_are_told_apart_by_a_large_q_only():
    x = tensor(signals.two_partials(RATE, 0.5, 1000.0, 1.12))

    def valley(q: float) -> float:
        transform = make(q=q, bins_per_octave=24)
        power = transform(x)[:, 15:-15].sum(-1).numpy()
        between, low, high = (
            int(np.abs(transform.frequencies - f).argmin()) for f in (1058.0, 1000.0, 1120.0)
        )
        return power[between - 1 : between + 2].max() / min(
            power[low - 1 : low + 2].max(), power[high - 1 : high + 2].max()
        )

    assert valley(16.0) < 0.01
    assert valley(1.0) > 0.1


@pytest.mark.parametrize("exact", [False, True])
def test_energy_of_a_sine_is_that_of_the_followed_points(exact):
    """A sine of amplitude A gives |xi|^2 = A^2/4 G^2 at every sample of every line.

    Points with |u| < 1/2 are followed, so a second of sound keeps the sum over those lines.
    """
    q, frequency, amplitude = 4.0, 1000.0, 0.5
    transform = make(q=q, exact=exact, count_threshold=False)
    f0 = transform.settings.scan_lines() * RATE
    u = (frequency - f0) / (f0 / (2 * np.pi * q))
    expected = 80 * (amplitude**2 / 4 * np.exp(-(u**2)))[np.abs(u) < 0.5].sum()
    power = transform(tensor(signals.sine(RATE, 0.5, frequency, amplitude)))
    assert float(power[:, 20:30].sum() / 10) == pytest.approx(expected, rel=2e-3)


def test_fast_form_keeps_the_energy_of_the_exact_form():
    for name, make_signal in signals.LIBRARY.items():
        x = tensor(make_signal(RATE, 0.5))
        fast = make(count_threshold=False)(x).sum()
        exact = make(count_threshold=False, exact=True)(x).sum()
        assert float(fast / exact) == pytest.approx(1, abs=5e-3), name


# ------------------------------------------------------------------------------------- hard input


@pytest.mark.parametrize("exact", [False, True])
def test_silence_gives_zeros(exact):
    power = make(exact=exact, q=[1, 4])(torch.zeros(2, 1000))
    assert power.shape == (2, 2, 65, 13)
    assert power.count_nonzero() == 0


@pytest.mark.parametrize("exact", [False, True])
def test_a_dc_offset_changes_nothing(exact):
    x = torch.from_numpy(signals.chirp(RATE, 0.4, 300, 3000))
    transform = make(exact=exact)
    assert relative_error(transform(x + 3.0), transform(x)) < 1e-6


@pytest.mark.parametrize("exact", [False, True])
def test_a_full_scale_square_wave_shows_its_odd_harmonics(exact):
    transform = make(exact=exact, q=8.0, bins_per_octave=24, oversampling=40)
    power = transform(tensor(signals.square(RATE, 0.5, 200.0)))[:, 15:-15].sum(-1).numpy()
    assert np.isfinite(power).all()
    harmonics = [int(np.abs(transform.frequencies - 200.0 * k).argmin()) for k in (1, 3, 5)]
    levels = [power[i - 1 : i + 2].sum() for i in harmonics]
    # A sampled square wave with 40 samples a period: harmonic k goes as 1 / sin(pi k / 40).
    for k, level in zip((3, 5), levels[1:], strict=True):
        ratio = (np.sin(np.pi * k / 40) / np.sin(np.pi / 40)) ** 2
        assert levels[0] / level == pytest.approx(ratio, rel=0.05)


@pytest.mark.parametrize("amplitude", [1e-40, 1e-15, 1e-6, 1e4, 1e30])
def test_loudness_only_scales(amplitude):
    x = torch.from_numpy(signals.chirp(RATE, 0.3, 300, 3000))
    transform = make()
    assert relative_error(transform(amplitude * x) / amplitude**2, transform(x)) < 1e-6


@given(
    n=st.integers(2, 3000),
    q=st.floats(0.2, 20),
    hop=st.integers(1, 500),
    fmin=st.floats(10, 3000),
    axis=st.sampled_from([("log", None), ("mel", 30), ("linear", 41)]),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_any_length_and_setting_gives_the_promised_shape(n, q, hop, fmin, axis):
    transform = LinearReassignment(
        RATE, q=q, hop_length=hop, fmin=fmin, oversampling=3, axis=axis[0], n_bins=axis[1]
    )
    power = transform(tensor(signals.noise(RATE, n / RATE)))
    assert power.shape == (len(transform.frequencies), len(transform.times(n)))
    assert power.shape[1] == -(-n // hop)
    assert torch.isfinite(power).all()
    assert (power >= 0).all()
    for batch in make_plan(n, transform.settings).batches:  # no band reads past the spectrum
        assert (batch.high <= batch.layout.period // 2).all()


# --------------------------------------------------------------------------- fast against exact


@pytest.mark.parametrize("q", [0.25, 1.0, 2.0, 8.0])
def test_lines_between_nodes_have_the_filters_of_their_own_frequency(q):
    c = 1 / (2 * np.pi * q)  # sigma / f0
    h = min(NODE_SPACING, NODE_SPACING_OF_F0 / c)
    f = np.linspace(1 - 8 * c, 1 + 9 * c, 5000)

    def filters(f0):
        u = (f / f0 - 1) / c
        return np.array([np.exp(-0.5 * u**2), -u * np.exp(-0.5 * u**2)])

    four = np.array([filters(np.exp(c * h * place)) for place in (-1, 0, 1, 2)])
    four = four.swapaxes(0, 1).reshape(8, -1)
    middle = halfway_weights(h, q) @ four
    np.testing.assert_allclose(middle, filters(np.exp(c * h / 2)), atol=6e-3)
    weights = between_nodes(4, h / 2, q)
    np.testing.assert_array_equal(weights[0], [1, 0, 0, 0, 0, 0, 1, 0])
    below, above = filters(1), filters(np.exp(c * h / 2))
    two = np.array([below[0], above[0], below[1], above[1]])
    for line, (xi, eta) in enumerate(weights.reshape(4, 2, 4)):
        expected = filters(np.exp(c * h / 2 * line / 4))
        np.testing.assert_allclose(xi @ two, expected[0], atol=2e-3)
        np.testing.assert_allclose(eta @ two, expected[1], atol=6e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("exact", [False, True])
def test_cuda_gives_the_numbers_of_the_cpu(exact):
    x = tensor(signals.bird(RATE, 0.4))
    transform = make(exact=exact)
    assert relative_error(transform(x.cuda()).cpu(), transform(x)) < 1e-3


def test_exact_form_is_the_drop_in_function_turned_over():
    x = signals.bird(RATE, 0.3)
    old = high_resolution_spectrogram(x, 2.0, 80, 6, 12, 100 / RATE, 0.5, dtype=torch.float64)
    new = make(exact=True)(torch.from_numpy(x))
    assert torch.equal(new, old.T.flip(0))


# ------------------------------------------------------------------------- nothing reassigned


@pytest.mark.parametrize("q", [0.5, 1.0, 2.0, 8.0])
@pytest.mark.parametrize("n", [2400, 2399, 1201])  # whole frames, a frame less a sample, one sample
def test_gabor_control_counts_every_point_where_its_filter_stands(q, n):
    x = (signals.bird(RATE, 0.3) + signals.chirp_and_clicks(RATE, 0.3))[:n]
    plain = linear_reassignment(x, q, 80, 6, 12, 100 / RATE, 0.5, reassign=False).T[::-1]
    double = torch.from_numpy(x)
    exact = make(q=q, exact=True, reassign=False)
    assert relative_error(exact(double), plain) < 1e-12
    fast = make(q=q, reassign=False)(double)
    assert relative_error(fast, plain) < 0.02
    assert cosine(fast, plain) > 0.9999


@pytest.mark.parametrize("axis", [("mel", 40), ("linear", 30)])
def test_gabor_control_on_every_axis(axis):
    x = torch.from_numpy(signals.bird(RATE, 0.3))
    changes = {"q": 2.0, "axis": axis[0], "n_bins": axis[1], "reassign": False}
    exact = make(**changes, exact=True)
    power = exact(x)
    assert cosine(make(**changes)(x), power) > 0.9999
    # every point of every line is there, less the last sample
    lines = exact.settings.scan_lines()
    assert (exact.settings.rows(lines) >= 0).sum() == np.sum(lines < 0.5)
    assert (power.sum(-1) > 0).all()


@pytest.mark.parametrize("exact", [False, True])
def test_gabor_control_shows_the_width_of_its_filters(exact):
    """|xi|^2 of a tone at f falls off as exp(-u^2): half its height 0.83 sigma away."""
    q, frequency = 4.0, 1000.0
    blurred = make(q=q, exact=exact, reassign=False, bins_per_octave=48)
    power = blurred(tensor(signals.sine(RATE, 0.5, frequency)))[:, 20:30].mean(-1).numpy()
    f = blurred.frequencies
    u = (frequency - f) / (f / (2 * np.pi * q))
    near = np.abs(u) < 2
    assert power[near] / power.max() == pytest.approx(np.exp(-(u[near] ** 2)), abs=0.02)


# -------------------------------------------------------------- batches, several q, long, consensus


@pytest.mark.parametrize("exact", [False, True])
def test_batch_is_single_and_runs_repeat_to_the_byte(exact):
    x = tensor(signals.noise(RATE, 0.75)).reshape(2, 3, -1)
    transform = make(exact=exact, q=[1.0, 4.0])
    power = transform(x)
    assert power.shape == (2, 3, 2, 65, 13)
    assert torch.equal(power, transform(x))
    assert torch.equal(power[1, 2], transform(x[1, 2]))
    assert torch.equal(power[:, :, 1], make(exact=exact, q=4.0)(x))


def test_thread_count_changes_no_byte():
    """Three signals: two threads take a signal each, four share one signal after the other."""
    x = tensor(signals.noise(RATE, 0.75)).reshape(3, -1)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            found.append(make()(x))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


@pytest.mark.parametrize("exact", [False, True])
def test_blocks_give_the_picture_of_the_whole(exact):
    """Glides below Nyquist, where Gaussians are whole; seams would show between the blocks."""
    x = np.concatenate([signals.chirp(RATE, 1.5, 150, 2500), signals.chirp(RATE, 1.0, 2500, 200)])
    # Faint noise: points of a pure tone lie exactly on the edges of frames, on either side of them.
    x += signals.sine(RATE, 2.5, 777.0, 0.1) + signals.noise(RATE, 2.5, amplitude=1e-3)
    x = torch.from_numpy(x)
    # Without the threshold: the largest count may lie at an edge, where the two differ.
    transform = make(exact=exact, fmax=2800.0, oversampling=4, count_threshold=False)
    whole = transform(x)
    blocks = transform.long_recording(x, block_length=6000)
    assert blocks.shape == whole.shape and blocks.dtype == whole.dtype
    inner = slice(13, -13)  # six standard deviations of the longest window from the ends
    if exact:
        assert relative_error(blocks[:, inner], whole[:, inner]) < 1e-9
    else:
        assert cosine(blocks[:, inner], whole[:, inner]) > 0.998
        error = (blocks - whole)[:, inner].abs().sum(0) / whole[:, inner].sum(0)
        assert float(error.max()) < 0.2  # no frame, at a seam or elsewhere, is far off


def test_long_recording_reads_a_memory_map_and_several_q(tmp_path):
    x = signals.bird(RATE, 2.0).astype(np.float32)
    file = tmp_path / "recording.f32"
    x.tofile(file)
    mapped = np.memmap(file, dtype=np.float32, mode="r")
    transform = make(q=[1.0, 4.0])
    from_file = transform.long_recording(mapped, block_length=6000)
    assert from_file.shape == (2, 65, 200)
    assert torch.equal(from_file, transform.long_recording(torch.from_numpy(x), 6000))


def test_count_threshold_only_takes_away():
    x = tensor(signals.chirp_and_clicks(RATE) + signals.noise(RATE, 0.5, amplitude=0.003))
    everything = make(count_threshold=False)(x)
    kept = make()(x)
    assert kept.count_nonzero() < everything.count_nonzero()
    assert torch.equal(kept[kept > 0], everything[kept > 0])


def test_consensus_keeps_the_tone_and_drops_the_froth():
    tone = signals.sine(RATE, 1.0, 1000.0, 0.2)
    x = tensor(tone + signals.noise(RATE, 1.0, amplitude=0.05))
    q = [1.0, 2.0, 4.0, 8.0]
    pictures = make(q=q)(x)
    agreed = make(q=q, consensus=4)(x)
    assert agreed.shape == pictures.shape[1:]
    row = int(np.abs(make().frequencies - 1000.0).argmin())
    far = torch.ones(65, dtype=torch.bool)
    far[row - 4 : row + 5] = False
    mean = pictures.mean(0)
    assert float(agreed[row - 1 : row + 2].sum()) > 0.9 * float(mean[row - 1 : row + 2].sum())
    assert float(agreed[far].sum()) < 0.6 * float(mean[far].sum())
    assert agreed[far].count_nonzero() < 0.6 * mean[far].count_nonzero()
    looser = make(q=q, consensus=2)(x)
    assert agreed.count_nonzero() < looser.count_nonzero()
    tolerant = consensus_picture(pictures, q, radius=1)
    assert (tolerant >= agreed).all()


def test_axes_carry_hertz_and_seconds():
    transform = LinearReassignment(22050)
    assert transform.frequencies.shape == (224,)
    assert transform.frequencies[-1] == pytest.approx(11025)
    assert np.diff(np.log2(transform.frequencies)) == pytest.approx(1 / 26.2)
    assert transform.times(44100).shape == (224,)
    assert transform.times(44100)[1] == pytest.approx((1.5 * 197 - 1) / 22050)
    assert "224 bins" in repr(transform)


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"sample_rate": 0}, "sample_rate must be > 0"),
        ({"q": 0}, "q must be > 0"),
        ({"q": []}, "q must be a number > 0 or a non-empty sequence"),
        ({"q": "2"}, "q must be a number > 0"),
        ({"fmin": 0}, "fmin must be > 0"),
        ({"fmin": 4000.0}, r"fmin must lie in \(0, fmax = 4000\) Hz, got 4000"),
        ({"axis": "bark"}, "axis must be one of log, mel, linear, got 'bark'"),
        ({"axis": "mel"}, "needs n_bins"),
        ({"n_bins": 10}, "n_bins is for axis='mel'"),
        ({"consensus": 2}, "consensus must be between 1 and the number of q"),
        ({"q": [1, 2], "consensus": 3}, "consensus must be between 1 and the number of q"),
        ({"accuracy": 100}, "accuracy must lie in 0.25 to 8"),
        ({"smooth": -1}, "smooth must be a whole number >= 0, got -1"),
    ],
)
def test_settings_errors_name_the_argument_and_its_range(change, words):
    with pytest.raises(ValueError, match=words):
        LinearReassignment(**{"sample_rate": RATE, **GRID, **change})


PICTURES = torch.zeros(2, 4, 4)


@pytest.mark.parametrize(
    ("call", "arguments", "error", "words"),
    [
        (make(), [torch.zeros(3, 1)], ValueError, "waveform must have at least 2 samples"),
        (make(), [torch.tensor(1.0)], ValueError, "waveform must have at least 2 samples"),
        (make(), [torch.tensor([0, -torch.inf])], ValueError, "waveform must be finite"),
        (make(), [torch.zeros(9, dtype=torch.int16)], TypeError, "waveform must hold .* 32768"),
        (make(), [[0.0, 1.0]], TypeError, "waveform must be a torch tensor"),
        (make().long_recording, [PICTURES], ValueError, r"waveform must have shape \(time,\)"),
        (consensus_picture, [PICTURES, [1, 2, 3]], ValueError, "pictures must have shape"),
        (consensus_picture, [PICTURES, [1, 2], 3], ValueError, "agree must be between 1 and"),
        (consensus_picture, [PICTURES, [1, 2], 2, -1], ValueError, "radius must be a whole"),
    ],
)
def test_what_cannot_be_transformed_is_named(call, arguments, error, words):
    with pytest.raises(error, match=words):
        call(*arguments)


# ------------------------------------------------------------------------------- smoothing, torch


@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_smoothing_spreads_a_cell_and_keeps_the_power(kind):
    power = np.zeros((2, 7, 9))
    power[:, 3, 4] = 16.0
    once, twice = smoothed(kind(power)), smoothed(kind(power), 2)
    assert np.array_equal(once[0, 2:5, 3:6], [[1, 2, 1], [2, 4, 2], [1, 2, 1]])
    assert float(once.sum()) == float(twice.sum()) == 32
    assert np.array_equal(twice, smoothed(once))


def test_smooth_is_an_option_of_the_module_and_of_the_function():
    x = signals.bird(RATE, 0.3)
    options = {"q": [1.0, 4.0], "consensus": 2}
    for call in (
        lambda **o: make(**options, **o)(torch.from_numpy(x)).numpy(),
        lambda **o: make(**options, **o).long_recording(x, 2000).numpy(),
        lambda **o: reassigned_spectrogram(x, sr=RATE, **GRID, **options, **o),
    ):
        np.testing.assert_array_equal(call(smooth=1), smoothed(call()), strict=True)


def test_smoothing_levels_a_hiss_and_keeps_a_tone_in_its_rows():
    hiss = make(q=8.0, smooth=1)(tensor(signals.noise(RATE, 1.0)))[20:40, 20:-20]
    froth = make(q=8.0)(tensor(signals.noise(RATE, 1.0)))[20:40, 20:-20]
    assert (hiss == 0).float().mean() < 0.5 * (froth == 0).float().mean()
    tone = make(q=8.0, smooth=1)(tensor(signals.sine(RATE, 1.0, 1000.0)))[:, 20:-20].sum(-1)
    row = int(tone.argmax())
    assert float(tone[row] / tone.sum()) == pytest.approx(0.5, abs=0.01)
    assert float(tone[row - 1 : row + 2].sum() / tone.sum()) == pytest.approx(1, abs=0.01)


def test_defaults_of_torch_that_a_user_set_change_nothing():
    x = tensor(signals.bird(RATE, 0.2))
    expected = [make(exact=exact, q=[1.0, 4.0], consensus=2)(x) for exact in (False, True)]
    blocks = make().long_recording(x, 2000)
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    try:
        found = [make(exact=exact, q=[1.0, 4.0], consensus=2)(x) for exact in (False, True)]
        blocks_found = make().long_recording(x.numpy(), 2000)
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    assert all(map(torch.equal, found, expected))
    assert torch.equal(blocks_found, blocks)
