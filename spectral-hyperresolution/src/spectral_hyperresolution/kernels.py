"""Compiled loops over the points of the scan lines, for the CPU.

Every loop releases the interpreter's lock, so that threads can work on different lines. A group
of lines has a histogram of its own, a strip of the few frequency bins that its points can reach.
The strips are then added in a fixed order, so a result does not depend on the number of threads,
to the last bit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable

import numba
import numpy as np


def compiled(**options) -> Callable:
    """``numba.njit`` that keeps its machine code on disk, where there is a place to keep it."""

    def decorate(function: Callable) -> Callable:
        try:
            return numba.njit(cache=True, nogil=True, **options)(function)
        except RuntimeError:  # neither beside the source nor in the user's own cache
            warnings.warn(
                "no writable folder for compiled code: every process compiles anew, in seconds; "
                "set NUMBA_CACHE_DIR to a writable folder to keep it",
                RuntimeWarning,
                stacklevel=2,
            )
            return numba.njit(nogil=True, **options)(function)

    return decorate


# Without NaN and infinity, sums in any order, so that many points go through at a time.
FAST = {"fastmath": True, "error_model": "numpy"}


@compiled(inline="always")
def bin_of(frequency, kind, a, b, c):
    """Index, counted from the lowest bin, of a frequency in cycles per sample.

    log: ``c - round(a * log2(b / f))``, the reference's bin counted from the other end, where
    MATLAB's round takes halves away from zero; mel: equal steps of log(1 + f / 700 Hz);
    linear: equal steps of f.
    """
    if kind == 0:
        return int(c) - math.floor(-a * math.log2(frequency / b) + 0.5)
    if kind == 1:
        return math.floor((math.log1p(frequency * a) - b) * c)
    return math.floor((frequency - a) * b)


def strip_ranges(
    f0: np.ndarray, q: float, fmin: float, fmax: float, n_bins: int, axis: tuple
) -> tuple[np.ndarray, int]:
    """First bin that the points of each scan line can reach, and how many bins a strip needs.

    A followed point has |m| < 1/2, hence |f - f0| < sigma / 2 = f0 / (4 pi q).
    """
    spread = 0.5 / (2 * math.pi * q)
    low = np.clip(f0 * (1 - spread), fmin, fmax)
    high = np.clip(f0 * (1 + spread), fmin, fmax)
    first = np.array([bin_of(f, *axis) for f in low]) - 1  # one bin of room for rounding
    last = np.array([bin_of(f, *axis) for f in high]) + 1
    first = np.clip(first, 0, n_bins - 1)
    last = np.clip(last, 0, n_bins - 1)
    return first, int((last - first).max()) + 1


@compiled()
def bin_lines(xi, eta, f0, q, hop, shift, end, fmin, fmax, axis, silence, first, energy, count):
    """Reassign every point of full-length scan lines and add it to its line's strip.

    Parameters
    ----------
    xi, eta : complex array, shape (lines, N)
        Filtered signal with the Gaussian and with its derivative.
    f0 : float64 array, shape (lines,)
    hop, shift, end : see `Settings.frame_shift` and `Settings.end`
    silence : float
        Power that |xi|^2 / 4 must exceed by at least |eta|^2 for the point to be followed.
    first : int array, shape (lines,)
        First bin of each strip.
    energy, count : float64 and int64 arrays, shape (lines, strip, frames)
        Added to.
    """
    lines, n_samples = xi.shape
    kind, a, b, c = axis
    for line in range(lines):
        centre = f0[line]
        sigma = centre / (2 * math.pi * q)
        time_scale = 1 / (2 * math.pi * sigma)
        for n in range(n_samples):
            x = xi[line, n]
            e = eta[line, n]
            xr, xim = float(x.real), float(x.imag)
            er, eim = float(e.real), float(e.imag)
            power = xr * xr + xim * xim
            # |m| < 1/2 without a division; also turns away 0 / 0 where the signal is silent.
            if not (er * er + eim * eim + silence < 0.25 * power):
                continue
            frequency = centre - sigma * (er * xr + eim * xim) / power
            time = n + 1 + time_scale * (eim * xr - er * xim) / power
            if fmin < frequency < fmax and 1 <= time < end:
                row = bin_of(frequency, kind, a, b, c) - first[line]
                # time / hop + 1/2 rounded to the nearest, counted from 1, is this counted from 0
                frame = math.floor((time + shift) / hop)
                energy[line, row, frame] += power
                count[line, row, frame] += 1


@compiled()
def add_strips(energy, count, first, total_energy, total_count):
    """Add the strips of all lines, in order, to the histograms of shape (n_bins, frames)."""
    lines, strip, frames = energy.shape
    n_bins = total_energy.shape[0]
    for line in range(lines):
        for row in range(min(strip, n_bins - first[line])):
            for frame in range(frames):
                total_energy[first[line] + row, frame] += energy[line, row, frame]
                total_count[first[line] + row, frame] += count[line, row, frame]


@compiled()
def filter_lines(spectrum, n_samples, f0, q, reach, xi, eta):
    """Multiply the spectrum with G and G' of each line, into zeroed rows of length N.

    G(f) = exp(-(f - f0)^2 / (2 sigma^2)) and G'(f) = -((f - f0) / sigma) G(f). Bins further than
    `reach` sigmas from f0 are left at zero, far below the rounding of the transform.

    Parameters
    ----------
    spectrum : complex array, shape (N // 2 + 1,)
        ``rfft`` of the signal.
    xi, eta : complex array, shape (lines, N)
        Overwritten with the spectra of the filtered signals.
    """
    half = n_samples // 2
    for line in range(f0.shape[0]):
        xi[line] = 0
        eta[line] = 0
        sigma = f0[line] / (2 * math.pi * q)
        low = int(max(math.ceil((f0[line] - reach * sigma) * n_samples), -((n_samples - 1) // 2)))
        high = int(min(math.floor((f0[line] + reach * sigma) * n_samples), half))
        for k in range(low, high + 1):
            u = (k / n_samples - f0[line]) / sigma
            g = math.exp(-0.5 * u * u)
            if k >= 0:
                value = g * spectrum[k]
                xi[line, k] = value
                eta[line, k] = -u * value
            else:  # signed frequencies: a wide Gaussian at a small q reaches below zero
                value = g * np.conj(spectrum[-k])
                xi[line, n_samples + k] = value
                eta[line, n_samples + k] = -u * value


@compiled(**FAST)
def fill_bands(spectrum, low, high, slope, offset, window, out):
    """Lay G X and G' X of each node's band into zeroed rows, bin k at index k mod M.

    Parameters
    ----------
    spectrum : complex64 array, shape (N // 2 + 1,)
    low, high, slope, offset, window : see `plan.Batch`
    out : complex64 array, shape (nodes, 2, M)
        Overwritten.
    """
    nodes, _, length = out.shape
    position = 0
    for node in range(nodes):
        xi, eta = out[node, 0], out[node, 1]
        xi[:] = 0
        eta[:] = 0
        k = low[node]
        while k <= high[node]:
            # one run of bins without a wrap and without a change of sign at a time
            index = k % length
            last = min(high[node], k + (length - 1 - index))
            if k < 0:
                last = min(last, -1)
            for i in range(last - k + 1):
                u = np.float32(slope[node] * (k + i) - offset[node])
                value = spectrum[abs(k + i)]
                if k < 0:
                    value = np.conj(value)
                value = window[position + i] * value
                xi[index + i] = value
                eta[index + i] = -u * value
            position += last - k + 1
            k = last + 1


@compiled(**FAST)
def unpack(transformed, parts):
    """Real and imaginary parts of xi and eta one after the other, a clip's both ends joined.

    Parameters
    ----------
    transformed : float32 array, shape (nodes, 2, 2 M)
        xi and eta of the nodes, real and imaginary parts alternating.
    parts : float32 array, shape (nodes, 4, M + 2)
        Overwritten: Re xi, Im xi, Re eta, Im eta, each with its last point before its first and
        its first after its last.
    """
    nodes, _, double = transformed.shape
    length = double // 2
    for node in range(nodes):
        for i in range(2):
            pairs, real, imaginary = (
                transformed[node, i],
                parts[node, 2 * i],
                parts[node, 2 * i + 1],
            )
            for j in range(length):
                real[j + 1] = pairs[2 * j]
                imaginary[j + 1] = pairs[2 * j + 1]
            real[0], imaginary[0] = real[length], imaginary[length]
            real[length + 1], imaginary[length + 1] = real[1], imaginary[1]


# Added to positions in samples before samples are counted, so that none lies just on the edge
# between two points, where rounding would give it to both or to neither.
EDGE = 1 / 64

# Points that go from one step of `bin_points` to the next: they stay in the first-level cache.
TILE = 512


@compiled(**FAST)
def bin_points(parts, lines, log, step, hop, shift, end, silence, lines_each, cells):
    """Interpolate the lines between the nodes, reassign their points, add them to a strip.

    Parameters
    ----------
    parts : see `unpack`
    lines : structured array of `plan.LINE`
    log : float32 array, shape (7,), see `plan.log_polynomial`
    step : float
        Samples between two points, N / M.
    hop, shift, end : see `Settings.frame_shift` and `Settings.end`
    silence : float
        As for `bin_lines`, in units of |M xi|^2.
    lines_each : int
        Scan lines that each line stands for.
    cells : float32 array, shape (bins, frames, 2)
        Energy, in units of |M xi|^2, and number of points side by side. Added to.
    """
    length = parts.shape[2] - 2
    rows, frames, _ = cells.shape
    flat = cells.ravel()
    size = TILE + 2  # a tile and one point on either side
    power, ratio_re = np.empty(size, np.float32), np.empty(size, np.float32)
    ratio_im, square = np.empty(size, np.float32), np.empty(size, np.float32)
    kept = np.empty(TILE, np.uint32)
    packed = np.empty((7, TILE), np.float32)
    where, energy = np.empty(TILE, np.int32), np.empty(TILE, np.float32)
    number = np.empty(TILE, np.float32)
    for k in range(lines.shape[0]):
        line = lines[k]
        below, above = parts[line.node], parts[line.node + 1]
        for start in range(0, length, TILE):
            n = min(TILE, length - start)
            interpolate(
                below, above, start, n + 2, line, silence, power, ratio_re, ratio_im, square
            )
            n_kept = keep_followed(square, n, kept)
            pack(kept, n_kept, power, ratio_re, ratio_im, square, packed)
            place(
                packed, n_kept, 1 + (start - 1) * step, step, hop, shift, end, line, log,
                lines_each, rows, frames, where, energy, number,
            )  # fmt: skip
            for i in range(n_kept):
                flat[where[i]] += energy[i]
                flat[where[i] + 1] += number[i]


@compiled(**FAST)
def interpolate(below, above, start, n, line, silence, power, ratio_re, ratio_im, square):
    """|xi|^2, Re m, Im m and |m|^2 of `n` points of a line; in silence |m| is large."""
    xi_b, xi_a = line.xi_weights[0], line.xi_weights[1]
    xi_eb, xi_ea = line.xi_weights[2], line.xi_weights[3]
    eta_b, eta_a = line.eta_weights[0], line.eta_weights[1]
    eta_eb, eta_ea = line.eta_weights[2], line.eta_weights[3]
    xbr, xbi = below[0, start : start + n], below[1, start : start + n]
    ebr, ebi = below[2, start : start + n], below[3, start : start + n]
    xar, xai = above[0, start : start + n], above[1, start : start + n]
    ear, eai = above[2, start : start + n], above[3, start : start + n]
    one, tiny, least = np.float32(1), np.float32(1e-30), np.float32(silence)
    for i in range(n):
        xr = xi_b * xbr[i] + xi_a * xar[i] + xi_eb * ebr[i] + xi_ea * ear[i]
        xi = xi_b * xbi[i] + xi_a * xai[i] + xi_eb * ebi[i] + xi_ea * eai[i]
        er = eta_b * xbr[i] + eta_a * xar[i] + eta_eb * ebr[i] + eta_ea * ear[i]
        ei = eta_b * xbi[i] + eta_a * xai[i] + eta_eb * ebi[i] + eta_ea * eai[i]
        p = xr * xr + xi * xi
        inverse = one / (p + tiny)
        power[i] = p
        ratio_re[i] = (er * xr + ei * xi) * inverse
        ratio_im[i] = (ei * xr - er * xi) * inverse
        square[i] = (er * er + ei * ei + least) * inverse


@compiled(**FAST)
def keep_followed(square, n, kept):
    """Places 1 .. n of the points with |m| < 1/2, and how many they are."""
    k = 0
    for i in range(1, n + 1):  # every place is written and most are overwritten: no branch to miss
        kept[k] = i
        k += square[i] < np.float32(0.25)
    return k


@compiled(**FAST)
def pack(kept, n_kept, power, ratio_re, ratio_im, square, packed):
    """The kept points side by side, with |m|^2 of their neighbours in time and their places."""
    for k in range(n_kept):
        i = kept[k]
        packed[0, k] = power[i]
        packed[1, k] = ratio_re[i]
        packed[2, k] = ratio_im[i]
        packed[3, k] = square[i - np.uint32(1)]
        packed[4, k] = square[i]
        packed[5, k] = square[i + np.uint32(1)]
        packed[6, k] = np.float32(i)


@compiled(**FAST)
def place(
    packed, n, first, step, hop, shift, end, line, log, lines_each, rows, frames, where,
    energy, number,
):  # fmt: skip
    """Cell, energy and number of samples of each kept point.

    A point stands for the samples half-way to its neighbours; where a neighbour is not followed,
    for those up to where |m| passes 1/2 on a straight line between the two. The samples are
    counted one by one, so that a click weighs what it weighs in the exact form.

    Parameters
    ----------
    first : float
        Time, in samples from 1, of place 0.
    where : int32 array
        Overwritten: index into the flat cells.
    energy, number : float32 arrays
        Overwritten; zero for points that are reassigned out of range.
    """
    power, re, im, place_of = packed[0], packed[1], packed[2], packed[6]
    before, here, after = packed[3], packed[4], packed[5]
    # Times are counted from the tile's own sample and frame, so that single precision is enough.
    sample0, frame0 = math.floor(first), math.floor((first + shift) / hop)
    position, stride = np.float32(first - sample0 + EDGE), np.float32(step)
    origin, frame_step = np.float32((first + shift) / hop - frame0), np.float32(step / hop)
    earliest = np.float32((1 + shift) / hop - frame0)
    latest = np.float32((end + shift) / hop - frame0)
    frame0, n_frames, last_row = np.int32(frame0), np.int32(frames), np.int32(rows - 1)
    relative_sigma, per_im, scale = line.relative_sigma, line.frames, line.scale
    bin0, bins, lowest, highest = line.bin, line.bins, line.lowest, line.highest
    c1, c2, c3, c4, c5, c6, c7 = log[0], log[1], log[2], log[3], log[4], log[5], log[6]
    zero, half, each = np.float32(0), np.float32(0.5), np.float32(lines_each)
    for i in range(n):
        inner = half - np.sqrt(here[i])
        outer = half - np.sqrt(before[i])
        earlier = half if outer > zero else inner / (inner - outer)
        outer = half - np.sqrt(after[i])
        later = half if outer > zero else inner / (inner - outer)
        p = position + stride * place_of[i]
        samples = np.floor(p + later * stride) - np.floor(p - earlier * stride)
        u = -relative_sigma * re[i]
        t = origin + frame_step * place_of[i] + per_im * im[i]
        v = scale * u
        series = c4 + v * (c5 + v * (c6 + v * c7))
        series = v * (c1 + v * (c2 + v * (c3 + v * series)))
        row = min(np.int32(bin0 + bins * series), last_row)
        frame = frame0 + np.int32(np.floor(t))
        inside = (u > lowest) & (u < highest) & (t >= earliest) & (t < latest)
        samples = samples * each if inside else zero
        where[i] = 2 * (row * n_frames + frame) if inside else np.int32(0)
        energy[i] = samples * power[i]
        number[i] = samples


@compiled(**FAST)
def sum_points(parts, lines, step, frame_ends, lines_each, energy):
    """Interpolate the lines between the nodes, add their energy where they stand.

    A point stands for `step` samples around it. Where a frame ends among them it gets its share,
    so that every frame gets as many samples of a line as it has.

    Parameters
    ----------
    parts, lines, step, lines_each : see `bin_points`
    frame_ends : int array, shape (frames,)
        See `Settings.frame_ends`.
    energy : float32 array, shape (bins, frames)
        Added to, in units of |M xi|^2.
    """
    length = parts.shape[2] - 2
    power = np.empty(length, np.float32)
    for k in range(lines.shape[0]):
        line = lines[k]
        if line.row < 0:
            continue
        xi_b, xi_a = line.xi_weights[0], line.xi_weights[1]
        xi_eb, xi_ea = line.xi_weights[2], line.xi_weights[3]
        below, above = parts[line.node, :, 1:-1], parts[line.node + 1, :, 1:-1]
        xbr, xbi, ebr, ebi = below[0], below[1], below[2], below[3]
        xar, xai, ear, eai = above[0], above[1], above[2], above[3]
        for i in range(length):
            xr = xi_b * xbr[i] + xi_a * xar[i] + xi_eb * ebr[i] + xi_ea * ear[i]
            xi = xi_b * xbi[i] + xi_a * xai[i] + xi_eb * ebi[i] + xi_ea * eai[i]
            power[i] = xr * xr + xi * xi
        # Point i stands for [i, i + 1) in units of `step` from half a step before the first one.
        stop = 0.0
        for frame in range(frame_ends.shape[0]):
            start, stop = stop, (frame_ends[frame] - 1.5) / step + 0.5
            stop = min(max(stop, start), float(length))
            first, last = int(start), int(stop)
            total = np.float32(0)
            for i in range(first, min(last, length)):
                total += power[i]
            total -= np.float32(start - first) * power[min(first, length - 1)]
            if last < length:
                total += np.float32(stop - last) * power[last]
            energy[line.row, frame] += np.float32(step * lines_each) * total
