"""The time-frequency grid that all channels share."""

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Grid:
    """The same rows, columns and range for every channel.

    Attributes
    ----------
    sample_rate : samples a second of the waveform.
    duration : seconds of one window of a clip, the waveform that one spectrogram shows.
    hop_length : samples from one column to the next.
    bins_per_octave : rows an octave of the logarithmic axis; it fixes the number of rows of every
        axis.
    fmin, fmax : lowest and highest frequency in Hz.
    oversampling : scan lines of the reassigned channels for each row.
    frames_per_column : STFT frames whose power is averaged into one column. With one frame a click
        between two short windows is all but lost: its energy varies by 15 dB with its place where
        the window is 512 samples long and the hop 394. Two frames leave 0.5 dB.
    windows : windows of each clip, spread evenly over it; 1 is the best-centred crop.
    """

    sample_rate: int = 22_050
    duration: float = 2.0
    hop_length: int = 197
    bins_per_octave: float = 26.2
    fmin: float = 30.87
    fmax: float = 11_025.0
    oversampling: int = 10
    frames_per_column: int = 1
    windows: int = 1

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
