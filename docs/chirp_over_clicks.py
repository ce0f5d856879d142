"""Draw the picture at the top of README.md: python docs/chirp_over_clicks.py"""

from pathlib import Path

import librosa
import librosa.display
import matplotlib.pyplot as plt
import numpy as np
import torch

from spectral_hyperresolution import LinearReassignment

SAMPLE_RATE, SECONDS, HOP = 22_050, 0.6, 88

t = np.arange(round(SAMPLE_RATE * SECONDS)) / SAMPLE_RATE
waveform = 0.3 * np.sin(2 * np.pi * (400 * t + 3_000 * t**2)).astype(np.float32)
waveform[1_000::2_205] += 3  # ten clicks a second
transform = LinearReassignment(
    SAMPLE_RATE, q=2.0, hop_length=HOP, bins_per_octave=30, fmin=200, fmax=8_000
)
panels = {}
for n_fft in (2048, 256):
    power = np.abs(librosa.stft(waveform, n_fft=n_fft, hop_length=HOP)) ** 2
    times = librosa.frames_to_time(np.arange(power.shape[1]), sr=SAMPLE_RATE, hop_length=HOP)
    name = f"STFT, window of {1000 * n_fft / SAMPLE_RATE:.0f} ms"
    panels[name] = (power, librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=n_fft), times)
power = transform(torch.from_numpy(waveform)).numpy()
panels["linear reassignment, q = 2"] = (
    power,
    transform.frequencies,
    transform.times(len(waveform)),
)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), sharey=True, layout="constrained")
for ax, (title, (power, frequencies, times)) in zip(axes, panels.items(), strict=True):
    image = librosa.display.specshow(
        librosa.power_to_db(power, ref=np.max, top_db=50),
        x_coords=np.asarray(times),
        y_coords=np.asarray(frequencies),
        x_axis="s",
        y_axis="log",
        cmap="magma",
        ax=ax,
    )
    ax.set_ylim(200, 8_000)
    ax.set_title(title)
    ax.set_xlabel("time (s)")
    ax.set_ylabel("")
axes[0].set_ylabel("frequency (Hz)")
figure.colorbar(image, ax=axes, label="dB below the loudest point")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=100, metadata={"Software": None})
