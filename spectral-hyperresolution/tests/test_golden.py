"""The authors' MATLAB output: an excerpt that is always here, and the file where it is at hand."""

from pathlib import Path

import numpy as np
import pytest
import scipy.fft

from spectral_hyperresolution import exact
from spectral_hyperresolution.settings import Settings

EXCERPT = Path(__file__).with_name("golden_excerpt.npz")
GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "linear_reassignment_matlab.mat"

GRID = {"q": 2, "hop_length": 450, "fmax": 0.45, "bins_per_octave": 12, "oversampling": 20}

# Within a few bins of maxf the Gaussians reach Nyquist, where they are cut off and ring on through
# the whole recording; an excerpt cannot know that ringing.
FIRST_LOCAL_COLUMN = 7


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float64, 1e-9), (np.float32, 1e-4)], ids=["float64", "float32"]
)
def test_excerpt_of_the_matlab_output(dtype, tolerance):
    data = np.load(EXCERPT)
    samples = data["samples"] / 2**23
    settings = Settings(1.0, fmin=4e-3, **GRID)
    energy = count = 0
    for channel in samples.T.astype(dtype):
        spectrum = scipy.fft.rfft(np.ascontiguousarray(channel))
        e, c = exact.histograms(spectrum, len(channel), settings)
        energy, count = energy + e, count + c
    energy[count < data["least_count"]] = 0  # the threshold of the whole recording
    ours = energy[::-1].T[10:22, FIRST_LOCAL_COLUMN:]
    theirs = data["result"][:, FIRST_LOCAL_COLUMN:]
    # relative to the excerpt's own peak, which is stricter than the whole recording's
    assert np.abs(ours - theirs).max() <= tolerance * theirs.max()
    if dtype == np.float64:
        assert np.array_equal(ours > 0, theirs > 0)


@pytest.mark.skipif(not GOLDEN.exists(), reason=f"needs the authors' MATLAB output, {GOLDEN.name}")
def test_rows_of_the_matlab_output_over_the_whole_recording():
    """Two highest bins, both channels, all samples; golden.py compares every bin, in minutes."""
    scipy_io = pytest.importorskip("scipy.io")
    data = scipy_io.loadmat(GOLDEN)
    # A higher minf on the same scan lines: bins near maxf need only the lines around them.
    minf = 4e-3 * 2 ** (1580 / 240)
    settings = Settings(1.0, fmin=minf, **GRID)
    assert settings.n_rows == 4
    energy = 0
    for channel in np.ascontiguousarray(data["x"].T):
        energy = energy + exact.histograms(scipy.fft.rfft(channel), len(channel), settings)[0]
    theirs = data["result"].toarray()[:, :2]
    ours = energy[::-1].T[:, :2] * (theirs > 0)  # the threshold is the whole picture's
    assert np.abs(ours - theirs).max() <= 1e-9 * theirs.max()
    assert np.count_nonzero(theirs) > 500
