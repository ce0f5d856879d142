"""Every channel of every clip computed once, kept on disk, found by clip id.

The store is a folder a channel, and in it one file for each batch of clips. A folder's name holds a
hash of the channel's, the grid's and the clip settings; a file's name holds a hash of the clip ids
and of the sounds' bytes. So whatever changes, numbers computed before the change have another name
and are never served. A file is written under a temporary name, then renamed: it is there whole or
not at all, and a killed run goes on with the files it lacks. One run at a time fills a store.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from freesound_tagging.features.spectrograms import encode
from freesound_tagging.features.variants import compute_channels, get_channel
from freesound_tagging.files import hold_alone, write_atomically
from freesound_tagging.jobs import run_jobs
from freesound_tagging.sounds.checks import check_labels
from freesound_tagging.sounds.clips import ClipError, ClipSettings, load_clip

BATCH_CLIPS = 32
"""Clips of one file: what a kill can lose, and what one worker holds in memory."""

ALGORITHM = 1
"""Raise it when the numbers of a channel change for the same settings: it is part of every key."""


@dataclass(frozen=True)
class Store:
    """Where each clip's pictures lie.

    Attributes
    ----------
    grid : the grid of all pictures.
    places : channel name -> clip id -> (file, row in it).
    failed : clip id -> why the clip could not be read; such clips have no pictures.
    notes : clip id -> what is odd about a clip that was kept (silent, very short).
    """

    grid: Grid
    places: dict[str, dict[str, tuple[Path, int]]]
    failed: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def read(self, channel: str, clip_ids: Sequence[str]) -> np.ndarray:
        """Return the 8-bit decibel codes of one channel, in the order of ``clip_ids``.

        Returns
        -------
        uint8, shape (len(clip_ids), frequency, time), lowest frequency first.

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
        codes = np.empty((len(clip_ids), self.grid.n_bins, self.grid.n_frames), dtype=np.uint8)
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
    """Compute what the store does not hold yet, in parallel, and return the store.

    The batches are computed here, or on the cluster that SCHEDULER names, see `cluster`.

    Parameters
    ----------
    table : clips, index ``clip_id``, column ``path``.
    channels : keys of `freesound_tagging.features.variants.CHANNELS`.
    grid : the grid of all pictures; its sample rate and duration also say how a clip is cut.
    folder : where the store lies, one folder a data set.
    strict : raise when any clip cannot be read; otherwise such clips are left out and listed in
        ``store.failed``.
    n_jobs : worker processes on this machine, by default one a core.
    progress : show a progress bar.

    Raises
    ------
    DataError
        With ``strict``, where any clip cannot be read; without, where none can, or a label is left
        in one fold. All of them are named.
    ClusterError
        As `freesound_tagging.jobs.run_jobs`.
    OSError
        Where the disk is full: what is finished stays, and the same call goes on from there.
    """
    for name in channels:
        get_channel(name)  # an unknown one is refused before any work
    folder = Path(folder)
    folders = {name: channel_folder(folder, name, grid) for name in channels}
    clip_settings = ClipSettings(grid.sample_rate, grid.duration)
    jobs = []
    for batch in _batches(table):
        files = {name: folders[name] / f"{batch.key}.safetensors" for name in channels}
        jobs.append((batch, files))
    with _only_run(folder):
        todo = []
        for batch, files in jobs:
            missing = {name: file for name, file in files.items() if not is_whole(file)}
            if missing:
                todo.append((batch, missing))
        if todo:
            for place in folders.values():
                place.mkdir(exist_ok=True)
            running = run_jobs(
                _compute_batch,
                [
                    (batch.clip_ids, batch.paths, missing, grid, clip_settings)
                    for batch, missing in todo
                ],
                n_jobs or joblib.cpu_count(),
            )
            with tqdm(
                total=sum(len(batch.clip_ids) for batch, _ in todo),
                desc="spectrograms",
                unit="clip",
                disable=not progress,
            ) as bar:
                for n_clips in running:
                    bar.update(n_clips)
        store = _index(jobs, grid)
    _report_failures(store, table, strict)
    check_labels(table, store.failed)
    return store


