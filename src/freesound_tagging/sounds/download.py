"""One file over HTTP: taken up where it broke off, verified before it gets its final name."""

import time
from importlib.metadata import version
from pathlib import Path

import pooch
import requests
from filelock import FileLock
from requests.exceptions import ChunkedEncodingError
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.files import check_room

TRIES = 7  # in a row that bring nothing new; a long download over a bad line breaks off often
PAUSE = 1.0  # seconds before the second try in a row; before each further one it doubles
TIMEOUTS = (15.0, 60.0)  # seconds to wait for a connection, and for the next bytes
BLOCK = 1 << 15  # bytes written at a time, and the most that a broken connection loses
BUSY = (429, 500, 502, 503, 504)  # answers of a server that is asked again
BROKEN = (requests.ConnectionError, requests.Timeout, ChunkedEncodingError)


def download_file(url: str, target: Path, md5: str = "") -> Path:
    """Download a file, unless it is there already.

    What has arrived is kept in ``.NAME.part`` beside the target, whatever stops the program, and
    the next call goes on from there (HTTP ``Range``, RFC 9110).

    The target never holds a part of the file, nor, where ``md5`` is given, one with another hash.
    """
    part = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    # Two runs that append to one partial file would spoil it: the second waits.
    with FileLock(target.with_name(f".{target.name}.lock")):
        if target.exists() and md5 in ("", _md5(target)):
            return target
        try:
            _complete(url, part, target.name)
        except requests.RequestException as error:
            reason = str(error)
        else:
            found = _md5(part)
            if md5 in ("", found):
                return part.replace(target)
            part.unlink()  # of a wrong file no byte can be trusted
            reason = f"its md5 is {found}, not {md5}"
    raise DataError(
        f"{url}: could not be downloaded ({reason}). Try again later, or get {target.name} another "
        "way, put it in a folder and set DATA_MIRROR to that folder"
    )


def _md5(file: Path) -> str:
    return pooch.file_hash(str(file), alg="md5")


def _complete(url: str, part: Path, name: str) -> None:
    """Connect until the partial file is whole."""
    tries, size = TRIES, -1
    while True:
        part.touch()
        tries, size = TRIES if part.stat().st_size > size else tries - 1, part.stat().st_size
        try:
            return _connect(url, part, name)
        except BROKEN as error:
            if not tries:
                raise
            tqdm.write(f"{name}: the connection broke ({error}); it is tried again")
            time.sleep(PAUSE * 2 ** (TRIES - tries))


def _connect(url: str, part: Path, name: str) -> None:
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
        if response.status_code in BUSY:
            raise requests.ConnectionError(f"the server answers {response.status_code}")
        response.raise_for_status()
        if response.status_code != 206:
            start = 0  # the server ignores ranges and sends the whole
        size = int(response.headers.get("Content-Length", 0))
        check_room(part.parent, size, f"download {name}")
        bar = tqdm(desc=name, total=start + size, initial=start, unit="B", unit_scale=True)
        with bar, part.open("ab" if start else "wb", buffering=0) as file:
            for block in response.iter_content(BLOCK):
                file.write(block)
                bar.update(len(block))
