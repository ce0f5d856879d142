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

# Points of the turns together for each bin of the band, at accuracy 1.
TIME_OVERSAMPLING = 5 / 3

# Where a window is shorter than this many samples, times the accuracy squared, the points are the
# samples: a click that a handful of samples sees weighs as many of them as happen to be near.
SAMPLES_TO_ALIGN = 7.0

# Where it is shorter than this, times the accuracy squared, no turns are taken: every line takes
# every sample.
SAMPLES_TO_TAKE_ALL = 2.5

# Points of a line in a frame at accuracy 1, and those of the turns together, at the least.
POINTS_PER_FRAME = 6.0
FEWEST_PER_FRAME = 12.0

# Distance of two nodes at most, in sigmas and as a part of f0, at accuracy 1.
NODE_SPACING = 1.4
NODE_SPACING_OF_F0 = 1 / 12

# Different lengths of transforms an octave.
STEPS_PER_OCTAVE = 2

# Lines that take the points in turns, at most; the same where none moves, so that the points of a
# line are close enough for its energy; distance of two lines that take the same, in sigmas, at
# most; the same where the points are the samples.
MOST_TURNS = 5
MOST_TURNS_STANDING = 2
TURNS_SPACING = 0.27
TURNS_SPACING_ALIGNED = 0.17

# Where every line takes every sample: distance of two lines in sigmas at most, and lines of a
# log-axis bin at the least.
LINE_SPACING = 0.07
LINES_PER_BIN = 5

# A point that gets a share, see `kernels.reassign`, may move this many sigmas in frequency.
FURTHEST = 1.3 * MAX_DISPLACEMENT

# Below this q, which is for clicks, the accuracy is taken three times.
CLICKS_BELOW_Q = 1.0

# Complex points of one batch of transforms, so that it stays in the cache of one core.
BATCH_POINTS = 1 << 17

# Intervals between nodes in a batch at the least, beyond that size. With the nodes beyond its ends
# an even number of nodes: scipy transforms four rows side by side.
INTERVALS = 11

# Degree of the polynomial that stands for log(1 + v) on the small interval it is needed on.
LOG_DEGREE = 5

# One scan line, as the compiled loops take it.
LINE = np.dtype(
    [
        ("node", np.int64),  # index of the node or half-way place below, see `kernels.split_tile`
        ("xi_weights", np.float32, 4),  # xi from (xi below, xi above, eta below, eta above)
        ("eta_weights", np.float32, 4),  # eta from the same
        ("frames", np.float32),  # frames that a point moves per unit of Im m
        ("bin", np.float32),  # f0 in bins, as a real number counted from the batch's first bin
        ("scale", np.float32),  # v per unit of Re m, see `log_polynomial`
        ("time_ramp", np.float32),  # twice the change of Im m from turn to turn, at a click
        ("lowest", np.float32),  # legal values of Re m: those within fmin < f < fmax
        ("highest", np.float32),
        ("row", np.int64),  # bin that f0 itself lies in, counted likewise; -1 outside the range
    ]
)


@dataclass(frozen=True)
class Batch:
    """Consecutive nodes with one transform length, some turns, and the scan lines between them.

    Attributes
    ----------
    length : int
        P, points of the inverse transforms, and of each line.
    turns : int
        Lines that take the points in turns: those of turn t start t / turns of a step later.
    first_turn, stop_turn : int
        Turns of this batch.
    period : int
        Samples that the points span: N, or `padded_length`.
    low, high : int64 arrays, shape (nodes,)
        First and last spectrum bin of each band; negative bins are negative frequencies.
    slope, offset : float64 arrays, shape (nodes,)
        (f - f0) / sigma = slope * bin - offset.
    window : float32 array, shape (sum of widths,)
        G over the bands, one after the other.
    lines : structured array of `LINE`, shape (lines,)
        Those of one turn after those of the other.
    of_turn : int64 array, shape (turns here + 1,)
        Index of the first line of each turn.
    first_bin, n_bins : int
        Range of the frequency bins that the lines can reach.
    each : float
        Samples, times scan lines of the full set, that each point stands for.
    """

    length: int
    turns: int
    first_turn: int
    stop_turn: int
    period: int
    low: np.ndarray
    high: np.ndarray
    slope: np.ndarray
    offset: np.ndarray
    window: np.ndarray
    lines: np.ndarray
    of_turn: np.ndarray
    first_bin: int
    n_bins: int
    each: float


