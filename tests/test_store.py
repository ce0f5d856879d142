"""The store computes once, serves by clip id, never serves what is stale, and survives a kill."""

import errno
import hashlib
import json
import multiprocessing
import os
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from filelock import FileLock
from safetensors import safe_open

from freesound_tagging.errors import DataError
from freesound_tagging.features import store as stores
from freesound_tagging.features.channels import Reassigned, Standard
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import CHANNELS
from freesound_tagging.features.spectrograms import encode
from freesound_tagging.features.store import Store, build, is_whole
from freesound_tagging.files import write_atomically
from freesound_tagging.sounds.clips import ClipSettings, load_clip, load_windows

CHOSEN = ["log", "mel"]  # enough for whatever is the same for all channels


def digests(folder: Path) -> dict[str, str]:
    """Return the sha256 of every file in the store, temporaries and all, but the lock."""
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and file.name != ".lock"
    }


def quick_build(table: pd.DataFrame, grid: Grid, folder: Path, channels=CHOSEN, **options) -> Store:
    return build(table, channels, grid, folder, n_jobs=1, progress=False, **options)


def fresh_codes(path: str, channel: str, grid: Grid) -> np.ndarray:
    waveform, _ = load_clip(path, ClipSettings(grid.sample_rate, grid.duration))
    values = CHANNELS[channel].compute(torch.from_numpy(waveform), grid)
    return encode(values, CHANNELS[channel].limits(grid)).numpy()


@pytest.fixture
def forbid_computing(monkeypatch):
    """From here on, computing a batch is an error."""

    def forbid() -> None:
        def refuse(*arguments):
            raise AssertionError(f"computed again: {arguments[0]}")

        monkeypatch.setattr(stores, "_compute_batch", refuse)

    return forbid


# --- what is read is what was computed ---------------------------------------------------------


def test_codes_are_those_of_the_clip_of_that_id(table, store, grid):
    for clip_id in table.index[::5]:
        for channel in CHANNELS:
            expected = fresh_codes(table.loc[clip_id, "path"], channel, grid)
            np.testing.assert_array_equal(store.read(channel, [clip_id])[0], expected)


def test_reads_in_any_order_and_more_than_once(table, small_batches, grid, tmp_path):
    store = quick_build(table, grid, tmp_path, ["log"])
    clip_ids = list(table.index)
    forward = store.read("log", clip_ids)
    assert forward.dtype == np.uint8
    assert forward.shape == (len(table), grid.n_bins, grid.n_frames)
    np.testing.assert_array_equal(store.read("log", clip_ids[::-1]), forward[::-1])
    order = np.random.default_rng(0).integers(0, len(table), 50)
    np.testing.assert_array_equal(store.read("log", [clip_ids[i] for i in order]), forward[order])
    assert store.read("log", []).shape == (0, grid.n_bins, grid.n_frames)


def test_order_of_the_table_means_nothing(small_table, small_batches, grid, tmp_path):
    quick_build(small_table, grid, tmp_path / "a")
    quick_build(small_table.iloc[::-1], grid, tmp_path / "b")
    assert digests(tmp_path / "a") == digests(tmp_path / "b")


def test_several_windows_of_a_clip_are_stored_in_order(small_table, grid, tmp_path, write_sound):
    generator = np.random.default_rng(4)
    lengths = dict(zip(small_table.index, (5.0, 2.5, 2.0, 0.3, 1.0, 7.0), strict=True))
    for clip_id, seconds in lengths.items():
        samples = generator.uniform(-0.5, 0.5, round(seconds * 22_050)).astype(np.float32)
        write_sound(small_table.loc[clip_id, "path"], samples)
    several = replace(grid, windows=3)
    store = quick_build(small_table, several, tmp_path / "store", ["log", "hires_q2"])
    clip_ids = list(small_table.index[::-1])
    settings = ClipSettings(grid.sample_rate, grid.duration)
    for channel in ("log", "hires_q2"):
        codes = store.read(channel, clip_ids)
        assert codes.shape == (6, 3, grid.n_bins, grid.n_frames)
        for row, clip_id in enumerate(clip_ids):
            waveforms, _ = load_windows(small_table.loc[clip_id, "path"], settings, 3)
            for window, waveform in enumerate(waveforms):
                alone = encode(CHANNELS[channel].compute(torch.from_numpy(waveform), grid)).numpy()
                assert (codes[row, window] != alone).mean() < 0.01
    # Windows of their own for each number; the crop of one window is what it always was.
    one = quick_build(small_table, grid, tmp_path / "store", ["log"])
    assert one.read("log", clip_ids).shape == (6, grid.n_bins, grid.n_frames)
    first, second = ({file for file, _ in s.places["log"].values()} for s in (store, one))
    assert not first & second


