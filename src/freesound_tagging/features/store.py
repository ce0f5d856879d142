"""Every channel of every clip computed once, kept on disk, found by clip id.

The store is a folder a channel, and in it one file for each batch of clips. A folder's name holds a
hash of the channel's and the grid's settings; a file's name holds a hash of the clip ids and of the
sounds' bytes: whatever changes, what was computed before is never served. A file is there whole or
not at all, and a killed run goes on with those it lacks. One run at a time fills a store.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pooch
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.features.grid import Grid
from freesound_tagging.features.representations import EMBEDDINGS, get_channel
from freesound_tagging.files import hold_alone, write_atomically
from freesound_tagging.jobs import run_jobs
from freesound_tagging.sounds.clips import ClipError, load_windows, stream

BATCH_CLIPS = 32  # in one file: what a kill can lose, and what one worker holds in memory


@dataclass(frozen=True)
class Store:
    """Where each clip's stored spectrograms, of one grid, lie."""

    grid: Grid
    # Channel name -> clip id -> (file, row in it).
    places: dict[str, dict[str, tuple[Path, int]]] = field(default_factory=dict)
    # Clip id -> why it could not be read; such clips have no stored spectrogram.
    failed: dict[str, str] = field(default_factory=dict)
    # Clip id -> what is odd about a clip that was kept (silent, very short).
    notes: dict[str, str] = field(default_factory=dict)

    def read(self, channel: str, clip_ids: Sequence[str]) -> np.ndarray:
        """Return the 8-bit codes of one channel, in the order of ``clip_ids``.

        They are uint8, (clips, [windows,] frequency, time), lowest frequency first; of an embedding
        float32, (clips, 1, 2048).
        """
        places = self.places[channel]
        codes = _empty(channel, self.grid, len(clip_ids))
        wanted = pd.DataFrame([places[clip_id] for clip_id in clip_ids], columns=["file", "row"])
        for file, own in wanted.groupby("file"):
            with safe_open(file, framework="np") as stored:
                codes[own.index] = stored.get_tensor("codes")[own["row"]]
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

    The table has the index ``clip_id`` and a column ``path``. Clips that cannot be read are listed
    in ``store.failed``; where none can be, or one cannot and ``strict`` is set: a `DataError`.
    ``n_jobs`` processes work at once, by default one a core; ``progress`` shows a bar.
    """
    folder = Path(folder)
    settings = {name: [get_channel(name).settings(), asdict(grid)] for name in channels}
    folders = {name: folder / f"{name}-{_hash(found)}" for name, found in settings.items()}
    paths = table["path"].sort_index()
    hashes = joblib.Parallel(-1, prefer="threads")(map(joblib.delayed(_file_hash), paths))
    store, files, jobs = Store(grid), [], []
    with hold_alone(folder, "filling this store"):
        for leftover in folder.glob("*/.*.safetensors.*"):  # a killed run's
            leftover.unlink()
        for start in range(0, len(paths), BATCH_CLIPS):
            batch = paths.iloc[start : start + BATCH_CLIPS]
            key = _hash([list(batch.index), hashes[start : start + BATCH_CLIPS]])
            own = {name: place / f"{key}.safetensors" for name, place in folders.items()}
            files += own.items()
            missing = {name: file for name, file in own.items() if not _about(file)}
            if missing:
                jobs.append((batch.to_dict(), missing, grid))
        total, hidden = sum(len(clips) for clips, *_ in jobs), not (progress and jobs)
        with tqdm(total=total, desc="spectrograms", unit="clip", disable=hidden) as bar:
            for n_clips in run_jobs(_compute_batch, jobs, n_jobs or joblib.cpu_count()):
                bar.update(n_clips)
        for name, file in files:
            about = _about(file)
            rows = {clip_id: (file, row) for row, clip_id in enumerate(about["clip_ids"])}
            store.places.setdefault(name, {}).update(rows)
            store.failed.update(about["failed"])
            store.notes.update(about["notes"])
    if store.failed:
        lines = [f"{len(store.failed)} of {len(table)} clips cannot be read:"]
        lines += [f"  {reason}" for _, reason in sorted(store.failed.items())]
        if strict or len(store.failed) == len(table):
            raise DataError("\n".join(lines))
        tqdm.write("\n".join([*lines, "They are left out; STRICT=1 makes this an error."]))
    return store


def _hash(content: object) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _empty(channel: str, grid: Grid, n_clips: int) -> np.ndarray:
    """Return an array for the codes, or the embeddings, of so many clips."""
    windows = () if grid.windows == 1 else (grid.windows,)
    dtype = np.float32 if channel in EMBEDDINGS else np.uint8
    return np.empty((n_clips, *windows, *get_channel(channel).shape(grid)), dtype)


def _file_hash(path: str) -> str:
    """Return a file's sha256, or ``missing``: it may turn up later and then has another key."""
    try:
        return pooch.file_hash(path)
    except OSError:
        return "missing"


def _about(file: Path) -> dict:
    """Return what a file says of its clips; nothing where it is not there, or was cut short."""
    try:
        with safe_open(file, framework="np") as stored:
            return json.loads(stored.metadata()["about"])
    except (FileNotFoundError, SafetensorError):
        return {}


def _compute_batch(clips: dict[str, str], files: dict[str, Path], grid: Grid) -> int:
    """Compute the channels of a batch, write one file a channel, return the number of clips."""
    torch.set_num_threads(1)  # the batches themselves run in parallel
    codes = {name: _empty(name, grid, len(clips)) for name in files}
    kept, failed, notes = [], {}, {}
    for clip_id, path in clips.items():
        try:
            waveforms, note = _load(path, grid, whole=not EMBEDDINGS.keys().isdisjoint(files))
        except ClipError as error:
            failed[clip_id] = str(error)
            continue
        for name in files:
            codes[name][len(kept)] = get_channel(name).codes(torch.from_numpy(waveforms), grid)
        kept.append(clip_id)
        if note:
            notes[clip_id] = note
    # One entry only: safetensors writes several in an order that changes from run to run.
    about = {"about": json.dumps({"clip_ids": kept, "failed": failed, "notes": notes})}
    for name, file in files.items():
        file.parent.mkdir(exist_ok=True)
        write_atomically(file, save({"codes": codes[name][: len(kept)]}, about))
    return len(clips)


def _load(path: str, grid: Grid, whole: bool) -> tuple[np.ndarray, str]:
    """Return a clip's window or windows, ([windows,] time), or the whole of it; and its note."""
    if whole:
        notes: list[str] = []
        blocks = list(stream(path, grid.sample_rate, notes))
        return np.concatenate(blocks), "; ".join(notes)
    waveforms, note = load_windows(path, grid.sample_rate, grid.duration, grid.windows)
    return waveforms if grid.windows > 1 else waveforms[0], note
