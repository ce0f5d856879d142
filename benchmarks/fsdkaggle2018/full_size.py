"""What a full run costs, measured on the archives of stand_in.py.

    python full_size.py table stages generate restart loading fold --mirror FOLDER --work FOLDER

- table: archives -> clip table: unpack, check every clip, join the folds; the second time from disk
- stages: one core, one clip after another: decode, resample, crop, each channel, encode
- generate: every channel of the clips into the store, all cores; peak memory, bytes on disk
- restart: the same again in another folder, with kill -9 at three moments; needs that of generate
- loading: pictures a second out of the loader alone (gathered in memory, which is all that a CPU
  beside a GPU has to do; and made floats), through each network alone, and of both
- fold: one fold of all clips, two epochs; needs the store of generate

With --clips all but the first take so many clips, spread evenly over the table; the record of
generate then gives what that makes for all of them and calls it computed. Run it on an idle
machine.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipeline"))
from commands import tree_memory
from surroundings import processor

from freesound_tagging.features import store
from freesound_tagging.features.codes import encode
from freesound_tagging.features.representations import VARIANTS, channels_of, compute_channels
from freesound_tagging.learning.dataloaders import make_dataloaders
from freesound_tagging.learning.learner import make_learner
from freesound_tagging.learning.networks import best_device
from freesound_tagging.learning.profiles import get_profile
from freesound_tagging.runs import run_grid
from freesound_tagging.sounds import catalogue
from freesound_tagging.sounds.clips import best_centred_crop, decode, resample

STEPS = ["table", "stages", "generate", "restart", "loading", "fold"]
RECORD = Path(__file__).with_suffix(".json")
PROFILE = replace(get_profile("gpu", "fsdkaggle2018"), folds=1)
FOLD = replace(PROFILE, architecture="compact", frozen_epochs=1, epochs=1)
"""The full pictures and clips, the smoke profile's network and epochs: it ends on two cores."""
LOADED = "3ch_hires_q1_q8_log_db"
"""Three planes: the most that a loader has to bring."""


class MemoryOverTime:
    """Bytes in memory of this process and those it starts, looked at every two seconds."""

    def __enter__(self) -> "MemoryOverTime":
        self.samples, self._done = [tree_memory(psutil.Process())], threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(2):
            self.samples.append(tree_memory(psutil.Process()))

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def peaks_gb(self, parts: int = 10) -> list[float]:
        """Return the most of each tenth of the time: flat memory shows as equal numbers."""
        pieces = np.array_split(np.array(self.samples), parts)
        return [round(float(piece.max()) / 1e9, 2) for piece in pieces if len(piece)]


