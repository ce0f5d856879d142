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


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's content; what it depends on comes from this environment."""
    pytest.importorskip("setuptools", minversion="77")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a build leaves files behind
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info", "build", "tests")
    shutil.copytree(PROJECT, source, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    build = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    target = folder / "site"
    install = [*pip, "install", "--no-deps", "--no-index", "--target", target, wheel]
    subprocess.run(install, check=True, capture_output=True)
    return target


def test_examples_of_the_readme_run(installed):
    """The first without torch, the others with it, all in one process: it compiles once."""
    without, *others = EXAMPLES
    assert "import torch" not in without
    code = "\n".join(
        [
            f"import sys; sys.modules.update(dict.fromkeys({(*BLOCKED, 'torch')}))",
            without,
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
    for promised in re.findall(r"^# (\(.*)", code, re.MULTILINE):
        assert promised.replace(",", "") in result.stdout.replace(",", "")


def test_without_torch_the_module_says_what_it_needs(installed):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from spectral_hyperresolution import consensus_picture, Settings\n"
        "from spectral_hyperresolution import LinearReassignment\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, env=environment, cwd=installed, capture_output=True, text=True)
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: LinearReassignment needs PyTorch: pip install torch")