@pytest.mark.parametrize("setting", ["windows", "frames_per_column"])
@pytest.mark.parametrize("value", [0, -1, 1.5, "2"])
def test_windows_and_frames_are_whole_numbers(setting, value):
    with pytest.raises(ValueError, match=f"{setting}=.*whole number, 1 or more"):
        Grid(**{setting: value})


def test_a_cell_takes_one_byte(store, grid):
    file, _ = next(iter(store.places["log"].values()))
    pictures = sum(place == file for place, _ in store.places["log"].values())
    assert file.stat().st_size < pictures * (grid.n_bins * grid.n_frames + 100) + 1000


def test_unknown_channel_lists_the_known_ones(small_table, grid, tmp_path):
    with pytest.raises(ValueError, match="unknown channel 'bark'") as caught:
        quick_build(small_table, grid, tmp_path, ["log", "bark"])
    assert all(name in str(caught.value) for name in CHANNELS)


def test_missing_channel_and_missing_clip_are_named(small_table, grid, tmp_path):
    store = quick_build(small_table, grid, tmp_path, ["log"])
    with pytest.raises(KeyError, match="'mel' is not in the store; it holds: log"):
        store.read("mel", [small_table.index[0]])
    with pytest.raises(KeyError, match="'nobody'"):
        store.read("log", [small_table.index[0], "nobody"])


# --- once, and the same bytes ------------------------------------------------------------------


def test_bytes_do_not_depend_on_the_number_of_processes(small_table, small_batches, grid, tmp_path):
    channels = ["log", "hires_q2"]
    quick_build(small_table, grid, tmp_path / "one", channels)
    build(small_table, channels, grid, tmp_path / "two", n_jobs=2, progress=False)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert len(digests(tmp_path / "one")) == 2 * len(small_table) // small_batches


def test_second_build_computes_nothing(small_table, grid, tmp_path, forbid_computing):
    first = quick_build(small_table, grid, tmp_path)
    before = {file: file.stat().st_mtime_ns for file in tmp_path.rglob("*.safetensors")}
    forbid_computing()
    second = quick_build(small_table, grid, tmp_path)
    assert {file: file.stat().st_mtime_ns for file in before} == before
    for channel in CHOSEN:
        np.testing.assert_array_equal(
            second.read(channel, list(small_table.index)),
            first.read(channel, list(small_table.index)),
        )


def test_one_more_channel_computes_only_that_channel(small_table, grid, tmp_path, monkeypatch):
    quick_build(small_table, grid, tmp_path, ["log"])
    computed = []
    original = stores.compute_channels

    def spy(waveform, names, grid):
        computed.extend(names)
        return original(waveform, names, grid)

    monkeypatch.setattr(stores, "compute_channels", spy)
    store = quick_build(small_table, grid, tmp_path, ["log", "mel"])
    assert set(computed) == {"mel"}
    assert set(store.places) == {"log", "mel"}


def build_and_be_killed(table, grid, folder: Path) -> None:
    """Build a store in this process, which ends in the middle of its fourth write."""
    writes = []

    def fsync(handle):
        writes.append(handle)
        if len(writes) == 4:  # its bytes are written, its name is not
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync
    build(table, ["log", "mel"], grid, folder, n_jobs=1, progress=False)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no kill -9")
def test_killed_in_mid_write_it_resumes_to_the_same_bytes(
    small_table, small_batches, grid, tmp_path, monkeypatch
):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    quick_build(small_table, grid, whole)
    fork = multiprocessing.get_context("fork")  # a fresh process takes seconds to load torch
    building = fork.Process(target=build_and_be_killed, args=(small_table, grid, killed))
    building.start()
    building.join()
    assert building.exitcode == -signal.SIGKILL
    left = digests(killed)
    temporaries = [name for name in left if Path(name).name.startswith(".")]
    finished = {name: digest for name, digest in left.items() if name not in temporaries}
    assert len(temporaries) == 1  # else it was not killed in mid-write
    assert len(finished) == 3
    assert finished.items() <= digests(whole).items()

    computed = []
    original = stores._compute_batch

    def spy(clips, files, grid):
        computed.extend(files.values())
        return original(clips, files, grid)

    monkeypatch.setattr(stores, "_compute_batch", spy)
    quick_build(small_table, grid, killed)
    assert digests(killed) == digests(whole)
    assert len(computed) == len(digests(whole)) - len(finished)  # what was finished stayed


