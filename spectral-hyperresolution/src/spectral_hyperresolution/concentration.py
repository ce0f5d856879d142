"""How concentrated a time-frequency picture is."""

from __future__ import annotations

import numpy as np
import scipy.fft


def renyi_entropy(power: np.ndarray, order: float = 3.0) -> float:
    r"""Renyi entropy of a picture in bits; the lower, the more concentrated.

    .. math:: H_a = \frac{1}{1 - a} \log_2 \sum_{ij} p_{ij}^a, \quad p = P / \sum P

    An energy spread evenly over n bins has log2(n) bits; all of it in one bin has 0. Compare only
    pictures on the same grid: a finer grid has more bits to give.

    Parameters
    ----------
    power : array
        Non-negative energies, any shape, not all zero.
    order : float
        a > 0, not 1. 3 is the usual choice for time-frequency pictures.

    Returns
    -------
    float
        Bits, between 0 and log2(power.size).

    Raises
    ------
    ValueError
        If `power` is negative somewhere, not finite, or zero everywhere, or `order` is out of
        range.

    References
    ----------
    R. G. Baraniuk, P. Flandrin, A. J. E. M. Janssen and O. J. J. Michel, "Measuring time-frequency
    information content using the Renyi entropies", IEEE Trans. Inf. Theory 47(4), 2001, doi
    10.1109/18.923723.

    Examples
    --------
    >>> import numpy as np
    >>> renyi_entropy(np.ones((4, 4)))
    4.0
    """
    power = np.asarray(power, dtype=np.float64)
    if not order > 0 or order == 1:
        raise ValueError(f"order must be > 0 and not 1, got {order}")
    total = power.sum()
    if not np.isfinite(total) or (power < 0).any() or total == 0:
        raise ValueError("power must be finite, >= 0 and not zero everywhere")
    # + 0.0 turns the -0.0 of a single occupied bin into 0.0
    return float(np.log2(((power / total) ** order).sum()) / (1 - order)) + 0.0


def regrid(
    power: np.ndarray,
    times: np.ndarray,
    frequencies: np.ndarray,
    time_edges: np.ndarray,
    frequency_edges: np.ndarray,
) -> np.ndarray:
    """Add up the energy of scattered points, or of the cells of a picture, on a common grid.

    Parameters
    ----------
    power, times, frequencies : arrays that broadcast against one another
        Energy of each point and where it lies (s, Hz); points that are not finite are left out.
    time_edges, frequency_edges : arrays, rising
        Edges of the grid in s and Hz.

    Returns
    -------
    float64 array, shape (len(frequency_edges) - 1, len(time_edges) - 1)
    """
    power, times, frequencies = np.broadcast_arrays(power, times, frequencies)
    fine = np.isfinite(power) & np.isfinite(times) & np.isfinite(frequencies)
    return np.histogram2d(
        frequencies[fine], times[fine], [frequency_edges, time_edges], weights=power[fine]
    )[0]


def stft_points(
    waveform: np.ndarray, sample_rate: float, n_fft: int, hop_length: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies, times (s) and frequencies (Hz) of an STFT, for `regrid`.

    A Hann window of `n_fft` samples, centred on every `hop_length`-th sample; each spectrum is
    padded to four times its length, so that a fine grid shows the window's own shape, not gaps.

    Parameters
    ----------
    waveform : array, shape (time,)
    sample_rate : float
        Hz.
    n_fft, hop_length : int
        Samples, >= 2 and >= 1. Take a divisor of the grid's hop, or its frames fill unevenly.

    Returns
    -------
    power, shape (frequency, frame); times, shape (1, frame); frequencies, shape (frequency, 1)
    """
    padded = np.pad(np.asarray(waveform, dtype=np.float32), n_fft // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, n_fft)[::hop_length]
    spectra = scipy.fft.rfft(frames * np.hanning(n_fft).astype(np.float32), n=4 * n_fft).T
    times = np.arange(spectra.shape[1]) * hop_length / sample_rate
    frequencies = np.arange(spectra.shape[0]) * sample_rate / (4 * n_fft)
    return np.abs(spectra) ** 2, times[None], frequencies[:, None]


def synchrosqueezed_points(
    waveform: np.ndarray, sample_rate: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Energies, times (s) and frequencies (Hz) of ssqueezepy's wavelet transform, for `regrid`.

    Parameters
    ----------
    waveform : array, shape (time,)
    sample_rate : float
        Hz.

    Returns
    -------
    power, shape (frequency, time); times, shape (1, time); frequencies, shape (frequency, 1)
    """
    import ssqueezepy

    squeezed, _, frequencies, *_ = ssqueezepy.ssq_cwt(np.asarray(waveform), fs=sample_rate)
    times = np.arange(squeezed.shape[1]) / sample_rate
    return np.abs(squeezed) ** 2, times[None], np.asarray(frequencies)[:, None]
