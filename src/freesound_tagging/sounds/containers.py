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
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import soundfile as sf
from mutagen import MutagenError
from mutagen.mp3 import BitrateMode, MPEGInfo, skip_id3
from mutagen.ogg import OggPage

from freesound_tagging.errors import DataError

SAMPLE_RATES = (1_000, 1_000_000)  # Hz; beyond them lies no sound, but a slip in a header
# No sample is larger: full scale is 1, or 2**31 where integers were stored as floats. Squares of
# much larger ones overflow, and one such sample hides everything else.
LARGEST = 2.0**32
_BLOCK = 1 << 18  # values that are decoded at once
_MP3_FRAME = 1152  # samples
_SLIP = 64  # bytes: some programs count their header as sound
_TAG = 4096  # bytes: fewer than these behind a sound are a tag or padding
_UNKNOWN = 1 << 61  # libsndfile says 2**63 - 1 samples where a header does not say
_SIZE = r"^ *(data|SSND|Data Size|riff|Riff size|RIFF|FORM) *: (\d+)"  # in libsndfile's log
_OPEN = "its header leaves its length open, so whether it is whole cannot be told"
_ANEW = "to have all of it, write it anew as one sound (ffmpeg and sox can)"


class ClipError(DataError):
    """A sound file that cannot be used. The message names the file and the reason."""


