"""Where a measurement was made; the other folders put it into their records."""

import os
import platform
from datetime import datetime, timezone
from pathlib import Path


def processor() -> str:
    """Return the processor's name, where the system tells it, and which one of that name it is."""
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.exists():
        return platform.machine()
    first = cpuinfo.read_text().partition("\n\n")[0]
    lines = [line.partition(":") for line in first.splitlines()]
    told = {key.strip(): value.strip() for key, _, value in lines}
    which = [f"{key} {told[key]}" for key in ("cpu family", "model") if key in told]
    return ", ".join([told.get("model name", platform.machine()), *which])


def surroundings() -> dict:
    """Return date, machine, and how busy it is before the measurement: 0 is idle."""
    return {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores, {platform.system()}",
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }
