"""Everything that can be chosen, checked once: `Settings`.

The package's inside works in the authors' natural units: time in samples, frequency in cycles per
sample.
"""

from __future__ import annotations

import dataclasses
import math
import numbers
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

AXES = ("log", "mel", "linear")

# Where a point lies more than this many sigmas of reassignment from its origin, it is not followed.
MAX_DISPLACEMENT = 0.5


@dataclass(frozen=True)
class Settings:
    """One choice of filters, of the grid that their points are binned on, and of what follows.

    Parameters
    ----------
    sample_rate : float
        Samples per second, > 0.
    q : float or sequence of float
        Quality factor, > 0. Small resolves time (0.5 to 1: clicks), large frequency (2 to 8:
        tones). Several q share the transform of the signal and one grid.
    hop_length : int
        Samples per frame, >= 1.
    bins_per_octave : float
        Bins per octave of the log axis, > 0; with `oversampling` it also spaces the scan lines.
    fmin, fmax : float
        Frequency range in Hz, 0 < fmin < fmax <= sample_rate / 2, the default of `fmax`.
    oversampling : int
        Scan lines for each log-axis bin, >= 1.
    exact : bool
        Every scan line at every sample, in the precision of the waveform, as the authors' MATLAB
        computes it: some 100 times slower.
    reassign : bool
        False: count each point where its filter stands, at time n and frequency f0, instead of
        where it is reassigned to. That is a constant-Q Gabor spectrogram: the same Gaussians on the
        same grid, every point with fmin <= f0 < fmax followed, and no count threshold. What it
        lacks of the reassigned picture is what reassignment does.
    axis : {"log", "mel", "linear"}
        Frequency axis that the points are binned on. "mel" has equal steps of
        log(1 + f / 700 Hz).
    n_bins : int, optional
        Number of bins of a mel or linear axis, >= 1, which need it; the log axis has
        ceil(bins_per_octave log2(fmax / fmin) + 1).
    count_threshold : bool
        Set bins to zero that receive fewer points than the square root of the largest number in
        the picture, as the authors do: it takes away the faintest froth.
    consensus : int, optional
        With several q: return one picture, the energy that at least this many of them put into the
        same bin; see `consensus_picture`.
    accuracy : float
        Of the fast form, 0.25 to 8: more points and closer lines. The time is nearly proportional.
    smooth : int
        Passes, >= 0, in which each cell shares its power with its neighbours: weights 1 2 1 by
        1 2 1 over 3 x 3 cells. Reassigned noise is a froth of full and empty cells, which decibels
        turn into cliffs.

    Raises
    ------
    ValueError
        Naming the argument, what was given and what is legal.
    """

    sample_rate: float
    q: float | Sequence[float] = 2.0
    hop_length: int = 197
    bins_per_octave: float = 26.2
    fmin: float = 30.9
    fmax: float | None = None
    oversampling: int = 10
    exact: bool = False
    reassign: bool = True
    axis: str = "log"
    n_bins: int | None = None
    count_threshold: bool = True
    consensus: int | None = None
    accuracy: float = 1.0
    smooth: int = 0

    def __post_init__(self) -> None:
        checked = {
            "sample_rate": positive_number(self.sample_rate, "sample_rate"),
            "q": checked_q(self.q),
            "fmin": positive_number(self.fmin, "fmin"),
            "bins_per_octave": positive_number(self.bins_per_octave, "bins_per_octave"),
            "accuracy": positive_number(self.accuracy, "accuracy"),
            "hop_length": whole_number(self.hop_length, "hop_length"),
            "oversampling": whole_number(self.oversampling, "oversampling"),
            "smooth": whole_number(self.smooth, "smooth", least=0),
            "exact": bool(self.exact),
            "reassign": bool(self.reassign),
            # Where nothing moves, every bin has its share of points: there is no froth.
            "count_threshold": bool(self.count_threshold) and bool(self.reassign),
        }
        nyquist = checked["sample_rate"] / 2
        fmax = nyquist if self.fmax is None else positive_number(self.fmax, "fmax")
        # A hair above Nyquist is the caller's rounding of sample_rate / 2, not a mistake.
        if fmax > nyquist * (1 + 1e-6):
            raise ValueError(
                f"fmax must be at most the Nyquist frequency, {nyquist:.10g} Hz, got {fmax:.10g}"
            )
        checked["fmax"] = min(fmax, nyquist)
        if checked["fmin"] >= checked["fmax"]:
            raise ValueError(
                f"fmin must lie in (0, fmax = {checked['fmax']:.10g}) Hz, got {self.fmin:.10g}"
            )
        if self.axis not in AXES:
            raise ValueError(f"axis must be one of {', '.join(AXES)}, got {self.axis!r}")
        if self.axis == "log" and self.n_bins is not None:
            raise ValueError(
                "n_bins is for axis='mel' and axis='linear'; on the log axis it follows from "
                f"bins_per_octave, fmin and fmax; got {self.n_bins!r}"
            )
        if self.axis != "log":
            if self.n_bins is None:
                raise ValueError(
                    f"axis={self.axis!r} needs n_bins, a whole number of 1 or more, got None"
                )
            checked["n_bins"] = whole_number(self.n_bins, "n_bins")
        if self.consensus is not None:
            checked["consensus"] = whole_number(self.consensus, "consensus")
            n_q = len(checked["q"]) if isinstance(checked["q"], tuple) else 0
            if checked["consensus"] > n_q:
                given = f"{n_q} given" if n_q else "q is one number"
                raise ValueError(
                    "consensus must be between 1 and the number of q in a sequence "
                    f"({given}), got {self.consensus}"
                )
        if not 0.25 <= checked["accuracy"] <= 8:
            raise ValueError(f"accuracy must lie in 0.25 to 8, got {self.accuracy}")
        for name, value in checked.items():
            object.__setattr__(self, name, value)

    def each_q(self) -> tuple[Settings, ...]:
        """The same with one q at a time."""
        values = self.q if isinstance(self.q, tuple) else (self.q,)
        return tuple(dataclasses.replace(self, q=value, consensus=None) for value in values)

    @property
    def low(self) -> float:
        """The lowest frequency, fmin, in cycles per sample."""
        return self.fmin / self.sample_rate

    @property
    def high(self) -> float:
        """The highest frequency, fmax, in cycles per sample, at most 0.5."""
        return min(self.fmax / self.sample_rate, 0.5)

    @property
    def n_log_bins(self) -> int:
        """Bins of a log axis: ceil(bins_per_octave log2(fmax / fmin) + 1)."""
        return math.ceil(-self.bins_per_octave * math.log2(self.low / self.high) + 1)

    @property
    def n_rows(self) -> int:
        """Bins of this axis."""
        return self.n_log_bins if self.axis == "log" else self.n_bins

    def scan_lines(self) -> np.ndarray:
        """Centre frequencies f0 of the scan lines in cycles per sample, shape (lines,).

        f0[k] = fmin 2^(k / (oversampling bins_per_octave)). As in the reference a few lines lie
        above fmax: their points may still be reassigned below it.
        """
        return self.line_frequencies(np.arange(self.n_log_bins * self.oversampling))

    def line_frequencies(self, number: np.ndarray) -> np.ndarray:
        """f0 of scan lines by their number, in cycles per sample."""
        return self.low * 2.0 ** (number / (self.oversampling * self.bins_per_octave))

    def frames(self, n_samples: int) -> int:
        """Number of frames of a signal of `n_samples` samples: ceil(n_samples / hop_length)."""
        return -(-n_samples // self.hop_length)

    def axis_parameters(self) -> tuple[int, float, float, float]:
        """The axis as numbers for the compiled loops: (kind, a, b, c), see `kernels.bin_of`."""
        if self.axis == "log":
            return 0, self.bins_per_octave, self.high, float(self.n_rows - 1)
        if self.axis == "mel":
            corner = 700.0 / self.sample_rate
            low, high = math.log1p(self.low / corner), math.log1p(self.high / corner)
            return 1, 1.0 / corner, low, self.n_rows / (high - low)
        return 2, self.low, self.n_rows / (self.high - self.low), 0.0

    def frequency_at(self, place: np.ndarray) -> np.ndarray:
        """Frequency in cycles per sample at a place in bins, counted from the lowest bin's edge.

        The outermost log-axis bins reach half a bin beyond the range; points outside fmin < f <
        fmax are never counted, so those two bins are simply less than full.
        """
        if self.axis == "log":
            return self.high * 2.0 ** ((place - self.n_rows + 0.5) / self.bins_per_octave)
        part = place / self.n_rows
        if self.axis == "linear":
            return self.low + (self.high - self.low) * part
        corner = 700.0 / self.sample_rate
        low, high = math.log1p(self.low / corner), math.log1p(self.high / corner)
        return corner * np.expm1(low + (high - low) * part)

    def frequencies(self) -> np.ndarray:
        """Bin centres in cycles per sample, low to high, shape (bins,)."""
        return self.frequency_at(np.arange(self.n_rows) + 0.5)

    def bin_edges(self) -> np.ndarray:
        """Bin edges in cycles per sample, low to high, shape (bins + 1,)."""
        return self.frequency_at(np.arange(self.n_rows + 1))

    def rows(self, f0: np.ndarray) -> np.ndarray:
        """Bin that each scan line itself stands in, -1 where that is not fmin <= f0 < fmax."""
        rows = np.searchsorted(self.bin_edges(), f0, side="right") - 1
        inside = (f0 >= self.low) & (f0 < self.high)
        return np.where(inside, rows.clip(0, self.n_rows - 1), -1)


def checked_q(q: float | Sequence[float]) -> float | tuple[float, ...]:
    """`q` as a number or a tuple of them, or ValueError."""
    if isinstance(q, (Sequence, np.ndarray)) and np.ndim(q) == 1:
        if len(q) == 0:
            raise ValueError("q must be a number > 0 or a non-empty sequence of them, got none")
        return tuple(positive_number(value, "q") for value in q)
    return positive_number(q, "q")


def positive_number(value: float, name: str) -> float:
    """`value` as a float, or ValueError if it is not a finite number above 0."""
    value = real_number(value, name, "> 0")
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be > 0 and finite, got {value!r}")
    return float(value)


def whole_number(value: int, name: str, least: int = 1) -> int:
    """`value` as an int, or ValueError if it is not a whole number of `least` or more."""
    value = real_number(value, name, f">= {least}")
    if not (math.isfinite(value) and value == int(value) and value >= least):
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    return int(value)


def real_number(value: float, name: str, legal: str) -> float:
    """`value`, out of its array or tensor, or ValueError if it is no real number."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        try:
            return value.item()  # zero-dimensional arrays and tensors
        except (AttributeError, ValueError, RuntimeError):
            raise ValueError(f"{name} must be a number {legal}, got {value!r}") from None
    return value


@contextmanager
def called(**names: str) -> Iterator[None]:
    """Errors of `Settings` in the caller's own words: ``called(sample_rate="sr")``."""
    try:
        yield
    except ValueError as error:
        message = re.sub(r"\w+", lambda word: names.get(word[0], word[0]), str(error))
        raise ValueError(message) from None
