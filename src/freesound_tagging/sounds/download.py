"""One file over HTTP: taken up where it broke off, verified before it gets its final name."""

import sys
import time
from importlib.metadata import version
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError
from tqdm import tqdm
from urllib3.util import Retry

from freesound_tagging.errors import DataError
from freesound_tagging.files import check_room

TRIES = 7  # in a row that bring nothing new; a long download over a bad line breaks off often
PAUSE = 1.0  # seconds before the second try in a row; before each further one it doubles
TIMEOUTS = (15.0, 60.0)  # seconds to wait for a connection, and for the next bytes
BLOCK = 1 << 15  # bytes written at a time, and the most that a broken connection loses
# A server that is busy is asked again, when it says or after a pause.
RETRY = Retry(total=5, backoff_factor=2, status_forcelist=(429, 500, 502, 503, 504))


def download_file(url: str, target: Path, *, md5: str = "", progress: bool = True) -> Path:
    """Download a file, unless it is there already.

    What has arrived is kept in ``.NAME.part`` beside the target, whatever stops the program, and
    the next call goes on from there (HTTP ``Range``, RFC 9110).

    The target never holds a part of the file, nor, where ``md5`` is given, one with another hash.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Two runs that append to one partial file would spoil it: the second waits.
        with FileLock(target.with_name(f".{target.name}.lock")):
            if target.exists() and (not md5 or _md5(target) == md5):
                return target
            for _ in range(2):
                _complete(url, part, target.name, progress)
                found = _md5(part)
                if md5 in ("", found):
                    return part.replace(target)
                part.unlink()  # of a wrong file no byte can be trusted
            reason = f"its md5 is {found}, not {md5}, twice"
    except KeyboardInterrupt:
        tqdm.write(f"{target.name}: stopped; run again to go on", file=sys.stderr)
        raise
    except requests.RequestException as error:
        reason = str(error)
    except OSError as error:
        raise DataError(
            f"{target}: cannot be written ({error}). Make room, or set WORK_FOLDER to a folder on "
            "another disk; what has arrived is kept"
        ) from error
    raise DataError(
        f"{url}: could not be downloaded ({reason}). Try again later, or get {target.name} another "
        "way, put it in a folder and set DATA_MIRROR to that folder"
    )


def _md5(file: Path) -> str:
    return pooch.file_hash(str(file), alg="md5")


def _complete(url: str, part: Path, name: str, progress: bool) -> None:
    """Connect until the partial file is whole."""
    tries = TRIES
    with requests.Session() as session:
        for scheme in ("http://", "https://"):
            session.mount(scheme, HTTPAdapter(max_retries=RETRY))
        # Zenodo turns away requests that do not say who they are.
        session.headers["User-Agent"] = f"freesound-tagging/{version('freesound-tagging')}"
        session.headers["Accept-Encoding"] = "identity"  # else lengths are not those of the file
        while True:
            start = _size(part)
            try:
                return _connect(session, url, part, name, progress)
            except (requests.ConnectionError, requests.Timeout, ChunkedEncodingError) as error:
                tries = TRIES if _size(part) > start else tries - 1
                if not tries:
                    raise
                tqdm.write(f"{name}: the connection broke ({error}); it is tried again", sys.stderr)
                time.sleep(PAUSE * 2 ** (TRIES - tries))


def _connect(session: requests.Session, url: str, part: Path, name: str, progress: bool) -> None:
    """Ask once for what the partial file lacks, and append what comes."""
    start = _size(part)
    headers = {"Range": f"bytes={start}-"} if start else {}
    with session.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
        if response.status_code == 416 and start:  # the partial file is whole, or too long
            if response.headers.get("Content-Range") != f"bytes */{start}":
                part.unlink()
                raise requests.ConnectionError("the server has no such range")
            return
        response.raise_for_status()
        if response.status_code != 206:
            start = 0  # the server ignores ranges and sends the whole
        size = int(response.headers.get("Content-Length", 0))
        check_room(part.parent, size, f"download {name}")
        bar = tqdm(
            desc=name,
            total=start + size or None,
            initial=start,
            unit="B",
            unit_scale=True,
            disable=not progress,
        )
        with bar, part.open("ab" if start else "wb", buffering=0) as file:
            for block in response.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
