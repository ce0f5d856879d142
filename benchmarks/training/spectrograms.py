"""Spectrograms a second that EfficientNet-Lite0 trains on with one core, setting by setting.

    python spectrograms.py [--steps N]

A spectrogram is one channel of 224 rows and 140 columns of noise, as in the profile `pretrained`; a
step is 32 of them: forward, backward, AdamW. Each setting runs in a process of its own, because how
memory is handled belongs to a process. They are counted per second of the processor's time, which
other work on the machine disturbs less than the wall clock; the load is recorded beside them.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import torch
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from freesound_tagging.learning.learner import prepare_cpu
from freesound_tagging.learning.networks import build_network

sys.path.append(str(Path(__file__).resolve().parents[1]))
from surroundings import surroundings

RECORD = Path(__file__).with_suffix(".json")
BATCH = 32
CASES = {
    "rows first": {"channels_last": False},
    "channels last": {},
    "memory kept": {"keep_memory": True},
    "memory kept, the package's own padding and ReLU6": {"keep_memory": True, "package": True},
    "scoring": {"keep_memory": True, "scoring": True},
}
"""The settings by name; each adds to plain training of all layers."""


def measure(
    steps: int,
    channels_last: bool = True,
    keep_memory: bool = False,
    package: bool = False,
    scoring: bool = False,
) -> dict:
    """Return spectrograms per second of processor time, and the system's share of that time."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    if keep_memory:
        prepare_cpu()
    network = build_network("efficientnet_lite0", 10)
    if package:
        network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    network.to(memory_format=layout)
    batch = torch.randn(BATCH, 1, 224, 140).expand(-1, 3, -1, -1).to(memory_format=layout)
    targets = torch.arange(BATCH) % 10
    network.train(not scoring)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step() -> None:
        if scoring:
            with torch.no_grad():
                network(batch)
            return
        nn.functional.cross_entropy(network(batch), targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(3):  # the first ones fetch memory
        step()
    start, wall = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    for _ in range(steps):
        step()
    wall = time.perf_counter() - wall
    end = resource.getrusage(resource.RUSAGE_SELF)
    system = end.ru_stime - start.ru_stime
    processor = system + end.ru_utime - start.ru_utime
    return {
        "spectrograms_per_processor_second": round(BATCH * steps / processor, 1),
        "spectrograms_per_second": round(BATCH * steps / wall, 1),
        "share_of_the_system": round(system / processor, 3),
    }


def main() -> None:
    """Measure every setting and write the record."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=6, help="steps of each setting")
    parser.add_argument(
        "--case", choices=CASES, help="measure one setting, print it, write nothing"
    )
    arguments = parser.parse_args()
    if arguments.case:
        print(json.dumps(measure(arguments.steps, **CASES[arguments.case])))
        return
    where, found = surroundings(), {}
    for name in CASES:
        command = [sys.executable, __file__, "--steps", str(arguments.steps), "--case", name]
        found[name] = json.loads(subprocess.check_output(command, text=True).splitlines()[-1])
        print(f"{name:36s} {found[name]}", flush=True)
    record = {
        **where,
        "command": " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]]),
        "torch": torch.__version__,
        "settings": found,
    }
    RECORD.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
