"""Agreement of the fast form with the exact one on signals drawn at random, over q and accuracy.

    python clicks.py [--seeds 8]

Sparse clicks, staircases, noise and glides of 2,000 to 10,007 samples, on the tests' small grid.
Per kind and q: the lowest cosine similarity of the power without the count threshold, at three
accuracies; the lowest with it, in digital silence and over noise at -60 dB; and what the threshold
does to the exact form itself when its transforms are in single precision.
"""

from __future__ import annotations

import argparse
import os

import clips  # noqa: F401  the folder of the tests
import numpy as np
import record
import torch
from hyperresolution_helpers import DRAWN, cosine, histograms, thresholded

LENGTHS = (2000, 2311, 10_000, 10_007)


def agreements(kind: str, q: float, n: int, seed: int) -> dict[str, float]:
    """Cosine similarities of one signal's pictures."""
    x = DRAWN[kind](n, 4 + 9 * (seed % 4), seed)
    exact, fast = histograms(x, q, exact=True), histograms(x, q)
    single = histograms(x, q, np.float32, exact=True)
    noisy = x + 1e-3 * DRAWN["noise"](n, 0, seed)
    noisy_exact, noisy_fast = histograms(noisy, q, exact=True), histograms(noisy, q)
    return {
        "accuracy 1": cosine(fast[0], exact[0]),
        "accuracy 2": cosine(histograms(x, q, accuracy=2)[0], exact[0]),
        "accuracy 4": cosine(histograms(x, q, accuracy=4)[0], exact[0]),
        "threshold": cosine(thresholded(*fast), thresholded(*exact)),
        "threshold, over noise": cosine(thresholded(*noisy_fast), thresholded(*noisy_exact)),
        "threshold, exact in float32": cosine(thresholded(*single), thresholded(*exact)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for kind in DRAWN:
        for q in (0.25, 0.5, 0.75, 1, 2, 4, 8, 16):
            found = [
                agreements(kind, q, LENGTHS[seed % len(LENGTHS)], seed)
                for seed in range(arguments.seeds)
            ]
            lowest = {name: round(min(one[name] for one in found), 5) for name in found[0]}
            rows.append({"kind": kind, "q": q, **lowest})
            print(rows[-1], flush=True)
    record.write("clicks.json", {"load_average": os.getloadavg()[0], "lowest_cosine": rows})


if __name__ == "__main__":
    main()
