"""Speed on a CUDA device in batches, and its difference from the CPU's result.

python cuda.py [--batch 64] [--q 1 2 4 8]
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import record
import torch

from spectral_hyperresolution import LinearReassignment, signals

RATE, DURATION = 22_050, 2.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--q", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("cuda.py needs a CUDA device; none found, nothing measured")
    songs = [signals.bird(RATE, DURATION, seed) for seed in range(arguments.batch)]
    on_cpu = torch.from_numpy(np.stack(songs)).float()
    on_gpu = on_cpu.cuda()
    rows = []
    for q in arguments.q:
        transform = LinearReassignment(RATE, q=q)
        transform(on_gpu)  # plan, windows, kernels
        seconds = []
        for _ in range(arguments.repeats):
            torch.cuda.synchronize()
            start = time.perf_counter()
            pictures = transform(on_gpu)
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
        reference = transform(on_cpu[:4])
        error = (pictures[:4].cpu() - reference).abs().max() / reference.max()
        rows.append(
            {
                "q": q,
                "batch": arguments.batch,
                "seconds": min(seconds),
                "times_real_time": arguments.batch * DURATION / min(seconds),
                "error_relative_to_peak": float(error),
                "peak_memory_gb": torch.cuda.max_memory_allocated() / 1e9,
            }
        )
        print(rows[-1])
    record.write("cuda.json", {"rows": rows})


if __name__ == "__main__":
    main()
