"""From a sound file to the waveform a network sees: decode, resample, best-centred crop.

Every function here is pure: the same file and settings give the same numbers.
"""

from __future__ import annotations

import math
import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile as sf
import soxr

from freesound_tagging.errors import DataError

# libsndfile's answer for "the header does not say how long this is" (a FLAC written to a pipe).
_UNKNOWN_FRAMES = 2**63 - 1
# Decoding block by block keeps memory at the sound's true length, whatever its header promises.
_BLOCK = 1 << 18
# An mp3's header counts whole codec frames of 1,152 samples and encoders differ by one or two of
# them in what they count as padding: a shortfall of two is no sign of damage.
_MP3_SLACK = 2 * 1152


class ClipError(DataError):
    """A sound file that cannot be used. The message names the file and the reason."""


@dataclass(frozen=True)
class ClipSettings:
    """What every clip is turned into before any spectrogram is computed.

    Parameters
    ----------
    sample_rate : int
        Sample rate in Hz.
    duration : float
        Length in seconds.
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
    path : path
        wav, flac, ogg or mp3 (and whatever else libsndfile reads), any rate, any number of
        channels; several channels fold to one by their mean.

    Returns
    -------
    waveform : np.ndarray [shape=(n,), dtype=float32]
        Integer formats are scaled to [-1, 1); float formats keep their values.
    sample_rate : int
        In Hz.

    Raises
    ------
    ClipError
        The file is missing, empty, not audio, truncated, holds no samples, or holds NaN or
        infinity; or it is a flac that does not say how long it is.

    Notes
    -----
    What can be told about truncation, by format: a wav or aiff whose chunks promise more bytes
    than the file has; a flac that decodes to less than its header says; an ogg whose last page is
    cut short, or is not marked as the last; an mp3 that decodes to over two codec frames less than
    its length header (Xing, Info) says. An mp3 without that header cannot be told from a shorter
    one.
    """
    path = Path(path)
    if not path.exists():
        raise ClipError(f"{path}: there is no such file")
    if not path.is_file():
        raise ClipError(f"{path}: is not a file")
    if path.stat().st_size == 0:
        raise ClipError(f"{path}: is empty (0 bytes)")

    blocks = []
    try:
        with sf.SoundFile(path) as sound:
            promised, sample_rate, container = sound.frames, sound.samplerate, sound.format
            if promised == _UNKNOWN_FRAMES:
                # libsndfile cannot read such a file to its end.
                raise ClipError(
                    f"{path}: its header does not say how long it is, as when written to a "
                    "pipe; write it anew (flac, sox and ffmpeg can)"
                )
            while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
                # The mean is taken in float64, so that it does not depend on the channels' order.
                blocks.append(block.mean(axis=1, dtype=np.float64).astype(np.float32))
    # soundfile raises TypeError for a name that ends in .raw, which has no header to read.
    except (sf.SoundFileError, TypeError) as error:
        if blocks:
            raise ClipError(f"{path}: is truncated or damaged ({error})") from error
        raise ClipError(f"{path}: cannot be read as audio ({error})") from error

    waveform = np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
    slack = _MP3_SLACK if container in ("MP3", "MPEG") else 0
    if len(waveform) < promised - slack:
        raise ClipError(
            f"{path}: is truncated: its header promises {promised} samples, "
            f"it holds {len(waveform)}"
        )
    if fault := _truncation(path):
        raise ClipError(f"{path}: is truncated: {fault}")
    if len(waveform) == 0:
        raise ClipError(f"{path}: holds no samples")
    if not np.isfinite(waveform).all():
        raise ClipError(f"{path}: holds NaN or infinite samples")
    return waveform, sample_rate


def _truncation(path: Path) -> str:
    """What a wav, aiff or ogg file lacks at its end, or "": libsndfile does not say."""
    with path.open("rb") as file:
        start = file.read(12)
        if start[:4] == b"RIFF" and start[8:] == b"WAVE":
            return _cut_chunk(file, "<I", b"data")
        if start[:4] == b"FORM" and start[8:] in (b"AIFF", b"AIFC"):
            return _cut_chunk(file, ">I", b"SSND")
        if start[:4] == b"OggS":
            return _cut_page(file)
    return ""


def _cut_chunk(file: BinaryIO, size_format: str, wanted: bytes) -> str:
    """Compare the size that the chunk of samples announces with the bytes that are there."""
    end = file.seek(0, os.SEEK_END)
    at = 12
    while at + 8 <= end:
        file.seek(at)
        name, (size,) = file.read(4), struct.unpack(size_format, file.read(4))
        if name == wanted:
            # Programs that write to a pipe leave a size near the largest 31- or 32-bit number: the
            # length was unknown to them.
            unknown = size >= 0xFFFFFF00 or 0x7FFFF000 <= size <= 0x80000000
            if not unknown and at + 8 + size > end:
                return f"its header promises {size} bytes of samples, it holds {end - at - 8}"
            return ""
        at += 8 + size + size % 2
    return "" if at <= end else "it ends before its samples begin"


