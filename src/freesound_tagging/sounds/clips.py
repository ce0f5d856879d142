"""From a sound file to the waveform a network sees: decode, resample, best-centred crop.

The same file and settings give the same numbers. Long files are read block by block, so that a
recording of many hours takes no more memory than one of ten minutes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import scipy  # its signal is loaded when first used
import soxr

from freesound_tagging.errors import DataError
from freesound_tagging.sounds.containers import ClipError, Sound

__all__ = ["ClipError", "ClipSettings", "best_centred_crop", "decode", "load_clip", "load_windows"]

BOX = 0.5
"""Seconds of the loudest stretch that a crop is centred on."""

_BLOCK = 1 << 18
# Seconds of a recording that are searched at a time; a longer one is decoded twice.
_SEARCHED = 120
# Below 2 Hz lies a microphone's offset and drift. Where that is over a fifth of the energy, what is
# loud is told from what lies above 10 Hz. No clip of ESC-10 or of the digits comes to that.
_DRIFT_HZ, _DRIFT_SHARE, _SOUND_HZ = 2.0, 0.2, 10.0


@dataclass(frozen=True)
class ClipSettings:
    """What every clip is turned into before any spectrogram is computed.

    Attributes
    ----------
    sample_rate : in Hz.
    duration : length in seconds.
    """

    sample_rate: int = 22_050
    duration: float = 2.0

    def __post_init__(self) -> None:
        if not (isinstance(self.sample_rate, int) and self.sample_rate > 0):
            raise DataError(
                f"sample_rate={self.sample_rate!r}: give a whole number of Hz, 1 or more"
            )
        if not (math.isfinite(self.duration) and self.n_samples >= 1):
            raise DataError(
                f"duration={self.duration!r}: give seconds, at least one sample at "
                f"{self.sample_rate} Hz"
            )

    @property
    def n_samples(self) -> int:
        """Length of every clip, in samples."""
        return round(self.duration * self.sample_rate)


def decode(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Read a sound file as one channel.

    Parameters
    ----------
    path : of a wav, flac, ogg or mp3 (or whatever else libsndfile reads), any number of channels;
        several channels fold to one by their mean.

    Returns
    -------
    The waveform, float32, shape (time,), and its sample rate in Hz. Integer formats are scaled to
    [-1, 1); float formats keep their values.

    Raises
    ------
    ClipError
        The file cannot be read, is not whole, or holds values that are no sound: data/README.md
        lists what is refused.
    """
    sound = Sound(path)
    return np.concatenate([_fold(block) for block in sound.blocks()]), sound.sample_rate


def seconds_of(path: str | os.PathLike[str]) -> float | None:
    """Return how long a sound file says it lasts, in seconds; None where it does not say.

    A file that cannot be read says nothing: `decode` tells what is wrong with it.
    """
    try:
        sound = Sound(path)
    except ClipError:
        return None
    return None if sound.promised is None else sound.promised / sound.sample_rate


def _fold(block: np.ndarray) -> np.ndarray:
    # The mean is taken in float64, so that it does not depend on the channels' order.
    return block.mean(axis=1, dtype=np.float64).astype(np.float32)


def resample(waveform: np.ndarray, sample_rate: int, target: int) -> np.ndarray:
    """Change a waveform's rate in Hz with soxr at its HQ setting (noise floor below -120 dB).

    Float32, shape (n,), becomes float32, shape (about n * target / sample_rate,).
    """
    return np.concatenate(list(_resample([np.asarray(waveform)], sample_rate, target)))


def _resample(blocks: Iterable[np.ndarray], sample_rate: int, target: int) -> Iterator[np.ndarray]:
    if sample_rate == target:
        yield from (np.asarray(block, np.float32) for block in blocks)
        return
    stream = soxr.ResampleStream(sample_rate, target, 1, dtype="float32", quality="HQ")
    for block in blocks:
        yield stream.resample_chunk(np.asarray(block, np.float32))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)


