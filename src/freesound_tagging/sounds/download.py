"""One file over HTTP: resumed after a break, retried, verified before it gets its final name.

pooch is the frame: it skips what is there already, verifies the hash and moves the file in place.
What it lacks is in the downloader given to it: going on where a broken connection left off.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pooch
import requests
from filelock import FileLock, Timeout
from tqdm import tqdm

from freesound_tagging.errors import DataError
from freesound_tagging.files import check_room

PAUSES = (2.0, 5.0, 15.0, 40.0, 120.0)
"""Seconds before each further try. After the last one the download has failed."""

PROGRESS = 1 << 20
"""Bytes that a connection must bring for the pauses to start anew: a long download over a bad line
breaks off often, and each time it is further on."""

TIMEOUTS = (15.0, 60.0)
"""Seconds to wait for a connection, and for the next bytes: a server that stalls has broken off."""

LONGEST_PAUSE = 600.0
"""Seconds that a server may ask for between two tries (``Retry-After``)."""

BLOCK = 1 << 15
"""Bytes written at a time, and the most that a broken connection loses."""

TRANSIENT = (408, 425, 429, 500, 502, 503, 504)
"""Answers of a server that is busy or down; any other error is final."""

try:
    _VERSION = version("freesound-tagging")
except PackageNotFoundError:  # run from a checkout that is not installed
    _VERSION = "unknown"

# Zenodo turns away requests that do not say who they are.
USER_AGENT = f"freesound-tagging/{_VERSION} (python-requests/{requests.__version__}, pooch)"


class _BrokenError(Exception):
    """A connection that brought less than the whole; ``pause``: seconds the server asked for."""

    def __init__(self, reason: object, pause: float = 0.0):
        super().__init__(str(reason))
        self.pause = pause


def fetch(
    url: str,
    target: str | os.PathLike[str],
    *,
    md5: str = "",
    sha256: str = "",
    size: int | None = None,
    progress: bool = True,
) -> Path:
    """Download a file, unless it is there already.

    What has arrived is kept in ``.NAME.part`` beside the target, whatever stops the program, and
    the next call goes on from there (HTTP ``Range``, RFC 9110). Without a hash nothing could tell
    two versions of a file stuck together from one, so then every connection starts over.

    Parameters
    ----------
    url : str
        http or https.
    target : path
        The file's final name. It never holds a part of the file, nor one with another hash.
    md5, sha256 : str
        Expected hash in hex; "" where none is known. One of the two at most.
    size : int, optional
        Expected bytes of the whole, where known.
    progress : bool
        Show a progress bar with rate and time left.

    Returns
    -------
    Path
        The target.

    Raises
    ------
    DataError
        The server does not have the file; or fails in every try; or sends one with another hash,
        twice; or the disk has no room. The message says what to do.
    """
    target = Path(target)
    if md5 and sha256:
        raise ValueError("fetch takes md5 or sha256, not both")
    known_hash = f"md5:{md5}" if md5 else f"sha256:{sha256}" if sha256 else None
    part = _part(target)

    def resume(url: str, output_file: str, _: object) -> None:
        _complete(url, target, size, resumable=known_hash is not None, progress=progress)
        _hand_over(part, Path(output_file))

    # With no hash to compare, pooch logs one and proposes to use it, which would only confuse.
    pooch.get_logger().setLevel("WARNING")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target):
            for last in (False, True):
                try:
                    pooch.retrieve(
                        url, known_hash, fname=target.name, path=target.parent, downloader=resume
                    )
                except DataError:  # a ValueError too, but one that says all there is to say
                    raise
                except KeyboardInterrupt:
                    if known_hash and part.exists():
                        kept = _megabytes(_size(part))
                        _tell(f"{target.name}: stopped; run again to go on after {kept}")
                    raise
                except ValueError as error:
                    # Of a wrong file no byte can be trusted. pooch says what it expected and got.
                    part.unlink(missing_ok=True)
                    reason = str(error).partition(". Deleted")[0]
                    if last:
                        raise DataError(_failure(url, target, f"{reason}, twice")) from error
                    _tell(f"{target.name}: {reason}; downloaded once more from the start")
                else:
                    part.unlink(missing_ok=True)
                    return target
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error})") from error
    raise AssertionError("not reached")


def _part(target: Path) -> Path:
    """Return the name under which what has arrived of a file is kept."""
    return target.with_name(f".{target.name}.part")


def _complete(url: str, target: Path, size: int | None, *, resumable: bool, progress: bool) -> None:
    """Connect until the partial file is whole, with growing pauses between tries in vain."""
    part = _part(target)
    furthest = _size(part)
    tries = 0
    while True:
        if not resumable:
            part.unlink(missing_ok=True)
        try:
            _connect(url, target, size, progress)
            return
        except _BrokenError as broken:
            if _size(part) >= furthest + PROGRESS:
                tries = 0
            furthest = max(furthest, _size(part))
            if tries == len(PAUSES):
                reason = f"{tries + 1} tries in vain, the last: {broken}"
                if resumable and furthest:
                    reason += f"; the {_megabytes(_size(part))} that arrived are kept"
                raise DataError(_failure(url, target, reason)) from broken
            pause = max(PAUSES[tries], broken.pause)
            tries += 1
            _tell(
                f"{target.name}: {broken}; {_megabytes(_size(part))} have arrived, "
                f"next try in {pause:.0f} s"
            )
        time.sleep(pause)


def _connect(url: str, target: Path, size: int | None, progress: bool) -> None:
    """Ask once for what the partial file lacks and append what comes.

    Raises
    ------
    _BrokenError
        Less came than the whole; what came is in the file.
    DataError
        The server will not give the file, or the disk has no room for it.
    """
    part = _part(target)
    start = _size(part)
    # Unpacked on the way, lengths would not be those of the file.
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUTS) as response:
            if response.status_code == 416 and start:
                # Nothing comes after the last byte: the file was whole, or is not this one.
                if _total(response) == start:
                    return
                part.unlink()
                raise _BrokenError("the server has no such range; starting over")
            if response.status_code in TRANSIENT:
                reason = f"the server answers {response.status_code} {response.reason}"
                raise _BrokenError(reason, _asked_pause(response))
            if not response.ok:
                reason = f"the server answers {response.status_code} {response.reason}"
                raise DataError(_failure(url, target, reason))
            if response.status_code == 206:
                if _first_byte(response) != start:
                    part.unlink()
                    raise _BrokenError("the server sent another range; starting over")
            else:
                start = 0  # the server ignores ranges and sends the whole
            total = _total(response)
            # Starting over gives back what the partial file takes.
            missing = (total or size or 0) - (start or _size(part))
            check_room(target.parent, missing, f"download {target.name}")
            bar = tqdm(
                desc=target.name,
                total=total or size,
                initial=start,
                unit="B",
                unit_scale=True,
                disable=not progress,
            )
            with bar, part.open("ab" if start else "wb") as file:
                for block in response.iter_content(BLOCK):
                    _append(file, block)
                    bar.update(len(block))
    except requests.RequestException as error:
        raise _BrokenError(f"the connection broke ({_cause(error)})") from error
    # What a server says of the length may be wrong; what is declared here is not.
    if (size or total) and _size(part) < (size or total):
        raise _BrokenError(f"the connection ended after {_size(part)} of {size or total} bytes")


def _append(file, block: bytes) -> None:
    """Write a block; requests' errors are OSErrors too, so a full disk is told apart here."""
    try:
        file.write(block)
        file.flush()
    except OSError as error:
        raise DataError(
            f"{file.name}: cannot be written ({error}). Make room, or set WORK_FOLDER to a folder "
            "on another disk; what has arrived is kept"
        ) from error


