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
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # neither beside the source nor in the user's own cache
            warnings.warn(
                "no writable folder for compiled code: every process compiles anew, in seconds; "
                "set NUMBA_CACHE_DIR to a writable folder to keep it",
                RuntimeWarning,
                stacklevel=2,
            )
            return numba.njit(**options)(function)

    return decorate


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


@compiled(nogil=True)
def bin_lines(xi, eta, f0, q, hop, fmin, fmax, n_bins, axis, first, energy, count):
    """Reassign every point of full-length scan lines and add it to its line's strip.

    Parameters
    ----------
    xi, eta : complex array, shape (lines, N)
        Filtered signal with the Gaussian and with its derivative.
    f0 : float64 array, shape (lines,)
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
            if not (er * er + eim * eim < 0.25 * power):
                continue
            frequency = centre - sigma * (er * xr + eim * xim) / power
            time = n + 1 + time_scale * (eim * xr - er * xim) / power
            if fmin < frequency < fmax and 1 <= time < n_samples:
                row = bin_of(frequency, kind, a, b, c) - first[line]
                # time / hop + 1/2 rounded to the nearest, counted from 1, is this counted from 0
                frame = math.floor(time / hop)
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


@compiled(nogil=True)
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


@compiled(nogil=True, fastmath=True, error_model="numpy")
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


# Points that are reassigned before any of them is added to the histogram: their bins and energies
# stay in the first-level cache, and the arithmetic runs on many points at a time.
TILE = 512


@compiled(nogil=True, fastmath=True, error_model="numpy")
def bin_points(transformed, length, lines, log, step, n_samples, hop, point, bins):
    """Interpolate the lines between the nodes, reassign their points, add them to a strip.

    Parameters
    ----------
    transformed : float32 array, shape (nodes, 2, 2 M)
        xi and eta of the nodes, real and imaginary parts alternating.
    length : int
        Of M points those that are taken.
    lines : structured array of `plan.LINE`
    log : float32 array, shape (7,), see `plan.log_polynomial`
    step : float
        Samples between two points, N / M.
    point : float
        Number of full-set points that each point stands for.
    bins : float32 array, shape (bins, frames, 2)
        Energy and count, side by side so that one cache line holds both. Added to. Energy is in
        units of |M xi|^2.
    """
    rows, frames, _ = bins.shape
    flat_bins = bins.reshape(rows * frames, 2)
    cell, power = np.empty(TILE, np.int32), np.empty(TILE, np.float32)
    weight, followed = np.empty(TILE, np.float32), np.empty(TILE, np.uint16)
    each = np.float32(point)
    for k in range(lines.shape[0]):
        line = lines[k]
        below, above = transformed[line.node], transformed[line.node + 1]
        for start in range(0, length, TILE):
            n = min(TILE, length - start)
            tile = slice(2 * start, 2 * (start + n))
            reassign(
                below[0, tile], below[1, tile], above[0, tile], above[1, tile], line, log,
                1 + start * step, step, n_samples, hop, rows, frames, each, cell, power, weight,
            )  # fmt: skip
            # A third of the points is followed. They are listed without a branch, because the
            # processor would often guess it wrong.
            n_followed = 0
            for i in range(n):
                followed[n_followed] = i
                n_followed += cell[i] >= 0
            for i in followed[:n_followed]:
                where = np.uint32(cell[i])  # unsigned: numba need not count it from the end
                flat_bins[where, 0] += power[i]
                flat_bins[where, 1] += weight[i]


@compiled(nogil=True, fastmath=True, error_model="numpy")
def reassign(
    xi_below, eta_below, xi_above, eta_above, line, log, time, step, n_samples, hop, rows,
    frames, each, cell, power, weight,
):  # fmt: skip
    """Where the points of a tile of a line go, how many they are, and their |xi|^2.

    A point stands for the samples around it, and for lines that were left out beside its own. Where
    the edge |m| = 1/2 runs between them it stands for a share of them. While a click passes, Im m
    changes by half of `time_ramp` from point to point; beside a tone, Re m by half of `line_ramp`
    from line to line. So |m|^2 changes by the ramps times |Im m| and |Re m|.

    Parameters
    ----------
    xi_below, eta_below, xi_above, eta_above : float32 arrays, shape (2 n,)
        Of the nodes, real and imaginary parts alternating.
    line : record of `plan.LINE`
    time : float
        Of the first point, in samples, where the first sample's is 1.
    rows, frames : int
        Shape of the strip.
    cell : int32 array
        Overwritten: index into the flat strip, -1 for a point that is not followed.
    power, weight : float32 arrays
        Overwritten: weight is `each` or a share of it, power that times |xi|^2.
    """
    # Frames are counted from the tile's own, so that single precision is enough.
    tile_frame = math.floor(time / hop)
    first_frame = np.int32(tile_frame)
    origin, frame_step = np.float32(time / hop - tile_frame), np.float32(step / hop)
    earliest = np.float32(1 / hop - tile_frame)
    latest = np.float32(n_samples / hop - tile_frame)
    first_row, last_row = np.int32(0), np.int32(rows - 1)
    n_frames, nowhere = np.int32(frames), np.int32(-1)
    xi_xb, xi_xa, xi_eb, xi_ea = line.xi_weights
    eta_xb, eta_xa, eta_eb, eta_ea = line.eta_weights
    relative_sigma, frames_per_im, scale = line.relative_sigma, line.frames, line.scale
    bin0, bins, lowest, highest = line.bin, line.bins, line.lowest, line.highest
    c1, c2, c3, c4, c5, c6, c7 = log[0], log[1], log[2], log[3], log[4], log[5], log[6]
    time_ramp, line_ramp = line.time_ramp, line.line_ramp
    zero, quarter, half, one = np.float32(0), np.float32(0.25), np.float32(0.5), np.float32(1)
    tiny = np.float32(1e-37)
    for i in range(xi_below.shape[0] // 2):
        re, im = 2 * i, 2 * i + 1
        # xi and eta of the line
        xb, xa, eb, ea = xi_below[re], xi_above[re], eta_below[re], eta_above[re]
        xr = xi_xb * xb + xi_xa * xa + xi_eb * eb + xi_ea * ea
        er = eta_xb * xb + eta_xa * xa + eta_eb * eb + eta_ea * ea
        xb, xa, eb, ea = xi_below[im], xi_above[im], eta_below[im], eta_above[im]
        xm = xi_xb * xb + xi_xa * xa + xi_eb * eb + xi_ea * ea
        em = eta_xb * xb + eta_xa * xa + eta_eb * eb + eta_ea * ea
        # m = eta / xi, and how much of the point lies within |m| < 1/2
        square = xr * xr + xm * xm
        inverse = one / (square + tiny)
        m_re, m_im = (er * xr + em * xm) * inverse, (em * xr - er * xm) * inverse
        ramp = abs(m_im) * time_ramp + abs(m_re) * line_ramp + tiny
        share = min(half + (quarter - m_re * m_re - m_im * m_im) / ramp, one)
        # relative frequency and frame
        u = -relative_sigma * m_re
        t = origin + frame_step * np.float32(np.int32(i)) + frames_per_im * m_im  # int32: see below
        # row from log(1 + v)
        v = scale * u
        series = c4 + v * (c5 + v * (c6 + v * c7))
        series = v * (c1 + v * (c2 + v * (c3 + v * series)))
        row = max(min(np.int32(bin0 + bins * series), last_row), first_row)
        followed = (
            (share > zero)
            & (square > tiny)
            & (u > lowest)
            & (u < highest)
            & (t >= earliest)
            & (t < latest)
        )
        frame = first_frame + np.int32(np.floor(t))
        # int32, because numba's own 64 bits would take half as many points at a time
        cell[i] = np.int32(row * n_frames) + frame if followed else nowhere
        weight[i] = share * each
        power[i] = square * weight[i]


@compiled(nogil=True, fastmath=True, error_model="numpy")
def sum_points(transformed, length, lines, step, n_samples, hop, energy):
    """Interpolate the lines between the nodes, add their energy where they stand.

    A point stands for `step` samples around it. Where a frame ends among them it gets its share,
    so that every frame gets as many samples of a line as it has.

    Parameters
    ----------
    transformed, length, lines, step, n_samples, hop : see `bin_points`
    energy : float32 array, shape (bins, frames)
        Added to, in units of |M xi|^2.
    """
    frames = energy.shape[1]
    power = np.empty(length, np.float32)
    for k in range(lines.shape[0]):
        line = lines[k]
        if line.row < 0:
            continue
        below, above = transformed[line.node], transformed[line.node + 1]
        xb, eb, xa, ea = below[0], below[1], above[0], above[1]
        xi_xb, xi_xa, xi_eb, xi_ea = line.xi_weights
        for i in range(length):
            re, im = 2 * i, 2 * i + 1
            xr = xi_xb * xb[re] + xi_xa * xa[re] + xi_eb * eb[re] + xi_ea * ea[re]
            xm = xi_xb * xb[im] + xi_xa * xa[im] + xi_eb * eb[im] + xi_ea * ea[im]
            power[i] = xr * xr + xm * xm
        # Point i stands for [i, i + 1) in units of `step` from half a step before the first one.
        stop = 0.0
        for frame in range(frames):
            start, stop = stop, ((min((frame + 1) * hop, n_samples) - 1.5) / step + 0.5)
            stop = min(max(stop, start), float(length))
            first, last = int(start), int(stop)
            total = np.float32(0)
            for i in range(first, min(last, length)):
                total += power[i]
            total -= np.float32(start - first) * power[min(first, length - 1)]
            if last < length:
                total += np.float32(stop - last) * power[last]
            energy[line.row, frame] += np.float32(step) * total
