"""What the fast form works out once for a length and a setting: lengths, bands, windows.

The Gaussian of a scan line is negligible more than a few sigmas from its centre, so its inverse
transform needs only as many points as that band is wide. Spectrum bin k is laid at index k mod M
of a transform of length M: no two bins of the band meet there, and point j of the result is the
full-length one at sample j N / M, with phase and all. Each point stands for N / M samples.

Neighbouring scan lines are close together compared with sigma, so only some of them, the nodes,
are transformed. Between two of them xi is interpolated as a cubic: eta is, but for its sign, how xi
changes with f0 in units of sigma, so both ends bring their slope along (see `between_nodes`).
Where lines lie closer than the picture needs, every second or fourth is taken, and counts as many.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

from .grid import MAX_DISPLACEMENT, Settings

# Half-width of the band in sigmas: exp(-4^2 / 2) = 3e-4 of the Gaussian is cut off.
REACH = 4.0

# Points of a transform for each point that the band needs at the least, at accuracy 1.
TIME_OVERSAMPLING = 2.0

# Points per frame at the least, at accuracy 1: 16 up to q = 2, then less as 1 / sqrt(q), because a
# longer window changes more slowly; never below 8.
POINTS_PER_FRAME = 16.0

# Distance of two nodes at most, in sigmas, at accuracy 1. Below q = 2 sigma changes too much from
# one node to the next for the cubic, and straight lines between closer nodes do better.
NODE_SPACING_CUBIC = 0.54
NODE_SPACING_LINEAR = 0.27
CUBIC_FROM_Q = 2.0

# Distance of two lines at most, in sigmas, at accuracy 1.
LINE_SPACING = 0.04

# Complex points of one batch of transforms, so that it stays in the cache of one core.
BATCH_POINTS = 1 << 17

# Degree of the polynomial that stands for log(1 + v) on the small interval it is needed on.
LOG_DEGREE = 7


@dataclass(frozen=True)
class Batch:
    """Consecutive nodes with one transform length, and the scan lines between them.

    Attributes
    ----------
    length : int
        M, points of the inverse transforms.
    low, high : int64 arrays, shape (nodes,)
        First and last spectrum bin of each band; negative bins are negative frequencies.
    slope, offset : float64 arrays, shape (nodes,)
        (f - f0) / sigma = slope * bin - offset.
    window : float32 array, shape (sum of widths,)
        G over the bands, one after the other.
    node : int64 array, shape (lines,)
        Index of the node below each line.
    weights : float32 array, shape (lines, 8)
        xi and eta of a line from its nodes', see `between_nodes`.
    constants : float32 array, shape (lines, 7)
        See `line_constants`.
    row : int64 array, shape (lines,)
        Bin that each line stands in, counted from `first_bin`; -1 outside the frequency range.
    first_bin, n_bins : int
        Range of the frequency bins that the lines can reach.
    lines_each : int
        Scan lines of the full set that each line stands for.
    """

    length: int
    low: np.ndarray
    high: np.ndarray
    slope: np.ndarray
    offset: np.ndarray
    window: np.ndarray
    node: np.ndarray
    weights: np.ndarray
    constants: np.ndarray
    row: np.ndarray
    first_bin: int
    n_bins: int
    lines_each: int


@dataclass(frozen=True)
class Plan:
    """Everything about the fast form that depends only on N, the settings and the accuracy."""

    n_samples: int
    n_frames: int
    settings: Settings
    batches: tuple[Batch, ...]
    log_coefficients: np.ndarray

    @property
    def n_points(self) -> int:
        """Points that are reassigned for one signal."""
        return sum(batch.length * len(batch.node) for batch in self.batches)

    @property
    def n_transformed(self) -> int:
        """Complex points of the inverse transforms for one signal, xi and eta together."""
        return sum(2 * batch.length * len(batch.low) for batch in self.batches)


@lru_cache(maxsize=16)
def make_plan(n_samples: int, settings: Settings, accuracy: float) -> Plan:
    """Work out the batches; see the module docstring. Cached for the last 16 choices."""
    q = settings.q
    n_lines = len(settings.scan_lines())
    lines_per_octave = settings.oversampling * settings.bins_per_octave
    n_frames = settings.frames(n_samples)
    spacing = 2 * math.pi * q * math.log(2) / lines_per_octave  # of neighbouring lines, in sigmas
    # Lines that stay where they are must not be thinned: bins would get two or three at random.
    skip = power_of_two(LINE_SPACING / accuracy / spacing) if settings.reassign else 1
    widest = NODE_SPACING_CUBIC if q >= CUBIC_FROM_Q else NODE_SPACING_LINEAR
    between = max(power_of_two(widest / math.sqrt(accuracy) / spacing) // skip, 1)
    node_step = skip * between
    per_frame = min(max(POINTS_PER_FRAME * math.sqrt(2 / q), 8.0), POINTS_PER_FRAME) * accuracy

    n_nodes = -(-n_lines // node_step) + 1  # one node above the last line
    f0 = settings.fmin * 2.0 ** (np.arange(n_nodes) * node_step / lines_per_octave)
    sigma = f0 / (2 * math.pi * q)
    low = np.ceil((f0 - REACH * sigma) * n_samples).astype(np.int64)
    high = np.floor((f0 + REACH * sigma) * n_samples).astype(np.int64)
    low = np.maximum(low, -((n_samples - 1) // 2))
    high = np.maximum(np.minimum(high, n_samples // 2), low - 1)  # the band of a node may be empty
    needed = np.maximum(
        (high - low + 1) * TIME_OVERSAMPLING * max(accuracy, 0.5), per_frame * n_frames
    )
    lengths = transform_lengths(needed, high - low + 1, n_samples)

    batches = []
    start = 0
    while start < n_nodes - 1:
        length = int(lengths[start])
        most = max(BATCH_POINTS // (2 * length), 8)
        # The last node of a batch is the first of the next one: lines need a node on either side.
        stop = start + 1
        while stop < n_nodes - 1 and stop - start < most and lengths[stop] == length:
            stop += 1
        nodes = slice(start, stop + 1)
        length = int(max(length, lengths[stop])) if lengths[stop] > length else length
        line = np.arange(start * node_step, min(stop * node_step, n_lines), skip)
        widths = high[nodes] - low[nodes] + 1
        bins = np.concatenate(
            [np.arange(a, b + 1) for a, b in zip(low[nodes], high[nodes], strict=True)]
        )
        centre, width = np.repeat(f0[nodes], widths), np.repeat(sigma[nodes], widths)
        u = (bins / n_samples - centre) / width
        line_f0 = settings.fmin * 2.0 ** (line / lines_per_octave)
        first, last = reachable_bins(line_f0, settings)
        row = settings.rows(line_f0)
        batches.append(
            Batch(
                length=length,
                low=low[nodes],
                high=high[nodes],
                slope=1 / (n_samples * sigma[nodes]),
                offset=f0[nodes] / sigma[nodes],
                window=np.exp(-0.5 * u * u).astype(np.float32),
                node=line // node_step - start,
                weights=between_nodes((line % node_step) / node_step, spacing * node_step, q),
                constants=line_constants(line_f0, first, settings),
                row=np.where(row >= 0, row - first, -1),
                first_bin=first,
                n_bins=last - first + 1,
                lines_each=skip,
            )
        )
        start = stop
    return Plan(n_samples, n_frames, settings, tuple(batches), log_polynomial(settings))


def power_of_two(ratio: float) -> int:
    """The largest power of two that is at most `ratio`, and at least 1."""
    return 1 << max(math.floor(math.log2(ratio)), 0) if ratio >= 1 else 1


def transform_lengths(needed: np.ndarray, widths: np.ndarray, n_samples: int) -> np.ndarray:
    """Transform length of each node: enough points, a fast length, and few different ones.

    Nodes are grouped in quarters of an octave by `needed`, rounded up. Where a third of the samples
    or more are needed, a whole divisor of N is preferred: its points are samples of the signal, as
    the exact form's are. One point a sample is enough for any of them.
    """
    steps = np.ceil(4 * np.log2(np.maximum(needed, 16)))
    lengths = np.empty(len(needed), dtype=np.int64)
    for step in np.unique(steps):
        group = steps == step
        want = min(2 ** (step / 4), n_samples)
        want = math.ceil(max(want, int(widths[group].max()), 1))
        length = scipy.fft.next_fast_len(want)
        for divisor in (3, 2, 1):
            whole = n_samples // divisor
            if n_samples % divisor == 0 and want <= whole <= 1.5 * want and is_fast(whole):
                length = whole
                break
        lengths[group] = length
    return lengths


def is_fast(length: int) -> bool:
    """Whether a transform of this length has small prime factors only."""
    return scipy.fft.next_fast_len(length) == length


def reachable_bins(f0: np.ndarray, settings: Settings) -> tuple[int, int]:
    """First and last bin that points of these lines can be reassigned to, with one to spare."""
    spread = MAX_DISPLACEMENT / (2 * math.pi * settings.q)
    edges = settings.bin_edges()
    ends = np.array([f0.min() * (1 - spread), f0.max() * (1 + spread)])
    found = np.searchsorted(edges, np.clip(ends, settings.fmin, settings.fmax)) - 1
    first, last = np.clip(found + np.array([-1, 1]), 0, settings.n_bins - 1)
    return int(first), int(last)


def log_polynomial(settings: Settings) -> np.ndarray:
    """Coefficients c[1..7] with sum c[d] v^d = log(1 + v), or = v for the linear axis.

    A followed point lies within sigma / 2 of its line, so |v| <= 1 / (4 pi q): an interval so short
    that a polynomial of degree 7 is exact to single precision for q >= 0.5. Where the interval
    would reach the pole it is cut short; such points lie far below fmin.
    """
    if settings.axis == "linear":
        return np.eye(LOG_DEGREE, dtype=np.float32)[0]
    reach = min(MAX_DISPLACEMENT / (2 * math.pi * settings.q), 0.9)
    v = reach * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    powers = v[:, None] ** np.arange(1, LOG_DEGREE + 1)
    # Weighted so that the relative error is even: points near their line are the most.
    scale = reach ** np.arange(1, LOG_DEGREE + 1)
    solution = np.linalg.lstsq(powers / scale / np.abs(v)[:, None], np.log1p(v) / np.abs(v))[0]
    return (solution / scale).astype(np.float32)


def between_nodes(fraction: np.ndarray, h: float, q: float) -> np.ndarray:
    r"""Weights that give xi and eta of a line between two nodes, float32, shape (lines, 8).

    With s = 2 pi q ln f0 (so that one unit is one sigma) and c = 1 / (2 pi q),

    .. math::
        \frac{d\xi}{ds} = -\eta + c\,\zeta, \qquad \zeta = F^{-1}[u^2 G X], \quad
        u = (f - f_0) / \sigma,

    the second part because sigma grows with f0. It is small, and the curvature of xi gives it well
    enough: zeta = xi - d eta / ds. So xi is the cubic with these values and slopes at the nodes,
    and eta follows from its derivative. Below q = 2 both are simply interpolated linearly.

    Parameters
    ----------
    fraction : float array, shape (lines,)
        Place of each line between the nodes, 0 (below) to 1 (above), in s.
    h : float
        Distance of the nodes in s.
    q : float

    Returns
    -------
    float32 array, shape (lines, 8)
        Weights of (xi below, xi above, eta below, eta above) for xi, then the four for eta.
    """
    w, c = fraction, 1 / (2 * math.pi * q)
    if q < CUBIC_FROM_Q:
        no = np.zeros_like(w)
        return np.stack((1 - w, w, no, no, no, no, 1 - w, w), axis=1).astype(np.float32)
    value_above = w * w * (3 - 2 * w)
    slope_below, slope_above = w * (1 - w) ** 2, w * w * (w - 1)
    rise = 6 * w * (1 - w)  # derivative of value_above
    both = c * h * (slope_below + slope_above)
    weights = (
        1 - value_above + both / 2,
        value_above + both / 2,
        -h * slope_below + both / h,
        -h * slope_above - both / h,
        rise / h + rise * c / 2,
        -rise / h + rise * c / 2,
        (1 - w) * (1 - 3 * w) + rise * c / h,
        w * (3 * w - 2) - rise * c / h,
    )
    return np.stack(weights, axis=1).astype(np.float32)


def line_constants(f0: np.ndarray, first_bin: int, settings: Settings) -> np.ndarray:
    """What the point loop needs for each line, float32, shape (lines, 7).

    Columns: relative frequency per unit of Re m; frames per unit of Im m; bin (as a real number,
    from the first of the strip) at f0; bins per unit of the logarithm; scale from relative
    frequency to v; lowest and highest legal relative frequency.
    """
    kind, a, b, c = settings.axis_parameters()
    if kind == 0:
        at_f0 = c + 0.5 - a * np.log2(b / f0)
        gain, scale = np.full_like(f0, a / math.log(2)), np.ones_like(f0)
    elif kind == 1:
        at_f0 = (np.log1p(f0 * a) - b) * c
        gain, scale = np.full_like(f0, c), f0 * a / (1 + f0 * a)
    else:
        at_f0 = (f0 - a) * b
        gain, scale = f0 * b, np.ones_like(f0)
    sigma = f0 / (2 * math.pi * settings.q)
    columns = (
        sigma / f0,
        1 / (2 * math.pi * sigma * settings.hop),
        at_f0 - first_bin,
        gain,
        scale,
        settings.fmin / f0 - 1,
        settings.fmax / f0 - 1,
    )
    return np.stack(columns, axis=1).astype(np.float32)
