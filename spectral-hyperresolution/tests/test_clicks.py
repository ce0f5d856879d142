"""The fast form against the exact one on what is hard for it: clicks, steps, very small q."""

import numpy as np
import pytest
from hyperresolution_helpers import cosine
from hypothesis import example, given, settings
from hypothesis import strategies as st

from spectral_hyperresolution import reassigned_spectrogram, signals
from spectral_hyperresolution.analysis import histograms, make_analysis

# An odd hop, so that no sample lies on the edge of two frames, where rounding would decide.
GRID = {"sr": 1.0, "hop_length": 51, "bins_per_octave": 10, "oversampling": 6, "fmin": 0.005}


def forms(y: np.ndarray, q: float, **changes) -> tuple[np.ndarray, np.ndarray]:
    options = {**GRID, "q": q, "count_threshold": False, **changes}
    return (
        reassigned_spectrogram(y, **options),
        reassigned_spectrogram(y, **options, exact=True),
    )


def sparse_clicks(n: int, how_many: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    y = np.zeros(n)
    y[rng.integers(0, n, how_many)] = rng.standard_normal(how_many)
    return y


def steps(n: int, how_many: int, seed: int) -> np.ndarray:
    y = np.cumsum(sparse_clicks(n, how_many, seed))
    return y - y.mean()


def noise(n: int, how_many: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


def glides(n: int, how_many: int, seed: int) -> np.ndarray:
    start, stop = np.random.default_rng(seed).uniform(0.006, 0.45, 2)
    return signals.chirp(1.0, n, start, stop)


@given(
    make_signal=st.sampled_from([sparse_clicks, steps, noise, glides]),
    n=st.integers(1500, 2600),
    how_many=st.integers(2, 30),
    q=st.sampled_from([0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0]),
    seed=st.integers(0, 99),
)
@example(make_signal=sparse_clicks, n=10_007, how_many=40, q=0.5, seed=0)  # a prime: 0.948 once
@settings(max_examples=20, deadline=None, derandomize=True)
def test_fast_form_is_close_to_the_exact_form_on_drawn_signals(make_signal, n, how_many, q, seed):
    fast, exact = forms(make_signal(n, how_many, seed), q)
    if exact.max() > 0:
        assert cosine(fast, exact) > (0.998 if q >= 0.5 else 0.99)


@pytest.mark.parametrize("q", [0.25, 0.5, 1.0, 4.0])
def test_threshold_on_clicks_differs_only_next_to_the_limit(q):
    """Bins whose count is a tenth away from the limit are in both pictures or in neither."""
    y = sparse_clicks(2000, 12, 1)
    names = {"hop": "hop_length", "sample_rate": "sr"}
    found = {}
    for exact in (False, True):
        analysis = make_analysis(
            1.0, q, 51, 10, 0.005, None, 6, exact, True, True, "log", None, True, None, 1.0, names
        )
        ((energy, count),) = histograms(y, analysis)
        found[exact] = energy, count / np.sqrt(count.max())
    (fast, fast_count), (exact, exact_count) = found[False], found[True]
    clear = np.abs(exact_count - 1) > 0.1
    kept = (fast_count >= 1) & clear, (exact_count >= 1) & clear
    assert cosine(fast * kept[0], exact * kept[1]) > 0.998


def test_digital_silence_is_not_counted():
    """Rounding noise between clicks must not decide which bins the threshold keeps."""
    y = sparse_clicks(3000, 4, 2)
    options = {**GRID, "q": 1.0, "exact": True}
    double = reassigned_spectrogram(y, **options)
    single = reassigned_spectrogram(y.astype(np.float32), **options)
    assert cosine(single, double) > 0.9999
    assert np.mean((single > 0) != (double > 0)) < 1e-3
