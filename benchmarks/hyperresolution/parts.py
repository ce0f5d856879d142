"""Where the time of the fast form goes, on one core.

    python parts.py [--repeats 15]

CPU ms for a 2 s clip on the reference setting, as in `peers.py`: the FFTs, the loop over points,
the whole; and librosa's reassigned_spectrogram, which bins nothing, in turns with them. Then, by
the clock and with a thread for each core, a clip alone and each of a batch of 32. Medians.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections import defaultdict
from collections.abc import Callable
from unittest.mock import patch

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS"):
    os.environ[name] = "1"

import librosa  # noqa: E402
import numpy as np  # noqa: E402
import record  # noqa: E402
import scipy.fft  # noqa: E402
import torch  # noqa: E402
from speed import MODULE, RATE  # noqa: E402

from spectral_hyperresolution import LinearReassignment, kernels, signals  # noqa: E402
from spectral_hyperresolution.plan import make_plan  # noqa: E402


def ms(call: Callable, clock: Callable = time.process_time) -> float:
    """Time of a call, of the processor if nothing else is said."""
    start = clock()
    call()
    return 1e3 * (clock() - start)


def parts_ms(call: Callable) -> dict[str, float]:
    """CPU time of a call's inverse FFTs and of its loop over points."""
    spent: dict[str, float] = defaultdict(float)

    def timed(part: str, function: Callable) -> Callable:
        def wrapper(*arguments, **options):
            start = time.process_time()
            result = function(*arguments, **options)
            spent[part] += 1e3 * (time.process_time() - start)
            return result

        return wrapper

    with (
        patch.object(scipy.fft, "ifft", timed("ffts", scipy.fft.ifft)),
        patch.object(kernels, "bin_points", timed("points", kernels.bin_points)),
    ):
        call()
    return dict(spent)


def main() -> None:
    """Measure q = 1, 2, 4 and 8 in turns and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    load = os.getloadavg()[0]
    clip = signals.bird(RATE, 2.0).astype(np.float32)
    single, batch = torch.from_numpy(clip), torch.from_numpy(clip).repeat(32, 1)
    transforms = {f"q = {q}": LinearReassignment(RATE, q=q, **MODULE) for q in (1, 2, 4, 8)}

    def peer() -> None:
        librosa.reassigned_spectrogram(clip, sr=RATE, n_fft=2048, hop_length=197)

    found: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in transforms}
    of_librosa: list[float] = []
    np.seterr(all="ignore")  # librosa divides by zero in silence,
    warnings.simplefilter("ignore")  # and says so
    for call in (peer, *(lambda t=t: t(single) for t in transforms.values())):
        call()  # compile, plan
    for _ in range(repeats):
        of_librosa.append(ms(peer))
        for name, transform in transforms.items():
            found[name]["whole"].append(ms(lambda t=transform: t(single)))
            for part, spent in parts_ms(lambda t=transform: t(single)).items():
                found[name][part].append(spent)
    torch.set_num_threads(os.cpu_count())
    for _ in range(5):
        for name, transform in transforms.items():
            alone = [ms(lambda t=transform: t(single), time.perf_counter) for _ in range(32)]
            of_batch = ms(lambda t=transform: t(batch), time.perf_counter)
            found[name]["alone_by_clock"].append(sum(alone) / 32)
            found[name]["each_of_32_by_clock"].append(of_batch / 32)
    librosa_ms = float(np.median(of_librosa))
    rows = {}
    for name, lists in found.items():
        row = {part: round(float(np.median(values)), 1) for part, values in lists.items()}
        plan = make_plan(len(clip), transforms[name].settings[0], 1.0)
        row |= {
            "million_points": round(plan.n_points / 1e6, 1),
            "whole_over_ffts": round(row["whole"] / row["ffts"], 1),
            "whole_over_librosa": round(row["whole"] / librosa_ms, 1),
            "batch_over_alone": round(row["each_of_32_by_clock"] / row["alone_by_clock"], 2),
        }
        rows[name] = row
    results = {
        "load_average": load,
        "threads_by_clock": os.cpu_count(),
        "librosa_ms": round(librosa_ms, 1),
        "ms": rows,
    }
    print(results)
    record.write("parts.json", results)


if __name__ == "__main__":
    main()
