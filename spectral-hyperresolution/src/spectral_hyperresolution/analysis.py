"""What a caller chose, checked, and the pictures that follow from it, NumPy only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import exact as exact_form
from . import fast
from .checks import check_power
from .grid import Settings, make_settings, positive_number, q_sequence, whole_number
from .threads import thread_pool

# Amplitude, relative to the loudest sample, below which a point is not followed: -120 dB. In
# digital silence xi is rounding noise, and a third of such points would be followed and counted.
SILENCE = 1e-6


@dataclass(frozen=True)
class Analysis:
    """One `Settings` for each q, how to compute them, and how to combine them."""

    settings: tuple[Settings, ...]
    several_q: bool
    exact: bool
    accuracy: float
    count_threshold: bool
    consensus: int | None

    @property
    def q(self) -> tuple[float, ...]:
        return tuple(one.q for one in self.settings)


def make_analysis(
    sample_rate: float,
    q: float | Sequence[float],
    hop_length: int,
    bins_per_octave: float,
    fmin: float,
    fmax: float | None,
    oversampling: int,
    exact: bool,
    reassign: bool,
    center: bool,
    axis: str,
    n_bins: int | None,
    count_threshold: bool,
    consensus: int | None,
    accuracy: float,
    names: dict[str, str],
) -> Analysis:
    """Check every argument; `names` maps those of `Settings` to the caller's own.

    Raises
    ------
    ValueError
        Naming the argument, what was given and what is legal.
    """
    sample_rate = positive_number(sample_rate, names.get("sample_rate", "sample_rate"))
    values, several_q = q_sequence(q)
    fmin = positive_number(fmin, "fmin")
    fmax = sample_rate / 2 if fmax is None else positive_number(fmax, "fmax")
    settings = tuple(
        make_settings(
            value,
            hop_length,
            fmin / sample_rate,
            fmax / sample_rate,
            bins_per_octave,
            oversampling,
            axis,
            n_bins,
            sample_rate,
            names,
            reassign,
            center,
        )
        for value in values
    )
    if consensus is not None:
        consensus = whole_number(consensus, "consensus")
        most = len(values) if several_q else 0
        if consensus > most:
            raise ValueError(
                "consensus must be between 1 and the number of q in a sequence "
                f"({most} given), got {consensus}"
            )
    accuracy = positive_number(accuracy, "accuracy")
    if not 0.25 <= accuracy <= 8:
        raise ValueError(f"accuracy must lie in 0.25 to 8, got {accuracy}")
    # Where nothing moves, every bin has its share of points and there is no froth to take away.
    threshold = bool(count_threshold) and settings[0].reassign
    return Analysis(settings, several_q, bool(exact), accuracy, threshold, consensus)


def histograms(
    x: np.ndarray, analysis: Analysis, which: Sequence[int] | None = None, workers=None
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Energy (float64) and count of one signal for the chosen settings, (frequency, time) each.

    Parameters
    ----------
    x : float32 or float64 array, shape (N,)
        Finite. The exact form works in its precision.
    analysis : Analysis
    which : sequence of int, optional
        Indices of the settings; by default all.
    workers : callable, optional
        ``map`` for the fast form's batches; by default a pool of threads.
    """
    chosen = [analysis.settings[i] for i in (range(len(analysis.q)) if which is None else which)]
    # A power of two scales without rounding, and no square over- or underflows on the way.
    peak, exponent = np.frexp(np.abs(x).max())
    x = np.ldexp(x, -exponent)
    if analysis.exact:
        found = [exact_form.histograms(x, one, SILENCE * float(peak)) for one in chosen]
    elif workers is not None:
        found = fast.histograms(x, chosen, analysis.accuracy, SILENCE * float(peak), workers)
    else:
        with thread_pool() as pool:
            found = fast.histograms(x, chosen, analysis.accuracy, SILENCE * float(peak), pool)
    with np.errstate(over="ignore"):
        return [(np.ldexp(energy, 2 * int(exponent)), count) for energy, count in found]


def pictures(x: np.ndarray, analysis: Analysis, name: str) -> np.ndarray:
    """Power of signals, (batch, N) to (batch, q, frequency, time), in the precision of `x`.

    Raises
    ------
    ValueError
        Naming the argument, if the power does not fit that precision.
    """
    one = analysis.settings[0]
    out = np.zeros(
        (len(x), len(analysis.q), one.n_bins, one.frames(x.shape[-1])),
        dtype=np.float64 if x.dtype == np.float64 else np.float32,
    )

    def fill(i: int, workers=None) -> None:
        for picture, (energy, count) in zip(
            out[i], histograms(x[i], analysis, workers=workers), strict=True
        ):
            with np.errstate(over="ignore"):
                picture[:] = energy
            if analysis.count_threshold:
                picture[count < np.sqrt(count.max())] = 0

    if len(x) > 1 and not analysis.exact:  # a thread for each signal needs no waiting for others
        with thread_pool() as pool:
            for _ in pool(lambda i: fill(i, map), range(len(x))):
                pass
    else:
        for i in range(len(x)):
            fill(i)
    check_power(bool(np.isfinite(out).all()), name, float(np.abs(x).max(initial=0)), out.dtype)
    return out
