"""The data sets there are, and `load`, the one way to their clip tables.

A data set is a module of this folder with a `DATASET` that describes it and a function
`load(root)`. To add one, write the module and name it in `NAMES`.
"""

from __future__ import annotations

import importlib
import os
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from freesound_tagging.errors import DataError

if TYPE_CHECKING:  # names are checked before anything slow is imported
    import pandas as pd

    from freesound_tagging.sounds.archives import Dataset

NAMES = ("microcalls", "esc10", "fsdd", "insectset32", "fsdkaggle2018")


def is_table(dataset: str) -> bool:
    """Say whether a data set is named by the path of a table of one's own."""
    return dataset.lower().endswith(".csv")


def check_dataset(dataset: str) -> None:
    """Raise `DataError` for an unknown name, or a table with the name of a data set."""
    known = ", ".join(NAMES)
    if not is_table(dataset) and dataset not in NAMES:
        raise DataError(f"unknown DATASET {dataset!r}; legal are {known}, or path/to/table.csv")
    if is_table(dataset) and Path(dataset).stem in NAMES:
        raise DataError(
            f"{dataset}: runs are kept under a table's name, which cannot be one of {known}"
        )


def describe(name: str) -> Dataset:
    """Return licence, citation and archives of a data set."""
    return _module(name).DATASET


def load(
    name: str | os.PathLike[str], root: str | os.PathLike[str] = "data/raw", **options: object
) -> pd.DataFrame:
    """List the clips of a data set, fetching, verifying and unpacking them where needed.

    A name is one of `NAMES`, or the path of a table of your own, see `tables.read_table`; ``root``
    holds, or will hold, one folder for each named data set; ``options`` are for "microcalls", see
    `microcalls.load`. Returns one row a clip, index `clip_id` (unique str, sorted), with columns:

    - path (str): of the sound file; relative where `root` (or the table's path) is relative.
    - label (str): the class.
    - fold (int): number of the cross-validation fold, from 0; -1 for test clips, which have none.
    - split (str): "train" or "test".
    - verified (bool): whether a person checked the label.
    - group (str): the source recording; never crosses folds.

    A `DataError` names the file, line or setting and says what is legal.
    """
    name = os.fspath(name)
    if is_table(name):
        from freesound_tagging.sounds.tables import read_table

        return read_table(name)
    return _module(name).load(Path(root), **options)


def load_at_hand(name: str, root: str | os.PathLike[str], **options: object) -> pd.DataFrame | None:
    """As `load`; None where it would have to be downloaded, or, with a warning, is broken."""
    mirror = os.environ.get("DATA_MIRROR")
    for archive in describe(name).archives:
        is_mirrored = mirror and Path(mirror, archive.file).exists()
        if not (is_mirrored or Path(root, archive.folder).exists()):
            return None
    try:
        return load(name, root, **options)
    except DataError as error:
        warnings.warn(f"{name} is left out: {error}", stacklevel=2)
        return None


def _module(name: str) -> ModuleType:
    check_dataset(name)
    return importlib.import_module(f"freesound_tagging.sounds.{name}")
