"""From a sound file to the waveform a network sees: decode, resample, best-centred crop.

Every function here is pure: the same file and settings give the same numbers. Files are read block
by block, so that a recording of many hours takes no more memory than one of ten minutes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import scipy  # its signal is loaded when first used
import soundfile as sf
import soxr

from freesound_tagging.errors import DataError
from freesound_tagging.sounds.containers import examine

BOX = 0.5
"""Seconds of the loudest stretch that a crop is centred on."""

LARGEST = 2.0**32
"""No sample is larger: full scale is 1, or 2**31 where integers were stored as floats. Squares of
much larger ones overflow, and one such sample hides everything else."""

# libsndfile's answer for "the header does not say how long this is" (a FLAC written to a pipe).
_UNKNOWN_FRAMES = 2**63 - 1
_BLOCK = 1 << 18
# An mp3's header counts whole codec frames of 1,152 samples and encoders differ by one or two of
# them in what they count as padding: a shortfall of two is no sign of damage.
_MP3_SLACK = 2 * 1152
# Seconds of a recording that are kept in memory; a longer one is decoded twice.
_KEPT = 600
# Below 2 Hz lies a microphone's offset and drift. Where that is over a fifth of the energy, what is
# loud is told from what lies above 10 Hz. No clip of ESC-10 or of the digits comes to that.
_DRIFT_HZ, _DRIFT_SHARE, _SOUND_HZ = 2.0, 0.2, 10.0


class ClipError(DataError):
    """A sound file that cannot be used. The message names the file and the reason."""


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


# --- decode ------------------------------------------------------------------------------------


def decode(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Read a sound file as one channel.

    Parameters
    ----------
    path : of a wav, flac, ogg or mp3 (or whatever else libsndfile reads), any rate, any number of
        channels; several channels fold to one by their mean.

    Returns
    -------
    The waveform, float32, shape (time,), and its sample rate in Hz. Integer formats are scaled to
    [-1, 1); float formats keep their values.

    Raises
    ------
    ClipError
        The file is missing, empty, not audio, truncated, damaged or goes on after what can be
        decoded (see `containers.examine`); it holds no samples, NaN, infinity or a sample beyond
        `LARGEST`; or it is a flac that does not say how long it is.

    Notes
    -----
    What no one can tell: damage inside a wav, which has no checksum, or inside a frame of an mp3;
    and that an mp3 without a length header (Xing, Info) was cut between two frames.
    """
    sound = _open(path)
    return np.concatenate([_fold(block) for block in sound.blocks()]), sound.sample_rate


