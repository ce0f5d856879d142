"""`reassigned_spectrogram`: axes, channels, agreement with the module, and what users give it."""

import warnings

import numpy as np
import pytest
import signals
import torch

from spectral_hyperresolution import (
    LinearReassignment,
    high_resolution_spectrogram,
    reassigned_spectrogram,
)

RATE = 8000
SMALL = {"hop_length": 80, "bins_per_octave": 12, "fmin": 100.0, "oversampling": 4}


@pytest.fixture(scope="module")
def song() -> np.ndarray:
    return signals.bird(RATE, 0.25)


def test_axes_are_returned_in_hertz_and_seconds():
    y = signals.sine(RATE, 0.5, 1000.0)
    power, frequencies, times = reassigned_spectrogram(y, sr=RATE, q=4, **SMALL, return_axes=True)
    assert power.shape == (len(frequencies), len(times)) == (65, 51)
    assert frequencies[power.sum(1).argmax()] == pytest.approx(1000, rel=0.03)
    assert times == pytest.approx(np.arange(51) * 80 / RATE)


@pytest.mark.parametrize("position", [0, 39, 41, 800, 1999])
def test_frames_are_centred_as_in_librosa(position):
    y = signals.impulse(2000, position)
    power = reassigned_spectrogram(y, sr=RATE, q=1, **SMALL, count_threshold=False)
    assert power.sum(0).argmax() == round(position / 80)


def test_channels_are_kept_and_several_q_stand_before_frequency(song):
    y = np.stack([song, -song, 0 * song])
    power = reassigned_spectrogram(y, sr=RATE, q=[1, 4], **SMALL)
    assert power.shape == (3, 2, 65, 26)
    assert power.dtype == np.float64
    assert np.array_equal(power[0], power[1])
    assert power[2].max() == 0
    assert reassigned_spectrogram(y[:0], sr=RATE, **SMALL).shape == (0, 65, 26)
    assert np.array_equal(power[0, 1], reassigned_spectrogram(song, sr=RATE, q=4, **SMALL))
    assert reassigned_spectrogram(song.astype(np.float32), sr=RATE, **SMALL).dtype == np.float32


@pytest.mark.parametrize("options", [{}, {"exact": True}, {"reassign": False}, {"consensus": 2}])
@pytest.mark.parametrize("hop", [79, 80])
def test_function_is_the_module_with_silence_around_it(song, options, hop):
    options = {"q": [1.0, 4.0], **SMALL, "hop_length": hop, "count_threshold": False, **options}
    quiet = np.pad(song, (10 * hop, 10 * hop))
    power = reassigned_spectrogram(quiet, sr=RATE, **options)
    shift = hop // 2 - 1  # the module's first frame begins here, the function's half a hop earlier
    module = LinearReassignment(RATE, **options)(torch.from_numpy(np.pad(quiet, (shift, 0))))
    frames = slice(5, len(song) // hop + 15)
    expected = module[..., frames].numpy()
    power = power[..., frames]
    cosine = (power * expected).sum() / np.linalg.norm(power) / np.linalg.norm(expected)
    assert cosine > 0.999
    assert power.sum() == pytest.approx(expected.sum(), rel=0.01)


def test_samples_in_another_byte_order_are_taken(song):
    swapped = song.astype(song.dtype.newbyteorder())
    expected = reassigned_spectrogram(song, sr=RATE, **SMALL)
    assert np.array_equal(reassigned_spectrogram(swapped, sr=RATE, **SMALL), expected)
    module = LinearReassignment(RATE, **SMALL)
    assert torch.equal(module(swapped), module(song))


def test_time_that_is_not_last_gets_a_warning(song):
    turned = np.stack([song, song], axis=1)[:200]
    with pytest.warns(UserWarning, match=r"y has shape \(200, 2\): time is the last axis"):
        reassigned_spectrogram(turned, sr=RATE, **SMALL)
    with pytest.warns(UserWarning, match=r"waveform has shape \(200, 2\)"):
        LinearReassignment(RATE, **SMALL)(torch.from_numpy(turned))
    with pytest.warns(UserWarning, match="200 clips of 2 samples"):  # (C, N) for (N, C)
        high_resolution_spectrogram(turned[:, ::-1].T.copy(), 2, 1, 1, 2, 0.2, 0.5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reassigned_spectrogram(np.stack([song, song]), sr=RATE, **SMALL)


def test_a_trace_is_refused():
    with pytest.raises(RuntimeError, match="LinearReassignment cannot be traced"):
        torch.jit.trace(LinearReassignment(RATE, **SMALL), torch.randn(1000))


@pytest.mark.parametrize("exact", [False, True])
def test_samples_whose_power_overflows_are_an_error_and_the_largest_legal_ones_finite(song, exact):
    module = LinearReassignment(RATE, **SMALL, exact=exact)
    song = torch.from_numpy(song / np.abs(song).max())
    with pytest.raises(ValueError, match=r"waveform must lie within \+-1e\+14"):
        module(2e14 * song.float())
    with pytest.raises(ValueError, match=r"x must lie within \+-1e\+140"):
        high_resolution_spectrogram(2e140 * song, 2, 80, 4, 12, 0.01, 0.5)
    loud, expected = module(9e13 * song.float()), module(song.float())
    assert torch.allclose(loud / 8.1e27, expected, rtol=1e-3, atol=1e-6 * expected.max())


def test_fmax_a_hair_above_nyquist_is_nyquist(song):
    above = reassigned_spectrogram(song, sr=RATE, **SMALL, fmax=4000.001)
    assert np.array_equal(above, reassigned_spectrogram(song, sr=RATE, **SMALL, fmax=4000.0))
    with pytest.raises(ValueError, match=r"Nyquist frequency, 4000 Hz, got 4000\.01"):
        reassigned_spectrogram(song, sr=RATE, **SMALL, fmax=4000.01)


@pytest.mark.parametrize(
    ("y", "options", "error", "words"),
    [
        ([0.0, 1.0], {}, TypeError, "y must be a NumPy array, got list"),
        (np.zeros(9, np.int16), {}, TypeError, "y must hold .* got int16; divide .* by 32768"),
        (np.zeros(9, complex), {}, TypeError, "y must hold real .* got complex128"),
        (np.zeros(1), {}, ValueError, "y must have at least 2 samples along time, got 1"),
        (np.full(9, np.nan), {}, ValueError, "y must be finite"),
        (np.zeros(9), {"sr": 0}, ValueError, "sr must be > 0"),
        (np.zeros(9), {"axis": "mel"}, ValueError, "axis='mel' needs n_bins"),
    ],
)
def test_errors_name_the_argument_what_was_given_and_what_is_legal(y, options, error, words):
    with pytest.raises(error, match=words):
        reassigned_spectrogram(y, **{"sr": RATE, **SMALL, **options})
