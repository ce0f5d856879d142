"""Out-of-fold scores as they are committed: one compressed CSV a representation or condition."""

import gzip
import io
from pathlib import Path

import pandas as pd

from freesound_tagging.scoring.metrics import KEYS, classes_of, clip_metrics

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"


def pack(scores: pd.DataFrame) -> bytes:
    """Return scores as a compressed CSV, the same bytes for the same scores.

    Probabilities have five significant digits, or as many more as it takes to leave the rank of
    every clip's true class as it is.
    """
    scores = scores[[*KEYS, *classes_of(scores)]].sort_values(["seed", "clip_id"])
    ranks = ["top1_accuracy", "top3_error", "map3"]
    before = clip_metrics(scores)[ranks].to_numpy()
    for digits in (5, 6, 9):
        text = scores.to_csv(index=False, float_format=f"%.{digits}g")
        if (clip_metrics(read(io.StringIO(text)))[ranks].to_numpy() == before).all():
            break
    return gzip.compress(text.encode(), mtime=0)


def read(source: Path | io.StringIO) -> pd.DataFrame:
    """Return scores from a CSV; what is no number is NaN."""
    # A label may be "None" or "NA"; it is a word here, not a gap.
    frame = pd.read_csv(source, dtype={"clip_id": str, "label": str}, keep_default_na=False)
    classes = classes_of(frame)
    return frame.assign(**frame[classes].apply(pd.to_numeric, errors="coerce"))
