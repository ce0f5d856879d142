"""From a CSV to a clip table: read rows, find the sounds, refuse doubles, deal folds.

Folds and labels depend on file names alone, never on the order of rows.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import pooch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from freesound_tagging.errors import DataError

COLUMNS = ("path", "label", "fold", "split", "verified", "group")
N_FOLDS = 5  # where a table gives none
SEEDS = 20  # tried, one after the other
NO_FOLD = -1  # of test clips, which take no part in cross-validation

RESERVED_LABELS = ("clip_id", "seed", "fold", "label", "group", "variant")
"""Columns that stand beside one column per class in tables of scores."""


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of your own sounds.

    Parameters
    ----------
    path : of a CSV in UTF-8 or UTF-16, separated by commas, semicolons or tabs, with a line of
        column names. Columns, in any order, others being ignored:

        - `file`: the sound file, relative to the table's folder; each once. It becomes the
          `clip_id`.
        - `label`: the class; each in at least two folds.
        - `fold` (optional): whole numbers from 0. Gaps are closed: 1, 2, 5 become 0, 1, 2. Without
          the column, `deal_folds` makes them.
        - `group` (optional): the source recording; must not cross folds. Without the column each
          file is its own. Files of equal content always count as one recording.

    Every clip has split "train" and counts as verified. A `DataError` names the table, the line and
    what is legal.
    """
    path = Path(path)
    clips = read_rows(path, ("file", "label")).filter(["file", "label", "fold", "group", "where"])
    # Tables written on Windows may hold backslashes; "./a.wav" and "a.wav" are one file.
    files = [os.path.normpath(file.replace("\\", "/")).replace(os.sep, "/") for file in clips.file]
    clips["clip_id"] = [unicodedata.normalize("NFC", file) for file in files]
    clips["path"] = [str(path.parent / file) for file in files]
    for clip, first in _doubles(clips, "clip_id"):
        raise DataError(
            f"{clip.where}: file {clip.file!r} is listed twice (also {first.where}); list each "
            "file once"
        )
    clips["path"] = find_files(clips)
    clips["inode"] = [(status.st_dev, status.st_ino) for status in map(os.stat, clips.path)]
    for clip, first in _doubles(clips, "inode"):
        raise DataError(
            f"{clip.where}: {clip.clip_id} is the same file as {first.clip_id} ({first.where}); "
            "list each sound once"
        )
    if "group" not in clips:
        clips["group"] = clips["clip_id"]
    if "fold" in clips:
        for clip in clips[~clips["fold"].str.fullmatch("[0-9]+")].itertuples():
            raise DataError(f"{clip.where}: fold is {clip.fold!r}; legal are whole numbers from 0")
        clips["fold"] = pd.factorize(clips["fold"].astype(int), sort=True)[0]
    clips["group"] = _join_copies(clips)
    if "fold" not in clips:
        clips["fold"] = deal_folds(clips)
    return as_table(clips)


def read_rows(path: Path, needed: Sequence[str], may_be_blank: Sequence[str] = ()) -> pd.DataFrame:
    """Return the rows of a CSV as strings, and in the column `where` their file and line.

    Blank lines are left out, and what a spreadsheet pads a table with. Labels and groups are tidied
    up: Unicode form NFC, no invisible characters, single blanks; a warning says what was changed.

    Columns ``needed`` must be there and, but for those in ``may_be_blank``, filled.
    """
    try:
        content = path.read_bytes()
        wide = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = content.decode("utf-16" if wide else "utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such table") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    separator = max(",;\t", key=text.lstrip().partition("\n")[0].count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True, strict=True
    )
    try:
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: is no CSV ({error})") from error
    (_, names), *lines = [line for line in lines if any(line[1])] or [(1, [])]
    names = [_tidy(name) for name in names]
    while names and not names[-1]:
        names.pop()
    missing = [name for name in needed if name not in names]
    if missing:
        raise DataError(
            f"{path}, line 1: no column {', '.join(missing)}; needed are {', '.join(needed)}, "
            f"separated by commas; found {', '.join(names) or 'none'}"
        )
    filled = list(filter(None, names))
    if len(set(filled)) < len(filled):
        raise DataError(f"{path}, line 1: a column name appears twice: {', '.join(names)}")
    rows, changed = [], []
    for line, cells in lines:
        where = f"{path}, line {line}"
        if len(cells) < len(names) or any(cells[len(names) :]):
            raise DataError(
                f"{where}: not {len(names)} fields, as in the line of column names; put a field "
                f"that holds {separator!r} in double quotes"
            )
        row = dict(zip(names, cells, strict=False)) | {"where": where}
        for name in {"label", "group"} & row.keys():
            if any(unicodedata.category(letter) == "Cc" for letter in row[name]):
                raise DataError(f"{where}: {name} {row[name]!r} holds a control character")
            if _tidy(row[name]) != row[name]:
                changed.append(f"{where}: {name} {row[name]!a} is read as {_tidy(row[name])!r}")
            row[name] = _tidy(row[name])
        for name in (*needed, "group"):
            if row.get(name) == "" and name not in may_be_blank:
                raise DataError(f"{where}: {name} is blank")
        rows.append(row)
    if not rows:
        raise DataError(f"{path}: has no rows below the line of column names")
    if changed:
        more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
        warnings.warn(f"{changed[0]}{more}", stacklevel=2)
    return pd.DataFrame(rows)


