"""The algorithm itself in a few lines of NumPy, which the exact form equals."""

import numpy as np
import pytest
import torch

from spectral_hyperresolution import LinearReassignment, signals


@pytest.mark.parametrize("threshold", [False, True])
def test_a_few_lines_of_numpy_are_the_exact_form(threshold):
    sample_rate, q, hop = 8000, 2.0, 80
    y = signals.bird(sample_rate, 0.3)
    transform = LinearReassignment(
        sample_rate,
        q=q,
        hop_length=hop,
        bins_per_octave=12,
        fmin=100,
        oversampling=6,
        exact=True,
        count_threshold=threshold,
    )
    fmin, fmax, lines = 100, sample_rate / 2, transform.settings[0].scan_lines() * sample_rate
    start = -1 / sample_rate  # the authors' first sample has the time 1
    time_edges = start + np.arange(len(transform.times(len(y))) + 1) * hop / sample_rate

    f = np.fft.fftfreq(len(y), 1 / sample_rate)
    f[len(y) // 2] = abs(f[len(y) // 2])  # the Nyquist bin is a positive frequency here
    X, n = np.fft.fft(y), np.arange(len(y)) / sample_rate
    points = []
    for f0 in lines:
        sigma = f0 / (2 * np.pi * q)
        G = np.exp(-((f - f0) ** 2) / (2 * sigma**2))
        xi, eta = np.fft.ifft(G * X), np.fft.ifft(-(f - f0) / sigma * G * X)
        m = eta / xi
        t, fr = n + m.imag / (2 * np.pi * sigma), f0 - sigma * m.real
        keep = (abs(m) < 0.5) & (fmin < fr) & (fr < fmax) & (t >= 0) & (t < n[-1])
        points.append([fr[keep], t[keep], abs(xi[keep]) ** 2])
    fr, t, power = np.concatenate(points, axis=1)
    edges = [transform.frequency_edges, time_edges]
    picture = np.histogram2d(fr, t, edges, weights=power)[0]
    count = np.histogram2d(fr, t, edges)[0]
    if threshold:
        picture[count < np.sqrt(count.max())] = 0

    exact = transform(torch.from_numpy(y)).numpy()
    assert exact.shape == picture.shape
    assert np.abs(exact - picture).max() < 1e-9 * picture.max()
