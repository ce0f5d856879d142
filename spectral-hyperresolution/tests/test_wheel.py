"""The distribution: its wheel, installed without the rest of the repository, runs its README."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]
EXAMPLES = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(), re.DOTALL)
BLOCKED = ("fastai", "librosa", "pandas", "matplotlib", "freesound_tagging", "ssqueezepy")

WITHOUT_TORCH = """
from spectral_hyperresolution import Settings, consensus_picture
try:
    from spectral_hyperresolution import LinearReassignment
except ImportError as error:
    print(error)
"""


def test_examples_of_the_readme_run(tmp_path):
    """The first without torch, the others with it, all in one process: it compiles once."""
    pytest.importorskip("setuptools", minversion="77")
    source, installed = tmp_path / "source", tmp_path / "site"  # a build leaves files behind
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "tests")
    shutil.copytree(PROJECT, source, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", tmp_path, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")  # what it depends on comes from this environment
    install = [*pip, "install", "--no-deps", "--no-index", "--target", installed, wheel]
    subprocess.run(install, check=True, capture_output=True)
    without, *others = EXAMPLES
    assert "import torch" not in without
    code = "\n".join(
        [
            f"import sys; sys.modules.update(dict.fromkeys({(*BLOCKED, 'torch')}))",
            without + WITHOUT_TORCH,
            "import spectral_hyperresolution; print(spectral_hyperresolution.__file__)",
            "del sys.modules['torch']",
            *others,
        ]
    )
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(installed)},
        cwd=installed,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert str(installed) in result.stdout
    assert "LinearReassignment needs PyTorch: pip install torch" in result.stdout
    for promised in re.findall(r"^# (\(.*)", code, re.MULTILINE):
        assert promised.replace(",", "") in result.stdout.replace(",", "")
