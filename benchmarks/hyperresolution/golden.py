"""The whole of the authors' MATLAB output, float64 and float32. Takes minutes.

python golden.py linear_reassignment_matlab.mat
"""

from __future__ import annotations

import sys
import time

import numpy as np
import record
import torch
from scipy.io import loadmat

from spectral_hyperresolution import high_resolution_spectrogram


def main() -> None:
    data = loadmat(sys.argv[1])
    names = ("q", "tdeci", "over", "noct", "minf", "maxf")
    setting = {name: data[name].item() for name in names}
    expected = data["result"].toarray()
    results = {"setting": setting, "shape": list(expected.shape)}
    for dtype in (torch.float64, torch.float32):
        start = time.perf_counter()
        result = high_resolution_spectrogram(data["x"], **setting, dtype=dtype).numpy()
        error = np.abs(result - expected).max() / expected.max()
        seconds = time.perf_counter() - start
        results[str(dtype)] = {"error_relative_to_peak": float(error), "seconds": seconds}
        print(dtype, results[str(dtype)])
    record.write("golden.json", results)


if __name__ == "__main__":
    main()