def _tidy(text: str) -> str:
    letters = unicodedata.normalize("NFC", text)
    return " ".join("".join(c for c in letters if unicodedata.category(c) != "Cf").split())


def find_files(clips: pd.DataFrame) -> list[str]:
    """Return the path of each clip's sound, perhaps in another Unicode form than the table's."""
    paths, missing = [], []
    for clip in clips.itertuples():
        forms = [clip.path, *(unicodedata.normalize(form, clip.path) for form in ("NFC", "NFD"))]
        reason = ""
        try:
            paths += [form for form in forms if Path(form).is_file()][:1]
        except OSError as error:  # no permission, or a name that no disk can hold
            reason = f" ({error.strerror})"
        if len(paths) + len(missing) == clip.Index:
            missing.append(f"{clip.where}: no file {clip.path}{reason}")
    if missing:
        more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(
            f"{'; '.join(missing[:5])}{more}. Put the files there, or take them out of the table"
        )
    return paths


def as_table(clips: pd.DataFrame) -> pd.DataFrame:
    """Check what holds of every data set, and sort by clip id.

    Of ``clips``, the columns path, label, fold and group are needed. By default clip_id is the
    file's name without its ending, split "train", verified True, and where (for errors) the path.
    """
    defaults = {
        "clip_id": [Path(path).stem for path in clips["path"]],
        "split": "train",
        "verified": True,
        "where": clips["path"],
    }
    clips = clips.assign(**{name: defaults[name] for name in defaults if name not in clips})
    clips = clips.sort_values("clip_id", ignore_index=True)
    for clip, first in _doubles(clips, "clip_id"):
        raise DataError(
            f"{clip.where}: clip {clip.clip_id!r} is listed twice (also {first.where}); list each "
            "clip once"
        )
    train = clips[clips["split"] == "train"]
    first = train.groupby("group")[["fold", "where"]].transform("first").add_prefix("first_")
    for clip in train.join(first)[train["fold"] != first["first_fold"]].itertuples():
        raise DataError(
            f"{clip.where}: group {clip.group!r} is in fold {clip.fold} here and in fold "
            f"{clip.first_fold} ({clip.first_where}); keep one source recording in one fold"
        )
    _check_labels(train)
    table = clips.set_index("clip_id")[list(COLUMNS)]
    return table.astype({"path": str, "fold": int, "verified": bool})


def _check_labels(clips: pd.DataFrame) -> None:
    if clips["label"].nunique() < 2:
        raise DataError(
            f"{clips['where'].iloc[0] if len(clips) else 'the table'}: a tagger needs two labels "
            f"or more; there is only {', '.join(map(repr, clips['label'].unique())) or 'none'}"
        )
    for _, alike in clips.groupby(clips["label"].str.casefold()):
        first, *others = alike.drop_duplicates("label").itertuples()
        for other in others:
            raise DataError(
                f"{other.where}: label {other.label!r} differs from {first.label!r} "
                f"({first.where}) in upper and lower case alone; write them alike"
            )
    for label, own in clips.groupby("label"):
        where = own["where"].iloc[0]
        if label in RESERVED_LABELS:
            raise DataError(
                f"{where}: {label!r} cannot be a label: it names a column of the results (so do "
                f"{', '.join(RESERVED_LABELS)})"
            )
        if own["fold"].nunique() < 2:
            found = "is seen in one fold only"
            if len(own) == 1:
                found = "has one clip only"
            elif own["group"].nunique() == 1:
                found = f"lies in one recording only, {own['group'].iloc[0]!r}"
            raise DataError(
                f"{where}: label {label!r} {found}, so it could not be both learned and tested; a "
                "label needs clips of at least two source recordings, in at least two folds"
            )