def seconds_of(work: Callable[[], object]) -> tuple[float, object]:
    """Return how long a call took, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure_table(work: Path) -> dict:
    """Time the way from the archives to the clip table, and again with everything unpacked."""
    unpacked = (work / "fsdkaggle2018").is_dir()
    first, table = seconds_of(lambda: catalogue.load("fsdkaggle2018", work))
    again, _ = seconds_of(lambda: catalogue.load("fsdkaggle2018", work))
    size = sum(Path(path).stat().st_size for path in table["path"])
    return {
        "clips": len(table),
        "gigabytes": round(size / 1e9, 2),
        "seconds_from_archives": None if unpacked else round(first, 1),
        "seconds_unpacked": round(again, 1),
    }


def measure_stages(table: pd.DataFrame) -> dict:
    """Time each stage of each clip on one core, each channel by itself."""
    torch.set_num_threads(1)
    grid, names = PROFILE.grid, channels_of(VARIANTS)
    compute_channels(torch.randn(grid.n_samples), names, grid)  # compile and plan before timing
    spent = defaultdict(float)
    for path in table["path"]:
        seconds, (waveform, rate) = seconds_of(lambda path=path: decode(path))
        spent["decode"] += seconds
        seconds, waveform = seconds_of(lambda w=waveform, r=rate: resample(w, r, grid.sample_rate))
        spent["resample"] += seconds
        seconds, crop = seconds_of(
            lambda w=waveform: best_centred_crop(w, grid.sample_rate, grid.duration)
        )
        spent["crop"] += seconds
        crop = torch.from_numpy(crop)
        for name in names:
            seconds, found = seconds_of(lambda c=crop, n=name: compute_channels(c, [n], grid)[n])
            spent[name] += seconds
            seconds, _ = seconds_of(lambda f=found: encode(f))
            spent["encode all"] += seconds
        # As the store computes them: all of a clip in one call.
        seconds, _ = seconds_of(lambda c=crop: compute_channels(c, names, grid))
        spent["all channels together"] += seconds
    return {
        "clips": len(table),
        "clips_a_second_one_core": {
            stage: round(len(table) / seconds, 1) for stage, seconds in spent.items()
        },
    }


def measure_generation(table: pd.DataFrame, whole: int, folder: Path) -> dict:
    """Fill an empty store with every channel and return time, memory and bytes."""
    if folder.exists():
        raise SystemExit(f"{folder} is there already: what it holds would not be computed again")
    names = channels_of(VARIANTS)
    with MemoryOverTime() as memory:
        seconds, _ = seconds_of(lambda: store.build(table, names, PROFILE.grid, folder))
    again, _ = seconds_of(lambda: store.build(table, names, PROFILE.grid, folder, progress=False))
    size = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    scale = whole / len(table)
    figures = {
        "clips": len(table),
        "workers": joblib.cpu_count(),
        "seconds": round(seconds, 1),
        "clips_a_second": round(len(table) / seconds, 1),
        "seconds_when_all_is_there": round(again, 1),
        "peak_memory_gb": max(memory.peaks_gb()),
        "peak_memory_gb_by_tenth_of_the_time": memory.peaks_gb(),
        "store_gb": round(size / 1e9, 3),
    }
    if scale > 1:
        figures["computed_for_all"] = {
            "clips": whole,
            "minutes": round(seconds * scale / 60, 1),
            "store_gb": round(size * scale / 1e9, 2),
        }
    return figures


def fill(work: str, folder: str, clips: int | None) -> None:
    """Fill a store: what `measure_restart` starts as a program of its own, to kill it."""
    table = catalogue.load("fsdkaggle2018", work)
    store.build(spread(table, clips), channels_of(VARIANTS), PROFILE.grid, folder)


def measure_restart(
    table: pd.DataFrame, work: Path, whole: Path, folder: Path, clips: int | None
) -> dict:
    """Kill a generation at three moments, let it end, and compare every file with the whole one's.

    Twice all processes of it are killed, once the parent alone, whose workers notice by themselves.
    """
    if not whole.exists() or folder.exists():
        raise SystemExit(f"restart needs the store of generate ({whole}) and no {folder}")
    program = f"import full_size; full_size.fill({str(work)!r}, {str(folder)!r}, {clips})"
    moments = random.Random(0)
    kills, seconds = [], 0.0
    for victim in ("all processes", "the parent", "all processes", None):
        before = stamps(folder)
        process = subprocess.Popen(
            [sys.executable, "-c", program], cwd=Path(__file__).parent, start_new_session=True
        )
        after = len(table) / 60 * moments.uniform(0.5, 1.5) if victim else None
        try:
            spent, _ = seconds_of(lambda p=process, a=after: p.wait(a))
        except subprocess.TimeoutExpired:
            spent = after
            (os.killpg if victim == "all processes" else os.kill)(process.pid, signal.SIGKILL)
            process.wait()
        found = stamps(folder)
        seconds += spent
        kills.append(
            {
                "killed": victim,
                "after_seconds": round(spent, 1),
                "files_there": len(found),
                "files_made_before_and_made_again": sum(
                    found[name] != stamp for name, stamp in before.items()
                ),
            }
        )
    return {
        "clips": len(table),
        "clips_of_a_batch": store.BATCH_CLIPS,
        "workers": joblib.cpu_count(),
        "runs": kills,
        "seconds_of_all_runs": round(seconds, 1),
        "same_bytes_as_without_kills": contents(whole) == contents(folder),
        "half_files_left": len(list(folder.glob("*/.*.safetensors.*"))),
    }


def stamps(folder: Path) -> dict[str, int]:
    """Return when each file of a store was written."""
    files = folder.glob("*/[!.]*.safetensors")
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


def contents(folder: Path) -> dict[str, str]:
    """Return the hash of each file of a store."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in stamps(folder)
    }


