"""Spectrograms are computed on the axes they claim, by filterbanks without an empty band."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import pytest
import scipy.ndimage
import torch
import torchaudio
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from freesound_tagging.features.codes import CODE_LEVELS, DB_RANGE, decoding_table, encode
from freesound_tagging.features.filterbanks import (
    axis_frequencies,
    filterbank,
    stft_power,
)
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import (
    CHANNELS,
    Channel,
    compute_channels,
    delta,
    get_channel,
)
from freesound_tagging.learning.profiles import PROFILES
from spectral_hyperresolution import LinearReassignment

AXES = ("linear", "log", "mel")
FINE = Grid(hop_length=394, bins_per_octave=13.0)  # no instant between two windows is skipped
COARSE = Grid(hop_length=1576, bins_per_octave=3.3, oversampling=6)
MAGNITUDES = [name for name, channel in CHANNELS.items() if channel.limits(FINE) is None]
STANDARD = [name for name in MAGNITUDES if "n_fft" in CHANNELS[name].compute.keywords]


def sine(frequency: float, grid: Grid = FINE, amplitude: float = 0.5) -> torch.Tensor:
    t = np.arange(grid.n_samples) / grid.sample_rate
    return torch.from_numpy((amplitude * np.sin(2 * np.pi * frequency * t)).astype(np.float32))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def sounds_of(seed: int, grid: Grid) -> torch.Tensor:
    """Return a tone, clicks and noise, all at once and each as loud as the seed says."""
    generator = np.random.default_rng(seed)
    t = np.arange(grid.n_samples) / grid.sample_rate
    tone = np.sin(2 * np.pi * generator.uniform(200, 8000) * t)
    clicks = np.zeros(grid.n_samples)
    clicks[generator.integers(0, grid.n_samples, 5)] = 1.0
    parts = np.stack([tone, clicks, generator.standard_normal(grid.n_samples)])
    return torch.from_numpy((10 ** generator.uniform(-3, 0, 3) @ parts).astype(np.float32))


@pytest.mark.parametrize("profile", sorted(PROFILES.keys() - {"audio"}))  # its grid has no axis
def test_axes_reach_from_fmin_to_fmax_in_even_steps(profile):
    grid = PROFILES[profile].grid
    for axis, scale in zip(AXES, (np.array, np.log2, librosa.hz_to_mel), strict=True):
        hertz = axis_frequencies(axis, grid)
        assert hertz.shape == (grid.n_bins,)
        steps = np.diff(scale(hertz))
        np.testing.assert_allclose(steps, steps[0], rtol=1e-6)
        assert hertz[-1] == pytest.approx(grid.fmax)
        # The log axis counts down from fmax in whole steps, so it ends within one of fmin.
        reach = 2 ** (1 / grid.bins_per_octave) if axis == "log" else 1 + 1e-9
        assert grid.fmin / reach <= hertz[0] <= grid.fmin * reach
    settings = {name: getattr(grid, name) for name in ("bins_per_octave", "fmin", "fmax")}
    reassigned = LinearReassignment(grid.sample_rate, **settings).frequencies
    np.testing.assert_allclose(axis_frequencies("log", grid), reassigned, rtol=1e-9)


def test_unknown_names_are_named():
    for ask in (get_channel, lambda name: axis_frequencies(name, FINE), decoding_table):
        with pytest.raises(ValueError, match=r"unknown \w+ 'bark'; the known ones are: .*linear"):
            ask("bark")


@settings(deadline=None, max_examples=60)
@given(
    axis=st.sampled_from(AXES),
    n_fft=st.sampled_from([64, 256, 512, 1000, 2048, 4096]),
    sample_rate=st.integers(8_000, 48_000),
    bins_per_octave=st.floats(1.5, 40),
    fmin=st.floats(10, 500),
    top=st.floats(0.3, 1.0),
)
def test_no_band_is_empty_or_off_its_row(axis, n_fft, sample_rate, bins_per_octave, fmin, top):
    fmax = top * sample_rate / 2
    assume(fmax > 3 * fmin)
    grid = Grid(sample_rate, 1.0, 100, bins_per_octave, fmin, fmax)
    hertz = axis_frequencies(axis, grid)
    weights = filterbank(hertz, n_fft, sample_rate)
    assert weights.shape == (grid.n_bins, 1 + n_fft // 2)
    assert np.isfinite(weights).all() and (weights >= 0).all()
    np.testing.assert_allclose(weights.sum(axis=1), 1, atol=1e-5)
    peaks = weights.argmax(axis=1) * sample_rate / n_fft
    assert (np.abs(peaks - hertz) <= sample_rate / n_fft).all()


def test_mel_bands_are_those_of_librosa_and_torchaudio():
    # Their centres leave out the two ends of the range, ours include them. Where rows lie further
    # apart than FFT bins all three must agree; elsewhere ours are widened and theirs may be empty.
    n_fft, hertz, rate = 2048, axis_frequencies("mel", FINE), FINE.sample_rate
    ours = filterbank(hertz, n_fft, rate)[1:-1]
    wide = np.diff(hertz)[:-1] >= rate / n_fft
    reach = FINE.fmin, FINE.fmax
    theirs = torchaudio.functional.melscale_fbanks(
        1 + n_fft // 2, *reach, FINE.n_bins - 2, rate, None, "slaney"
    ).numpy()
    librosas = librosa.filters.mel(
        sr=rate, n_fft=n_fft, n_mels=FINE.n_bins - 2, fmin=reach[0], fmax=reach[1], norm=None
    )
    assert wide.sum() > 60
    for other in (theirs.T, librosas):
        other = other[wide] / other[wide].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(ours[wide], other, atol=2e-3)


def test_a_row_above_half_the_sample_rate_is_an_error():
    grid = Grid(sample_rate=8_000)  # fmax stays at 11,025 Hz
    with pytest.raises(ValueError, match="to 11025 Hz; legal is 0 to 4000 Hz"):
        filterbank(axis_frequencies("log", grid), 2048, grid.sample_rate)


@pytest.mark.parametrize("frequency", [440.0, 2500.0, 9000.0])
def test_a_sine_lands_on_its_row_on_every_axis(frequency):
    for name, magnitude in compute_channels(sine(frequency), MAGNITUDES, FINE).items():
        channel = CHANNELS[name]
        hertz, given = channel.frequencies(FINE), channel.compute.keywords
        middle = magnitude[:, FINE.n_frames // 4 : -FINE.n_frames // 4]
        loudest = hertz[middle.mean(dim=1).argmax()]
        row = np.abs(hertz - frequency).argmin()
        # One row; or one bin of the FFT, where the axis is finer than the window can tell.
        reach = np.diff(hertz)[max(row - 1, 0) : row + 1].max()
        if name in STANDARD:
            reach = max(reach, FINE.sample_rate / given["n_fft"])
        if name.startswith("gabor"):  # a filter stands every tenth of a row, and none is moved
            reach = max(reach, frequency / (2 * np.pi * given["q"]))
        assert abs(loudest - frequency) <= reach, name


@pytest.mark.parametrize("sample", [9_000, 30_123])
def test_a_click_lands_in_its_column_on_every_axis(sample):
    waveform = torch.zeros(FINE.n_samples)
    waveform[sample] = 1.0
    for name, magnitude in compute_channels(waveform, MAGNITUDES, FINE).items():
        # Above 2 kHz even q = 8 is shorter than a column; below, it rings.
        high = magnitude[CHANNELS[name].frequencies(FINE) > 2000]
        column = int(high.pow(2).sum(dim=0).argmax())
        late = abs(FINE.times[column] - sample / FINE.sample_rate)
        assert late <= FINE.hop_length / FINE.sample_rate, name


def click_energy_range(grid: Grid, channel: str) -> float:
    """Return by how many dB a click's energy varies with its place within two hops."""
    places = grid.n_samples // 2 + np.arange(0, 2 * grid.hop_length, 23)
    clicks = torch.zeros(len(places), grid.n_samples)
    clicks[torch.arange(len(places)), torch.from_numpy(places)] = 1.0
    energy = CHANNELS[channel].compute(clicks, grid).double().pow(2).sum(dim=(-2, -1))
    return float(10 * torch.log10(energy.max() / energy.min()))


