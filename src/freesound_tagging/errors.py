"""Bad input: data that cannot be used, be it a table, an archive or a sound file; unknown names."""

from collections.abc import Mapping
from typing import Any


class DataError(ValueError):
    """Bad input: the message names the file, line or setting and says what is legal."""


def look_up(kind: str, name: str, known: Mapping[str, Any]) -> Any:
    """Return the entry of that name; a ValueError about an unknown one lists the known ones."""
    if name not in known:
        raise ValueError(f"unknown {kind} {name!r}; the known ones are: {', '.join(known)}")
    return known[name]
