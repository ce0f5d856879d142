"""From a sound file to the waveform a network sees: decode, resample, best-centred crop.

Files are read block by block, so that a recording of many hours takes no more memory than one of
some minutes. A decoder says nothing where it stops early. So what a file promises is compared with
what it holds: one that promises more is refused; one that holds more than is read, or that promises
no length, is read and noted.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NoReturn

import numpy as np
import scipy  # its signal is loaded when first used
import soundfile as sf
import soxr
from mutagen import MutagenError
from mutagen.mp3 import BitrateMode, MPEGInfo, skip_id3
from mutagen.ogg import OggPage

from freesound_tagging.errors import DataError

BOX = 0.5  # seconds of the loudest stretch that a crop is centred on
SHORTEST = 2048  # samples of one analysis frame; a recording with fewer gets a note
_SEARCHED = 120  # seconds that are searched at a time; a longer recording is decoded twice
# Below 2 Hz lies a microphone's offset and drift. Where that is over a fifth of the energy, what is
# loud is told from what lies above 10 Hz. No clip of ESC-10 or of the digits comes to that.
_DRIFT_HZ, _DRIFT_SHARE, _SOUND_HZ = 2.0, 0.2, 10.0
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
_MORE = "sound goes on behind the first and is not read; write it anew as one (ffmpeg and sox can)"


def decode(path: str | os.PathLike[str]) -> tuple[np.ndarray, int]:
    """Read a sound file as one channel, the mean of its channels.

    Returns the waveform, float32, shape (time,), and its sample rate in Hz. Integer formats are
    scaled to [-1, 1); float formats keep their values. `ClipError`: the file cannot be read or is
    not whole; data/README.md lists what is refused.
    """
    sound = Sound(path)
    return np.concatenate([_fold(block) for block in sound.blocks()]), sound.sample_rate


def resample(waveform: np.ndarray, sample_rate: int, target: int) -> np.ndarray:
    """Change a waveform's rate in Hz; shape (n,) becomes (about n * target / sample_rate,)."""
    return soxr.resample(np.asarray(waveform, np.float32), sample_rate, target, quality="HQ")


def _fold(block: np.ndarray) -> np.ndarray:
    # The mean is taken in float64, so that it does not depend on the channels' order.
    return block.mean(axis=1, dtype=np.float64).astype(np.float32)


def stream(
    path: str | os.PathLike[str], target: int, notes: list[str] | None = None
) -> Iterator[np.ndarray]:
    """Decode a sound file, fold its channels and change its rate to ``target`` Hz.

    Yields blocks of some seconds, float32, shape (n,), and after the last one adds to ``notes``
    what is odd of the recording. `ClipError` as `decode`, perhaps after some blocks.
    """
    sound = Sound(path)
    change = soxr.ResampleStream(sound.sample_rate, target, 1, quality="HQ").resample_chunk
    n, energy = 0, np.zeros(3)
    for block in sound.blocks():
        n += len(block)
        mean = _fold(block)
        changed = change(mean)
        energy += _energy(block) / block.shape[1] ** 2, _energy(mean), _energy(changed)
        yield changed
    rest = change(np.zeros(0, np.float32), last=True)
    energy[2] += _energy(rest)
    yield rest
    notes = [] if notes is None else notes
    channels, mean, left = energy * (1, 1, sound.sample_rate / target)
    if not channels:  # with or without an offset
        notes.append("silent")
    # The mean of n channels that have nothing in common holds 1/n of their energy.
    elif mean < 0.1 * channels:
        notes.append("the channels cancel: their mean holds under a tenth of what it should")
    elif left < 0.1 * mean:
        limit, share = target / 2, left / mean
        notes.append(f"what is loud lies above {limit:,.0f} Hz: {share:.1g} of it is left")
    if n * target < SHORTEST * sound.sample_rate:
        notes.append(f"shorter than one window ({n / sound.sample_rate:.3f} s)")
    notes += sound.notes


def _energy(block: np.ndarray) -> float:
    """Return the energy of a block, shape (n,) or (n, channels), without its channels' means."""
    return len(block) * block.var(axis=0, dtype=np.float64).sum() if len(block) else 0.0


