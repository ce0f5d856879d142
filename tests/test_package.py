"""What other programs take from the package's top, what that loads, and the folders' order."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

import freesound_tagging

ROOT = Path(__file__).resolve().parents[1]
NAMES = {"load", "decode", "best_centred_crop", "VARIANTS", "top_k_error", "map_at_k", "Tagger"}
LIMITS = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES")
DRAWING = {"matplotlib", "PIL", "freesound_tagging.features.plots"}
HEAVY = {"torch", "fastai", "matplotlib", "librosa", "sklearn", "papermill", "numba"}


def test_each_folder_imports_only_what_comes_before_it():
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


@pytest.mark.parametrize(
    ("code", "unwanted"),
    [
        ("import freesound_tagging", {*HEAVY, "numpy", "pandas"}),
        ("import freesound_tagging as ft; ft.load, ft.decode", {"torch"}),
        ("from freesound_tagging.cli import main; main(['run', '--dataset', 'no'])", HEAVY),
        ("import freesound_tagging.learning.tagger, freesound_tagging.experiment", {"fastai"}),
        ("import freesound_tagging.features.store, freesound_tagging.learning.networks", DRAWING),
    ],
)
def test_what_is_loaded_is_what_is_needed(code, unwanted):
    code += "; import sys; print('loaded', *sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not unwanted & set(ran.stdout.partition("loaded")[2].split())


@pytest.mark.parametrize("asked", [None, "AVX512_CORE"])
def test_wide_registers_are_left_alone_but_where_they_are_asked_for(asked):
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists() or " avx2 " not in cpuinfo.read_text():
        pytest.skip("no such registers")
    env = {key: value for key, value in os.environ.items() if key not in LIMITS}
    env |= {"ONEDNN_MAX_CPU_ISA": asked} if asked else {}
    code = f"import freesound_tagging, os; print([os.environ[name] for name in {LIMITS}])"
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.stdout.strip() == str(["avx2", asked or "AVX2", "x86-64-v3", ""])


def test_the_top_of_the_package_has_its_names():
    assert set(dir(freesound_tagging)) >= NAMES
    assert all(getattr(freesound_tagging, name) is not None for name in NAMES)
