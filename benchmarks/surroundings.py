"""Where a measurement was made; the other folders put it into their records."""

import os
import platform
from datetime import datetime, timezone
from pathlib import Path


def processor() -> str:
    """Return the processor's name, where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()


def surroundings() -> dict:
    """Return date, machine, and how busy it is before the measurement: 0 is idle."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
