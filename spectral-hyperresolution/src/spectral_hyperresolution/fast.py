"""The fast form on a CPU: short transforms of the nodes, then one compiled loop over the points."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence

import numpy as np
import scipy.fft

from . import kernels
from .plan import Batch, Plan, make_plan, pad
from .settings import Settings
from .threads import in_threads, thread_count

kept = threading.local()


def histograms(
    spectra: dict[int, np.ndarray], peak: float, plan: Plan, run: Callable, dtype: type
) -> tuple[np.ndarray, np.ndarray]:
    """Energy and count of the reassigned points of one signal, approximately.

    Parameters
    ----------
    spectra : complex64 array by period, each of shape (period // 2 + 1,)
        ``rfft`` of the padded signal in units of the period times `peak`, so that squares stay
        within single precision for any loudness.
    peak : float
    plan : Plan
    run : callable
        `in_threads`, or ``map``.
    dtype : np.float32 or np.float64
        Of the energy: that of a very loud or very quiet signal may not fit single precision.

    Returns
    -------
    energy, count : arrays, shape (bins, frames), low frequencies first; count is float32
    """
    settings = plan.settings
    shape = (settings.n_rows, settings.frames(plan.n_samples), 2)
    bins = np.zeros(shape, dtype=np.float32)
    if peak > 0:
        # Added in the order of the batches whatever thread was first: same input, same bytes.
        strips = run(lambda batch: strip(spectra[batch.layout.period], plan, batch), plan.batches)
        for batch, of_batch in zip(plan.batches, strips, strict=True):
            bins[batch.first_bin : batch.first_bin + batch.n_bins] += of_batch
    return bins[:, :, 0] * dtype(peak**2), bins[:, :, 1]


def strip(spectrum: np.ndarray, plan: Plan, batch: Batch) -> np.ndarray:
    """Energy and count of one batch, float32, shape (batch.n_bins, frames, 2)."""
    settings, layout, n = plan.settings, batch.layout, plan.n_samples
    bins = np.zeros((batch.n_bins, settings.frames(n), 2), dtype=np.float32)
    bands = workspace((len(batch.turns), len(batch.low), 2, layout.length))
    first_turn, step = batch.turns.start, layout.period / layout.length
    kernels.fill_bands(
        spectrum,
        *(first_turn, layout.turns),
        *(batch.low, batch.high, batch.slope, batch.offset, batch.window),
        bands.view(np.float32),
    )
    bands = scipy.fft.ifft(bands, axis=-1, norm="forward", overwrite_x=True).view(np.float32)
    kernels.add_points(
        bands,
        *(first_turn, layout.turns, batch.of_turn, batch.lines, plan.halfway, plan.log),
        *(step, n, settings.hop_length, step * layout.skip, settings.reassign),
        bins,
    )
    return bins


def workspace(shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised complex64 array, of this thread's own memory where that is not too much.

    Fresh memory costs as much time as filling it.
    """
    size = math.prod(shape)
    if size > 1 << 20:
        return np.empty(shape, dtype=np.complex64)
    if not hasattr(kept, "memory") or kept.memory.size < size:
        kept.memory = np.empty(size, dtype=np.complex64)
    return kept.memory[:size].reshape(shape)


def histograms_of_batch(x: np.ndarray, settings: Sequence[Settings]) -> list:
    """(energy, count) of each of `settings`, shape (batch, bins, frames), of signals (batch, N).

    Several q share the transform of the signal.
    """
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    plans = [make_plan(x.shape[-1], one) for one in settings]
    periods = {batch.layout.period for plan in plans for batch in plan.batches}

    def of_one(signal: np.ndarray, run: Callable = map) -> list[tuple[np.ndarray, np.ndarray]]:
        # In double precision, so that a DC offset leaves the small bins their digits.
        spectra = {n: scipy.fft.rfft(pad(signal, n).astype(np.float64)) / n for n in periods}
        peak = max(float(np.abs(spectrum).max()) for spectrum in spectra.values())
        spectra = {n: (s / (peak or 1)).astype(np.complex64) for n, s in spectra.items()}
        return [histograms(spectra, peak, plan, run, dtype) for plan in plans]

    if len(x) < thread_count():
        found = [of_one(signal, in_threads) for signal in x]
    else:  # a whole signal per thread: none waits for the others' pieces
        found = list(in_threads(of_one, x))
    return [tuple(map(np.stack, zip(*pairs, strict=True))) for pairs in zip(*found, strict=True)]