@dataclass(frozen=True)
class _Sound:
    """A sound file whose structure has been examined."""

    path: Path
    sample_rate: int
    n_promised: int
    note: str

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the file in blocks, float32, shape (n, channels)."""
        n = 0
        try:
            with sf.SoundFile(_named(self.path)) as file:
                while len(block := file.read(_BLOCK, dtype="float32", always_2d=True)):
                    # Every comparison with NaN is false.
                    if not (np.abs(block) <= LARGEST).all():
                        at = n + int(np.argmax(~(np.abs(block) <= LARGEST).all(axis=1)))
                        raise ClipError(
                            f"{self.path}: holds NaN or infinite samples, or larger ones than "
                            f"{LARGEST:.2g}; the first is number {at}"
                        )
                    n += len(block)
                    yield block
        except sf.SoundFileError as error:
            raise ClipError(f"{self.path}: is truncated or damaged ({error})") from error
        if n < self.n_promised:
            raise ClipError(
                f"{self.path}: is truncated: its header promises {self.n_promised} samples, "
                f"it holds {n}"
            )
        if n == 0:
            raise ClipError(f"{self.path}: holds no samples")


def _named(path: str | os.PathLike[str]) -> str | bytes:
    """Return a path as soundfile takes it: it refuses a str whose bytes were not UTF-8."""
    return os.fsencode(path) if os.name == "posix" else os.fspath(path)


def _open(path: str | os.PathLike[str]) -> _Sound:
    """Examine a sound file; refuse it where it is not whole."""
    path = Path(path)
    try:
        if not path.exists():
            raise ClipError(f"{path}: there is no such file")
        if not path.is_file():
            raise ClipError(f"{path}: is not a file")
        if path.stat().st_size == 0:
            raise ClipError(f"{path}: is empty (0 bytes)")
        with sf.SoundFile(_named(path)) as file:
            n, sample_rate, container = file.frames, file.samplerate, file.format
        if n == _UNKNOWN_FRAMES:
            # libsndfile cannot read such a file to its end.
            raise ClipError(
                f"{path}: its header does not say how long it is, as when written to a pipe; "
                "write it anew (flac, sox and ffmpeg can)"
            )
        found = examine(path, container, n)
    except OSError as error:  # no permission, a name that is too long
        raise ClipError(f"{path}: cannot be opened ({error.strerror})") from error
    # soundfile raises TypeError for a name that ends in .raw, which has no header to read.
    except (sf.SoundFileError, TypeError) as error:
        reason = getattr(error, "error_string", error)  # without the path, which comes first
        raise ClipError(
            f"{path}: cannot be read as audio ({reason}); convert it to wav or flac"
        ) from error
    if found.fault:
        raise ClipError(f"{path}: {found.fault}")
    slack = _MP3_SLACK if container in ("MP3", "MPEG") else 0
    return _Sound(path, sample_rate, n - slack, found.note)


def seconds_of(path: str | os.PathLike[str]) -> float | None:
    """Return how long a sound file says it lasts, in seconds; None where it does not say.

    A file that cannot be read says nothing: `decode` tells what is wrong with it.
    """
    try:
        seconds = sf.info(_named(path)).duration
    except (sf.SoundFileError, TypeError, OSError):
        return None
    return seconds if seconds < 1e9 else None  # unknown lengths are stored as 2**63 samples


def _fold(block: np.ndarray) -> np.ndarray:
    # The mean is taken in float64, so that it does not depend on the channels' order.
    return block.mean(axis=1, dtype=np.float64).astype(np.float32)


def resample(waveform: np.ndarray, sample_rate: int, target: int) -> np.ndarray:
    """Change a waveform's rate in Hz with soxr at its HQ setting (noise floor below -120 dB).

    Float32, shape (n,), becomes float32, shape (about n * target / sample_rate,).
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if sample_rate == target:
        return waveform
    return soxr.resample(waveform, sample_rate, target, quality="HQ")


def _resample_blocks(
    blocks: Iterable[np.ndarray], sample_rate: int, target: int, path: Path
) -> Iterator[np.ndarray]:
    """As `resample`, to the bit, block by block; where soxr cannot, the error names the file."""
    if sample_rate == target:
        yield from blocks
        return
    try:
        stream = soxr.ResampleStream(sample_rate, target, 1, dtype="float32", quality="HQ")
        for block in blocks:
            yield stream.resample_chunk(block)
        yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
    except ClipError:  # of the blocks
        raise
    except (ValueError, RuntimeError) as error:
        raise ClipError(
            f"{path}: cannot be resampled from {sample_rate} to {target} Hz ({error})"
        ) from error


# --- the loudest stretch -----------------------------------------------------------------------


class _HighPass:
    """A second-order Butterworth filter that is fed block by block and starts at rest."""

    def __init__(self, cutoff: float, sample_rate: int):
        self._sos, self._rest = _design(cutoff, sample_rate)
        self._state: np.ndarray | None = None

    def __call__(self, block: np.ndarray) -> np.ndarray:
        """Filter a block, shape (n, channels)."""
        if self._state is None:  # settled on the first sample: an offset causes no transient
            self._state = self._rest * block[0].astype(np.float64)
        out, self._state = scipy.signal.sosfilt(self._sos, block, axis=0, zi=self._state)
        return out


