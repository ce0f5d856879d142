"""Speed and memory of tagging with saved models: ``python tagging.py models/esc10/cpu ...``.

Everything runs on two threads. Wall-clock seconds are medians; CPU seconds stand beside them, which
another program's work changes less.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import soundfile as sf

sys.path.append(str(Path(__file__).resolve().parents[1]))
from surroundings import surroundings

RECORD = Path(__file__).with_suffix(".json")
RATE = 44_100
REPEATS = 5
FILES = 60

LOAD = """
import sys, time
start = time.perf_counter()
from freesound_tagging import Tagger
Tagger(sys.argv[1], sys.argv[2])
print(time.perf_counter() - start, time.process_time())
"""

MEMORY = """
import resource, sys
import torch
torch.set_num_threads(2)
from freesound_tagging import Tagger
tagger = Tagger(sys.argv[1], sys.argv[2])
tags = tagger.tag_file(sys.argv[3])
unit = 1 if sys.platform == "darwin" else 1024
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6)
"""


def song(seconds: float, seed: int = 0) -> np.ndarray:
    """Return chirps in noise at 44,100 Hz, float32."""
    t = np.arange(round(seconds * RATE)) / RATE
    pitch = 2000 + 1500 * np.sin(2 * np.pi * 0.7 * t + seed)
    noise = np.random.default_rng(seed).standard_normal(len(t))
    chirps = np.sin(2 * np.pi * np.cumsum(pitch) / RATE) * (np.sin(2 * np.pi * 2 * t) > 0)
    return (0.3 * chirps + 0.02 * noise).astype(np.float32)


def write_song(path: Path, seconds: int) -> Path:
    """Write a song minute by minute."""
    with sf.SoundFile(path, "w", RATE, 1, "PCM_16") as file:
        for begin in range(0, seconds, 60):
            file.write(song(min(60, seconds - begin), seed=begin))
    return path


def ask(code: str, *arguments: object) -> list[float]:
    """Run code in a process of its own and return the numbers that it prints."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return [float(word) for word in answer.stdout.split()]


def timed(work) -> tuple[float, float]:
    """Return the wall-clock and the CPU seconds of a call."""
    start, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - start, time.process_time() - cpu


def measure(model: Path, representation: str, folder: Path, minutes: list[int]) -> dict:
    """Return what one network takes."""
    from freesound_tagging import Tagger

    loads = [ask(LOAD, model, representation) for _ in range(3)]
    tagger = Tagger(model, representation)
    ten = song(10)
    tagger(ten, RATE)  # what is computed once
    tens = [timed(lambda: tagger(ten, RATE)) for _ in range(REPEATS)]
    files = [write_song(folder / f"{i}.wav", 5) for i in range(FILES)]
    five = timed(lambda: [tagger.tag_file(file) for file in files])
    memory = {}
    for length in minutes:
        path = write_song(folder / f"{length}-minutes.flac", 60 * length)
        start = time.perf_counter()
        (memory_mb,) = ask(MEMORY, model, representation, path)
        memory[f"{length} minutes"] = {
            "peak_memory_mb": round(memory_mb),
            "seconds": round(time.perf_counter() - start, 1),
        }
        path.unlink()
    about, expected = tagger.settings, tagger.about.expected
    return {
        "model": f"{about.dataset}, {about.profile}, {representation}",
        "architecture": tagger.about.architecture,
        "load_seconds": round(statistics.median(wall for wall, _ in loads), 2),
        "load_cpu_seconds": round(statistics.median(cpu for _, cpu in loads), 2),
        "ten_second_file_seconds": round(statistics.median(wall for wall, _ in tens), 3),
        "ten_second_file_cpu_seconds": round(statistics.median(cpu for _, cpu in tens), 3),
        "five_second_files_per_minute": round(FILES * 60 / five[0]),
        "five_second_file_cpu_seconds": round(five[1] / FILES, 3),
        "memory": memory,
        "temperature": tagger.about.temperature,
        "limit": tagger.about.limit,
        "foreign": expected.get("foreign", {}),
    }


def save_untrained(folder: Path, profile_name: str) -> Path:
    """Save networks of a profile as training finds them: as fast as trained ones, and ignorant."""
    import torch

    from freesound_tagging.learning.networks import build_network
    from freesound_tagging.learning.profiles import get_profile
    from freesound_tagging.learning.tagger import save
    from freesound_tagging.model import REPRESENTATIONS

    profile = get_profile(profile_name, "esc10")
    classes = [f"class {i}" for i in range(10)]
    about = {
        "architecture": profile.architecture,
        "width": profile.width,
        "mean": [0.5],
        "deviation": [0.25],
        "temperature": 1.0,
        "limit": 1e9,
        "expected": {},
    }
    settings = {
        "dataset": "untrained",
        "profile": profile_name,
        "sounds": {"clips": 0, "licence": "", "citation": ""},
        "classes": classes,
        "grid": asdict(profile.grid),
        "networks": dict.fromkeys(REPRESENTATIONS, about),
    }
    network = build_network(profile.architecture, len(classes), profile.width)
    width = [values for values in network.parameters() if values.ndim == 2][-1].shape[1]
    learned = {"mean": torch.zeros(width), "axes": torch.zeros(1, width), "spread": torch.ones(())}
    weights = network.state_dict() | {f"unknown.{name}": value for name, value in learned.items()}
    save(folder, settings, dict.fromkeys(REPRESENTATIONS, weights))
    return folder


def main() -> None:
    """Measure every network of the models named and keep the record of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", type=Path)
    untrained = "also the networks of this profile, without training: for time and memory alone"
    parser.add_argument("--untrained", metavar="PROFILE", help=untrained)
    parser.add_argument("--note", default="", help="what else ran, or what a model is worth")
    parser.add_argument("--minutes", type=int, nargs="+", default=[1, 60])
    options = parser.parse_args()
    import torch

    from freesound_tagging.learning.tagger import read_settings

    torch.set_num_threads(2)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        models = list(options.models)
        if options.untrained:
            models.append(save_untrained(Path(folder) / "untrained", options.untrained))
        for model in models:
            for representation in read_settings(model).networks:
                where = surroundings() | {"threads": 2, "note": options.note}
                measured = measure(model, representation, Path(folder), options.minutes)
                record[measured["model"]] = where | measured
                RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(RECORD.read_text())


if __name__ == "__main__":
    main()
