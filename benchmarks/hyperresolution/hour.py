"""Memory and time of one hour of 22,050 Hz audio through `long_recording`.

python hour.py [--minutes 60] [--q 2]

The recording is a file that is read block by block (`numpy.memmap`).
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import record
from clips import RATE, signals

from spectral_hyperresolution import LinearReassignment


def peak_memory() -> float:
    """Largest resident memory of this process so far, GB."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--q", type=float, default=2.0)
    arguments = parser.parse_args()
    transform = LinearReassignment(RATE, q=arguments.q)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "recording.f32"
        with file.open("wb") as out:
            for minute in range(arguments.minutes):
                out.write(signals.bird(RATE, 60.0, seed=minute).astype(np.float32).tobytes())
        recording = np.memmap(file, dtype=np.float32, mode="r")
        before = peak_memory()
        start = time.perf_counter()
        picture = transform.long_recording(recording)
        seconds = time.perf_counter() - start
    results = {
        "minutes": arguments.minutes,
        "q": arguments.q,
        "picture": list(picture.shape),
        "seconds": seconds,
        "times_real_time": arguments.minutes * 60 / seconds,
        "peak_memory_gb": peak_memory(),
        "peak_memory_before_gb": before,
    }
    print(results)
    record.write("hour.json", results)


if __name__ == "__main__":
    main()
