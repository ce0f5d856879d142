"""Accuracy and time of the fast form over its `accuracy` setting.

    python accuracy.py [--clips FOLDER]

The table in the docstring of `LinearReassignment` is this one.
"""

from __future__ import annotations

import argparse

import numpy as np
import record
import torch
from clips import RATE, all_clips
from speed import MODULE, agreement, timed

from spectral_hyperresolution import LinearReassignment
from spectral_hyperresolution.plan import make_plan


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", help="folder with ESC-10 classes; else DATA_MIRROR, else none")
    arguments = parser.parse_args()
    clips = all_clips(arguments.clips)
    rows = []
    for q in (1, 2, 4, 8):
        exact = LinearReassignment(RATE, q=q, exact=True, **MODULE)
        truths = {name: exact(torch.from_numpy(x).float()).numpy() for name, x in clips.items()}
        for accuracy in (0.25, 0.5, 1, 2, 4):
            fast = LinearReassignment(RATE, q=q, accuracy=accuracy, **MODULE)
            values = []
            for name, x in clips.items():
                picture, _, cpu = timed(lambda f=fast, x=x: f(torch.from_numpy(x).float()), 4)
                values.append(agreement(picture.numpy(), truths[name].astype(np.float64)))
            values = np.array(values)
            row = {
                "q": q,
                "accuracy": accuracy,
                "lowest_cosine": values[:, 0].min(),
                "lowest_db_correlation": values[:, 1].min(),
                "mean_db_correlation": values[:, 1].mean(),
                "cpu_seconds": cpu,
                "points": make_plan(len(x), fast.settings[0], accuracy).n_points,
            }
            rows.append(row)
            print(row)
    record.write("accuracy.json", {"clips": list(clips), "rows": rows})


if __name__ == "__main__":
    main()
