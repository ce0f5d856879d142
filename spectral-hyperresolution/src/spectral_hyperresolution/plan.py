"""What the fast form works out once for a length and a setting.

The idea. A Gaussian filter is negligible a few sigmas from its centre, so what passes a scan line
is slow: its inverse transform needs only as many points as its band is wide, and each point stands
for several samples. Lines that lie close together see nearly the same, twice over. So only some,
the *nodes*, are transformed at all; *half-way* between two, xi and eta are a weighted sum of those
of the four nodes around, and every other line is one of the node and the half-way place beside it
(eta says how xi changes with f0, so each brings its slope along). And of the lines between, k
neighbours take the points in *turns*, each every k-th, each from its own start: for each turn the
nodes have one short transform of their own. Spectrum bin b, times exp(2 pi i b turn / k P), is laid
at index b mod P of a transform of length P: point j of the result is the full-length one at sample
(j + turn / k) N / P, with phase and all. ``docs/turns.png`` shows nodes, half-way places, lines and
turns.

A click is followed for q / f0 samples only. Where these are few, the points are the samples, as the
exact form's are; where they are fewer still, no turns are taken. Where they are more, a point at
the edge |m| = 1/2 counts for the share of it that lies within (see `kernels.reassign`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import NamedTuple

import numpy as np
import scipy.fft

from .settings import MAX_DISPLACEMENT, Settings

# Half-width of the band in sigmas, up to accuracy 1; beyond it grows as the square root. For
# noise 4 would do; a staircase, whose spectrum is steep, needs 6.
REACH = 6.0

# Points of the turns together for each bin of the band, at accuracy 1.
TIME_OVERSAMPLING = 5 / 3

# Points of a line in a frame at accuracy 1, and those of the turns together, at the least.
POINTS_PER_FRAME = 6.0
FEWEST_PER_FRAME = 12.0

# Different lengths of transforms an octave.
STEPS_PER_OCTAVE = 2

# Where a window is shorter than this many samples, times the accuracy squared, the points are the
# samples: a click that a handful of samples sees weighs as many of them as happen to be near.
# Where it is shorter than the second number, every line takes every sample.
SAMPLES_TO_ALIGN = 7.0
SAMPLES_TO_TAKE_ALL = 2.5

# Distance of two nodes at most, in sigmas and as a part of f0, at accuracy 1.
NODE_SPACING = 1.4
NODE_SPACING_OF_F0 = 1 / 12

# Lines that take the points in turns, at most; the same where none moves, so that the points of a
# line are close enough for its energy.
MOST_TURNS = 5
MOST_TURNS_STANDING = 2

# Distance of two lines that take the same points, in sigmas, at most; the same where the points are
# the samples.
TURNS_SPACING = 0.27
TURNS_SPACING_ALIGNED = 0.17

# Where every line takes every sample: distance of two lines in sigmas at most, and lines of a
# log-axis bin at the least; the others are left out.
LINE_SPACING = 0.07
LINES_PER_BIN = 5

# A point that gets a share, see `kernels.reassign`, may move this many sigmas in frequency.
FURTHEST = 1.3 * MAX_DISPLACEMENT

# Below this q, which is for clicks, the accuracy is taken three times.
CLICKS_BELOW_Q = 1.0

# Complex points of one batch of transforms, so that it stays in the cache of one core; and
# intervals between nodes in a batch all the same. An odd number has, with the nodes beyond its
# ends, an even number of nodes: scipy transforms four rows side by side.
BATCH_POINTS = 1 << 17
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


class Layout(NamedTuple):
    """How the lines between two nodes take their points."""

    turns: int  # lines that take them in turns
    skip: int  # every how many-th line is taken at all
    length: int  # P, points of a line and of the inverse transforms
    period: int  # samples that they span: N, or `padded_length`


@dataclass(frozen=True)
class Batch:
    """Consecutive nodes of one layout, some of its turns, and the scan lines between them.

    Attributes
    ----------
    layout : Layout
    turns : range
        Those of this batch. The lines of turn t start t / layout.turns of a step late.
    low, high : int64 arrays, shape (nodes,)
        First and last spectrum bin of each band; negative bins are negative frequencies.
    slope, offset : float64 arrays, shape (nodes,)
        (f - f0) / sigma = slope * bin - offset.
    window : float32 array, shape (sum of the bands' widths,)
        G over the bands, one after the other.
    lines : structured array of `LINE`, shape (lines,)
        Those of one turn after those of the other.
    of_turn : int64 array, shape (len(turns) + 1,)
        Index of the first line of each turn.
    first_bin, n_bins : int
        Range of the frequency bins that the lines can reach.
    """

    layout: Layout
    turns: range
    low: np.ndarray
    high: np.ndarray
    slope: np.ndarray
    offset: np.ndarray
    window: np.ndarray
    lines: np.ndarray
    of_turn: np.ndarray
    first_bin: int
    n_bins: int


@dataclass(frozen=True)
class Plan:
    """Everything about the fast form that depends only on N and the settings, of one q."""

    n_samples: int
    settings: Settings
    batches: tuple[Batch, ...]
    log: np.ndarray  # see `log_polynomial`
    halfway: np.ndarray  # see `halfway_weights`

    @property
    def n_points(self) -> int:
        """Points that are reassigned for one signal."""
        return sum(batch.layout.length * len(batch.lines) for batch in self.batches)


@lru_cache(maxsize=16)
def make_plan(n_samples: int, settings: Settings) -> Plan:
    """Lay the nodes, choose their transform lengths, and cut them into batches.

    Cached for the last 16 choices.
    """
    spacing = line_spacing(settings)
    widest = min(NODE_SPACING, NODE_SPACING_OF_F0 * 2 * math.pi * settings.q)
    widest /= math.sqrt(max(fineness(settings), 1))
    node_step = max(int(widest / spacing) // 2 * 2, 1)  # lines from a node to the next
    n_intervals = -(-len(settings.scan_lines()) // node_step)
    upper = settings.line_frequencies(np.arange(1, n_intervals + 1) * node_step)
    batches = []
    laid = [lay_out(f0, n_samples, settings) for f0 in upper.tolist()]
    for layout, run in groupby(range(n_intervals), laid.__getitem__):
        batches += make_batches(list(run), node_step, layout, settings)
    # The costly ones first, so that no thread is left with one at the end.
    batches.sort(key=lambda batch: -batch.layout.length * len(batch.lines))
    halfway = halfway_weights(node_step * spacing, settings.q)
    return Plan(n_samples, settings, tuple(batches), log_polynomial(settings), halfway)


def fineness(settings: Settings) -> float:
    """The accuracy, three times for clicks."""
    return settings.accuracy * (3 if settings.q < CLICKS_BELOW_Q else 1)


def line_spacing(settings: Settings) -> float:
    """Distance of neighbouring scan lines in sigmas."""
    lines_per_octave = settings.oversampling * settings.bins_per_octave
    return 2 * math.pi * settings.q * math.log(2) / lines_per_octave


def lay_out(f0: float, n_samples: int, settings: Settings) -> Layout:
    """The layout of lines up to f0."""
    accuracy, per_bin = fineness(settings), settings.oversampling
    above_1 = max(accuracy, 1)
    window = settings.q / f0 / accuracy**2  # in samples
    if settings.reassign and window < SAMPLES_TO_ALIGN:
        odd = n_samples % 2 == 1
        turns = largest_divisor(settings, TURNS_SPACING_ALIGNED / above_1, MOST_TURNS, odd)
        period = padded_length(n_samples, accuracy, turns)
        if window >= SAMPLES_TO_TAKE_ALL:
            return Layout(turns, 1, period // turns, period)
        skip = largest_divisor(settings, LINE_SPACING / above_1, per_bin // LINES_PER_BIN)
        return Layout(1, skip, period, period)
    most = MOST_TURNS if settings.reassign else MOST_TURNS_STANDING
    turns = largest_divisor(settings, TURNS_SPACING / above_1, most)
    reach = REACH * math.sqrt(above_1) * f0 / (2 * math.pi * settings.q)
    width = n_samples * (min(f0 + reach, 0.5) - max(f0 - reach, -0.5))
    oversampling = TIME_OVERSAMPLING * max(accuracy, 0.5) / math.sqrt(above_1)
    per_frame = max(FEWEST_PER_FRAME, POINTS_PER_FRAME * turns * 10 / per_bin)
    least = max(per_frame * accuracy * settings.frames(n_samples), 16)
    # In steps of a part of an octave, so that few lengths differ; one point a sample is enough.
    steps = math.ceil(STEPS_PER_OCTAVE * math.log2(max(width * oversampling / least, 1)))
    needed = min(least * 2 ** (steps / STEPS_PER_OCTAVE), n_samples)
    return Layout(turns, 1, scipy.fft.next_fast_len(math.ceil(needed / turns)), n_samples)


def largest_divisor(settings: Settings, limit: float, most: int, odd: bool = False) -> int:
    """Of the divisors of the oversampling the largest that keeps lines within `limit` sigmas.

    A divisor, so that every bin keeps the same number of lines.
    """
    most = min(most, limit / line_spacing(settings))
    divisors = range(2, settings.oversampling + 1)
    fits = (d for d in divisors if settings.oversampling % d == 0 and d <= most)
    return max((d for d in fits if not (odd and d % 2 == 0)), default=1)


def padded_length(n_samples: int, accuracy: float, turns: int) -> int:
    """N where it is `turns` times a fast length, else one with room for 16 windows on either side.

    Only windows of at most `SAMPLES_TO_ALIGN` samples, times the accuracy squared, see the padding;
    those that Nyquist's frequency cuts short ring on. Odd where N is odd: then neither has a bin at
    Nyquist's frequency, which would be heard in digital silence.
    """

    def fits(length: int) -> bool:
        return length % turns == 0 and scipy.fft.next_fast_len(length) == length

    if fits(n_samples):
        return n_samples
    padded = n_samples + 2 * math.ceil(16 * SAMPLES_TO_ALIGN * accuracy**2)
    while not fits(padded):
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


def make_batches(
    intervals: list[int], node_step: int, layout: Layout, settings: Settings
) -> Iterator[Batch]:
    """The batches of the lines in consecutive intervals, each between a node and the next.

    Half-way places need a node more at either end.
    """
    length, period = layout.length, layout.period
    reach = REACH * math.sqrt(max(fineness(settings), 1))
    most = max((BATCH_POINTS // (2 * length) - 4) // 2 * 2 + 1, INTERVALS)
    for start in range(intervals[0], intervals[-1] + 1, most):
        stop = min(start + most, intervals[-1] + 1)
        f0 = settings.line_frequencies(np.arange(start - 1, stop + 2) * node_step)
        sigma = f0 / (2 * math.pi * settings.q)
        low = np.ceil((f0 - reach * sigma) * period).astype(np.int64)
        high = np.floor((f0 + reach * sigma) * period).astype(np.int64)
        low = np.clip(low, -((period - 1) // 2), period // 2 + 1)
        high = np.maximum(np.minimum(high, period // 2), low - 1)  # a band may be empty
        bands = np.concatenate([np.arange(a, b + 1) for a, b in zip(low, high, strict=True)])
        u = (bands / period - np.repeat(f0, high - low + 1)) / np.repeat(sigma, high - low + 1)
        n_lines = min(stop * node_step, len(settings.scan_lines()))
        number = np.arange(start * node_step, n_lines)
        number = number[number % layout.skip == 0]
        first_bin, last_bin = reachable_bins(settings.line_frequencies(number), settings)
        at_a_time = max(1, BATCH_POINTS // (2 * length * len(f0)))
        for turn in range(0, layout.turns, at_a_time):
            turns = range(turn, min(turn + at_a_time, layout.turns))
            by_turn = [number[number // layout.skip % layout.turns == t] for t in turns]
            yield Batch(
                layout=layout,
                turns=turns,
                low=low,
                high=high,
                slope=1 / (period * sigma),
                offset=f0 / sigma,
                window=np.exp(-0.5 * u * u).astype(np.float32),
                lines=line_table(
                    np.concatenate(by_turn), node_step, start - 1, first_bin, layout, settings
                ),
                of_turn=np.cumsum([0, *map(len, by_turn)]),
                first_bin=first_bin,
                n_bins=last_bin - first_bin + 1,
            )


def reachable_bins(f0: np.ndarray, settings: Settings) -> tuple[int, int]:
    """First and last bin that points of these lines can be reassigned to, with one to spare."""
    spread = FURTHEST / (2 * math.pi * settings.q)
    edges = settings.bin_edges()
    ends = np.array([f0.min() * (1 - spread), f0.max() * (1 + spread)])
    found = np.searchsorted(edges, np.clip(ends, settings.low, settings.high)) - 1
    first, last = np.clip(found + np.array([-1, 1]), 0, settings.n_rows - 1)
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
    solution = np.linalg.lstsq(powers / np.abs(v)[:, None], np.log1p(v) / np.abs(v), None)[0]
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
    """Weights of G and G' of the nodes for G and for G' of the places, all in units of h."""
    c = 1 / (2 * math.pi * q)  # sigma / f0
    f = np.linspace(1 - REACH * c, math.exp(c * h * nodes[-1]) * (1 + REACH * c), 2048)
    weight = 1 / np.maximum(np.abs(f), 0.5)[:, None]  # spectra of steps and voices fall with f

    def filters(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        u = (f[:, None] / np.exp(c * h * places) - 1) / c
        g = weight * np.exp(-0.5 * u * u)
        return g, -u * g

    given = np.hstack(filters(nodes))
    return [np.linalg.lstsq(given, wanted, None)[0].T for wanted in filters(places)]


def line_table(
    number: np.ndarray,
    node_step: int,
    first_node: int,
    first_bin: int,
    layout: Layout,
    settings: Settings,
) -> np.ndarray:
    """What the loops over points need of each line: `LINE`s."""
    kind, a, b, c = settings.axis_parameters()
    f0 = settings.line_frequencies(number)
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
    points = layout.length * layout.turns
    if points < layout.period:  # else the points are the samples, and the edge the exact form's
        lines["time_ramp"] = 2 * layout.period / points / settings.q * f0
    sigma = f0 / (2 * math.pi * settings.q)
    lines["frames"] = 1 / (2 * math.pi * sigma * settings.hop_length)
    lines["lowest"], lines["highest"] = (f0 - settings.high) / sigma, (f0 - settings.low) / sigma
    row = settings.rows(f0)
    lines["row"] = np.where(row >= 0, row - first_bin, -1)
    return lines
