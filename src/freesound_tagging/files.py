"""Files that are there whole or not at all, folders held alone, room on the disk."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from tqdm import tqdm

from freesound_tagging.errors import DataError


@contextmanager
def hold_alone(folder: Path, doing: str) -> Iterator[None]:
    """Hold a folder alone; where another program holds it, say what it is doing and wait for it.

    A program that is killed holds nothing any more.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(blocking=False)
    except Timeout:
        tqdm.write(f"{folder}: another run is {doing}; this one waits for it")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file so that it is there whole or not at all, whatever stops the program.

    Raises
    ------
    OSError
        Where it cannot be written: no room, no such folder, no permission. The message names the
        file, and no part of it is left.
    """
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        advice = "; what is finished is kept: make room and run again" if full else ""
        raise OSError(error.errno, f"{error.strerror}{advice}", str(file)) from error
    finally:
        temporary.unlink(missing_ok=True)  # gone already where all went well


def check_room(folder: Path, needed: int, purpose: str) -> None:
    """Raise unless the disk of ``folder`` (which exists) has ``needed`` bytes free.

    Raises
    ------
    DataError
        It says how much is free and needed, and what to do.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder}: no room to {purpose}: {needed / 1e6:,.1f} MB are needed, "
            f"{free / 1e6:,.1f} MB are free. Make room, or set WORK_FOLDER to a folder on another "
            "disk"
        )
