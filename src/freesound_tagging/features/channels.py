"""The kinds of channel, each of which computes itself from a waveform.

A new kind is one more class here; a new channel is one more row of
`freesound_tagging.features.representations.CHANNELS`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import TYPE_CHECKING, ClassVar

import librosa
import numpy as np
import scipy  # its signal is loaded when first used
import torch
from torch import Tensor

from freesound_tagging.features.grid import Grid
from freesound_tagging.features.spectrograms import (
    DB_RANGE,
    MU,
    axis_frequencies,
    filterbank_tensor,
    relative_decibels,
    relative_to_peak,
    stft_power,
)

if TYPE_CHECKING:
    from spectral_hyperresolution import LinearReassignment

FAST_FORM = {"fast_form": 3}
"""Version of the transform's fast form, part of the keys of all that is computed with it. Raise
it when the same settings give other numbers."""

# Keys of standard channels once held the settings of reassigned ones too. They still do, at their
# defaults, so that what is stored stays valid.
_FIRST_SETTINGS = {"n_fft": None, "q": None, "count_threshold": True, "consensus": None}


class Channel(ABC):
    """What is computed from a waveform and stored: one plane of a network's input.

    Attributes
    ----------
    axis : of its rows, see `freesound_tagging.features.spectrograms.axis_frequencies`; or
        ``"mfcc"`` or ``"waveform"``.
    family : which representations it stands with in charts.
    version : what its keys hold besides its settings.
    """

    axis: str
    family: ClassVar[str] = "standard"
    version: ClassVar[dict] = {}

    @abstractmethod
    def compute(self, waveform: Tensor, grid: Grid) -> Tensor:
        """Return the values of a waveform (..., time): (..., rows, columns), see `shape`."""

    def shape(self, grid: Grid) -> tuple[int, int]:
        """Return its rows and columns: those of the grid, but for the waveform itself."""
        return grid.n_bins, grid.n_frames

    def frequencies(self, grid: Grid) -> np.ndarray | None:
        """Return the centre of each row in Hz, lowest first; None where rows are no frequencies."""
        return axis_frequencies(self.axis, grid)

    def limits(self, grid: Grid) -> tuple[float, float] | None:
        """Return the values of codes 0 and 255.

        None where the values are magnitudes, which are coded in decibels below the clip's maximum.
        """
        return None

    def is_alike(self, other: "Channel") -> bool:
        """Say whether both come out of one call of `compute_alike`, which saves time."""
        return other == self

    def compute_alike(
        self, channels: Sequence["Channel"], waveform: Tensor, grid: Grid
    ) -> list[Tensor]:
        """Return the values of each of several channels that are alike."""
        return [channel.compute(waveform, grid) for channel in channels]

    def settings(self) -> dict:
        """Return what the keys of its stored spectrograms are made of."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        own = {
            name: value.settings() if isinstance(value, Channel) else value
            for name, value in values.items()
        }
        return {"kind": type(self).__name__, **self.version, **own}


@dataclass(frozen=True)
class Standard(Channel):
    """The power of an STFT with a Hann window of ``n_fft`` samples, through a filterbank."""

    axis: str
    n_fft: int

    def settings(self) -> dict:
        return {**_FIRST_SETTINGS, "axis": self.axis, "n_fft": self.n_fft}

    def compute(self, waveform: Tensor, grid: Grid) -> Tensor:
        power = stft_power(waveform, self.n_fft, grid.hop_length, grid.frames_per_column)
        weights = filterbank_tensor(self.axis, self.n_fft, grid).to(power)
        return (weights @ power).sqrt()


