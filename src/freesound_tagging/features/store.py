"""Every channel of every clip computed once, kept on disk, found by clip id.

The store is a folder a channel, and in it one file for each batch of clips. A folder's name holds a
hash of the channel's and the grid's settings; a file's name holds a hash of the clip ids and of the
sounds' bytes. Whatever changes, what was computed before has another name and is never served. A
file is there whole or not at all, and a killed run goes on with the files it lacks. One run at a
time fills a store.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import compute_channels, get_channel
from freesound_tagging.features.spectrograms import ALGORITHM, encode
from freesound_tagging.files import hold_alone, write_atomically
from freesound_tagging.jobs import run_jobs
from freesound_tagging.sounds.archives import file_hash
from freesound_tagging.sounds.clips import ClipError, ClipSettings, load_windows

BATCH_CLIPS = 32
"""Clips of one file: what a kill can lose, and what one worker holds in memory."""


@dataclass(frozen=True)
class Store:
    """Where each clip's stored spectrograms lie.

    Attributes
    ----------
    grid : the grid of all stored spectrograms.
    places : channel name -> clip id -> (file, row in it).
    failed : clip id -> why the clip could not be read; such clips have no stored spectrogram.
    notes : clip id -> what is odd about a clip that was kept (silent, very short).
    """

    grid: Grid
    places: dict[str, dict[str, tuple[Path, int]]]
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def read(self, channel: str, clip_ids: Sequence[str]) -> np.ndarray:
        """Return the 8-bit codes of one channel, in the order of ``clip_ids``.

        Returns
        -------
        uint8, shape (len(clip_ids), frequency, time), lowest frequency first; or
        (len(clip_ids), windows, frequency, time) where the grid has several windows a clip.

        Raises
        ------
        KeyError
            Where the channel was not built, or a clip is not in the store; both are named.
        """
        if channel not in self.places:
            raise KeyError(
                f"channel {channel!r} is not in the store; it holds: {', '.join(self.places)}"
            )
        places = self.places[channel]
        missing = [clip_id for clip_id in clip_ids if clip_id not in places]
        if missing:
            raise KeyError(
                f"{len(missing)} clips are not in the store, the first is {missing[0]!r}"
            )
        codes = np.empty((len(clip_ids), *_shape(channel, self.grid)), dtype=np.uint8)
        wanted: dict[Path, list[tuple[int, int]]] = {}
        for position, clip_id in enumerate(clip_ids):
            file, row = places[clip_id]
            wanted.setdefault(file, []).append((position, row))
        for file, pairs in wanted.items():
            positions, rows = map(list, zip(*pairs, strict=True))
            with safe_open(file, framework="np") as shard:
                codes[positions] = shard.get_tensor("codes")[rows]
        return codes


def build(
    table: pd.DataFrame,
    channels: Sequence[str],
    grid: Grid,
    folder: str | Path,
    *,
    strict: bool = False,
    n_jobs: int | None = None,
    progress: bool = True,
) -> Store:
    """Compute what the store lacks, in parallel (see `freesound_tagging.jobs`), and return it.

    Parameters
    ----------
    table : clips, index ``clip_id``, column ``path``.
    channels : keys of `freesound_tagging.features.representations.CHANNELS`.
    grid : its sample rate, duration and windows also say how a clip is cut.
    folder : where the store lies, one folder a data set.
    strict : raise when any clip cannot be read; otherwise such clips are left out and listed in
        ``store.failed``.
    n_jobs : worker processes on this machine, by default one a core.
    progress : show a progress bar.

    Raises
    ------
    DataError
        With ``strict``, where any clip cannot be read; without, where none can. All are named.
    ClusterError
        As `freesound_tagging.jobs.run_jobs`.
    OSError
        Where the disk is full: what is finished stays, and the same call goes on from there.
    """
    folders = {name: channel_folder(Path(folder), name, grid) for name in channels}
    batches = _batches(table, folders)
    with hold_alone(Path(folder), "filling this store"):
        for leftover in Path(folder).glob("*/.*.safetensors.*"):  # a killed run's
            leftover.unlink(missing_ok=True)
        jobs = []
        for clips, files in batches:
            missing = {name: file for name, file in files.items() if not is_whole(file)}
            if missing:
                jobs.append((clips, missing, grid))
        if jobs:
            for place in folders.values():
                place.mkdir(exist_ok=True)
            total = sum(len(clips) for clips, *_ in jobs)
            with tqdm(total=total, desc="spectrograms", unit="clip", disable=not progress) as bar:
                for n_clips in run_jobs(_compute_batch, jobs, n_jobs or joblib.cpu_count()):
                    bar.update(n_clips)
        store = _index((files for _, files in batches), grid)
    _report_failures(store, len(table), strict)
    return store


def channel_folder(folder: Path, name: str, grid: Grid) -> Path:
    """Return a channel's folder, named by a hash of all settings that its numbers depend on."""
    settings = {
        "algorithm": ALGORITHM,
        "channel": get_channel(name).settings(),
        "grid": grid.settings(),
    }
    return folder / f"{name}-{_short_hash(json.dumps(settings, sort_keys=True))}"


