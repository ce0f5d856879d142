"""Every representation of the experiment, declared once, as data.

A *channel* is computed from a waveform and stored. A *representation*, `Variant` in code and
``variant`` in tables of results, is what a network sees: one channel, or three of the same clip,
each on one of the loudness scales. A new one is a new row of a table here.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

import librosa
import numpy as np
import scipy  # its signal is loaded when first used
import torch
from torch import Tensor

from freesound_tagging.errors import look_up
from freesound_tagging.features import filterbanks, yamnet
from freesound_tagging.features.codes import DB_RANGE, companded, encode, relative_decibels
from freesound_tagging.features.grid import Grid

ALGORITHM = 2
"""Raise it when the numbers of a channel change for the same settings: what is stored is computed
anew, and saved models are refused. The transform's own version counts besides."""

QS = (1, 2, 4, 8)  # the filters of linear reassignment have bandwidths of f / (2 pi q)


@dataclass(frozen=True)
class Channel:
    """What is computed from a waveform and stored: one channel of a network's input."""

    # Of its rows: linear, log or mel; mfcc, which are no frequencies; waveform, one row; or yamnet,
    # of the whole clip one row, which is stored as floats.
    axis: str
    # Of a float32 waveform (..., time) and a grid: values (..., rows, columns), lowest row first.
    compute: partial
    # Of a grid: the largest value, either way; None of magnitudes, which are coded in decibels.
    reach: Callable[[Grid], float] | None = None

    def shape(self, grid: Grid) -> tuple[int, int]:
        """Return its rows and columns: those of the grid, but for the waveform and embeddings."""
        one_row = {"waveform": (1, grid.n_samples), "yamnet": (1, 2 * yamnet.EMBEDDING)}
        return one_row.get(self.axis, (grid.n_bins, grid.n_frames))

    def frequencies(self, grid: Grid) -> np.ndarray | None:
        """Return the centre of each row in Hz, lowest first; None where rows are no frequencies."""
        if self.axis in ("mfcc", "waveform"):
            return None
        if self.axis == "yamnet":  # of the spectrogram that the embedding is made from
            return yamnet.band_centres() * grid.sample_rate / yamnet.SAMPLE_RATE
        return filterbanks.axis_frequencies(self.axis, grid)

    def codes(self, waveform: Tensor, grid: Grid) -> Tensor:
        """Return what is stored of a waveform: 8-bit codes, or an embedding as it is."""
        values = self.compute(waveform, grid)
        return values if self.axis == "yamnet" else encode(values, self.limits(grid))

    def limits(self, grid: Grid) -> tuple[float, float] | None:
        """Return the values of codes 0 and 255; None of magnitudes."""
        if self.reach is None:
            return None
        reach = self.reach(grid)
        return -reach, reach * 128 / 127  # 0 has a code of its own, 127

    def settings(self) -> dict:
        """Return all that its numbers depend on besides the grid, as JSON holds it."""
        function = self.compute.func
        settings = {"algorithm": ALGORITHM, "function": function.__name__}
        if function in (filterbanks.reassigned_magnitude, filterbanks.gabor_magnitude):
            settings["transform"] = version("spectral-hyperresolution")
        for name, value in self.compute.keywords.items():
            settings[name] = value.settings() if isinstance(value, Channel) else value
        return settings


def mfcc(waveform: Tensor, grid: Grid, of: Channel, n_mfcc: int) -> Tensor:
    """Return mel-frequency cepstral coefficients, the first lowest, on all rows of the grid."""
    above_floor = relative_decibels(of.compute(waveform, grid)) + DB_RANGE
    n_mfcc = min(n_mfcc, grid.n_bins)
    # Liftering brings high coefficients to the size of low ones.
    coefficients = librosa.feature.mfcc(S=above_floor.numpy(), n_mfcc=n_mfcc, lifter=2 * n_mfcc)
    rows = np.arange(grid.n_bins) * n_mfcc // grid.n_bins
    return torch.from_numpy(coefficients[..., rows, :])


def mfcc_reach(grid: Grid, n_mfcc: int) -> float:
    """Return the first coefficient of a spectrogram that is at its maximum throughout."""
    lifter = 1 + n_mfcc * math.sin(math.pi / (2 * n_mfcc))
    return DB_RANGE * math.sqrt(grid.n_bins) * lifter


def delta(waveform: Tensor, grid: Grid, of: Channel, order: int) -> Tensor:
    """Return a channel's first or second derivative in time, per column; of magnitudes in dB."""
    values = of.compute(waveform, grid)
    values = relative_decibels(values) if of.reach is None else values
    return torch.from_numpy(librosa.feature.delta(values.numpy(), order=order))


def delta_reach(grid: Grid, of: Channel, order: int) -> float:
    """Return the derivative where a channel jumps from its lowest to its highest value."""
    jump = DB_RANGE if of.reach is None else 2 * of.reach(grid)
    weights = scipy.signal.savgol_coeffs(9, order, deriv=order)  # librosa's columns at a time
    return float(jump * weights[weights > 0].sum())


def _stft(axis: str, n_fft: int = 2048) -> Channel:
    return Channel(axis, partial(filterbanks.stft_magnitude, axis=axis, n_fft=n_fft))


def _delta(of: Channel, order: int) -> Channel:
    settings = {"of": of, "order": order}
    return Channel(of.axis, partial(delta, **settings), partial(delta_reach, **settings))


_MEL = _stft("mel")
_MFCC = Channel("mfcc", partial(mfcc, of=_MEL, n_mfcc=40), partial(mfcc_reach, n_mfcc=40))

