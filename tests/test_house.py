"""The folders stand in one order, and a slip in a command is answered before torch loads."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HEAVY = {"torch", "fastai", "matplotlib", "librosa", "sklearn", "papermill", "numba"}


def test_each_folder_imports_only_what_comes_before_it():
    from importlinter.cli import lint_imports

    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--help"], "run"),
        (["run", "--dataset", "nonesuch"], "esc10"),
        (["run", "--profile", "nonesuch"], "smoke"),
        (["run", "--dataset", "missing.csv"], "missing.csv"),
        (["study", "--study", "nonesuch"], "controls"),
        (["study", "--dataset", "fsdd", "--study", "controls"], "esc10"),
    ],
)
def test_a_message_about_arguments_loads_nothing_heavy(words, said):
    code = f"""
import sys
from freesound_tagging.cli import main
try:
    print("status", main({words!r}))
except SystemExit as stop:
    print("status", stop.code)
print("loaded", *sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    status = 0 if words == ["--help"] else 2
    assert f"status {status}" in ran.stdout
    assert said in ran.stdout.partition("loaded")[0] + ran.stderr
    loaded = set(ran.stdout.partition("loaded")[2].split())
    assert not HEAVY & loaded