def test_a_click_weighs_the_same_wherever_it_falls():
    # A window of 512 samples sees little of a click in the middle between frames 394 samples apart.
    one, two = (Grid(duration=0.3, hop_length=394, frames_per_column=frames) for frames in (1, 2))
    assert 14 < click_energy_range(one, "log_short") < 16
    assert click_energy_range(two, "log_short") < 1
    assert click_energy_range(one, "hires_q2") < 1
    for profile in PROFILES.keys() - {"audio", "cpu", "smoke"}:
        grid = replace(PROFILES[profile].grid, duration=0.3)
        for channel in STANDARD:
            assert click_energy_range(grid, channel) < 1, (profile, channel)


def test_every_channel_has_its_shape_alone_and_in_a_batch(grid):
    waveforms = noise(2, 3, grid.n_samples)
    for name, batch in compute_channels(waveforms, list(CHANNELS), grid).items():
        assert batch.shape == (2, 3, *CHANNELS[name].shape(grid))
        assert torch.isfinite(batch).all()
        one = CHANNELS[name].compute(waveforms[1, 2], grid)
        torch.testing.assert_close(batch[1, 2], one, rtol=1e-4, atol=1e-5 * float(one.abs().max()))


def test_silence_gives_zeros_without_nan(grid):
    silence = torch.zeros(grid.n_samples)
    for name, values in compute_channels(silence, list(CHANNELS), grid).items():
        assert values.abs().max() < 1e-3, name
        codes = encode(values, CHANNELS[name].limits(grid))
        assert (codes == (0 if name in MAGNITUDES else codes[0, 0])).all(), name


