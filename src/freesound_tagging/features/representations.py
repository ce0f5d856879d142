"""Every representation of the experiment, declared once, as data.

A *channel* is computed from a waveform and stored. A *plane* of the network's input is a channel on
one of the loudness scales. A *representation*, `Variant` in code and ``variant`` in tables of
results, is what a network sees: one plane, or three of the same clip. A new one is a new row of a
table here, and nothing else.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from torch import Tensor

from freesound_tagging.errors import look_up
from freesound_tagging.features.channels import (
    Channel,
    Consensus,
    Delta,
    Gabor,
    Mfcc,
    Pcen,
    Reassigned,
    Standard,
    Waveform,
    compute_together,
)
from freesound_tagging.features.grid import Grid


@dataclass(frozen=True)
class Variant:
    """A representation: its planes ``(channel name, loudness)`` in order, a title for charts."""

    title: str
    planes: tuple[tuple[str, str], ...]

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the stored channels, in plane order."""
        return tuple(channel for channel, _ in self.planes)

    @property
    def family(self) -> str:
        """One of `FAMILIES`: "3 channels", or the family of its one channel."""
        return "3 channels" if len(self.planes) > 1 else get_channel(self.channels[0]).family


FAMILIES = ("standard", "high resolution", "not reassigned", "3 channels")


CHANNELS: dict[str, Channel] = {
    "linear": Standard("linear", n_fft=2048),
    "log": Standard("log", n_fft=2048),
    "mel": Standard("mel", n_fft=2048),
    # A short and a long window around the standard one; 512 to 4096 is the factor of 8 between
    # q = 1 and q = 8.
    "log_short": Standard("log", n_fft=512),
    "log_long": Standard("log", n_fft=4096),
    "hires_q1": Reassigned("log", q=1),
    "hires_q2": Reassigned("log", q=2),
    "hires_q4": Reassigned("log", q=4),
    "hires_q8": Reassigned("log", q=8),
    "gabor_q1": Gabor("log", q=1),
    "gabor_q2": Gabor("log", q=2),
    "gabor_q4": Gabor("log", q=4),
    "gabor_q8": Gabor("log", q=8),
    # Of the controls and of the representations below them.
    "mel_htk": Standard("mel_htk", n_fft=2048),
    "hires_q1_mel": Reassigned("mel_htk", q=1),
    "hires_q2_mel": Reassigned("mel_htk", q=2),
    "hires_q4_mel": Reassigned("mel_htk", q=4),
    "hires_q8_mel": Reassigned("mel_htk", q=8),
    "hires_q8_linear": Reassigned("linear", q=8),
    "hires_q8_all_points": Reassigned("log", q=8, count_threshold=False),
    "hires_consensus": Consensus("log", q=(1, 2, 4, 8), consensus=2),
    "log_pcen": Pcen(Standard("log", n_fft=2048)),
    "mel_pcen": Pcen(Standard("mel", n_fft=2048)),
    "mel_delta": Delta(Standard("mel", n_fft=2048), order=1),
    "mel_delta2": Delta(Standard("mel", n_fft=2048), order=2),
    "mfcc": Mfcc(Standard("mel", n_fft=2048)),
    "mfcc_delta": Delta(Mfcc(Standard("mel", n_fft=2048)), order=1),
    "mfcc_delta2": Delta(Mfcc(Standard("mel", n_fft=2048)), order=2),
    "waveform": Waveform(),
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
    "gabor_q1": Variant("not reassigned, q = 1 (control)", (("gabor_q1", "db"),)),
    "gabor_q2": Variant("not reassigned, q = 2 (control)", (("gabor_q2", "db"),)),
    "gabor_q4": Variant("not reassigned, q = 4 (control)", (("gabor_q4", "db"),)),
    "gabor_q8": Variant("not reassigned, q = 8 (control)", (("gabor_q8", "db"),)),
    "3ch_linear_mel_log": Variant(
        "3 channels: linear, mel, log", (("linear", "db"), ("mel", "db"), ("log", "db"))
    ),
    "3ch_hires_q1_q4_q8": Variant(
        "3 channels: q = 1, 4, 8", (("hires_q1", "db"), ("hires_q4", "db"), ("hires_q8", "db"))
    ),
    "3ch_hires_q1_q8_log_db": Variant(
        "3 channels: q = 1, 8, and log dB", (("hires_q1", "db"), ("hires_q8", "db"), ("log", "db"))
    ),
    "3ch_gabor_q1_q8_log_db": Variant(
        "3 channels: not reassigned q = 1, 8, and log dB (control)",
        (("gabor_q1", "db"), ("gabor_q8", "db"), ("log", "db")),
    ),
    "3ch_log_db_windows": Variant(
        "3 channels: log dB, 3 windows (control)",
        (("log_short", "db"), ("log", "db"), ("log_long", "db")),
    ),
}


# Not of the comparison itself: each undoes one thing, so that a gain can be put down to its cause.
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

# Asked for by name only.
OTHER_VARIANTS: dict[str, Variant] = {
    "hires_q1_mel": Variant("high resolution, q = 1, HTK mel axis", (("hires_q1_mel", "db"),)),
    "hires_q2_mel": Variant("high resolution, q = 2, HTK mel axis", (("hires_q2_mel", "db"),)),
    "hires_q4_mel": Variant("high resolution, q = 4, HTK mel axis", (("hires_q4_mel", "db"),)),
    "log_pcen": Variant("standard, log axis, PCEN", (("log_pcen", "pcen"),)),
    "mel_pcen": Variant("standard, mel axis, PCEN", (("mel_pcen", "pcen"),)),
    "mfcc": Variant("MFCC", (("mfcc", "db"),)),
    "waveform": Variant("waveform", (("waveform", "mu_law"),)),
    # Of the recipe that came fourth in the challenge (Kaggle discussion 62634).
    "3ch_mel_deltas": Variant(
        "3 channels: mel dB, its delta and delta-delta",
        (("mel", "db"), ("mel_delta", "db"), ("mel_delta2", "db")),
    ),
    "3ch_mfcc_deltas": Variant(
        "3 channels: MFCC, their delta and delta-delta",
        (("mfcc", "db"), ("mfcc_delta", "db"), ("mfcc_delta2", "db")),
    ),
}


def get_channel(name: str) -> Channel:
    """Return the channel of that name; an unknown one is an error as of `look_up`."""
    return look_up("channel", name, CHANNELS)


def get_variant(name: str) -> Variant:
    """Return the representation of that name, from any of the three tables, as `get_channel`."""
    return look_up("representation", name, VARIANTS | CONTROL_VARIANTS | OTHER_VARIANTS)


def channels_of(names: Iterable[str]) -> list[str]:
    """Return the names of the channels of some representations, each once."""
    return list(dict.fromkeys(channel for name in names for channel in get_variant(name).channels))


def compute_channels(waveform: Tensor, names: Sequence[str], grid: Grid) -> dict[str, Tensor]:
    """Compute channels by name, see `freesound_tagging.features.channels.compute_together`.

    Parameters
    ----------
    waveform : float32, shape (..., time).
    names : keys of `CHANNELS`.
    grid : the time-frequency grid.

    Returns
    -------
    Values by channel name, each of the channel's shape (..., rows, columns), lowest row first.
    """
    values = compute_together([get_channel(name) for name in names], waveform, grid)
    return dict(zip(names, values, strict=True))
