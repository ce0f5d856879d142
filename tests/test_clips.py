"""A sound file becomes the 2 s a network sees, or an error that says why it cannot."""

import io
import pickle
import re
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile as sf
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from mutagen.mp3 import MPEGFrame
from mutagen.ogg import OggPage

from freesound_tagging.errors import DataError
from freesound_tagging.sounds import clips
from freesound_tagging.sounds.clips import (
    ClipError,
    best_centred_crop,
    decode,
    load_clip,
    load_windows,
    resample,
    slide,
    stream,
)

RATE = 22_050


def sine(frequency: float, seconds: float, rate: int) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(
        np.float32
    )


def noise(seconds: float = 1.0, rate: int = 44_100) -> np.ndarray:
    return (0.1 * np.random.default_rng(0).standard_normal(round(seconds * rate))).astype(
        np.float32
    )


def encoded(x: np.ndarray, container: str, rate: int = RATE, **options) -> bytes:
    subtypes = sf.available_subtypes(container)
    known = [kind for kind in ("PCM_16", "MPEG_LAYER_III") if kind in subtypes]
    file = io.BytesIO()
    options = {"subtype": (known or list(subtypes))[0]} | options
    sf.write(file, x, rate, format=container, **options)
    return file.getvalue()


# --- decode ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subtype", "rate", "tolerance"),
    [
        ("a.wav", "PCM_16", 8_000, 1e-4),
        ("a.wav", "PCM_24", 44_100, 1e-6),
        ("a.wav", "FLOAT", 8_000, 0),
        ("a.flac", "PCM_16", 44_100, 1e-4),
        ("a.ogg", "VORBIS", 8_000, 0.05),
        ("a.mp3", "MPEG_LAYER_III", 44_100, 0.05),
    ],
)
def test_decode_each_format(tmp_path, name, subtype, rate, tolerance):
    x = sine(440, 0.5, rate)
    sf.write(tmp_path / name, x, rate, subtype=subtype)
    waveform, sample_rate = decode(tmp_path / name)
    assert (sample_rate, waveform.dtype, waveform.shape) == (rate, np.float32, x.shape)
    middle = slice(len(x) // 4, -len(x) // 4)  # lossy formats smear the abrupt ends
    assert np.abs(waveform - x)[middle].max() <= tolerance
    assert load_clip(tmp_path / name)[1] == ""


def test_stereo_folds_to_the_mean_over_several_blocks(tmp_path):
    left, right = noise(13), sine(440, 13, 44_100)
    sf.write(tmp_path / "a.wav", np.stack([left, right], 1), 44_100, subtype="FLOAT")
    waveform, _ = decode(str(tmp_path / "a.wav"))
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-7)


# --- whole or not ------------------------------------------------------------------------------

WAV, FLAC, OGG, OPUS, MP3 = (
    encoded(noise(2, RATE), "WAV"),
    encoded(noise(2, RATE), "FLAC"),
    encoded(noise(2, RATE), "OGG", subtype="VORBIS"),
    encoded(noise(2, 48_000), "OGG", 48_000, subtype="OPUS"),
    encoded(noise(2, RATE) * np.linspace(0.01, 1, 2 * RATE) ** 4, "MP3"),
)
OTHER = encoded(sine(440, 1, RATE), "OGG")


def tag(size: int = 1000) -> bytes:
    return b"ID3\4\0\0" + bytes(size >> shift & 127 for shift in (21, 14, 7, 0)) + bytes(size)


APE = b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 5000, 1, 1 << 31) + bytes(8 + 5000)
APE += b"APETAGEX" + struct.pack("<IIII", 2000, 32 + 5000, 1, 0) + bytes(8)
ID3V1 = b"TAG" + bytes(125)


def patched(content: bytes, at: int, form: str, value: int) -> bytes:
    content = bytearray(content)
    struct.pack_into(form, content, at, value)
    return bytes(content)


def wav(data: int | None = None, riff: int | None = None, rate: int | None = None) -> bytes:
    """A wav whose header says something else."""
    content = WAV
    for value, at in ((data, WAV.find(b"data") + 4), (riff, 4), (rate, 24)):
        content = content if value is None else patched(content, at, "<I", value)
    return content


def xing(factor: float) -> bytes:
    """An mp3 whose header counts other than its frames."""
    at = max(MP3.find(b"Xing", 0, 200), MP3.find(b"Info", 0, 200)) + 8
    return patched(MP3, at, ">I", round(factor * struct.unpack_from(">I", MP3, at)[0]))


