"""Agreement of the fast form with the exact one over its `accuracy` setting, and its points.

    python accuracy.py [--clips FOLDER]

The table in the docstring of `LinearReassignment` is this one. Values are the lowest of all clips.
"""

from __future__ import annotations

import argparse

import numpy as np
import record
import torch
from clips import MODULE, RATE, all_clips

from spectral_hyperresolution import LinearReassignment
from spectral_hyperresolution.plan import make_plan


def decibels(power: np.ndarray) -> np.ndarray:
    """Level in dB within 80 dB of the largest."""
    level = 10 * np.log10(np.maximum(power, 1e-300))
    return np.maximum(level, level.max() - 80)


def agreement(result: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """(cosine similarity of the power, correlation of the dB pictures)."""
    a, b = result.astype(np.float64).ravel(), expected.astype(np.float64).ravel()
    cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    return cosine, float(np.corrcoef(decibels(a), decibels(b))[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", help="folder with ESC-10 classes; else DATA_MIRROR, else none")
    arguments = parser.parse_args()
    clips = all_clips(arguments.clips)
    rows = []
    for reassign in (True, False):
        for q in (1, 2, 4, 8):
            grid = {"q": q, "reassign": reassign, **MODULE}
            exact = LinearReassignment(RATE, exact=True, **grid)
            truths = {name: exact(torch.from_numpy(x)).numpy() for name, x in clips.items()}
            for accuracy in (0.25, 0.5, 1, 2, 4) if reassign else (1,):
                fast = LinearReassignment(RATE, accuracy=accuracy, **grid)
                values = np.array(
                    [
                        agreement(fast(torch.from_numpy(x).float()).numpy(), truths[name])
                        for name, x in clips.items()
                    ]
                )
                row = {
                    "q": q,
                    "reassign": reassign,
                    "accuracy": accuracy,
                    "cosine": round(values[:, 0].min(), 5),
                    "db_correlation": round(values[:, 1].min(), 4),
                    "mean_db_correlation": round(values[:, 1].mean(), 4),
                    "million_points": make_plan(len(clips["bird"]), fast.settings).n_points / 1e6,
                }
                rows.append(row)
                print(row, flush=True)
    record.write("accuracy.json", {"clips": list(clips), "rows": rows})


if __name__ == "__main__":
    main()
