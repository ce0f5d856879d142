"""The exact form in batched torch operations, for devices other than the CPU."""

from __future__ import annotations

import math

import torch

from .settings import MAX_DISPLACEMENT, Settings

# Points that are in work at one time; some 100 bytes each.
CHUNK_POINTS = 1 << 24


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
    kind, a, b, c = settings.axis_parameters()
    spectrum = torch.fft.fft(x)
    f = torch.arange(n_samples, device=device, dtype=torch.float64)
    f = torch.where(f > half, f - n_samples, f) / n_samples
    lines = torch.as_tensor(settings.scan_lines(), device=device)
    frames = settings.frames(n_samples)
    energy = torch.zeros(n_signals, settings.n_rows * frames, dtype=torch.float64, device=device)
    count = torch.zeros_like(energy)
    signal = torch.arange(n_signals, device=device)[:, None, None] * energy.shape[1]
    n = torch.arange(1, n_samples + 1, device=device, dtype=torch.float64)
    shape = (n_signals, settings.n_rows, frames)
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
            # The last sample is left out, as are points that are reassigned to it.
            by_frame = power.new_zeros(*power.shape[:2], frames)
            frame = torch.arange(1, n_samples, device=device) // settings.hop_length
            by_frame.index_add_(-1, frame, power[..., :-1])
            energy.view(shape).index_add_(1, rows[rows >= 0], by_frame[:, rows >= 0])
            continue
        followed = eta.real**2 + eta.imag**2 < MAX_DISPLACEMENT**2 * power
        m = eta * xi.conj() / torch.where(followed, power, 1.0)
        frequency = f0 - sigma * m.real
        time = n + m.imag / (2 * math.pi * sigma)
        followed &= (frequency > settings.low) & (frequency < settings.high)
        followed &= (time >= 1) & (time < n_samples)
        frequency = frequency.clamp(settings.low, settings.high)
        if kind == 0:
            row = c - torch.floor(-a * torch.log2(frequency / b) + 0.5)
        else:
            place = frequency - a if kind == 2 else torch.log1p(frequency * a) - b
            row = torch.floor(place * (b if kind == 2 else c))
        where = row.long().clamp(0, settings.n_rows - 1) * frames
        where = (where + torch.floor(time / settings.hop_length).long() + signal)[followed]
        power = power[followed]
        energy.view(-1).index_add_(0, where, power)
        count.view(-1).index_add_(0, where, torch.ones_like(power))
    return energy.view(shape), count.view(shape)