@dataclass(frozen=True)
class Reassigned(Channel):
    """Linear reassignment.

    Attributes
    ----------
    q : quality factor; the filters' bandwidth is frequency / (2 pi q).
    count_threshold : drop cells that few points fall into, as the authors do.
    """

    axis: str
    q: float
    count_threshold: bool = True

    family: ClassVar[str] = "high resolution"
    reassign: ClassVar[bool] = True
    version: ClassVar[dict] = FAST_FORM

    def compute(self, waveform: Tensor, grid: Grid) -> Tensor:
        return self.compute_alike([self], waveform, grid)[0]

    def is_alike(self, other: Channel) -> bool:
        return type(other) is type(self) and replace(other, q=self.q) == self

    def compute_alike(
        self, channels: Sequence[Channel], waveform: Tensor, grid: Grid
    ) -> list[Tensor]:
        """One call for all q, so that they share the transform of the signal."""
        qs = tuple(float(channel.q) for channel in channels)
        transform = _transform(grid, self.axis, qs, self.count_threshold, self.reassign)
        return [plane.sqrt() for plane in transform(waveform).unbind(-3)]


@dataclass(frozen=True)
class Gabor(Reassigned):
    """The control: the same Gaussian filters on the same grid, and nothing is reassigned."""

    family: ClassVar[str] = "not reassigned"
    reassign: ClassVar[bool] = False


@dataclass(frozen=True)
class Consensus(Channel):
    """The energy that at least ``consensus`` of several ``q`` put into the same cell."""

    axis: str
    q: tuple[float, ...]
    consensus: int

    family: ClassVar[str] = "high resolution"
    version: ClassVar[dict] = FAST_FORM

    def compute(self, waveform: Tensor, grid: Grid) -> Tensor:
        transform = _transform(grid, self.axis, self.q, consensus=self.consensus)
        return transform(waveform).sqrt()


@dataclass(frozen=True)
class Pcen(Channel):
    """Per-channel energy normalisation of a channel, with librosa's settings: its automatic gain
    takes steady sounds down and lets onsets stand out.
    """

    of: Channel

    _LOUDEST: ClassVar[float] = 2.0**31  # librosa's settings are made for 32-bit samples

    @property
    def axis(self) -> str:
        return self.of.axis

    def compute(self, waveform: Tensor, grid: Grid) -> Tensor:
        magnitude = relative_to_peak(self.of.compute(waveform, grid)).numpy()
        return torch.from_numpy(
            librosa.pcen(magnitude * self._LOUDEST, sr=grid.sample_rate, hop_length=grid.hop_length)
        )

    def limits(self, grid: Grid) -> tuple[float, float]:
        """From 0 to the value of the clip's maximum right after silence: nothing is higher."""
        onset = np.zeros(4)
        onset[-1] = self._LOUDEST
        highest = librosa.pcen(onset, sr=grid.sample_rate, hop_length=grid.hop_length)[-1]
        return 0.0, float(highest)


@dataclass(frozen=True)
class Mfcc(Channel):
    """Mel-frequency cepstral coefficients of a channel on a mel axis, by librosa.

    They are liftered, which brings high coefficients to the size of low ones, and each fills the
    same number of rows, so that they stand beside other channels. The first coefficient is the
    lowest.
    """

    of: Channel
    n_mfcc: int = 40

    axis: ClassVar[str] = "mfcc"

    def compute(self, waveform: Tensor, grid: Grid) -> Tensor:
        above_floor = relative_decibels(self.of.compute(waveform, grid)) + DB_RANGE
        n_mfcc = min(self.n_mfcc, grid.n_bins)
        coefficients = librosa.feature.mfcc(S=above_floor.numpy(), n_mfcc=n_mfcc, lifter=2 * n_mfcc)
        rows = np.arange(grid.n_bins) * n_mfcc // grid.n_bins
        return torch.from_numpy(coefficients[..., rows, :])

    def frequencies(self, grid: Grid) -> None:
        return None

    def limits(self, grid: Grid) -> tuple[float, float]:
        """Up to the first coefficient of a spectrogram that is at its maximum throughout."""
        lifter = 1 + self.n_mfcc * np.sin(np.pi / (2 * self.n_mfcc))
        highest = float(DB_RANGE * np.sqrt(grid.n_bins) * lifter)
        return _about_zero(highest)


