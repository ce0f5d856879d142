"""The drop-in function against the plain implementation, and what it accepts and refuses."""

import importlib

import numpy as np
import pytest
import signals
import torch
from hyperresolution_helpers import SMALL, relative_error
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from yardstick import linear_reassignment

from spectral_hyperresolution import (
    Settings,
    exact,
    high_resolution_spectrogram,
    torch_backend,
)


@given(
    n=st.integers(64, 700),
    q=st.floats(0.3, 12),
    hop=st.integers(1, 300),
    low=st.floats(0.004, 0.2),
    octaves=st.floats(0.1, 5),
    seed=st.integers(0, 9),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_same_as_the_plain_implementation(n, q, hop, low, octaves, seed):
    # With a single bin in a band every sample reassigns exactly to itself, and rounding decides
    # whether the first one keeps its place at t = 1 or falls off the edge.
    assume(low * n > 2 * np.pi * q)
    x = np.random.default_rng(seed).standard_normal(n)
    grid = {"tdeci": hop, "over": 2, "noct": 9, "minf": low, "maxf": min(low * 2**octaves, 0.5)}
    expected = linear_reassignment(x, q, **grid)
    result = high_resolution_spectrogram(x, q, **grid, dtype=torch.float64).numpy()
    assert result.shape == expected.shape
    if expected.max() == 0:
        assert result.max() == 0
    else:
        assert relative_error(result, expected) < 1e-9


@pytest.mark.parametrize("name", sorted(signals.LIBRARY))
@pytest.mark.parametrize("q", [1, 8])
def test_named_signals(name, q):
    # Faint noise: where a pure signal is zero but for rounding, no two transforms agree on m.
    x = signals.LIBRARY[name](8000, 0.15) + signals.noise(8000, 0.15, amplitude=1e-3)
    expected = linear_reassignment(x, q, **SMALL)
    double = high_resolution_spectrogram(x, q, **SMALL, dtype=torch.float64)
    single = high_resolution_spectrogram(x.astype(np.float32), q, **SMALL)
    assert single.dtype == torch.float32
    assert double.dtype == torch.float64
    assert relative_error(double, expected) < 1e-9
    # In so short a clip one point that rounding moves over the edge of a bin is more than 1e-4.
    difference = np.abs(single.numpy() - expected) / expected.max()
    assert np.mean(difference > 1e-4) < 5e-3
    assert difference.max() < 5e-3


def test_channels_add_into_one_picture():
    x = np.random.default_rng(1).standard_normal((500, 3))
    expected = linear_reassignment(x, 2, **SMALL)
    result = high_resolution_spectrogram(x, 2, **SMALL, dtype=torch.float64)
    assert relative_error(result, expected) < 1e-9


def test_vector_column_numpy_and_torch_agree():
    x = np.random.default_rng(2).standard_normal(400)
    forms = x, x[:, None], torch.from_numpy(x), torch.from_numpy(x)[:, None], x[::-1][::-1]
    first, *others = [high_resolution_spectrogram(form, 2, **SMALL) for form in forms]
    assert all(torch.equal(other, first) for other in others)


@pytest.mark.parametrize(("axis", "n_bins"), [("log", None), ("mel", 20), ("linear", 30)])
@pytest.mark.parametrize("reassign", [True, False])
def test_batched_torch_operations_give_the_same_exact_numbers(axis, n_bins, reassign):
    x = np.random.default_rng(3).standard_normal((2, 501))
    one = Settings(
        8000.0, 1.5, 20, 12, 160, None, 3, True, reassign, axis, n_bins, count_threshold=False
    )
    energy, count = exact.histograms_of_batch(x, one)
    for chunks in (None, 7):
        found = torch_backend.exact_histograms(torch.from_numpy(x), one, chunks)
        assert relative_error(found[0], energy) < 1e-12
        assert not reassign or np.array_equal(found[1], count)


@pytest.mark.parametrize("ending", ["", "_pytorch", "_pytorch_vectorized"])
def test_old_import_paths(ending):
    old = importlib.import_module(f"spectral_hyperresolution.linear_reassignment{ending}")
    assert old.high_resolution_spectrogram is high_resolution_spectrogram
    assert old.high_resolution_spectogram is high_resolution_spectrogram


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"tdeci": 1.5}, ValueError, "tdeci must be a whole number >= 1, got 1.5"),
        ({"over": 0}, ValueError, "over must be a whole number >= 1"),
        ({"noct": 0}, ValueError, "noct must be > 0"),
        ({"minf": 0.5}, ValueError, r"minf must lie in \(0, maxf = 0.5\) cycles per sample"),
        ({"maxf": 0.6}, ValueError, "maxf must be at most the Nyquist frequency, 0.5"),
        ({"dtype": torch.float16}, ValueError, "dtype must be torch.float32 or torch.float64"),
        ({"chunks": 0}, ValueError, "chunks must be"),
        ({"x": np.zeros((10, 0))}, ValueError, "x must have at least one channel"),
        ({"x": np.zeros((10, 1, 1))}, ValueError, r"x must have shape \(N,\) or \(N, C\)"),
        ({"x": np.full(10, np.nan)}, ValueError, "x must be finite"),
        ({"x": torch.zeros(10, dtype=torch.complex64)}, TypeError, "x must hold real"),
    ],
)
def test_errors_name_the_argument_and_its_range(change, error, words):
    arguments = {"x": np.ones(100), "q": 2, **SMALL, **change}
    with pytest.raises(error, match=words):
        high_resolution_spectrogram(**arguments)


def test_the_package_lists_its_names_and_knows_no_other():
    import spectral_hyperresolution

    assert set(spectral_hyperresolution.__all__) <= set(dir(spectral_hyperresolution))
    with pytest.raises(AttributeError, match="no attribute 'linear_reasignment'"):
        _ = spectral_hyperresolution.linear_reasignment
