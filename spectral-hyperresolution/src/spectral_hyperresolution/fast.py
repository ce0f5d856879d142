"""The fast form on a CPU: short transforms of the nodes, then one compiled loop over the points."""

from __future__ import annotations

import numpy as np
import scipy.fft

from . import kernels
from .grid import Settings
from .plan import Batch, Plan, make_plan


def spectrum_of(x: np.ndarray) -> tuple[np.ndarray, float]:
    """``rfft`` of a signal in units of its peak, complex64, and the peak.

    In double precision, so that a DC offset leaves the small bins their digits; in units of the
    peak, squares stay within single precision.
    """
    spectrum = scipy.fft.rfft(x.astype(np.float64))
    peak = float(np.abs(spectrum).max())
    return (spectrum / (peak or 1.0)).astype(np.complex64), peak


def histograms(
    x: np.ndarray, settings: list[Settings], accuracy: float, silence: float, workers=map
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Energy and count of the points of one signal for each of several settings, approximately.

    Parameters
    ----------
    x : float array, shape (N,)
    settings : list of Settings
    accuracy : float
        See `LinearReassignment`.
    silence : float
        See `exact.histograms`.
    workers : callable
        ``map`` of a thread pool, or the built-in one.

    Returns
    -------
    list of (energy, count)
        float64 and float32 arrays, shape (n_bins, frames), low frequencies first.
    """
    spectrum, peak = spectrum_of(x)
    results = []
    for one in settings:
        plan = make_plan(len(x), one, accuracy)
        cells = np.zeros((one.n_bins, plan.n_frames, 2), dtype=np.float32)
        if peak > 0:
            least = (silence * len(x) / peak) ** 2

            def one_batch(batch: Batch, plan: Plan = plan, least: float = least) -> np.ndarray:
                return strip(spectrum, plan, batch, least)

            # Added in the order of the batches whatever thread was first: same input, same bytes.
            for batch, part in zip(plan.batches, workers(one_batch, plan.batches), strict=True):
                cells[batch.first_bin : batch.first_bin + batch.n_bins] += part
        energy = cells[..., 0].astype(np.float64) * (peak / len(x)) ** 2
        results.append((energy, cells[..., 1]))
    return results


def strip(spectrum: np.ndarray, plan: Plan, batch: Batch, silence: float) -> np.ndarray:
    """Energy and count of one batch side by side, float32, shape (batch.n_bins, frames, 2)."""
    settings, nodes = plan.settings, batch.nodes
    cells = np.zeros((batch.n_bins, plan.n_frames, 2), dtype=np.float32)
    bands = np.empty((len(nodes.f0), 2, batch.length), dtype=np.complex64)
    kernels.fill_bands(
        spectrum, nodes.low, nodes.high, batch.slope, batch.offset, batch.window, bands
    )
    bands = scipy.fft.ifft(bands, axis=-1, norm="forward", overwrite_x=True)
    parts = np.empty((len(nodes.f0), 4, batch.length + 2), dtype=np.float32)
    kernels.unpack(bands.view(np.float32), parts)
    step = plan.n_samples / batch.length
    if settings.reassign:
        kernels.bin_points(
            parts,
            batch.lines,
            plan.log_coefficients,
            step,
            settings.hop,
            settings.frame_shift,
            settings.end(plan.n_samples),
            silence,
            batch.lines_each,
            cells,
        )
    else:
        ends = settings.frame_ends(plan.n_samples)
        kernels.sum_points(parts, batch.lines, step, ends, batch.lines_each, cells[..., 0])
    return cells
