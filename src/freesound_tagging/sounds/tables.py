"""From a CSV to a clip table: read rows, find the sounds, refuse doubles, deal folds.

Folds and labels depend on file names alone, never on the order of rows.
"""

from __future__ import annotations

import os
import unicodedata
import warnings
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pooch

from freesound_tagging.errors import DataError
from freesound_tagging.sounds.clips import ClipError, load_clip

COLUMNS = ("path", "label", "fold", "split", "verified", "group")
N_FOLDS = 5  # where a table gives none
DEALS = 20  # tried, one after the other
NO_FOLD = -1  # of test clips, which take no part in cross-validation

RESERVED_LABELS = ("clip_id", "seed", "fold", "label", "strangeness", "group", "variant")
"""Columns that stand beside one column per class in tables of scores."""


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of your own sounds.

    It is a CSV in UTF-8, separated by commas, semicolons or tabs, with a line of column names:

    - `file`: the sound file, relative to the table's folder; each once. It becomes the `clip_id`.
    - `label`: the class; each in at least two folds.
    - `fold` (optional): whole numbers from 0. Gaps are closed: 1, 2, 5 become 0, 1, 2. Without the
      column, `deal_folds` makes them.
    - `group` (optional): the source recording; must not cross folds. Without the column each file
      is its own, and files of equal content are one.

    A `DataError` names the table and the line.
    """
    path = Path(path)
    clips = read_rows(path, ("file", "label")).filter(["file", "label", "fold", "group", "where"])
    # Tables written on Windows may hold backslashes; "./a.wav" and "a.wav" are one file.
    files = [os.path.normpath(file.replace("\\", "/")).replace(os.sep, "/") for file in clips.file]
    clips["clip_id"] = [unicodedata.normalize("NFC", file) for file in files]
    clips["path"] = [str(path.parent / file) for file in files]
    clips["path"] = find_files(clips)
    if "fold" in clips:
        for clip in clips[~clips["fold"].str.fullmatch("[0-9]{1,9}")].itertuples():
            raise DataError(f"{clip.where}: fold is {clip.fold!r}; legal are whole numbers from 0")
        clips["fold"] = pd.factorize(clips["fold"].astype(int), sort=True)[0]
    if "group" not in clips:
        clips["group"] = _join_copies(clips)
    if "fold" not in clips:
        clips["fold"] = deal_folds(clips)
    return as_table(clips)


def read_rows(path: Path, needed: Sequence[str]) -> pd.DataFrame:
    """Return the rows of a CSV as strings, and in the column `where` their file and line.

    Blank lines are left out, and what a spreadsheet pads a table with. Labels and groups are tidied
    up: Unicode form NFC, no invisible characters, single blanks; a warning says what was changed.
    Columns ``needed`` must be there and filled.
    """
    try:
        head = path.read_text("utf-8-sig").partition("\n")[0]
        separator = max(",;\t", key=head.count)
        options = {"skipinitialspace": True, "skip_blank_lines": False, "index_col": False}
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)  # more fields than columns
            rows = pd.read_csv(path, sep=separator, dtype=str, na_filter=False, **options)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    except (pd.errors.ParserError, pd.errors.ParserWarning, pd.errors.EmptyDataError) as error:
        reason = f"{str(error).strip()}); put a field that holds {separator!r} in double quotes"
        raise DataError(f"{path}: is no CSV ({reason}") from error
    rows = rows.rename(columns=_tidy)
    for name in sorted({*needed, "label", "fold", "group"} & set(rows)):
        if f"{name}.1" in rows or list(rows).count(name) > 1:  # pandas numbers equal ones
            raise DataError(f"{path}, line 1: column {name!r} stands twice; leave one out")
    if not set(needed) <= set(rows):
        raise DataError(
            f"{path}, line 1: needed are columns {', '.join(needed)}, separated by commas; found "
            f"{', '.join(rows)}"
        )
    ends = rows.apply(lambda cells: cells.str.count("\n")).sum(axis=1)  # within quoted fields
    rows = rows.apply(lambda cells: cells.str.strip())
    lines = rows.index + 2 + ends.cumsum() - ends
    rows["where"] = [f"{path}, line {line}" for line in lines]
    rows = rows[(rows.drop(columns="where") != "").any(axis=1)].reset_index(drop=True)
    for name in sorted({"label", "group"} & set(rows)):
        before, rows[name] = rows[name], rows[name].map(_tidy)
        for row, text in before[before.str.contains(r"[\x00-\x1f\x7f-\x9f]")].items():
            where = rows["where"][row]
            raise DataError(f"{where}: {name} {text!r} holds a control character")
        changed = rows.index[rows[name] != before]
        for row in changed[:1]:
            more = f"; and {len(changed) - 1} more" if len(changed) > 1 else ""
            now = f"{name} {before[row]!a} is read as {rows[name][row]!r}{more}"
            warnings.warn(f"{rows['where'][row]}: {now}", stacklevel=3)
    for name in {*needed, "group"} & set(rows):
        for where in rows["where"][rows[name] == ""]:
            raise DataError(f"{where}: {name} is blank")
    if rows.empty:
        raise DataError(f"{path}: has no rows below the line of column names")
    return rows


def _tidy(text: str) -> str:
    letters = unicodedata.normalize("NFC", text)
    return " ".join("".join(c for c in letters if unicodedata.category(c) != "Cf").split())


def find_files(clips: pd.DataFrame) -> list[str]:
    """Return the path of each clip's sound, perhaps in another Unicode form than the table's."""
    paths, missing = [], []
    for clip in clips.itertuples():
        names = [clip.path, *(unicodedata.normalize(form, clip.path) for form in ("NFC", "NFD"))]
        # Path.is_file raises where a folder may not be entered, or a name is too long.
        found = [name for name in names if os.path.isfile(name)]  # noqa: PTH113
        paths += found[:1]
        missing += [] if found else [f"{clip.where}: no file {clip.path}"]
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
    stems = [Path(path).stem for path in clips["path"]]
    defaults = clips[[]].assign(clip_id=stems, split="train", verified=True, where=clips["path"])
    clips = defaults.assign(**clips).sort_values("clip_id", ignore_index=True)
    for clip in _with_first(clips, "clip_id")[clips["clip_id"].duplicated()].itertuples():
        raise DataError(
            f"{clip.where}: clip {clip.clip_id!r} is listed twice (also {clip.first_where}); list "
            "each clip once"
        )
    train = clips[clips["split"] == "train"]
    for clip in _with_first(train, "group").query("fold != first_fold").itertuples():
        raise DataError(
            f"{clip.where}: group {clip.group!r} is in fold {clip.fold} here and in fold "
            f"{clip.first_fold} ({clip.first_where}); keep one source recording in one fold"
        )
    _check_labels(train)
    return clips.set_index("clip_id")[list(COLUMNS)].astype({"path": str, "fold": int})


def _check_labels(clips: pd.DataFrame) -> None:
    if clips["label"].nunique() < 2:
        raise DataError(
            f"{clips['where'].iloc[0]}: a tagger needs two labels or more; there is only "
            f"{clips['label'].iloc[0]!r}"
        )
    alike = _with_first(clips, clips["label"].str.casefold())
    for clip in alike.query("label != first_label").itertuples():
        raise DataError(
            f"{clip.where}: label {clip.label!r} differs from {clip.first_label!r} "
            f"({clip.first_where}) in upper and lower case alone; write them alike"
        )
    for label, own in clips.groupby("label"):
        where = own["where"].iloc[0]
        if label in RESERVED_LABELS:
            raise DataError(f"{where}: {label!r} cannot be a label: the results have such a column")
        if own["fold"].nunique() < 2:
            raise DataError(
                f"{where}: label {label!r} is seen in one fold only, so it could not be both "
                "learned and tested; it needs clips of two source recordings, in two folds"
            )


def _with_first(clips: pd.DataFrame, by: str | pd.Series) -> pd.DataFrame:
    """Add the label, fold and place of the first clip that has the same value."""
    first = clips.groupby(by)[["label", "fold", "where"]].transform("first")
    return clips.join(first.add_prefix("first_"))


def _join_copies(clips: pd.DataFrame) -> pd.Series:
    """Return a group for each clip, one for all that hold the same sound: no fold divides them."""
    sizes = pd.Series([Path(path).stat().st_size for path in clips["path"]], clips.index)
    content = clips["path"].copy()
    for index in clips.index[sizes.duplicated(keep=False)]:
        with suppress(OSError):  # no permission: reported with all that cannot be read
            content[index] = pooch.file_hash(clips.at[index, "path"])
    kinds = content.groupby(clips["label"]).agg(["size", "nunique"])
    few = kinds.index[(kinds["size"] > kinds["nunique"]) & (kinds["nunique"] < 3)]
    if len(few):
        warnings.warn(
            f"label {', '.join(map(repr, few))} has under three different sounds: copies are both "
            "learned and tested, so scores tell nothing of new sounds",
            stacklevel=3,
        )
    content = content.mask(clips["label"].isin(few), clips["path"])
    return clips["clip_id"].groupby(content).transform("min")


def deal_folds(clips: pd.DataFrame) -> pd.Series:
    """Deal clips into five folds of like composition, keeping groups whole.

    scikit-learn's StratifiedGroupKFold with the first of some seeds that puts every label of two
    groups or more into two folds, so that each is in every training set; a `DataError` where none
    does. There are fewer folds where there are fewer groups, or where no label has five clips.

    Of ``clips`` the columns clip_id, label and group count, and not their order.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    order, clips = clips.index, clips.sort_values("clip_id")
    label, group = clips["label"], clips["group"]
    folds = pd.Series(0, clips.index)
    n_folds = min(N_FOLDS, group.nunique(), label.value_counts().max())
    if n_folds < 2:
        return folds
    for seed in range(DEALS):
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


def check_sounds(table: pd.DataFrame) -> None:
    """Decode as few clips as will show that every label has readable ones in two folds.

    `DataError` names the label and why its clips cannot be read, or says that all are silent.
    """
    sounds = False
    for label, own in table[table["split"] == "train"].groupby("label"):
        folds, reasons = set(), []
        for clip in own.itertuples():
            # While no clip has sounded, the next one may.
            if sounds and (clip.fold in folds or len(folds) > 1):
                continue
            try:
                sounds |= not load_clip(clip.path)[1].startswith("silent")
                folds.add(clip.fold)
            except ClipError as error:
                reasons.append(str(error))
        if len(folds) < min(2, own["fold"].nunique()):
            more = f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""
            raise DataError(
                f"label {label!r} has readable clips in {len(folds)} folds, and needs them in two, "
                f"to be learned and tested: {'; '.join(reasons[:3])}{more}. Mend or replace these "
                "files, or take the label out of the table"
            )
    if not sounds:
        raise DataError(
            f"no clip holds sound: all are silent, {table['path'].iloc[0]} for one. Check the "
            "recorder, or the program that exported the files"
        )