def best_centred_crop(waveform: np.ndarray, sample_rate: int, duration: float) -> np.ndarray:
    """Cut the stretch of a clip that lies around its loudest half second.

    A box of half a second (at most ``duration``) moves over |x|; the stretch is centred on the
    box with the greatest sum, on the middle one of the first run of such boxes. So a click and a
    clip shorter than the box end up in the centre. Where an offset or a drift below 2 Hz holds over
    a fifth of the energy, the box moves over what lies above 10 Hz.

    A waveform of shape (time,) with a rate in Hz becomes float32, shape (round(duration *
    sample_rate),); zeros where the stretch reaches over an end of the clip.
    """
    waveform, length = np.asarray(waveform, np.float32), round(duration * sample_rate)
    centre, _ = _loudest(waveform, sample_rate, min(BOX, duration))
    return cut([waveform], [centre - length // 2], length)[0]


def _loudest(waveform: np.ndarray, sample_rate: int, box: float) -> tuple[int, float]:
    """Return the middle of the loudest box, in samples, and the sum of |x| in it."""
    if not len(waveform):
        return 0, 0.0
    width, sound, silent = max(1, round(box * sample_rate)), waveform, False
    energy = waveform @ waveform.astype(np.float64)
    above = _high_pass(waveform, sample_rate, _DRIFT_HZ)
    if above @ above < (1 - _DRIFT_SHARE) * energy:
        above = _high_pass(waveform, sample_rate, _SOUND_HZ)
        # What is left of a constant is rounding noise, which is loud nowhere.
        silent = above @ above <= 1e-12 * energy
        sound = sound if silent else above
    # In float64 sums of float32 samples are all but exact: equal stretches have equal sums.
    total = np.cumsum(np.concatenate([[0.0], np.abs(sound)]), dtype=np.float64)
    total = np.pad(total, (width // 2, width - width // 2), "edge")
    sums = total[width:] - total[:-width]
    first = int(np.argmax(sums))
    run = int(np.argmin(np.append(sums[first:] == sums[first], False)))  # of equal boxes
    return first + (run - 1) // 2, 0.0 if silent else float(sums[first])


def _high_pass(waveform: np.ndarray, sample_rate: int, cutoff: float) -> np.ndarray:
    sos = scipy.signal.butter(2, cutoff, "highpass", fs=sample_rate, output="sos")
    # Settled on the first sample, so that an offset causes no transient.
    return scipy.signal.sosfilt(sos, waveform, zi=scipy.signal.sosfilt_zi(sos) * waveform[0])[0]


def cut(blocks: Iterable[np.ndarray], starts: list[int], length: int) -> np.ndarray:
    """Copy stretches out of a waveform that comes block by block; zeros outside of it."""
    stretches, at = np.zeros((len(starts), length), np.float32), 0
    for block in blocks:
        for row, start in zip(stretches, starts, strict=True):
            left, right = max(start, at), min(start + length, at + len(block))
            if left < right:
                row[left - start : right - start] = block[left - at : right - at]
        at += len(block)
    return stretches


def load_windows(
    path: str | os.PathLike[str], sample_rate: int = 22_050, duration: float = 2.0, windows: int = 1
) -> tuple[np.ndarray, str]:
    """Turn a recording into windows of equal rate (Hz) and length (s), as a network sees them.

    One window is the best-centred crop; of a recording beyond two minutes, that of its loudest two.
    The starts of more are spread evenly over the recording, the first at its start and the last at
    its end; they overlap where it is short. A recording that is shorter than a window is cropped as
    for one window, the same in all.

    Returns the windows, float32, shape (windows, samples), and a note, "" for an ordinary
    recording; data/README.md lists what is noted. What cannot be used is a `ClipError`.
    """
    rate, length, box = sample_rate, round(duration * sample_rate), min(BOX, duration)
    notes: list[str] = []
    loudest, centre, n, searched = -1.0, 0, 0, np.zeros(0, np.float32)
    blocks = stream(path, rate, notes)
    # Searched stretches overlap by a box, for the loudest one may lie across an end.
    for start, searched in slide(blocks, rate, _SEARCHED, _SEARCHED - box, padded=False):
        middle, level = _loudest(searched, rate, box)
        begin = round(start * rate)
        n = begin + len(searched)
        if level > loudest:
            loudest, centre = level, begin + middle
    starts = [centre - length // 2] * windows
    if windows > 1 and n > length:
        starts = [round(i * (n - length) / (windows - 1)) for i in range(windows)]
    again = [searched] if len(searched) == n else stream(path, rate)
    waveforms = cut(again, starts, length)
    if windows > 1 and SHORTEST <= n < length:
        notes.append(f"shorter than {duration:g} s ({n / rate:.3f} s)")
    return waveforms, "; ".join(notes)


def load_clip(
    path: str | os.PathLike[str], sample_rate: int = 22_050, duration: float = 2.0
) -> tuple[np.ndarray, str]:
    """Return a sound file's best-centred crop and note: `load_windows` with one window."""
    waveforms, note = load_windows(path, sample_rate, duration)
    return waveforms[0], note


def slide(
    blocks: Iterable[np.ndarray], sample_rate: int, duration: float, hop: float, padded: bool = True
) -> Iterator[tuple[float, np.ndarray]]:
    """Cut a waveform of any length, which comes in blocks (n,), into windows that overlap.

    Windows last ``duration`` seconds, and one begins ``hop`` seconds, at most ``duration``, after
    the other. Yields where each begins, in seconds, and its samples, float32, shape
    (round(duration * sample_rate),). The last one ends with the waveform. Of a waveform no longer
    than a window there is one, its `best_centred_crop`; or, not ``padded``, the whole as it is.
    """
    length, step = round(duration * sample_rate), round(hop * sample_rate)
    at, held = 0, [np.zeros(0, np.float32)]  # what is held begins at sample `at`
    for block in blocks:
        held.append(np.asarray(block, np.float32))
        if sum(map(len, held)) > length + step:
            kept = np.concatenate(held)
            while len(kept) > length + step:
                yield at / sample_rate, kept[:length]
                at, kept = at + step, kept[step:]
            held = [kept]
    kept = np.concatenate(held)
    if len(kept) > length:
        yield at / sample_rate, kept[:length]
        yield (at + len(kept) - length) / sample_rate, kept[-length:]
    elif len(kept):
        yield 0.0, best_centred_crop(kept, sample_rate, duration) if padded else kept


class ClipError(DataError):
    """A sound file that cannot be used. The message names the file and the reason."""


class Sound:
    """A sound file whose header has been read; `ClipError` where it cannot be or is cut short.

    ``sample_rate`` is in Hz; ``notes`` say what is odd, once `blocks` has come to its end.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path, self.notes, self._mended = Path(path), [], b""
        try:
            if not self.path.is_file():
                self._refuse("is not a file" if self.path.exists() else "there is no such file")
            self._size = self.path.stat().st_size
            with self.path.open("rb") as source:
                skip_id3(source)
                start, kind = source.tell(), source.read(4)
                if start and kind in (b"OggS", b"RIFF"):  # libsndfile does not look behind a tag
                    self._mended = kind + source.read()
                    self._size = len(self._mended)
                if kind == b"OggS":
                    self._check_pages(io.BytesIO(self._mended) if start else source)
            with self._open() as (source, file):
                self._container, self.sample_rate = file.format, file.samplerate
                known, log = file.frames < _UNKNOWN, file.extra_info
                if file.format == "MP3":  # without a length header (Xing, VBRI) it is a guess
                    known = _find_frames(source) not in (None, BitrateMode.UNKNOWN)
                self._promised = file.frames if known else None  # samples per channel
        except OSError as error:  # no permission, a name that is too long
            self._refuse(f"cannot be opened ({error.strerror})")
        # soundfile raises TypeError for a name that ends in .raw, which has no header to read.
        except (sf.SoundFileError, TypeError) as error:
            reason = getattr(error, "error_string", error)  # without the path, which comes first
            self._refuse(f"cannot be read as audio ({reason}); convert it to wav or flac")
        if not 1_000 <= self.sample_rate <= 1_000_000:  # beyond lies no sound, but a slip
            self._refuse(f"its header says {self.sample_rate} Hz; legal are 1,000 to 1,000,000")
        if self._container in ("WAV", "WAVEX", "RF64", "W64", "AIFF", "AU"):
            self._check_sizes(log)
        elif self._container not in ("FLAC", "OGG", "MP3"):
            self.notes.append(f"whether a file in {self._container} format is whole cannot be told")
        elif self._promised is None and self._container != "MP3":  # many have no length header
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
        # A size of 32 bits begins anew at 4 GB; that of a recorder that lost power is out of date.
        whole = re.search(r"^Length : (\d+)\n(?:RIFF|FORM) : ([1-9]\d*)", log, re.MULTILINE)
        if whole and int(whole[1]) - int(whole[2]) > _TAG:
            self.notes.append(_MORE)

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
        at, missing = source.tell(), 0 if self._promised is None else self._promised - n
        if fault or missing > (_PADDING if self._container == "MP3" else 0):
            reason = fault or f"its header promises {self._promised} samples, it holds {n}"
            self._refuse(f"is truncated or damaged: {reason}")
        if n == 0:
            self._refuse(
                "its header says 0 samples: it is empty, or the program that wrote it did not "
                "finish; repair it (sox --ignore-length can)"
            )
        more_flac = self._container == "FLAC" and self._size - at > _TAG
        if more_flac or (self._container == "MP3" and _find_frames(source, at) is not None):
            self.notes.append(_MORE)


def _find_frames(file: BinaryIO, offset: int = 0) -> BitrateMode | None:
    """Return the kind of MPEG frames that follow, perhaps behind tags; None where none do."""
    with suppress(MutagenError):
        mpeg = MPEGInfo(file, offset=offset)
        return None if mpeg.sketchy else mpeg.bitrate_mode
