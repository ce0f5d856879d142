"""Draw the pictures of the glossary in README.md: one generated sound in every representation.

python notebooks/glossary.py    writes notebooks/pictures/<representation>.png
"""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from PIL import Image

from freesound_tagging.features import plots
from freesound_tagging.features.codes import decoding_table, encode
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import VARIANTS, get_channel
from freesound_tagging.sounds import microcalls

FOLDER = Path(__file__).resolve().parent / "pictures"
GRID = Grid(duration=1.3, fmin=400.0, fmax=6_000.0)
TICKS = [1_000, 2_000, 4_000]  # Hz


def planes(waveform: np.ndarray, name: str) -> np.ndarray:
    """Return what a network sees of a waveform: floats 0 to 1, (channels, rows, columns)."""
    seen = []
    for channel, loudness in VARIANTS[name].planes:
        declared = get_channel(channel)
        values = declared.compute(torch.from_numpy(waveform), GRID)
        codes = encode(values, declared.limits(GRID))
        seen.append(decoding_table(loudness)[codes.int()].numpy())
    return np.stack(seen)


def draw(waveform: np.ndarray, name: str) -> None:
    """Write the picture of one representation, 320 pixels wide, in 32 colours."""
    figure, ax = plt.subplots(figsize=(3.2, 2.2), layout="constrained")
    axes = plots.spectrogram_axes(VARIANTS[name], GRID)
    plots.show_planes(planes(waveform, name), axes, ax=ax)
    if axes.frequencies is not None:
        ax.set_yticks(TICKS, map(str, TICKS))
        ax.set_yticks([], minor=True)
    ax.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    figure.canvas.draw()
    pixels = Image.fromarray(np.asarray(figure.canvas.buffer_rgba())).convert("RGB")
    pixels.quantize(32, dither=Image.Dither.NONE).save(FOLDER / f"{name}.png", optimize=True)
    plt.close(figure)


if __name__ == "__main__":
    plots.use_style()
    FOLDER.mkdir(exist_ok=True)
    random = microcalls.clip_rng(0, "trill_slow", 1)
    sound = microcalls.synthesise("trill_slow", random, duration=GRID.duration, snr_db=20)
    for representation in VARIANTS:
        draw(sound, representation)
