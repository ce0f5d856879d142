"""Where compiled code is kept, and what happens where it cannot be, or is broken."""

import importlib.util
import os
import warnings

import numba
import pytest

SOURCE = """
from spectral_hyperresolution.kernels import compiled

@compiled()
def twice(x):
    return 2 * x
"""


@pytest.fixture
def load(tmp_path):
    """A function that imports a module with one compiled loop anew, as another process would."""
    file = tmp_path / "looped.py"
    file.write_text(SOURCE)

    def load_anew():
        spec = importlib.util.spec_from_file_location("looped", file)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.twice

    return load_anew


@pytest.mark.parametrize("ending", [".nbi", ".nbc"])
@pytest.mark.parametrize("left", [0, 20])
def test_a_broken_cache_is_thrown_away_once_and_said(load, tmp_path, ending, left):
    assert load()(2) == 4
    (file,) = tmp_path.rglob(f"*{ending}")
    os.truncate(file, left)
    with pytest.warns(RuntimeWarning, match=f"compiled code in .*{tmp_path.name}.* is broken"):
        assert load()(2) == 4
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load()
        assert again(2) == 4
    assert sum(again.stats.cache_hits.values()) == 1


def test_a_folder_where_nothing_can_be_kept_is_warned_of_and_works(load, monkeypatch):
    monkeypatch.setattr(numba.core.caching.CacheImpl, "_locator_classes", [])
    with pytest.warns(RuntimeWarning, match="set NUMBA_CACHE_DIR"):
        twice = load()
    assert twice(2) == 4
