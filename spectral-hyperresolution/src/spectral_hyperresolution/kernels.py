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

from .settings import MAX_DISPLACEMENT


def compiled(**options) -> Callable:
    """``numba.njit`` that keeps its machine code on disk, where there is a place to keep it."""

    def decorate(function: Callable) -> Callable:
        try:
            dispatcher = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # neither beside the source nor in the user's own cache
            warnings.warn(
                "no writable folder for compiled code: every process compiles anew, in seconds; "
                "set NUMBA_CACHE_DIR to a writable folder to keep it",
                RuntimeWarning,
                stacklevel=2,
            )
            return numba.njit(**options)(function)
        cache = dispatcher._cache
        load = cache.load_overload

        def load_or_discard(*arguments):
            try:
                return load(*arguments)
            except Exception as error:  # whatever unpickling makes of a file that was cut short
                warnings.warn(
                    f"the compiled code in {cache.cache_path} is broken ({error!r}); it is thrown "
                    "away and compiled anew",
                    RuntimeWarning,
                    stacklevel=2,
                )
                cache.flush()
                return None

        cache.load_overload = load_or_discard
        return dispatcher

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
    spread = MAX_DISPLACEMENT / (2 * math.pi * q)
    low, high = np.clip([f0 * (1 - spread), f0 * (1 + spread)], fmin, fmax)
    first = [bin_of(f, *axis) - 1 for f in low]  # one bin of room for rounding
    last = [bin_of(f, *axis) + 1 for f in high]
    first, last = np.clip([first, last], 0, n_bins - 1)
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
            if not (er * er + eim * eim < MAX_DISPLACEMENT**2 * power):
                continue
            frequency = centre - sigma * (er * xr + eim * xim) / power
            time = n + 1 + time_scale * (eim * xr - er * xim) / power
            if fmin < frequency < fmax and 1 <= time < n_samples:
                row = bin_of(frequency, kind, a, b, c) - first[line]
                # time / hop + 1/2 rounded to the nearest, counted from 1, is this counted from 0
                frame = math.floor(time / hop)
                energy[line, row, frame] += power
                count[line, row, frame] += 1


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
            # signed frequencies: a wide Gaussian at a small q reaches below zero
            value = g * (spectrum[k] if k >= 0 else np.conj(spectrum[-k]))
            xi[line, k % n_samples] = value
            eta[line, k % n_samples] = -u * value


@compiled(nogil=True, fastmath=True, error_model="numpy")
def turn_spectrum(spectrum, first, fraction, turned):
    """The spectrum of the signal `fraction` of a transform's first point later: bins from `first`.

    Bin k is multiplied with exp(2 pi i k fraction); negative bins are negative frequencies.
    """
    block = 128
    phases = np.empty(block, np.complex64)
    for i in range(block):
        phases[i] = np.complex64(np.exp(2j * math.pi * (i * fraction)))
    for start in range(0, turned.shape[0], block):
        whole = (first + start) * fraction
        base = np.complex64(np.exp(2j * math.pi * (whole - math.floor(whole))))
        stop = min(start + block, turned.shape[0])
        negative = min(max(-first, start), stop)
        for i in range(start, negative):
            turned[i] = np.conj(spectrum[-(first + i)]) * (base * phases[i - start])
        from_bins = spectrum[first + negative : first + stop]
        here, to_bins = phases[negative - start : stop - start], turned[negative:stop]
        for i in range(stop - negative):
            to_bins[i] = from_bins[i] * (base * here[i])


