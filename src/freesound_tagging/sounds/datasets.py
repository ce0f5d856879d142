"""From the name of a data set to its clip table: find or download, verify, unpack, list.

`load` is the one way in. Rows of the table it returns are found by `clip_id` and depend on file
names alone: neither the order of a directory nor of rows in a CSV changes a label or a fold.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
import stat
import tempfile
import warnings
import zipfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath

import pandas as pd
import pooch

from freesound_tagging import files
from freesound_tagging.errors import DataError
from freesound_tagging.sounds import download

COLUMNS = ("path", "label", "fold", "split", "verified", "group")
N_FOLDS = 5  # where a data set gives none
FOLD_SEED = 0
NO_FOLD = -1  # of test clips, which take no part in cross-validation

# Committed beside the code: <repository>/data/<name>.csv with columns file, sha256.
MANIFESTS = Path(__file__).resolve().parents[3] / "data"
_MARKER = ".verified"


@dataclass(frozen=True)
class Archive:
    """One zip file. Inside it, everything lies in a folder of the zip's own name.

    Parameters
    ----------
    file : str
        Name under DATA_MIRROR and after a download.
    url : str
        Where it is downloaded from.
    folder : str
        Where its content goes, relative to `root`.
    md5 : str
        Hash of the whole archive; "" where each clip is verified by a manifest instead.
    """

    file: str
    url: str
    folder: str
    md5: str = ""


@dataclass(frozen=True)
class Dataset:
    """What there is to know about a data set, declared once.

    Parameters
    ----------
    n_clips, n_classes : int
        Of the whole set; 0 where the user chooses.
    licence, citation : str
        What using the sounds asks for.
    archives : tuple of Archive
    """

    n_clips: int
    n_classes: int
    licence: str
    citation: str
    archives: tuple[Archive, ...] = ()


def _github(owner: str, repository: str, commit: str, folder: str) -> Archive:
    url = f"https://github.com/{owner}/{repository}/archive/{commit}.zip"
    return Archive(f"{repository}-{commit}.zip", url, folder)


def _zenodo(name: str, md5: str) -> Archive:
    url = f"https://zenodo.org/records/2552860/files/{name}.zip?download=1"
    return Archive(f"{name}.zip", url, f"fsdkaggle2018/{name}", md5)


DATASETS: dict[str, Dataset] = {
    "microcalls": Dataset(
        n_clips=0,
        n_classes=0,
        licence="generated here, no rights reserved",
        citation="freesound_tagging.sounds.microcalls",
    ),
    "esc10": Dataset(
        n_clips=400,
        n_classes=10,
        licence="CC BY 3.0; the author of each clip is named in the README unpacked with the clips",
        citation=(
            "K. J. Piczak. ESC: Dataset for Environmental Sound Classification. "
            "ACM Multimedia 2015. doi 10.1145/2733373.2806390"
        ),
        archives=(
            _github("karolpiczak", "ESC-10", "553c8f1743b9dba6b282e1323c3ca8fa76923448", "esc10"),
        ),
    ),
    "fsdd": Dataset(
        n_clips=3000,
        n_classes=10,
        licence="CC BY-SA 4.0",
        citation="Z. Jackson and others. Free Spoken Digit Dataset. doi 10.5281/zenodo.1342401",
        archives=(
            _github(
                "Jakobovski",
                "free-spoken-digit-dataset",
                "26eb9aaf76e81b692f806f9140c2d2777410d7a1",
                "fsdd",
            ),
        ),
    ),
    "fsdkaggle2018": Dataset(
        n_clips=9473 + 1600,
        n_classes=41,
        licence="CC BY 4.0; the licence of each clip is in its tables",
        citation=(
            "E. Fonseca and others. General-purpose tagging of Freesound audio with AudioSet "
            "labels: task description, dataset, and baseline. DCASE 2018. "
            "doi 10.5281/zenodo.2552860"
        ),
        archives=(
            _zenodo("FSDKaggle2018.meta", "f16828ac8be0e5285b9175a12f90d784"),
            _zenodo("FSDKaggle2018.audio_train", "a8b47ff4b52022c178f88fa5c6f080d0"),
            _zenodo("FSDKaggle2018.audio_test", "f85c8665c3fc39311ea1b748e194a81d"),
            # Read by people only.
            _zenodo("FSDKaggle2018.doc", "4f2d1ac88f33a62f9db3108b269ee1b7"),
        ),
    ),
}


def load(
    name: str | os.PathLike[str], root: str | os.PathLike[str] = "data/raw", **options: object
) -> pd.DataFrame:
    """List the clips of a data set, fetching, verifying and unpacking them where needed.

    Parameters
    ----------
    name : str
        "microcalls", "esc10", "fsdd", "fsdkaggle2018", or the path of a table of your own that
        ends in .csv, with columns `file` (relative to the table), `label` and optionally `fold`,
        `group` (see `read_table`).
    root : path
        Folder that holds, or will hold, one folder for each named data set.
    options
        For "microcalls" only: passed on to `microcalls.generate` (clips_per_class, seed, ...).

    Returns
    -------
    pd.DataFrame
        Index `clip_id` (unique str, sorted). Columns:
        path (str): of the sound file; relative where `root` (or the table's path) is relative.
        label (str): the class.
        fold (int): index of the cross-validation fold, from 0; -1 for test clips, which have none.
        split (str): "train" or "test".
        verified (bool): whether a person checked the label.
        group (str): the source recording; never crosses folds.

    Raises
    ------
    DataError
        Unknown name; an archive or clip that is missing, damaged or not the one expected; a table
        with a fault. The message names the file, line or setting and says what is legal.

    Notes
    -----
    Archives are looked for in the folder named by the environment variable DATA_MIRROR, then in
    `root/downloads`, then downloaded to there. Clips of esc10 and fsdd are compared one by one with
    the sha256 in data/NAME.csv as they are unpacked; later loads compare size and time of last
    change with those noted then, and hash again what differs.
    """
    name, root = os.fspath(name), Path(root)
    if name.lower().endswith(".csv"):
        reader = read_table
        arguments: tuple = (Path(name),)
    elif name in DATASETS:
        reader = _READERS[name]
        arguments = (root,)
    else:
        raise DataError(
            f"data set {name!r} is not known; the known ones are {', '.join(DATASETS)}, "
            "or give a path that ends in .csv: a table with columns file, label and optionally "
            "fold, group"
        )
    if options and name != "microcalls":
        raise DataError(f"data set {name!r} takes no options, got {', '.join(options)}")
    return reader(*arguments, **options)


def is_table(dataset: str) -> bool:
    """Say whether a data set is named by the path of a table of one's own."""
    return dataset.lower().endswith(".csv")


def check_dataset(dataset: str) -> None:
    """Check the name of a data set, or of a table's file; no file is read.

    Raises
    ------
    DataError
        Where the name is unknown, or a table has the name of a data set.
    """
    known = ", ".join(DATASETS)
    if not is_table(dataset) and dataset not in DATASETS:
        raise DataError(
            f"unknown DATASET {dataset!r}; the known ones are: {known}, "
            "or a table of your own, path/to/table.csv"
        )
    if is_table(dataset) and Path(dataset).stem in DATASETS:
        raise DataError(
            f"{dataset}: a table of your own cannot have the name of a data set ({known}), for its "
            "runs are kept under its name; rename the file"
        )


# --- each data set -----------------------------------------------------------------------------


def _load_microcalls(root: Path, **options: object) -> pd.DataFrame:
    # Imported here: reading sounds needs nothing of what generating them does.
    from freesound_tagging.sounds import microcalls

    table = microcalls.generate(root, **options)
    return table.sort_index()[list(COLUMNS)]


def _load_esc10(root: Path) -> pd.DataFrame:
    """File names: `NNN - Class name/FOLD-FREESOUNDID-TAKE.ogg`, with FOLD from 1."""
    folder, files = _fetch_verified("esc10", root)
    clips = []
    for file in files:
        parent, name = file.split("/")
        fold, freesound_id, _ = PurePosixPath(name).stem.split("-")
        label = parent.split(" - ", 1)[1]
        clips.append(clip_row(folder / file, label, int(fold) - 1, freesound_id))
    return as_table(clips)


def _load_fsdd(root: Path) -> pd.DataFrame:
    """File names: `recordings/DIGIT_SPEAKER_INDEX.wav`; one fold for each speaker.

    Takes of one digit by one speaker are near copies of each other, so they are one group.
    """
    folder, files = _fetch_verified("fsdd", root)
    parts = {file: PurePosixPath(file).stem.split("_") for file in files}
    speakers = sorted({speaker for _, speaker, _ in parts.values()})
    return as_table(
        [
            clip_row(folder / file, digit, speakers.index(speaker), f"{speaker}_{digit}")
            for file, (digit, speaker, _) in parts.items()
        ]
    )


def _load_fsdkaggle2018(root: Path) -> pd.DataFrame:
    # Imported here: that module builds on this one.
    from freesound_tagging.sounds import fsdkaggle2018

    return fsdkaggle2018.load(root)


def read_table(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a table of your own sounds.

    Parameters
    ----------
    path : path
        A CSV in UTF-8 (a byte order mark and Windows line ends are fine), separated by commas, with
        a line of column names. Columns, in any order, others being ignored:
        `file`: the sound file, relative to the table's folder; each once. It becomes the `clip_id`.
        `label`: the class; each in at least two folds.
        `fold` (optional): whole numbers from 0. Where they do not start at 0 or leave gaps they are
        renumbered in order: 1, 2, 5 become 0, 1, 2. Without the column, 5 folds are made:
        stratified on label, groups kept whole, chosen by file name with a fixed seed.
        `group` (optional): the source recording; must not cross folds. Without the column each
        file is its own.

    Returns
    -------
    pd.DataFrame
        As `load`; every clip has split "train" and counts as verified.

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
        if file in first_line:
            raise DataError(
                f"{where}: file {row['file']!r} is listed twice, first in line "
                f"{first_line[file]}; list each file once"
            )
        first_line[file] = line
        fold = row.get("fold")
        if fold is not None and not re.fullmatch("[0-9]+", fold):
            raise DataError(f"{where}: fold is {fold!r}; legal are whole numbers from 0")
        clip = clip_row(path.parent / file, row["label"], NO_FOLD, row.get("group", file), where)
        clips.append(clip | {"clip_id": file, "fold": NO_FOLD if fold is None else int(fold)})
    check_files(clips)

    if clips[0]["fold"] == NO_FOLD:
        folds = stratified_folds(
            [clip["clip_id"] for clip in clips],
            [clip["label"] for clip in clips],
            [clip["group"] for clip in clips],
        )
    else:
        used = sorted({clip["fold"] for clip in clips})
        folds = {clip["clip_id"]: used.index(clip["fold"]) for clip in clips}
    for clip in clips:
        clip["fold"] = folds[clip["clip_id"]]
    return as_table(clips)


_READERS = {
    "microcalls": _load_microcalls,
    "esc10": _load_esc10,
    "fsdd": _load_fsdd,
    "fsdkaggle2018": _load_fsdkaggle2018,
}


# --- clip tables -------------------------------------------------------------------------------


def clip_row(path: Path, label: str, fold: int, group: str, where: str = "") -> dict:
    """One row of a clip table; `where` says in errors which line it came from."""
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


def read_rows(
    path: Path, needed: Sequence[str], may_be_blank: Sequence[str] = ()
) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV with their line numbers; none of the columns this package knows is blank.

    ``may_be_blank``: those of the needed columns that may.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such table")
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
                rows.append((reader.line_num, row))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: is not UTF-8 text ({error}); save it as UTF-8") from error
    except csv.Error as error:
        raise DataError(
            f"{path}, line {reader.reader.line_num}: cannot be read as CSV ({error})"
        ) from error
    if not rows:
        raise DataError(f"{path}: has no rows below the line of column names")
    return rows


def check_files(clips: Iterable[dict]) -> None:
    """Refuse clips whose sound file is not there, naming the first few."""
    missing = [clip for clip in clips if not Path(clip["path"]).is_file()]
    if missing:
        named = "; ".join(f"{clip['where']}: no file {clip['path']}" for clip in missing[:5])
        more = f"; and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise DataError(f"{named}{more}. Put the files there, or take them out of the table")


RESERVED_LABELS = ("clip_id", "seed", "fold", "label", "group", "variant")
"""Columns that stand beside one column a class in tables of scores."""


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
    first_of_group: dict[str, dict] = {}
    folds_of_label: dict[str, set[int]] = defaultdict(set)
    for clip in train:
        folds_of_label[clip["label"]].add(clip["fold"])
        first = first_of_group.setdefault(clip["group"], clip)
        if clip["fold"] != first["fold"]:
            raise DataError(
                f"{clip['where']}: group {clip['group']!r} is in fold {clip['fold']} here and in "
                f"fold {first['fold']} ({first['where']}); keep the clips of one source recording "
                "in one fold"
            )
    if len(folds_of_label) < 2:
        raise DataError(
            f"{train[0]['where'] if train else 'the table'}: there is only the label "
            f"{', '.join(map(repr, folds_of_label)) or 'of no clip'}; a tagger needs two or more"
        )
    for label, folds in folds_of_label.items():
        if label in RESERVED_LABELS:
            example = next(clip for clip in train if clip["label"] == label)
            raise DataError(
                f"{example['where']}: {label!r} cannot be a label: it names a column of the "
                f"results (so do {', '.join(RESERVED_LABELS)})"
            )
        if len(folds) < 2:
            own = [clip for clip in train if clip["label"] == label]
            found = "has one clip only" if len(own) == 1 else "is seen in one fold only"
            raise DataError(
                f"{own[0]['where']}: label {label!r} {found}, so it could not be both learned and "
                "tested; a label needs clips of at least two source recordings, in at least two "
                "folds"
            )

    table = pd.DataFrame(clips).set_index("clip_id")[list(COLUMNS)]
    return table.astype({"fold": int, "verified": bool})


def stratified_folds(
    clip_ids: Sequence[str],
    strata: Sequence[str],
    groups: Sequence[str],
    n_folds: int = N_FOLDS,
    seed: int = FOLD_SEED,
) -> dict[str, int]:
    """Deal clips into folds of like composition, keeping groups whole.

    Groups are dealt one at a time, large ones first and otherwise in an order drawn from the seed
    and the group's name, each to the fold that has the fewest clips of the group's strata so far.
    Nothing depends on the order of the arguments' elements.

    Parameters
    ----------
    clip_ids, strata, groups : sequence of str [shape=(n,)]
        For each clip its id, the stratum to spread evenly (a label, say) and its source recording.
    n_folds : int
        Number of folds; fewer are used where there are fewer groups.
    seed : int
        Another seed deals other folds.

    Returns
    -------
    dict of str to int
        The fold, from 0, of each clip id.
    """
    members: dict[str, list[str]] = defaultdict(list)
    content: dict[str, Counter] = defaultdict(Counter)
    for clip_id, stratum, group in zip(clip_ids, strata, groups, strict=True):
        members[group].append(clip_id)
        content[group][stratum] += 1
    size = Counter(strata)
    n_folds = min(n_folds, len(members))

    def turn(group: str) -> tuple[int, str]:
        return -len(members[group]), hashlib.sha256(f"{seed}:{group}".encode()).hexdigest()

    held = [Counter() for _ in range(n_folds)]
    folds = {}
    for group in sorted(members, key=turn):
        # Sorted, so that the sum over strata is rounded alike whatever the order of the rows.
        parts = sorted(content[group].items())
        fullness = [
            (sum(n * fold[stratum] / size[stratum] for stratum, n in parts), fold.total(), index)
            for index, fold in enumerate(held)
        ]
        index = min(fullness)[-1]
        held[index].update(content[group])
        folds.update(dict.fromkeys(members[group], index))
    return folds


# --- archives ----------------------------------------------------------------------------------


def read_manifest(name: str) -> dict[str, str]:
    """Read the committed sha256 (hex) of each clip of a data set, by file name.

    Parameters
    ----------
    name : str
        Data set: data/NAME.csv is read.

    Returns
    -------
    dict of str to str
        In order of file name.

    Raises
    ------
    DataError
        The manifest is not there, as after an installation without the repository.
    """
    path = MANIFESTS / f"{name}.csv"
    if not path.is_file():
        raise DataError(
            f"{path}: the list of clips is missing; install from a clone of the repository "
            "(pip install -e .)"
        )
    return dict(
        sorted((row["file"], row["sha256"]) for _, row in read_rows(path, ("file", "sha256")))
    )


def _fetch_verified(name: str, root: Path) -> tuple[Path, list[str]]:
    """Folder of a data set with a manifest, every clip of it verified, and the clips' names."""
    hashes = read_manifest(name)
    (archive,) = DATASETS[name].archives
    return fetch(archive, root, hashes), list(hashes)


def fetch(archive: Archive, root: Path, hashes: dict[str, str] | None = None) -> Path:
    """Make sure that an archive's content is in place.

    Parameters
    ----------
    archive : Archive
    root : Path
        Folder of all data sets.
    hashes : dict of str to str, optional
        sha256 (hex) of each file wanted. Without it the whole archive is unpacked, and a folder
        that is there is taken as it is: folders appear whole or not at all.

    Returns
    -------
    Path
        Of the folder with the content.

    Raises
    ------
    DataError
        The archive cannot be had, is damaged or unsafe, or a file in it is not the one expected.
    """
    folder = root / archive.folder
    if _in_place(folder, hashes):
        return folder
    path = find_archive(archive, root)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Unpacked and verified beside its final place, then renamed: no half data set is ever seen.
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as staging:
        fresh, stale = Path(staging, "fresh"), Path(staging, "stale")
        unpack(path, fresh, hashes)
        if hashes is not None:
            _write_marker(fresh, hashes)
        try:
            # A folder with a wrong or missing clip is replaced; another run may have put the
            # right one there in the meantime.
            if not _in_place(folder, hashes):
                if folder.exists():
                    folder.replace(stale)
                fresh.replace(folder)
        except OSError as error:
            if not _in_place(folder, hashes):
                raise DataError(f"{folder}: cannot be put in place ({error})") from error
    return folder


def find_archive(archive: Archive, root: Path) -> Path:
    """Find an archive under DATA_MIRROR or among earlier downloads, or download it.

    Parameters
    ----------
    archive : Archive
    root : Path
        Downloads go to `root/downloads`.

    Returns
    -------
    Path
        Of the zip file.

    Raises
    ------
    DataError
        DATA_MIRROR is not a folder; the download fails, or is not the archive expected.

    Warns
    -----
    UserWarning
        An archive under DATA_MIRROR has another md5 than published: mirrors re-pack.
    """
    mirror = os.environ.get("DATA_MIRROR", "")
    if mirror:
        if not Path(mirror).is_dir():
            raise DataError(
                f"DATA_MIRROR={mirror}: there is no such folder; name one that holds "
                f"{archive.file}, or unset it to download"
            )
        path = Path(mirror, archive.file)
        if path.is_file():
            if archive.md5 and pooch.file_hash(str(path), alg="md5") != archive.md5:
                warnings.warn(
                    f"{path}: its md5 is not the published {archive.md5}; used all the same, "
                    "since mirrors may re-pack. If it came from Zenodo unchanged, fetch it again",
                    stacklevel=2,
                )
            return path

    return download.fetch(archive.url, root / "downloads" / archive.file, md5=archive.md5)


def unpack(path: Path, folder: Path, hashes: dict[str, str] | None = None) -> None:
    """Unpack a zip into a new folder, verifying each file as it is written.

    Parameters
    ----------
    path : Path
        The zip. What lies in its folder of the zip's own name is unpacked, without that folder.
    folder : Path
        Must not exist yet. Left half filled after an error.
    hashes : dict of str to str, optional
        sha256 (hex) of each file wanted; others are left in the zip, except READMEs, which name
        authors and licences. Without it everything is unpacked.

    Raises
    ------
    DataError
        The zip is truncated or damaged; it holds an absolute name, one with "..", a link or
        another special file (nothing at all is unpacked then); a wanted file is missing, is there
        twice or has another hash; the disk has no room, which is checked first.
    """
    remedy = f"Delete {path} and fetch it again"
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            missing = sorted(set(hashes or ()) - set(members))
            if missing:
                raise DataError(
                    f"{path}: does not hold {missing[0]}"
                    + (f" and {len(missing) - 1} more clips" if len(missing) > 1 else "")
                    + f". {remedy}"
                )
            if hashes is not None:
                members = {
                    name: member
                    for name, member in members.items()
                    if name in hashes or name.startswith("README")
                }
            needed = sum(member.file_size for member in members.values())
            files.check_room(folder.parent, needed, f"unpack {path.name}")
            for name, member in members.items():
                digest = _extract(archive, member, folder / name)
                if hashes is not None and digest != hashes.get(name, digest):
                    raise DataError(
                        f"{path}: clip {name} has sha256 {digest}, "
                        f"expected {hashes[name]}. {remedy}"
                    )
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise DataError(
            f"{path}: is truncated, damaged or not a zip ({error}). {remedy}"
        ) from error
    except OSError as error:
        raise DataError(f"{path}: could not be unpacked to {folder} ({error})") from error


def _members(archive: zipfile.ZipFile, path: Path) -> dict[str, zipfile.ZipInfo]:
    """Files of a zip below its own folder, by name; refuse the zip if any name in it is unsafe."""
    members = {}
    for info in archive.infolist():
        # orig_filename is the name as stored; zipfile has already altered the other one.
        name = info.orig_filename
        parts = re.split(r"[/\\]", name)
        kind = stat.S_IFMT(info.external_attr >> 16)
        if ".." in parts or parts[0] == "" or ":" in parts[0] or "\0" in name:
            raise DataError(
                f"{path}: holds the name {name!r}, which leads outside its folder; nothing was "
                "unpacked. Get the archive from its publisher"
            )
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise DataError(
                f"{path}: {name!r} is a link or special file; nothing was unpacked. "
                "Get the archive from its publisher"
            )
        if info.is_dir() or parts[0] != path.stem:
            continue
        below = "/".join(parts[1:])
        if below in members:
            raise DataError(f"{path}: holds {below} twice. Get the archive from its publisher")
        members[below] = info
    return members


def _extract(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path) -> str:
    """Write one file of a zip and return its sha256."""
    digest = hashlib.sha256()
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(member) as source, target.open("xb") as file:
        while block := source.read(1 << 20):
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def _in_place(folder: Path, hashes: dict[str, str] | None) -> bool:
    """Whether a folder holds every file wanted, unchanged.

    Files whose size and time of last change are those in the marker count as unchanged; if any
    differs (or the folder was put there by hand), all are hashed again.
    """
    if not folder.is_dir():
        return False
    if hashes is None:
        return True
    if not all((folder / name).is_file() for name in hashes):
        return False
    # Compared as text: a marker that is damaged differs, and is written anew.
    marker = folder / _MARKER
    if marker.is_file() and marker.read_bytes() == _fingerprint(folder, hashes):
        return True
    for name, expected in hashes.items():
        if pooch.file_hash(str(folder / name), alg="sha256") != expected:
            return False
    # In a folder that cannot be written, every load hashes the clips; that costs a second.
    with suppress(OSError):
        _write_marker(folder, hashes)
    return True


def _fingerprint(folder: Path, hashes: dict[str, str]) -> bytes:
    """What the marker holds: the hashes wanted, and size and time of last change of each file."""
    lines = []
    for name, expected in sorted(hashes.items()):
        found = (folder / name).stat()
        lines.append(f"{expected} {found.st_size} {found.st_mtime_ns} {name}\n")
    return "".join(lines).encode()


def _write_marker(folder: Path, hashes: dict[str, str]) -> None:
    (folder / _MARKER).write_bytes(_fingerprint(folder, hashes))
