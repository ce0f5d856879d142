"""Archives of sounds: find or download, unpack, verify. No half data set is ever seen.

Archives are looked for in the folder named by the environment variable DATA_MIRROR, then among
earlier downloads, then downloaded.
"""

from __future__ import annotations

import os
import shutil
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pooch

from freesound_tagging.errors import DataError
from freesound_tagging.files import check_room, hold_alone
from freesound_tagging.sounds.download import download_file
from freesound_tagging.sounds.tables import read_rows

MANIFESTS = Path(__file__).resolve().parents[3] / "data"
"""Committed beside the code: what each clip of a data set must be, data/NAME.csv."""


def file_hash(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    return pooch.file_hash(str(path), alg="sha256")


@dataclass(frozen=True)
class Archive:
    """One zip file. Inside it, everything lies in a folder of the zip's own name.

    It is called ``file`` under DATA_MIRROR and after a download, and unpacked to ``folder`` under
    that of all data sets. ``md5`` is that of the whole zip; "" where each clip is verified by a
    manifest, which holds its ``clip_hash``. Mirrors re-pack: a clip may have one of ``endings``.
    """

    file: str
    url: str
    folder: str
    md5: str = ""
    clip_hash: Callable[[Path], str] = file_hash
    endings: tuple[str, ...] = ()

    def locate(self, folder: Path, name: str) -> Path:
        """Return the path of a clip, whichever ending it has."""
        paths = [folder / name, *((folder / name).with_suffix(end) for end in self.endings)]
        return next((path for path in paths if path.is_file()), paths[0])


@dataclass(frozen=True)
class Dataset:
    """What there is to know about a data set; numbers are 0 where the user chooses."""

    n_clips: int
    n_classes: int
    licence: str
    citation: str
    archives: tuple[Archive, ...] = ()


def github_archive(owner: str, repository: str, commit: str, folder: str, **more) -> Archive:
    """Declare the zip that GitHub makes of a commit."""
    url = f"https://github.com/{owner}/{repository}/archive/{commit}.zip"
    return Archive(f"{repository}-{commit}.zip", url, folder, **more)


def read_manifest(name: str, key: str = "file") -> pd.DataFrame:
    """Return the committed list of a data set's clips, data/NAME.csv, by file name."""
    path = MANIFESTS / f"{name}.csv"
    if not path.is_file():
        raise DataError(
            f"{path}: the list of clips is missing; install from a clone of the repository "
            "(pip install -e .)"
        )
    return read_rows(path, (key,)).set_index(key).sort_index()


def fetch(archive: Archive, root: Path, hashes: pd.Series | None = None) -> Path:
    """Make sure that an archive's content is in place under ``root``, and return its folder.

    ``hashes`` are the `Archive.clip_hash` of each clip wanted, by name; what else there is stays in
    the zip, except READMEs, which name authors and licences. Without them the whole archive is
    unpacked, and a folder that is there is taken as it is: folders appear whole or not at all.

    Later calls compare size and time of last change of each clip with those noted at the first, and
    hash again where any differs.
    """
    folder = root / archive.folder
    if not _fault(archive, folder, hashes):
        return folder
    path = find_archive(archive, root)
    staging = folder.with_name(f".{folder.name}.part")
    try:
        with hold_alone(root / "downloads", f"unpacking {archive.file}"):
            if not _fault(archive, folder, hashes):  # another run did it
                return folder
            shutil.rmtree(staging, ignore_errors=True)
            (staging / path.stem).mkdir(parents=True)
            _unpack(archive, path, staging, hashes)
            fault = _fault(archive, staging / path.stem, hashes)
            if not fault:
                shutil.rmtree(folder, ignore_errors=True)
                return (staging / path.stem).replace(folder)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        fault = f"is truncated, damaged or not a zip ({error})"
    except OSError as error:
        raise DataError(f"{path}: could not be unpacked to {folder} ({error})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    raise DataError(f"{path}: {fault}. Delete it and fetch it again")


def find_archive(archive: Archive, root: Path) -> Path:
    """Find an archive under DATA_MIRROR or in ``root/downloads``, or download it to there."""
    mirror = os.environ.get("DATA_MIRROR", "")
    if mirror and not Path(mirror).is_dir():
        raise DataError(
            f"DATA_MIRROR={mirror}: there is no such folder; name one that holds {archive.file}, "
            "or unset it to download"
        )
    path = Path(mirror, archive.file)
    if not (mirror and path.is_file()):
        return download_file(archive.url, root / "downloads" / archive.file, md5=archive.md5)
    if archive.md5 and pooch.file_hash(str(path), alg="md5") != archive.md5:
        warnings.warn(
            f"{path}: its md5 is not the published {archive.md5}; used all the same, since mirrors "
            "may re-pack. If it came from Zenodo unchanged, fetch it again",
            stacklevel=2,
        )
    return path


def _unpack(archive: Archive, path: Path, folder: Path, hashes: pd.Series | None) -> None:
    """Unpack what is wanted; `zipfile` keeps every name inside the folder and makes no links."""
    with zipfile.ZipFile(path) as zipped:
        members = zipped.infolist()
        if hashes is not None:
            names = [Path(path.stem, name) for name in hashes.index]
            wanted = {str(name) for name in names}
            wanted |= {str(name.with_suffix(end)) for name in names for end in archive.endings}
            members = [
                member
                for member in members
                if member.filename in wanted or "README" in Path(member.filename).name
            ]
        needed = sum(member.file_size for member in members)
        check_room(folder, needed, f"unpack {path.name}")
        for member in members:
            zipped.extract(member, folder)


def _fault(archive: Archive, folder: Path, hashes: pd.Series | None) -> str:
    """Say what is wrong with unpacked clips: "" where all that are wanted are there, unchanged."""
    if hashes is None:
        return "" if folder.is_dir() else "is not unpacked"
    clips = {name: archive.locate(folder, name) for name in hashes.index}
    for name, path in clips.items():
        if not path.is_file():
            return f"does not hold {name}"
    states = {name: path.stat() for name, path in clips.items()}
    seen = "".join(f"{hashes[n]} {s.st_size} {s.st_mtime_ns} {n}\n" for n, s in states.items())
    marker = folder / ".verified"
    if marker.is_file() and marker.read_bytes() == seen.encode():
        return ""
    for name, path in clips.items():
        found = archive.clip_hash(path)
        if found != hashes[name]:
            return f"clip {name} has sha256 {found}, expected {hashes[name]}"
    with suppress(OSError):  # in a folder that cannot be written, every load hashes the clips
        marker.write_text(seen)
    return ""