def test_what_killed_runs_left_is_cleared(small_table, grid, tmp_path, forbid_computing):
    quick_build(small_table, grid, tmp_path)
    before = digests(tmp_path)
    file = next(tmp_path.rglob("*.safetensors"))
    (file.parent / f".{file.name}.1234abcd").write_bytes(b"half")
    forbid_computing()
    quick_build(small_table, grid, tmp_path)
    assert digests(tmp_path) == before


def test_a_second_run_waits_and_says_so(small_table, grid, tmp_path, hears):
    with FileLock(tmp_path / ".lock"):
        second = threading.Thread(target=quick_build, args=(small_table, grid, tmp_path, ["log"]))
        second.start()
        assert str(tmp_path) in hears(second, "another run is filling this store")
        assert second.is_alive()
        assert not list(tmp_path.rglob("*.safetensors"))
    second.join(60)
    assert not second.is_alive()
    assert len(list(tmp_path.rglob("*.safetensors"))) == 1


def test_two_runs_at_once_end_with_the_same_bytes(small_table, small_batches, grid, tmp_path):
    quick_build(small_table, grid, tmp_path / "one")
    runs = [
        threading.Thread(target=quick_build, args=(small_table, grid, tmp_path / "two"))
        for _ in range(2)
    ]
    for run in runs:
        run.start()
    for run in runs:
        run.join(120)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")


# --- nothing stale -----------------------------------------------------------------------------


def test_a_changed_sound_is_computed_again(small_table, grid, tmp_path, write_sound):
    folder = tmp_path / "store"
    clip_id, other = small_table.index[:2]
    path = Path(small_table.loc[clip_id, "path"])
    old = quick_build(small_table, grid, folder).read("log", [clip_id, other])
    stamp = path.stat()
    write_sound(path, np.random.default_rng(5).uniform(-0.5, 0.5, 8820).astype(np.float32))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # not even a new date gives it away
    assert path.stat().st_size == stamp.st_size
    new = quick_build(small_table, grid, folder).read("log", [clip_id, other])
    np.testing.assert_array_equal(new[0], fresh_codes(str(path), "log", grid))
    assert (new[0] != old[0]).any()
    np.testing.assert_array_equal(new[1], old[1])


def test_sounds_that_change_places_are_served_by_their_new_ids(small_table, grid, tmp_path):
    a, b = small_table.index[:2]
    old = quick_build(small_table, grid, tmp_path / "store").read("log", [a, b])
    small_table.loc[[a, b], "path"] = small_table.loc[[b, a], "path"].to_numpy()
    new = quick_build(small_table, grid, tmp_path / "store").read("log", [a, b])
    np.testing.assert_array_equal(new, old[::-1])


@pytest.mark.parametrize(
    "change",
    [
        {"sample_rate": 24_000},
        {"duration": 1.5},
        {"hop_length": 1600},
        {"bins_per_octave": 3.4},
        {"fmin": 40.0},
        {"fmax": 10_000.0},
        {"oversampling": 7},
        {"frames_per_column": 2},
    ],
)
def test_a_changed_grid_is_computed_anew(small_table, grid, tmp_path, change):
    table, changed = small_table.iloc[:2], replace(grid, **change)
    channels = ["log", "hires_q2"]
    before = quick_build(table, grid, tmp_path / "store", channels)
    after = quick_build(table, changed, tmp_path / "store", channels)
    for channel in channels:
        for clip_id in table.index:
            expected = fresh_codes(table.loc[clip_id, "path"], channel, changed)
            np.testing.assert_array_equal(after.read(channel, [clip_id])[0], expected)
            assert after.places[channel][clip_id][0] != before.places[channel][clip_id][0]


