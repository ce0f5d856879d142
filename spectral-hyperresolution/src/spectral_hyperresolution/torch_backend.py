"""Both forms in batched torch operations, for GPUs; the same numbers as the compiled loops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from .analysis import Analysis
from .grid import MAX_DISPLACEMENT, Settings
from .kernels import EDGE
from .plan import LINE, Batch, Plan, make_plan

# Points that are in work at one time; some 100 bytes each.
CHUNK_POINTS = 1 << 24

# Added to squared magnitudes before a division by them.
TINY = 1e-30


def histograms(
    x: torch.Tensor, settings: Sequence[Settings], analysis: Analysis, silence: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Energy (float64) and count for each of several settings, (batch, frequency, time) each.

    Parameters
    ----------
    x : tensor, shape (batch, N), float32 or float64
    settings : sequence of Settings
    analysis : Analysis
        Says which form, and its accuracy.
    silence : float
        Amplitude relative to the loudest sample below which a point is not followed.
    """
    # A power of two scales without rounding, and no square over- or underflows on the way.
    peak, exponent = torch.frexp(x.abs().amax(-1, keepdim=True))
    x = torch.ldexp(x.double(), -exponent).to(x.dtype)
    if analysis.exact:
        found = [exact_histograms(x, one, silence=silence * peak) for one in settings]
    else:
        found = fast_histograms(x, settings, analysis.accuracy, silence * peak)
    scale = torch.ldexp(torch.ones_like(peak, dtype=torch.float64), 2 * exponent)[..., None]
    return [(energy * scale, count) for energy, count in found]


