"""Draws chirp_and_clicks.png beside itself. Needs librosa and matplotlib."""

from pathlib import Path

import librosa
import librosa.display
import matplotlib.pyplot as plt
import numpy as np

from spectral_hyperresolution import reassigned_spectrogram

SAMPLE_RATE, HOP = 22_050, 64


def main() -> None:
    t = np.arange(SAMPLE_RATE // 2) / SAMPLE_RATE
    rate = np.log(6000 / 400) / 0.5
    y = 0.1 * np.sin(2 * np.pi * 400 * np.expm1(rate * t) / rate)  # a glide from 400 Hz to 6 kHz
    y[np.round(np.arange(0.025, 0.5, 0.05) * SAMPLE_RATE).astype(int)] += 0.9
    y += 1e-4 * np.random.default_rng(0).standard_normal(len(y))
    stft = np.abs(librosa.stft(y, n_fft=1024, hop_length=HOP)) ** 2
    power, frequencies, times = reassigned_spectrogram(
        y, sr=SAMPLE_RATE, q=2, hop_length=HOP, fmin=200, bins_per_octave=48, return_axes=True
    )
    pictures = [
        ("STFT, Hann window of 46 ms", stft, librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=1024)),
        ("linear reassignment, q = 2", power, frequencies),
    ]
    figure, axes = plt.subplots(1, 2, figsize=(9, 3.2), sharey=True, layout="constrained")
    for axis, (title, values, rows) in zip(axes, pictures, strict=True):
        librosa.display.specshow(
            librosa.power_to_db(values, ref=np.max, top_db=60),
            x_coords=times,
            y_coords=rows,
            x_axis="time",
            y_axis="log",
            cmap="magma",
            ax=axis,
        )
        axis.set(title=title, ylim=(200, SAMPLE_RATE / 2), xlabel="time (s)", ylabel="")
    axes[0].set_ylabel("frequency (Hz)")
    figure.savefig(Path(__file__).with_name("chirp_and_clicks.png"), dpi=110)


if __name__ == "__main__":
    main()
