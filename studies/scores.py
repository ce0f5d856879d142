"""Out-of-fold scores as they are committed: one compressed CSV a representation or condition.

What is read for tables is checked: it must be of this version of the transform, and whole.
"""

import gzip
import io
import json
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd

from freesound_tagging.errors import DataError
from freesound_tagging.scoring.metrics import KEYS, METRICS, classes_of, clip_metrics

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def pack(scores: pd.DataFrame) -> bytes:
    """Return scores as a compressed CSV, the same bytes for the same scores.

    Probabilities have five significant digits, or as many more as it takes to leave the rank of
    every clip's true class as it is.
    """
    scores = scores[[*KEYS, *classes_of(scores)]].sort_values(["seed", "clip_id"])
    before = clip_metrics(scores)[METRICS].to_numpy()
    for digits in (5, 6, 9):
        text = scores.to_csv(index=False, float_format=f"%.{digits}g")
        if (clip_metrics(read(io.StringIO(text)))[METRICS].to_numpy() == before).all():
            break
    return gzip.compress(text.encode(), mtime=0)


def read(source: Path | io.StringIO) -> pd.DataFrame:
    """Return scores from a CSV; what is no number is NaN."""
    # A label may be "None" or "NA"; it is a word here, not a gap.
    frame = pd.read_csv(source, dtype={"clip_id": str, "label": str}, keep_default_na=False)
    classes = classes_of(frame)
    return frame.assign(**frame[classes].apply(pd.to_numeric, errors="coerce"))


def read_clips(dataset: Path) -> pd.DataFrame:
    """Return label, fold and group of a data set's clips, index ``clip_id``.

    Groups are what another sample would have others of: recordings, but of FSDD its six speakers.
    """
    words = dict.fromkeys(("clip_id", "label", "group"), str)
    clips = pd.read_csv(dataset / "clips.csv", dtype=words, keep_default_na=False)
    clips = clips.set_index("clip_id")
    if dataset.name == "fsdd":
        clips["group"] = clips.index.str.split("_").str[1]
    return clips


def score_files(folder: Path) -> dict[str, Path]:
    """Return representation or condition -> its file of scores in a folder of results."""
    files = sorted(folder.glob("scores/*.csv.gz"))
    return {file.name.removesuffix(".csv.gz"): file for file in files}


def read_folder(folder: Path, clips: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Return file name -> scores of a folder, each file checked."""
    settings, ours = folder / "settings.json", version("spectral-hyperresolution")
    made = json.loads(settings.read_text())["transform"]
    if made != ours:
        raise DataError(
            f"{settings}: these scores were made with version {made} of the transform, and this is "
            f"version {ours}: check out the commit that the file names, or make the runs again"
        )
    files = score_files(folder)
    scores = {name: read(file) for name, file in files.items()}
    folds = set().union(*(frame["fold"] for frame in scores.values()))
    for name, frame in scores.items():
        check_file(files[name], frame, clips[clips["fold"].isin(folds)])
    return scores


def check_file(file: Path, scores: pd.DataFrame, clips: pd.DataFrame) -> None:
    """Raise a `DataError` naming file and clip, unless each seed scored each clip once, finitely.

    A clip's label and fold must be those in clips.csv.
    """
    about, classes = ["label", "fold"], classes_of(scores)
    for seed, own in scores.set_index("clip_id").groupby("seed"):
        known = clips[about].reindex(own.index)
        faults = {
            "is scored twice": own.index[own.index.duplicated()],
            "is missing": clips.index.difference(own.index),
            "is not in clips.csv": own.index.difference(clips.index),
            "has scores that are not finite": own.index[~np.isfinite(own[classes]).all(axis=1)],
            "has another label or fold in clips.csv": own.index[(own[about] != known).any(axis=1)],
        }
        for fault, found in faults.items():
            if len(found):
                raise DataError(f"{file}: clip {found[0]!r} {fault}, seed {seed}")