class Sound:
    """A sound file whose header has been read; `ClipError` where it cannot be or is cut short.

    ``sample_rate`` is in Hz. ``promised`` are the samples per channel that the header promises, or
    None where it does not say. ``notes`` say what is odd, once `blocks` has come to its end.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.notes = Path(path), []
        self.promised: int | None = 0
        self._container, self._mended, self._promised_bytes = "", b"", 0.0
        try:
            if not self.path.is_file():
                self._refuse("is not a file" if self.path.exists() else "there is no such file")
            self._size = self.path.stat().st_size
            if self._size == 0:
                self._refuse("is empty (0 bytes)")
            with self.path.open("rb") as file:
                skip_id3(file)
                start = file.tell()
                if file.read(4) == b"OggS":
                    self._check_pages(file, start)
            with self._open() as (_, file):
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
        if self._container in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU"):
            self._check_sizes(log)
        elif self._container == "MP3":
            self._read_mpeg_header()
        elif self._container not in ("FLAC", "OGG"):
            self._note(f"whether a file in {self._container} format is whole cannot be told")
        elif self.promised is None:
            self._note(_OPEN)

    def blocks(self) -> Iterator[np.ndarray]:
        """Decode the file in blocks, float32, shape (n, channels).

        `ClipError`, perhaps after some blocks, where it holds less than it promises, cannot be
        decoded, or holds NaN, infinity or a sample beyond `LARGEST`.
        """
        n, fault = 0, ""
        wanted = _UNKNOWN if self.promised is None else self.promised
        with self._open() as (source, file):
            step = max(1, _BLOCK // file.channels)
            if self._container == "MP3" and self.promised is None:
                step = _MP3_FRAME  # a last frame that is cut takes no other with it
            while n < wanted:
                try:
                    block = file.read(min(step, wanted - n), dtype="float32", always_2d=True)
                except sf.SoundFileError as error:
                    fault = str(error)
                    break
                if not len(block):
                    break
                legal = (np.abs(block) <= LARGEST).all(axis=1)  # comparisons with NaN are false
                if not legal.all():
                    self._refuse(
                        f"holds NaN or infinite samples, or larger ones than {LARGEST:.2g}; the "
                        f"first is number {n + int(np.argmin(legal))}"
                    )
                n += len(block)
                yield block
            self._check_end(source, n, fault)

    @contextmanager
    def _open(self) -> Iterator[tuple[BinaryIO | None, sf.SoundFile]]:
        # soundfile refuses a str whose bytes were not UTF-8
        name, source = os.fsencode(self.path) if os.name == "posix" else self.path, None
        if self._mended:
            source = io.BytesIO(self._mended)
        elif self._container == "MP3" and self.promised is None:
            source = _Endless(self.path)
        elif self._container in ("MP3", "FLAC"):  # it then tells how far the decoder came
            source = self.path.open("rb", buffering=0)
        with source or nullcontext(), _Sequential(source or name) as file:
            yield source, file

    def _refuse(self, reason: str) -> NoReturn:
        raise ClipError(f"{self.path}: {reason}")

    def _note(self, note: str) -> None:
        if note not in self.notes:  # a long file is read twice
            self.notes.append(note)

    def _check_sizes(self, log: str) -> None:
        """Compare the sizes in a header with what is there; libsndfile logs both."""
        for name, *sizes in re.findall(rf"{_SIZE} \(should be (\d+)\)", log, re.MULTILINE):
            said, held = map(int, sizes)
            # A program that writes to a pipe leaves a size near the largest of 31 or 32 bits.
            if said >> 8 == 0xFFFFFF or said >> 12 in (0x7FFFF, 0x80000):
                self._note(_OPEN)
            elif name not in ("RIFF", "FORM") and said > held + _SLIP:
                self._refuse(f"is truncated: its header promises {said} bytes, it holds {held}")
        length = re.findall(r"^(?:Length|Embedded file length) : (\d+)", log, re.MULTILINE)
        length = int(length[-1])  # without an ID3 tag in front
        ends = [int(size) for _, size in re.findall(_SIZE, log, re.MULTILINE)]
        end = max((size for size in ends if size <= length), default=length)
        unread = re.search(r"Unknown chunk marker \(\w+\) at position (\d+)", log)
        behind = length - min(end, int(unread[1]) if unread else end)
        if behind > _TAG and self.promised:
            self._note(f"{behind} bytes behind its sound are not read; {_ANEW}")

    def _check_pages(self, file: BinaryIO, start: int) -> None:
        """Read an Ogg file page by page: whole, checksums right, one sound, its end marked."""
        at, number, begun, page, content = start, 0, False, None, b""
        while at < self._size:
            file.seek(at)
            number += 1
            try:
                following = OggPage(file)
            except (MutagenError, EOFError):
                file.seek(at)
                if file.read(4) == b"OggS":
                    self._refuse("is truncated: its last page is cut")
                if self._size - at > _TAG:
                    self._note(f"what follows byte {at} is no part of its sound")
                break
            if following.first and begun:
                self._note(f"another sound stands behind the first and is not read; {_ANEW}")
                break
            page, content = following, following.write()
            begun = not page.first
            file.seek(at)
            if file.read(len(content)) != content:
                self._refuse(f"is damaged: the checksum of page {number} differs")
            at = file.tell()
        file.seek(start)
        if start:  # libsndfile knows no tags in front of an Ogg file
            self._mended = file.read(at - start)
        if at == self._size and not page.last:
            self._note("its end is not marked, so whether it is whole cannot be told")
            # libsndfile does not decode the last page of an Opus file unless it is marked.
            page.last = True
            file.seek(start)
            self._mended = file.read(at - len(content) - start) + page.write()

    def _read_mpeg_header(self) -> None:
        """Take a length only from a Xing, Info or VBRI header: otherwise libsndfile guesses."""
        with self.path.open("rb") as file:
            mpeg = _find_frames(file)
        if mpeg is None or mpeg.bitrate_mode == BitrateMode.UNKNOWN:
            self.promised = None
        else:
            self._promised_bytes = mpeg.frame_offset + mpeg.bitrate * mpeg.length / 8

    def _check_end(self, source: BinaryIO | None, n: int, fault: str) -> None:
        """Compare what was promised with the ``n`` samples that were read."""
        missing = 0 if self.promised is None else self.promised - n
        if self._container == "MP3":
            goes_on = _find_frames(source, source.tell()) is not None
            if self.promised is None and not goes_on:
                fault = ""  # a last frame that is cut
            elif goes_on and not fault:
                self._note(f"sound goes on behind the {n} samples that are read; {_ANEW}")
            if missing <= 2 * _MP3_FRAME:  # encoders differ in what they count as padding
                missing = 0
            elif not fault and self._size > 0.99 * self._promised_bytes:
                self._note(f"its header counts {self.promised} samples, it holds {n}")
                missing = 0
        elif self._container == "FLAC" and _holds_second_flac(source):
            self._note(f"another sound stands behind the first and is not read; {_ANEW}")
        if fault or missing:
            reason = fault or f"its header promises {self.promised} samples, it holds {n}"
            self._refuse(f"is truncated or damaged: {reason}")
        if n == 0 and self._size > _TAG:
            self._refuse(
                f"its header says 0 samples, yet it has {self._size} bytes: the program that wrote "
                "it did not finish; repair it (sox --ignore-length can)"
            )
        if n == 0:
            self._refuse("holds no samples")


class _Sequential(sf.SoundFile):
    """soundfile seeks after each read, which fails where a FLAC does not say how long it is."""

    def seekable(self) -> bool:
        return False


class _Endless(io.FileIO):
    """A file that seems a terabyte long, with zeros at its end.

    Of an mp3 without a length header libsndfile reads as much as it guesses from the size of the
    file and of the first frame; of this one all there is.
    """

    def seek(self, offset: int, whence: int = 0) -> int:
        return super().seek((1 << 40) + offset) if whence == 2 else super().seek(offset, whence)

    def readinto(self, buffer) -> int:
        if self.tell() < 1 << 39:
            return super().readinto(buffer)
        buffer[:] = bytes(len(buffer))
        return len(buffer)


def _find_frames(file: BinaryIO, offset: int = 0) -> MPEGInfo | None:
    """Return what the MPEG frames say that follow, perhaps behind tags; None where none do."""
    try:
        mpeg = MPEGInfo(file, offset=offset)
    except MutagenError:
        return None
    return None if mpeg.sketchy else mpeg


def _holds_second_flac(file: BinaryIO) -> bool:
    """Say whether a FLAC header stands near the end of what the decoder's buffer of 64 kB read."""
    at = file.tell()
    file.seek(0)
    skip_id3(file)
    file.seek(max(file.tell() + 4, at - (1 << 17)))
    return re.search(rb"fLaC[\0\x80]\0\0\x22", file.read(1 << 18)) is not None