def measure_loading(table: pd.DataFrame, folder: Path, steps: int) -> dict:
    """Compare what the loader brings with what each network takes, step by step in turn."""
    pictures = store.build(table, channels_of([LOADED]), PROFILE.grid, folder, progress=False)
    table = table[table["split"] == "train"]
    device = best_device()
    networks = {}
    for architecture in ("compact", "resnext50_32x4d"):
        profile = replace(PROFILE, architecture=architecture)
        loaders = make_dataloaders(table, pictures, LOADED, 0, profile, device)
        learner = make_learner(loaders, profile)
        network, loss, size = learner.model.train(), learner.loss_func, loaders.train.bs
        optimizer = torch.optim.AdamW(network.parameters())

        def step(batch: tuple, network=network, loss=loss, optimizer=optimizer) -> None:
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                error = loss(network(batch[0]), batch[1])
            error.backward()
            optimizer.step()
            if device.type == "cuda":
                torch.cuda.synchronize()

        brought = iter(loaders.train)
        ready = next(brought)
        step(ready)  # the first one plans
        alone = both = 0.0
        for _ in range(steps):
            alone += seconds_of(lambda s=step, b=ready: s(b))[0]
            both += seconds_of(lambda s=step, b=brought: s(next(b)))[0]
        networks[architecture] = {
            "network alone": round(steps * size / alone, 1),
            "loader and network": round(steps * size / both, 1),
        }
    train = loaders.train
    whole, n = seconds_of(lambda: sum(size for _ in train))
    gathered, n = seconds_of(lambda: sum(size for _ in train.create_batches(train.get_idxs())))
    return {
        "variant": LOADED,
        "batch_size": size,
        "steps": steps,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "pictures_a_second": {
            "gathered": round(n / gathered, 1),
            "loader alone": round(n / whole, 1),
            **networks,
        },
    }


def train_fold(work: str, folder: str, runs: str, clips: int | None) -> None:
    """Make one run of `FOLD`: what `measure_fold` starts as a program of its own."""
    table = spread(catalogue.load("fsdkaggle2018", work), clips)
    pictures = store.build(table, channels_of([LOADED]), FOLD.grid, folder, progress=False)
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    results = run_grid(train, pictures, [LOADED], FOLD, runs, test=test, n_jobs=1)
    results.to_csv(Path(runs) / "results.csv", index=False)


def measure_fold(table: pd.DataFrame, work: Path, folder: Path, clips: int | None) -> dict:
    """Train a fold of all clips in a program of its own."""
    place = work / f"fold-{len(table)}"
    shutil.rmtree(place, ignore_errors=True)
    arguments = ", ".join(map(repr, map(str, (work, folder, place))))
    program = f"import full_size; full_size.train_fold({arguments}, {clips})"
    command = [sys.executable, "-c", program]
    with MemoryOverTime() as memory:
        run = partial(subprocess.run, command, cwd=Path(__file__).parent, check=True)
        seconds, _ = seconds_of(run)
    row = pd.read_csv(place / "results.csv").iloc[0]
    return {
        "variant": LOADED,
        "architecture": FOLD.architecture,
        "threads": 1,
        "epochs": FOLD.frozen_epochs + FOLD.epochs,
        "clips_trained_held_out_and_of_the_test_split": [
            int((table["split"] == "train").sum()) - int(row["n"]),
            int(row["n"]),
            int((table["split"] == "test").sum()),
        ],
        "seconds_of_the_run": row["seconds"],
        "seconds_with_start_and_reading": round(seconds, 1),
        "peak_memory_gb": max(memory.peaks_gb()),
        "top3_error_after_so_few_epochs": row["top3_error"],
    }


def spread(table: pd.DataFrame, clips: int | None) -> pd.DataFrame:
    """Return so many clips, or a few more, spread evenly over a table; all by default."""
    return table.iloc[:: max(1, len(table) // clips)] if clips else table


def main() -> None:
    """Make the measurements named on the command line and keep the record of the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=STEPS)
    parser.add_argument("--mirror", type=Path, required=True, help="where stand_in.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="where sounds and store go")
    parser.add_argument("--clips", type=int, help="so many clips in place of all")
    parser.add_argument("--steps", type=int, default=6, help="batches a network")
    options = parser.parse_args()
    os.environ["DATA_MIRROR"] = str(options.mirror)
    options.work.mkdir(parents=True, exist_ok=True)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for what in options.what:
        load_average = os.getloadavg()[0]
        if what == "table":
            figures = measure_table(options.work)
        else:
            table = catalogue.load("fsdkaggle2018", options.work)
            part = spread(table, options.clips)
            folder = options.work / f"store-{len(part)}"
            if what == "stages":
                figures = measure_stages(part)
            elif what == "generate":
                figures = measure_generation(part, len(table), folder)
            elif what == "restart":
                restarted = folder.with_name(folder.name + "-restarted")
                figures = measure_restart(part, options.work, folder, restarted, options.clips)
            elif what == "fold":
                figures = measure_fold(part, options.work, folder, options.clips)
            else:
                figures = measure_loading(part, folder, options.steps)
        record[what] = {
            "date": time.strftime("%Y-%m-%d", time.gmtime()),
            "machine": f"{processor()}, {os.cpu_count()} cores",
            "load_average_before": round(load_average, 2),
            **figures,
        }
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps({what: record[what]}, indent=1), flush=True)


if __name__ == "__main__":
    main()
