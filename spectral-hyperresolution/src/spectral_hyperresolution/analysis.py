"""What a caller chose, checked, and the pictures that follow from it, in NumPy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from . import exact, fast
from .grid import Settings, make_settings, positive_number, q_sequence, whole_number


@dataclass(frozen=True)
class Analysis:
    """One `Settings` for each q, how to compute them, and how to combine them.

    Attributes
    ----------
    settings : tuple of Settings
    several_q : bool
        Whether a sequence of q was given, even of one.
    exact, accuracy, count_threshold, consensus, smooth : see `LinearReassignment`
    """

    settings: tuple[Settings, ...]
    several_q: bool
    exact: bool
    accuracy: float
    count_threshold: bool
    consensus: int | None
    smooth: int = 0

    @property
    def q(self) -> tuple[float, ...]:
        """The q of each setting."""
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
    axis: str,
    n_bins: int | None,
    count_threshold: bool,
    consensus: int | None,
    accuracy: float,
    smooth: int = 0,
    rate_name: str = "sample_rate",
) -> Analysis:
    """Check every argument of `LinearReassignment`; `rate_name` is the caller's for the first.

    Raises
    ------
    ValueError
        Naming the argument, what was given and what is legal.
    """
    sample_rate = positive_number(sample_rate, rate_name)
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
            {"hop": "hop_length", "sample_rate": rate_name},
            reassign,
        )
        for value in values
    )
    if consensus is not None:
        consensus = whole_number(consensus, "consensus")
        given = f"{len(values)} given" if several_q else "q is one number"
        if not several_q or consensus > len(values):
            raise ValueError(
                "consensus must be between 1 and the number of q in a sequence "
                f"({given}), got {consensus}"
            )
    accuracy = positive_number(accuracy, "accuracy")
    if not 0.25 <= accuracy <= 8:
        raise ValueError(f"accuracy must lie in 0.25 to 8, got {accuracy}")
    # Where nothing moves, every bin has its share of points and there is no froth to take away.
    threshold = bool(count_threshold) and settings[0].reassign
    smooth = 0 if smooth == 0 else whole_number(smooth, "smooth")
    return Analysis(settings, several_q, bool(exact), accuracy, threshold, consensus, smooth)


def histograms(
    x: np.ndarray, analysis: Analysis, settings: Sequence[Settings]
) -> list[tuple[np.ndarray, np.ndarray]]:
    """(energy, count) of some of the settings, (batch, frequency, time), of signals (batch, N)."""
    if analysis.exact:
        return [exact.histograms_of_batch(x, one) for one in settings]
    return fast.histograms_of_batch(x, list(settings), analysis.accuracy)


def pictures(found: list[tuple[np.ndarray, np.ndarray]], analysis: Analysis, dtype) -> np.ndarray:
    """Energies without the bins below the count threshold, (batch, q, frequency, time)."""
    batch, *shape = found[0][0].shape
    out = np.empty((batch, len(found), *shape), dtype=dtype)
    for i, (energy, count) in enumerate(found):
        out[:, i] = energy
        if analysis.count_threshold:
            out[:, i][count < np.sqrt(count.max((-2, -1), keepdims=True))] = 0
    return out
