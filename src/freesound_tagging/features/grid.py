"""The time-frequency grid that all channels share."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """The same rows, columns and range for every channel.

    With one frame a column, a click between two short windows is all but lost: its energy varies by
    15 dB with its place where the window is 512 samples long and the hop 394. Two leave 0.5 dB.
    """

    sample_rate: int = 22_050  # samples a second of the waveform
    duration: float = 2.0  # seconds of one window of a clip, which one spectrogram shows
    hop_length: int = 197  # samples from one column to the next
    bins_per_octave: float = 26.2  # rows an octave of the log axis; they fix the rows of every axis
    fmin: float = 30.87  # lowest frequency in Hz
    fmax: float = 11_025.0  # highest frequency in Hz
    oversampling: int = 10  # scan lines of the reassigned channels for each row
    frames_per_column: int = 1  # STFT frames whose power is averaged into one column
    windows: int = 1  # of each clip, spread evenly over it; 1 is the best-centred crop

    @property
    def n_samples(self) -> int:
        """Samples of one window of a clip."""
        return round(self.sample_rate * self.duration)

    @property
    def n_frames(self) -> int:
        """Columns of one spectrogram."""
        return math.ceil(self.n_samples / self.hop_length)

    @property
    def n_bins(self) -> int:
        """Rows of one spectrogram, on every axis."""
        return math.ceil(self.bins_per_octave * math.log2(self.fmax / self.fmin) + 1)

    @property
    def times(self) -> np.ndarray:
        """Centre of each column in seconds, shape (n_frames,)."""
        return (np.arange(self.n_frames) + 0.5) * self.hop_length / self.sample_rate
