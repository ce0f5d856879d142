"""What other people's programs take from the package's top."""

import subprocess
import sys

import numpy as np

import freesound_tagging

NAMES = {"load", "decode", "best_centred_crop", "VARIANTS", "top_k_error", "map_at_k", "Tagger"}


def run_python(code: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout


def test_importing_the_package_loads_nothing_heavy():
    code = "import sys, freesound_tagging; print(len(sys.modules)); print(*sys.modules)"
    count, names = run_python(code).splitlines()
    assert not {"torch", "numpy", "pandas", "matplotlib", "fastai"} & set(names.split())
    assert int(count) < 150


def test_sounds_need_no_torch():
    code = "import sys, freesound_tagging as ft; ft.load, ft.decode; print('torch' in sys.modules)"
    assert run_python(code).strip() == "False"


def test_looking_at_sounds_and_tagging_them_need_no_fastai():
    code = "import sys, freesound_tagging.learning.tagger, freesound_tagging.experiment"
    assert run_python(f"{code}; print('fastai' in sys.modules)").strip() == "False"


def test_the_top_of_the_package_has_its_names():
    assert set(dir(freesound_tagging)) >= NAMES
    for name in NAMES:
        assert getattr(freesound_tagging, name) is not None


def test_a_clip_is_loaded_decoded_and_cropped(tmp_path):
    table = freesound_tagging.load("microcalls", root=tmp_path, clips_per_class=1)
    waveform, sample_rate = freesound_tagging.decode(table["path"].iloc[0])
    crop = freesound_tagging.best_centred_crop(waveform, sample_rate, 0.5)
    assert crop.shape == (sample_rate // 2,) and sample_rate == 22_050


def test_scores_are_measured():
    scores = np.array([[0.5, 0.3, 0.2, 0.0], [0.1, 0.2, 0.3, 0.4]])
    assert freesound_tagging.top_k_error(scores, [0, 0]) == 0.5
    assert freesound_tagging.map_at_k(scores, [1, 3]) == 0.75
