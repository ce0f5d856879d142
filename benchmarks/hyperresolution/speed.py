"""Speed against the yardstick and librosa, and accuracy against the exact form, paired in one run.

    python speed.py [--clips FOLDER] [--q 1 2 4 8]

The setting is the reference experiment's: 2 s at 22,050 Hz, tdeci 197, over 10, noct 26.2,
minf 1.4e-3, maxf 0.5. For each q and clip the yardstick runs once, with the fast form, librosa and
the exact form before and after it; a ratio is of times from the same minute, the best of the
repeats. Wall-clock time on a busy machine says little about two cores, so CPU time is recorded too.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from functools import partial
from pathlib import Path

import librosa
import numpy as np
import record
import torch
from clips import RATE, all_clips

from spectral_hyperresolution import LinearReassignment
from spectral_hyperresolution.plan import make_plan

sys.path.append(str(Path(__file__).parents[2] / "spectral-hyperresolution" / "tests"))
from yardstick import linear_reassignment

SETTING = {"tdeci": 197, "over": 10, "noct": 26.2, "minf": 1.4e-3, "maxf": 0.5}
MODULE = {"hop_length": 197, "fmin": 1.4e-3 * RATE, "bins_per_octave": 26.2, "oversampling": 10}


def timed(function, repeats: int):
    """(result, best wall time, best CPU time) of `repeats` calls, in seconds."""
    wall, cpu = [], []
    for _ in range(repeats):
        start_wall, start_cpu = time.perf_counter(), time.process_time()
        result = function()
        wall.append(time.perf_counter() - start_wall)
        cpu.append(time.process_time() - start_cpu)
    return result, min(wall), min(cpu)


def decibels(power: np.ndarray) -> np.ndarray:
    """Level in dB within 80 dB of the largest."""
    level = 10 * np.log10(np.maximum(power, 1e-300))
    return np.maximum(level, level.max() - 80)


def agreement(result: np.ndarray, expected: np.ndarray) -> tuple[float, float]:
    """(cosine similarity of the power, correlation of the dB pictures)."""
    a, b = result.astype(np.float64).ravel(), expected.ravel()
    cosine = float(a @ b / np.sqrt((a @ a) * (b @ b)))
    return cosine, float(np.corrcoef(decibels(a), decibels(b))[0, 1])


def reassigned_by_librosa(x: np.ndarray):
    """librosa's own, n_fft 2048 and the same hop; its points are not binned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return librosa.reassigned_spectrogram(x, sr=RATE, n_fft=2048, hop_length=197)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", help="folder with ESC-10 classes; else DATA_MIRROR, else none")
    parser.add_argument("--q", type=float, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--timed", nargs="+", default=["Dog bark", "bird"], help="clips to time")
    arguments = parser.parse_args()
    clips = all_clips(arguments.clips)
    timed_clips = [name for name in arguments.timed if name in clips]
    rows = []
    for q in arguments.q:
        fast = LinearReassignment(RATE, q=q, **MODULE)
        exact = LinearReassignment(RATE, q=q, exact=True, **MODULE)
        plan = make_plan(len(clips["bird"]), fast.settings[0], 1.0)
        for name, x in clips.items():
            single, double = torch.from_numpy(x).float(), torch.from_numpy(x)
            fast(single), reassigned_by_librosa(x.astype(np.float32))  # compile and plan
            row = {"q": q, "clip": name}
            first = timed(partial(fast, single), 15)
            compared = timed(partial(reassigned_by_librosa, x.astype(np.float32)), 15)
            truth, exact_wall, exact_cpu = timed(partial(exact, double), 1)
            row["cosine"], row["db_correlation"] = agreement(first[0].numpy(), truth.numpy())
            if name in timed_clips:
                plain, plain_wall, plain_cpu = timed(
                    partial(linear_reassignment, x, q, **SETTING), 1
                )
                difference = np.abs(plain.T[::-1] - truth.numpy()).max() / plain.max()
                second = timed(partial(fast, single), 15)
                single_exact = timed(partial(exact, single), 1)
                wall, cpu = min(first[1], second[1]), min(first[2], second[2])
                row |= {
                    "yardstick_s": plain_wall,
                    "fast_s": wall,
                    "exact_float64_s": exact_wall,
                    "exact_float32_s": single_exact[1],
                    "librosa_s": compared[1],
                    "fast_over_yardstick": plain_wall / wall,
                    "fast_over_yardstick_cpu_time": plain_cpu / cpu,
                    "exact_float64_over_yardstick": plain_wall / exact_wall,
                    "exact_float32_over_yardstick": plain_wall / single_exact[1],
                    "exact_float64_over_yardstick_cpu_time": plain_cpu / exact_cpu,
                    "fast_time_over_librosa": wall / compared[1],
                    "fast_cpu_time_over_librosa": cpu / compared[2],
                    "exact_against_yardstick": float(difference),
                    "points": plan.n_points,
                    "transformed": plan.n_transformed,
                }
            rows.append(row)
            print({k: round(v, 5) if isinstance(v, float) else v for k, v in row.items()})
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    record.write("speed.json", {"load_average": load, **summary(rows), "rows": rows})


def summary(rows: list[dict]) -> dict:
    """What the figures are held against."""
    timed_rows = [row for row in rows if "yardstick_s" in row]

    def geometric(key: str, some: list[dict]) -> float:
        return float(np.exp(np.mean([np.log(row[key]) for row in some])))

    keys = [key for key in timed_rows[0] if "_over_" in key]
    by_q = {}
    for q in sorted({row["q"] for row in rows}):
        of_q = [row for row in timed_rows if row["q"] == q]
        everything = [row for row in rows if row["q"] == q]
        by_q[f"{q:g}"] = {key: geometric(key, of_q) for key in keys} | {
            "lowest_cosine": min(row["cosine"] for row in everything),
            "mean_cosine": float(np.mean([row["cosine"] for row in everything])),
            "lowest_db_correlation": min(row["db_correlation"] for row in everything),
            "mean_db_correlation": float(np.mean([row["db_correlation"] for row in everything])),
        }
    overall = {key: geometric(key, timed_rows) for key in keys}
    overall["mean_db_correlation"] = float(np.mean([row["db_correlation"] for row in rows]))
    return {"geometric_mean": overall, "by_q": by_q}


if __name__ == "__main__":
    main()
