"""What the fast form works out once for a length and a setting: lengths, bands, windows.

The Gaussian of a scan line is negligible more than a few sigmas from its centre, so its inverse
transform needs only as many points as that band is wide. Spectrum bin k is laid at index k mod M
of a transform of length M: no two bins of the band meet there, and point j of the result is the
full-length one at sample j N / M, with phase and all. Each point stands for N / M samples.
A click is followed for q / f0 samples only. Where these are few, the points are the samples, as the
exact form's are; where they are more, a point at the edge counts for the share of its samples that
lie within it (see `kernels.reassign`).

Neighbouring scan lines are close together compared with sigma, so only some of them, the nodes,
are transformed. xi and eta of a line between two nodes are weighted sums of theirs: eta says how xi
changes with f0, so both ends bring their slope along (see `between_nodes`).
Where lines lie closer than the picture needs, some are left out, and the others count for them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft

from .grid import MAX_DISPLACEMENT, Settings

# Half-width of the band in sigmas, up to accuracy 1; beyond it grows as the square root. For
# noise 4 would do; a staircase, whose spectrum is steep, needs 6.
REACH = 6.0

# Points of a transform for each point that the band needs at the least, at accuracy 1: 16 for each
# sigma, 2.5 of them while a click is followed.
TIME_OVERSAMPLING = 4 / 3

# Where a window is shorter than this many samples, times the accuracy squared, the points are the
# samples: a click that a handful of samples sees weighs as many of them as happen to be near.
SAMPLES_TO_ALIGN = 7.0

# Points per frame at the least, at accuracy 1: 18 up to q = 2, then less as 1 / sqrt(q), because a
# longer window changes more slowly; never below 12.
POINTS_PER_FRAME = 18.0
FEWEST_PER_FRAME = 12.0

# Distance of two nodes at most, in sigmas and as a part of f0, at accuracy 1.
NODE_SPACING = 0.7
NODE_SPACING_OF_F0 = 1 / 24

# Distance of two lines at most, in sigmas, at accuracy 1; and lines of a log-axis bin at the least.
# A click's points stay on their lines, so fewer would leave some bins too many and some too few.
LINE_SPACING = 0.07
LINES_PER_BIN = 5

# A point that gets a share, see `kernels.reassign`, may move this many sigmas in frequency.
FURTHEST = 1.3 * MAX_DISPLACEMENT

# Below this q, which is for clicks, the accuracy is taken three times.
CLICKS_BELOW_Q = 1.0

# Complex points of one batch of transforms, so that it stays in the cache of one core.
BATCH_POINTS = 1 << 17

# Degree of the polynomial that stands for log(1 + v) on the small interval it is needed on.
LOG_DEGREE = 7

# One scan line, as the compiled loops take it.
LINE = np.dtype(
    [
        ("node", np.int64),  # index of the node below
        ("xi_weights", np.float32, 4),  # xi from (xi below, xi above, eta below, eta above)
        ("eta_weights", np.float32, 4),  # eta from the same
        ("relative_sigma", np.float32),  # sigma / f0: relative frequency per unit of -Re m
        ("frames", np.float32),  # frames that a point moves per unit of Im m
        ("bin", np.float32),  # f0 in bins, as a real number counted from the batch's first bin
        ("bins", np.float32),  # bins per unit of log(1 + v); on the linear axis per unit of v
        ("scale", np.float32),  # v per unit of relative frequency
        ("time_ramp", np.float32),  # twice the change of Im m from point to point, at a click
        ("line_ramp", np.float32),  # twice the change of Re m from line to line, at a tone
        ("lowest", np.float32),  # legal relative frequencies f / f0 - 1
        ("highest", np.float32),
        ("row", np.int64),  # bin that f0 itself lies in, counted likewise; -1 outside the range
    ]
)


@dataclass(frozen=True)
class Nodes:
    """The scan lines that are transformed.

    Attributes
    ----------
    f0, sigma : float64 arrays, shape (nodes,)
        Centre and standard deviation of the Gaussians in cycles per sample.
    low, high : int64 arrays, shape (nodes,)
        First and last spectrum bin of each band; negative bins are negative frequencies.
    """

    f0: np.ndarray
    sigma: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def __len__(self) -> int:
        return len(self.f0)

    def __getitem__(self, part: slice) -> Nodes:
        return Nodes(self.f0[part], self.sigma[part], self.low[part], self.high[part])

    @property
    def widths(self) -> np.ndarray:
        """Bins in each band, which may be none."""
        return self.high - self.low + 1


@dataclass(frozen=True)
class Batch:
    """Consecutive nodes with one transform length, and the scan lines between them.

    Attributes
    ----------
    length : int
        M, points of the inverse transforms.
    period : int
        Samples that they span: N, or `padded_length`.
    nodes : Nodes
    slope, offset : float64 arrays, shape (nodes,)
        (f - f0) / sigma = slope * bin - offset.
    window : float32 array, shape (sum of widths,)
        G over the bands, one after the other.
    lines : structured array of `LINE`, shape (lines,)
    first_bin, n_bins : int
        Range of the frequency bins that the lines can reach.
    lines_each : int
        Scan lines of the full set that each line stands for.
    """

    length: int
    period: int
    nodes: Nodes
    slope: np.ndarray
    offset: np.ndarray
    window: np.ndarray
    lines: np.ndarray
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

    def points(self, batch: Batch) -> int:
        """Points of a batch's lines: all of a transform's, but for those of the padding."""
        return min(batch.length, self.n_samples) if batch.length == batch.period else batch.length

    @property
    def n_points(self) -> int:
        """Points that are reassigned for one signal."""
        return sum(self.points(batch) * len(batch.lines) for batch in self.batches)

    @property
    def n_transformed(self) -> int:
        """Complex points of the inverse transforms for one signal, xi and eta together."""
        return sum(2 * batch.length * len(batch.nodes) for batch in self.batches)


@lru_cache(maxsize=16)
def make_plan(n_samples: int, settings: Settings, accuracy: float) -> Plan:
    """Lay the nodes, choose their transform lengths, and cut them into batches.

    Cached for the last 16 choices.
    """
    if settings.q < CLICKS_BELOW_Q:
        accuracy = 3 * accuracy
    skip, node_step = line_steps(settings, accuracy)
    padded = padded_length(n_samples, accuracy)
    nodes = lay_nodes(n_samples, settings, node_step, accuracy)
    aligned = settings.q / nodes.f0 < SAMPLES_TO_ALIGN * accuracy**2
    lengths = transform_lengths(nodes, n_samples, settings, accuracy)
    lengths[aligned] = padded
    of_padded = lay_nodes(padded, settings, node_step, accuracy)
    batches = tuple(
        make_batch(of_padded, start, stop, padded, padded, settings, skip, node_step)
        if aligned[stop]
        else make_batch(nodes, start, stop, length, n_samples, settings, skip, node_step)
        for start, stop, length in runs(lengths)
    )
    n_frames = settings.frames(n_samples)
    return Plan(n_samples, n_frames, settings, batches, log_polynomial(settings))


def padded_length(n_samples: int, accuracy: float) -> int:
    """N where it is a fast length, else one with room for 16 windows on either side.

    Only windows of at most `SAMPLES_TO_ALIGN` samples, times the accuracy squared, see the padding;
    those that Nyquist's frequency cuts short ring on. Odd where N is odd: then neither has a bin at
    Nyquist's frequency.
    """
    if is_fast(n_samples):
        return n_samples
    padded = n_samples + 2 * math.ceil(16 * SAMPLES_TO_ALIGN * accuracy**2)
    while not is_fast(padded):
        padded += 2
    return padded


def pad(signal, padded: int):
    """The array or tensor (..., N), made longer: half by its beginning, half by its end.

    So every sample has the neighbours that it has where the signal of N samples goes round.
    """
    n_samples = signal.shape[-1]
    if padded == n_samples:
        return signal
    sample = np.arange(padded)
    sample[(n_samples + padded) // 2 :] -= padded  # counted from the end
    return signal[..., sample % n_samples]


def line_steps(settings: Settings, accuracy: float) -> tuple[int, int]:
    """Scan lines from one taken line to the next, and from one node to the next."""
    q, spacing, per_bin = settings.q, line_spacing(settings), settings.oversampling
    skip = 1
    # Lines that stay where they are must not be thinned: bins would get two or three at random.
    if settings.reassign:
        most = min(LINE_SPACING / accuracy / spacing, per_bin / LINES_PER_BIN)
        # A divisor, so that every bin keeps the same number of lines.
        skip = max(d for d in range(1, per_bin + 1) if per_bin % d == 0 and d <= max(most, 1))
    widest = min(NODE_SPACING, NODE_SPACING_OF_F0 * 2 * math.pi * q) / math.sqrt(accuracy)
    return skip, skip * max(math.floor(widest / (skip * spacing)), 1)


def line_spacing(settings: Settings) -> float:
    """Distance of neighbouring scan lines in sigmas."""
    lines_per_octave = settings.oversampling * settings.bins_per_octave
    return 2 * math.pi * settings.q * math.log(2) / lines_per_octave


def line_frequencies(number: np.ndarray, settings: Settings) -> np.ndarray:
    """f0 of scan lines by their number, in cycles per sample."""
    return settings.fmin * 2.0 ** (number / (settings.oversampling * settings.bins_per_octave))


def lay_nodes(n_samples: int, settings: Settings, node_step: int, accuracy: float) -> Nodes:
    """The nodes, with one above the last scan line."""
    n_nodes = -(-len(settings.scan_lines()) // node_step) + 1
    f0 = line_frequencies(np.arange(n_nodes) * node_step, settings)
    sigma = f0 / (2 * math.pi * settings.q)
    reach = REACH * math.sqrt(max(accuracy, 1)) * sigma
    low = np.ceil((f0 - reach) * n_samples).astype(np.int64)
    high = np.floor((f0 + reach) * n_samples).astype(np.int64)
    low = np.maximum(low, -((n_samples - 1) // 2))
    high = np.maximum(np.minimum(high, n_samples // 2), low - 1)  # the band of a node may be empty
    return Nodes(f0, sigma, low, high)


def transform_lengths(
    nodes: Nodes, n_samples: int, settings: Settings, accuracy: float
) -> np.ndarray:
    """Transform length of each node: enough points, a fast length, and few different ones.

    Nodes are grouped in quarters of an octave by the points that they need, rounded up. One point a
    sample is enough for any of them.
    """
    q, frames = settings.q, settings.frames(n_samples)
    per_frame = min(max(POINTS_PER_FRAME * math.sqrt(2 / q), FEWEST_PER_FRAME), POINTS_PER_FRAME)
    # The band itself has grown by that square root already, see `REACH`.
    oversampling = TIME_OVERSAMPLING * max(accuracy, 0.5) / math.sqrt(max(accuracy, 1))
    needed = np.maximum(nodes.widths * oversampling, per_frame * accuracy * frames)
    steps = np.ceil(4 * np.log2(np.maximum(needed, 16)))
    lengths = np.empty(len(nodes), dtype=np.int64)
    for step in np.unique(steps):
        group = steps == step
        want = min(2 ** (step / 4), n_samples)
        lengths[group] = nearby_length(
            math.ceil(max(want, nodes.widths[group].max(), 1)), n_samples
        )
    return lengths


def nearby_length(want: int, n_samples: int) -> int:
    """The fast length for `want` points.

    A whole divisor of N where that is at most half longer: its points are samples of the signal.
    """
    for divisor in (3, 2, 1):
        whole, rest = divmod(n_samples, divisor)
        if rest == 0 and want <= whole <= 1.5 * want and is_fast(whole):
            return whole
    return scipy.fft.next_fast_len(want)


def runs(lengths: np.ndarray) -> Iterator[tuple[int, int, int]]:
    """(first node, last node, transform length) of each batch.

    Lines between two nodes take the longer of their lengths. The last node of a batch is the first
    of the next one: lines need a node on either side.
    """
    between = np.maximum(lengths[:-1], lengths[1:])
    start = 0
    while start < len(between):
        length = int(between[start])
        most = max(BATCH_POINTS // (2 * length), 8)
        stop = start + 1
        while stop < len(between) and stop - start < most and between[stop] == length:
            stop += 1
        yield start, stop, length
        start = stop


def make_batch(
    nodes: Nodes,
    start: int,
    stop: int,
    length: int,
    period: int,
    settings: Settings,
    skip: int,
    node_step: int,
) -> Batch:
    """The batch of nodes `start` to `stop`, with every `skip`-th line between them."""
    number = np.arange(start * node_step, stop * node_step, skip)
    number = number[number < len(settings.scan_lines())]
    f0 = line_frequencies(number, settings)
    first_bin, last_bin = reachable_bins(f0, settings)
    lines = line_table(f0, first_bin, settings)
    lines["node"] = number // node_step - start
    weights = between_nodes(node_step // skip, line_spacing(settings) * node_step, settings.q)
    weights = weights[number % node_step // skip]
    lines["xi_weights"], lines["eta_weights"] = weights[:, :4], weights[:, 4:]
    # Where the points are the samples, and the lines all there are, the edge is the exact form's.
    if length < period:
        lines["time_ramp"] = 2 * period / length * f0 / settings.q
    if skip > 1:
        lines["line_ramp"] = 2 * skip * line_spacing(settings)
    nodes = nodes[start : stop + 1]
    bands = [np.arange(a, b + 1) for a, b in zip(nodes.low, nodes.high, strict=True)]
    f0, sigma = (np.repeat(values, nodes.widths) for values in (nodes.f0, nodes.sigma))
    u = (np.concatenate(bands) / period - f0) / sigma
    return Batch(
        length=length,
        period=period,
        nodes=nodes,
        slope=1 / (period * nodes.sigma),
        offset=nodes.f0 / nodes.sigma,
        window=np.exp(-0.5 * u * u).astype(np.float32),
        lines=lines,
        first_bin=first_bin,
        n_bins=last_bin - first_bin + 1,
        lines_each=skip,
    )


def is_fast(length: int) -> bool:
    """Whether a transform of this length has small prime factors only."""
    return scipy.fft.next_fast_len(length) == length


def reachable_bins(f0: np.ndarray, settings: Settings) -> tuple[int, int]:
    """First and last bin that points of these lines can be reassigned to, with one to spare."""
    spread = FURTHEST / (2 * math.pi * settings.q)
    edges = settings.bin_edges()
    ends = np.array([f0.min() * (1 - spread), f0.max() * (1 + spread)])
    found = np.searchsorted(edges, np.clip(ends, settings.fmin, settings.fmax)) - 1
    first, last = np.clip(found + np.array([-1, 1]), 0, settings.n_bins - 1)
    return int(first), int(last)


def log_polynomial(settings: Settings) -> np.ndarray:
    """Coefficients c[1..7] with sum c[d] v^d = log(1 + v), or = v for the linear axis.

    A followed point lies within `FURTHEST` sigmas of its line, so |v| <= 0.65 / (2 pi q): an
    interval so short that a polynomial of degree 7 is exact to single precision for q >= 0.5. Where
    the interval would reach the pole it is cut short; such points lie far below fmin.
    """
    if settings.axis == "linear":
        return np.eye(LOG_DEGREE, dtype=np.float32)[0]
    reach = min(FURTHEST / (2 * math.pi * settings.q), 0.9)
    v = reach * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    powers = v[:, None] ** np.arange(1, LOG_DEGREE + 1)
    # Weighted so that the relative error is even: points near their line are the most.
    scale = reach ** np.arange(1, LOG_DEGREE + 1)
    solution = np.linalg.lstsq(powers / scale / np.abs(v)[:, None], np.log1p(v) / np.abs(v))[0]
    return (solution / scale).astype(np.float32)


@lru_cache(maxsize=16)
def between_nodes(n_lines: int, h: float, q: float) -> np.ndarray:
    """Weights that give xi and eta of evenly spaced lines from two nodes, the lower one first.

    The filters of a line are G(u) and -u G(u), with u = (f - f0) / sigma. Its weights are those
    with which the four filters of the nodes come closest to them, in least squares over frequency.
    Filters of a constant q depend on f / f0 alone, so the weights do for any pair of nodes.

    Parameters
    ----------
    n_lines : int
        Lines from a node, with it, to the next one, without it.
    h : float
        Distance of the nodes in sigmas, 2 pi q times that of log f0.
    q : float

    Returns
    -------
    float32 array, shape (n_lines, 8)
        Weights of (xi below, xi above, eta below, eta above) for xi, then the four for eta.
    """
    c = 1 / (2 * math.pi * q)  # sigma / f0
    ratio = math.exp(c * h)
    f = np.linspace(1 - REACH * c, ratio * (1 + REACH * c), 2048)
    weight = 1 / np.maximum(np.abs(f), 0.5)[:, None]  # spectra of steps and voices fall with f

    def filters(f0: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = (f[:, None] / f0 - 1) / c
        g = weight * np.exp(-0.5 * u * u)
        return g, -u * g

    nodes = np.hstack(filters(np.array([1, ratio])))
    lines = filters(ratio ** (np.arange(n_lines) / n_lines))
    xi, eta = (np.linalg.lstsq(nodes, wanted)[0].T for wanted in lines)
    # Rounded, so that the line on a node is that node to the bit.
    return np.hstack((xi, eta)).round(8).astype(np.float32)


def line_table(f0: np.ndarray, first_bin: int, settings: Settings) -> np.ndarray:
    """What the loops over points need of each line by itself: `LINE`s without nodes and weights."""
    kind, a, b, c = settings.axis_parameters()
    lines = np.zeros(len(f0), dtype=LINE)
    if kind == 0:
        lines["bin"] = c + 0.5 - a * np.log2(b / f0) - first_bin
        lines["bins"], lines["scale"] = a / math.log(2), 1
    elif kind == 1:
        lines["bin"] = (np.log1p(f0 * a) - b) * c - first_bin
        lines["bins"], lines["scale"] = c, f0 * a / (1 + f0 * a)
    else:
        lines["bin"] = (f0 - a) * b - first_bin
        lines["bins"], lines["scale"] = f0 * b, 1
    sigma = f0 / (2 * math.pi * settings.q)
    lines["relative_sigma"] = sigma / f0
    lines["frames"] = 1 / (2 * math.pi * sigma * settings.hop)
    lines["lowest"], lines["highest"] = settings.fmin / f0 - 1, settings.fmax / f0 - 1
    row = settings.rows(f0)
    lines["row"] = np.where(row >= 0, row - first_bin, -1)
    return lines
