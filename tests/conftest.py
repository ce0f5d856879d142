"""A few dozen short sounds, the table of them and its store, made once for all tests.

The process that hands out tests reads this file too: torch is loaded by the fixtures that need it.
"""

from __future__ import annotations

import ctypes
import gc
import hashlib
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

# Tests, and the notebooks and programs that they start, share the cores: each process has one
# thread, for several would wait for each other (read when numpy and torch are loaded), and starts
# no workers of its own where a test does not ask for them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")
os.environ.setdefault("MPLBACKEND", "Agg")  # tests draw, nobody looks

import numpy as np
import pandas as pd
import pytest
import soundfile as sf

from freesound_tagging.files import hold_alone

if TYPE_CHECKING:
    from freesound_tagging.features.grid import Grid
    from freesound_tagging.features.store import Store
    from freesound_tagging.learning.profiles import Profile

RATE = 22_050


def sound(label: str, take: int, seconds: float = 0.4) -> np.ndarray:
    """Return one of three plain kinds of sound; every take has its own pitch or rate."""
    t = np.arange(round(seconds * RATE)) / RATE
    if label == "tone":
        waveform = np.sin(2 * np.pi * (700 + 90 * take) * t)
    elif label == "sweep":
        waveform = np.sin(2 * np.pi * (500 + 60 * take + 4000 * t) * t)
    else:
        waveform = np.zeros(len(t))
        waveform[:: 900 + 70 * take] = 1.0
    noise = np.random.default_rng(take).standard_normal(len(t))
    return (0.5 * waveform + 0.002 * noise).astype(np.float32)


def make_table(folder: Path, folds=(0, 1, 2), takes: int = 3) -> pd.DataFrame:
    """Write sounds and return their table.

    Files are named by a hash, so that neither the directory's order nor the order of the table's
    rows is that of the clip ids: whatever goes by position goes wrong.
    """
    rows = []
    for label in ("clicks", "sweep", "tone"):
        for fold in folds:
            for take in range(takes):
                clip_id = f"{label}-{fold}-{take}"
                path = folder / f"{hashlib.sha256(clip_id.encode()).hexdigest()[:8]}.wav"
                if not path.exists():
                    sf.write(path, sound(label, 10 * fold + take), RATE, subtype="FLOAT")
                rows.append((clip_id, str(path), label, fold, f"recording-{label}-{fold}"))
    table = pd.DataFrame(rows, columns=["clip_id", "path", "label", "fold", "group"])
    table = table.assign(split="train", verified=True).set_index("clip_id")
    return table.sample(frac=1, random_state=1)


@pytest.fixture(scope="session", autouse=True)
def on_the_cpu():
    """Train on the CPU on every machine: its runs are the ones that repeat to the byte."""
    import torch

    from freesound_tagging.learning import networks

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(networks, "best_device", lambda: torch.device("cpu"))
        yield


@pytest.fixture(scope="module", autouse=True)
def give_memory_back():
    """End the workers that joblib keeps for the next call, and hand memory back to the system."""
    yield
    if "joblib" in sys.modules:
        from joblib.externals.loky import get_reusable_executor

        get_reusable_executor().shutdown(wait=True)
    gc.collect()
    trim = sys.platform == "linux" and getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:  # only glibc has it
        trim(0)


@pytest.fixture(scope="session")
def grid() -> Grid:
    """The smallest grid there is: 29 rows, 28 columns."""
    from freesound_tagging.learning.profiles import PROFILES

    return PROFILES["smoke"].grid


@pytest.fixture(scope="session")
def profile() -> Profile:
    """The smoke profile on all folds, with batches that divide the clips unevenly."""
    from freesound_tagging.learning.profiles import PROFILES

    return replace(PROFILES["smoke"], folds=None, batch_size=7, max_clips=None)


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """A folder that all workers of pytest-xdist see: what one of them made, the others find."""
    folder = tmp_path_factory.getbasetemp()
    return folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder


@pytest.fixture(scope="session")
def _table(shared: Path) -> pd.DataFrame:
    with hold_alone(shared / "sounds", "writing the sounds"):
        return make_table(shared / "sounds")


@pytest.fixture
def table(_table: pd.DataFrame) -> pd.DataFrame:
    """27 clips: 3 classes x 3 folds x 3 takes, in no particular order."""
    return _table.copy()


@pytest.fixture(scope="session")
def store(_table: pd.DataFrame, grid: Grid, shared: Path) -> Store:
    """The store of `table` with every channel."""
    from freesound_tagging.features import store as stores
    from freesound_tagging.features.representations import CHANNELS

    return stores.build(_table, list(CHANNELS), grid, shared / "store", n_jobs=1, progress=False)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    if plt := sys.modules.get("matplotlib.pyplot"):
        plt.close("all")


@pytest.fixture
def small_table(tmp_path: Path) -> pd.DataFrame:
    """Six clips of the test's own, to be spoilt at will."""
    folder = tmp_path / "sounds"
    folder.mkdir()
    return make_table(folder, folds=(0, 1), takes=1)


@pytest.fixture
def small_batches(monkeypatch) -> int:
    """Make the store cut clips into batches of two, so that few clips make many files."""
    monkeypatch.setattr("freesound_tagging.features.store.BATCH_CLIPS", 2)
    return 2
