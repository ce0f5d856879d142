"""Is a sound file whole? libsndfile does not say, so the file's own structure is read here.

A decoder stops where its container says that the sound ends, or where the file does, and steps over
damage. `examine` compares what the container promises with the bytes that are there.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import re
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile as sf

_BLOCK = 1 << 18
_UNFINISHED = "the program that wrote it did not finish; repair it (sox --ignore-length can)"
_STARTS = (b"RIFF", b"RIFX", b"RF64", b"riff", b"FORM", b"caff", b".snd", b"dns.", b"NIST")


class Finding(NamedTuple):
    """What is wrong with a file (`fault`: it must not be used) or odd (`note`); "" for neither."""

    fault: str = ""
    note: str = ""


def examine(path: Path, container: str, n_samples: int) -> Finding:
    """Compare what a sound file promises with what it holds.

    Parameters
    ----------
    path : of a file that is not empty.
    container : as `soundfile.SoundFile.format` names it.
    n_samples : samples per channel that libsndfile finds in the file.

    Returns
    -------
    Fault: the file is cut short, goes on after what is decoded, or is damaged inside. Note: bytes
    behind the sound that are not read, or a file whose length cannot be checked.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if layout := _LAYOUTS.get(data[:4]):
            return _chunks(data, layout)
        if container == "AU":
            start, size = struct.unpack_from(">II" if data[:4] == b".snd" else "<II", data, 4)
            if start + size > len(data) and size != 0xFFFFFFFF:
                return _cut(size, len(data) - start)
            return _behind(data, start + size) if size != 0xFFFFFFFF else _OPEN
        if container == "FLAC":
            return _flac(data, path)
        if container == "OGG":
            return _ogg(data)
        if container in ("MP3", "MPEG"):
            return _mpeg(data, n_samples)
        if container == "NIST" and (count := re.search(rb"\nsample_count -i (\d+)", data[:1024])):
            promised = int(count[1])
            if promised == n_samples:
                return Finding()
            state = "is truncated" if promised > n_samples else "does not agree with its header"
            return Finding(f"{state}: promised are {promised} samples, it holds {n_samples}")
        if container == "HTK":  # libsndfile refuses one whose length is not that of its header
            return Finding()
    return Finding(note=f"whether a file in {container} format is whole cannot be told")


_OPEN = Finding(note="its header leaves its length open, so whether it is whole cannot be told")


def _cut(promised: int, held: int) -> Finding:
    return Finding(
        f"is truncated: its header promises {promised} bytes of samples, it holds {max(held, 0)}"
    )


def _unread(count: int) -> str:
    return f"{count} bytes behind the end of its sound are no part of it" if count else ""


def _behind(data: mmap.mmap, end: int) -> Finding:
    """Look at what comes after the end of the sound."""
    if data[end : end + 4] in _STARTS:
        return Finding("holds another file behind the first; take them apart")
    return Finding(note=_unread(max(0, len(data) - end)))


# --- chunks: wav, rf64, w64, aiff, iff, caf ----------------------------------------------------


class _Layout(NamedTuple):
    """How a container lays out its chunks.

    first: where the first begins; header: `struct` format of a chunk's name and size; pad: chunks
    begin at multiples of so many bytes; counted: bytes of the header that the size includes.
    """

    first: int
    header: str
    pad: int = 2
    counted: int = 0


_LAYOUTS = {
    b"RIFF": _Layout(12, "<4sI"),
    b"RF64": _Layout(12, "<4sI"),
    b"RIFX": _Layout(12, ">4sI"),
    b"FORM": _Layout(12, ">4sI"),
    b"caff": _Layout(8, ">4sq", pad=1),
    b"riff": _Layout(40, "<16sQ", pad=8, counted=24),
}
_SAMPLES = (b"data", b"SSND", b"BODY")


