"""What a full run costs, measured on the archives of stand_in.py.

    python full_size.py table stages generate loading --mirror FOLDER --work FOLDER [--clips 512]

- table: archives -> clip table: unpack, check every clip, join the folds; the second time from disk
- stages: one core, one clip after another: decode, resample, crop, each channel, encode
- generate: every channel of the clips into the store, all cores; peak memory, bytes on disk
- loading: pictures a second out of the loader alone, through the network alone, and of both

With --clips the last three take so many clips, spread evenly over the table; the record then gives
what that makes for all of them and calls it computed. Run it on an idle machine.
"""

import argparse
import json
import os
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import joblib
import pandas as pd
import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "pipeline"))
from commands import processor, tree_memory

from freesound_tagging import datasets, store
from freesound_tagging.clips import ClipSettings, best_centred_crop, decode, resample
from freesound_tagging.dataloaders import make_dataloaders
from freesound_tagging.profiles import best_device, get_profile
from freesound_tagging.spectrograms import compute_channels, encode
from freesound_tagging.training import make_learner
from freesound_tagging.variants import VARIANTS, channels_of

RECORD = Path(__file__).with_suffix(".json")
PROFILE = replace(get_profile("gpu", "fsdkaggle2018"), folds=1)
LOADED = "3ch_hires_q1_q8_log_db"
"""Three planes: the most that a loader has to bring."""


class PeakMemory:
    """The most bytes in memory of this process and those it starts, looked at every two seconds."""

    def __enter__(self) -> "PeakMemory":
        self.bytes, self._done = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(2):
            self.bytes = max(self.bytes, tree_memory(psutil.Process()))

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def seconds_of(work: Callable[[], object]) -> tuple[float, object]:
    """Return how long a call took, and its result."""
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def measure_table(work: Path) -> dict:
    """Time the way from the archives to the clip table, and again with everything unpacked."""
    unpacked = (work / "fsdkaggle2018").is_dir()
    first, table = seconds_of(lambda: datasets.load("fsdkaggle2018", work))
    again, _ = seconds_of(lambda: datasets.load("fsdkaggle2018", work))
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
    settings = ClipSettings(grid.sample_rate, grid.duration)
    compute_channels(torch.randn(grid.n_samples), names, grid)  # compile and plan before timing
    spent = defaultdict(float)
    for path in table["path"]:
        seconds, (waveform, rate) = seconds_of(lambda path=path: decode(path))
        spent["decode"] += seconds
        seconds, waveform = seconds_of(
            lambda w=waveform, r=rate: resample(w, r, settings.sample_rate)
        )
        spent["resample"] += seconds
        seconds, crop = seconds_of(
            lambda w=waveform: best_centred_crop(w, settings.sample_rate, settings.duration)
        )
        spent["crop"] += seconds
        crop = torch.from_numpy(crop)
        for name in names:
            seconds, found = seconds_of(lambda c=crop, n=name: compute_channels(c, [n], grid)[n])
            spent[name] += seconds
            seconds, _ = seconds_of(lambda f=found: encode(f))
            spent["encode all"] += seconds
        # As the store computes them: those of several q together.
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
    with PeakMemory() as peak:
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
        "peak_memory_gb": round(peak.bytes / 1e9, 2),
        "store_gb": round(size / 1e9, 3),
    }
    if scale > 1:
        figures["computed_for_all"] = {
            "clips": whole,
            "minutes": round(seconds * scale / 60, 1),
            "store_gb": round(size * scale / 1e9, 2),
        }
    return figures


def measure_loading(table: pd.DataFrame, folder: Path, steps: int) -> dict:
    """Compare what the loader brings with what the network takes, over the same batches."""
    pictures = store.build(table, channels_of([LOADED]), PROFILE.grid, folder, progress=False)
    table = table[table["split"] == "train"]
    device = best_device()
    loaders = make_dataloaders(table, pictures, LOADED, 0, PROFILE, device)
    learner = make_learner(loaders, replace(PROFILE, architecture="resnext50_32x4d"))
    network, loss, size = learner.model.train(), learner.loss_func, loaders.train.bs
    optimizer = torch.optim.AdamW(network.parameters())

    def step(batch: tuple) -> None:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
            error = loss(network(batch[0]), batch[1])
        error.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    batches = [batch for batch, _ in zip(loaders.train, range(steps), strict=False)]
    step(batches[0])  # the first one plans
    alone, _ = seconds_of(lambda: [None for _ in loaders.train])
    taken, _ = seconds_of(lambda: [step(batch) for batch in batches])
    both, _ = seconds_of(
        lambda: [step(batch) for batch, _ in zip(loaders.train, range(steps), strict=False)]
    )
    n = len(batches) * size
    return {
        "variant": LOADED,
        "architecture": PROFILE.architecture,
        "batch_size": size,
        "steps": len(batches),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "pictures_a_second": {
            "loader alone": round(len(loaders.train) * size / alone, 1),
            "network alone": round(n / taken, 1),
            "both": round(n / both, 1),
        },
    }


def main() -> None:
    """Make the measurements named on the command line and keep the record of the others."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="+", choices=["table", "stages", "generate", "loading"])
    parser.add_argument("--mirror", type=Path, required=True, help="where stand_in.py wrote")
    parser.add_argument("--work", type=Path, required=True, help="where sounds and store go")
    parser.add_argument("--clips", type=int, help="so many clips in place of all")
    parser.add_argument("--steps", type=int, default=2, help="batches of loading")
    options = parser.parse_args()
    os.environ["DATA_MIRROR"] = str(options.mirror)
    options.work.mkdir(parents=True, exist_ok=True)
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for what in options.what:
        load_average = os.getloadavg()[0]
        if what == "table":
            figures = measure_table(options.work)
        else:
            table = datasets.load("fsdkaggle2018", options.work)
            part = table.iloc[:: max(1, len(table) // options.clips)] if options.clips else table
            folder = options.work / f"store-{len(part)}"
            if what == "stages":
                figures = measure_stages(part)
            elif what == "generate":
                figures = measure_generation(part, len(table), folder)
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
