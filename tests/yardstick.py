"""A yardstick for changes that should change nothing: hashes of what the package computes.

python tests/yardstick.py [RECORD.json]    prints them, and against a record what differs

Crops, stored codes, scores of small runs and a saved model's tags. They repeat to the byte on one
machine; beside each hash stands a root mean square, so that a change of rounding can be told from
another change.
"""

import hashlib
import json
import os
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

import freesound_tagging
from freesound_tagging.cli import main
from freesound_tagging.features.store import build
from freesound_tagging.learning.profiles import get_profile
from freesound_tagging.runs import train_and_score

CHANNELS = ["log", "mel", "hires_q2", "gabor_q2"]
for variable in ("DATA_MIRROR", "SEEDS", "STRICT", "SCHEDULER"):
    os.environ.pop(variable, None)
torch.set_num_threads(1)


def measure(*values: np.ndarray) -> str:
    """Return a hash of arrays, and their root mean square."""
    digest = hashlib.sha256()
    for value in values:
        digest.update(repr(value.shape).encode() + np.ascontiguousarray(value).tobytes())
    everything = np.concatenate([value.ravel() for value in values]).astype(float)
    return f"{digest.hexdigest()[:16]} {np.sqrt((everything**2).mean()):.7g}"


def measure_all(work: Path) -> dict[str, str]:
    """Return what was measured -> its hash and root mean square."""
    profile = get_profile("smoke")
    table = freesound_tagging.load("microcalls", work / "raw", clips_per_class=5)
    decoded = [freesound_tagging.decode(path) for path in table["path"].iloc[::15]]
    crops = [freesound_tagging.best_centred_crop(*one, 1.5) for one in decoded]
    found = {"crops of microcalls": measure(*crops)}
    store = build(table, CHANNELS, profile.grid, work / "store", n_jobs=1, progress=False)
    for channel in CHANNELS:
        found[f"{channel} of microcalls"] = measure(store.read(channel, list(table.index)))
    for name in ("log_db", "hires_q2"):
        scores = train_and_score(table, store, name, 0, 0, profile)
        found[f"scores of {name}"] = measure(scores[sorted(set(table["label"]))].to_numpy())
    with redirect_stdout(sys.stderr):
        assert main(["model", "--dataset", "microcalls", "--profile", "smoke"]) == 0
    for name in ("log_db", "hires_q2"):
        tagger = freesound_tagging.Tagger(work / "models" / "microcalls" / "smoke", name)
        tags = [tagger.tag_file(path) for path in table["path"].iloc[::15]]
        found[f"tags by {name}"] = measure(*(one.probabilities for one in tags))
    return found


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="yardstick-") as folder:
        os.environ["WORK_FOLDER"] = folder
        measured = measure_all(Path(folder))
    print(json.dumps(measured, indent=1))
    record = json.loads(Path(sys.argv[1]).read_text()) if len(sys.argv) > 1 else measured
    for name in measured:
        if record.get(name) != measured[name]:
            print(f"DIFFERS {name}: {record.get(name)} -> {measured[name]}")
