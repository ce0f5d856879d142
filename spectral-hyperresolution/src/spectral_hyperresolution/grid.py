"""The settings of the transform: scan lines, frequency axes, frames, and what is legal.

Everything inside the package works in natural units, as the authors' code does: time in samples,
frequency in cycles per sample. `Settings` holds one complete choice; it is hashable, so that plans
(windows, transform lengths) can be cached by it.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

AXES = ("log", "mel", "linear")

# Where a point lies more than this many sigmas of reassignment from its origin, it is not followed.
MAX_DISPLACEMENT = 0.5


@dataclass(frozen=True)
class Settings:
    """One choice of scan lines and of the grid that the reassigned points are binned on.

    Attributes
    ----------
    q : float
        Quality factor: the Gaussian of a scan line at f0 has sigma = f0 / (2 pi q).
    hop : int
        Samples per frame (the reference's ``tdeci``).
    fmin, fmax : float
        Frequency range in cycles per sample, 0 < fmin < fmax <= 0.5.
    bins_per_octave : float
        Bins an octave of the log axis (``noct``); also sets the spacing of the scan lines.
    oversampling : int
        Scan lines for each log-axis bin (``over``).
    axis : {"log", "mel", "linear"}
        Frequency axis of the output.
    n_bins : int
        Number of frequency bins.
    sample_rate : float
        Samples per second; only the mel axis depends on it.
    reassign : bool
        Count a point where it is reassigned to, or where its filter stands.
    """

    q: float
    hop: int
    fmin: float
    fmax: float
    bins_per_octave: float
    oversampling: int
    axis: str
    n_bins: int
    sample_rate: float
    reassign: bool = True

    def scan_lines(self) -> np.ndarray:
        """Centre frequencies f0 of the scan lines in cycles per sample, shape (lines,).

        f0[k] = fmin * 2 ** (k / (oversampling * bins_per_octave)), k = 0 .. HF * oversampling - 1,
        where HF is the number of log-axis bins. As in the reference a few lines lie above fmax:
        their points may still be reassigned below it.
        """
        n = n_log_bins(self.fmin, self.fmax, self.bins_per_octave) * self.oversampling
        return self.fmin * 2.0 ** (np.arange(n) / (self.oversampling * self.bins_per_octave))

    def frames(self, n_samples: int) -> int:
        """Number of frames of a signal of `n_samples` samples: ceil(n_samples / hop)."""
        return -(-n_samples // self.hop)

    def axis_parameters(self) -> tuple[int, float, float, float]:
        """The axis as numbers for the compiled loops: (kind, a, b, c), see `kernels.bin_of`."""
        if self.axis == "log":
            return 0, self.bins_per_octave, self.fmax, float(self.n_bins - 1)
        if self.axis == "mel":
            corner = 700.0 / self.sample_rate
            low, high = math.log1p(self.fmin / corner), math.log1p(self.fmax / corner)
            return 1, 1.0 / corner, low, self.n_bins / (high - low)
        return 2, self.fmin, self.n_bins / (self.fmax - self.fmin), 0.0

    def rows(self, f0: np.ndarray) -> np.ndarray:
        """Bin that each scan line itself stands in, -1 where that is not fmin <= f0 < fmax."""
        rows = np.searchsorted(self.bin_edges(), f0, side="right") - 1
        inside = (f0 >= self.fmin) & (f0 < self.fmax)
        return np.where(inside, rows.clip(0, self.n_bins - 1), -1)

    def frequencies(self) -> np.ndarray:
        """Bin centres in cycles per sample, low to high, shape (n_bins,)."""
        if self.axis == "log":
            return self.fmax * 2.0 ** (-np.arange(self.n_bins)[::-1] / self.bins_per_octave)
        centres = (np.arange(self.n_bins) + 0.5) / self.n_bins
        if self.axis == "linear":
            return self.fmin + (self.fmax - self.fmin) * centres
        corner = 700.0 / self.sample_rate
        low, high = math.log1p(self.fmin / corner), math.log1p(self.fmax / corner)
        return corner * np.expm1(low + (high - low) * centres)

    def bin_edges(self) -> np.ndarray:
        """Bin edges in cycles per sample, low to high, shape (n_bins + 1,).

        The outermost log-axis bins reach half a bin beyond the range; points outside
        fmin < f < fmax are never counted, so those two bins are simply less than full.
        """
        if self.axis == "log":
            steps = self.n_bins - 0.5 - np.arange(self.n_bins + 1)
            return self.fmax * 2.0 ** (-steps / self.bins_per_octave)
        edges = np.arange(self.n_bins + 1) / self.n_bins
        if self.axis == "linear":
            return self.fmin + (self.fmax - self.fmin) * edges
        corner = 700.0 / self.sample_rate
        low, high = math.log1p(self.fmin / corner), math.log1p(self.fmax / corner)
        return corner * np.expm1(low + (high - low) * edges)


def n_log_bins(fmin: float, fmax: float, bins_per_octave: float) -> int:
    """Number of bins of the log axis: ceil(bins_per_octave * log2(fmax / fmin) + 1)."""
    return math.ceil(-bins_per_octave * math.log2(fmin / fmax) + 1)


def make_settings(
    q: float,
    hop: int,
    fmin: float,
    fmax: float,
    bins_per_octave: float,
    oversampling: int,
    axis: str = "log",
    n_bins: int | None = None,
    sample_rate: float = 1.0,
    names: dict[str, str] | None = None,
    reassign: bool = True,
) -> Settings:
    """Check every setting and build `Settings`.

    Parameters are those of `Settings`; frequencies in cycles per sample. `names` maps them to the
    caller's own argument names for the error messages.

    Raises
    ------
    ValueError
        Naming the argument and its legal range.
    """
    names = names or {}

    def name(key: str) -> str:
        return names.get(key, key)

    q = positive_number(q, name("q"))
    hop = whole_number(hop, name("hop"))
    oversampling = whole_number(oversampling, name("oversampling"))
    bins_per_octave = positive_number(bins_per_octave, name("bins_per_octave"))
    sample_rate = positive_number(sample_rate, name("sample_rate"))
    unit = "Hz" if "sample_rate" in names else "cycles per sample"
    scale = sample_rate if "sample_rate" in names else 1.0
    fmin = positive_number(fmin, name("fmin"))
    fmax = positive_number(fmax, name("fmax"))
    # A hair above Nyquist is the caller's rounding of sample_rate / 2, not a mistake.
    if fmax > 0.5 * (1 + 1e-6):
        raise ValueError(
            f"{name('fmax')} must be at most the Nyquist frequency, {0.5 * scale:.10g} {unit}, "
            f"got {fmax * scale:.10g}"
        )
    fmax = min(fmax, 0.5)
    if fmin >= fmax:
        raise ValueError(
            f"{name('fmin')} must lie in (0, {name('fmax')} = {fmax * scale:.10g}) {unit}, "
            f"got {fmin * scale:.10g}"
        )
    if axis not in AXES:
        raise ValueError(f"axis must be one of {', '.join(AXES)}, got {axis!r}")
    if axis == "log":
        if n_bins is not None:
            raise ValueError(
                "n_bins is for axis='mel' and axis='linear'; on the log axis it follows from "
                f"{name('bins_per_octave')}, {name('fmin')} and {name('fmax')}"
            )
        n_bins = n_log_bins(fmin, fmax, bins_per_octave)
    else:
        if n_bins is None:
            raise ValueError(f"axis={axis!r} needs n_bins, a whole number of 1 or more")
        n_bins = whole_number(n_bins, "n_bins")
    sample_rate, reassign = float(sample_rate), bool(reassign)
    return Settings(
        q, hop, fmin, fmax, bins_per_octave, oversampling, axis, n_bins, sample_rate, reassign
    )


def positive_number(value: float, name: str) -> float:
    """`value` as a float, or ValueError if it is not a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        try:
            value = value.item()  # zero-dimensional arrays and tensors
        except (AttributeError, ValueError, RuntimeError):
            raise ValueError(f"{name} must be a number > 0, got {value!r}") from None
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be > 0 and finite, got {value!r}")
    return float(value)


def whole_number(value: int, name: str) -> int:
    """`value` as an int, or ValueError if it is not a whole number of 1 or more."""
    number = positive_number(value, name)
    if number != int(number):
        raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    return int(number)


def q_sequence(q: float | Sequence[float]) -> tuple[tuple[float, ...], bool]:
    """Normalise `q`: (values, whether a sequence was given)."""
    if isinstance(q, (Sequence, np.ndarray)) and np.ndim(q) == 1:
        if len(q) == 0:
            raise ValueError("q must be a number > 0 or a non-empty sequence of them, got none")
        return tuple(positive_number(value, "q") for value in q), True
    return (positive_number(q, "q"),), False
