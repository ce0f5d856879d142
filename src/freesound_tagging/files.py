"""Files that are there whole or not at all, folders held alone, room on the disk."""

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
    """Hold a folder alone; where another program holds it, say what it is doing and wait for it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")  # a program that is killed holds nothing any more
    try:
        held = lock.acquire(blocking=False)
    except Timeout:
        tqdm.write(f"{folder}: another run is {doing}; this one waits for it")
        held = lock.acquire()
    with held:
        yield


def write_atomically(file: Path, content: bytes) -> None:
    """Write a file (of a link, what it points to) whole or not at all, whatever stops this."""
    file = Path(os.path.realpath(file))
    temporary = file.with_name(f".{uuid.uuid4().hex}{file.suffix}.part")
    try:
        with temporary.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)  # gone already where all went well


def check_room(folder: Path, needed: int, purpose: str) -> None:
    """Raise `DataError` unless the disk of ``folder``, which exists, has ``needed`` bytes free."""
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder}: no room to {purpose}: {needed / 1e6:,.1f} MB are needed, {free / 1e6:,.1f} "
            "MB are free. Make room, or set WORK_FOLDER to a folder on another disk"
        )
