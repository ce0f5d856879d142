"""The yardstick: the formulas of Gardner & Magnasco (2006) written down directly, in float64."""

from __future__ import annotations

import math

import numpy as np


def linear_reassignment(
    x: np.ndarray,
    q: float,
    tdeci: int,
    over: int,
    noct: float,
    minf: float,
    maxf: float,
    threshold: bool = True,
    reassign: bool = True,
) -> np.ndarray:
    """Linear reassignment of `x`, shape (N,) or (N, C), in natural units.

    With ``reassign=False`` every point counts where its filter stands, at time n and frequency f0.

    Returns
    -------
    float64 array, shape (ceil(N / tdeci), ceil(noct log2(maxf / minf) + 1))
        Energy of the reassigned points; the first frequency bin is the highest.
    """
    x = np.asarray(x, dtype=np.float64)
    x = x[:, None] if x.ndim == 1 else x
    n_samples = len(x)
    n_frames = math.ceil(n_samples / tdeci)
    n_bins = math.ceil(-noct * math.log2(minf / maxf) + 1)
    f = np.arange(n_samples) / n_samples
    f[f > 0.5] -= 1
    spectra = np.fft.fft(x, axis=0).T
    n = np.arange(1, n_samples + 1)

    energy = np.zeros((n_frames, n_bins))
    count = np.zeros((n_frames, n_bins))
    for k in range(n_bins * over):
        f0 = minf * 2 ** (k / (over * noct))
        sigma = f0 / (2 * np.pi * q)
        window = np.exp(-((f - f0) ** 2) / (2 * sigma**2))
        derivative = -((f - f0) / sigma) * window
        for spectrum in spectra:
            xi = np.fft.ifft(window * spectrum)
            eta = np.fft.ifft(derivative * spectrum)
            with np.errstate(divide="ignore", invalid="ignore"):  # silence: 0 / 0 is not followed
                m = eta / xi
            t = n + m.imag / (2 * np.pi * sigma)
            fr = f0 - sigma * m.real
            keep = (np.abs(m) < 0.5) & (minf < fr) & (fr < maxf) & (t >= 1) & (t < n_samples)
            if not reassign:
                t, fr = n, np.full(n_samples, f0)
                keep = (n < n_samples) & (minf <= f0 < maxf)
            # Both arguments are positive, so adding a half and cutting rounds as MATLAB does.
            row = np.floor(t[keep] / tdeci + 1).astype(int) - 1
            column = np.floor(-noct * np.log2(fr[keep] / maxf) + 1.5).astype(int) - 1
            np.add.at(energy, (row, column), np.abs(xi[keep]) ** 2)
            np.add.at(count, (row, column), 1)
    if threshold and reassign:
        energy[count < math.sqrt(count.max())] = 0
    return energy