def is_whole(file: Path) -> bool:
    """Say whether a file is there and all that it holds has the checksum it was written with."""
    if not file.exists():
        return False
    try:
        with safe_open(file, framework="np") as shard:
            about = json.loads(shard.metadata()["about"])
            return about.pop("sha256") == _checksum(shard.get_tensor("codes"), about)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError):
        return False


def _shape(channel: str, grid: Grid) -> tuple[int, ...]:
    windows = () if grid.windows == 1 else (grid.windows,)
    return (*windows, *get_channel(channel).shape(grid))


def _batches(
    table: pd.DataFrame, folders: dict[str, Path]
) -> list[tuple[dict[str, str], dict[str, Path]]]:
    """Cut the clips, in the order of their ids, into batches: clip id -> path, channel -> file."""
    paths = table["path"].sort_index()
    hashes = joblib.Parallel(n_jobs=joblib.cpu_count(), prefer="threads")(
        joblib.delayed(_file_hash)(path) for path in paths
    )
    batches = []
    for start in range(0, len(paths), BATCH_CLIPS):
        part = paths.iloc[start : start + BATCH_CLIPS]
        content = json.dumps([list(part.index), hashes[start : start + BATCH_CLIPS]])
        file = f"{_short_hash(content)}.safetensors"
        batches.append((part.to_dict(), {name: folder / file for name, folder in folders.items()}))
    return batches


def _file_hash(path: str) -> str:
    """Return a file's sha256, or ``missing``: it may turn up later and then has another key."""
    try:
        return file_hash(Path(path))
    except OSError:
        return "missing"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _compute_batch(clips: dict[str, str], files: dict[str, Path], grid: Grid) -> int:
    """Compute the channels of a batch, write one file a channel, return the number of clips."""
    torch.set_num_threads(1)  # the batches themselves run in parallel
    settings = ClipSettings(grid.sample_rate, grid.duration)
    codes: dict[str, list[np.ndarray]] = {name: [] for name in files}
    kept, failed, notes = [], {}, {}
    for clip_id, path in clips.items():
        try:
            waveforms, note = load_windows(path, settings, grid.windows)
        except ClipError as error:
            failed[clip_id] = str(error)
            continue
        kept.append(clip_id)
        if note:
            notes[clip_id] = note
        waveforms = torch.from_numpy(waveforms if grid.windows > 1 else waveforms[0])
        for name, values in compute_channels(waveforms, list(files), grid).items():
            codes[name].append(encode(values, get_channel(name).limits(grid)).numpy())
    about = {"clip_ids": kept, "failed": failed, "notes": notes}
    for name, file in files.items():
        stacked = np.array(codes[name], dtype=np.uint8).reshape(len(kept), *_shape(name, grid))
        sealed = json.dumps({**about, "sha256": _checksum(stacked, about)}, sort_keys=True)
        # One entry only: safetensors writes several in an order that changes from run to run.
        write_atomically(file, save({"codes": stacked}, {"about": sealed}))
    return len(clips)


def _checksum(codes: np.ndarray, about: dict) -> str:
    described = json.dumps([about, codes.dtype.str, codes.shape], sort_keys=True)
    return hashlib.sha256(described.encode() + codes.tobytes()).hexdigest()


def _index(batches: Iterable[dict[str, Path]], grid: Grid) -> Store:
    store = Store(grid, {})
    for files in batches:
        for name, file in files.items():
            with safe_open(file, framework="np") as shard:
                about = json.loads(shard.metadata()["about"])
            rows = {clip_id: (file, row) for row, clip_id in enumerate(about["clip_ids"])}
            store.places.setdefault(name, {}).update(rows)
            store.failed.update(about["failed"])
            store.notes.update(about["notes"])
    return store


def _report_failures(store: Store, n_clips: int, strict: bool) -> None:
    if not store.failed:
        return
    lines = [f"{len(store.failed)} of {n_clips} clips cannot be read:"]
    lines += [f"  {reason}" for _, reason in sorted(store.failed.items())]
    if strict or len(store.failed) == n_clips:
        raise DataError("\n".join(lines))
    tqdm.write(
        "\n".join([*lines, "They are left out; strict=True (STRICT=1) makes this an error."])
    )
