"""8-bit codes, in which channels are stored, and the loudness scales that they are read on."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from freesound_tagging.features.grid import Grid

DB_RANGE = 80.0  # decibels below a clip's maximum that are kept; anything weaker is at the floor
CODE_LEVELS = 255  # steps of the 8-bit scale: 80 dB / 255 = 0.31 dB a step
MU = 255  # of mu-law companding, by which waveforms are stored


def relative_to_peak(magnitude: Tensor) -> Tensor:
    """Return a magnitude (..., frequency, time) over its maximum; of silence all 0."""
    peak = magnitude.amax(dim=(-2, -1), keepdim=True)
    return magnitude / peak.clamp_min(torch.finfo(magnitude.dtype).tiny)


def relative_decibels(magnitude: Tensor) -> Tensor:
    """Return 20 log10(magnitude / its maximum), from -`DB_RANGE` to 0; silence is at the floor."""
    return 20 * torch.log10(relative_to_peak(magnitude).clamp_min(10 ** (-DB_RANGE / 20)))


def encode(values: Tensor, limits: tuple[float, float] | None = None) -> Tensor:
    """Return 8-bit codes of a channel, uint8, of values of shape (..., frequency, time).

    ``limits`` are the values of codes 0 and 255. By default the values are magnitudes, coded in
    `relative_decibels`: 255 is a spectrogram's maximum, 0 all that is `DB_RANGE` or more below it.
    """
    if limits is None:
        levels = relative_decibels(values) / DB_RANGE + 1
    else:
        levels = ((values - limits[0]) / (limits[1] - limits[0])).clamp(0, 1)
    return (levels * CODE_LEVELS).round().to(torch.uint8)


def companded(waveform: Tensor, grid: Grid) -> Tensor:
    """Return the waveform relative to its largest sample, mu-law companded, shape (..., 1, time).

    Then eight bits do (ITU-T G.711): a quiet sample has finer steps than a loud one, and the noise
    stays 38 dB below a sine of any level from 0 to -30 dB.
    """
    row = waveform.unsqueeze(-2)
    return row.sign() * torch.log1p(MU * relative_to_peak(row.abs())) / math.log1p(MU)


@lru_cache(maxsize=8)
def decoding_table(loudness: str) -> Tensor:
    """Return the value of each of the 256 codes, float32, from 0 to 1.

    ``loudness`` is linear, the magnitude relative to the clip's maximum; db, even steps of whatever
    the codes measure; or mu_law, a waveform, with silence at 1/2.
    """
    levels = torch.arange(CODE_LEVELS + 1, dtype=torch.float32, device="cpu") / CODE_LEVELS
    if loudness == "db":
        return levels
    if loudness == "linear":
        magnitude = 10 ** ((levels - 1) * (DB_RANGE / 20))
        magnitude[0] = 0
        return magnitude
    if loudness != "mu_law":
        raise ValueError(f"unknown loudness {loudness!r}; the known ones are: db, linear, mu_law")
    companded = ((levels * CODE_LEVELS - 127) / 127).clamp(max=1)  # 127 is the code of 0
    return (1 + companded.sign() * torch.expm1(companded.abs() * math.log1p(MU)) / MU) / 2