CHANNELS: dict[str, Channel] = {
    "linear": _stft("linear"),
    "log": _stft("log"),
    "mel": _MEL,
    # Around the standard window: 512 to 4096 is the factor of 8 between q = 1 and q = 8.
    "log_short": _stft("log", 512),
    "log_long": _stft("log", 4096),
    **{f"hires_q{q}": Channel("log", partial(filterbanks.reassigned_magnitude, q=q)) for q in QS},
    "hires_q2_smooth": Channel("log", partial(filterbanks.reassigned_magnitude, q=2, smooth=1)),
    "hires_q8_smooth": Channel("log", partial(filterbanks.reassigned_magnitude, q=8, smooth=1)),
    **{f"gabor_q{q}": Channel("log", partial(filterbanks.gabor_magnitude, q=q)) for q in QS},
    "gabor_q8_masked": Channel("log", partial(filterbanks.gabor_magnitude, q=8, masked=True)),
    "mel_delta": _delta(_MEL, order=1),
    "mel_delta2": _delta(_MEL, order=2),
    "mfcc": _MFCC,
    "mfcc_delta": _delta(_MFCC, order=1),
    "mfcc_delta2": _delta(_MFCC, order=2),
    "waveform": Channel("waveform", partial(companded), lambda grid: 1.0),
}

EMBEDDINGS = {
    "yamnet": Channel("yamnet", partial(yamnet.embed, weights=yamnet.SHA256[yamnet.WEIGHTS]))
}


@dataclass(frozen=True)
class Variant:
    """A representation: a title, and its ``planes``, pairs (channel name, loudness), in order."""

    title: str
    planes: tuple[tuple[str, str], ...]

    @property
    def channels(self) -> tuple[str, ...]:
        """Names of the stored channels, in order."""
        return tuple(channel for channel, _ in self.planes)

    @property
    def family(self) -> str:
        """What it is shown among."""
        if len(self.planes) > 1:
            return "3 channels"
        families = {"hires": "high resolution", "gabor": "filters unmoved"}
        return families.get(self.channels[0].split("_")[0], "standard")


def _in_db(title: str, *channels: str) -> Variant:
    return Variant(title, tuple((channel, "db") for channel in channels))


VARIANTS: dict[str, Variant] = {
    "linear_linear": Variant("standard, linear axis, magnitude", (("linear", "linear"),)),
    "linear_db": _in_db("standard, linear axis, dB", "linear"),
    "log_linear": Variant("standard, log axis, magnitude", (("log", "linear"),)),
    "log_db": _in_db("standard, log axis, dB", "log"),
    "mel_linear": Variant("standard, mel axis, magnitude", (("mel", "linear"),)),
    "mel_db": _in_db("standard, mel axis, dB", "mel"),
    **{f"hires_q{q}": _in_db(f"high resolution, q = {q}", f"hires_q{q}") for q in QS},
    "3ch_linear_mel_log": _in_db("linear, mel, log", "linear", "mel", "log"),
    "3ch_hires_q1_q4_q8": _in_db("q = 1, 4, 8", "hires_q1", "hires_q4", "hires_q8"),
    "3ch_hires_q1_q8_log_db": _in_db("q = 1, 8, and log dB", "hires_q1", "hires_q8", "log"),
    # Controls: what of a gain, or of a loss, is reassignment's own?
    **{f"gabor_q{q}": _in_db(f"filters unmoved, q = {q}", f"gabor_q{q}") for q in QS},
    "3ch_gabor_q1_q8_log_db": _in_db(
        "filters unmoved, q = 1, 8, and log dB", "gabor_q1", "gabor_q8", "log"
    ),
    "3ch_log_db_windows": _in_db("log dB, 3 STFT windows", "log_short", "log", "log_long"),
    # Causes: is it speckle, the empty cells, or decibels?
    "hires_q2_smooth": _in_db("high resolution, q = 2, smoothed", "hires_q2_smooth"),
    "hires_q8_smooth": _in_db("high resolution, q = 8, smoothed", "hires_q8_smooth"),
    "gabor_q8_masked": _in_db("filters unmoved, q = 8, masked", "gabor_q8_masked"),
    "hires_q8_magnitude": Variant("high resolution, q = 8, magnitude", (("hires_q8", "linear"),)),
    "gabor_q8_magnitude": Variant("filters unmoved, q = 8, magnitude", (("gabor_q8", "linear"),)),
}

# Asked for by name only: the recipe that came fourth in the challenge (Kaggle discussion 62634).
ALL_VARIANTS = VARIANTS | {
    "waveform": Variant("waveform", (("waveform", "mu_law"),)),
    "3ch_mel_deltas": _in_db("mel dB, delta, delta-delta", "mel", "mel_delta", "mel_delta2"),
    "3ch_mfcc_deltas": _in_db("MFCC, delta, delta-delta", "mfcc", "mfcc_delta", "mfcc_delta2"),
    "yamnet": _in_db("YAMNet's embedding", "yamnet"),
}


def get_channel(name: str) -> Channel:
    """Return the channel of that name; a ValueError lists the known ones."""
    return look_up("channel", name, CHANNELS | EMBEDDINGS)


def get_variant(name: str) -> Variant:
    """Return the representation of that name; a ValueError lists the known ones."""
    return look_up("representation", name, ALL_VARIANTS)


def channels_of(names: Iterable[str]) -> list[str]:
    """Return the names of the channels of some representations, each once."""
    return list(dict.fromkeys(channel for name in names for channel in get_variant(name).channels))


def compute_channels(waveform: Tensor, names: Sequence[str], grid: Grid) -> dict[str, Tensor]:
    """Return channels by name, each as `Channel.compute` gives it."""
    return {name: get_channel(name).compute(waveform, grid) for name in names}
