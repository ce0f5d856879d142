"""From a CSV to a clip table: read rows, find the sounds, refuse doubles, deal folds.

Folds and labels depend on file names alone, never on the order of rows.
"""

from __future__ import annotations

import csv
import os
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pooch

from freesound_tagging.errors import DataError

COLUMNS = ("path", "label", "fold", "split", "verified", "group")
N_FOLDS = 5  # where a table gives none
FOLD_SEED = 0
NO_FOLD = -1  # of test clips, which take no part in cross-validation

RESERVED_LABELS = ("clip_id", "seed", "fold", "label", "group", "variant")
"""Columns that stand beside one column per class in tables of scores."""


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of your own sounds.

    Parameters
    ----------
    path : of a CSV in UTF-8 (a byte order mark and Windows line ends are fine), separated by
        commas, with a line of column names. Columns, in any order, others being ignored:

        - `file`: the sound file, relative to the table's folder; each once. It becomes the
          `clip_id`.
        - `label`: the class; each in at least two folds.
        - `fold` (optional): whole numbers from 0. Where they do not start at 0 or leave gaps they
          are renumbered in order: 1, 2, 5 become 0, 1, 2. Without the column, `deal_folds` makes
          them.
        - `group` (optional): the source recording; must not cross folds. Without the column each
          file is its own. Files of equal content always count as one recording.

    Returns
    -------
    As `catalogue.load`; every clip has split "train" and counts as verified.

    Raises
    ------
    DataError
        Naming the table, the line and what is legal.
    """
    path = Path(path)
    clips = []
    first_line: dict[str, int] = {}
    for line, row in read_rows(path, ("file", "label")):
        where = f"{path}, line {line}"
        # Tables written on Windows may hold backslashes; "./a.wav" and "a.wav" are one file.
        file = os.path.normpath(row["file"].replace("\\", "/")).replace(os.sep, "/")
        name = _nfc(file)
        if name in first_line:
            raise DataError(
                f"{where}: file {row['file']!r} is listed twice, first in line "
                f"{first_line[name]}; list each file once"
            )
        first_line[name] = line
        fold = row.get("fold")
        if fold is not None and not re.fullmatch("[0-9]+", fold):
            raise DataError(f"{where}: fold is {fold!r}; legal are whole numbers from 0")
        clip = clip_row(path.parent / file, row["label"], NO_FOLD, row.get("group", name), where)
        clips.append(clip | {"clip_id": name, "fold": NO_FOLD if fold is None else int(fold)})
    check_files(clips)
    _refuse_same_file(clips)
    _join_copies(clips)

    if clips[0]["fold"] == NO_FOLD:
        columns = ([clip[key] for clip in clips] for key in ("clip_id", "label", "group"))
        folds = deal_folds(*columns)
    else:
        used = sorted({clip["fold"] for clip in clips})
        folds = {clip["clip_id"]: used.index(clip["fold"]) for clip in clips}
    for clip in clips:
        clip["fold"] = folds[clip["clip_id"]]
    return as_table(clips)


def read_rows(
    path: Path, needed: Sequence[str], may_be_blank: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of a CSV with their line numbers; no needed column is blank, nor `group`.

    Labels and groups are brought to one Unicode form (NFC): on a Mac, names often have another.
    ``may_be_blank``: those of the needed columns that may.
    """
    rows = []
    try:
        # utf-8-sig drops a byte order mark; newline="" leaves line ends to the csv module.
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            missing = [name for name in needed if name not in names]
            if missing:
                raise DataError(
                    f"{path}, line 1: no column {', '.join(missing)}; needed are "
                    f"{', '.join(needed)}, separated by commas; found {', '.join(names) or 'none'}"
                )
            if len(set(names)) < len(names):
                raise DataError(f"{path}, line 1: a column name appears twice: {', '.join(names)}")
            for row in reader:
                where = f"{path}, line {reader.line_num}"
                if None in row or None in row.values():
                    raise DataError(
                        f"{where}: not {len(names)} fields, as in the line of column names; "
                        "put a field that holds a comma in double quotes"
                    )
                row = {name: value.strip() for name, value in row.items()}
                for name in (*needed, "group"):
                    if row.get(name) == "" and name not in may_be_blank:
                        raise DataError(f"{where}: {name} is blank")
                row |= {name: _nfc(row[name]) for name in ("label", "group") if name in row}
                rows.append((reader.line_num, row))
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such table") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.reader.line_num}: cannot be read as CSV ({error})"
        ) from error
    if not rows:
        raise DataError(f"{path}: has no rows below the line of column names")
    return rows


def clip_row(path: Path, label: str, fold: int, group: str, where: str = "") -> dict:
    """Return one row of a clip table; `where` says in errors which line it came from."""
    return {
        "clip_id": path.stem,
        "path": str(path),
        "label": label,
        "fold": fold,
        "split": "train",
        "verified": True,
        "group": group,
        "where": where or str(path),
    }


