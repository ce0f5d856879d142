"""Renyi entropy, the common grid, the test signals, and the examples in the docstrings."""

import doctest
import importlib

import numpy as np
import pytest

from spectral_hyperresolution import renyi_entropy, signals
from spectral_hyperresolution.concentration import regrid


def test_renyi_entropy_counts_equal_bins():
    for n in (1, 2, 8, 64):
        power = np.zeros((8, 8))
        power.flat[:n] = 3.0
        assert renyi_entropy(power) == pytest.approx(np.log2(n))
    assert renyi_entropy(power * 1e-9) == pytest.approx(6)


@pytest.mark.parametrize("power", [np.zeros(4), np.array([1.0, -1.0]), np.array([np.nan])])
def test_renyi_entropy_refuses_what_is_no_energy(power):
    with pytest.raises(ValueError, match="power must be finite"):
        renyi_entropy(power)


def test_renyi_entropy_refuses_order_one():
    with pytest.raises(ValueError, match="order must be > 0 and not 1"):
        renyi_entropy(np.ones(4), order=1)


def test_regrid_keeps_the_energy_inside_the_grid():
    rng = np.random.default_rng(0)
    power, times, frequencies = rng.random((3, 500))
    grid = regrid(power, times, frequencies, np.linspace(0, 1, 5), np.linspace(0, 1, 8))
    assert grid.shape == (7, 4)
    assert grid.sum() == pytest.approx(power.sum())
    times[:100] = np.nan
    grid = regrid(power, times, frequencies, np.linspace(0, 1, 5), np.linspace(0, 1, 8))
    assert grid.sum() == pytest.approx(power[100:].sum())


@pytest.mark.parametrize("name", sorted(signals.LIBRARY))
def test_signals_have_the_promised_length_and_repeat(name):
    x = signals.LIBRARY[name](8000, 0.25)
    assert x.shape == (2000,)
    assert x.dtype == np.float64
    assert np.abs(x).max() <= 1.0
    assert np.array_equal(x, signals.LIBRARY[name](8000, 0.25))


@pytest.mark.parametrize(
    "module", ["linear_reassignment", "transform", "consensus", "concentration"]
)
def test_examples_in_the_docstrings_run(module):
    result = doctest.testmod(importlib.import_module(f"spectral_hyperresolution.{module}"))
    assert result.attempted > 0
    assert result.failed == 0
