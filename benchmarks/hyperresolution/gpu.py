"""Both forms for a batch that lies on a CUDA device: the exact form there, the fast one on the CPU.

python gpu.py [--batch 64] [--repeats 5]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import record
import torch
from clips import DURATION, MODULE, RATE, signals

from spectral_hyperresolution import LinearReassignment


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("gpu.py needs a CUDA device; none found, nothing measured")
    songs = np.stack([signals.bird(RATE, DURATION, seed) for seed in range(arguments.batch)])
    x = torch.from_numpy(songs).float()
    rows = []
    for exact in (True, False):
        for q in (1, 2, 4, 8):
            transform = LinearReassignment(RATE, q=q, exact=exact, **MODULE)
            there, seconds = x.cuda(), []
            for _ in range(1 + arguments.repeats):  # the first compiles and plans
                start = time.perf_counter()
                pictures = transform(there)
                torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
            here = transform(x[:2])
            error = (pictures[:2].cpu() - here).abs().max() / here.max()
            row = {
                "exact": exact,
                "q": q,
                "seconds": min(seconds[1:]),
                "times_real_time": arguments.batch * DURATION / min(seconds[1:]),
                "error_relative_to_peak": float(error),
                "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9,
            }
            rows.append(row)
            print(row)
    record.write("gpu.json", {"batch": arguments.batch, "rows": rows})


if __name__ == "__main__":
    main()
