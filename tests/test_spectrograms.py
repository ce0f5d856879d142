"""Pictures are computed on the axes they claim, by filterbanks without an empty band."""

import json
from dataclasses import replace
from pathlib import Path

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from freesound_tagging.features.channels import Delta, Gabor, Reassigned, Standard
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import (
    CHANNELS,
    CONTROL_VARIANTS,
    FAMILIES,
    OTHER_VARIANTS,
    VARIANTS,
    channels_of,
    compute_channels,
    get_channel,
    get_variant,
)
from freesound_tagging.features.spectrograms import (
    CODE_LEVELS,
    DB_RANGE,
    axis_frequencies,
    decoding_table,
    encode,
    filterbank,
    stft_power,
)
from freesound_tagging.features.store import channel_folder
from freesound_tagging.learning.profiles import PROFILES
from spectral_hyperresolution import LinearReassignment

AXES = ("linear", "log", "mel", "mel_htk")
ALL_VARIANTS = VARIANTS | CONTROL_VARIANTS | OTHER_VARIANTS
FINE = PROFILES["cpu"].grid  # hops shorter than every window: no instant is skipped
COARSE = PROFILES["smoke"].grid
MAGNITUDES = [name for name, channel in CHANNELS.items() if channel.limits(FINE) is None]
STEP_DB = DB_RANGE / CODE_LEVELS


def sine(frequency: float, grid: Grid = FINE, amplitude: float = 0.5) -> torch.Tensor:
    t = np.arange(grid.n_samples) / grid.sample_rate
    return torch.from_numpy((amplitude * np.sin(2 * np.pi * frequency * t)).astype(np.float32))


def random_magnitude(seed: int = 0, shape: tuple[int, ...] = (12, 9)) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 10 ** (-5 * torch.rand(shape, generator=generator))


# --- grids and axes ----------------------------------------------------------------------------


def test_default_grid_is_the_reference_picture():
    grid = Grid()
    assert (grid.n_bins, grid.n_frames) == (224, 224)
    assert (grid.sample_rate, grid.duration, grid.hop_length) == (22_050, 2.0, 197)


@pytest.mark.parametrize("profile", PROFILES)
def test_axes_reach_from_fmin_to_fmax(profile):
    grid = PROFILES[profile].grid
    for axis in AXES:
        hertz = axis_frequencies(axis, grid)
        assert hertz.shape == (grid.n_bins,)
        assert (np.diff(hertz) > 0).all()
        if axis == "mel_htk":  # the middles of bins: half a bin within the range at either end
            assert grid.fmin < hertz[0] < grid.fmin + np.diff(hertz)[0]
            assert grid.fmax - np.diff(hertz)[-1] < hertz[-1] < grid.fmax
            continue
        assert hertz[-1] == pytest.approx(grid.fmax)
        if axis == "log":  # counts down from fmax in whole steps, so it ends within one of fmin
            assert grid.fmin * 2 ** (-1 / grid.bins_per_octave) < hertz[0]
            assert hertz[0] < grid.fmin * 2 ** (1 / grid.bins_per_octave)
        else:
            assert hertz[0] == pytest.approx(grid.fmin)


def test_each_axis_is_even_on_its_own_scale():
    linear, log, mel, mel_htk = (axis_frequencies(axis, FINE) for axis in AXES)
    np.testing.assert_allclose(np.diff(linear), np.diff(linear)[0])
    np.testing.assert_allclose(np.diff(np.log2(log)), 1 / FINE.bins_per_octave)
    steps = np.diff(librosa.hz_to_mel(mel))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
    steps = np.diff(librosa.hz_to_mel(mel_htk, htk=True))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


@settings(deadline=None, max_examples=50)
@given(
    sample_rate=st.integers(8_000, 48_000),
    bins_per_octave=st.floats(1.5, 40),
    fmin=st.floats(10, 500),
    top=st.floats(0.3, 1.0),
)
def test_standard_and_reassigned_pictures_share_their_rows(sample_rate, bins_per_octave, fmin, top):
    fmax = top * sample_rate / 2
    assume(fmax > 3 * fmin)
    grid = Grid(sample_rate, 1.0, 100, bins_per_octave, fmin, fmax)
    for axis, theirs, n_bins in (("log", "log", None), ("mel_htk", "mel", grid.n_bins)):
        transform = LinearReassignment(
            sample_rate, 1.0, 100, bins_per_octave, fmin, fmax, axis=theirs, n_bins=n_bins
        )
        np.testing.assert_allclose(axis_frequencies(axis, grid), transform.frequencies, rtol=1e-9)


