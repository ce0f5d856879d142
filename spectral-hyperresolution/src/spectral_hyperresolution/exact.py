"""The exact form on a CPU: every scan line at every sample, as the authors' MATLAB computes it."""

from __future__ import annotations

import numpy as np
import scipy.fft

from . import kernels
from .settings import Settings
from .threads import in_threads

# Gaussians are followed to exp(-12^2 / 2) = 5e-32, beyond the rounding of a float64 transform.
REACH = 12.0

# Lines that one thread takes at a time: their transforms stay in its cache, and are as many (xi and
# eta of each) as the transform works on side by side.
LINES_AT_A_TIME = 2


def histograms(spectrum: np.ndarray, n_samples: int, settings: Settings) -> tuple:
    """Energy and count of the reassigned points of one signal.

    Parameters
    ----------
    spectrum : complex64 or complex128 array, shape (N // 2 + 1,)
        ``rfft`` of the signal; its precision is that of the transforms.
    n_samples : int
        N.
    settings : Settings

    Returns
    -------
    energy, count : float64 arrays, shape (n_bins, frames), low frequencies first
        Sum of |xi|^2 and number of the points in each bin.
    """
    lines = settings.scan_lines()
    frames = settings.frames(n_samples)
    if not settings.reassign:
        return standing_histograms(spectrum, n_samples, settings)
    axis = settings.axis_parameters()
    q, fmin, fmax, n_bins = settings.q, settings.low, settings.high, settings.n_rows
    first, strip = kernels.strip_ranges(lines, q, fmin, fmax, n_bins, axis)
    energy = np.zeros((n_bins, frames))
    count = np.zeros((n_bins, frames), dtype=np.int64)

    def strips(start: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        f0 = lines[start : start + LINES_AT_A_TIME]
        rows = first[start : start + LINES_AT_A_TIME]
        filtered = np.empty((2, len(f0), n_samples), dtype=spectrum.dtype)
        kernels.filter_lines(spectrum, n_samples, f0, q, REACH, filtered[0], filtered[1])
        xi, eta = scipy.fft.ifft(filtered, axis=-1, overwrite_x=True)
        e = np.zeros((len(f0), strip, frames))
        c = np.zeros((len(f0), strip, frames), dtype=np.int64)
        kernels.bin_lines(xi, eta, f0, q, settings.hop_length, fmin, fmax, n_bins, axis, rows, e, c)
        return rows, e, c

    # Added in the order of the lines whatever thread was first: same input, same bytes.
    for rows, e, c in in_threads(strips, range(0, len(lines), LINES_AT_A_TIME)):
        for row, of_energy, of_count in zip(rows, e, c, strict=True):
            part = slice(row, row + strip)
            energy[part] += of_energy[: n_bins - row]
            count[part] += of_count[: n_bins - row]
    return energy, count.astype(np.float64)


def standing_histograms(spectrum: np.ndarray, n_samples: int, settings: Settings) -> tuple:
    """As `histograms`, with every point where its filter stands; no points are counted."""
    lines, frames = settings.scan_lines(), settings.frames(n_samples)
    rows = settings.rows(lines)
    lines, rows = lines[rows >= 0], rows[rows >= 0]
    energy = np.zeros((settings.n_rows, frames))
    # The last sample is left out, as are points that are reassigned to it: t < N.
    frame = np.arange(1, n_samples) // settings.hop_length

    def line_energy(f0: float) -> np.ndarray:
        xi, eta = np.empty((2, 1, n_samples), dtype=spectrum.dtype)
        kernels.filter_lines(spectrum, n_samples, np.array([f0]), settings.q, REACH, xi, eta)
        xi = scipy.fft.ifft(xi[0], overwrite_x=True)[: n_samples - 1]
        return np.bincount(frame, weights=np.abs(xi) ** 2, minlength=frames)

    for row, power in zip(rows, in_threads(line_energy, lines), strict=True):
        energy[row] += power
    return energy, np.zeros_like(energy)


def histograms_of_batch(x: np.ndarray, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Energy and count, both float64 and (batch, n_bins, frames), of signals (batch, N)."""
    pairs = [histograms(scipy.fft.rfft(signal), len(signal), settings) for signal in x]
    energies, counts = zip(*pairs, strict=True)
    return np.stack(energies), np.stack(counts)