@pytest.mark.parametrize(
    ("name", "channel"),
    [("log", Standard("log", n_fft=1024)), ("hires_q2", Reassigned("log", q=3))],
)
def test_a_changed_channel_is_computed_anew(
    small_table, grid, tmp_path, monkeypatch, name, channel
):
    clip_id = small_table.index[0]
    old = quick_build(small_table, grid, tmp_path / "store", [name]).read(name, [clip_id])
    monkeypatch.setitem(CHANNELS, name, channel)
    new = quick_build(small_table, grid, tmp_path / "store", [name]).read(name, [clip_id])
    assert (new != old).any()
    expected = fresh_codes(small_table.loc[clip_id, "path"], name, grid)
    np.testing.assert_array_equal(new[0], expected)


def test_a_changed_algorithm_is_computed_anew(small_table, grid, tmp_path, monkeypatch):
    first = quick_build(small_table, grid, tmp_path / "store")
    monkeypatch.setattr(stores, "ALGORITHM", stores.ALGORITHM + 1)
    second = quick_build(small_table, grid, tmp_path / "store")
    files = [{file for file, _ in store.places["log"].values()} for store in (first, second)]
    assert not files[0] & files[1]


# --- damage ------------------------------------------------------------------------------------


def test_truncated_and_flipped_files_are_computed_again(small_table, grid, tmp_path):
    quick_build(small_table, grid, tmp_path)
    before = digests(tmp_path)
    file = tmp_path / next(iter(before))
    content = file.read_bytes()
    flipped = bytearray(content)
    flipped[-5] ^= 1
    for damaged in (b"", content[:5], content[: len(content) // 2], content[:-1], bytes(flipped)):
        file.write_bytes(damaged)
        quick_build(small_table, grid, tmp_path)
        assert digests(tmp_path) == before


def test_a_flip_anywhere_in_a_file_is_seen(small_table, grid, tmp_path):
    quick_build(small_table, grid, tmp_path, ["log"])
    file = next(tmp_path.rglob("*.safetensors"))
    content = file.read_bytes()
    with safe_open(file, framework="np") as shard:
        about, codes = json.loads(shard.metadata()["about"]), shard.get_tensor("codes")
    header = 8 + int.from_bytes(content[:8], "little")
    assert is_whole(file)
    for position in [*range(header), *range(header, len(content), 97)]:
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        file.unlink()  # readers map the file: write a new one, as the store does
        file.write_bytes(bytes(flipped))
        if is_whole(file):  # a blank of the header's padding: nothing that is served has changed
            with safe_open(file, framework="np") as shard:
                assert json.loads(shard.metadata()["about"]) == about
                np.testing.assert_array_equal(shard.get_tensor("codes"), codes)


def full_disk(monkeypatch, nth: int) -> None:
    """Make the nth write, and all after it, find the disk full; part of the bytes are written."""
    calls = []

    def fsync(handle: int) -> None:
        calls.append(handle)
        if len(calls) >= nth:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)


def test_only_a_full_disk_is_told_to_make_room(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        write_atomically(tmp_path / "missing" / "file", b"")
    assert caught.value.strerror == os.strerror(errno.ENOENT)


@pytest.mark.parametrize("nth", [1, 4])
def test_a_full_disk_is_named_and_loses_nothing(
    small_table, small_batches, grid, tmp_path, monkeypatch, nth
):
    quick_build(small_table, grid, tmp_path / "whole")
    whole = digests(tmp_path / "whole")
    folder = tmp_path / "store"
    with monkeypatch.context() as patch:
        full_disk(patch, nth)
        with pytest.raises(OSError, match=r"No space left on device; .*make room") as caught:
            quick_build(small_table, grid, folder)
    assert caught.value.errno == errno.ENOSPC
    assert caught.value.filename in {str(folder / name) for name in whole}
    kept = digests(folder)
    assert len(kept) == nth - 1  # what was finished, and nothing half
    assert kept.items() <= whole.items()
    quick_build(small_table, grid, folder)
    assert digests(folder) == whole


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "results.csv"
    write_atomically(file, b"old")
    full_disk(monkeypatch, 1)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.skipif(os.name != "posix", reason="permissions of other systems differ")
def test_files_are_as_readable_as_any_other(tmp_path):
    write_atomically(tmp_path / "a", b"1")
    (tmp_path / "b").write_bytes(b"1")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


# --- sounds that cannot be used, and odd ones --------------------------------------------------


@pytest.fixture
def spoilt(small_table, write_sound) -> tuple[pd.DataFrame, dict[str, str]]:
    """Spoil four of six clips; return the table, and clip id -> what is wrong with it."""
    missing, empty, text, nan = list(small_table.index[:4])
    paths = small_table["path"]
    Path(paths[missing]).unlink()
    Path(paths[empty]).write_bytes(b"")
    Path(paths[text]).write_bytes(b"no sound " * 100)
    write_sound(paths[nan], np.full(9_000, np.nan, np.float32))
    return small_table, {
        missing: "no such file",
        empty: "empty",
        text: "cannot be read as audio",
        nan: "NaN",
    }


def test_unreadable_clips_are_left_out_and_reported_together(
    spoilt, small_batches, grid, tmp_path, capsys
):
    table, faults = spoilt
    store = quick_build(table, grid, tmp_path / "store")
    assert set(store.failed) == set(faults)
    said = capsys.readouterr().out
    assert "4 of 6 clips cannot be read" in said
    for clip_id, fault in faults.items():
        assert fault in store.failed[clip_id]
        assert table.loc[clip_id, "path"] in store.failed[clip_id]
        assert store.failed[clip_id] in said
    good = [clip_id for clip_id in table.index if clip_id not in faults]
    for clip_id in good:  # a gap before them does not shift them
        expected = fresh_codes(table.loc[clip_id, "path"], "log", grid)
        np.testing.assert_array_equal(store.read("log", [clip_id])[0], expected)
    with pytest.raises(KeyError, match=next(iter(faults))):
        store.read("log", [*good, next(iter(faults))])


def test_strict_names_every_unreadable_clip(spoilt, grid, tmp_path):
    table, faults = spoilt
    with pytest.raises(DataError) as caught:
        quick_build(table, grid, tmp_path / "store", strict=True)
    assert all(table.loc[clip_id, "path"] in str(caught.value) for clip_id in faults)
    # The good ones were computed all the same: the error costs nothing.
    store = quick_build(table, grid, tmp_path / "store")
    assert len(store.places["log"]) == 2


def test_reported_again_from_a_finished_store(spoilt, grid, tmp_path, capsys, forbid_computing):
    table, faults = spoilt
    quick_build(table, grid, tmp_path / "store")
    capsys.readouterr()
    forbid_computing()
    assert set(quick_build(table, grid, tmp_path / "store").failed) == set(faults)
    assert "4 of 6 clips cannot be read" in capsys.readouterr().out


def test_nothing_readable_is_an_error(small_table, grid, tmp_path):
    for path in small_table["path"]:
        Path(path).write_bytes(b"")
    with pytest.raises(DataError, match="6 of 6 clips cannot be read"):
        quick_build(small_table, grid, tmp_path / "store")


def test_a_clip_that_turns_up_later_is_served(small_table, grid, tmp_path):
    clip_id = small_table.index[0]
    path = Path(small_table.loc[clip_id, "path"])
    content = path.read_bytes()
    path.unlink()
    assert clip_id in quick_build(small_table, grid, tmp_path / "store").failed
    path.write_bytes(content)
    store = quick_build(small_table, grid, tmp_path / "store")
    assert not store.failed
    np.testing.assert_array_equal(
        store.read("log", [clip_id])[0], fresh_codes(str(path), "log", grid)
    )


def test_silent_and_very_short_clips_are_kept_and_named(small_table, grid, tmp_path, write_sound):
    silent, short, both = small_table.index[:3]
    write_sound(small_table.loc[silent, "path"], np.zeros(9_000, np.float32))
    write_sound(small_table.loc[short, "path"], np.full(100, 0.5, np.float32))
    write_sound(small_table.loc[both, "path"], np.zeros(1, np.float32))
    store = quick_build(small_table, grid, tmp_path / "store")
    assert not store.failed
    assert store.notes[silent] == "silent"
    assert "shorter than one window" in store.notes[short]
    assert "silent" in store.notes[both] and "shorter" in store.notes[both]
    assert set(store.notes) == {silent, short, both}
    for channel in CHOSEN:
        codes = store.read(channel, [silent, short, both])
        assert not codes[0].any()
        assert codes[1].any()
        assert not codes[2].any()
