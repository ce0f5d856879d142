"""Every representation of the experiment, declared once, as data.

A *channel* is one picture that is computed from a waveform and stored. A *plane* is a channel on
one of the two loudness scales. A *variant* is what a network sees: one plane, or three planes of
the same clip.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

DB_RANGE = 80.0
"""Decibels below a clip's loudest point that a picture shows; anything weaker is at the floor."""


@dataclass(frozen=True)
class Grid:
    """The time-frequency grid that all channels share: same rows, same columns, same range.

    Attributes
    ----------
    sample_rate : samples a second of the waveform.
    duration : seconds of the waveform.
    hop_length : samples from one column to the next.
    bins_per_octave : rows an octave of the logarithmic axis; it fixes the number of rows of every
        axis.
    fmin, fmax : lowest and highest frequency in Hz.
    oversampling : scan lines of the reassigned channels for each row.
    """

    sample_rate: int = 22_050
    duration: float = 2.0
    hop_length: int = 197
    bins_per_octave: float = 26.2
    fmin: float = 30.87
    fmax: float = 11_025.0
    oversampling: int = 10

    @property
    def n_samples(self) -> int:
        """Samples of one clip."""
        return round(self.sample_rate * self.duration)

    @property
    def n_frames(self) -> int:
        """Columns of one picture."""
        return math.ceil(self.n_samples / self.hop_length)

    @property
    def n_bins(self) -> int:
        """Rows of one picture, on every axis."""
        return math.ceil(self.bins_per_octave * math.log2(self.fmax / self.fmin) + 1)

    @property
    def times(self) -> np.ndarray:
        """Centre of each column in seconds, shape (n_frames,)."""
        return (np.arange(self.n_frames) + 0.5) * self.hop_length / self.sample_rate


@dataclass(frozen=True)
class Channel:
    """One stored picture.

    Attributes
    ----------
    axis : ``"linear"``, ``"log"``, ``"mel"`` (Slaney's, as in librosa) or ``"mel_htk"`` (even steps
        of log(1 + f / 700 Hz), the mel axis that reassignment sorts into).
    n_fft : window length in samples of a standard spectrogram; None for a reassigned one.
    q : quality factor of a reassigned spectrogram, bandwidth = frequency / (2 pi q); several for a
        consensus; None for a standard one.
    count_threshold : of a reassigned one: drop bins that few points fall into, as the authors do.
    consensus : keep the energy that at least this many of the q put into the same bin.
    """

    axis: str
    n_fft: int | None = None
    q: float | tuple[float, ...] | None = None
    count_threshold: bool = True
    consensus: int | None = None