def as_table(clips: list[dict]) -> pd.DataFrame:
    """Check what holds of every data set, and sort by clip id."""
    clips = sorted(clips, key=lambda clip: clip["clip_id"])
    for clip, following in pairwise(clips):
        if clip["clip_id"] == following["clip_id"]:
            raise DataError(
                f"{following['where']}: clip {clip['clip_id']!r} is listed twice "
                f"(also {clip['where']}); list each clip once"
            )
    train = [clip for clip in clips if clip["split"] == "train"]
    _check_groups(train)
    _check_labels(train)
    table = pd.DataFrame(clips).set_index("clip_id")[list(COLUMNS)]
    return table.astype({"fold": int, "verified": bool})


def _check_groups(clips: list[dict]) -> None:
    first_of_group: dict[str, dict] = {}
    for clip in clips:
        first = first_of_group.setdefault(clip["group"], clip)
        if clip["fold"] != first["fold"]:
            raise DataError(
                f"{clip['where']}: group {clip['group']!r} is in fold {clip['fold']} here and in "
                f"fold {first['fold']} ({first['where']}); keep the clips of one source recording "
                "in one fold"
            )


def _check_labels(clips: list[dict]) -> None:
    by_label: dict[str, list[dict]] = defaultdict(list)
    for clip in clips:
        by_label[clip["label"]].append(clip)
    if len(by_label) < 2:
        raise DataError(
            f"{clips[0]['where'] if clips else 'the table'}: there is only the label "
            f"{', '.join(map(repr, by_label)) or 'of no clip'}; a tagger needs two or more"
        )
    spellings: dict[str, str] = {}
    for label, own in by_label.items():
        other = spellings.setdefault(label.casefold(), label)
        if other != label:
            raise DataError(
                f"{own[0]['where']}: label {label!r} differs from {other!r} "
                f"({by_label[other][0]['where']}) in upper and lower case alone; write them alike"
            )
        if label in RESERVED_LABELS:
            raise DataError(
                f"{own[0]['where']}: {label!r} cannot be a label: it names a column of the "
                f"results (so do {', '.join(RESERVED_LABELS)})"
            )
        if len({clip["fold"] for clip in own}) < 2:
            found = "is seen in one fold only"
            if len(own) == 1:
                found = "has one clip only"
            elif len({clip["group"] for clip in own}) == 1:
                found = f"lies in one recording only, {own[0]['group']!r}"
            raise DataError(
                f"{own[0]['where']}: label {label!r} {found}, so it could not be both learned and "
                "tested; a label needs clips of at least two source recordings, in at least two "
                "folds"
            )


# --- files -------------------------------------------------------------------------------------


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def check_files(clips: Iterable[dict]) -> None:
    """Find the sound file of each clip; refuse clips that have none, naming the first few.

    A name in another Unicode form than the file's is corrected in the clip's path.
    """
    missing = []
    for clip in clips:
        try:
            forms = [clip["path"], _nfc(clip["path"]), unicodedata.normalize("NFD", clip["path"])]
            found = next((form for form in forms if Path(form).is_file()), None)
            reason = ""
        except OSError as error:  # no permission, or a name that no disk can hold
            found, reason = None, f" ({error.strerror})"
        if found is None:
            missing.append(f"{clip['where']}: no file {clip['path']}{reason}")
        else:
            clip["path"] = found
    if missing:
        more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(
            f"{'; '.join(missing[:5])}{more}. Put the files there, or take them out of the table"
        )


def _refuse_same_file(clips: list[dict]) -> None:
    """Refuse one file under two names: a link, or an absolute and a relative path."""
    first: dict[tuple[int, int], dict] = {}
    for clip in clips:
        status = Path(clip["path"]).stat()
        other = first.setdefault((status.st_dev, status.st_ino), clip)
        if other is not clip:
            raise DataError(
                f"{clip['where']}: {clip['clip_id']} is the same file as {other['clip_id']} "
                f"({other['where']}); list each sound once"
            )


def _join_copies(clips: list[dict]) -> None:
    """Give files of equal content one group, so that no fold divides them.

    Where a label has no other sound its copies stay apart, and a warning says so.
    """
    copies, doubtful = _find_copies(clips), []
    for first, other in copies:
        names = f"{other['where']}: {other['clip_id']} holds the same sound as {first['clip_id']}"
        if other["fold"] != first["fold"]:
            raise DataError(
                f"{names}, which is in fold {first['fold']} ({first['where']}); keep them in one "
                "fold, or take one out"
            )
        if other["label"] != first["label"]:
            doubtful.append(f"{names} and is labelled {other['label']!r}, not {first['label']!r}")
    if doubtful:
        more = f" (and {len(doubtful) - 1} more such files)" if len(doubtful) > 1 else ""
        warnings.warn(f"{doubtful[0]}{more}", stacklevel=4)
    groups_of: dict[str, set[str]] = defaultdict(set)
    for clip in clips:
        groups_of[clip["label"]].add(clip["group"])
    joined = _joined_groups(clips, copies)
    lone = {
        label
        for label, groups in groups_of.items()
        if len(groups) > 1 and len({joined[group] for group in groups}) == 1
    }
    if lone:
        warnings.warn(
            f"all files of label {', '.join(map(repr, sorted(lone)))} hold the same sound: it is "
            "both learned and tested, so scores tell nothing of new sounds",
            stacklevel=4,
        )
        copies = [pair for pair in copies if not lone & {clip["label"] for clip in pair}]
        joined = _joined_groups(clips, copies)
    for clip in clips:
        clip["group"] = joined[clip["group"]]