@compiled(nogil=True, fastmath=True, error_model="numpy")
def fill_bands(spectrum, first_turn, turns, low, high, slope, offset, window, out):
    """Lay G X and G' X of each node's band into zeroed rows, bin k at index k mod P, once a turn.

    Parameters
    ----------
    spectrum : complex64 array, shape (N // 2 + 1,)
    first_turn, turns, low, high, slope, offset, window : see `plan.Batch`
    out : float32 array, shape (turns here, nodes, 2, 2 P)
        Overwritten, real and imaginary parts alternating.
    """
    here, nodes, _, length = out.shape
    length //= 2
    first = low.min()
    turned = np.empty(max(high.max() - first + 1, 0), np.complex64)
    parts = turned.view(np.float32)
    for turn in range(here):
        turn_spectrum(spectrum, first, (first_turn + turn) / (turns * length), turned)
        position = 0
        for node in range(nodes):
            xi, eta = out[turn, node, 0], out[turn, node, 1]
            out[turn, node] = 0
            k = low[node]
            while k <= high[node]:  # one run of bins without a wrap at a time
                index = k % length
                run = min(high[node] - k + 1, length - index)
                start = np.float32(slope[node] * k - offset[node])
                step = np.float32(slope[node])
                from_run = parts[2 * (k - first) : 2 * (k - first + run)]
                weights = window[position : position + run]
                part = slice(2 * index, 2 * (index + run))
                to_xi, to_eta = xi[part], eta[part]
                for i in range(run):
                    u = start + step * np.float32(np.int32(i))
                    re, im = weights[i] * from_run[2 * i], weights[i] * from_run[2 * i + 1]
                    to_xi[2 * i] += re
                    to_xi[2 * i + 1] += im
                    to_eta[2 * i] -= u * re
                    to_eta[2 * i + 1] -= u * im
                position += run
                k += run


# Points that are reassigned before any of them is added to the histogram: their bins and energies
# stay in the first-level cache, and the arithmetic runs on many points at a time.
TILE = 512


@compiled(nogil=True, fastmath=True, error_model="numpy")
def split_tile(transformed, start, stop, halfway, rows):
    """Real and imaginary parts of a tile of the nodes apart, and the half-way places.

    Parameters
    ----------
    transformed : float32 array, shape (nodes, 2, 2 P)
    halfway : float32 array, shape (2, 8), see `plan.halfway_weights`
    rows : float32 array, shape (2 nodes, 4, TILE)
        Re xi, Im xi, Re eta, Im eta of node i at 2 i, half-way to the next one at 2 i + 1. Zeroed
        up to a whole vector of points.
    """
    nodes = transformed.shape[0]
    n = stop - start
    padded = (n + 15) // 16 * 16
    for node in range(nodes):
        for part in range(2):
            re, im = rows[2 * node, 2 * part], rows[2 * node, 2 * part + 1]
            values = transformed[node, part, 2 * start : 2 * stop]
            for i in range(n):
                re[i], im[i] = values[2 * i], values[2 * i + 1]
            re[n:padded] = 0
            im[n:padded] = 0
    a0, a1, a2, a3, a4, a5, a6, a7 = halfway[0]
    b0, b1, b2, b3, b4, b5, b6, b7 = halfway[1]
    for node in range(1, nodes - 2):
        for c in range(2):
            x0, e0 = rows[2 * node - 2, c], rows[2 * node - 2, c + 2]
            x1, e1 = rows[2 * node, c], rows[2 * node, c + 2]
            x2, e2 = rows[2 * node + 2, c], rows[2 * node + 2, c + 2]
            x3, e3 = rows[2 * node + 4, c], rows[2 * node + 4, c + 2]
            xi, eta = rows[2 * node + 1, c], rows[2 * node + 1, c + 2]
            for i in range(padded):
                s, t, u, v = x0[i], x1[i], x2[i], x3[i]
                e, f, g, h = e0[i], e1[i], e2[i], e3[i]
                xi[i] = a0 * s + a1 * t + a2 * u + a3 * v + a4 * e + a5 * f + a6 * g + a7 * h
                eta[i] = b0 * s + b1 * t + b2 * u + b3 * v + b4 * e + b5 * f + b6 * g + b7 * h
    return padded


