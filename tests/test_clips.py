"""A sound file becomes the 2 s a network sees, or an error that says why it cannot."""

import io
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile as sf
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from freesound_tagging.errors import DataError
from freesound_tagging.sounds import clips
from freesound_tagging.sounds.clips import (
    ClipError,
    ClipSettings,
    best_centred_crop,
    decode,
    load_clip,
    load_windows,
    resample,
    seconds_of,
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


def peak_frequency(waveform: np.ndarray, rate: int) -> float:
    """Frequency in Hz of the strongest component, to a fraction of a bin by a parabola."""
    power = np.log(np.abs(np.fft.rfft(waveform * np.hanning(len(waveform)))) + 1e-12)
    k = int(np.argmax(power[1:-1])) + 1
    left, mid, right = power[k - 1 : k + 2]
    return (k + 0.5 * (left - right) / (left - 2 * mid + right)) * rate / len(waveform)


# --- settings ----------------------------------------------------------------------------------


def test_settings_default_to_two_seconds():
    assert ClipSettings() == ClipSettings(sample_rate=22_050, duration=2.0)
    assert ClipSettings().n_samples == 44_100


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"sample_rate": 0}, "sample_rate=0"),
        ({"sample_rate": 22_050.5}, "sample_rate=22050.5"),
        ({"duration": 0.0}, "duration=0.0"),
        ({"duration": -1.0}, "duration=-1.0"),
        ({"duration": float("nan")}, "duration=nan"),
    ],
)
def test_settings_name_what_is_illegal(values, named):
    with pytest.raises(DataError, match=named):
        ClipSettings(**values)


# --- decode ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "subtype", "tolerance"),
    [
        ("a.wav", "PCM_16", 1e-4),
        ("a.wav", "PCM_24", 1e-6),
        ("a.wav", "FLOAT", 0),
        ("a.flac", "PCM_16", 1e-4),
        ("a.ogg", "VORBIS", 0.05),
        ("a.mp3", "MPEG_LAYER_III", 0.05),
    ],
)
@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_decode_each_format(tmp_path, name, subtype, tolerance, rate):
    x = sine(440, 0.5, rate)
    sf.write(tmp_path / name, x, rate, subtype=subtype)
    waveform, sample_rate = decode(tmp_path / name)
    assert sample_rate == rate
    assert waveform.dtype == np.float32
    assert waveform.shape == x.shape
    middle = slice(len(x) // 4, -len(x) // 4)  # lossy formats smear the abrupt ends
    assert np.abs(waveform - x)[middle].max() <= tolerance


def test_stereo_folds_to_the_mean(tmp_path):
    left, right = noise(), sine(440, 1, 44_100)
    sf.write(tmp_path / "a.wav", np.stack([left, right], 1), 44_100, subtype="FLOAT")
    waveform, _ = decode(tmp_path / "a.wav")
    np.testing.assert_allclose(waveform, (left + right) / 2, atol=1e-7)


def test_long_sound_is_decoded_whole(tmp_path):
    x = noise(13, 44_100)  # more than two of the blocks that decode reads
    sf.write(tmp_path / "a.wav", x, 44_100, subtype="FLOAT")
    np.testing.assert_array_equal(decode(str(tmp_path / "a.wav"))[0], x)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ClipError, match=r"gone\.wav: there is no such file"):
        decode(tmp_path / "gone.wav")
    with pytest.raises(ClipError, match="is not a file"):
        decode(tmp_path)


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "raw"])
def test_empty_and_not_audio(tmp_path, suffix):
    path = tmp_path / f"bad.{suffix}"
    path.write_bytes(b"")
    with pytest.raises(ClipError, match=rf"bad\.{suffix}: is empty"):
        decode(path)
    path.write_bytes(b"This is a page of text, not a sound.\n" * 100)
    with pytest.raises(ClipError, match=rf"bad\.{suffix}: cannot be read as audio"):
        decode(path)


def test_no_samples(tmp_path):
    sf.write(tmp_path / "none.wav", np.zeros(0, np.float32), RATE)
    with pytest.raises(ClipError, match=r"none\.wav: holds no samples"):
        decode(tmp_path / "none.wav")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite(tmp_path, value):
    x = noise()
    x[1000] = value
    sf.write(tmp_path / "nan.wav", x, 44_100, subtype="FLOAT")
    with pytest.raises(ClipError, match=r"nan\.wav: holds NaN or infinite"):
        decode(tmp_path / "nan.wav")


