"""How long `make run` and `make test` take, and their peak memory: ``python commands.py run test``.

Run it in an installed clone, on an idle machine. Memory is the sum over the command and all
processes it starts, sampled every four seconds; a page that several share counts once in all (PSS),
where the system tells it, which Linux does.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import psutil

sys.path.append(str(Path(__file__).resolve().parents[1]))
from surroundings import surroundings

ROOT = Path(__file__).resolve().parents[2]
RECORD = Path(__file__).with_suffix(".json")


def tree_memory(process: psutil.Process) -> int:
    """Return the bytes in memory of a process and its descendants."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            memory = member.memory_full_info()
            total += getattr(memory, "pss", memory.rss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # it ended between the listing and the look
    return total


def measure(command: list[str]) -> dict:
    """Run a command in the repository and return its seconds, exit status and peak memory."""
    start, peak = time.perf_counter(), 0
    running = subprocess.Popen(command, cwd=ROOT)
    process = psutil.Process(running.pid)
    while running.poll() is None:
        try:
            peak = max(peak, tree_memory(process))
        except psutil.NoSuchProcess:
            break
        time.sleep(4)  # a look at shared pages costs a fair part of a second
    return {
        "command": " ".join(command),
        "exit_status": running.wait(),
        "seconds": round(time.perf_counter() - start, 1),
        "peak_memory_gb": round(peak / 1e9, 2),
    }


def main() -> None:
    """Measure the targets named on the command line and keep the record of the others."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+", choices=["run", "test"])
    targets = parser.parse_args().targets
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for target in targets:
        record[target] = {**surroundings(), **measure(["make", target])}
        RECORD.write_text(json.dumps(record, indent=1) + "\n")
        print(json.dumps(record[target], indent=1))


if __name__ == "__main__":
    main()