@compiled(nogil=True, fastmath=True, error_model="numpy")
def add_points(
    transformed, first_turn, turns, of_turn, lines, halfway, log, step, n_samples, hop, each,
    reassigned, bins,
):  # fmt: skip
    """Interpolate the lines between the nodes, reassign their points, add them to a strip.

    Parameters
    ----------
    transformed : float32 array, shape (turns here, nodes, 2, 2 P)
        xi and eta of the nodes, real and imaginary parts alternating.
    first_turn, turns, of_turn, lines, halfway : see `plan.Batch`, `plan.Layout` and `plan.Plan`
    log : float32 array, shape (5,), see `plan.log_polynomial`
    step : float
        Samples between two points of a line.
    each : float
        Number of full-set points that each point stands for.
    reassigned : bool
        Or left where the filter stands.
    bins : float32 array, shape (bins, frames, 2)
        Energy and count, side by side so that one cache line holds both. Added to. Energy is in
        units of |P xi|^2.
    """
    here, nodes, _, length = transformed.shape
    n_rows, frames, _ = bins.shape
    flat_bins = bins.reshape(n_rows * frames, 2)
    rows = np.empty((2 * nodes, 4, TILE), np.float32)
    cell, power = np.empty(TILE, np.int32), np.empty(TILE, np.float32)
    weight, followed = np.empty(TILE, np.float32), np.empty(TILE, np.uint16)
    each = np.float32(each)
    for turn in range(here):
        first = (first_turn + turn) * step / turns  # sample of the first point, counted from 0
        length = min(transformed.shape[3] // 2, math.ceil((n_samples - first) / step - 1e-6))
        tiles = (length + TILE - 1) // TILE
        for tile in range(tiles):
            start, stop = tile * length // tiles, (tile + 1) * length // tiles
            n = split_tile(transformed[turn], start, stop, halfway, rows)
            time = 1 + first + start * step
            if not reassigned:
                low = time - 0.5 * step if tile else 0.5
                high = time + (stop - start - 0.5) * step if tile < tiles - 1 else n_samples - 0.5
                lines_here = lines[of_turn[turn] : of_turn[turn + 1]]
                stand(rows, stop - start, lines_here, low, high, step, time, hop, bins)
                continue
            for k in range(of_turn[turn], of_turn[turn + 1]):
                line = lines[k]
                reassign(
                    rows[line.node], rows[line.node + 1], line, log, n, time, step, turns,
                    n_samples, hop, n_rows, frames, each, cell, power, weight,
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
    below, above, line, log, n, time, step, turns, n_samples, hop, rows, frames, each, cell, power,
    weight,
):  # fmt: skip
    """Where the points of a tile of a line go, how many they are, and their |xi|^2.

    Where the edge |m| = 1/2 runs among the samples that a point stands for, it stands for a share
    of them. While a click passes, Im m changes by half of `time_ramp` from turn to turn, so |m|^2
    changes by the ramp times |Im m|.

    Parameters
    ----------
    below, above : float32 arrays, shape (4, TILE)
        Re xi, Im xi, Re eta, Im eta.
    line : record of `plan.LINE`
    n : int
        Points in the tile.
    time : float
        Of the first point, in samples, where the first sample's is 1.
    rows, frames : int
        Shape of the strip.
    cell : int32 array
        Overwritten: index into the flat strip, -1 for a point that is not followed.
    power, weight : float32 arrays
        Overwritten: weight is `each` or a share of it, power that times |xi|^2.
    """
    # Frames are counted from one before any that is reached, so that single precision is enough,
    # and truncation is the floor.
    xi_xb, xi_xa, xi_eb, xi_ea = line.xi_weights
    eta_xb, eta_xa, eta_eb, eta_ea = line.eta_weights
    frames_per_im, scale, bin0 = line.frames, line.scale, line.bin
    lowest, highest, time_ramp = line.lowest, line.highest, line.time_ramp
    first_frame = np.int32(math.floor(time / hop - frames_per_im))
    origin, frame_step = np.float32(time / hop - first_frame), np.float32(step / hop)
    earliest = np.float32(1 / hop - first_frame)
    latest = np.float32(n_samples / hop - first_frame)
    first_row, last_row = np.int32(0), np.int32(rows - 1)
    n_frames, nowhere = np.int32(frames), np.int32(-1)
    c1, c2, c3, c4, c5 = log[0], log[1], log[2], log[3], log[4]
    zero, half, one = np.float32(0), np.float32(0.5), np.float32(1)
    furthest = np.float32(MAX_DISPLACEMENT**2)
    tiny = np.float32(1e-37)
    xrb, xmb, erb, emb = below[0], below[1], below[2], below[3]
    xra, xma, era, ema = above[0], above[1], above[2], above[3]
    for i in range(n):
        # xi and eta of the line
        xb, xa, eb, ea = xrb[i], xra[i], erb[i], era[i]
        xr = xi_xb * xb + xi_xa * xa + xi_eb * eb + xi_ea * ea
        er = eta_xb * xb + eta_xa * xa + eta_eb * eb + eta_ea * ea
        xb, xa, eb, ea = xmb[i], xma[i], emb[i], ema[i]
        xm = xi_xb * xb + xi_xa * xa + xi_eb * eb + xi_ea * ea
        em = eta_xb * xb + eta_xa * xa + eta_eb * eb + eta_ea * ea
        # m = eta / xi, and how much of the point lies within |m| < 1/2
        square = xr * xr + xm * xm
        inverse = one / (square + tiny)
        m_re, m_im = (er * xr + em * xm) * inverse, (em * xr - er * xm) * inverse
        ramp = abs(m_im) * time_ramp + tiny
        share = min(half + (furthest - m_re * m_re - m_im * m_im) / ramp, one)
        # frame and row
        t = origin + frame_step * np.float32(np.int32(i)) + frames_per_im * m_im  # int32: see below
        v = scale * m_re
        series = v * (c1 + v * (c2 + v * (c3 + v * (c4 + v * c5))))
        row = max(min(np.int32(bin0 + series), last_row), first_row)
        kept = (
            (share > zero)
            & (square > tiny)
            & (m_re > lowest)
            & (m_re < highest)
            & (t >= earliest)
            & (t < latest)
        )
        # int32, because numba's own 64 bits would take half as many points at a time
        cell[i] = np.int32(row * n_frames) + (first_frame + np.int32(t)) if kept else nowhere
        weight[i] = share * each
        power[i] = square * weight[i]


@compiled(nogil=True, fastmath=True, error_model="numpy")
def stand(rows, n, lines, low, high, step, time, hop, bins):
    """Add the energy of a tile of all lines of a turn where they stand.

    A point stands for `step` samples around it. Where a frame ends among them each gets its share,
    so that every frame gets as many samples of a line as it has.

    Parameters
    ----------
    rows, n, lines, step, time, hop, bins : see `add_points` and `reassign`
    low, high : float
        First and last time, in samples, that points of this tile stand for.
    """
    most = n + int((n + 2) * step / hop) + 3  # a point may lie in several frames
    point, frame = np.empty(most, np.int32), np.empty(most, np.int32)
    share = np.empty(most, np.float32)
    pieces, now = 0, int((low + 0.5) / hop)
    for i in range(n):
        stop = min(time + (i + 0.5) * step, high) if i < n - 1 else high
        while low < stop:
            end = (now + 1) * hop - 0.5
            point[pieces], frame[pieces], share[pieces] = i, now, min(end, stop) - low
            pieces += 1
            low = min(end, stop)
            now += end <= stop
    power = np.zeros(n, np.float32)
    for k in range(lines.shape[0]):
        line = lines[k]
        below, above = rows[line.node], rows[line.node + 1]
        xb, xa, eb, ea = line.xi_weights
        for i in range(n):
            re = xb * below[0, i] + xa * above[0, i] + eb * below[2, i] + ea * above[2, i]
            im = xb * below[1, i] + xa * above[1, i] + eb * below[3, i] + ea * above[3, i]
            power[i] += re * re + im * im
        if k == lines.shape[0] - 1 or lines[k + 1].row != line.row:
            if line.row >= 0:
                for j in range(pieces):
                    bins[line.row, frame[j], 0] += share[j] * power[point[j]]
            power[:] = 0
