"""What every record of a benchmark says about where it was made."""

from __future__ import annotations

import json
import os
import platform
import sys
from datetime import datetime, timezone
from pathlib import Path

import librosa
import numba
import numpy as np
import scipy
import torch

sys.path.append(str(Path(__file__).resolve().parents[1]))
from surroundings import processor


def write(name: str, results: dict) -> None:
    """Write `results` with machine, date, command and versions to NAME beside this file."""
    record = {
        "date": datetime.now(timezone.utc).date().isoformat(),
        "machine": f"{processor()}, {os.cpu_count()} cores",
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": "python " + " ".join([Path(sys.argv[0]).name, *public_arguments()]),
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, numba, np, scipy)},
            "librosa": librosa.__version__,
        },
        **results,
    }
    path = Path(__file__).with_name(name)
    path.write_text(json.dumps(record, indent=1) + "\n")
    print(f"wrote {path.name}")


def public_arguments() -> list[str]:
    """The command line without the folders of this machine."""
    return ["FOLDER" if "/" in argument else argument for argument in sys.argv[1:]]
