"""Archives of sounds: find or download, verify, unpack. No half data set is ever seen.

Archives are looked for in the folder named by the environment variable DATA_MIRROR, then among
earlier downloads, then downloaded.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pooch

from freesound_tagging import files
from freesound_tagging.errors import DataError
from freesound_tagging.sounds.download import download_file
from freesound_tagging.sounds.tables import read_rows

MANIFESTS = Path(__file__).resolve().parents[3] / "data"
"""Committed beside the code: what each clip of a data set must be, data/NAME.csv."""

_MARKER = ".verified"


def file_hash(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    return pooch.file_hash(str(path), alg="sha256")


@dataclass(frozen=True)
class Archive:
    """One zip file. Inside it, everything lies in a folder of the zip's own name.

    Attributes
    ----------
    file : name under DATA_MIRROR and after a download.
    url : where it is downloaded from.
    folder : where its content goes, relative to the folder of all data sets.
    md5 : hash of the whole archive; "" where each clip is verified by a manifest instead.
    clip_hash : path of a clip -> what the manifest holds of it.
    endings : endings that a clip may have in place of the manifest's: mirrors re-pack.
    """

    file: str
    url: str
    folder: str
    md5: str = ""
    clip_hash: Callable[[Path], str] = file_hash
    endings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """What there is to know about a data set.

    Attributes
    ----------
    n_clips, n_classes : of the whole set; 0 where the user chooses.
    licence, citation : what using the sounds asks for.
    """

    n_clips: int
    n_classes: int
    licence: str
    citation: str
    archives: tuple[Archive, ...] = ()


def github_archive(owner: str, repository: str, commit: str, folder: str, **more) -> Archive:
    """Declare the zip that GitHub makes of a commit."""
    url = f"https://github.com/{owner}/{repository}/archive/{commit}.zip"
    return Archive(f"{repository}-{commit}.zip", url, folder, **more)


def read_manifest(name: str, hash_column: str = "sha256") -> dict[str, dict[str, str]]:
    """Return the rows of the committed list of a data set's clips, data/NAME.csv, by file name.

    Raises
    ------
    DataError
        The manifest is not there, as after an installation without the repository.
    """
    path = MANIFESTS / f"{name}.csv"
    if not path.is_file():
        raise DataError(
            f"{path}: the list of clips is missing; install from a clone of the repository "
            "(pip install -e .)"
        )
    rows = {row["file"]: row for _, row in read_rows(path, ("file", hash_column))}
    return dict(sorted(rows.items()))


def fetch(archive: Archive, root: Path, hashes: dict[str, str] | None = None) -> Path:
    """Make sure that an archive's content is in place, and return its folder.

    Parameters
    ----------
    root : folder of all data sets.
    hashes : `archive.clip_hash` of each file wanted. Without it the whole archive is unpacked, and
        a folder that is there is taken as it is: folders appear whole or not at all.

    Raises
    ------
    DataError
        The archive cannot be had, is damaged or unsafe, or a file in it is not the one expected.

    Notes
    -----
    Later calls compare size and time of last change of each file with those noted at the first,
    and hash again what differs.
    """
    folder = root / archive.folder
    if _in_place(archive, folder, hashes):
        return folder
    path = find_archive(archive, root)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Unpacked and verified beside its final place, then renamed.
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as staging:
            fresh, stale = Path(staging, "fresh"), Path(staging, "stale")
            unpack(archive, path, fresh, hashes)
            if hashes is not None:
                _write_marker(archive, fresh, hashes)
            # A folder with a wrong or missing clip is replaced; another run may have put the
            # right one there in the meantime.
            if not _in_place(archive, folder, hashes):
                if folder.exists():
                    folder.replace(stale)
                fresh.replace(folder)
    except OSError as error:
        if not _in_place(archive, folder, hashes):
            raise DataError(f"{folder}: cannot be put in place ({error})") from error
    return folder


def locate(archive: Archive, folder: Path, name: str) -> Path:
    """Return the path of a clip, whichever of the archive's endings it has."""
    path = folder / name
    others = [path.with_suffix(ending) for ending in archive.endings]
    return next((other for other in (path, *others) if other.is_file()), path)


def find_archive(archive: Archive, root: Path) -> Path:
    """Find an archive under DATA_MIRROR or in `root/downloads`, or download it to there.

    Raises
    ------
    DataError
        DATA_MIRROR is not a folder; the download fails, or is not the archive expected.

    Warns
    -----
    UserWarning
        An archive under DATA_MIRROR has another md5 than published: mirrors re-pack.
    """
    mirror = os.environ.get("DATA_MIRROR", "")
    if mirror:
        if not Path(mirror).is_dir():
            raise DataError(
                f"DATA_MIRROR={mirror}: there is no such folder; name one that holds "
                f"{archive.file}, or unset it to download"
            )
        path = Path(mirror, archive.file)
        if path.is_file():
            if archive.md5 and pooch.file_hash(str(path), alg="md5") != archive.md5:
                warnings.warn(
                    f"{path}: its md5 is not the published {archive.md5}; used all the same, "
                    "since mirrors may re-pack. If it came from Zenodo unchanged, fetch it again",
                    stacklevel=2,
                )
            return path
    return download_file(archive.url, root / "downloads" / archive.file, md5=archive.md5)