@pytest.mark.parametrize("kept", [0.02, 0.5, 0.9, 0.97])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3", "aiff"])
def test_truncated(tmp_path, suffix, kept):
    path = tmp_path / f"cut.{suffix}"
    sf.write(path, noise(3), 44_100)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(ClipError, match=rf"cut\.{suffix}: (is truncated|cannot be read)"):
        decode(path)


def test_wav_cut_by_a_single_byte(tmp_path):
    path = tmp_path / "cut.wav"
    sf.write(path, noise(), 44_100)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ClipError, match="promises 88200 bytes of samples, it holds 88199"):
        decode(path)


def test_ogg_cut_between_two_pages(tmp_path):
    path = tmp_path / "cut.ogg"
    sf.write(path, noise(3), 44_100)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rfind(b"OggS")])
    with pytest.raises(ClipError, match="not marked as the end"):
        decode(path)


def test_lengths_left_open_by_a_pipe(tmp_path):
    x = noise()
    wav, flac = tmp_path / "pipe.wav", tmp_path / "pipe.flac"
    sf.write(wav, x, 44_100, subtype="PCM_16")
    raw = bytearray(wav.read_bytes())
    at = raw.find(b"data") + 4
    raw[at : at + 4] = struct.pack("<I", 0xFFFFFFFF)
    wav.write_bytes(raw)
    assert len(decode(wav)[0]) == len(x)
    assert "leaves its length open" in load_clip(wav)[1]

    sf.write(flac, x, 44_100)
    raw = bytearray(flac.read_bytes())
    raw[21] &= 0xF0  # the 36 bits of STREAMINFO that hold the number of samples
    raw[22:26] = bytes(4)
    flac.write_bytes(raw)
    with pytest.raises(ClipError, match=r"pipe\.flac: its header does not say how long"):
        decode(flac)
    assert seconds_of(flac) is None
    assert seconds_of(tmp_path / "missing.wav") is None