def _chunks(data: mmap.mmap, layout: _Layout) -> Finding:
    """Walk from chunk to chunk, to the samples and on to the end of the file."""
    at, end, wide, sound = layout.first, len(data), None, None
    while at + struct.calcsize(layout.header) <= end:
        name, size = struct.unpack_from(layout.header, data, at)
        start, size = at + struct.calcsize(layout.header), size - layout.counted
        if sound is not None and (name[:4] in _STARTS or not re.fullmatch(rb"[ -~]{4}", name[:4])):
            break  # what follows the sound is no chunk
        if name == b"ds64":  # RF64 keeps its sizes there; the data chunk's own is 0xFFFFFFFF
            (wide,) = struct.unpack_from("<Q", data, start + 8)
        elif name[:4] in _SAMPLES:
            if sound is not None:
                return Finding("holds a second chunk of samples, which would not be read")
            if data[:4] == b"RF64" and size == 0xFFFFFFFF and wide is not None:
                size = wide
            # Programs that write to a pipe leave a size near the largest 31- or 32-bit number
            # (in caf -1): the length was unknown to them.
            elif size == -1 or (
                layout.header.endswith("I")
                and (size >= 0xFFFFFF00 or 0x7FFFF000 <= size <= 0x80000000)
            ):
                return _OPEN
            if start + size > end:
                return _cut(size, end - start)
            sound = size
        if size < 0 or start + size > end:
            break
        at = start + size + -size % layout.pad
    if sound is None:
        return Finding("is truncated: it ends before its samples begin")
    if sound == 0 and at < end:
        return Finding(
            f"its header says 0 bytes of samples, yet {end - at} bytes follow: {_UNFINISHED}"
        )
    return _behind(data, at)


# --- flac --------------------------------------------------------------------------------------


