"""Time of a 2 s clip on the reference grid, in turns with librosa's reassigned_spectrogram.

    python speed.py [--repeats 40]

By the clock, with a thread for each core; the minimum and the median of the repeats. Read the
ratios: whatever else the machine does meets all alike. librosa's own, with n_fft 2048 and the same
hop, leaves its points unbinned. Then each clip of a batch of 32, and the exact form once.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable

import librosa
import numpy as np
import record
import torch
from clips import DURATION, MODULE, RATE, signals

from spectral_hyperresolution import LinearReassignment
from spectral_hyperresolution.plan import make_plan


def ms(call: Callable) -> float:
    """Time of a call by the clock."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=40)
    repeats, load = parser.parse_args().repeats, os.getloadavg()[0]
    warnings.simplefilter("ignore")  # librosa divides by zero in silence, and says so
    np.seterr(all="ignore")
    clip = signals.bird(RATE, DURATION).astype(np.float32)
    single, batch = torch.from_numpy(clip), torch.from_numpy(clip).repeat(32, 1)
    transforms = {
        f"q = {q}" + ("" if reassign else ", reassign=False"): LinearReassignment(
            RATE, q=q, reassign=reassign, **MODULE
        )
        for reassign in (True, False)
        for q in (1, 2, 4, 8)
    }
    calls = {name: lambda t=t: t(single) for name, t in transforms.items()}
    calls["librosa"] = lambda: librosa.reassigned_spectrogram(
        clip, sr=RATE, n_fft=2048, hop_length=197
    )
    for call in calls.values():  # compile, plan
        call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            found[name].append(ms(call))
    fastest = min(found["librosa"])
    rows = {}
    for name, values in found.items():
        low, middle = min(values), float(np.median(values))
        rows[name] = {"min_ms": round(low, 1), "median_ms": round(middle, 1)}
        if name in transforms:
            rows[name] |= {
                "over_librosa": round(low / fastest, 2),
                "each_of_32_ms": round(ms(lambda n=name: transforms[n](batch)) / 32, 1),
                "million_points": make_plan(len(clip), transforms[name].settings).n_points / 1e6,
            }
        print(name, rows[name], flush=True)
    exact = LinearReassignment(RATE, q=2, exact=True, **MODULE)
    rows["exact, q = 2, float32"] = {"min_ms": round(ms(lambda: exact(single)))}
    record.write("speed.json", {"load_average": load, "threads": torch.get_num_threads(), **rows})


if __name__ == "__main__":
    main()
