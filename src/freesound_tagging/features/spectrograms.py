"""Waveform -> picture on a stated grid, and the 8-bit decibel codes in which pictures are kept.

Standard spectrograms are computed here, by true filterbanks; the reassigned ones come from
`spectral_hyperresolution`. Both are magnitudes on the same rows (Hz) and columns (s).
"""

from collections.abc import Sequence
from functools import lru_cache

import librosa
import numpy as np
import torch
from torch import Tensor

from freesound_tagging.features.variants import DB_RANGE, Channel, Grid, get_channel
from spectral_hyperresolution import LinearReassignment

CODE_LEVELS = 255
"""Steps of the 8-bit decibel scale: 80 dB / 255 = 0.31 dB a step."""


def axis_frequencies(axis: str, grid: Grid) -> np.ndarray:
    """Return the centre of each row in Hz, lowest first, shape (grid.n_bins,).

    The logarithmic axis counts down from ``grid.fmax``, as linear reassignment does, so that both
    families share it.

    Raises
    ------
    ValueError
        Where ``axis`` is not linear, log, mel or mel_htk.
    """
    if axis == "log":
        steps_below_fmax = np.arange(grid.n_bins)[::-1]
        return grid.fmax * 2.0 ** (-steps_below_fmax / grid.bins_per_octave)
    if axis == "linear":
        return np.linspace(grid.fmin, grid.fmax, grid.n_bins)
    if axis == "mel":
        return librosa.mel_frequencies(grid.n_bins, fmin=grid.fmin, fmax=grid.fmax)
    if axis == "mel_htk":
        edges = librosa.mel_frequencies(
            2 * grid.n_bins + 1, fmin=grid.fmin, fmax=grid.fmax, htk=True
        )
        return edges[1::2]  # the middles of the bins that reassignment sorts into
    raise ValueError(f"unknown axis {axis!r}; the known ones are: linear, log, mel, mel_htk")