def unpack(
    archive: Archive, path: Path, folder: Path, hashes: dict[str, str] | None = None
) -> None:
    """Unpack a zip into a new folder and verify each file.

    Parameters
    ----------
    path : of the zip. What lies in its folder of the zip's own name is unpacked, without that
        folder.
    folder : must not exist yet. Left half filled after an error.
    hashes : of the files wanted; others are left in the zip, except READMEs, which name authors and
        licences. Without it everything is unpacked.

    Raises
    ------
    DataError
        The zip is truncated or damaged; it holds an absolute name, one with "..", a link or
        another special file (nothing at all is unpacked then); a wanted file is missing, is there
        twice or has another hash; the disk has no room, which is checked first.
    """
    remedy = f"Delete {path} and fetch it again"
    try:
        with zipfile.ZipFile(path) as zipped:
            members = _members(zipped, path)
            if hashes is not None:
                members = _choose(archive, members, hashes, path, remedy)
            needed = sum(member.file_size for member in members.values())
            files.check_room(folder.parent, needed, f"unpack {path.name}")
            for name, member in members.items():
                _extract(zipped, member, folder / name)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(
            f"{path}: is truncated, damaged or not a zip ({error}). {remedy}"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: could not be unpacked to {folder} ({error})") from error
    for name, expected in (hashes or {}).items():
        digest = archive.clip_hash(locate(archive, folder, name))
        if digest != expected:
            raise DataError(
                f"{path}: clip {name} has sha256 {digest}, expected {expected}. {remedy}"
            )


def _choose(
    archive: Archive,
    members: dict[str, zipfile.ZipInfo],
    hashes: dict[str, str],
    path: Path,
    remedy: str,
) -> dict[str, zipfile.ZipInfo]:
    """Choose the clips wanted and the READMEs from what a zip holds."""
    chosen, missing = {}, []
    for name in hashes:
        others = [str(Path(name).with_suffix(ending)) for ending in archive.endings]
        found = next((other for other in (name, *others) if other in members), None)
        if found is None:
            missing.append(name)
        else:
            chosen[found] = members[found]
    if missing:
        more = f" and {len(missing) - 1} more clips" if len(missing) > 1 else ""
        raise DataError(f"{path}: does not hold {missing[0]}{more}. {remedy}")
    readmes = {name: member for name, member in members.items() if "README" in Path(name).name}
    return readmes | chosen


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Return a zip's files below its own folder, by name; refuse it if any name is unsafe."""
    members = {}
    for info in archive.infolist():
        # orig_filename is the name as stored; zipfile has already altered the other one.
        name = info.orig_filename
        parts = re.split(r"[/\\]", name)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name:
            raise DataError(
                f"{path}: holds the name {name!r}, which leads outside its folder; nothing was "
                "unpacked. Get the archive from its publisher"
            )
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(
                f"{path}: {name!r} is a link or special file; nothing was unpacked. "
                "Get the archive from its publisher"
            )
        if info.is_dir() or parts[0] != path.stem:
            continue
        below = "/".join(parts[1:])
        if below in members:
            raise DataError(f"{path}: holds {below} twice. Get the archive from its publisher")
        members[below] = info
    return members


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as file:
        while block := source.read(1 << 20):
            file.write(block)


def _in_place(archive: Archive, folder: Path, hashes: dict[str, str] | None) -> bool:
    """Say whether a folder holds every file wanted, unchanged.

    Files whose size and time of last change are those in the marker count as unchanged; if any
    differs (or the folder was put there by hand), all are hashed again.
    """
    if not folder.is_dir():
        return False
    if hashes is None:
        return True
    if not all(locate(archive, folder, name).is_file() for name in hashes):
        return False
    # Compared as text: a marker that is damaged differs, and is written anew.
    marker = folder / _MARKER
    if marker.is_file() and marker.read_bytes() == _fingerprint(archive, folder, hashes):
        return True
    for name, expected in hashes.items():
        if archive.clip_hash(locate(archive, folder, name)) != expected:
            return False
    # In a folder that cannot be written, every load hashes the clips; that costs a second.
    with suppress(OSError):
        _write_marker(archive, folder, hashes)
    return True


def _fingerprint(archive: Archive, folder: Path, hashes: dict[str, str]) -> bytes:
    """Return what the marker holds: hash wanted, size and time of last change of each file."""
    lines = []
    for name, expected in sorted(hashes.items()):
        found = locate(archive, folder, name).stat()
        lines.append(f"{expected} {found.st_size} {found.st_mtime_ns} {name}\n")
    return "".join(lines).encode()


def _write_marker(archive: Archive, folder: Path, hashes: dict[str, str]) -> None:
    (folder / _MARKER).write_bytes(_fingerprint(archive, folder, hashes))