def exact_histograms(
    x: torch.Tensor,
    settings: Settings,
    chunks: int | None = None,
    silence: torch.Tensor | float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy and count of every point of every scan line.

    Parameters
    ----------
    x : tensor, shape (batch, N), float32 or float64
        Its dtype is the precision of the transforms.
    settings : Settings
    chunks : int, optional
        Number of parts that the scan lines are cut into; by default by `CHUNK_POINTS`.
    silence : float or tensor, shape (batch, 1)
        See `exact.histograms`.

    Returns
    -------
    energy, count : float64 tensors, shape (batch, n_bins, frames), low frequencies first
    """
    n_signals, n_samples = x.shape
    device = x.device
    half = n_samples // 2
    spectrum = torch.fft.fft(x)
    f = torch.arange(n_samples, device=device, dtype=torch.float64)
    f = torch.where(f > half, f - n_samples, f) / n_samples
    lines = torch.as_tensor(settings.scan_lines(), device=device)
    frames = settings.frames(n_samples)
    energy = torch.zeros(n_signals, settings.n_bins * frames, dtype=torch.float64, device=device)
    count = torch.zeros_like(energy)
    signal = torch.arange(n_signals, device=device)[:, None, None] * energy.shape[1]
    least = torch.as_tensor(silence, device=device, dtype=torch.float64).square()[..., None]
    n = torch.arange(1, n_samples + 1, device=device, dtype=torch.float64)
    shape = (n_signals, settings.n_bins, frames)
    if chunks is None:
        chunks = math.ceil(len(lines) * n_signals * n_samples / CHUNK_POINTS)
    for f0 in torch.chunk(lines, min(chunks, len(lines))):
        f0 = f0[:, None]
        sigma = f0 / (2 * math.pi * settings.q)
        u = (f - f0) / sigma
        window = torch.exp(-0.5 * u * u)
        xi = torch.fft.ifft(spectrum[:, None] * window.to(x.dtype))
        eta = torch.fft.ifft(spectrum[:, None] * (-u * window).to(x.dtype))
        xi, eta = xi.to(torch.complex128), eta.to(torch.complex128)
        power = xi.real**2 + xi.imag**2
        if not settings.reassign:
            rows = torch.as_tensor(settings.rows(f0[:, 0].cpu().numpy()), device=device)
            add_standing(power, rows, n_samples, settings, energy.view(shape))
            continue
        followed = eta.real**2 + eta.imag**2 + least < MAX_DISPLACEMENT**2 * power
        m = eta * xi.conj() / torch.where(followed, power, 1.0)
        frequency = f0 - sigma * m.real
        time = n + m.imag / (2 * math.pi * sigma)
        followed &= (frequency > settings.fmin) & (frequency < settings.fmax)
        followed &= (time >= 1) & (time < settings.end(n_samples))
        where = bins_of(frequency.clamp(settings.fmin, settings.fmax), settings) * frames
        where = (where + torch.floor((time + settings.frame_shift) / settings.hop).long() + signal)[
            followed
        ]
        power = power[followed]
        energy.view(-1).index_add_(0, where, power)
        count.view(-1).index_add_(0, where, torch.ones_like(power))
    return energy.view(shape), count.view(shape)


def bins_of(frequency: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Index of the bin, counted from the lowest, of frequencies in cycles per sample."""
    kind, a, b, c = settings.axis_parameters()
    if kind == 0:
        index = c - torch.floor(-a * torch.log2(frequency / b) + 0.5)
    elif kind == 1:
        index = torch.floor((torch.log1p(frequency * a) - b) * c)
    else:
        index = torch.floor((frequency - a) * b)
    return index.long().clamp(0, settings.n_bins - 1)


@lru_cache(maxsize=4)
def plan_tensors(n_samples: int, settings: Settings, accuracy: float, device: torch.device):
    """The plan and, for each batch of it, its arrays on the device."""
    plan = make_plan(n_samples, settings, accuracy)
    on_device = []
    for batch in plan.batches:
        nodes = batch.nodes
        low = torch.as_tensor(nodes.low, device=device)
        width = torch.as_tensor(nodes.widths, device=device)
        node = torch.repeat_interleave(torch.arange(len(low), device=device), width)
        first = torch.cumsum(width, 0) - width
        k = torch.arange(len(node), device=device) - first[node] + low[node]
        slope = torch.as_tensor(batch.slope, device=device)[node]
        u = slope * k - torch.as_tensor(batch.offset, device=device)[node]
        window = torch.as_tensor(batch.window, device=device)
        lines = {
            name: torch.as_tensor(np.ascontiguousarray(batch.lines[name]), device=device)
            for name in LINE.names
        }
        on_device.append(
            {
                "bin": k.abs(),
                "negative": k < 0,
                "target": node * 2 * batch.length + k % batch.length,
                "window": window,
                "derivative": -u.float() * window,
                "lines": lines,
            }
        )
    return plan, on_device


def fast_histograms(
    x: torch.Tensor, settings: Sequence[Settings], accuracy: float, silence: torch.Tensor
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Energy and count of each of several settings, from one transform of the signals.

    Parameters
    ----------
    x : tensor, shape (batch, N)
    settings : sequence of Settings
    accuracy : float
        See `LinearReassignment`.
    silence : tensor, shape (batch, 1)
        See `exact.histograms`.

    Returns
    -------
    list of (energy, count)
        float64 and float32 tensors, shape (batch, n_bins, frames), low frequencies first.
    """
    n_samples = x.shape[-1]
    spectrum = torch.fft.rfft(x.double())
    peak = spectrum.abs().amax(-1, keepdim=True)
    peak = torch.where(peak > 0, peak, 1.0)
    normal = (spectrum / peak).to(torch.complex64)
    loudness = ((peak / n_samples) ** 2)[..., None]
    least = ((silence * n_samples / peak) ** 2).float()[..., None]
    results = []
    for one in settings:
        plan, batches = plan_tensors(n_samples, one, accuracy, x.device)
        shape = (len(x), one.n_bins, plan.n_frames)
        energy = torch.zeros(shape, device=x.device)
        count = torch.zeros_like(energy)
        for batch, arrays in zip(plan.batches, batches, strict=True):
            n_nodes = len(batch.nodes.f0)
            signals = max(1, CHUNK_POINTS // (batch.length * n_nodes))
            for start in range(0, len(x), signals):
                part = slice(start, start + signals)
                bands = node_bands(normal[part], batch.length, n_nodes, arrays)
                lines = arrays["lines"]
                add_points(bands, plan, batch, lines, least[part], energy[part], count[part])
        results.append((energy * loudness, count))
    return results


def node_bands(
    spectrum: torch.Tensor, length: int, n_nodes: int, arrays: dict[str, torch.Tensor]
) -> torch.Tensor:
    """xi and eta of the nodes at M points, float32, shape (batch, nodes, 2, M, 2)."""
    values = spectrum[:, arrays["bin"]]
    values = torch.where(arrays["negative"], values.conj(), values)
    bands = spectrum.new_zeros(len(spectrum), n_nodes * 2 * length)
    bands[:, arrays["target"]] = arrays["window"] * values
    bands[:, arrays["target"] + length] = arrays["derivative"] * values
    bands = torch.fft.ifft(bands.view(len(spectrum), n_nodes, 2, length), norm="forward")
    return torch.view_as_real(bands)


def add_points(
    bands: torch.Tensor,
    plan: Plan,
    batch: Batch,
    lines: dict[str, torch.Tensor],
    least: torch.Tensor,
    energy: torch.Tensor,
    count: torch.Tensor,
) -> None:
    """Interpolate the lines between the nodes and add their points to the histograms.

    The same steps as `kernels.bin_points`, where they are explained.
    """
    settings, device = plan.settings, bands.device
    hop, shift = settings.hop, settings.frame_shift
    step = plan.n_samples / batch.length
    time = 1 + step * torch.arange(batch.length, device=device, dtype=torch.float64)
    sample = (time - torch.floor(time)).float() + EDGE
    frame0 = torch.floor((time + shift) / hop)
    # Frames are counted from each point's own, so that single precision is enough.
    origin = ((time + shift) / hop - frame0).float()
    earliest = ((1 + shift) / hop - frame0).float()
    latest = ((settings.end(plan.n_samples) + shift) / hop - frame0).float()
    frame0 = frame0.long()
    signal = torch.arange(len(bands), device=device)[:, None, None] * energy[0].numel()
    c = [float(value) for value in plan.log_coefficients]
    at_a_time = max(1, CHUNK_POINTS // (len(bands) * batch.length))
    for start in range(0, len(batch.lines), at_a_time):
        line = {name: value[start : start + at_a_time] for name, value in lines.items()}
        node = line["node"]
        ends = (bands[:, node, 0], bands[:, node + 1, 0], bands[:, node, 1], bands[:, node + 1, 1])

        def mix(name: str, line=line, ends=ends) -> torch.Tensor:
            weights = line[name].T[:, :, None, None]
            return sum(weight * end for weight, end in zip(weights, ends, strict=True))

        x = mix("xi_weights")
        if not settings.reassign:
            rows = line["row"]
            rows = torch.where(rows < 0, rows, rows + batch.first_bin)
            power = batch.lines_each * x.square().sum(-1)
            add_standing(power, rows, plan.n_samples, settings, energy)
            continue
        e = mix("eta_weights")
        (xr, xi), (er, ei) = x.unbind(-1), e.unbind(-1)
        power = xr * xr + xi * xi
        inverse = 1 / (power + TINY)
        square = (er * er + ei * ei + least) * inverse
        # the samples that a point stands for, up to where |m| passes 1/2
        inner = MAX_DISPLACEMENT - square.sqrt()
        earlier, later = (reach_towards(inner, inner.roll(by, -1)) for by in (1, -1))
        each = torch.floor(sample + later * step) - torch.floor(sample - earlier * step)
        each = each * batch.lines_each

        def of(name: str, line=line) -> torch.Tensor:
            return line[name][:, None]

        u = -of("relative_sigma") * (er * xr + ei * xi) * inverse
        t = origin + of("frames") * (ei * xr - er * xi) * inverse
        v = of("scale") * u
        series = torch.full_like(v, c[-1])
        for coefficient in c[-2::-1]:
            series = coefficient + v * series
        followed = square < MAX_DISPLACEMENT**2
        followed &= (u > of("lowest")) & (u < of("highest")) & (t >= earliest) & (t < latest)
        row = (of("bin") + of("bins") * v * series).long().clamp(max=batch.n_bins - 1)
        row = row + batch.first_bin
        where = row * plan.n_frames + frame0 + torch.floor(t).long() + signal
        where, each, power = where[followed], each[followed], power[followed]
        energy.view(-1).index_add_(0, where, power * each)
        count.view(-1).index_add_(0, where, each)


def reach_towards(inner: torch.Tensor, neighbour: torch.Tensor) -> torch.Tensor:
    """How far a followed point stands towards a neighbour, in steps: half-way, or to |m| = 1/2."""
    gap = torch.where(neighbour > 0, 1.0, inner - neighbour)
    return torch.where(neighbour > 0, 0.5, inner / gap)


def add_standing(
    power: torch.Tensor,
    rows: torch.Tensor,
    n_samples: int,
    settings: Settings,
    energy: torch.Tensor,
) -> None:
    """Add points where their filters stand; see `kernels.sum_points`.

    Parameters
    ----------
    power : tensor, shape (batch, lines, points)
    rows : int64 tensor, shape (lines,)
        Bin of each line, negative for none.
    n_samples : int
    settings : Settings
    energy : tensor, shape (batch, bins, frames)
        Added to.
    """
    power, rows = power[:, rows >= 0], rows[rows >= 0]
    frames, points = energy.shape[-1], power.shape[-1]
    step = n_samples / points
    ends = torch.as_tensor(settings.frame_ends(n_samples), device=power.device)
    ends = (ends.double() - 1.5) / step + 0.5
    point = torch.arange(points, device=power.device, dtype=torch.float64)
    frame = torch.searchsorted(ends, point, right=True)
    share = (torch.cat((ends, ends[-1:]))[frame] - point).clamp(0, 1).to(power.dtype)
    by_frame = power.new_zeros(*power.shape[:2], frames + 2)  # the last two lie past the end
    by_frame.index_add_(-1, frame, power * share)
    by_frame.index_add_(-1, frame + 1, power * (1 - share))
    energy.index_add_(1, rows, step * by_frame[..., :frames])