@dataclass(frozen=True)
class Plan:
    """Everything about the fast form that depends only on N, the settings and the accuracy."""

    n_samples: int
    n_frames: int
    settings: Settings
    batches: tuple[Batch, ...]
    log_coefficients: np.ndarray
    halfway: np.ndarray

    @property
    def n_points(self) -> int:
        """Points that are reassigned for one signal."""
        return sum(batch.length * len(batch.lines) for batch in self.batches)

    @property
    def n_transformed(self) -> int:
        """Complex points of the inverse transforms for one signal, xi and eta together."""
        turns = (batch.stop_turn - batch.first_turn for batch in self.batches)
        return sum(2 * b.length * len(b.low) * n for b, n in zip(self.batches, turns, strict=True))


@lru_cache(maxsize=16)
def make_plan(n_samples: int, settings: Settings, accuracy: float) -> Plan:
    """Lay the nodes, choose their transform lengths, and cut them into batches.

    Cached for the last 16 choices.
    """
    if settings.q < CLICKS_BELOW_Q:
        accuracy = 3 * accuracy
    spacing = line_spacing(settings)
    widest = min(NODE_SPACING, NODE_SPACING_OF_F0 * 2 * math.pi * settings.q) / math.sqrt(accuracy)
    node_step = max(int(widest / spacing) // 2 * 2, 1)
    n_intervals = -(-len(settings.scan_lines()) // node_step)
    batches = []
    for start, stop, layout in runs(n_intervals, node_step, n_samples, settings, accuracy):
        batches += make_batches(start, stop, node_step, n_samples, settings, accuracy, *layout)
    # The costly ones first, so that no thread is left with one at the end.
    batches.sort(key=lambda batch: -batch.length * len(batch.lines))
    return Plan(
        n_samples,
        settings.frames(n_samples),
        settings,
        tuple(batches),
        log_polynomial(settings),
        halfway_weights(node_step * spacing, settings.q),
    )


def runs(
    n_intervals: int, node_step: int, n_samples: int, settings: Settings, accuracy: float
) -> Iterator[tuple[int, int, tuple]]:
    """(first node, last node, (turns, skip, length, period)) of each run of intervals alike."""
    found = [
        layout(line_frequencies((i + 1) * node_step, settings), n_samples, settings, accuracy)
        for i in range(n_intervals)
    ]
    start = 0
    while start < n_intervals:
        stop = start + 1
        while stop < n_intervals and found[stop] == found[start]:
            stop += 1
        yield start, stop, found[start]
        start = stop


def layout(f0: float, n_samples: int, settings: Settings, accuracy: float) -> tuple:
    """How lines up to f0 take the points: (turns, skip, length, period).

    Every `skip`-th line is taken, `turns` of them take the points in turns, `length` each of
    `period` samples.
    """
    above_1, per_bin = max(accuracy, 1), settings.oversampling
    window = settings.q / f0 / accuracy**2
    if settings.reassign and window < SAMPLES_TO_ALIGN:
        odd = n_samples % 2 == 1
        turns = largest_divisor(settings, TURNS_SPACING_ALIGNED / above_1, MOST_TURNS, odd)
        period = padded_length(n_samples, accuracy, turns)
        if window >= SAMPLES_TO_TAKE_ALL:
            return turns, 1, period // turns, period
        skip = largest_divisor(settings, LINE_SPACING / above_1, per_bin // LINES_PER_BIN)
        return 1, skip, period, period
    most = MOST_TURNS if settings.reassign else MOST_TURNS_STANDING
    turns = largest_divisor(settings, TURNS_SPACING / above_1, most)
    sigma = f0 / (2 * math.pi * settings.q)
    reach = REACH * math.sqrt(above_1) * sigma
    width = n_samples * (min(f0 + reach, 0.5) - max(f0 - reach, -0.5))
    per_frame = max(FEWEST_PER_FRAME, POINTS_PER_FRAME * turns * 10 / per_bin)
    oversampling = TIME_OVERSAMPLING * max(accuracy, 0.5) / math.sqrt(above_1)
    least = max(per_frame * accuracy * settings.frames(n_samples), 16)
    # In steps of a part of an octave, so that few lengths differ; one point a sample is enough.
    steps = math.ceil(STEPS_PER_OCTAVE * math.log2(max(width * oversampling / least, 1)))
    needed = min(least * 2 ** (steps / STEPS_PER_OCTAVE), n_samples)
    return turns, 1, scipy.fft.next_fast_len(math.ceil(needed / turns)), n_samples


def largest_divisor(settings: Settings, limit: float, most: int, odd: bool = False) -> int:
    """Of the divisors of the oversampling the largest that keeps lines within `limit` sigmas.

    A divisor, so that every bin keeps the same number of lines.
    """
    n, spacing = settings.oversampling, line_spacing(settings)
    return max(
        d
        for d in range(1, n + 1)
        if d == 1
        or (n % d == 0 and d <= most and d * spacing <= limit and not (odd and d % 2 == 0))
    )


def padded_length(n_samples: int, accuracy: float, turns: int) -> int:
    """N where it is `turns` times a fast length, else one with room for 16 windows on either side.

    Only windows of at most `SAMPLES_TO_ALIGN` samples, times the accuracy squared, see the padding;
    those that Nyquist's frequency cuts short ring on. Odd where N is odd: then neither has a bin at
    Nyquist's frequency.
    """
    padded = n_samples
    if n_samples % turns or not is_fast(n_samples):
        padded += 2 * math.ceil(16 * SAMPLES_TO_ALIGN * accuracy**2)
    while padded % turns or not is_fast(padded):
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


def line_spacing(settings: Settings) -> float:
    """Distance of neighbouring scan lines in sigmas."""
    lines_per_octave = settings.oversampling * settings.bins_per_octave
    return 2 * math.pi * settings.q * math.log(2) / lines_per_octave


def line_frequencies(number: np.ndarray, settings: Settings) -> np.ndarray:
    """f0 of scan lines by their number, in cycles per sample."""
    return settings.fmin * 2.0 ** (number / (settings.oversampling * settings.bins_per_octave))


def make_batches(
    start: int,
    stop: int,
    node_step: int,
    n_samples: int,
    settings: Settings,
    accuracy: float,
    turns: int,
    skip: int,
    length: int,
    period: int,
) -> Iterator[Batch]:
    """The batches of the lines from node `start` to node `stop`.

    Half-way places need a node more at either end.
    """
    most = max((BATCH_POINTS // (2 * length) - 4) // 2 * 2 + 1, INTERVALS)
    for a in range(start, stop, most):
        b = min(a + most, stop)
        f0 = line_frequencies(np.arange(a - 1, b + 2) * node_step, settings)
        sigma = f0 / (2 * math.pi * settings.q)
        reach = REACH * math.sqrt(max(accuracy, 1)) * sigma
        low = np.maximum(np.ceil((f0 - reach) * period).astype(np.int64), -((period - 1) // 2))
        high = np.minimum(np.floor((f0 + reach) * period).astype(np.int64), period // 2)
        high = np.maximum(high, low - 1)  # the band of a node may be empty
        bands = np.concatenate([np.arange(i, j + 1) for i, j in zip(low, high, strict=True)])
        u = (bands / period - np.repeat(f0, high - low + 1)) / np.repeat(sigma, high - low + 1)
        number = np.arange(a * node_step, min(b * node_step, len(settings.scan_lines())))
        number = number[number % skip == 0]
        first_bin, last_bin = reachable_bins(line_frequencies(number, settings), settings)
        turns_here = max(1, min(turns, BATCH_POINTS // (2 * length * len(f0))))
        for first_turn in range(0, turns, turns_here):
            stop_turn = min(first_turn + turns_here, turns)
            of_turns = [number[number // skip % turns == t] for t in range(first_turn, stop_turn)]
            lines = line_table(np.concatenate(of_turns), first_bin, settings, node_step, a - 1)
            if length * turns < period:
                ramp = 2 * period / (length * turns) / settings.q
                lines["time_ramp"] = ramp * line_frequencies(np.concatenate(of_turns), settings)
            yield Batch(
                length=length,
                turns=turns,
                first_turn=first_turn,
                stop_turn=stop_turn,
                period=period,
                low=low,
                high=high,
                slope=1 / (period * sigma),
                offset=f0 / sigma,
                window=np.exp(-0.5 * u * u).astype(np.float32),
                lines=lines,
                of_turn=np.cumsum([0, *map(len, of_turns)]),
                first_bin=first_bin,
                n_bins=last_bin - first_bin + 1,
                each=period / length * skip,
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
    """Coefficients c[1..5]: a point lies sum c[d] v^d bins from its line, v = scale * Re m.

    On the log and mel axes a point moves by log(1 - scale Re m / 2 pi q) times a constant. A
    followed point lies within `FURTHEST` sigmas of its line: an interval so short that a
    polynomial does. Where it would reach the pole it is cut short; such points lie far below fmin.
    """
    kind, a, b, c = settings.axis_parameters()
    coefficients = np.zeros(LOG_DEGREE)
    step = -1 / (2 * math.pi * settings.q)  # relative frequency per unit of Re m
    if kind == 2:
        coefficients[0] = step * b
        return coefficients.astype(np.float32)
    reach = min(FURTHEST * abs(step), 0.9)
    v = reach * np.cos(np.pi * (np.arange(64) + 0.5) / 64)
    degrees = np.arange(1, LOG_DEGREE + 1)
    # Weighted so that the relative error is even: points near their line are the most.
    powers = v[:, None] ** degrees / reach**degrees
    solution = np.linalg.lstsq(powers / np.abs(v)[:, None], np.log1p(v) / np.abs(v))[0]
    bins = a / math.log(2) if kind == 0 else c
    return (bins * solution * (step / reach) ** degrees).astype(np.float32)


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
    xi, eta = closest(np.arange(2), np.arange(n_lines) / n_lines, h, q)
    # Rounded, so that the line on a node is that node to the bit.
    return np.hstack((xi, eta)).round(8).astype(np.float32)


def halfway_weights(h: float, q: float) -> np.ndarray:
    """Weights that give xi and eta half-way between the middle two of four nodes, shape (2, 8).

    From xi of the four, then eta of the four. Otherwise as `between_nodes`.
    """
    return np.vstack(closest(np.arange(4), np.array([1.5]), h, q)).astype(np.float32)


def closest(nodes: np.ndarray, places: np.ndarray, h: float, q: float) -> list[np.ndarray]:
    """Weights of the filters (G, then G') of `nodes` for G and for G' of `places`, in units of h."""
    c = 1 / (2 * math.pi * q)  # sigma / f0
    f = np.linspace(1 - REACH * c, math.exp(c * h * nodes[-1]) * (1 + REACH * c), 2048)
    weight = 1 / np.maximum(np.abs(f), 0.5)[:, None]  # spectra of steps and voices fall with f

    def filters(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = (f[:, None] / np.exp(c * h * places) - 1) / c
        g = weight * np.exp(-0.5 * u * u)
        return g, -u * g

    given = np.hstack(filters(nodes))
    return [np.linalg.lstsq(given, wanted)[0].T for wanted in filters(places)]


def line_table(
    number: np.ndarray, first_bin: int, settings: Settings, node_step: int, first_node: int
) -> np.ndarray:
    """What the loops over points need of each line: `LINE`s, without `time_ramp`."""
    kind, a, b, c = settings.axis_parameters()
    f0 = line_frequencies(number, settings)
    lines = np.zeros(len(f0), dtype=LINE)
    half = max(node_step // 2, 1)  # lines from a node to the half-way place
    lines["node"] = 2 * (number // node_step - first_node) + number % node_step // half
    weights = between_nodes(half, line_spacing(settings) * node_step / 2, settings.q)
    weights = weights[number % node_step % half]
    lines["xi_weights"], lines["eta_weights"] = weights[:, :4], weights[:, 4:]
    lines["scale"] = 1
    if kind == 0:
        lines["bin"] = c + 0.5 - a * np.log2(b / f0) - first_bin
    elif kind == 1:
        lines["bin"] = (np.log1p(f0 * a) - b) * c - first_bin
        lines["scale"] = f0 * a / (1 + f0 * a)
    else:
        lines["bin"] = (f0 - a) * b - first_bin
        lines["scale"] = f0
    sigma = f0 / (2 * math.pi * settings.q)
    lines["frames"] = 1 / (2 * math.pi * sigma * settings.hop)
    lines["lowest"], lines["highest"] = (f0 - settings.fmax) / sigma, (f0 - settings.fmin) / sigma
    row = settings.rows(f0)
    lines["row"] = np.where(row >= 0, row - first_bin, -1)
    return lines