@dataclass(frozen=True)
class Variant:
    """What one network sees: planes ``(channel name, loudness)`` in order, a title for pictures."""

    title: str
    planes: tuple[tuple[str, str], ...]

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the stored channels, in plane order."""
        return tuple(channel for channel, _ in self.planes)

    @property
    def family(self) -> str:
        """One of `FAMILIES`: three planes, one reassigned plane, or one standard plane."""
        if len(self.planes) > 1:
            return "3 channels"
        return "standard" if get_channel(self.channels[0]).q is None else "high resolution"


FAMILIES = ("standard", "high resolution", "3 channels")


CHANNELS: dict[str, Channel] = {
    "linear": Channel("linear", n_fft=2048),
    "log": Channel("log", n_fft=2048),
    "mel": Channel("mel", n_fft=2048),
    # A short and a long window around the standard one; 512 to 4096 is the factor of 8 between
    # q = 1 and q = 8.
    "log_short": Channel("log", n_fft=512),
    "log_long": Channel("log", n_fft=4096),
    "hires_q1": Channel("log", q=1),
    "hires_q2": Channel("log", q=2),
    "hires_q4": Channel("log", q=4),
    "hires_q8": Channel("log", q=8),
}

VARIANTS: dict[str, Variant] = {
    "linear_linear": Variant("standard, linear axis, magnitude", (("linear", "linear"),)),
    "linear_db": Variant("standard, linear axis, dB", (("linear", "db"),)),
    "log_linear": Variant("standard, log axis, magnitude", (("log", "linear"),)),
    "log_db": Variant("standard, log axis, dB", (("log", "db"),)),
    "mel_linear": Variant("standard, mel axis, magnitude", (("mel", "linear"),)),
    "mel_db": Variant("standard, mel axis, dB", (("mel", "db"),)),
    "hires_q1": Variant("high resolution, q = 1", (("hires_q1", "db"),)),
    "hires_q2": Variant("high resolution, q = 2", (("hires_q2", "db"),)),
    "hires_q4": Variant("high resolution, q = 4", (("hires_q4", "db"),)),
    "hires_q8": Variant("high resolution, q = 8", (("hires_q8", "db"),)),
    "3ch_linear_mel_log": Variant(
        "3 channels: linear, mel, log", (("linear", "db"), ("mel", "db"), ("log", "db"))
    ),
    "3ch_hires_q1_q4_q8": Variant(
        "3 channels: q = 1, 4, 8", (("hires_q1", "db"), ("hires_q4", "db"), ("hires_q8", "db"))
    ),
    "3ch_hires_q1_q8_log_db": Variant(
        "3 channels: q = 1, 8, and log dB", (("hires_q1", "db"), ("hires_q8", "db"), ("log", "db"))
    ),
    "3ch_log_db_windows": Variant(
        "3 channels: log dB, 3 windows (control)",
        (("log_short", "db"), ("log", "db"), ("log_long", "db")),
    ),
}


# Not of the comparison itself: each undoes one thing, so that a gain can be put down to its cause
# (`freesound_tagging.runs.studies` says which).
CONTROL_CHANNELS: dict[str, Channel] = {
    "mel_htk": Channel("mel_htk", n_fft=2048),
    "hires_q8_linear": Channel("linear", q=8),
    "hires_q8_mel": Channel("mel_htk", q=8),
    "hires_q8_all_points": Channel("log", q=8, count_threshold=False),
    "hires_consensus": Channel("log", q=(1, 2, 4, 8), consensus=2),
}

CONTROL_VARIANTS: dict[str, Variant] = {
    "log_short_db": Variant("standard, log axis, dB, short window", (("log_short", "db"),)),
    "log_long_db": Variant("standard, log axis, dB, long window", (("log_long", "db"),)),
    "mel_htk_db": Variant("standard, HTK mel axis, dB", (("mel_htk", "db"),)),
    "hires_q2_magnitude": Variant("high resolution, q = 2, magnitude", (("hires_q2", "linear"),)),
    "hires_q8_magnitude": Variant("high resolution, q = 8, magnitude", (("hires_q8", "linear"),)),
    "hires_q8_linear": Variant("high resolution, q = 8, linear axis", (("hires_q8_linear", "db"),)),
    "hires_q8_mel": Variant("high resolution, q = 8, HTK mel axis", (("hires_q8_mel", "db"),)),
    "hires_q8_all_points": Variant(
        "high resolution, q = 8, no count threshold", (("hires_q8_all_points", "db"),)
    ),
    "hires_consensus": Variant(
        "high resolution, two of four q agree", (("hires_consensus", "db"),)
    ),
}


def get_channel(name: str) -> Channel:
    """Return the channel of that name.

    Raises
    ------
    ValueError
        Where the name is unknown; the message lists the known ones.
    """
    return _look_up("channel", name, {**CHANNELS, **CONTROL_CHANNELS})


def get_variant(name: str) -> Variant:
    """Return the variant of that name, of the comparison or of its controls.

    Raises
    ------
    ValueError
        Where the name is unknown; the message lists the known ones.
    """
    return _look_up("variant", name, {**VARIANTS, **CONTROL_VARIANTS})


def _look_up(kind: str, name: str, known: dict):
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}; the known ones are: {', '.join(known)}")
    return known[name]


def channels_of(names: Iterable[str]) -> list[str]:
    """Return the names of the channels that the named variants are made of, each once."""
    return list(dict.fromkeys(channel for name in names for channel in get_variant(name).channels))