def best_centred_crop(
    waveform: np.ndarray, sample_rate: int, duration: float, box: float = BOX
) -> np.ndarray:
    """Cut the stretch of a clip that lies around its loudest half second.

    A box of `box` seconds moves over |x|; the stretch returned is centred on the box with the
    greatest sum. Where boxes next to each other share the greatest sum (a click, a clip shorter
    than the box, a steady tone) the middle one of the first such run is taken, so a click and a
    short clip end up in the centre.

    Where a constant offset or a drift below 2 Hz holds over a fifth of the energy, |x| would tell
    of it and not of the sound; there the box moves over what lies above 10 Hz. What is cut out is
    the waveform as it is, all the same.

    Parameters
    ----------
    waveform : shape (time,).
    sample_rate : in Hz.
    duration : length of the result in seconds.
    box : length of the moving box in seconds; never longer than `duration`.

    Returns
    -------
    Float32, shape (round(duration * sample_rate),); zeros where the stretch reaches over an end of
    the clip.
    """
    waveform, length = np.asarray(waveform, np.float32), round(duration * sample_rate)
    centre, _ = _loudest(waveform, sample_rate, min(box, duration))
    return _cut([waveform], [centre - length // 2], length)[0]


def _loudest(waveform: np.ndarray, sample_rate: int, box: float) -> tuple[int, float]:
    """Return where the loudest box has its middle, in samples, and the sum of |x| in it."""
    if not len(waveform):
        return 0, 0.0
    width = max(1, round(box * sample_rate))
    sound = waveform
    if _energy(_high_pass(waveform, sample_rate, _DRIFT_HZ)) < (1 - _DRIFT_SHARE) * _energy(sound):
        above = _high_pass(waveform, sample_rate, _SOUND_HZ)
        # What is left of a constant is rounding noise, which is loud nowhere.
        sound = above if _energy(above) > 1e-12 * _energy(sound) else sound
    # In float64 sums of float32 samples are all but exact: equal stretches have equal sums.
    total = np.cumsum(np.concatenate([[0.0], np.abs(sound)]), dtype=np.float64)
    total = np.pad(total, (width // 2, width - width // 2), "edge")
    sums = total[width:] - total[:-width]
    first = int(np.argmax(sums))
    others = np.flatnonzero(sums[first:] != sums[first])
    last = first + int(others[0]) - 1 if len(others) else len(sums) - 1
    return (first + last) // 2, float(sums[first])


def _high_pass(waveform: np.ndarray, sample_rate: int, cutoff: float) -> np.ndarray:
    # At a rate of 100 Hz, 10 Hz is a part of the sound.
    cutoff = min(cutoff, sample_rate / 50)
    sos = scipy.signal.butter(2, cutoff, "highpass", fs=sample_rate, output="sos")
    # Settled on the first sample, so that an offset causes no transient.
    rest = scipy.signal.sosfilt_zi(sos) * waveform[0]
    return scipy.signal.sosfilt(sos, waveform, zi=rest)[0]


def _energy(waveform: np.ndarray) -> float:
    values = waveform.astype(np.float64, copy=False)
    return float(np.einsum("i,i", values, values))


def _cut(blocks: Iterable[np.ndarray], starts: list[int], length: int) -> np.ndarray:
    """Copy stretches out of a waveform that comes block by block; zeros outside of it."""
    stretches = np.zeros((len(starts), length), np.float32)
    at = 0
    for block in blocks:
        for row, start in zip(stretches, starts, strict=True):
            left, right = max(start, at), min(start + length, at + len(block))
            if left < right:
                row[left - start : right - start] = block[left - at : right - at]
        at += len(block)
    return stretches


def load_windows(
    path: str | os.PathLike[str],
    settings: ClipSettings = ClipSettings(),
    windows: int = 1,
    shortest: int = 2048,
) -> tuple[np.ndarray, str]:
    """Turn a recording into windows of equal length, as a network sees them.

    Parameters
    ----------
    path : as for `decode`.
    settings : sample rate and length of a window.
    windows : 1: the best-centred crop; of a recording beyond two minutes, that of its loudest two.
        More: their starts are spread evenly over the recording, the first at its start and the
        last at its end; they overlap where it is short.
    shortest : samples, at `settings.sample_rate`, of one analysis frame; a recording with fewer
        gets a note.

    Returns
    -------
    waveforms : float32, shape (windows, settings.n_samples). A recording that is shorter than a
        window stands in the middle of zeros, in every window.
    note : "" for an ordinary recording. One that is kept though it says little, or may not be
        whole, is named here: data/README.md lists what is noted.

    Raises
    ------
    ClipError
        As `decode`.
    """
    if windows < 1:
        raise DataError(f"windows={windows}: give 1 or more")
    sound = Sound(path)
    rate, length, box = settings.sample_rate, settings.n_samples, min(BOX, settings.duration)
    levels = _Levels(sound.sample_rate, rate)
    loudest, centre, n = -1.0, 0, 0
    searched = np.zeros(0, np.float32)  # ends at sample n
    for part in _group(_stream(sound, rate, levels), round(_SEARCHED * rate)):
        # What was searched before ends with half a box that may be the beginning of a loud one.
        searched = np.concatenate([searched[len(searched) - round(box * rate) :], part])
        n += len(part)
        middle, level = _loudest(searched, rate, box)
        if level > loudest:
            loudest, centre = level, n - len(searched) + middle
    if windows == 1 or n <= length:
        starts = [centre - length // 2] * windows
    else:
        starts = [round(i * (n - length) / (windows - 1)) for i in range(windows)]
    whole = len(searched) == n
    waveforms = _cut([searched] if whole else _stream(sound, rate), starts, length)

    notes = levels.notes(shortest) + sound.notes
    seconds = levels.n / sound.sample_rate
    if windows > 1 and shortest <= seconds * rate and n < length:
        notes.append(f"shorter than {settings.duration:g} s ({seconds:.3f} s)")
    return waveforms, "; ".join(notes)


def load_clip(
    path: str | os.PathLike[str],
    settings: ClipSettings = ClipSettings(),
    shortest: int = 2048,
) -> tuple[np.ndarray, str]:
    """Return a sound file's best-centred crop and note: `load_windows` with one window."""
    waveforms, note = load_windows(path, settings, 1, shortest)
    return waveforms[0], note


def _stream(sound: Sound, target: int, levels: _Levels | None = None) -> Iterator[np.ndarray]:
    """Decode, fold and resample a sound in blocks, and measure its levels on the way."""
    blocks = _group(sound.blocks(), _BLOCK)
    blocks = blocks if levels is None else map(levels.watch, blocks)
    yield from _resample(map(_fold, blocks), sound.sample_rate, target)


def _group(blocks: Iterable[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Join blocks to longer ones, of at least ``size`` samples but for the last."""
    held: list[np.ndarray] = []
    for block in blocks:
        held.append(block)
        if sum(map(len, held)) >= size:
            yield np.concatenate(held)
            held = []
    if held:
        yield np.concatenate(held)


def stream(
    path: str | os.PathLike[str], target: int, notes: list[str] | None = None
) -> Iterator[np.ndarray]:
    """Decode a sound file, fold its channels and change its rate, in blocks of some seconds.

    Parameters
    ----------
    path : as for `decode`; its header is examined before the first block.
    target : the sample rate of the blocks in Hz.
    notes : after the last block, what `load_windows` would note of the recording is added to it.

    Yields
    ------
    Float32, shape (n,).

    Raises
    ------
    ClipError
        As `decode`, which may be after some blocks; or, after the last block, it is silent: all its
        samples are the same.
    """
    sound = Sound(path)
    levels = _Levels(sound.sample_rate, target)
    yield from _stream(sound, target, levels)
    found = levels.notes()
    if "silent" in found:
        raise ClipError(f"{path}: is silent: all its samples are the same")
    if notes is not None:
        notes += found + sound.notes


def slide(
    blocks: Iterable[np.ndarray], sample_rate: int, duration: float, hop: float
) -> Iterator[tuple[float, np.ndarray]]:
    """Cut a waveform of any length, which comes block by block, into windows that overlap.

    Parameters
    ----------
    blocks : the waveform's blocks in order, shape (n,); they need not be of one length.
    sample_rate : in Hz.
    duration, hop : length of a window, and the step from one to the next, in seconds; `hop` is not
        the longer.

    Yields
    ------
    start : where the window begins, in seconds.
    window : float32, shape (round(duration * sample_rate),). The last one ends with the waveform.
        Of a waveform no longer than a window there is one, its `best_centred_crop`.
    """
    length, step = round(duration * sample_rate), round(hop * sample_rate)
    if not 1 <= step <= length:
        raise DataError(f"hop={hop!r}: give seconds, more than 0 and at most {duration:g}")
    at, kept = 0, np.zeros(0, np.float32)  # `kept` begins at sample `at`
    last: np.ndarray | None = None
    for block in blocks:
        kept = np.concatenate([kept, np.asarray(block, np.float32)])
        done = 0
        while len(kept) - done > length:
            last = kept[done : done + length].copy()
            yield (at + done) / sample_rate, last
            done += step
        at, kept = at + done, kept[done:]
    if last is not None:
        start = at + len(kept) - length
        yield start / sample_rate, np.concatenate([last[:step], kept])[-length:]
    elif len(kept):
        yield 0.0, best_centred_crop(kept, sample_rate, duration)


class _Levels:
    """How much energy a recording's channels hold, their mean, and the mean below half a rate."""

    def __init__(self, sample_rate: int, target: int):
        self.n, self._sample_rate, self._target = 0, sample_rate, target
        self._channels = self._mean = self._left = 0.0
        self._first: np.ndarray | None = None
        self._constant = True

    def watch(self, block: np.ndarray) -> np.ndarray:
        """Take note of a block, shape (n, channels), that passes, and hand it on."""
        self._first = block[0] if self.n == 0 else self._first
        self._constant = self._constant and bool((block == self._first).all())
        self.n += len(block)
        # A Hann window, for where a drift breaks off it would sound at all frequencies.
        hann = np.hanning(len(block) + 2)[1:-1]
        hertz = np.fft.rfftfreq(len(block), 1 / self._sample_rate)
        sound = hertz > _SOUND_HZ
        mean = np.abs(np.fft.rfft(_fold(block) * hann))[sound] ** 2
        self._mean += mean.sum()
        self._left += mean[hertz[sound] < self._target / 2].sum()
        for channel in block.T:
            power = np.abs(np.fft.rfft(channel * hann))[sound] ** 2
            self._channels += power.sum() / block.shape[1] ** 2
        return block

    def notes(self, shortest: int = 2048) -> list[str]:
        """Say what is odd, once all blocks were watched; ``shortest`` as for `load_windows`."""
        notes = []
        if self._constant and (self.n > 1 or not self._first.any()):
            notes.append("silent")  # with or without an offset
        # The mean of n channels that have nothing in common holds 1/n of their energy.
        elif self._mean < 0.1 * self._channels:
            notes.append("the channels cancel: their mean holds under a tenth of what it should")
        if self.n * self._target < shortest * self._sample_rate:
            notes.append(f"shorter than one window ({self.n / self._sample_rate:.3f} s)")
        elif not notes and self._left < 0.1 * self._mean:
            notes.append(
                f"what is loud lies above {self._target / 2:,.0f} Hz: "
                f"{self._left / self._mean:.1g} of the energy is left"
            )
        return notes