@lru_cache
def _design(cutoff: float, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
    # At a rate of 100 Hz, 10 Hz is a part of the sound.
    cutoff = min(cutoff, sample_rate / 50)
    sos = scipy.signal.butter(2, cutoff, "highpass", fs=sample_rate, output="sos")
    return sos, scipy.signal.sosfilt_zi(sos)[:, :, None]


class _LoudestBox:
    """Where a box that moves over |x| has the greatest sum; |x| comes block by block.

    Sums are differences of one cumulative sum, so the cost is linear whatever the box. It is kept
    in float64, where sums of float32 samples are all but exact: equal stretches have equal sums.
    """

    def __init__(self, width: int):
        self._width = width
        self._after = width - width // 2
        # The last `width` cumulative sums; before the clip's start they are 0.
        self._totals = np.zeros(width // 2)
        self._n_sums = 0
        self._greatest = -1.0
        self._first = self._last = 0
        self._open = False  # whether the run of greatest sums may go on in the next block
        self._append(np.zeros(1))

    def feed(self, magnitude: np.ndarray) -> None:
        if len(magnitude):
            total = np.concatenate([self._totals[-1:], magnitude])
            self._append(np.cumsum(total, dtype=np.float64)[1:])

    def centre(self) -> int:
        """Middle of the first run of greatest sums, once all blocks were fed."""
        # Centres run from the clip's start to its end; further out, a box would hold less of it.
        self._append(np.full(self._after, self._totals[-1]))
        return (self._first + self._last) // 2

    def _append(self, totals: np.ndarray) -> None:
        totals = np.concatenate([self._totals, totals])
        self._totals = totals[-self._width :]
        sums = totals[self._width :] - totals[: -self._width]
        if not len(sums):
            return
        at = 0
        if sums.max() > self._greatest:
            at = int(np.argmax(sums))
            self._greatest, self._first, self._open = sums[at], self._n_sums + at, True
        if self._open:
            other = np.flatnonzero(sums[at:] != self._greatest)
            self._last = self._n_sums + (at + int(other[0]) if len(other) else len(sums)) - 1
            self._open = not len(other)
        self._n_sums += len(sums)


class _Finder:
    """Finds the loudest stretch of a waveform that comes block by block."""

    def __init__(self, sample_rate: int, duration: float, box: float = BOX):
        width = max(1, round(min(box, duration) * sample_rate))
        self._plain, self._steady = _LoudestBox(width), _LoudestBox(width)
        self._no_drift = _HighPass(_DRIFT_HZ, sample_rate)
        self._sound = _HighPass(_SOUND_HZ, sample_rate)
        self._all = self._fast = 0.0
        self.energy = 0.0  # above 10 Hz, in samples squared

    def feed(self, block: np.ndarray) -> None:
        if not len(block):
            return
        sound = self._sound(block[:, None])[:, 0]
        self._all += _energy(block)
        self._fast += _energy(self._no_drift(block[:, None]))
        self.energy += _energy(sound)
        self._plain.feed(np.abs(block))
        self._steady.feed(np.abs(sound))

    def centre(self) -> int:
        drifts = self._fast < (1 - _DRIFT_SHARE) * self._all
        # What is left of a constant is rounding noise, which is loud nowhere.
        audible = self.energy > 1e-12 * self._all
        return (self._steady if drifts and audible else self._plain).centre()


def _energy(block: np.ndarray) -> float:
    values = block.astype(np.float64, copy=False).ravel()
    return float(np.einsum("i,i", values, values))


def best_centred_crop(
    waveform: np.ndarray, sample_rate: int, duration: float, box: float = BOX
) -> np.ndarray:
    """Cut the stretch of a clip that lies around its loudest half second.

    With half of `duration` of zeros put on either side, a box of `box` seconds moves over |x|; the
    stretch returned is centred on the box with the greatest sum. Where boxes next to each other
    share the greatest sum (a click, a clip shorter than the box, a steady tone) the middle one of
    the first such run is taken, so a click and a short clip end up in the centre.

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
    waveform = np.asarray(waveform, dtype=np.float32)
    finder, length = _Finder(sample_rate, duration, box), round(duration * sample_rate)
    finder.feed(waveform)
    return _cut([waveform], [finder.centre() - length // 2], length)[0]


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


# --- the whole ---------------------------------------------------------------------------------


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
    windows : 1: the best-centred crop. More: their starts are spread evenly over the recording, the
        first at its start and the last at its end; they overlap where it is short.
    shortest : samples, at `settings.sample_rate`, of one analysis frame; a recording with fewer
        gets a note.

    Returns
    -------
    waveforms : float32, shape (windows, settings.n_samples). A recording that is shorter than a
        window stands in the middle of zeros, in every window.
    note : "" for an ordinary recording. One that is kept though it says little is named here:
        silent; its channels cancel; what is loud lies above half the sample rate; very short; or it
        may not be whole (see `containers.examine`).

    Raises
    ------
    ClipError
        As `decode`; or the sample rate is so far off that it cannot be changed.
    """
    if windows < 1:
        raise DataError(f"windows={windows}: give 1 or more")
    sound = _open(path)
    target, length = settings.sample_rate, settings.n_samples
    levels, finder = _Levels(sound.sample_rate), _Finder(target, settings.duration)

    def resampled(watch: bool) -> Iterator[np.ndarray]:
        blocks = map(levels.watch, sound.blocks()) if watch else sound.blocks()
        return _resample_blocks(map(_fold, blocks), sound.sample_rate, target, sound.path)

    kept: list[np.ndarray] | None = []
    n = 0
    for block in resampled(watch=True):
        finder.feed(block)
        n += len(block)
        if kept is not None and n <= _KEPT * target:
            kept.append(block)
        else:
            kept = None
    if windows == 1 or n <= length:
        starts = [finder.centre() - length // 2] * windows
    else:
        starts = [round(i * (n - length) / (windows - 1)) for i in range(windows)]
    waveforms = _cut(resampled(watch=False) if kept is None else kept, starts, length)

    notes = _notes(sound, levels, finder.energy, target, shortest)
    seconds = levels.n / sound.sample_rate
    if windows > 1 and shortest <= seconds * target and n < length:
        notes.append(f"shorter than {settings.duration:g} s ({seconds:.3f} s)")
    return waveforms, "; ".join(notes)


def _notes(
    sound: _Sound, levels: _Levels, energy: float, target: int, shortest: int = 2048
) -> list[str]:
    """Return what is said of a recording that is kept though it says little, see `load_windows`.

    ``energy``: above 10 Hz and after resampling, in samples squared.
    """
    seconds = levels.n / sound.sample_rate
    notes = [sound.note, levels.note()]
    if seconds * target < shortest:
        notes.append(f"shorter than one window ({seconds:.3f} s)")
    elif not levels.note():
        notes.append(levels.note_of_loss(energy / target, target))
    return list(filter(None, notes))


def load_clip(
    path: str | os.PathLike[str],
    settings: ClipSettings = ClipSettings(),
    shortest: int = 2048,
) -> tuple[np.ndarray, str]:
    """Return a sound file's best-centred crop and note: `load_windows` with one window."""
    waveforms, note = load_windows(path, settings, 1, shortest)
    return waveforms[0], note


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


def stream(
    path: str | os.PathLike[str], target: int, notes: list[str] | None = None
) -> Iterator[np.ndarray]:
    """Decode a sound file, fold its channels and change its rate, in blocks of some seconds.

    Parameters
    ----------
    path : as for `decode`; the file is examined before the first block.
    target : the sample rate of the blocks in Hz.
    notes : after the last block, what `load_windows` would note of the recording is added to it.

    Yields
    ------
    Float32, shape (n,).

    Raises
    ------
    ClipError
        As `decode`, which may be after some blocks; the rate cannot be changed; or, after the last
        block, it is silent: all its samples are the same.
    """
    sound = _open(path)
    levels, high_pass, energy = _Levels(sound.sample_rate), _HighPass(_SOUND_HZ, target), 0.0
    blocks = map(_fold, map(levels.watch, sound.blocks()))
    for block in _resample_blocks(blocks, sound.sample_rate, target, sound.path):
        if len(block):
            energy += _energy(high_pass(block[:, None]))
        yield block
    if levels.note() == "silent":
        raise ClipError(f"{path}: is silent: all its samples are the same")
    if notes is not None:
        notes += _notes(sound, levels, energy, target)


class _Levels:
    """How much of a recording's energy its channels hold, and how much their mean."""

    def __init__(self, sample_rate: int):
        self.n = 0
        self._sample_rate = sample_rate
        self._high_pass = _HighPass(_SOUND_HZ, sample_rate)
        self._channels = self._mean = 0.0
        self._n_channels = 1
        self._first: np.ndarray | None = None
        self._constant = True

    def watch(self, block: np.ndarray) -> np.ndarray:
        """Take note of a block, shape (n, channels), that passes, and hand it on."""
        self.n += len(block)
        self._n_channels = block.shape[1]
        self._first = block[0] if self._first is None else self._first
        self._constant = self._constant and bool((block == self._first).all())
        sound = self._high_pass(block)
        self._channels += _energy(sound) / self._n_channels
        self._mean += _energy(sound.mean(axis=1))
        return block

    def note(self) -> str:
        if self._constant and (self.n > 1 or not self._first.any()):
            return "silent"  # with or without an offset
        # The mean of n channels that have nothing in common holds 1/n of their energy.
        if self._mean < 0.1 * self._channels / self._n_channels:
            return "the channels cancel: their mean holds under a tenth of what it should"
        return ""

    def note_of_loss(self, left: float, target: int) -> str:
        """Say where the sound went; `left`: energy after resampling, in samples squared x s."""
        before = self._mean / self._sample_rate
        if left < 0.1 * before:
            share = left / before
            return (
                f"what is loud lies above {target / 2:,.0f} Hz: {share:.1g} of the energy is left"
            )
        return ""