def test_unknown_axis_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'bark'.*linear, log, mel, mel_htk"):
        axis_frequencies("bark", FINE)


# --- names -------------------------------------------------------------------------------------


def test_every_name_gives_what_was_declared_under_it():
    assert len(ALL_VARIANTS) == len(VARIANTS) + len(CONTROL_VARIANTS) + len(OTHER_VARIANTS)
    assert all(get_channel(name) is channel for name, channel in CHANNELS.items())
    assert all(get_variant(name) is variant for name, variant in ALL_VARIANTS.items())


@pytest.mark.parametrize("name", ALL_VARIANTS)
def test_a_variant_is_one_plane_or_three_of_known_channels(name):
    variant = get_variant(name)
    assert len(variant.planes) in (1, 3)
    assert all(channel in CHANNELS for channel in variant.channels)
    assert all(len(decoding_table(loudness)) == 256 for _, loudness in variant.planes)
    assert variant.family in FAMILIES
    assert (variant.family == "3 channels") == (len(variant.planes) == 3)
    if len(variant.planes) == 1:
        assert (variant.family == "high resolution") == (name.startswith("hires"))
        assert (variant.family == "not reassigned") == (name.startswith("gabor"))


def test_no_two_variants_are_the_same_pictures():
    planes = [variant.planes for variant in ALL_VARIANTS.values()]
    titles = [variant.title for variant in ALL_VARIANTS.values()]
    assert len(set(planes)) == len(set(titles)) == len(ALL_VARIANTS)


@given(st.lists(st.sampled_from(sorted(ALL_VARIANTS))))
def test_channels_of_variants_are_named_once_in_order(names):
    found = channels_of(names)
    assert len(found) == len(set(found))
    assert set(found) == {channel for name in names for channel in get_variant(name).channels}
    assert channels_of(iter(names)) == found
    assert channels_of([*names, *names]) == found
    if names:  # those of the first variant come first, in the order of its planes
        first = list(dict.fromkeys(get_variant(names[0]).channels))
        assert found[: len(first)] == first


def test_unknown_names_list_the_known_ones():
    for look_up, kind, known in (
        (get_channel, "channel", CHANNELS),
        (get_variant, "representation", ALL_VARIANTS),
    ):
        with pytest.raises(ValueError, match=f"unknown {kind} 'nonesuch'") as caught:
            look_up("nonesuch")
        assert all(name in str(caught.value) for name in known)
    with pytest.raises(ValueError, match="unknown representation 'nonesuch'"):
        channels_of(["log_db", "nonesuch"])


