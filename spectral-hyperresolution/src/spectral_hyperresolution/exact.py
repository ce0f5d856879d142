"""The exact form on a CPU: every scan line at every sample, as the authors' MATLAB computes it."""

from __future__ import annotations

import numpy as np
import scipy.fft

from . import kernels
from .grid import Settings
from .threads import thread_pool

# Gaussians are followed to exp(-12^2 / 2) = 5e-32, beyond the rounding of a float64 transform.
REACH = 12.0

# Lines that one thread takes at a time: their transforms stay in its cache, and are as many (xi and
# eta of each) as the transform works on side by side.
LINES_AT_A_TIME = 2


def histograms(
    x: np.ndarray, settings: Settings, silence: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """Energy and count of the points of one signal.

    Parameters
    ----------
    x : float32 or float64 array, shape (N,)
        Its precision is that of the transforms.
    settings : Settings
    silence : float
        Amplitude below which a point is not followed: |m|^2 + (silence / |xi|)^2 < 1/4.

    Returns
    -------
    energy, count : float64 arrays, shape (n_bins, frames), low frequencies first
        Sum of |xi|^2 and number of the points in each bin.
    """
    spectrum = scipy.fft.rfft(x)
    if not settings.reassign:
        return standing_histograms(spectrum, len(x), settings)
    lines, n_samples = settings.scan_lines(), len(x)
    frames = settings.frames(n_samples)
    shift, end = settings.frame_shift, settings.end(n_samples)
    axis = settings.axis_parameters()
    q, fmin, fmax, n_bins = settings.q, settings.fmin, settings.fmax, settings.n_bins
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
        kernels.bin_lines(
            xi, eta, f0, q, settings.hop, shift, end, fmin, fmax, axis, silence**2, rows, e, c
        )
        return rows, e, c

    # Added in the order of the lines whatever thread was first: same input, same bytes.
    with thread_pool() as workers:
        for rows, e, c in workers(strips, range(0, len(lines), LINES_AT_A_TIME)):
            kernels.add_strips(e, c, rows, energy, count)
    return energy, count.astype(np.float64)


def standing_histograms(
    spectrum: np.ndarray, n_samples: int, settings: Settings
) -> tuple[np.ndarray, np.ndarray]:
    """As `histograms`, with every point counted where its filter stands."""
    lines = settings.scan_lines()
    rows = settings.rows(lines)
    lines, rows = lines[rows >= 0], rows[rows >= 0]
    frames = settings.frames(n_samples)
    energy, count = np.zeros((settings.n_bins, frames)), np.zeros((settings.n_bins, frames))
    ends = settings.frame_ends(n_samples)
    frame = np.searchsorted(ends, np.arange(1, ends[-1]), side="right")
    samples = np.bincount(frame, minlength=frames)

    def line_energy(f0: float) -> np.ndarray:
        xi = np.empty((1, n_samples), dtype=spectrum.dtype)
        kernels.filter_lines(
            spectrum, n_samples, np.array([f0]), settings.q, REACH, xi, np.empty_like(xi)
        )
        xi = scipy.fft.ifft(xi[0], overwrite_x=True)[: len(frame)]
        return np.bincount(frame, weights=np.abs(xi) ** 2, minlength=frames)

    with thread_pool() as workers:
        for row, power in zip(rows, workers(line_energy, lines), strict=True):
            energy[row] += power
            count[row] += samples
    return energy, count
