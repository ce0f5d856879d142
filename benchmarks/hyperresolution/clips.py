"""The clips that the benchmarks run over: synthetic ones always, real ones from a folder."""

from __future__ import annotations

import os
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import librosa
import numpy as np

sys.path.append(str(Path(__file__).parents[2] / "spectral-hyperresolution" / "tests"))
import signals  # the tests' own

RATE = 22_050
DURATION = 2.0

# The reference experiment's grid: 224 rows and columns, 2,240 scan lines.
MODULE = {"hop_length": 197, "fmin": 1.4e-3 * RATE, "bins_per_octave": 26.2, "oversampling": 10}

# One clip of each ESC-10 class (K. J. Piczak, CC BY 3.0).
REAL = (
    *("Baby cry", "Chainsaw", "Clock tick", "Dog bark", "Fire crackling"),
    *("Helicopter", "Person sneeze", "Rain", "Rooster", "Sea waves"),
)


def best_centred(x: np.ndarray, n: int) -> np.ndarray:
    """The `n` samples around the loudest half second, from within the clip padded by n / 2."""
    x = np.pad(x, n // 2)
    loudness = np.convolve(np.abs(x), np.ones(RATE // 2), "same")
    centre = int(np.clip(loudness.argmax(), n // 2, len(x) - n + n // 2))
    return x[centre - n // 2 : centre - n // 2 + n]


def real_clips(folder: str | None) -> dict[str, np.ndarray]:
    """One 2 s clip of each class in `REAL`: from `folder`, or from the archive in DATA_MIRROR."""
    sources = {}
    mirror = os.environ.get("DATA_MIRROR")
    if folder is not None:
        for file in sorted(Path(folder).rglob("*.ogg")):
            sources.setdefault(file.parent.name.partition(" - ")[2], file)
    elif mirror is not None:
        for archive in sorted(Path(mirror).glob("ESC-10-*.zip")):
            with zipfile.ZipFile(archive) as content:
                for name in sorted(n for n in content.namelist() if n.endswith(".ogg")):
                    label = Path(name).parent.name.partition(" - ")[2]
                    if label in REAL and label not in sources:
                        sources[label] = BytesIO(content.read(name))
    clips = {}
    for label in REAL:
        if label in sources:
            x, _ = librosa.load(sources[label], sr=RATE)
            clips[label] = best_centred(x.astype(np.float64), round(DURATION * RATE))
    return clips


def all_clips(folder: str | None = None) -> dict[str, np.ndarray]:
    """Name -> float64 samples, 2 s at 22,050 Hz."""
    synthetic = {name: signals.LIBRARY[name](RATE, DURATION) for name in ("bird", "noise")}
    # Faint noise under the pure one: where it is zero but for rounding, no two transforms agree.
    clicks = signals.LIBRARY["chirp_and_clicks"](RATE, DURATION)
    synthetic["chirp_and_clicks"] = clicks + signals.noise(RATE, DURATION, amplitude=1e-4)
    return {**real_clips(folder), **synthetic}
