"""A sound file -> blocks of samples, and whether the file is whole.

A decoder stops where its container says that the sound ends, or where the file does, and says
nothing of it. So what a file promises is compared with what it holds. One that promises more is
refused. One that holds more than is read, or that promises no length, is read and noted.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import soundfile as sf
from mutagen import MutagenError
from mutagen.mp3 import BitrateMode, MPEGInfo
from mutagen.ogg import OggPage

from freesound_tagging.errors import DataError

SAMPLE_RATES = (1_000, 1_000_000)  # Hz; beyond them lies no sound, but a slip in a header
# No sample is larger: full scale is 1, or 2**31 where integers were stored as floats. Squares of
# much larger ones overflow, and one such sample hides everything else.
LARGEST = 2.0**32
_BLOCK = 1 << 18  # values that are decoded at once
_PADDING = 2 * 1152  # samples: two frames of an mp3, for encoders differ in what they count
_SLIP = 64  # bytes: some programs count their header as sound
_TAG = 4096  # bytes: fewer than these behind a sound are a tag or padding
_UNKNOWN = 1 << 61  # libsndfile says 2**63 - 1 samples where a header does not say
_SIZES = r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)"  # in its log
_OPEN = "its header leaves its length open, so whether it is whole cannot be told"
_MORE = (
    "sound goes on behind the first and is not read; to have all of it, write it anew as one "
    "sound (ffmpeg and sox can)"
)


class ClipError(DataError):
    """A sound file that cannot be used. The message names the file and the reason."""


class Sound:
    """A sound file whose header has been read; `ClipError` where it cannot be or is cut short.

    ``sample_rate`` is in Hz. ``promised`` are the samples per channel that the header promises, or
    None where it does not say. ``notes`` say what is odd, once `blocks` has come to its end.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.notes, self._mended = Path(path), [], b""
        try:
            if not self.path.is_file():
                self._refuse("there is no such file")
            self._size = self.path.stat().st_size
            with self.path.open("rb") as source:
                if source.read(4) == b"OggS":
                    self._check_pages(source)
            with self._open() as (source, file):
                self._container, self.sample_rate = file.format, file.samplerate
                self.promised = file.frames if file.frames < _UNKNOWN else None
                log = file.extra_info
        except OSError as error:  # no permission, a name that is too long
            self._refuse(f"cannot be opened ({error.strerror})")
        # soundfile raises TypeError for a name that ends in .raw, which has no header to read.
        except (sf.SoundFileError, TypeError) as error:
            reason = getattr(error, "error_string", error)  # without the path, which comes first
            self._refuse(f"cannot be read as audio ({reason}); convert it to wav or flac")
        low, high = SAMPLE_RATES
        if not low <= self.sample_rate <= high:
            self._refuse(f"its header says {self.sample_rate} Hz; legal are {low:,} to {high:,}")
        if self._container == "MP3":
            with self.path.open("rb") as source:
                mpeg = _find_frames(source)
            # Without a length header (Xing, Info, VBRI) libsndfile guesses.
            if mpeg is None or mpeg.bitrate_mode == BitrateMode.UNKNOWN:
                self.promised = None
        elif self._container in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU"):
            self._check_sizes(log)
        elif self._container not in ("FLAC", "OGG"):
            self.notes.append(f"whether a file in {self._container} format is whole cannot be told")
        elif self.promised is None:
            self.notes.append(_OPEN)

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the file in blocks, float32, shape (n, channels).

        `ClipError`, perhaps after some blocks, where it holds less than it promises, cannot be
        decoded, or holds NaN, infinity or a sample beyond `LARGEST`.
        """
        n, fault = 0, ""
        with self._open() as (source, file):
            step = max(1, _BLOCK // file.channels)
            try:
                # Behind its end a flac decoder finds faults.
                while size := min(step, file.frames - n):
                    block = file.read(size, dtype="float32", always_2d=True)
                    if not len(block):
                        break
                    if not (np.abs(block) <= LARGEST).all():  # with NaN it is false
                        self._refuse(
                            f"holds NaN or infinite samples, or larger ones than {LARGEST:.2g}, "
                            f"behind sample {n}"
                        )
                    n += len(block)
                    yield block
            except sf.SoundFileError as error:
                fault = str(error)
            self._check_end(source, n, fault)

    @contextmanager
    def _open(self) -> Iterator[tuple[BinaryIO, sf.SoundFile]]:
        # Not buffered: it then tells how far the decoder came.
        source = io.BytesIO(self._mended) if self._mended else self.path.open("rb", buffering=0)
        with source, sf.SoundFile(source) as file:
            # soundfile seeks after each read, which fails where a FLAC does not say how long it is.
            file.seekable = lambda: False
            yield source, file

    def _refuse(self, reason: str) -> NoReturn:
        raise ClipError(f"{self.path}: {reason}")

    def _check_sizes(self, log: str) -> None:
        """Compare the sizes in a header with what is there; libsndfile logs both."""
        for sizes in re.findall(_SIZES, log, re.MULTILINE):
            said, held = map(int, sizes)
            # A program that writes to a pipe leaves a size near the largest of 31 or 32 bits.
            if said >> 8 == 0xFFFFFF or said >> 12 in (0x7FFFF, 0x80000):
                self.notes = [_OPEN]
            elif said > held + _SLIP:
                self._refuse(f"is truncated: its header promises {said} bytes, it holds {held}")

    def _check_pages(self, file: BinaryIO) -> None:
        """Read an Ogg file page by page: whole, checksums right, one sound, its end marked."""
        page, start, end = None, 0, 0  # the last page, and where it lies
        file.seek(0)
        while end < self._size:
            try:
                following = OggPage(file)
            except (MutagenError, EOFError):
                break
            if page and following.first and not page.first:
                self.notes.append(_MORE)
                return
            page, start, end = following, end, file.tell()
            file.seek(start)
            if file.read(end - start) != page.write():
                self._refuse(f"is damaged: the checksum of the page at byte {start} differs")
        if page is None or (end < self._size and not page.last):
            self._refuse("is truncated: its last page is cut")
        if not page.last:
            self.notes.append("its end is not marked, so whether it is whole cannot be told")
            # libsndfile does not decode the last page of an Opus file unless it is marked.
            page.last = True
            file.seek(0)
            self._mended = file.read(start) + page.write()

    def _check_end(self, source: BinaryIO, n: int, fault: str) -> None:
        """Compare what was promised with the ``n`` samples that were read."""
        missing = 0 if self.promised is None else self.promised - n
        at, more = source.tell(), False
        if self._container == "MP3":
            missing = missing if missing > _PADDING else 0
            more = _find_frames(source, at) is not None
        elif self._container == "FLAC":
            more = self._size - at > _TAG
        if fault or missing:
            reason = fault or f"its header promises {self.promised} samples, it holds {n}"
            self._refuse(f"is truncated or damaged: {reason}")
        if n == 0:
            self._refuse(
                "its header says 0 samples: it is empty, or the program that wrote it did not "
                "finish; repair it (sox --ignore-length can)"
            )
        if more:
            self.notes.append(_MORE)


def _find_frames(file: BinaryIO, offset: int = 0) -> MPEGInfo | None:
    """Return what the MPEG frames say that follow, perhaps behind tags; None where none do."""
    try:
        mpeg = MPEGInfo(file, offset=offset)
    except MutagenError:
        return None
    return None if mpeg.sketchy else mpeg