def _doubles(clips: pd.DataFrame, column: str) -> Iterator[tuple]:
    """Yield each clip whose value was seen before, and the clip that has it first."""
    for index in clips.index[clips[column].duplicated()]:
        same = clips[clips[column] == clips.at[index, column]]
        yield next(clips.loc[[index]].itertuples()), next(same.itertuples())


def _join_copies(clips: pd.DataFrame) -> pd.Series:
    """Return each clip's group, one for all that hold the same sound: no fold divides them."""
    sizes = pd.Series([Path(path).stat().st_size for path in clips["path"]], clips.index)
    content = clips["path"].copy()
    for index in clips.index[sizes.duplicated(keep=False)]:
        with suppress(OSError):  # no permission: reported with all that cannot be read
            content[index] = pooch.file_hash(clips.at[index, "path"], alg="sha256")
    doubtful = []
    for clip, first in _doubles(clips.assign(content=content).sort_values("clip_id"), "content"):
        names = f"{clip.where}: {clip.clip_id} holds the same sound as {first.clip_id}"
        if "fold" in clips and clip.fold != first.fold:
            raise DataError(
                f"{names}, which is in fold {first.fold} ({first.where}); keep them in one fold, "
                "or take one out"
            )
        if clip.label != first.label:
            doubtful.append(f"{names} and is labelled {clip.label!r}, not {first.label!r}")
    if doubtful:
        more = f" (and {len(doubtful) - 1} more such files)" if len(doubtful) > 1 else ""
        warnings.warn(f"{doubtful[0]}{more}", stacklevel=3)
    joined = _join(clips["group"], content)
    before, after = (
        groups.groupby(clips["label"]).nunique() for groups in (clips["group"], joined)
    )
    lone = before.index[(before > 1) & (after == 1)]
    if len(lone):
        warnings.warn(
            f"all files of label {', '.join(map(repr, lone))} hold the same sound: it is both "
            "learned and tested, so scores tell nothing of new sounds",
            stacklevel=3,
        )
        joined = _join(clips["group"], content.mask(clips["label"].isin(lone), clips["path"]))
    return joined


def _join(groups: pd.Series, contents: pd.Series) -> pd.Series:
    """Give one name to groups that share a content, directly or by way of others."""
    group, names = pd.factorize(groups)
    content = len(names) + pd.factorize(contents)[0]
    graph = coo_array((np.ones(len(group)), (group, content)), shape=(content.max() + 1,) * 2)
    part = connected_components(graph, directed=False)[1][group]
    return groups.groupby(part).transform("min")


def deal_folds(clips: pd.DataFrame) -> pd.Series:
    """Deal clips into five folds of like composition, keeping groups whole.

    scikit-learn's StratifiedGroupKFold with the first of some seeds that puts every label into two
    folds or more, so that each is in every training set. There are fewer folds where there are
    fewer groups, or where no label has five clips.

    Of ``clips`` the columns clip_id, label and group count, and not their order. Returns the fold
    of each, from 0. `DataError` names a label where no seed does it; one of a single group is in
    one fold.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    order, clips = clips.index, clips.sort_values("clip_id")
    label, group = clips["label"], clips["group"]
    folds = pd.Series(0, clips.index)
    n_folds = min(N_FOLDS, group.nunique(), label.value_counts().max())
    if n_folds < 2:
        return folds
    for seed in range(SEEDS):
        dealer = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed)
        with warnings.catch_warnings():  # of labels with fewer clips than there are folds
            warnings.simplefilter("ignore", UserWarning)
            for fold, (_, held_out) in enumerate(dealer.split(clips, label, group)):
                folds.iloc[held_out] = fold
        lone = (folds.groupby(label).nunique() == 1) & (group.groupby(label).nunique() > 1)
        if not lone.any():
            return pd.Series(pd.factorize(folds, sort=True)[0], clips.index)[order]
    raise DataError(
        f"no way was found to deal {n_folds} folds in which label {lone.idxmax()!r} could be both "
        "learned and tested; give each clip its fold in a column `fold`"
    )
