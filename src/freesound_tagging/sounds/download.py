"""One file over HTTP: resumed after a break, retried, verified before it gets its final name."""

import os
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from tqdm import tqdm
from urllib3.exceptions import MaxRetryError
from urllib3.util import Retry

from freesound_tagging.errors import DataError
from freesound_tagging.files import check_room

RETRY = Retry(
    total=6,
    backoff_factor=2,  # 0, 4, 8, 16, 32 and 64 seconds before each further try
    status_forcelist=(408, 425, 429, 500, 502, 503, 504),  # busy or down; any other is final
    respect_retry_after_header=True,
    retry_after_max=600,
)
"""Further tries, for a connection and then for its content; a try that brings more is not counted:
a long download over a bad line breaks off often, and each time it is further on."""

TIMEOUTS = (15.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes: a server that stalls has broken off."""

BLOCK = 1 << 15
"""Bytes written at a time, and the most that a broken connection loses."""

try:
    _VERSION = version("freesound-tagging")
except PackageNotFoundError:  # run from a checkout that is not installed
    _VERSION = "unknown"

# Zenodo turns away requests that do not say who they are.
USER_AGENT = f"freesound-tagging/{_VERSION} (python-requests/{requests.__version__})"


def download_file(
    url: str, target: str | os.PathLike[str], *, md5: str = "", progress: bool = True
) -> Path:
    """Download a file, unless it is there already.

    What has arrived is kept in ``.NAME.part`` beside the target, whatever stops the program, and
    the next call goes on from there (HTTP ``Range``, RFC 9110). Without a hash nothing could tell
    two versions of a file stuck together from one, so then every connection starts over.

    Parameters
    ----------
    url : http or https.
    target : the file's final name, which is returned. It never holds a part of the file, nor one
        with another hash.
    md5 : expected hash in hex; "" where none is known.
    progress : show a progress bar with rate and time left.

    Raises
    ------
    DataError
        The server does not have the file; or fails in every try; or sends one with another hash,
        twice; or the disk has no room. The message says what to do.
    """
    target = Path(target)
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Two runs that append to one partial file would spoil it: the second waits.
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.exists() and _matches(target, md5):
                return target
            for _ in range(2):
                _complete(url, part, target.name, bool(md5), progress)
                if _matches(part, md5):
                    part.replace(target)
                    return target
                found = pooch.file_hash(str(part), alg="md5")
                part.unlink()  # of a wrong file no byte can be trusted
                tqdm.write(f"{target.name}: its md5 is {found}, not {md5}", file=sys.stderr)
    except KeyboardInterrupt:
        tqdm.write(f"{target.name}: stopped; run again to go on", file=sys.stderr)
        raise
    except requests.RequestException as error:
        raise DataError(_failure(url, target.name, error)) from error
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error}). Make room, or set WORK_FOLDER to a folder on "
            "another disk; what has arrived is kept"
        ) from error
    raise DataError(_failure(url, target.name, f"its md5 is {found}, not {md5}, twice"))


def _matches(file: Path, md5: str) -> bool:
    return not md5 or pooch.file_hash(str(file), alg="md5") == md5


def _complete(url: str, part: Path, name: str, resumable: bool, progress: bool) -> None:
    """Connect until the partial file is whole."""
    retries, furthest = RETRY, _size(part)
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=RETRY))
        while True:
            if not resumable:
                part.unlink(missing_ok=True)
            try:
                return _connect(session, url, part, name, progress)
            except _BrokenError as broken:
                if _size(part) > furthest:
                    retries, furthest = RETRY, _size(part)
                try:
                    retries = retries.increment("GET", url, error=broken)
                except MaxRetryError:
                    kept = f"; the {furthest / 1e6:,.1f} MB that arrived are kept"
                    reason = f"{RETRY.total + 1} tries in vain, the last: {broken}{kept}"
                    raise DataError(_failure(url, name, reason)) from broken
                tqdm.write(f"{name}: {broken}; it is tried again", file=sys.stderr)
                retries.sleep()


class _BrokenError(Exception):
    """A connection that brought less than the whole."""


def _connect(session: requests.Session, url: str, part: Path, name: str, progress: bool) -> None:
    """Ask once for what the partial file lacks and append what comes."""
    start = _size(part)
    # Unpacked on the way, lengths would not be those of the file.
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
        given = response.headers.get("Content-Range", "")  # bytes FIRST-LAST/TOTAL
        if response.status_code == 416 and start:
            # Nothing comes after the last byte: the file was whole, or is not this one.
            if given.rpartition("/")[2] == str(start):
                return
            part.unlink()
            raise _BrokenError("the server has no such range")
        response.raise_for_status()
        if response.status_code == 206 and not given.startswith(f"bytes {start}-"):
            part.unlink()
            raise _BrokenError("the server sent another range")
        if response.status_code != 206:
            start = 0  # the server ignores ranges and sends the whole
        size = int(response.headers.get("Content-Length", 0))
        # Starting over gives back what the partial file takes.
        check_room(part.parent, size - (0 if start else _size(part)), f"download {name}")
        bar = tqdm(
            desc=name,
            total=start + size or None,
            initial=start,
            unit="B",
            unit_scale=True,
            disable=not progress,
        )
        with bar, part.open("ab" if start else "wb") as file:
            blocks = response.iter_content(BLOCK)
            while True:
                try:
                    block = next(blocks, b"")
                except requests.RequestException as error:
                    raise _BrokenError(f"the connection broke ({error})") from error
                if not block:
                    break
                file.write(block)
                file.flush()
                bar.update(len(block))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _failure(url: str, name: str, reason: object) -> str:
    return (
        f"{url}: could not be downloaded ({reason}). Try again later, or get {name} another way, "
        "put it in a folder and set DATA_MIRROR to that folder"
    )