def _total(response: requests.Response) -> int | None:
    """Return the size of the whole file in bytes, as far as the server says."""
    length = response.headers.get("Content-Length", "")
    if response.status_code in (206, 416):
        length = response.headers.get("Content-Range", "").rpartition("/")[2]
    return int(length) if length.isdecimal() else None


def _first_byte(response: requests.Response) -> int | None:
    """Return where a partial answer starts: ``Content-Range: bytes START-END/TOTAL``."""
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else None


def _asked_pause(response: requests.Response) -> float:
    """Return the seconds of ``Retry-After``; 0 without one, or where it is a date."""
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), LONGEST_PAUSE) if asked.isdecimal() else 0.0


def _hand_over(part: Path, output_file: Path) -> None:
    """Give pooch the whole file, keeping the partial one's name until the hash is verified.

    A link costs no room, and a Ctrl-C during verification, when pooch deletes its own, costs no
    second download.
    """
    output_file.unlink(missing_ok=True)
    try:
        os.link(part, output_file)
    except OSError:  # some disks know no links
        part.replace(output_file)


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    """Hold a download alone: two runs that append to one partial file would spoil it."""
    lock = FileLock(target.with_name(f".{target.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        _tell(f"{target}: another run is downloading this file; this one waits for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _failure(url: str, target: Path, reason: str) -> str:
    return (
        f"{url}: could not be downloaded ({reason}). Try again later, or get "
        f"{target.name} another way, put it in a folder and set DATA_MIRROR to that folder"
    )


def _cause(error: BaseException) -> str:
    """Return the innermost of a chain of errors: the outer ones only wrap it."""
    while error.__cause__ or error.__context__:
        error = error.__cause__ or error.__context__
    return str(error) or type(error).__name__


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def _tell(message: str) -> None:
    tqdm.write(message, file=sys.stderr)
