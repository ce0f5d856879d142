"""The store computes once, serves by clip id, never serves what is stale, and survives a kill."""

import errno
import hashlib
import os
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

from freesound_tagging.errors import DataError
from freesound_tagging.features import representations
from freesound_tagging.features import store as stores
from freesound_tagging.features.codes import encode
from freesound_tagging.features.filterbanks import reassigned_magnitude, stft_magnitude
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import CHANNELS, Channel
from freesound_tagging.features.store import Store, build
from freesound_tagging.files import write_atomically
from freesound_tagging.sounds.clips import load_windows

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


def write_sound(path: str, waveform: np.ndarray) -> None:
    sf.write(path, waveform, 22_050, subtype="FLOAT")


def fresh_codes(path: str, channel: str, grid: Grid) -> np.ndarray:
    """Return codes computed here and now, shape (windows, frequency, time)."""
    waveforms, _ = load_windows(path, grid.sample_rate, grid.duration, grid.windows)
    values = CHANNELS[channel].compute(torch.from_numpy(waveforms), grid)
    return encode(values, CHANNELS[channel].limits(grid)).numpy()


@pytest.fixture
def computed(monkeypatch) -> list[Path]:
    """The files that are computed from here on."""
    files: list[Path] = []
    original = stores._compute_batch

    def spy(clips, missing, grid):
        files.extend(missing.values())
        return original(clips, missing, grid)

    monkeypatch.setattr(stores, "_compute_batch", spy)
    return files


def test_codes_are_those_of_the_clip_of_that_id(table, store, grid):
    clip_ids = list(table.index)
    some = np.random.default_rng(0).integers(0, len(table), 8)  # in any order, more than once
    for channel, found in CHANNELS.items():
        codes = store.read(channel, clip_ids)
        assert codes.dtype == np.uint8 and codes.shape == (len(table), *found.shape(grid))
        again = store.read(channel, [clip_ids[i] for i in some])
        np.testing.assert_array_equal(again, codes[some])
        for row in some[:2]:
            expected = fresh_codes(table.iloc[row]["path"], channel, grid)[0]
            assert (codes[row] != expected).mean() < 0.01
    assert store.read("log", []).shape == (0, grid.n_bins, grid.n_frames)


def test_several_windows_of_a_clip_are_stored_in_order(small_table, grid, tmp_path):
    generator = np.random.default_rng(4)
    for path, seconds in zip(small_table["path"], (5.0, 2.5, 2.0, 0.3, 1.0, 7.0), strict=True):
        write_sound(path, generator.uniform(-0.5, 0.5, round(seconds * 22_050)).astype(np.float32))
    several = replace(grid, windows=3)
    store = quick_build(small_table, several, tmp_path / "store", ["log", "hires_q2"])
    for channel in store.places:
        codes = store.read(channel, list(small_table.index))
        assert codes.shape == (6, 3, grid.n_bins, grid.n_frames)
        for found, path in zip(codes, small_table["path"], strict=True):
            assert (found != fresh_codes(path, channel, several)).mean() < 0.01


def test_what_is_there_is_not_computed_again(small_table, small_batches, grid, tmp_path, computed):
    folder = tmp_path / "store"
    quick_build(small_table, grid, folder, ["log"])
    before = digests(folder)
    assert len(computed) == len(before) == len(small_table) // small_batches
    computed.clear()
    store = quick_build(small_table.iloc[::-1], grid, folder)  # the order of rows means nothing
    assert {file.parent.name.split("-")[0] for file in computed} == {"mel"}
    assert before.items() <= digests(folder).items()
    assert set(store.places) == {"log", "mel"}


