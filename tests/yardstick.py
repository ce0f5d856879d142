"""A yardstick for changes that should change nothing: hashes of what the package computes.

python tests/yardstick.py [RECORD.json]    prints them, and against a record what differs

Crops, stored codes, scores of small runs and a saved model's tags. They repeat to the byte on one
machine; beside each hash stands a root mean square, so that a change of rounding can be told from
another change. Real clips are measured where DATA_MIRROR holds ESC-10 and the digits.
"""

import hashlib
import importlib
import json
import os
import re
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

import freesound_tagging
from freesound_tagging.cli import main

CHANNELS = ["log", "mel", "hires_q2", "gabor_q2"]
MIRROR = os.environ.pop("DATA_MIRROR", "")
for variable in ("SEEDS", "STRICT", "SCHEDULER"):
    os.environ.pop(variable, None)
os.environ["WORK_FOLDER"] = WORK = tempfile.mkdtemp(prefix="yardstick-")
torch.set_num_threads(1)


def find(name: str):
    """Return a function or class of the package, in whichever module it is defined today."""
    root = Path(freesound_tagging.__file__).parent
    for file in sorted(root.rglob("*.py")):
        if re.search(rf"^(def|class) {name}\b|^{name}\b *[:=]", file.read_text(), re.MULTILINE):
            module = ".".join(file.relative_to(root.parent).with_suffix("").parts)
            return getattr(importlib.import_module(module), name)
    raise ImportError(f"{name} is defined nowhere in the package")


def measure(*values: np.ndarray) -> str:
    """Return a hash of arrays, and their root mean square."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value.shape).encode() + np.ascontiguousarray(value).tobytes())
    everything = np.concatenate([value.ravel() for value in values]).astype(float)
    return f"{digest.hexdigest()[:16]} {np.sqrt((everything**2).mean()):.7g}"


def drawn_signals():
    """Yield waveforms with their rates: bursts, drift, offsets, ties, short and silent ones."""
    for seed in range(200):
        random = np.random.default_rng(seed)
        rate = int(random.choice([8_000, 22_050, 44_100]))
        n = int(random.integers(1, 5 * rate))
        waveform = 0.01 * random.standard_normal(n) * random.integers(0, 2)
        for _ in range(random.integers(0, 4)):
            start, length = int(random.integers(0, n)), int(random.integers(1, rate))
            burst = waveform[start : start + length]
            burst += random.uniform(0.1, 1) * np.sin(
                random.uniform(0.05, 3) * np.arange(len(burst))
            )
        drift = np.sin(2 * np.pi * random.uniform(0.1, 1.5) * np.arange(n) / rate)
        waveform += random.choice([0, 0, 0.2, 2]) * drift + random.choice([0, 0, 0.3])
        yield waveform.astype(np.float32), rate


def measure_all() -> dict[str, str]:
    """Return what was measured -> its hash and root mean square."""
    crop = freesound_tagging.best_centred_crop
    clips = {
        "microcalls": freesound_tagging.load("microcalls", Path(WORK, "raw"), clips_per_class=1)
    }
    if MIRROR:
        os.environ["DATA_MIRROR"] = MIRROR
        clips |= {
            name: freesound_tagging.load(name, Path(WORK, "raw")) for name in ("esc10", "fsdd")
        }
        del os.environ["DATA_MIRROR"]
    found = {"crops of drawn signals": measure(*(crop(*one, 0.8) for one in drawn_signals()))}
    grid = find("Grid")(hop_length=394, bins_per_octave=13.0)
    for name, table in clips.items():
        table = table.iloc[:: max(1, len(table) // 6)]
        decoded = [freesound_tagging.decode(path) for path in table["path"]]
        found[f"crops of {name}"] = measure(*(crop(*one, 1.5) for one in decoded))
        folder = Path(WORK, "store", name)
        store = find("build")(table, CHANNELS, grid, folder, n_jobs=1, progress=False)
        for channel in CHANNELS:
            found[f"{channel} of {name}"] = measure(store.read(channel, list(table.index)))
    profile = find("PROFILES")["smoke"]
    table = freesound_tagging.load("microcalls", Path(WORK, "raw"), clips_per_class=5)
    folder = Path(WORK, "store", "smoke")
    store = find("build")(table, CHANNELS, profile.grid, folder, n_jobs=1, progress=False)
    for name in ("log_db", "hires_q2"):
        scores = find("train_and_score")(table, store, name, 0, 0, profile)
        found[f"scores of {name}"] = measure(scores[sorted(set(table["label"]))].to_numpy())
    with redirect_stdout(sys.stderr):
        assert main(["model", "--dataset", "microcalls", "--profile", "smoke"]) == 0
    for name in ("log_db", "hires_q2"):
        tagger = freesound_tagging.Tagger(Path(WORK, "models", "microcalls", "smoke"), name)
        tags = [tagger.tag_file(path) for path in table["path"].iloc[::15]]
        found[f"tags by {name}"] = measure(*(one.probabilities for one in tags))
    return found


if __name__ == "__main__":
    try:
        measured = measure_all()
    finally:
        shutil.rmtree(WORK)
    print(json.dumps(measured, indent=1))
    if len(sys.argv) > 1:
        record = json.loads(Path(sys.argv[1]).read_text())
        for name in measured:
            if record.get(name) != measured.get(name):
                print(f"DIFFERS {name}: {record.get(name)} -> {measured.get(name)}")