def filterbank(frequencies: np.ndarray, n_fft: int, sample_rate: int) -> np.ndarray:
    """Return triangular filters that turn an STFT's power into mean power around each frequency.

    A triangle reaches to the neighbouring rows, and never less than one FFT bin to either side:
    where the axis is finer than the FFT, rows interpolate between bins, and no filter is empty.
    Each filter's weights sum to 1.

    Parameters
    ----------
    frequencies : row centres in Hz, increasing, shape (n_bins,).
    n_fft : length of the FFT in samples.
    sample_rate : in Hz.

    Returns
    -------
    Weights, float32, shape (n_bins, 1 + n_fft // 2).

    Raises
    ------
    ValueError
        Where a row lies above half the sample rate, or below 0.
    """
    fft_frequencies = np.arange(1 + n_fft // 2) * (sample_rate / n_fft)
    spacing = np.diff(frequencies)
    bin_width = sample_rate / n_fft
    below = np.maximum(np.concatenate([spacing[:1], spacing]), bin_width)
    above = np.maximum(np.concatenate([spacing, spacing[-1:]]), bin_width)
    offset = fft_frequencies[None, :] - frequencies[:, None]
    weights = np.clip(
        1 - np.where(offset < 0, -offset / below[:, None], offset / above[:, None]), 0, None
    )
    sums = weights.sum(axis=1, keepdims=True)
    if not sums.all():
        outside = frequencies[sums[:, 0] == 0][-1]
        raise ValueError(f"a row at {outside:g} Hz lies outside 0 to {sample_rate / 2:g} Hz")
    return (weights / sums).astype(np.float32)


@lru_cache(maxsize=16)
def _filterbank_tensor(axis: str, n_fft: int, grid: Grid) -> Tensor:
    return torch.from_numpy(filterbank(axis_frequencies(axis, grid), n_fft, grid.sample_rate))


@lru_cache(maxsize=8)
def _reassignment(
    qs: tuple[float, ...], axis: str, count_threshold: bool, consensus: int | None, grid: Grid
) -> LinearReassignment:
    return LinearReassignment(
        grid.sample_rate,
        q=qs,
        hop_length=grid.hop_length,
        bins_per_octave=grid.bins_per_octave,
        fmin=grid.fmin,
        fmax=grid.fmax,
        oversampling=grid.oversampling,
        axis="mel" if axis == "mel_htk" else axis,
        n_bins=None if axis == "log" else grid.n_bins,
        count_threshold=count_threshold,
        consensus=consensus,
    )


def stft_power(waveform: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Return the power of a Hann-window STFT.

    Frame j is centred on sample (j + 1/2) hop_length. Frames sit at the middle of the same hops
    into which linear reassignment sorts its points; outside the waveform there is silence. The
    window is scaled to sum to 2, so that a sine's magnitude is its amplitude.

    Parameters
    ----------
    waveform : float, shape (..., time).
    n_fft : window and FFT length in samples.
    hop_length : samples from one frame to the next.

    Returns
    -------
    Power, shape (..., 1 + n_fft // 2, ceil(time / hop_length)).
    """
    n_frames = -(-waveform.shape[-1] // hop_length)
    left = n_fft // 2 - hop_length // 2
    needed = (n_frames - 1) * hop_length + n_fft
    padded = torch.nn.functional.pad(waveform, (left, max(0, needed - left - waveform.shape[-1])))
    window = torch.hann_window(n_fft, dtype=waveform.dtype, device=waveform.device)
    window = window * (2 / window.sum())
    flat = padded[..., :needed].reshape(-1, needed)
    spectrum = torch.stft(flat, n_fft, hop_length, window=window, center=False, return_complex=True)
    return (spectrum.real**2 + spectrum.imag**2).reshape(*waveform.shape[:-1], -1, n_frames)


def standard_spectrogram(waveform: Tensor, channel: Channel, grid: Grid) -> Tensor:
    """Return a standard spectrogram's magnitude, (..., grid.n_bins, n_frames), lowest row first."""
    power = stft_power(waveform, channel.n_fft, grid.hop_length)
    weights = _filterbank_tensor(channel.axis, channel.n_fft, grid).to(power)
    return (weights @ power).sqrt()


def compute_channels(waveform: Tensor, names: Sequence[str], grid: Grid) -> dict[str, Tensor]:
    """Compute several channels of a batch of waveforms.

    Reassigned channels that differ in q alone are computed in one call, so that they share the
    transform of the signal.

    Parameters
    ----------
    waveform : float32, shape (..., time).
    names : keys of `freesound_tagging.features.variants.CHANNELS` or ``CONTROL_CHANNELS``.
    grid : the time-frequency grid.

    Returns
    -------
    Magnitude by channel name, each of shape (..., grid.n_bins, n_frames), lowest row first.
    """
    magnitudes = {}
    alike: dict[tuple, list[str]] = {}
    for name in names:
        channel = get_channel(name)
        if channel.q is None:
            magnitudes[name] = standard_spectrogram(waveform, channel, grid)
        elif channel.consensus:
            transform = _reassignment(
                channel.q, channel.axis, channel.count_threshold, channel.consensus, grid
            )
            magnitudes[name] = transform(waveform).sqrt()
        else:
            alike.setdefault((channel.axis, channel.count_threshold), []).append(name)
    for (axis, count_threshold), group in alike.items():
        qs = tuple(float(get_channel(name).q) for name in group)
        power = _reassignment(qs, axis, count_threshold, None, grid)(waveform)
        for position, name in enumerate(group):
            magnitudes[name] = power[..., position, :, :].sqrt()
    return {name: magnitudes[name] for name in names}


def encode(magnitude: Tensor) -> Tensor:
    """Return 8-bit codes of 20 log10(magnitude / its maximum) over the `DB_RANGE` below it.

    Parameters
    ----------
    magnitude : shape (..., frequency, time); every picture has its own maximum.

    Returns
    -------
    uint8, same shape; 255 is the clip's maximum, 0 everything that is `DB_RANGE` or more below it.
    A silent clip is all 0.
    """
    peak = magnitude.amax(dim=(-2, -1), keepdim=True)
    relative = torch.where(
        peak > 0, magnitude / peak.clamp_min(torch.finfo(magnitude.dtype).tiny), 0
    )
    decibels = 20 * torch.log10(relative.clamp_min(10 ** (-DB_RANGE / 20)))
    return ((decibels / DB_RANGE + 1) * CODE_LEVELS).round().to(torch.uint8)


@lru_cache(maxsize=2)
def decoding_table(loudness: str) -> Tensor:
    """Return the value of each of the 256 codes, float32, from 0 (floor) to 1 (the clip's maximum).

    ``"db"`` runs evenly in decibels; ``"linear"`` is the magnitude relative to the clip's maximum.

    Raises
    ------
    ValueError
        Where ``loudness`` is neither.
    """
    levels = torch.arange(CODE_LEVELS + 1, dtype=torch.float32) / CODE_LEVELS
    if loudness == "db":
        return levels
    if loudness == "linear":
        magnitude = 10 ** ((levels - 1) * (DB_RANGE / 20))
        magnitude[0] = 0
        return magnitude
    raise ValueError(f"unknown loudness {loudness!r}; the known ones are: db, linear")