GOLDEN = Path(__file__).parent / "codes_of_a_fixed_clip.npz"
"""Codes of the STFT's channels as the first stores held them; the transform has its own tests."""


def test_codes_of_a_fixed_clip_stay():
    grid = Grid(duration=0.4, hop_length=394, bins_per_octave=13.0)
    hiss = np.random.default_rng(3).standard_normal(grid.n_samples)
    t = np.arange(grid.n_samples) / grid.sample_rate
    waveform = 0.3 * np.sin(2 * np.pi * (500 + 4500 * t) * t) + 0.01 * hiss
    waveform[5000] += 1
    with np.load(GOLDEN) as golden:
        assert set(STANDARD) <= set(golden.files)
        values = compute_channels(torch.from_numpy(waveform.astype(np.float32)), golden.files, grid)
        for name, found in values.items():
            codes = encode(found, CHANNELS[name].limits(grid)).numpy()
            # To the bit on the machine that made the file; another rounds some cells otherwise.
            assert (codes != golden[name]).mean() < 0.005, name


@pytest.mark.parametrize("q", [1, 2, 4, 8])
def test_gabor_is_the_reassigned_spectrogram_before_anything_moves(q):
    # The same energy, spread in frequency as the filter is wide.
    hertz, spread = axis_frequencies("log", FINE), {}
    found = compute_channels(sine(1000.0), [f"hires_q{q}", f"gabor_q{q}"], FINE)
    for name, magnitude in found.items():
        power = magnitude[:, 30:-30].pow(2).mean(dim=1).numpy()
        middle = (power * hertz).sum() / power.sum()
        spread[name] = float(np.sqrt((power * (hertz - middle) ** 2).sum() / power.sum()))
    assert spread[f"gabor_q{q}"] > 3 * spread[f"hires_q{q}"]
    # |xi|^2 falls off as exp(-u^2): its deviation is the filter's over the square root of 2.
    assert spread[f"gabor_q{q}"] == pytest.approx(1000 / (2 * np.pi * q) / np.sqrt(2), rel=0.15)


@pytest.mark.parametrize("q", [2, 8])
def test_smoothing_spreads_power_over_the_neighbours(q):
    waveforms = torch.stack([sounds_of(seed, COARSE) for seed in (1, 2)])
    names = [f"hires_q{q}", f"hires_q{q}_smooth"]
    plain, smooth = compute_channels(waveforms, names, COARSE).values()
    weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
    for before, after in zip(plain.double() ** 2, smooth.double() ** 2, strict=True):
        expected = scipy.ndimage.convolve(before.numpy(), weights, mode="constant")
        np.testing.assert_allclose(after, expected, rtol=1e-4, atol=1e-6 * expected.max())
    assert (encode(smooth) == 0).sum() < (encode(plain) == 0).sum()


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_the_masked_control_is_empty_where_the_reassigned_spectrogram_is(seed):
    names = ["hires_q8", "gabor_q8", "gabor_q8_masked"]
    found = compute_channels(sounds_of(seed, COARSE), names, COARSE).values()
    reassigned, unmoved, masked = map(encode, found)
    assert not masked[reassigned == 0].any()
    assert (reassigned == 0).any()
    # The largest cell is there in both, so all that is left has the code it had.
    assert torch.equal(masked[reassigned > 0], unmoved[reassigned > 0])


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("fall", [0.0, 3.0])
def test_deltas_of_a_constant_are_zero_and_of_a_ramp_constant(order, fall):
    # Noise that loses `fall` dB a column is a ramp in decibels; the floor lies out of reach.
    grid = Grid(duration=0.5, hop_length=512, bins_per_octave=3.0, fmin=200.0)
    ramp = 10 ** (-fall * torch.arange(grid.n_frames) / 20).expand(grid.n_bins, -1)
    values = delta(torch.zeros(1), grid, Channel("mel", partial(lambda *_: ramp)), order)
    np.testing.assert_allclose(values, -fall if order == 1 else 0, atol=1e-4)


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 10_000))
def test_derived_channels_never_leave_their_limits(seed):
    for name, channel in CHANNELS.items():
        if (limits := channel.limits(COARSE)) is not None:
            values = channel.compute(sounds_of(seed, COARSE), COARSE)
            assert limits[0] <= float(values.min()) and float(values.max()) <= limits[1], name


