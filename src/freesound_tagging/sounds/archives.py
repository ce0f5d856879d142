"""Archives of sounds: find or download, unpack, verify. No half data set is ever seen."""

from __future__ import annotations

import os
import shutil
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pooch
import requests
from requests.exceptions import ChunkedEncodingError
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.files import check_room, hold_alone
from freesound_tagging.sounds.tables import read_rows

MANIFESTS = Path(__file__).resolve().parents[3] / "data"
"""Committed beside the code: what each clip of a data set must be, data/NAME.csv."""

TRIES = 7  # in a row that bring nothing new; a long download over a bad line breaks off often
PAUSE = 1.0  # seconds before the second try in a row; before each further one it doubles
TIMEOUTS = (15.0, 60.0)  # seconds to wait for a connection, and for the next bytes
BLOCK = 1 << 15  # bytes written at a time, and the most that a broken connection loses


@dataclass(frozen=True)
class Archive:
    """One zip file. Inside it, everything lies in a folder of the zip's own name.

    It is called ``file`` under DATA_MIRROR and after a download, and unpacked to ``folder`` under
    that of all data sets. ``md5`` is that of the whole zip; "" where each clip is verified by a
    manifest, which holds its ``clip_hash``.
    """

    file: str
    url: str
    folder: str
    md5: str = ""
    clip_hash: Callable[[Path], str] = pooch.file_hash  # sha256


@dataclass(frozen=True)
class Dataset:
    """What there is to know about a data set."""

    licence: str
    citation: str
    archives: tuple[Archive, ...] = ()


def github_archive(repository: str, commit: str, folder: str, **more) -> Archive:
    """Declare the zip that GitHub makes of a commit; a repository is OWNER/NAME."""
    url = f"https://github.com/{repository}/archive/{commit}.zip"
    return Archive(f"{repository.partition('/')[2]}-{commit}.zip", url, folder, **more)


def read_manifest(name: str, key: str = "file") -> pd.DataFrame:
    """Return the committed list of a data set's clips, data/NAME.csv, by file name."""
    return read_rows(MANIFESTS / f"{name}.csv", (key,)).set_index(key).sort_index()


def locate(folder: Path, name: str) -> Path:
    """Return the path of a clip, which a mirror may have re-packed as FLAC."""
    path = folder / name
    return path if path.is_file() else path.with_suffix(".flac")


def fetch(archive: Archive, root: Path, hashes: Mapping[str, str] | None = None) -> Path:
    """Make sure that an archive's content is in place under ``root``, and return its folder.

    ``hashes`` are the `Archive.clip_hash` of each clip, by name; a folder appears once all are
    right. A folder that is there is taken as it is. A `DataError` says what cannot be had or used.
    """
    folder = root / archive.folder
    if folder.is_dir():
        return folder
    with hold_alone(root / "downloads", f"fetching {archive.file}"):
        if folder.is_dir():  # another run did it
            return folder
        path = find_archive(archive, root)
        staging = folder.with_name(f".{folder.name}.part")
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        try:
            with zipfile.ZipFile(path) as zipped:  # keeps names inside the folder, makes no links
                needed = sum(member.file_size for member in zipped.infolist())
                check_room(staging, needed, f"unpack {path.name}")
                zipped.extractall(staging)
            for name, expected in (hashes or {}).items():
                clip = locate(staging / path.stem, name)
                found = archive.clip_hash(clip) if clip.is_file() else "none: it is missing"
                if found != expected:
                    raise zipfile.BadZipFile(f"{name} has sha256 {found}, expected {expected}")
            return (staging / path.stem).replace(folder)
        # soundfile's errors are RuntimeErrors, as those of zips with a password.
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, FileNotFoundError) as error:
            fault = f"{path}: is truncated, damaged or another zip ({error})"
            raise DataError(f"{fault}. Delete it and fetch it again") from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def find_archive(archive: Archive, root: Path) -> Path:
    """Find an archive under DATA_MIRROR, then in ``root/downloads``, or download it to there.

    A `DataError` where that mirror is no folder, or as `download_file`.
    """
    mirror = os.environ.get("DATA_MIRROR", "")
    if mirror and not Path(mirror).is_dir():
        raise DataError(
            f"DATA_MIRROR={mirror}: there is no such folder; name one that holds {archive.file}, "
            "or unset it to download"
        )
    path = Path(mirror, archive.file)
    if not (mirror and path.is_file()):
        return download_file(archive.url, root / "downloads" / archive.file, md5=archive.md5)
    if archive.md5 and pooch.file_hash(path, "md5") != archive.md5:
        warnings.warn(
            f"{path}: its md5 is not the published {archive.md5}; used all the same, since mirrors "
            "may re-pack. If it came from Zenodo unchanged, fetch it again",
            stacklevel=2,
        )
    return path


def download_file(url: str, target: Path, md5: str = "") -> Path:
    """Download a file, unless it is there already.

    What has arrived is kept in ``.NAME.part`` beside the target, whatever stops the program, and
    the next call goes on from there. The target is whole and, where ``md5`` is given, right. A
    `DataError` says why it cannot be had, and where to put the file by hand.
    """
    part = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and md5 in ("", pooch.file_hash(target, "md5")):
        return target
    try:
        _complete(url, part)
    except requests.RequestException as error:
        reason = str(error)
    else:
        found = pooch.file_hash(part, "md5")
        if md5 in ("", found):
            return part.replace(target)
        part.unlink()  # of a wrong file no byte can be trusted
        reason = f"its md5 is {found}, not {md5}"
    raise DataError(
        f"{url}: could not be downloaded ({reason}). Try again later, or get {target.name} another "
        "way, put it in a folder and set DATA_MIRROR to that folder"
    )


def _complete(url: str, part: Path) -> None:
    """Connect until the partial file is whole."""
    tries, size = TRIES, -1
    while True:
        part.touch()
        tries, size = TRIES if part.stat().st_size > size else tries - 1, part.stat().st_size
        try:
            return _connect(url, part)
        except (requests.ConnectionError, requests.Timeout, ChunkedEncodingError) as error:
            if not tries:
                raise
            tqdm.write(f"{part}: the connection broke ({error}); it is tried again")
            time.sleep(PAUSE * 2 ** (TRIES - tries))


def _connect(url: str, part: Path) -> None:
    """Ask once for what the partial file lacks, and append what comes."""
    start = part.stat().st_size
    headers = {
        # Zenodo turns away requests that do not say who they are.
        "User-Agent": f"freesound-tagging/{version('freesound-tagging')}",
        "Accept-Encoding": "identity",  # else lengths are not those of the file
        "Range": f"bytes={start}-",
    }
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
        if response.status_code == 416:  # the partial file is whole, or too long
            return
        if response.status_code in (429, 500, 502, 503, 504):  # busy
            raise requests.ConnectionError(f"the server answers {response.status_code}")
        response.raise_for_status()
        if response.status_code != 206:
            start = 0  # the server ignores ranges and sends the whole
        size = int(response.headers.get("Content-Length", 0))
        check_room(part.parent, size, f"download {part}")
        name = part.stem[1:]  # of the file that it will be
        bar = tqdm(desc=name, total=start + size, initial=start, unit="B", unit_scale=True)
        with bar, part.open("ab" if start else "wb", buffering=0) as file:
            for block in response.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