def bare_mp3() -> bytes:
    """An mp3 without length header, whose first frame is much smaller than the mean."""
    file = io.BytesIO(MP3)
    MPEGFrame(file)
    return MP3[file.tell() :]


def flac_from_a_pipe() -> bytes:
    content = bytearray(FLAC)
    content[21] &= 0xF0  # the 36 bits of STREAMINFO that hold the number of samples
    content[22:26] = bytes(4)
    return bytes(content)


def unmarked(ogg: bytes) -> bytes:
    """An Ogg file whose last page is not marked as the last, as voice notes are."""
    at = ogg.rfind(b"OggS")
    page = OggPage(io.BytesIO(ogg[at:]))
    page.last = False
    return ogg[:at] + page.write()


def without(ogg: bytes, page: int) -> bytes:
    pages = [b"OggS" + part for part in ogg.split(b"OggS")[1:]]
    return b"".join(pages[:page] + pages[page + 1 :])


N, N_OPUS = 2 * RATE, 2 * 48_000
BEHIND, OPEN = "goes on behind the first and is not read", "leaves its length open"


READ = {
    # Tags in front of a sound and behind it are no sound.
    "id3 wav": (tag() + WAV, N, ""),
    "id3 ogg": (tag() + OGG, N, ""),
    "id3 with a picture, flac": (tag(500_000) + FLAC, N, ""),
    "two id3 mp3": (tag() + tag() + MP3, N, ""),
    "mp3 id3": (MP3 + tag(), N, ""),
    "mp3 ape id3v1": (MP3 + APE + ID3V1, N, ""),
    "bare mp3 ape": (bare_mp3() + APE, N + 1, ""),
    "flac id3v1": (FLAC + ID3V1, N, ""),
    "ogg id3v1": (OGG + ID3V1, N, ""),
    "wav list": (WAV + b"LIST" + struct.pack("<I", 4) + b"INFO", N, ""),
    "flac padding": (FLAC + bytes(1000), N, ""),
    # More sound than is read.
    "flac with tags, twice": (tag() + FLAC + tag() + FLAC, N, BEHIND),
    "chained ogg": (OGG + OTHER, N, BEHIND),
    "chained opus": (OPUS + OTHER, N_OPUS, BEHIND),
    "mp3 mp3": (MP3 + ID3V1 + MP3, N, BEHIND),
    "wav counted short": (wav(data=N, riff=N + 36), N // 2, BEHIND),
    "mp3 counted short": (xing(0.5), N // 2 + 1, BEHIND),
    # Sizes that say nothing, or slips in them.
    "riff -1": (wav(riff=0xFFFFFFFF), N, ""),
    "data -1": (wav(data=0xFFFFFFFF), N, OPEN),
    "header counted as sound": (wav(data=2 * N + 44), N, ""),
    "flac from a pipe": (flac_from_a_pipe(), N, OPEN),
    "opus not marked": (unmarked(OPUS), N_OPUS, "its end is not marked"),
    "vorbis not marked": (unmarked(OGG), N, "its end is not marked"),
    # All of a sound, where libsndfile alone would read what it guesses.
    "bare mp3": (bare_mp3(), N + 1, ""),
    "bare mp3, cut": (bare_mp3()[:-50], N + 1, ""),
}


@pytest.mark.parametrize(("content", "n", "note"), READ.values(), ids=READ)
def test_what_is_read(tmp_path, content, n, note):
    path = tmp_path / "x.sound"
    path.write_bytes(content)
    held, said = len(decode(path)[0]), load_clip(path)[1]
    # Of an mp3 whose header does not say, whole frames are read.
    assert held == n if n % 100 == 0 else held == pytest.approx(n, abs=3 * 1152)
    assert re.search(note, said) if note else said == ""


REFUSED = {
    "empty": (b"", "cannot be read as audio"),
    "m4a": (b"\0\0\0\x18ftypM4A " + bytes(4000), "cannot be read as audio"),
    "no samples": (encoded(noise(0), "WAV"), "header says 0 samples: it is empty"),
    "wav that lost power": (wav(0, 0), "the program that wrote it did not finish; repair it"),
    "half a wav": (WAV[: len(WAV) // 2], "promises 88200 bytes, it holds 44078"),
    "half an mp3": (MP3[: len(MP3) // 2], "truncated or damaged: its header promises 44100"),
    "mp3 with a hole": (MP3[:5000] + bytes(5000) + MP3[5000:], "truncated or damaged"),
    "bare mp3 with a hole": (bare_mp3()[:5000] + bytes(5000) + bare_mp3()[5000:], "damaged"),
    "flac cut by a byte": (FLAC[:-1], "truncated or damaged"),
    "ogg cut by a byte": (OGG[:-1], "its last page is cut"),
    "ogg without a page": (without(OGG, 3), "truncated or damaged: its header promises"),
    "opus without a page": (without(OPUS, 3), "truncated or damaged: its header promises"),
    "mp3 counted long": (xing(2), "truncated or damaged: its header promises"),
    "1 Hz": (wav(rate=1), "its header says 1 Hz; legal are 1,000 to 1,000,000"),
    "NaN": (encoded(np.full(9, np.nan), "WAV", subtype="FLOAT"), "NaN .* behind sample 0"),
    "square overflows": (encoded(np.full(9, 1e20), "WAV", subtype="FLOAT"), "larger ones"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused(tmp_path, content, message):
    path = tmp_path / "x.sound"
    path.write_bytes(content)
    with pytest.raises(ClipError, match=rf"x\.sound: .*{message}"):
        decode(path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone.wav", "there is no such file"),
        (".", "is not a file"),
        ("x" * 300, "cannot be opened"),
        ("headerless.raw", "cannot be read as audio"),
    ],
)
def test_names_without_a_sound(tmp_path, name, message):
    (tmp_path / "headerless.raw").write_bytes(bytes(9000))
    with pytest.raises(DataError, match=message) as caught:
        decode(tmp_path / name)
    copy = pickle.loads(pickle.dumps(caught.value))  # workers send it
    assert isinstance(copy, ClipError) and str(copy) == str(caught.value)


# SoundDesigner's samples lie in a second file; a raw file has no header.
CONTAINERS = [(name, {}) for name in sorted(set(sf.available_formats()) - {"RAW", "SD2"})]


@pytest.mark.parametrize(("container", "options"), [*CONTAINERS, ("WAV", {"endian": "BIG"})])
def test_no_part_of_a_sound_is_lost_without_a_word(tmp_path, container, options):
    path, x, rate = tmp_path / "x.sound", sine(440, 1, 8_000), 8_000  # the only one WVE knows
    whole = encoded(x, container, rate, **options)
    path.write_bytes(whole)
    n = len(decode(path)[0])
    assert n >= len(x)
    for content in (whole[: len(whole) // 2], whole[:-101]):
        path.write_bytes(content)
        try:
            held, note = len(decode(path)[0]), load_clip(path)[1]
        except ClipError as error:
            assert str(path) in str(error)
        else:
            slack = 1152 if container == "MP3" else 0  # less than a frame or two is padding
            assert abs(held - n) <= slack or note


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([OGG, OPUS, FLAC]), st.integers(1, 255))
def test_damage_is_refused_or_harmless(tmp_path_factory, data, whole, change):
    at = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.mktemp("damage") / "x.sound"
    path.write_bytes(whole)
    expected = decode(path)[0]
    path.write_bytes(whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
    try:
        waveform, _ = decode(path)
    except ClipError:
        return
    assert whole is FLAC  # a comment or the table for seeking; Ogg checks these as well
    np.testing.assert_array_equal(waveform, expected)


# --- resample ----------------------------------------------------------------------------------


def test_tones_above_the_new_limit_do_not_fold_back():
    y = resample(sine(15_000, 1.0, 44_100), 44_100, RATE)
    assert np.abs(y[RATE // 4 : -RATE // 4]).max() < 1e-5


# --- crop --------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 5_000), st.integers(1_000, 2_000), st.floats(0.3, 3.0))
def test_a_click_is_inside_and_in_the_middle_when_far_from_the_ends(data, n, rate, duration):
    place = data.draw(st.integers(0, n - 1))
    x = np.zeros(n, np.float32)
    x[place] = 1.0
    crop = best_centred_crop(x, rate, duration)
    assert (crop.shape, crop.dtype) == ((round(duration * rate),), np.float32)
    (found,) = np.flatnonzero(crop)
    half_box = round(min(0.5, duration) * rate) // 2 + 1
    if half_box <= place <= n - half_box:
        assert found == len(crop) // 2


@settings(max_examples=60, deadline=None)
@example(49, 0, 50)
@given(st.integers(1, 3_000), st.integers(0, 2**32 - 1), st.integers(50, 400))
def test_crop_agrees_with_the_definition(n, seed, rate):
    # Differences of noise: noise itself, if short, may by chance hold a drift, which is left out.
    x = np.diff(np.random.default_rng(seed).standard_normal(n + 1)).astype(np.float32)
    length, width = 2 * rate, round(0.5 * rate)
    assume(n > width)
    padded = np.concatenate([np.zeros(length), np.abs(x).astype(float), np.zeros(length)])
    boxes = [
        padded[length + c - width // 2 : length + c - width // 2 + width].sum()
        for c in range(n + 1)
    ]
    padded = np.concatenate([np.zeros(length), x, np.zeros(length)])
    start = length + int(np.argmax(boxes)) - length // 2
    np.testing.assert_array_equal(
        best_centred_crop(x, rate, 2.0), padded[start : start + length].astype(np.float32)
    )


@pytest.mark.parametrize("n", [1, 2, 999, 11_024])
def test_a_clip_shorter_than_the_box_is_centred(n):
    places = np.flatnonzero(best_centred_crop(np.ones(n, np.float32), RATE, 2.0))
    assert len(places) == n
    assert abs((places[0] + places[-1]) / 2 - RATE) <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.5, 8.5),
    st.floats(0.05, 0.4),
    st.floats(-0.9, 0.9),
    st.floats(0.02, 0.5),
    st.sampled_from(["offset", "ramp", "wave", "charging"]),
    st.integers(0, 2**32 - 1),
)
def test_crop_follows_the_sound_and_not_the_microphone(at, seconds, drift, level, kind, seed):
    rate = 4_000
    t = np.arange(10 * rate) / rate
    rng = np.random.default_rng(seed)
    x = 1e-3 * rng.standard_normal(len(t))
    sound = (t >= at) & (t < at + seconds)
    x[sound] += level * rng.standard_normal(sound.sum())
    drifts = {
        "offset": 1,
        "ramp": t / 10,
        "wave": np.sin(2 * np.pi * 0.3 * t + seed),
        "charging": np.exp(-t / 2),
    }
    x = (x + drift * drifts[kind]).astype(np.float32)
    crop = best_centred_crop(x, rate, 2.0)
    here = (x[:-1] == crop[rate]) & (x[1:] == crop[rate + 1])
    start = int(np.flatnonzero(here)[0]) - rate
    # The half second around the centre holds all of the sound.
    assert start / rate + 1 == pytest.approx(at + seconds / 2, abs=0.25)


# --- the whole ---------------------------------------------------------------------------------


X, OTHER_X = noise(), np.random.default_rng(1).permutation(noise())
CANCEL, ABOVE = "the channels cancel", "what is loud lies above 8,000 Hz"


@pytest.mark.parametrize(
    ("x", "rate", "note"),
    [
        (np.zeros(44_100), 44_100, "silent"),
        (np.full((44_100, 2), [0.25, -0.1]), 44_100, "silent"),  # a constant
        (noise(0.03), 44_100, r"shorter than one window \(0.030 s\)"),
        (np.zeros(10), 44_100, r"silent; shorter than one window \(0.000 s\)"),
        (np.stack([X, -X + 0.2], 1), 44_100, CANCEL),
        (np.stack([X, OTHER_X], 1), 44_100, ""),
        (np.stack([X, 0 * X], 1), 44_100, ""),
        (np.stack([X, -0.2 * X], 1), 44_100, ""),
        (sine(45_000, 1, 384_000) + 0.2 + 1e-4 * noise(1, 384_000), 384_000, ABOVE),
        (sine(9_000, 1, 44_100) + 0.2 + 1e-4 * X, 44_100, ABOVE),
        (X, 44_100, ""),
    ],
)
def test_clips_that_say_little_are_kept_and_noted(tmp_path, x, rate, note):
    sf.write(tmp_path / "a.wav", x, rate, subtype="PCM_16")
    waveform, said = load_clip(tmp_path / "a.wav", 16_000, 2.0)
    assert waveform.shape == (32_000,)
    assert re.match(note, said) if note else said == ""
    assert load_clip(tmp_path / "a.wav", rate, 2.0)[1] == "" or note != ABOVE


def test_a_constant_is_loud_nowhere(tmp_path):
    x = np.full(190_000, 0.05)
    x[130_000:] += 0.1 * noise(60, 1000)
    sf.write(tmp_path / "a.wav", x, 1000)
    assert load_clip(tmp_path / "a.wav", 1000, 2.0)[0].std() > 1e-3


def test_windows_are_spread_over_the_recording(tmp_path):
    x = noise(7, RATE)
    sf.write(tmp_path / "a.wav", x, RATE, subtype="FLOAT")
    one, note = load_windows(tmp_path / "a.wav")
    assert (one.shape, note) == ((1, 2 * RATE), "")
    np.testing.assert_array_equal(one[0], best_centred_crop(x, RATE, 2.0))
    waveforms, note = load_windows(tmp_path / "a.wav", windows=6)
    assert (waveforms.shape, note) == ((6, 2 * RATE), "")
    for k, waveform in enumerate(waveforms):
        np.testing.assert_array_equal(waveform, x[k * RATE : (k + 2) * RATE])


def test_windows_of_a_short_recording(tmp_path):
    sf.write(tmp_path / "a.wav", noise(1.5, RATE), RATE)
    waveforms, note = load_windows(tmp_path / "a.wav", windows=3)
    assert note == "shorter than 2 s (1.500 s)"
    for waveform in waveforms:
        np.testing.assert_array_equal(waveform, load_clip(tmp_path / "a.wav")[0])


@settings(max_examples=30, deadline=None)
@given(st.integers(1_000, 40_000), st.sampled_from([4_000, 11_025, 22_050]), st.integers(1, 3))
def test_a_long_recording_is_searched_piece_by_piece(tmp_path_factory, n, rate, windows):
    path = tmp_path_factory.mktemp("pieces") / "x.wav"
    x = 0.1 * np.random.default_rng(n).standard_normal((n, 2))
    sf.write(path, x, rate, subtype="FLOAT")
    whole, _ = load_windows(path, 11_025, 0.05, windows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "_BLOCK", 97)
        patch.setattr(clips, "_SEARCHED", 0.1)
        waveforms, _ = load_windows(path, 11_025, 0.05, windows)
    np.testing.assert_array_equal(waveforms, whole)


def test_a_long_recording_takes_little_memory(tmp_path):
    rate, minutes = 8_000, 40
    n = 60 * minutes * rate
    path = tmp_path / "long.wav"
    with path.open("wb") as file:  # its zeros take no room on the disk
        head = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
        file.write(b"RIFF" + struct.pack("<I", 36 + 2 * n) + b"WAVEfmt " + head)
        file.write(b"data" + struct.pack("<I", 2 * n))
        file.truncate(44 + 2 * n)
        file.seek(44 + 2 * 35 * 60 * rate)
        file.write(struct.pack("<h", 20_000))
    tracemalloc.start()
    waveform, _ = load_clip(path, rate, 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert waveform[rate // 2] > 0.5
    assert peak < 4 * n / 1.5  # less than the samples alone, which are 77 MB


# --- windows over a waveform of any length ------------------------------------------------------


@given(
    n=st.integers(1, 900),
    hop=st.integers(1, 100),
    cuts=st.lists(st.integers(0, 900), max_size=6),
)
@settings(max_examples=60, deadline=None)
def test_windows_cover_a_waveform_however_it_comes(n, hop, cuts):
    waveform = np.arange(1, n + 1, dtype=np.float32)
    blocks = np.split(waveform, sorted(min(cut, n) for cut in cuts))
    found = list(slide(blocks, 100, 1.0, hop / 100))
    whole = list(slide([waveform], 100, 1.0, hop / 100))
    assert [start for start, _ in found] == [start for start, _ in whole]
    for (start, window), (_, other) in zip(found, whole, strict=True):
        assert np.array_equal(window, other)
        if n > 100:
            begin = round(start * 100)
            assert np.array_equal(window, waveform[begin : begin + 100])
    if n > 100:
        heard = np.concatenate([window for _, window in found])
        assert set(heard.tolist()) == set(waveform.tolist())
    else:  # where training put it
        assert np.array_equal(found[0][1], best_centred_crop(waveform, 100, 1.0))
    assert len(found) == (1 if n <= 100 else 1 + -(-(n - 100) // hop))


@pytest.mark.parametrize("rate", [8_000, RATE, 44_100])
def test_a_stream_is_the_resampled_file(tmp_path, rate):
    path = tmp_path / "sound.wav"
    sf.write(path, noise(9.0, rate), rate, subtype="FLOAT")
    found = np.concatenate(list(stream(path, RATE)))
    assert np.array_equal(found, resample(decode(path)[0], rate, RATE))