# --- filterbanks -------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(
    axis=st.sampled_from(AXES),
    n_fft=st.sampled_from([64, 256, 512, 1000, 2048, 4096]),
    sample_rate=st.integers(8_000, 48_000),
    bins_per_octave=st.floats(1.5, 40),
    fmin=st.floats(10, 500),
    top=st.floats(0.3, 1.0),
)
def test_no_band_is_empty_and_rows_sum_to_one(axis, n_fft, sample_rate, bins_per_octave, fmin, top):
    fmax = top * sample_rate / 2
    assume(fmax > 3 * fmin)
    grid = Grid(sample_rate, 1.0, 100, bins_per_octave, fmin, fmax)
    weights = filterbank(axis_frequencies(axis, grid), n_fft, sample_rate)
    assert weights.shape == (grid.n_bins, 1 + n_fft // 2)
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    assert (weights.max(axis=1) > 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(axis=st.sampled_from(AXES), n_fft=st.sampled_from([512, 2048, 4096]))
def test_each_band_is_centred_on_its_row(axis, n_fft):
    hertz = axis_frequencies(axis, FINE)
    fft_hertz = np.arange(1 + n_fft // 2) * FINE.sample_rate / n_fft
    peaks = fft_hertz[filterbank(hertz, n_fft, FINE.sample_rate).argmax(axis=1)]
    assert (np.abs(peaks - hertz) <= FINE.sample_rate / n_fft).all()


@pytest.mark.parametrize("axis", ["log", "mel"])
def test_rows_finer_than_the_fft_interpolate_between_its_bins(axis):
    n_fft, hertz = 512, axis_frequencies(axis, FINE)
    bin_width = FINE.sample_rate / n_fft
    weights = filterbank(hertz, n_fft, FINE.sample_rate)
    spacing = np.diff(hertz)
    fine = np.flatnonzero((spacing[1:] < bin_width) & (hertz[1:-1] > bin_width)) + 1
    assert len(fine) > 5
    centroids = weights[fine] @ (np.arange(1 + n_fft // 2) * bin_width)
    np.testing.assert_allclose(centroids, hertz[fine], rtol=1e-5)
    assert ((weights[fine] > 0).sum(axis=1) <= 2).all()


def test_mel_bands_are_those_of_librosa_and_torchaudio():
    # Their centres leave out the two ends of the range, ours include them. Where rows lie further
    # apart than FFT bins all three must agree; elsewhere ours are widened and theirs may be empty.
    n_fft, hertz = 2048, axis_frequencies("mel", FINE)
    ours = filterbank(hertz, n_fft, FINE.sample_rate)[1:-1]
    wide = np.diff(hertz)[:-1] >= FINE.sample_rate / n_fft
    theirs = torchaudio.functional.melscale_fbanks(
        1 + n_fft // 2, FINE.fmin, FINE.fmax, FINE.n_bins - 2, FINE.sample_rate, None, "slaney"
    ).numpy()
    librosas = librosa.filters.mel(
        sr=FINE.sample_rate,
        n_fft=n_fft,
        n_mels=FINE.n_bins - 2,
        fmin=FINE.fmin,
        fmax=FINE.fmax,
        norm=None,
    )
    assert wide.sum() > 60
    for other in (theirs.T, librosas):
        other = other[wide] / other[wide].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(ours[wide], other, atol=2e-3)
        assert (ours[wide].argmax(axis=1) == other.argmax(axis=1)).mean() > 0.95


@pytest.mark.parametrize("axis", AXES)
def test_a_row_above_half_the_sample_rate_is_an_error(axis):
    grid = Grid(sample_rate=8_000)  # fmax stays at 11,025 Hz
    with pytest.raises(ValueError, match="outside 0 to 4000 Hz"):
        filterbank(axis_frequencies(axis, grid), 2048, grid.sample_rate)


# --- where sounds land -------------------------------------------------------------------------


@pytest.mark.parametrize("frequency", [440.0, 1000.0, 2500.0, 6000.0, 9000.0])
def test_a_sine_lands_on_its_row_on_every_axis(frequency):
    pictures = compute_channels(sine(frequency), MAGNITUDES, FINE)
    for name, magnitude in pictures.items():
        hertz = axis_frequencies(CHANNELS[name].axis, FINE)
        middle = magnitude[:, FINE.n_frames // 4 : -FINE.n_frames // 4]
        loudest = hertz[middle.mean(dim=1).argmax()]
        row = np.abs(hertz - frequency).argmin()
        # One row; or one bin of the FFT, where the axis is finer than the window can tell.
        reach = np.diff(hertz)[max(row - 1, 0) : row + 1].max()
        channel = CHANNELS[name]
        if isinstance(channel, Standard):
            reach = max(reach, FINE.sample_rate / channel.n_fft)
        if isinstance(channel, Gabor):  # a filter stands every tenth of a row, and none is moved
            reach = max(reach, frequency / (2 * np.pi * channel.q))
        assert abs(loudest - frequency) <= reach, name


@pytest.mark.parametrize("sample", [9_000, 20_000, 30_123])
def test_a_click_lands_in_its_column_on_every_axis(sample, monkeypatch):
    # Scan lines lie evenly over octaves, so linear and mel axes have few points in each of their
    # high rows, and the count threshold drops all that a lone click leaves there, in the exact
    # form too: at q = 8 on the mel axis 603 points, where it asks for 634.
    for name in ("hires_q8_linear", "hires_q8_mel"):
        whole = replace(CHANNELS[name], count_threshold=False)
        monkeypatch.setitem(CHANNELS, name, whole)
    waveform = torch.zeros(FINE.n_samples)
    waveform[sample] = 1.0
    for name, magnitude in compute_channels(waveform, MAGNITUDES, FINE).items():
        # Above 2 kHz even q = 8 is shorter than a column; below, it rings.
        high = magnitude[axis_frequencies(CHANNELS[name].axis, FINE) > 2000]
        column = int(high.pow(2).sum(dim=0).argmax())
        assert abs(FINE.times[column] - sample / FINE.sample_rate) <= (
            FINE.hop_length / FINE.sample_rate
        ), name


def test_channels_share_rows_columns_and_shape(grid):
    waveform = torch.randn(2, grid.n_samples, generator=torch.Generator().manual_seed(0))
    pictures = compute_channels(waveform, list(CHANNELS), grid)
    assert list(pictures) == list(CHANNELS)
    for name, values in pictures.items():
        assert values.shape == (2, *CHANNELS[name].shape(grid))
        if name != "waveform":
            assert values.shape == (2, grid.n_bins, grid.n_frames)
        assert torch.isfinite(values).all()
        assert name not in MAGNITUDES or (values >= 0).all()


def test_a_channel_is_the_same_alone_and_among_others(grid):
    waveform = torch.randn(grid.n_samples, generator=torch.Generator().manual_seed(0))
    together = compute_channels(waveform, list(CHANNELS), grid)
    for name in CHANNELS:
        alone = compute_channels(waveform, [name], grid)[name]
        torch.testing.assert_close(alone, together[name])


def test_silence_gives_zeros_without_nan(grid):
    silence = torch.zeros(grid.n_samples)
    for name, values in compute_channels(silence, list(CHANNELS), grid).items():
        assert values.abs().max() < 1e-3, name
        codes = encode(values, CHANNELS[name].limits(grid))
        assert (codes == codes[0, 0]).all(), name
        assert name not in MAGNITUDES or not codes.any()


# --- stored numbers stay -----------------------------------------------------------------------


GOLDEN = Path(__file__).parent / "codes_of_a_fixed_clip.npz"
"""Codes as the stores hold them: those of standard channels since the first one, those of the
transform since its fast form's third version. A channel that comes later need not be added."""


def test_codes_and_keys_of_a_fixed_clip_stay():
    grid = Grid(duration=0.4, hop_length=394, bins_per_octave=13.0)
    noise = np.random.default_rng(3).standard_normal(grid.n_samples)
    t = np.arange(grid.n_samples) / grid.sample_rate
    waveform = 0.3 * np.sin(2 * np.pi * (500 + 4500 * t) * t) + 0.01 * noise
    waveform[5000] += 1
    with np.load(GOLDEN) as golden:
        codes = {name: golden[name] for name in golden.files}
    keys = json.loads(str(codes.pop("keys")))
    values = compute_channels(torch.from_numpy(waveform.astype(np.float32)), list(codes), grid)
    for name, expected in codes.items():
        found = encode(values[name], CHANNELS[name].limits(grid)).numpy()
        # To the bit on the machine that made the file; another rounds some cells the other way.
        assert (found != expected).mean() < 0.005, name
        assert channel_folder(Path(), name, grid).name == keys[name]


def test_no_two_channels_share_a_key(grid):
    folders = {channel_folder(Path(), name, grid).name.split("-")[-1] for name in CHANNELS}
    assert len(folders) == len(CHANNELS)


# --- the controls ------------------------------------------------------------------------------


def sounds_of(seed: int, grid: Grid) -> torch.Tensor:
    """Return a tone, clicks and noise, all at once and each as loud as the seed says."""
    generator = np.random.default_rng(seed)
    t = np.arange(grid.n_samples) / grid.sample_rate
    tone = np.sin(2 * np.pi * generator.uniform(200, 8000) * t)
    clicks = np.zeros(grid.n_samples)
    clicks[generator.integers(0, grid.n_samples, 5)] = 1.0
    noise = generator.standard_normal(grid.n_samples)
    tone_level, click_level, noise_level = 10 ** generator.uniform(-3, 0, 3)
    waveform = tone_level * tone + click_level * clicks + noise_level * noise
    return torch.from_numpy(waveform.astype(np.float32))


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000))
def test_without_the_count_threshold_bins_are_added_and_none_changed(seed):
    waveform = sounds_of(seed, FINE)
    pictures = compute_channels(waveform, ["hires_q8", "hires_q8_all_points"], FINE)
    on, off = pictures.values()
    kept = on > 0
    torch.testing.assert_close(off[kept], on[kept])
    assert int((off > 0).sum()) > int(kept.sum())


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_a_consensus_is_where_two_of_the_four_q_are(seed):
    alone = ["hires_q1", "hires_q2", "hires_q4", "hires_q8"]
    assert CHANNELS["hires_consensus"].q == tuple(CHANNELS[name].q for name in alone)
    pictures = compute_channels(sounds_of(seed, COARSE), [*alone, "hires_consensus"], COARSE)
    consensus = pictures.pop("hires_consensus")
    agreeing = torch.stack([magnitude > 0 for magnitude in pictures.values()]).sum(dim=0)
    assert torch.equal(consensus > 0, agreeing >= 2)
    assert not consensus[agreeing == 0].any()


@pytest.mark.parametrize("axis", ["linear", "mel"])
def test_a_control_keeps_what_the_other_axis_shows(axis):
    # The same points in other rows: column by column, nearly the same energy.
    names = ["hires_q8_all_points", f"hires_q8_{axis}"]
    log, other = compute_channels(sounds_of(3, FINE), names, FINE).values()
    energies = [magnitude.pow(2).sum(dim=0) for magnitude in (log, other)]
    assert float(torch.corrcoef(torch.stack(energies))[0, 1]) > 0.95


@pytest.mark.parametrize("q", [1, 2, 4, 8])
def test_gabor_is_the_reassigned_picture_before_anything_moves(q):
    # The same energy, spread in frequency as the filter is wide.
    waveform = sine(1000.0)
    hertz = axis_frequencies("log", FINE)
    spread = {}
    for name, magnitude in compute_channels(waveform, [f"hires_q{q}", f"gabor_q{q}"], FINE).items():
        power = magnitude[:, 30:-30].pow(2).mean(dim=1).numpy()
        middle = (power * hertz).sum() / power.sum()
        spread[name] = float(np.sqrt((power * (hertz - middle) ** 2).sum() / power.sum()))
    assert spread[f"gabor_q{q}"] > 3 * spread[f"hires_q{q}"]
    # |xi|^2 falls off as exp(-u^2): its deviation is the filter's over the square root of 2.
    assert spread[f"gabor_q{q}"] == pytest.approx(1000 / (2 * np.pi * q) / np.sqrt(2), rel=0.15)


def test_channels_that_differ_in_q_alone_share_one_transform(monkeypatch):
    calls = []
    original = Reassigned.compute_alike

    def spy(self, channels, waveform, grid):
        calls.append([channel.q for channel in channels])
        return original(self, channels, waveform, grid)

    monkeypatch.setattr(Reassigned, "compute_alike", spy)
    names = ["hires_q1", "gabor_q2", "log", "hires_q8", "gabor_q4", "hires_q8_mel", "hires_q1"]
    compute_channels(torch.zeros(COARSE.n_samples), names, COARSE)
    assert calls == [[1, 8], [2, 4], [8]]


def test_a_new_channel_is_one_entry(monkeypatch, grid):
    monkeypatch.setitem(CHANNELS, "hires_q16", Reassigned("log", q=16))
    waveform = sine(1000.0, grid)
    assert compute_channels(waveform, ["hires_q16"], grid)["hires_q16"].any()


def test_pcen_is_librosas_and_lets_onsets_stand_out():
    t = np.arange(FINE.n_samples) / FINE.sample_rate
    steady, onset = sine(1000.0), sine(1000.0) * torch.from_numpy(t > 1).float()
    row = np.abs(axis_frequencies("log", FINE) - 1000).argmin()
    channel = CHANNELS["log_pcen"]
    low, high = channel.limits(FINE)
    values = channel.compute(onset, FINE)
    assert low == 0 and float(values.min()) >= 0 and float(values.max()) <= high
    magnitude = CHANNELS["log"].compute(onset, FINE).numpy()
    expected = librosa.pcen(
        magnitude / magnitude.max() * 2.0**31, sr=FINE.sample_rate, hop_length=FINE.hop_length
    )
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)
    late = float(channel.compute(steady, FINE)[row, 80])
    assert float(values[row].max()) > 3 * late


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("fall", [0.0, 3.0])
def test_deltas_of_a_constant_are_zero_and_of_a_ramp_constant(order, fall):
    # Noise that loses `fall` dB a column is a ramp in decibels; the floor lies out of reach.
    grid = Grid(duration=0.5, hop_length=512, bins_per_octave=3.0, fmin=200.0)

    class Ramp(Standard):
        def compute(self, waveform, grid):
            columns = torch.arange(grid.n_frames)
            return (10 ** (-fall * columns / 20)).expand(grid.n_bins, -1)

    delta = Delta(Ramp("mel", 2048), order).compute(torch.zeros(grid.n_samples), grid)
    assert delta.shape == (grid.n_bins, grid.n_frames)
    np.testing.assert_allclose(delta, -fall if order == 1 else 0, atol=1e-4)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_deltas_are_librosas_and_never_leave_their_limits(seed):
    waveform = sounds_of(seed, COARSE)
    decibels = 20 * torch.log10(CHANNELS["mel"].compute(waveform, COARSE))
    decibels = (decibels - decibels.max()).clamp_min(-DB_RANGE)
    for order, name in ((1, "mel_delta"), (2, "mel_delta2")):
        values = CHANNELS[name].compute(waveform, COARSE)
        expected = librosa.feature.delta(decibels.numpy(), order=order)
        np.testing.assert_allclose(values, expected, atol=1e-3)
        low, high = CHANNELS[name].limits(COARSE)
        assert low <= float(values.min()) and float(values.max()) <= high


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_mfcc_are_the_cosine_transform_of_log_mel(seed):
    waveform = sounds_of(seed, FINE)
    mel = CHANNELS["mel"].compute(waveform, FINE)
    above_floor = 20 * torch.log10(mel / mel.max()).clamp_min(-DB_RANGE / 20) + DB_RANGE
    n, channel = FINE.n_bins, CHANNELS["mfcc"]
    values = channel.compute(waveform, FINE)
    first_row = [int(np.flatnonzero(np.arange(n) * 40 // n == k)[0]) for k in (0, 1, 7, 39)]
    for k, row in zip((0, 1, 7, 39), first_row, strict=True):
        cosine = np.cos(np.pi * k * (np.arange(n) + 0.5) / n) * np.sqrt((1 + (k > 0)) / n)
        lifter = 1 + 40 * np.sin(np.pi * (k + 1) / 80)
        expected = lifter * (cosine @ above_floor.numpy())
        np.testing.assert_allclose(values[row], expected, rtol=1e-3, atol=0.5)
    assert channel.frequencies(FINE) is None
    low, high = channel.limits(FINE)
    assert low < float(values.min()) and float(values.max()) < high


# --- the STFT ----------------------------------------------------------------------------------


@pytest.mark.parametrize("n_fft", [256, 512, 2048])
@pytest.mark.parametrize("hop", [100, 197, 394, 1576])
def test_frame_j_is_centred_on_its_hop(n_fft, hop):
    # A click at the middle of hop j has the weight of the window's middle in frame j.
    n, j = 20_000, 5
    waveform = torch.zeros(n)
    waveform[j * hop + hop // 2] = 1.0
    power = stft_power(waveform, n_fft, hop)
    assert power.shape == (1 + n_fft // 2, -(-n // hop))
    energy = power.sum(dim=0)
    assert int(energy.argmax()) == j
    peak = (2 / (n_fft / 2)) ** 2  # the window sums to 2 and is 1 in its middle before scaling
    assert float(power[n_fft // 8, j]) == pytest.approx(peak, rel=1e-3)
    if hop < n_fft // 2:
        assert float(energy[j - 1]) == pytest.approx(float(energy[j + 1]), rel=0.05)


@pytest.mark.parametrize("amplitude", [0.01, 0.5, 1.0])
def test_magnitude_of_a_sine_is_its_amplitude(amplitude):
    n_fft = 2048
    frequency = 100 * FINE.sample_rate / n_fft
    magnitude = stft_power(sine(frequency, amplitude=amplitude), n_fft, 394).sqrt()
    middle = magnitude[:, 10:-10].amax(dim=0)
    np.testing.assert_allclose(middle, amplitude, rtol=0.02)


def click_energy_range(grid: Grid, channel: Standard | Reassigned) -> float:
    """Return by how many dB a click's energy varies with its place within two hops."""
    places = grid.n_samples // 2 + np.arange(0, 2 * grid.hop_length, 23)
    clicks = torch.zeros(len(places), grid.n_samples)
    clicks[torch.arange(len(places)), torch.from_numpy(places)] = 1.0
    energy = channel.compute(clicks, grid).double().pow(2).sum(dim=(-2, -1))
    return float(10 * torch.log10(energy.max() / energy.min()))


def test_a_click_weighs_the_same_wherever_it_falls():
    # A window of 512 samples sees little of a click in the middle between frames 394 samples apart.
    short = CHANNELS["log_short"]
    one, two = (Grid(duration=0.3, hop_length=394, frames_per_column=frames) for frames in (1, 2))
    assert 14 < click_energy_range(one, short) < 16
    assert click_energy_range(two, short) < 1
    assert click_energy_range(one, CHANNELS["hires_q2"]) < 1


@pytest.mark.parametrize("profile", sorted(PROFILES.keys() - {"cpu", "smoke"}))
def test_a_click_weighs_the_same_in_every_channel_of_the_large_profiles(profile):
    grid = replace(PROFILES[profile].grid, duration=0.3)
    for channel in CHANNELS.values():
        if isinstance(channel, Standard):
            assert click_energy_range(grid, channel) < 1, channel


@settings(deadline=None, max_examples=20)
@given(
    hop=st.integers(20, 500),
    frames=st.integers(1, 6),
    n=st.integers(1, 3000),
    n_fft=st.sampled_from([64, 512]),
)
def test_a_column_is_the_mean_power_of_its_frames(hop, frames, n, n_fft):
    waveform = torch.from_numpy(np.random.default_rng(n).standard_normal(n))
    power = stft_power(waveform, n_fft, hop, frames)
    columns = -(-n // hop)
    assert power.shape == (1 + n_fft // 2, columns)
    window = 2 * np.hanning(n_fft + 1)[:-1] / np.hanning(n_fft + 1)[:-1].sum()
    padded = np.pad(waveform.numpy(), n_fft + hop)
    for column in {0, columns // 2, columns - 1}:
        expected = np.zeros(1 + n_fft // 2)
        for i in range(frames):
            centre = n_fft + hop + column * hop + (2 * i + 1) * hop // (2 * frames)
            frame = padded[centre - n_fft // 2 :][:n_fft]
            expected += np.abs(np.fft.rfft(frame * window)) ** 2 / frames
        np.testing.assert_allclose(power[:, column], expected, rtol=1e-6, atol=1e-12)


def test_outside_the_waveform_there_is_silence():
    # Reflected edges would make a click at the very start look twice as loud.
    at_start, inside = torch.zeros(2, 20_000)
    at_start[60] = 1.0
    inside[60 + 30 * 197] = 1.0
    first = stft_power(at_start, 2048, 197)[:, 0]
    torch.testing.assert_close(first, stft_power(inside, 2048, 197)[:, 30])


def test_batches_are_computed_one_by_one(grid):
    waveforms = torch.randn(2, 3, grid.n_samples, generator=torch.Generator().manual_seed(0))
    for name, batch in compute_channels(waveforms, list(CHANNELS), grid).items():
        assert batch.shape == (2, 3, *CHANNELS[name].shape(grid))
        one = CHANNELS[name].compute(waveforms[1, 2], grid)
        torch.testing.assert_close(batch[1, 2], one)


def test_a_longer_window_tells_closer_tones_apart():
    # Two tones 30 Hz apart: 512 samples blur them into one, 4096 show the gap.
    waveform = sine(1000.0) + sine(1030.0)
    grid = Grid(bins_per_octave=60)
    hertz = axis_frequencies("log", grid)
    between = np.abs(hertz - 1015).argmin()
    on = np.abs(hertz - 1000).argmin()
    dips = {}
    for n_fft in (512, 4096):
        spectrum = Standard("log", n_fft=n_fft).compute(waveform, grid)
        level = spectrum[:, 50:-50].pow(2).mean(dim=1)
        dips[n_fft] = float(level[between] / level[on])
    assert dips[512] > 0.8
    assert dips[4096] < 0.5


# --- codes -------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(arrays(np.float32, (5, 4), elements=st.floats(0, 1e6, width=32)))
def test_decoding_gives_back_what_was_encoded(values):
    magnitude = torch.from_numpy(values)
    peak = magnitude.max()
    assume(peak > 1e-30)
    decoded = decoding_table("db")[encode(magnitude).long()] * DB_RANGE - DB_RANGE
    relative = (magnitude.double() / peak.double()).clamp_min(10 ** (-DB_RANGE / 20))
    expected = 20 * torch.log10(relative)
    assert (decoded.double() - expected).abs().max() <= STEP_DB / 2 + 1e-3


def test_linear_and_db_are_two_scales_of_one_code():
    codes = torch.arange(1, 256)
    decibels = decoding_table("db")[codes] * DB_RANGE - DB_RANGE
    np.testing.assert_allclose(
        20 * np.log10(decoding_table("linear")[codes].numpy()), decibels, atol=1e-4
    )
    for loudness in ("linear", "db"):
        table = decoding_table(loudness)
        assert table.dtype == torch.float32
        assert table[0] == 0
        assert table[255] == 1
        assert (table.diff() > 0).all()


def test_the_floor_is_80_db_below_the_maximum():
    magnitude = torch.tensor([[1.0, 10 ** (-79.9 / 20), 10 ** (-80.5 / 20), 0.0]])
    assert encode(magnitude).tolist() == [[255, 0, 0, 0]]
    assert encode(torch.tensor([[1.0, 10 ** (-79.0 / 20)]]))[0, 1] > 0
    assert encode(torch.tensor([[1.0, 10 ** (-40 / 20)]]))[0, 1] in (127, 128)


@given(power=st.integers(-60, 60))
def test_codes_do_not_depend_on_level(power):
    magnitude = random_magnitude()
    assert torch.equal(encode(magnitude * 2.0**power), encode(magnitude))


def test_codes_of_a_sound_do_not_depend_on_its_level(grid):
    waveform = torch.randn(grid.n_samples, generator=torch.Generator().manual_seed(0)) * 0.1
    for name, magnitude in compute_channels(waveform, list(CHANNELS), grid).items():
        louder = compute_channels(waveform * 4, [name], grid)[name]
        limits = CHANNELS[name].limits(grid)
        difference = encode(louder, limits).int() - encode(magnitude, limits).int()
        assert difference.abs().max() <= 1, name


def test_every_picture_of_a_batch_has_its_own_maximum():
    batch = torch.stack([random_magnitude(0), random_magnitude(1) * 1e-3, torch.zeros(12, 9)])
    codes = encode(batch)
    assert codes.dtype == torch.uint8
    assert codes.amax(dim=(1, 2)).tolist() == [255, 255, 0]
    assert torch.equal(codes[1], encode(batch[1]))


def test_unknown_loudness_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'phon'.*db, linear, pcen"):
        decoding_table("phon")


# --- the waveform as a representation ------------------------------------------------------------


def mu_law_error(waveform: np.ndarray, grid: Grid) -> np.ndarray:
    """Return what storing a waveform does to it, relative to its peak."""
    values = CHANNELS["waveform"].compute(torch.from_numpy(waveform), grid)
    codes = encode(values, CHANNELS["waveform"].limits(grid)).long()
    decoded = 2 * decoding_table("mu_law")[codes][0].numpy() - 1
    return decoded - waveform / np.abs(waveform).max()


@pytest.mark.parametrize("decibels", [0, -15, -30])
def test_a_stored_waveform_keeps_its_quiet_parts(decibels, grid):
    t = np.arange(grid.n_samples) / grid.sample_rate
    level = 10 ** (decibels / 20)
    waveform = (level * np.sin(2 * np.pi * 441.3 * t)).astype(np.float32)
    waveform[0] = 1.0  # the peak
    error = mu_law_error(waveform, grid)[1:]
    assert 20 * np.log10(np.sqrt(np.mean(error**2)) / (level / np.sqrt(2))) < -36


def test_a_stored_silence_is_silent(grid):
    codes = encode(CHANNELS["waveform"].compute(torch.zeros(grid.n_samples), grid), (-1, 128 / 127))
    assert set(codes.unique().tolist()) == {127}
    assert decoding_table("mu_law")[127] == 0.5
