"""What channels are computed with: axes, filterbanks, the STFT, and 8-bit codes for the store."""

import math
from functools import lru_cache

import librosa
import numpy as np
import torch
from torch import Tensor

from freesound_tagging.features.grid import Grid

ALGORITHM = 1
"""Raise it when the numbers of a channel change for the same settings: it is part of every key of
the store, and of every saved model."""

DB_RANGE = 80.0
"""Decibels below a clip's maximum that are kept; anything weaker is at the floor."""

CODE_LEVELS = 255
"""Steps of the 8-bit decibel scale: 80 dB / 255 = 0.31 dB a step."""

MU = 255
"""Of mu-law companding, by which waveforms are stored."""


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
def filterbank_tensor(axis: str, n_fft: int, grid: Grid) -> Tensor:
    """Return the `filterbank` of an axis of a grid, computed once."""
    return torch.from_numpy(filterbank(axis_frequencies(axis, grid), n_fft, grid.sample_rate))


def stft_power(waveform: Tensor, n_fft: int, hop_length: int, frames_per_column: int = 1) -> Tensor:
    """Return the power of a Hann-window STFT, averaged over the frames of each column.

    The frames of column j are centred on samples (j + (i + 1/2) / frames_per_column) hop_length:
    evenly spread over the hop into which linear reassignment sorts its points. Outside the
    waveform there is silence. The window is scaled to sum to 2, so that a sine's magnitude is its
    amplitude.

    Parameters
    ----------
    waveform : float, shape (..., time).
    n_fft : window and FFT length in samples.
    hop_length : samples from one column to the next.
    frames_per_column : frames averaged.

    Returns
    -------
    Power, shape (..., 1 + n_fft // 2, ceil(time / hop_length)).
    """
    n_columns = -(-waveform.shape[-1] // hop_length)
    within = (2 * torch.arange(frames_per_column) + 1) * hop_length // (2 * frames_per_column)
    starts = (torch.arange(n_columns)[:, None] * hop_length + within).flatten()
    needed = int(starts[-1]) + n_fft  # frame s begins n_fft // 2 before its centre, starts[s]
    padding = (n_fft // 2, max(0, needed - n_fft // 2 - waveform.shape[-1]))
    frames = torch.nn.functional.pad(waveform, padding).unfold(-1, n_fft, 1)[..., starts, :]
    window = torch.hann_window(n_fft, dtype=waveform.dtype, device=waveform.device)
    spectrum = torch.fft.rfft(frames * (window * (2 / window.sum())))
    power = spectrum.real**2 + spectrum.imag**2
    return power.unflatten(-2, (n_columns, frames_per_column)).mean(-2).transpose(-2, -1)


def relative_to_peak(magnitude: Tensor) -> Tensor:
    """Return a magnitude (..., frequency, time) over its maximum; of silence all 0."""
    peak = magnitude.amax(dim=(-2, -1), keepdim=True)
    return magnitude / peak.clamp_min(torch.finfo(magnitude.dtype).tiny)


def relative_decibels(magnitude: Tensor) -> Tensor:
    """Return 20 log10(magnitude / its maximum), from -`DB_RANGE` to 0; silence is at the floor."""
    return 20 * torch.log10(relative_to_peak(magnitude).clamp_min(10 ** (-DB_RANGE / 20)))


def encode(values: Tensor, limits: tuple[float, float] | None = None) -> Tensor:
    """Return 8-bit codes of a channel.

    Parameters
    ----------
    values : shape (..., frequency, time).
    limits : values of codes 0 and 255, with even steps between. By default the values are
        magnitudes, and the codes even steps of their `relative_decibels`: 255 is the maximum of
        each spectrogram, 0 all that is `DB_RANGE` or more below it.

    Returns
    -------
    uint8, same shape.
    """
    if limits is None:
        levels = relative_decibels(values) / DB_RANGE + 1
    else:
        levels = ((values - limits[0]) / (limits[1] - limits[0])).clamp(0, 1)
    return (levels * CODE_LEVELS).round().to(torch.uint8)


@lru_cache(maxsize=8)
def decoding_table(loudness: str) -> Tensor:
    """Return the value of each of the 256 codes, float32, from 0 to 1.

    Parameters
    ----------
    loudness : ``"linear"``, the magnitude relative to the clip's maximum; or ``"db"`` or
        ``"pcen"``, even steps of what the code itself measures; or ``"mu_law"``, a waveform, with
        silence at 1/2.

    Raises
    ------
    ValueError
        Where ``loudness`` is none of them.
    """
    levels = torch.arange(CODE_LEVELS + 1, dtype=torch.float32) / CODE_LEVELS
    if loudness in ("db", "pcen"):
        return levels
    if loudness == "linear":
        magnitude = 10 ** ((levels - 1) * (DB_RANGE / 20))
        magnitude[0] = 0
        return magnitude
    if loudness == "mu_law":
        companded = ((levels * CODE_LEVELS - 127) / 127).clamp(max=1)  # 127 is the code of 0
        return (1 + companded.sign() * torch.expm1(companded.abs() * math.log1p(MU)) / MU) / 2
    raise ValueError(f"unknown loudness {loudness!r}; the known ones are: db, linear, pcen, mu_law")