def test_mfcc_are_the_cosine_transform_of_log_mel():
    waveform = sounds_of(3, FINE)
    mel = CHANNELS["mel"].compute(waveform, FINE)
    above_floor = 20 * torch.log10(mel / mel.max()).clamp_min(-DB_RANGE / 20) + DB_RANGE
    n, values = FINE.n_bins, CHANNELS["mfcc"].compute(waveform, FINE)
    for k in (0, 1, 7, 39):
        row = int(np.flatnonzero(np.arange(n) * 40 // n == k)[0])
        cosine = np.cos(np.pi * k * (np.arange(n) + 0.5) / n) * np.sqrt((1 + (k > 0)) / n)
        expected = (1 + 40 * np.sin(np.pi * (k + 1) / 80)) * (cosine @ above_floor.numpy())
        np.testing.assert_allclose(values[row], expected, rtol=1e-3, atol=0.5)
    assert CHANNELS["mfcc"].frequencies(FINE) is None


@pytest.mark.parametrize("amplitude", [0.01, 1.0])
def test_magnitude_of_a_sine_is_its_amplitude(amplitude):
    tone = sine(100 * FINE.sample_rate / 2048, amplitude=amplitude)
    middle = stft_power(tone, 2048, 394).sqrt()[:, 10:-10].amax(dim=0)
    np.testing.assert_allclose(middle, amplitude, rtol=0.02)


@settings(deadline=None, max_examples=20)
@given(
    hop=st.integers(20, 500),
    frames=st.integers(1, 6),
    n=st.integers(1, 3000),
    n_fft=st.sampled_from([64, 512]),
)
def test_a_column_is_the_mean_power_of_its_frames(hop, frames, n, n_fft):
    # Frames are centred within their hop, and outside the waveform there is silence.
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


@settings(deadline=None, max_examples=60)
@given(arrays(np.float32, (5, 4), elements=st.floats(0, 1e6, width=32)))
def test_decoding_gives_back_what_was_encoded(values):
    magnitude = torch.from_numpy(values)
    peak = magnitude.max()
    assume(peak > 1e-30)
    codes = encode(magnitude).long()
    relative = magnitude.double() / peak.double()
    expected = 20 * torch.log10(relative.clamp_min(10 ** (-DB_RANGE / 20)))
    decoded = decoding_table("db")[codes].double() * DB_RANGE - DB_RANGE
    half_a_step = DB_RANGE / CODE_LEVELS / 2
    assert (decoded - expected).abs().max() <= half_a_step + 1e-3
    # The other scale is of the same codes: a magnitude, 0 at the floor.
    linear, loud = decoding_table("linear")[codes].double(), codes > 0
    assert not linear[~loud].any()
    np.testing.assert_allclose(20 * torch.log10(linear[loud]), decoded[loud], atol=1e-4)


@pytest.mark.parametrize("gain", [0.25, 4.0])
def test_codes_of_a_sound_do_not_depend_on_its_level(gain, grid):
    waveform = noise(grid.n_samples)
    for name, channel in CHANNELS.items():
        values = [channel.compute(sound, grid) for sound in (waveform, gain * waveform)]
        quiet, loud = (encode(found, channel.limits(grid)).int() for found in values)
        assert (quiet - loud).abs().max() <= 1, name


@pytest.mark.parametrize("decibels", [0, -15, -30])
def test_a_stored_waveform_keeps_its_quiet_parts(decibels, grid):
    level, channel = 10 ** (decibels / 20), CHANNELS["waveform"]
    waveform = sine(441.3, grid, level)
    waveform[0] = 1.0  # the peak
    codes = encode(channel.compute(waveform, grid), channel.limits(grid)).long()
    error = (2 * decoding_table("mu_law")[codes][0] - 1 - waveform)[1:]
    assert 20 * np.log10(error.pow(2).mean().sqrt() / (level / np.sqrt(2))) < -36
    silence = encode(channel.compute(torch.zeros(1, 9), grid), channel.limits(grid)).long()
    assert (decoding_table("mu_law")[silence] == 0.5).all()
