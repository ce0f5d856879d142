"""The numbers are frozen: a change of any is a new version.

``python tests/test_frozen.py`` writes frozen.npz anew.
"""

import hashlib
import platform
from pathlib import Path

import numba
import numpy as np
import pytest
import signals
import torch

from spectral_hyperresolution import LinearReassignment

RATE = 8000
FROZEN = Path(__file__).with_name("frozen.npz")
SIGNALS = {
    "bird": signals.bird(RATE, 0.5),
    "chirp and clicks": signals.chirp_and_clicks(RATE, 0.5)
    + signals.noise(RATE, 0.5, amplitude=1e-3),
    "noise of an odd length": signals.noise(RATE, 0.5)[:3989],
}
CASES = [(q, reassign) for q in (1.0, 2.0, 4.0, 8.0) for reassign in (True, False)]


def codes(q: float, reassign: bool) -> np.ndarray:
    """The pictures of all signals in dB, 255 the loudest cell, 0 80 dB below it or less."""
    transform = LinearReassignment(
        RATE, q=q, hop_length=80, bins_per_octave=12, fmin=100.0, reassign=reassign
    )
    pictures = []
    for x in SIGNALS.values():
        power = transform(torch.from_numpy(x)).numpy()
        level = 10 * np.log10(np.maximum(power / power.max(), 1e-8))
        pictures.append(np.round(255 * (1 + level / 80)).astype(np.uint8))
    return np.stack(pictures)


@pytest.mark.parametrize(("q", "reassign"), CASES)
def test_codes_are_those_of_version_1(q, reassign):
    found, expected = codes(q, reassign), np.load(FROZEN)[f"{q:g} {reassign}"]
    # Other processors round otherwise, and a point on the edge of two cells falls to either.
    different = found != expected
    assert different.mean() < 2e-3
    features = str(numba.config.CPU_FEATURES or numba.core.codegen.get_host_cpu_features())
    if platform.machine() in ("x86_64", "AMD64") and "+fma" in features:
        assert hashlib.sha256(found).hexdigest() == hashlib.sha256(expected).hexdigest()


if __name__ == "__main__":
    np.savez_compressed(
        FROZEN, **{f"{q:g} {reassign}": codes(q, reassign) for q, reassign in CASES}
    )
