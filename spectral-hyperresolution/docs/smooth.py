"""Draws smooth.png beside itself: what smoothing does to a hiss and to a tone.

Needs librosa and matplotlib.
"""

from pathlib import Path

import librosa
import matplotlib.pyplot as plt
import numpy as np

from spectral_hyperresolution import reassigned_spectrogram

SAMPLE_RATE = 22_050


def main() -> None:
    t = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    y = np.random.default_rng(0).standard_normal(SAMPLE_RATE)
    y += 3 * np.sin(2 * np.pi * 1000 * t)
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    for axis, smooth in zip(axes, (0, 1), strict=True):
        power, frequencies, times = reassigned_spectrogram(
            y, sr=SAMPLE_RATE, q=4, fmin=200, smooth=smooth, return_axes=True
        )
        librosa.display.specshow(
            librosa.power_to_db(power, ref=np.max, top_db=60),
            x_coords=times,
            y_coords=frequencies,
            x_axis="time",
            y_axis="log",
            cmap="magma",
            ax=axis,
        )
        axis.set(title=f"smooth={smooth}: {np.mean(power == 0):.0%} of the cells empty", ylabel="")
        axis.set(xlabel="time (s)")
    axes[0].set_ylabel("frequency (Hz)")
    figure.savefig(Path(__file__).with_suffix(".png"), dpi=100, metadata={"Software": None})


if __name__ == "__main__":
    main()