def _cut_page(file: BinaryIO) -> str:
    """Check that the last Ogg page is whole and marked as the last of its stream."""
    # A page has at most 27 + 255 + 255 * 255 bytes, so the last one begins within this tail.
    end = file.seek(0, os.SEEK_END)
    file.seek(max(0, end - 65_536))
    tail = file.read()
    page = tail[tail.rfind(b"OggS") :]
    if not page.startswith(b"OggS") or len(page) < 27 or len(page) < 27 + page[26]:
        return "its last page is cut short"
    if len(page) < 27 + page[26] + sum(page[27 : 27 + page[26]]):
        return "its last page is cut short"
    return "" if page[5] & 4 else "its last page is not marked as the end of the stream"


def resample(waveform: np.ndarray, sample_rate: int, target: int) -> np.ndarray:
    """Change the sample rate with soxr at its HQ setting (noise floor below -120 dB).

    Parameters
    ----------
    waveform : np.ndarray [shape=(n,)]
    sample_rate, target : int
        Rates before and after, in Hz.

    Returns
    -------
    np.ndarray [shape=(about n * target / sample_rate,), dtype=float32]
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    if sample_rate == target:
        return waveform
    return soxr.resample(waveform, sample_rate, target, quality="HQ")


def best_centred_crop(
    waveform: np.ndarray, sample_rate: int, duration: float, box: float = 0.5
) -> np.ndarray:
    """Cut the stretch of a clip that lies around its loudest half second.

    With half of `duration` of zeros put on either side, a box of `box` seconds moves over |x|; the
    stretch returned is centred on the box with the greatest sum. Where boxes next to each other
    share the greatest sum (a click, a clip shorter than the box, a steady tone) the middle one of
    the first such run is taken, so a click and a short clip end up in the centre.

    Parameters
    ----------
    waveform : np.ndarray [shape=(n,)]
    sample_rate : int
        In Hz.
    duration : float
        Length of the result in seconds.
    box : float
        Length of the moving box in seconds; never longer than `duration`.

    Returns
    -------
    np.ndarray [shape=(round(duration * sample_rate),), dtype=float32]
        Zeros where the stretch reaches over an end of the clip.

    Notes
    -----
    Linear in n whatever the box: sums are differences of one cumulative sum. It is kept in
    float64, where sums of float32 samples are all but exact, so equal stretches have equal sums.
    """
    waveform = np.asarray(waveform, dtype=np.float32)
    n, length = len(waveform), round(duration * sample_rate)
    width = max(1, round(min(box, duration) * sample_rate))

    # Centres run from the clip's start to its end; further out, a box would hold less of it.
    total = np.concatenate([[0.0], np.cumsum(np.abs(waveform), dtype=np.float64)])
    begin = np.arange(n + 1) - width // 2
    sums = total[np.clip(begin + width, 0, n)] - total[np.clip(begin, 0, n)]
    greatest = sums == sums.max()
    first = int(np.argmax(greatest))
    after = np.flatnonzero(~greatest[first:])
    last = first + int(after[0]) - 1 if len(after) else n
    start = (first + last) // 2 - length // 2

    crop = np.zeros(length, np.float32)
    left, right = max(start, 0), min(start + length, n)
    crop[left - start : right - start] = waveform[left:right]
    return crop


def load_clip(
    path: str | os.PathLike[str],
    settings: ClipSettings = ClipSettings(),
    shortest: int = 2048,
) -> tuple[np.ndarray, str]:
    """Turn a sound file into the waveform a network sees.

    Parameters
    ----------
    path : path
        wav, flac, ogg or mp3.
    settings : ClipSettings
        Sample rate and length of the result.
    shortest : int
        Samples, at `settings.sample_rate`, of one analysis window; a clip with fewer gets a note.

    Returns
    -------
    waveform : np.ndarray [shape=(settings.n_samples,), dtype=float32]
    note : str
        "" for an ordinary clip. A clip that is kept though it says little is named here: "silent",
        or "shorter than one window (0.030 s)" with its own length.

    Raises
    ------
    ClipError
        As `decode`; or the sample rate is so far off that it cannot be changed.
    """
    waveform, sample_rate = decode(path)
    notes = []
    if not waveform.any():
        notes.append("silent")
    seconds = len(waveform) / sample_rate
    if seconds * settings.sample_rate < shortest:
        notes.append(f"shorter than one window ({seconds:.3f} s)")
    try:
        waveform = resample(waveform, sample_rate, settings.sample_rate)
    except (ValueError, RuntimeError) as error:
        raise ClipError(
            f"{path}: cannot be resampled from {sample_rate} to {settings.sample_rate} Hz ({error})"
        ) from error
    crop = best_centred_crop(waveform, settings.sample_rate, settings.duration)
    return crop, "; ".join(notes)