@contextmanager
def _only_run(folder: Path) -> Iterator[None]:
    """Hold a store alone, after any run that holds it now; clear what killed runs left behind."""
    with hold_alone(folder, "filling this store"):
        for leftover in folder.glob("*/.*.safetensors.*"):
            leftover.unlink(missing_ok=True)
        yield


@dataclass(frozen=True)
class _Batch:
    clip_ids: list[str]
    paths: list[str]
    key: str


def _batches(table: pd.DataFrame) -> Iterator[_Batch]:
    """Cut the clips, in the order of their ids, into batches named by what they contain."""
    ordered = table.sort_index()
    hashes = joblib.Parallel(n_jobs=joblib.cpu_count(), prefer="threads")(
        joblib.delayed(_file_hash)(path) for path in ordered["path"]
    )
    clip_ids, paths = list(ordered.index), list(ordered["path"])
    for start in range(0, len(clip_ids), BATCH_CLIPS):
        stop = start + BATCH_CLIPS
        content = json.dumps([clip_ids[start:stop], hashes[start:stop]])
        yield _Batch(clip_ids[start:stop], paths[start:stop], _short_hash(content))


def _file_hash(path: str) -> str:
    """Return a file's sha256, or ``missing``: it may turn up later and then has another key."""
    try:
        with Path(path).open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
            return digest.hexdigest()
    except OSError:
        return "missing"


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def channel_folder(folder: Path, name: str, grid: Grid) -> Path:
    """Return a channel's folder, named by a hash of all settings that its numbers depend on."""
    settings = {
        "algorithm": ALGORITHM,
        "channel": get_channel(name).settings(),
        "grid": grid.settings(),
    }
    return folder / f"{name}-{_short_hash(json.dumps(settings, sort_keys=True))}"


def _compute_batch(
    clip_ids: list[str],
    paths: list[str],
    files: dict[str, Path],
    grid: Grid,
    settings: ClipSettings,
) -> int:
    """Compute the channels of a batch, write one file a channel, return the number of clips."""
    torch.set_num_threads(1)  # the batches themselves run in parallel
    kept, waveforms, failed, notes = [], [], {}, {}
    for clip_id, path in zip(clip_ids, paths, strict=True):
        try:
            waveform, note = load_clip(path, settings)
        except ClipError as error:
            failed[clip_id] = str(error)
            continue
        kept.append(clip_id)
        waveforms.append(waveform)
        if note:
            notes[clip_id] = note
    codes = {name: np.empty((len(kept), grid.n_bins, grid.n_frames), np.uint8) for name in files}
    for row, waveform in enumerate(waveforms):
        for name, magnitude in compute_channels(
            torch.from_numpy(waveform), list(files), grid
        ).items():
            codes[name][row] = encode(magnitude, get_channel(name).limits(grid)).numpy()
    about = {"clip_ids": kept, "failed": failed, "notes": notes}
    for name, file in files.items():
        sealed = json.dumps({**about, "sha256": _checksum(codes[name], about)}, sort_keys=True)
        # One entry only: safetensors writes several in an order that changes from run to run.
        write_atomically(file, save({"codes": codes[name]}, {"about": sealed}))
    return len(clip_ids)


def _checksum(codes: np.ndarray, about: dict) -> str:
    described = json.dumps([about, codes.dtype.str, codes.shape], sort_keys=True)
    return hashlib.sha256(described.encode() + codes.tobytes()).hexdigest()


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


def _index(jobs: list[tuple[_Batch, dict[str, Path]]], grid: Grid) -> Store:
    store = Store(grid, {})
    for _, files in jobs:
        for name, file in files.items():
            with safe_open(file, framework="np") as shard:
                about = json.loads(shard.metadata()["about"])
            rows = {clip_id: (file, row) for row, clip_id in enumerate(about["clip_ids"])}
            store.places.setdefault(name, {}).update(rows)
            store.failed.update(about["failed"])
            store.notes.update(about["notes"])
    return store


def _report_failures(store: Store, table: pd.DataFrame, strict: bool) -> None:
    if not store.failed:
        return
    lines = [f"{len(store.failed)} of {len(table)} clips cannot be read:"]
    lines += [f"  {reason}" for _, reason in sorted(store.failed.items())]
    if strict or len(store.failed) == len(table):
        raise DataError("\n".join(lines))
    tqdm.write(
        "\n".join([*lines, "They are left out; strict=True (STRICT=1) makes this an error."])
    )