def encoded(x: np.ndarray, container: str, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    subtypes = sf.available_subtypes(container)
    known = [kind for kind in ("PCM_16", "MPEG_LAYER_III") if kind in subtypes]
    sf.write(file, x, rate, format=container, subtype=(known or list(subtypes))[0])
    return file.getvalue()


# SoundDesigner's samples lie in a second file; a raw file has no header.
CONTAINERS = sorted(set(sf.available_formats()) - {"RAW", "SD2"})


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_part_of_a_sound_is_lost_without_a_word(tmp_path, container):
    path = tmp_path / "x.sound"
    rate = 8_000  # the only one that WVE knows
    x = sine(440, 1, rate)
    whole = encoded(x, container, rate)
    path.write_bytes(whole)
    n = len(decode(path)[0])
    assert n >= len(x)
    joined = whole + encoded(0.5 * x, container, rate)
    for content, length in [
        (whole[: len(whole) // 2], n),
        (whole[:-1], n),
        (joined, 2 * n),
    ]:
        path.write_bytes(content)
        try:
            held, note = len(decode(path)[0]), load_clip(path)[1]
        except ClipError as error:
            assert str(path) in str(error)
        else:
            assert held == length or note


@pytest.mark.parametrize("options", [{"format": "RF64"}, {"endian": "BIG"}, {"format": "W64"}])
def test_cut_relatives_of_wav_are_truncated(tmp_path, options):
    path = tmp_path / "x.wav"
    sf.write(path, sine(440, 1, RATE), RATE, **({"format": "WAV", "subtype": "PCM_16"} | options))
    path.write_bytes(path.read_bytes()[:-101])
    with pytest.raises(ClipError, match=r"promises 44100 bytes of samples, it holds 43999"):
        decode(path)


def test_a_recorder_that_lost_power(tmp_path):
    path = tmp_path / "x.wav"
    whole = bytearray(encoded(noise(), "WAV"))
    at = whole.find(b"data") + 4
    whole[at : at + 4] = bytes(4)
    path.write_bytes(whole)
    with pytest.raises(ClipError, match="says 0 bytes of samples, yet 88200 bytes follow"):
        decode(path)
    path.write_bytes(whole[: at + 4] + b"LIST" + struct.pack("<I", 4) + b"INFO")
    with pytest.raises(ClipError, match="holds no samples"):
        decode(path)


def test_bytes_behind_the_sound_are_noted_and_tags_are_not(tmp_path):
    path = tmp_path / "x.wav"
    whole = encoded(noise(), "WAV")
    path.write_bytes(whole + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert load_clip(path)[1] == ""
    path.write_bytes(whole + bytes(100))
    assert load_clip(path)[1] == "100 bytes behind the end of its sound are no part of it"
    mp3 = tmp_path / "x.mp3"
    mp3.write_bytes(
        b"ID3\4\0\0\0\0\0\x05" + bytes(5) + encoded(noise(), "MP3") + b"TAG" + bytes(125)
    )
    assert load_clip(mp3)[1] == ""


OGG, FLAC, MP3 = (encoded(noise(0.5, RATE), container) for container in ("OGG", "FLAC", "MP3"))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([(OGG, "ogg"), (FLAC, "flac")]), st.integers(1, 255))
def test_damage_is_refused_or_harmless(tmp_path_factory, data, sound, change):
    whole, suffix = sound
    at = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path_factory.mktemp("damage") / f"x.{suffix}"
    path.write_bytes(whole)
    expected = decode(path)[0]
    path.write_bytes(whole[:at] + bytes([whole[at] ^ change]) + whole[at + 1 :])
    try:
        waveform, _ = decode(path)
    except ClipError:
        return
    assert suffix == "flac"  # a comment or the table for seeking; Ogg checks these as well
    np.testing.assert_array_equal(waveform, expected)


def pages(ogg: bytes) -> list[bytes]:
    return [b"OggS" + page for page in ogg.split(b"OggS")[1:]]


def test_missing_and_swapped_pages(tmp_path):
    path = tmp_path / "x.ogg"
    first, second, *rest = pages(encoded(noise(8), "OGG"))
    assert len(rest) > 4
    path.write_bytes(b"".join([first, second, *rest[:2], *rest[3:]]))
    with pytest.raises(ClipError, match="missing or misplaced before page 5"):
        decode(path)
    path.write_bytes(b"".join([first, second, *rest[:2], rest[3], rest[2], *rest[4:]]))
    with pytest.raises(ClipError, match="missing or misplaced before page 5"):
        decode(path)


def test_joined_and_damaged_mp3(tmp_path):
    path = tmp_path / "x.mp3"
    path.write_bytes(MP3 + MP3)
    with pytest.raises(ClipError, match="another mp3 behind the first"):
        decode(path)
    half = len(MP3) // 2
    path.write_bytes(MP3[:half] + bytes(50) + MP3[half:])
    with pytest.raises(ClipError, match=r"no frame|promises"):
        decode(path)
    # Without the length header all frames are counted, so both sounds are decoded.
    tag = MP3.find(b"\xff\xfb") if b"\xff\xfb" in MP3[:4] else 0
    frame = MP3.find(MP3[tag : tag + 2], tag + 4)
    bare = MP3[frame:]
    path.write_bytes(bare + bare)
    try:
        assert len(decode(path)[0]) > 1.9 * 0.5 * RATE
    except ClipError as error:
        assert "would be read" in str(error)


@pytest.mark.parametrize("value", [1e30, -1e20, 3e38])
def test_values_whose_square_overflows(tmp_path, value):
    x = noise()
    x[1000] = value
    sf.write(tmp_path / "big.wav", x, 44_100, subtype="FLOAT")
    with pytest.raises(ClipError, match=r"big\.wav: .* larger .* the first is number 1000"):
        decode(tmp_path / "big.wav")


def test_integers_stored_as_floats_are_kept(tmp_path):
    x = np.float32(2**31) * noise()
    sf.write(tmp_path / "x.wav", x, 44_100, subtype="FLOAT")
    np.testing.assert_array_equal(decode(tmp_path / "x.wav")[0], x)


def test_a_name_too_long_and_a_folder_in_place_of_a_file(tmp_path):
    with pytest.raises(ClipError, match="cannot be opened"):
        decode(tmp_path / ("x" * 300 + ".wav"))


# --- resample ----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("frequency", [50.0, 440.0, 3_000.0])
def test_sine_keeps_its_frequency_and_level(rate, frequency):
    y = resample(sine(frequency, 1.0, rate), rate, RATE)
    assert y.dtype == np.float32
    assert abs(len(y) - RATE) <= 1
    assert peak_frequency(y, RATE) == pytest.approx(frequency, abs=0.1)
    assert np.abs(y[RATE // 4 : -RATE // 4]).max() == pytest.approx(0.5, rel=0.01)


def test_tones_above_the_new_limit_do_not_fold_back():
    y = resample(sine(15_000, 1.0, 44_100), 44_100, RATE)
    assert np.abs(y[RATE // 4 : -RATE // 4]).max() < 1e-5


def test_there_and_back():
    x = sine(1_000, 1.0, RATE)
    back = resample(resample(x, RATE, 48_000), 48_000, RATE)
    middle = slice(RATE // 4, -RATE // 4)
    assert np.abs(back[: len(x)][middle] - x[middle]).max() < 1e-4


# --- crop --------------------------------------------------------------------------------------

RATES = st.integers(100, 1_000)
DURATIONS = st.floats(0.3, 3.0)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 5_000), RATES, DURATIONS, st.integers(0, 2**32 - 1))
def test_crop_has_exactly_the_length_asked_for(n, rate, duration, seed):
    x = np.random.default_rng(seed).standard_normal(n).astype(np.float32)
    crop = best_centred_crop(x, rate, duration)
    assert crop.shape == (round(duration * rate),)
    assert crop.dtype == np.float32
    assert np.count_nonzero(crop) <= n  # nothing but the clip and zeros


@settings(max_examples=100, deadline=None)
@given(st.data(), st.integers(1, 5_000), RATES, DURATIONS)
def test_a_click_is_inside_and_in_the_middle_when_far_from_the_ends(data, n, rate, duration):
    place = data.draw(st.integers(0, n - 1))
    x = np.zeros(n, np.float32)
    x[place] = 1.0
    crop = best_centred_crop(x, rate, duration)
    (found,) = np.flatnonzero(crop)
    half_box = round(min(0.5, duration) * rate) // 2 + 1
    if half_box <= place <= n - half_box:
        assert found == len(crop) // 2


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 3_000), st.integers(0, 3_000), st.integers(0, 2**32 - 1), RATES)
def test_moving_a_sound_in_time_changes_nothing(before, after, seed, rate):
    duration = 2.0
    sound = np.random.default_rng(seed).standard_normal(700).astype(np.float32)
    edge = np.zeros(2 * rate + 1, np.float32)  # the stretch must not meet the ends of the clip
    x = np.concatenate([edge, sound, edge])
    moved = np.concatenate([np.zeros(before), x, np.zeros(after)])
    np.testing.assert_array_equal(
        best_centred_crop(moved, rate, duration), best_centred_crop(x, rate, duration)
    )


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4_000),
    st.integers(0, 2**32 - 1),
    st.floats(1e-4, 1e4).map(np.float32),
    st.booleans(),
)
def test_level_changes_nothing_but_the_level(n, seed, gain, steady):
    x = np.random.default_rng(seed).standard_normal(n).astype(np.float32)
    if steady:  # every box has the same sum, up to rounding
        x = np.sign(x)
    crop = best_centred_crop(x, 400, 2.0)
    np.testing.assert_allclose(best_centred_crop(gain * x, 400, 2.0), gain * crop, rtol=1e-6)


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
    centre = int(np.argmax(boxes))
    padded = np.concatenate([np.zeros(length), x, np.zeros(length)])
    start = length + centre - length // 2
    np.testing.assert_array_equal(
        best_centred_crop(x, rate, 2.0), padded[start : start + length].astype(np.float32)
    )


def test_the_loudest_part_wins_and_the_first_of_equals():
    x = np.zeros(10 * RATE, np.float32)
    x[2 * RATE] = 0.5
    x[8 * RATE] = 1.0
    assert best_centred_crop(x, RATE, 2.0)[RATE] == 1.0
    x[2 * RATE] = 1.0
    x[2 * RATE + 10] = 0.001
    x[8 * RATE + 10] = 0.001
    crop = best_centred_crop(x, RATE, 2.0)
    assert np.count_nonzero(crop) == 2
    again = best_centred_crop(x[: 6 * RATE], RATE, 2.0)
    np.testing.assert_array_equal(crop, again)


@pytest.mark.parametrize("n", [1, 2, 999, 5_000, 11_024])
def test_a_clip_shorter_than_the_box_is_centred(n):
    crop = best_centred_crop(np.ones(n, np.float32), RATE, 2.0)
    places = np.flatnonzero(crop)
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
    x += (
        drift
        * {
            "offset": 1,
            "ramp": t / 10,
            "wave": np.sin(2 * np.pi * 0.3 * t + seed),
            "charging": np.exp(-t / 2),
        }[kind]
    )
    x = x.astype(np.float32)
    crop = best_centred_crop(x, rate, 2.0)
    here = (x[:-1] == crop[rate]) & (x[1:] == crop[rate + 1])
    start = int(np.flatnonzero(here)[0]) - rate
    # The half second around the centre holds all of the sound.
    assert start / rate + 1 == pytest.approx(at + seconds / 2, abs=0.25)


# --- the whole ---------------------------------------------------------------------------------


def test_load_clip(tmp_path):
    x = np.zeros(5 * 44_100, np.float32)
    x[3 * 44_100 : 3 * 44_100 + 11_025] = sine(1_000, 0.25, 44_100)
    sf.write(tmp_path / "a.flac", np.stack([x, x], 1), 44_100)
    waveform, note = load_clip(tmp_path / "a.flac")
    assert note == ""
    assert waveform.shape == (44_100,)
    assert waveform.dtype == np.float32
    # 0.25 s of sound, centred at 1 s, are samples 19,294 to 24,806.
    energy = np.cumsum(waveform.astype(float) ** 2)
    inside = energy[24_900] - energy[19_200]
    assert inside / energy[-1] > 0.999
    assert peak_frequency(waveform, RATE) == pytest.approx(1_000, abs=2)


def test_load_clip_twice_gives_the_same_bytes(tmp_path):
    sf.write(tmp_path / "a.ogg", noise(3), 44_100)
    once, again = (load_clip(tmp_path / "a.ogg")[0].tobytes() for _ in range(2))
    assert once == again


def test_silent_and_short_clips_are_kept_and_named(tmp_path):
    sf.write(tmp_path / "silent.wav", np.zeros(44_100), 44_100)
    waveform, note = load_clip(tmp_path / "silent.wav")
    assert note == "silent"
    assert waveform.shape == (44_100,)
    assert not waveform.any()

    sf.write(tmp_path / "short.wav", noise(0.03), 44_100)
    waveform, note = load_clip(tmp_path / "short.wav")
    assert note == "shorter than one window (0.030 s)"
    assert waveform.any()
    assert load_clip(tmp_path / "short.wav", shortest=600)[1] == ""

    for rate in (8_000, 44_100, 192_000):
        sf.write(tmp_path / "one.wav", np.array([0.5]), rate)
        waveform, note = load_clip(tmp_path / "one.wav")
        assert note == "shorter than one window (0.000 s)"
        assert waveform.shape == (44_100,)

    sf.write(tmp_path / "both.wav", np.zeros(10), 44_100)
    assert load_clip(tmp_path / "both.wav")[1] == "silent; shorter than one window (0.000 s)"


def test_errors_are_data_errors_and_cross_processes(tmp_path):
    with pytest.raises(DataError) as caught:
        load_clip(tmp_path / "gone.wav")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(copy, ClipError)
    assert str(copy) == str(caught.value)


def test_channels_that_cancel_are_noted(tmp_path):
    x = noise()
    for subtype in ("FLOAT", "PCM_16"):
        sf.write(tmp_path / "a.wav", np.stack([x, -x + 0.2], 1), 44_100, subtype=subtype)
        assert "channels cancel" in load_clip(tmp_path / "a.wav")[1]
    other = np.random.default_rng(1).permutation(x)
    for channels in ([x, other], [x, 0 * x], [x, -0.2 * x]):
        sf.write(tmp_path / "b.wav", np.stack(channels, 1), 44_100)
        assert load_clip(tmp_path / "b.wav")[1] == ""


@pytest.mark.parametrize(
    ("rate", "frequency"), [(384_000, 45_000), (96_000, 15_000), (44_100, 9_000)]
)
def test_what_lies_above_half_the_rate_is_noted(tmp_path, rate, frequency):
    x = sine(frequency, 1, rate) + 0.2 + 1e-4 * noise(1, rate)
    sf.write(tmp_path / "a.wav", x, rate, subtype="FLOAT")
    note = load_clip(tmp_path / "a.wav", ClipSettings(16_000, 1.0))[1]
    assert note.startswith("what is loud lies above 8,000 Hz: ")
    assert load_clip(tmp_path / "a.wav", ClipSettings(rate, 1.0))[1] == ""
    sf.write(tmp_path / "b.wav", noise(1, 44_100), 44_100)
    assert load_clip(tmp_path / "b.wav")[1] == ""


def test_a_constant_is_silent(tmp_path):
    sf.write(tmp_path / "a.wav", np.full((44_100, 2), [0.25, -0.1]), 44_100)
    assert load_clip(tmp_path / "a.wav")[1] == "silent"


def test_windows_are_spread_over_the_recording(tmp_path):
    x = noise(7, RATE)
    sf.write(tmp_path / "a.wav", x, RATE, subtype="FLOAT")
    one, note = load_windows(tmp_path / "a.wav")
    assert (one.shape, note) == ((1, 2 * RATE), "")
    np.testing.assert_array_equal(one[0], best_centred_crop(x, RATE, 2.0))
    waveforms, note = load_windows(tmp_path / "a.wav", ClipSettings(), 6)
    assert (waveforms.shape, note) == ((6, 2 * RATE), "")
    for k, waveform in enumerate(waveforms):
        np.testing.assert_array_equal(waveform, x[k * RATE : (k + 2) * RATE])
    with pytest.raises(DataError, match="windows=0"):
        load_windows(tmp_path / "a.wav", ClipSettings(), 0)


def test_windows_of_a_short_recording(tmp_path):
    sf.write(tmp_path / "a.wav", noise(1.5, RATE), RATE)
    waveforms, note = load_windows(tmp_path / "a.wav", ClipSettings(), 3)
    assert note == "shorter than 2 s (1.500 s)"
    for waveform in waveforms:
        np.testing.assert_array_equal(waveform, load_clip(tmp_path / "a.wav")[0])
    assert np.count_nonzero(waveforms[0]) <= round(1.5 * RATE)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 4_000), st.sampled_from([4_000, 11_025, 22_050]), st.integers(1, 3))