@dataclass(frozen=True)
class Delta(Channel):
    """The first or second derivative of a channel in time, per column, by librosa.

    Of a channel of magnitudes it is the derivative in decibels.
    """

    of: Channel
    order: int

    _WIDTH: ClassVar[int] = 9  # columns that a polynomial is fitted to

    @property
    def axis(self) -> str:
        return self.of.axis

    def compute(self, waveform: Tensor, grid: Grid) -> Tensor:
        values = self.of.compute(waveform, grid)
        if self.of.limits(grid) is None:
            values = relative_decibels(values)
        return torch.from_numpy(
            librosa.feature.delta(values.numpy(), width=self._WIDTH, order=self.order)
        )

    def frequencies(self, grid: Grid) -> np.ndarray | None:
        return self.of.frequencies(grid)

    def limits(self, grid: Grid) -> tuple[float, float]:
        """As far as a jump from the lowest to the highest value of the channel leads."""
        low, high = self.of.limits(grid) or (-DB_RANGE, 0.0)
        weights = scipy.signal.savgol_coeffs(self._WIDTH, self.order, deriv=self.order)
        steepest = float((high - low) * weights[weights > 0].sum())
        return _about_zero(steepest)


@dataclass(frozen=True)
class Waveform(Channel):
    """The waveform itself, for networks that take no spectrogram: one row, one column a sample.

    Samples are relative to the largest of the window. Eight bits do because they are mu-law
    companded, as on the telephone (ITU-T G.711): a quiet sample has finer steps than a loud one,
    and the noise stays 38 dB below a sine of any level from 0 to -30 dB.
    """

    axis: ClassVar[str] = "waveform"

    def compute(self, waveform: Tensor, grid: Grid) -> Tensor:
        row = waveform.unsqueeze(-2)
        companded = torch.log1p(MU * relative_to_peak(row.abs())) / math.log1p(MU)
        return row.sign() * companded

    def shape(self, grid: Grid) -> tuple[int, int]:
        return 1, grid.n_samples

    def frequencies(self, grid: Grid) -> None:
        return None

    def limits(self, grid: Grid) -> tuple[float, float]:
        return _about_zero(1.0)


def _about_zero(highest: float) -> tuple[float, float]:
    """Return limits that give 0 a code of its own, 127."""
    return -highest, highest * 128 / 127


@lru_cache(maxsize=8)
def _transform(
    grid: Grid,
    axis: str,
    qs: tuple[float, ...],
    count_threshold: bool = True,
    reassign: bool = True,
    consensus: int | None = None,
) -> "LinearReassignment":
    from spectral_hyperresolution import LinearReassignment  # its compiler takes a second to load

    return LinearReassignment(
        grid.sample_rate,
        q=qs,
        hop_length=grid.hop_length,
        bins_per_octave=grid.bins_per_octave,
        fmin=grid.fmin,
        fmax=grid.fmax,
        oversampling=grid.oversampling,
        reassign=reassign,
        axis="mel" if axis == "mel_htk" else axis,
        n_bins=None if axis == "log" else grid.n_bins,
        count_threshold=count_threshold,
        consensus=consensus,
    )


def compute_together(channels: Sequence[Channel], waveform: Tensor, grid: Grid) -> list[Tensor]:
    """Compute several channels of a waveform (..., time), those that are alike in one call.

    Returns
    -------
    For each channel (..., rows, columns), lowest row first.
    """
    computed: dict[Channel, Tensor] = {}
    for channel in channels:
        if channel not in computed:
            alike = [other for other in dict.fromkeys(channels) if channel.is_alike(other)]
            computed.update(zip(alike, channel.compute_alike(alike, waveform, grid), strict=True))
    return [computed[channel] for channel in channels]