def _find_copies(clips: list[dict]) -> list[tuple[dict, dict]]:
    """Pair each clip whose content was seen before with the first that has it."""
    alike: dict[tuple, list[dict]] = defaultdict(list)
    for clip in sorted(clips, key=lambda clip: clip["clip_id"]):
        alike[_size_and_middle(Path(clip["path"]))].append(clip)
    first: dict[str, dict] = {}
    copies = []
    for candidates in alike.values():
        for clip in candidates if len(candidates) > 1 else ():
            original = first.setdefault(_content(Path(clip["path"])), clip)
            if original is not clip:
                copies.append((original, clip))
    return copies


def _joined_groups(clips: list[dict], copies: list[tuple[dict, dict]]) -> dict[str, str]:
    """Return for each group the one that stands for it and for all that share a sound with it."""
    above = {clip["group"]: clip["group"] for clip in clips}

    def top(group: str) -> str:
        while above[group] != group:
            group = above[group]
        return group

    for first, other in copies:
        above[top(other["group"])] = top(first["group"])
    return {group: top(group) for group in above}


def _size_and_middle(path: Path) -> tuple[int, bytes]:
    """Return what tells most files apart without reading them whole."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            file.seek(size // 2)
            return size, file.read(4096)
    except OSError:  # no permission: reported with all that cannot be read
        return size, os.fsencode(path)


def _content(path: Path) -> str:
    try:
        return pooch.file_hash(str(path), alg="sha256")
    except OSError:
        return str(path)


# --- folds -------------------------------------------------------------------------------------


def deal_folds(
    clip_ids: Sequence[str], labels: Sequence[str], groups: Sequence[str]
) -> dict[str, int]:
    """Deal clips into five folds of like composition, keeping groups whole.

    scikit-learn's StratifiedGroupKFold with a fixed seed; where it leaves a label in one fold, the
    fewest clips are moved that give every label a second one.

    Returns
    -------
    The fold, from 0, of each clip id. There are fewer than five folds where there are fewer groups,
    or where no label has five clips; more where labels share so few recordings that five cannot
    tell them apart. Only a label that lies in one group alone is in one fold.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    clips = pd.DataFrame({"clip_id": clip_ids, "label": labels, "group": groups})
    clips = clips.sort_values("clip_id", ignore_index=True)
    n_folds = min(N_FOLDS, clips["group"].nunique(), clips["label"].value_counts().max())
    clips["fold"] = 0
    if n_folds > 1:
        dealer = StratifiedGroupKFold(n_folds, shuffle=True, random_state=FOLD_SEED)
        with warnings.catch_warnings():  # of labels with fewer clips than there are folds
            warnings.simplefilter("ignore", UserWarning)
            folds = list(dealer.split(clips, clips["label"], clips["group"]))
        for fold, (_, held_out) in enumerate(folds):
            clips.loc[held_out, "fold"] = fold
    spread = clips.groupby("label")[["fold", "group"]].nunique()
    if ((spread["fold"] == 1) & (spread["group"] > 1)).any():
        clips["fold"] = _spread_labels(clips)
    used = sorted(clips["fold"].unique())
    return {row.clip_id: used.index(row.fold) for row in clips.itertuples()}


def _spread_labels(clips: pd.DataFrame) -> pd.Series:
    """Move the fewest clips that put every label of two or more groups into two or more folds.

    An integer program: one unknown per group and fold, 1 where the group lies in the fold. With as
    many folds as groups it always has a solution.
    """
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array, kron

    names = sorted(clips["group"].unique())
    shared = pd.crosstab(clips["label"], clips["group"])[names].to_numpy() > 0
    shared = shared[shared.sum(axis=1) > 1]
    for n_folds in range(min(N_FOLDS, len(names)), len(names) + 1):
        stays = pd.crosstab(clips["group"], clips["fold"]).reindex(
            index=names, columns=range(n_folds), fill_value=0
        )
        # Each group lies in one fold; no fold holds all groups of a label.
        once = kron(csr_array(np.eye(len(names))), np.ones((1, n_folds)))
        apart = kron(csr_array(shared.astype(float)), np.eye(n_folds))
        most = np.repeat(shared.sum(axis=1) - 1, n_folds)
        found = milp(
            -stays.to_numpy().ravel(),
            integrality=1,
            bounds=Bounds(0, 1),
            constraints=[LinearConstraint(once, 1, 1), LinearConstraint(apart, -np.inf, most)],
            options={"time_limit": 60},
        )
        if found.x is not None:
            break
    chosen = found.x.reshape(len(names), n_folds).argmax(axis=1)
    return clips["group"].map(dict(zip(names, chosen, strict=True)))