def test_blocks_make_no_difference(tmp_path_factory, n, rate, windows):
    path = tmp_path_factory.mktemp("blocks") / "x.wav"
    x = np.random.default_rng(n).standard_normal((n, 2)) * 0.1
    x[n // 3 : n // 2] = 0  # equal sums, which may lie on both sides of a block's end
    sf.write(path, x, rate, subtype="FLOAT")
    chosen = ClipSettings(11_025, 0.05)
    whole = load_windows(path, chosen, windows)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clips, "_BLOCK", 97)
        patch.setattr(clips, "_KEPT", 0.1)
        waveforms, note = load_windows(path, chosen, windows)
    assert note == whole[1]
    np.testing.assert_array_equal(waveforms, whole[0])
    if windows == 1:
        y = resample(decode(path)[0], rate, 11_025)
        np.testing.assert_array_equal(waveforms[0], best_centred_crop(y, 11_025, 0.05))


def test_a_long_recording_takes_little_memory(tmp_path):
    rate, minutes = 8_000, 40
    n = 60 * minutes * rate
    path = tmp_path / "long.wav"
    with path.open("wb") as file:  # its zeros take no room on the disk
        head = struct.pack("<IHHIIHH", 16, 1, 1, rate, 2 * rate, 2, 16)
        file.write(b"RIFF" + struct.pack("<I", 36 + 2 * n) + b"WAVEfmt " + head)
        file.write(b"data" + struct.pack("<I", 2 * n))
        file.truncate(44 + 2 * n)
    with path.open("r+b") as file:
        file.seek(44 + 2 * 35 * 60 * rate)
        file.write(struct.pack("<h", 20_000))
    tracemalloc.start()
    waveform, _ = load_clip(path, ClipSettings(rate, 1.0))
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
    assert len(found) == (1 if n <= 100 else 1 + -(-(n - 100) // hop))


def test_a_short_waveform_stands_where_training_put_it():
    waveform = noise(0.3, 100)
    ((start, window),) = slide([waveform], 100, 1.0, 0.5)
    assert start == 0.0
    assert np.array_equal(window, best_centred_crop(waveform, 100, 1.0))


def test_of_nothing_there_is_no_window():
    assert list(slide([], 100, 1.0, 0.5)) == []
    with pytest.raises(DataError, match="hop"):
        next(slide([np.ones(3)], 100, 1.0, 2.0))


@pytest.mark.parametrize("rate", [8_000, RATE, 44_100])
def test_a_stream_is_the_resampled_file(tmp_path, rate):
    path = tmp_path / "sound.wav"
    sf.write(path, noise(9.0, rate), rate, subtype="FLOAT")
    found = np.concatenate(list(stream(path, RATE)))
    assert np.array_equal(found, resample(decode(path)[0], rate, RATE))
