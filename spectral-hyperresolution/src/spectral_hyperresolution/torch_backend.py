"""Both forms in batched torch operations, for GPUs; the same numbers as the compiled loops."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch

from .grid import MAX_DISPLACEMENT, Settings
from .plan import LINE, Batch, Plan, make_plan, pad

# Points that are in work at one time; some 100 bytes each.
CHUNK_POINTS = 1 << 24

# Below this a squared magnitude is silence: the smallest that float32 can divide by.
TINY = 1e-37


def exact_histograms(
    x: torch.Tensor, settings: Settings, chunks: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Energy and count of every point of every scan line.

    Parameters
    ----------
    x : tensor, shape (batch, N), float32 or float64
        Its dtype is the precision of the transforms.
    settings : Settings
    chunks : int, optional
        Number of parts that the scan lines are cut into; by default by `CHUNK_POINTS`.

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
            add_standing(power, rows, n_samples, settings.hop, energy.view(shape))
            continue
        followed = eta.real**2 + eta.imag**2 < MAX_DISPLACEMENT**2 * power
        m = eta * xi.conj() / torch.where(followed, power, 1.0)
        frequency = f0 - sigma * m.real
        time = n + m.imag / (2 * math.pi * sigma)
        followed &= (frequency > settings.fmin) & (frequency < settings.fmax)
        followed &= (time >= 1) & (time < n_samples)
        where = bins_of(frequency.clamp(settings.fmin, settings.fmax), settings) * frames
        where = (where + torch.floor(time / settings.hop).long() + signal)[followed]
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
        low = torch.as_tensor(batch.nodes.low, device=device)
        width = torch.as_tensor(batch.nodes.widths, device=device)
        node = torch.repeat_interleave(torch.arange(len(low), device=device), width)
        first = torch.cumsum(width, 0) - width
        k = torch.arange(len(node), device=device) - first[node] + low[node]
        slope = torch.as_tensor(batch.slope, device=device)[node]
        u = slope * k - torch.as_tensor(batch.offset, device=device)[node]
        window = torch.as_tensor(batch.window, device=device)
        on_device.append(
            {
                "bin": k.abs(),
                "negative": k < 0,
                "target": node * 2 * batch.length + k % batch.length,
                "window": window,
                "derivative": -u.float() * window,
                "lines": {
                    name: torch.as_tensor(np.ascontiguousarray(batch.lines[name]), device=device)
                    for name in LINE.names
                },
            }
        )
    return plan, on_device


def fast_histograms(
    x: torch.Tensor, settings: list[Settings], accuracy: float
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Energy and count of each of several settings, from one transform of the signals.

    Parameters
    ----------
    x : tensor, shape (batch, N)
    settings : list of Settings
    accuracy : float
        See `LinearReassignment`.

    Returns
    -------
    list of (energy, count), shape (batch, n_bins, frames), low frequencies first; count is float32,
    energy float64 where `x` is, else float32
    """
    planned = [plan_tensors(x.shape[-1], one, accuracy, x.device) for one in settings]
    periods = {batch.period for plan, _ in planned for batch in plan.batches}
    spectra = {n: torch.fft.rfft(pad(x, n).double()) / n for n in periods}
    peak = torch.stack([spectrum.abs().amax(-1) for spectrum in spectra.values()]).amax(0)[:, None]
    unit = torch.where(peak > 0, peak, 1.0)
    spectra = {n: (spectrum / unit).to(torch.complex64) for n, spectrum in spectra.items()}
    loudness = (peak**2).to(torch.float64 if x.dtype == torch.float64 else torch.float32)[..., None]
    results = []
    for one, (plan, batches) in zip(settings, planned, strict=True):
        shape = (len(x), one.n_bins, plan.n_frames)
        energy = torch.zeros(shape, device=x.device)
        count = torch.zeros_like(energy)
        for batch, arrays in zip(plan.batches, batches, strict=True):
            n_nodes = len(batch.nodes)
            signals = max(1, CHUNK_POINTS // (batch.length * n_nodes))
            for start in range(0, len(x), signals):
                part = slice(start, start + signals)
                spectrum = spectra[batch.period][part]
                bands = node_bands(spectrum, batch.length, n_nodes, arrays)
                bands = bands[..., : plan.points(batch), :]
                add_points(bands, plan, batch, arrays["lines"], energy[part], count[part])
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
    energy: torch.Tensor,
    count: torch.Tensor,
) -> None:
    """Interpolate the lines between the nodes and add their points to the histograms.

    The steps are those of `kernels.reassign`.
    """
    settings, device = plan.settings, bands.device
    step, points = batch.period / batch.length, plan.points(batch)
    each = step * batch.lines_each
    position = (1 + step * torch.arange(points, device=device).double()) / settings.hop
    frame0 = torch.floor(position)
    # Frames are counted from each point's own, so that single precision is enough.
    origin = (position - frame0).float()
    earliest = (1 / settings.hop - frame0).float()
    latest = (plan.n_samples / settings.hop - frame0).float()
    frame0 = frame0.long()
    signal = torch.arange(len(bands), device=device)[:, None, None] * energy[0].numel()
    c = [float(value) for value in plan.log_coefficients]
    at_a_time = max(1, CHUNK_POINTS // (len(bands) * points))
    for start in range(0, len(batch.lines), at_a_time):
        line = {name: values[start : start + at_a_time] for name, values in lines.items()}
        node = line["node"]
        xb, eb = bands[:, node, 0], bands[:, node, 1]
        xa, ea = bands[:, node + 1, 0], bands[:, node + 1, 1]
        w = line["xi_weights"].T[:, :, None, None]
        x = w[0] * xb + w[1] * xa + w[2] * eb + w[3] * ea
        if not settings.reassign:
            rows = line["row"]
            rows = torch.where(rows < 0, rows, rows + batch.first_bin)
            add_standing(x.square().sum(-1), rows, plan.n_samples, settings.hop, energy)
            continue
        w = line["eta_weights"].T[:, :, None, None]
        e = w[0] * xb + w[1] * xa + w[2] * eb + w[3] * ea
        (xr, xm), (er, em) = x.unbind(-1), e.unbind(-1)
        square = xr * xr + xm * xm
        inverse = 1 / (square + TINY)
        m_re, m_im = (er * xr + em * xm) * inverse, (em * xr - er * xm) * inverse
        ramp = m_im.abs() * line["time_ramp"][:, None] + m_re.abs() * line["line_ramp"][:, None]
        within = MAX_DISPLACEMENT**2 - m_re.square() - m_im.square()
        weight = each * (0.5 + within / (ramp + TINY)).clamp(max=1)
        u = -line["relative_sigma"][:, None] * m_re
        t = origin + line["frames"][:, None] * m_im
        v = line["scale"][:, None] * u
        series = torch.full_like(v, c[-1])
        for coefficient in c[-2::-1]:
            series = coefficient + v * series
        followed = (weight > 0) & (square > TINY)
        followed &= (u > line["lowest"][:, None]) & (u < line["highest"][:, None])
        followed &= (t >= earliest) & (t < latest)
        row = line["bin"][:, None] + line["bins"][:, None] * v * series
        row = batch.first_bin + row.long().clamp(0, batch.n_bins - 1)
        where = row * plan.n_frames + frame0 + torch.floor(t).long() + signal
        where, weight = where[followed], weight[followed]
        energy.view(-1).index_add_(0, where, square[followed] * weight)
        count.view(-1).index_add_(0, where, weight)


def add_standing(
    power: torch.Tensor, rows: torch.Tensor, n_samples: int, hop: int, energy: torch.Tensor
) -> None:
    """Add points where their filters stand; see `kernels.sum_points`.

    Parameters
    ----------
    power : tensor, shape (batch, lines, points)
    rows : int64 tensor, shape (lines,)
        Bin of each line, negative for none.
    n_samples, hop : int
    energy : tensor, shape (batch, bins, frames)
        Added to.
    """
    power, rows = power[:, rows >= 0], rows[rows >= 0]
    frames, points = energy.shape[-1], power.shape[-1]
    step = n_samples / points
    ends = torch.arange(1, frames + 1, device=power.device, dtype=torch.float64) * hop
    ends = (ends.clamp(max=n_samples) - 1.5) / step + 0.5
    point = torch.arange(points, device=power.device, dtype=torch.float64)
    frame = torch.searchsorted(ends, point, right=True)
    share = (torch.cat((ends, ends[-1:]))[frame] - point).clamp(0, 1).to(power.dtype)
    by_frame = power.new_zeros(*power.shape[:2], frames + 2)  # the last two lie past the end
    by_frame.index_add_(-1, frame, power * share)
    by_frame.index_add_(-1, frame + 1, power * (1 - share))
    energy.index_add_(1, rows, step * by_frame[..., :frames])
