"""Faults of the reference experiment that no other file sets up: each test fails if one returns.

Targets of another run, runs made once and MAP@3 are in `test_runs.py`; axes, rows and columns in
`test_spectrograms.py`; planes in `test_dataloaders.py`; the package that no longer ran in the tests
of the transform.
"""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import freesound_tagging
from freesound_tagging.features import store as stores
from freesound_tagging.features.representations import VARIANTS, get_channel
from freesound_tagging.learning.dataloaders import make_dataloaders
from freesound_tagging.sounds import catalogue


def test_folds_and_targets_go_by_name_from_the_file_to_the_network(table, grid, profile, tmp_path):
    """Rows stand in the reverse of the directory's order; fold and label are in the file's name."""
    rows = []
    for i, clip in enumerate(table.itertuples()):
        name = f"{i:02d}-fold{clip.fold}-{clip.label}.wav"
        (tmp_path / name).write_bytes(Path(clip.path).read_bytes())
        rows.append((name, clip.label, clip.fold))
    rows = pd.DataFrame(rows[::-1], columns=["file", "label", "fold"])
    rows.to_csv(tmp_path / "mine.csv", index=False)
    loaded = catalogue.load(tmp_path / "mine.csv")
    store = stores.build(loaded, ["log"], grid, tmp_path / "store", n_jobs=1, progress=False)
    dls = make_dataloaders(loaded.sample(frac=1, random_state=0), store, "log_db", 1, profile)
    assert len(dls.valid_ds) == 9 and len(dls.train_ds) == 18
    for dataset, held_out in ((dls.valid_ds, True), (dls.train_ds, False)):
        for i, clip_id in enumerate(dataset.items):
            codes, target = dataset[i]
            assert ("-fold1-" in clip_id) == held_out
            assert clip_id.endswith(f"-{dls.vocab[target]}.wav")
            np.testing.assert_array_equal(codes[0].numpy(), store.read("log", [clip_id])[0])


@pytest.mark.parametrize("q", [1, 2, 4, 8])
def test_each_name_has_its_q_and_its_control_has_the_same(q):
    for kind in ("hires", "gabor"):
        (channel,) = VARIANTS[f"{kind}_q{q}"].channels
        assert get_channel(channel).settings()["q"] == q


def test_no_plotting_library_stands_between_the_numbers_and_the_network():
    package = Path(freesound_tagging.__file__).parent
    files = [file for file in package.glob("features/*.py") if file.stem != "plots"]
    assert len(files) > 3
    for file in [package / "sounds/clips.py", *files, package / "learning/networks.py"]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                words = ast.unparse(node)
                assert not any(name in words for name in ("matplotlib", "PIL", "plots")), words