def test_a_file_that_was_cut_short_is_computed_again(small_table, grid, tmp_path, computed):
    folder = tmp_path / "store"
    quick_build(small_table, grid, folder)
    before, file = digests(folder), computed[0]
    (file.parent / f".{file.name}.cut").write_bytes(b"")  # what a kill in mid-write leaves
    content = file.read_bytes()
    for damaged in (b"", content[:5], content[: len(content) // 2], content[:-1]):
        file.write_bytes(damaged)
        computed.clear()
        quick_build(small_table, grid, folder)
        assert computed == [file]
        assert digests(folder) == before


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    file = tmp_path / "results.csv"
    file.write_bytes(b"old")

    def fsync(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left on device"):
        write_atomically(file, b"new")
    assert file.read_bytes() == b"old" and list(tmp_path.iterdir()) == [file]


def test_a_changed_sound_is_computed_again(small_table, grid, tmp_path):
    first, second, third = small_table.index[:3]
    old = quick_build(small_table, grid, tmp_path / "store").read("log", [first, second, third])
    path = Path(small_table.loc[first, "path"])
    stamp = path.stat()
    write_sound(path, np.random.default_rng(5).uniform(-0.5, 0.5, 8820).astype(np.float32))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # not even a new date gives it away
    assert path.stat().st_size == stamp.st_size
    # Two others change places.
    swapped = small_table.loc[[third, second], "path"].to_numpy()
    small_table.loc[[second, third], "path"] = swapped
    new = quick_build(small_table, grid, tmp_path / "store").read("log", [first, second, third])
    np.testing.assert_array_equal(new[0], fresh_codes(str(path), "log", grid)[0])
    assert (new[0] != old[0]).any()
    np.testing.assert_array_equal(new[1:], old[:0:-1])


@pytest.mark.parametrize(
    "change",
    [
        {"hop_length": 1600},
        {"windows": 2},
        {"log": Channel("log", partial(stft_magnitude, axis="log", n_fft=1024))},
        {"hires_q2": Channel("log", partial(reassigned_magnitude, q=3))},
        {"ALGORITHM": representations.ALGORITHM + 1},
        {"version": lambda package: "9.9.9"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_changed_setting_is_computed_anew(small_table, grid, tmp_path, monkeypatch, change):
    table, channels = small_table.iloc[:2], ["log", "hires_q2"]
    before = quick_build(table, grid, tmp_path / "store", channels)
    ((name, value),) = change.items()
    if name in CHANNELS:
        monkeypatch.setitem(CHANNELS, name, value)
    elif hasattr(representations, name):
        monkeypatch.setattr(representations, name, value)
    else:
        grid = replace(grid, **change)
    after = quick_build(table, grid, tmp_path / "store", channels)
    of_one = {**{channel: [channel] for channel in channels}, "version": ["hires_q2"]}
    for channel in channels:
        files = [{file for file, _ in store.places[channel].values()} for store in (before, after)]
        assert files[0].isdisjoint(files[1]) == (channel in of_one.get(name, channels))
        codes = after.read(channel, list(table.index)).reshape(2, grid.windows, grid.n_bins, -1)
        for found, path in zip(codes, table["path"], strict=True):
            assert (found != fresh_codes(path, channel, grid)).mean() < 0.01


def test_unreadable_clips_are_left_out_and_reported_together(
    small_table, small_batches, grid, tmp_path, capsys, computed
):
    table, paths = small_table, small_table["path"]
    missing, empty, text, nan = list(table.index[:4])
    content = Path(paths[missing]).read_bytes()
    Path(paths[missing]).unlink()
    Path(paths[empty]).write_bytes(b"")
    Path(paths[text]).write_bytes(b"no sound " * 100)
    write_sound(paths[nan], np.full(9_000, np.nan, np.float32))
    unread = "cannot be read as audio"
    faults = {missing: "no such file", empty: unread, text: unread, nan: "NaN"}
    with pytest.raises(DataError) as caught:
        quick_build(table, grid, tmp_path / "store", strict=True)
    assert all(table.loc[clip_id, "path"] in str(caught.value) for clip_id in faults)
    computed.clear()
    store = quick_build(table, grid, tmp_path / "store")
    assert not computed  # the good ones were computed all the same
    said = capsys.readouterr().out
    assert "4 of 6 clips cannot be read" in said
    assert set(store.failed) == set(faults)
    for clip_id, fault in faults.items():
        assert fault in store.failed[clip_id] and table.loc[clip_id, "path"] in said
    good = [clip_id for clip_id in table.index if clip_id not in faults]
    for clip_id in good:  # a gap before them does not shift them
        expected = fresh_codes(table.loc[clip_id, "path"], "log", grid)
        np.testing.assert_array_equal(store.read("log", [clip_id]), expected)
    with pytest.raises(KeyError):
        store.read("log", [*good, next(iter(faults))])
    with pytest.raises(DataError, match="4 of 4 clips cannot be read"):
        quick_build(table.drop(good), grid, tmp_path / "store")
    Path(paths[missing]).write_bytes(content)  # one turns up
    store = quick_build(table, grid, tmp_path / "store")
    assert set(store.failed) == {empty, text, nan}
    expected = fresh_codes(paths[missing], "log", grid)
    np.testing.assert_array_equal(store.read("log", [missing]), expected)


def test_silent_and_very_short_clips_are_kept_and_named(small_table, grid, tmp_path):
    silent, short = small_table.index[:2]
    write_sound(small_table.loc[silent, "path"], np.zeros(9_000, np.float32))
    write_sound(small_table.loc[short, "path"], np.full(100, 0.5, np.float32))
    store = quick_build(small_table, grid, tmp_path / "store")
    assert not store.failed and set(store.notes) == {silent, short}
    assert store.notes[silent] == "silent"
    assert "shorter than one window" in store.notes[short]
    for channel in CHOSEN:
        codes = store.read(channel, [silent, short])
        assert not codes[0].any() and codes[1].any()
