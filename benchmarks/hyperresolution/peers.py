"""Time against the peers, all in one process on one core.

    python peers.py [--repeats 9]

A 2 s clip at 22,050 Hz on the reference setting (hop 197, 26.2 bins an octave from 30.9 Hz, 10 scan
lines a bin). CPU time, not wall-clock time, with one thread each; what is compared runs in turns,
so that whatever else the machine does meets all alike; medians.
"""

from __future__ import annotations

import argparse
import os
import time
import warnings
from collections.abc import Callable

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS", "SSQ_PARALLEL"):
    os.environ[name] = "0" if name == "SSQ_PARALLEL" else "1"

import librosa  # noqa: E402
import numpy as np  # noqa: E402
import record  # noqa: E402
import torch  # noqa: E402
from clips import MODULE, RATE, signals  # noqa: E402

from spectral_hyperresolution import LinearReassignment  # noqa: E402


def peers(x: np.ndarray) -> dict[str, Callable]:
    """What can be called on the clip, by name; those that are not installed are left out."""
    y = x.astype(np.float32)
    named = {
        "librosa.reassigned_spectrogram": lambda: librosa.reassigned_spectrogram(
            y, sr=RATE, n_fft=2048, hop_length=197
        ),
        "librosa.cqt": lambda: librosa.cqt(
            y, sr=RATE, hop_length=196, n_bins=216, bins_per_octave=26, fmin=31.0
        ),
        "librosa.vqt": lambda: librosa.vqt(
            y, sr=RATE, hop_length=196, n_bins=216, bins_per_octave=26, fmin=31.0
        ),
    }
    try:
        import ssqueezepy

        named["ssqueezepy.ssq_cwt"] = lambda: ssqueezepy.ssq_cwt(y, fs=RATE)
        named["ssqueezepy.ssq_stft"] = lambda: ssqueezepy.ssq_stft(y, fs=RATE)
    except ImportError:
        pass
    return named


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    x = signals.bird(RATE, 2.0)
    single = torch.from_numpy(x).float()
    transforms = {q: LinearReassignment(RATE, q=q, **MODULE) for q in (0.5, 1, 2, 4, 8)}
    calls = {f"fast, q = {q:g}": lambda t=t: t(single) for q, t in transforms.items()}
    gabor = LinearReassignment(RATE, q=2, reassign=False, **MODULE)
    calls["fast, q = 2, reassign=False"] = lambda: gabor(single)
    calls |= peers(x)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():  # compile, plan
        call()
    for _ in range(arguments.repeats):
        for name, call in calls.items():
            start = time.process_time()
            call()
            seconds[name].append(time.process_time() - start)
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    results = {
        "load_average": os.getloadavg()[0],
        "cpu_ms_a_clip": {name: 1e3 * value for name, value in median.items()},
    }
    print(results)
    record.write("peers.json", results)


if __name__ == "__main__":
    main()