def _flac(data: mmap.mmap, path: Path) -> Finding:
    """Compare the decoded samples with the MD5 that the encoder noted of them."""
    if any(data.find(b"fLaC" + last + b"\0\0\x22", 4) > 0 for last in (b"\0", b"\x80")):
        return Finding("holds another flac behind the first; take them apart")
    info = data.find(b"fLaC") + 8
    bits = ((data[info + 12] & 1) << 4 | data[info + 13] >> 4) + 1
    noted = data[info + 18 : info + 34]
    if not any(noted):
        return Finding(note="holds no MD5 of its samples, so damage inside it cannot be told")
    digest = hashlib.md5(usedforsecurity=False)
    try:
        with sf.SoundFile(os.fsencode(path)) as sound:
            while len(block := sound.read(_BLOCK, dtype="int32", always_2d=True)):
                samples = (block >> (32 - bits)).astype("<i4").view(np.uint8)
                digest.update(samples.reshape(-1, 4)[:, : (bits + 7) // 8].tobytes())
    except sf.SoundFileError as error:
        return Finding(f"is truncated or damaged ({error})")
    if digest.digest() != noted:
        return Finding("is truncated or damaged: its samples differ from the MD5 in its header")
    return Finding()


# --- ogg ---------------------------------------------------------------------------------------

_MIRRORED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def _ogg_crc(page: bytes) -> int:
    """Return the CRC-32 of Ogg (RFC 3533): zlib's polynomial, bits in the other order, from 0."""
    crc = zlib.crc32(page.translate(_MIRRORED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)


def _ogg(data: mmap.mmap) -> Finding:
    """Check every page: whole, with its checksum, in sequence, and in one stream to its end."""
    at, number = 0, 0
    pages: dict[int, int] = {}  # stream -> the page it last had
    ended: set[int] = set()
    begun = False  # all streams side by side begin before any goes on
    while data[at : at + 4] == b"OggS":
        number += 1
        head = data[at : at + 27]
        table = data[at + 27 : at + 27 + head[26]] if len(head) == 27 else b""
        size = 27 + len(table) + sum(table)
        if len(head) < 27 or len(table) < head[26] or at + size > len(data):
            return Finding("is truncated: its last page is cut short")
        flags, stream, sequence, crc = struct.unpack_from("<5xB8xIII", head)
        if _ogg_crc(head[:22] + bytes(4) + data[at + 26 : at + size]) != crc:
            return Finding(f"is damaged: the checksum of page {number} differs")
        if flags & 2:
            if begun:
                return Finding(
                    "holds another sound behind the first, which would not be read; take them "
                    "apart, or write all of it anew as one"
                )
            pages[stream] = sequence
        elif stream not in pages or stream in ended or sequence != pages[stream] + 1:
            return Finding(f"is damaged: pages are missing or misplaced before page {number}")
        else:
            begun, pages[stream] = True, sequence
        if flags & 4:
            ended.add(stream)
        at += size
    if data.find(b"OggS", at) >= 0:
        return Finding(f"is damaged: what follows page {number} is no page")
    if len(ended) < len(pages):
        return Finding("is truncated: its last page is not marked as the end of the stream")
    if len(pages) > 1:
        return Finding(note=f"holds {len(pages)} streams side by side; one is read")
    return Finding(note=_unread(len(data) - at))


# --- mp3, mp2, mp1 -----------------------------------------------------------------------------

# kbit/s by index 1 to 14, for MPEG 1 (layers I, II, III) and MPEG 2 and 2.5 (I, then II and III).
_KBITS = {
    (1, 1): range(32, 449, 32),
    (1, 2): (32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384),
    (1, 3): (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    (2, 1): (32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256),
    (2, 2): (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
# Encoders put silence before and after a sound, four frames at most, that decoders take off.
_PADDING_FRAMES = 4


class _Frame(NamedTuple):
    size: int  # bytes
    samples: int
    sample_rate: int
    tagged: bool  # no sound, but the length header (Xing, Info) with which a file begins


def _frame(data: mmap.mmap, at: int) -> _Frame | None:
    """Read the header of an MPEG audio frame (ISO 11172-3, 13818-3); None where there is none."""
    if at + 4 > len(data):
        return None
    (word,) = struct.unpack_from(">I", data, at)
    version, layer = word >> 19 & 3, 4 - (word >> 17 & 3)
    kbits, rate, padding = word >> 12 & 15, word >> 10 & 3, word >> 9 & 1
    if word >> 21 != 0x7FF or version == 1 or layer == 4 or kbits in (0, 15) or rate == 3:
        return None
    first = version == 3
    sample_rate = (44_100, 48_000, 32_000)[rate] // {3: 1, 2: 2, 0: 4}[version]
    bits = 1000 * _KBITS[1 if first else 2, layer if first else min(layer, 2)][kbits - 1]
    if layer == 1:
        return _Frame((12 * bits // sample_rate + padding) * 4, 384, sample_rate, False)
    samples = 576 if layer == 3 and not first else 1152
    mono = word >> 6 & 3 == 3
    side = (17 if mono else 32) if first else (9 if mono else 17)
    tagged = layer == 3 and data[at + 4 + side : at + 8 + side] in (b"Xing", b"Info")
    return _Frame(samples // 8 * bits // sample_rate + padding, samples, sample_rate, tagged)


def _mpeg(data: mmap.mmap, n_samples: int) -> Finding:
    """Walk from frame to frame: all of them decoded, nothing between them, one length header."""
    at = 0
    while data[at : at + 3] == b"ID3" and at + 10 <= len(data):
        a, b, c, d = data[at + 6 : at + 10]
        at += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if data[at + 5] & 16 else 0)
    while data[at : at + 1] == b"\0":
        at += 1
    samples = count = 0
    frame = first = _frame(data, at)
    if first is None:
        return Finding(note="its frames cannot be counted, so whether it is whole cannot be told")
    while frame is not None and at + frame.size <= len(data):
        if count and frame.tagged:
            return Finding(
                "holds another mp3 behind the first; take them apart, or write all of it anew"
            )
        samples += 0 if frame.tagged else frame.samples
        count, at = count + 1, at + frame.size
        frame = _frame(data, at)
    if frame is not None:
        return Finding(note="its last frame is cut short")
    rest = data[at:]
    tags = (b"TAG", b"APETAGEX", b"LYRICSBEGIN")
    if not rest.startswith(tags) and rest.strip(b"\0"):
        if rest.startswith(b"ID3"):
            return Finding("holds another mp3 behind the first; take them apart")
        for place in range(len(rest) - 4):
            found = _frame(data, at + place) if rest[place] == 0xFF else None
            if found and found[1:3] == first[1:3] and _frame(data, at + place + found.size):
                return Finding(f"is damaged: what follows frame {count} is no frame")
        return Finding(note=_unread(len(rest)))
    if samples - n_samples > _PADDING_FRAMES * first.samples:
        return Finding(f"holds {samples} samples, of which {n_samples} would be read")
    return Finding()
