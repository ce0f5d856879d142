"""FSDKaggle2018: its clip table from Zenodo's files or from Kaggle's, and its folds.

The folds are those of ``data/fsdkaggle2018_folds.csv``, found by file name. That file was written,
from the tables of Zenodo's FSDKaggle2018.meta.zip, by

    python -m freesound_tagging.sounds.fsdkaggle2018 --tables FOLDER
"""

import argparse
import hashlib
import os
import sys
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import pandas as pd

from freesound_tagging.errors import DataError
from freesound_tagging.sounds import archives
from freesound_tagging.sounds.archives import Archive, Dataset
from freesound_tagging.sounds.tables import NO_FOLD, as_table, check_files, clip_row, read_rows


def _zenodo(name: str, md5: str) -> Archive:
    url = f"https://zenodo.org/records/2552860/files/{name}.zip?download=1"
    return Archive(f"{name}.zip", url, f"fsdkaggle2018/{name}", md5)


DATASET = Dataset(
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
)

KAGGLE_FOLDER = "freesound-audio-tagging"
"""Name of the challenge on Kaggle, and of the folder that holds its files as Kaggle lays them out:
train.csv, audio_train/, audio_test/ and, where there, test_post_competition.csv."""

TRAIN_TABLES = ("train.csv", "train_post_competition.csv")
TEST_TABLES = ("test_post_competition.csv", "test_post_competition_scoring_clips.csv")
MANIFEST = "fsdkaggle2018_folds.csv"

SCORED = ("Public", "Private")
"""Usages of the test clips that the challenge scored; the others were put there as a blind."""
USAGES = (*SCORED, "Ignored")


@dataclass(frozen=True)
class Files:
    """Where the tables and the folders of sounds lie; ``test_table`` is None where there is none.

    ``extra_test_sounds``: the folder of test sounds holds more than the scored ones.
    """

    train_table: Path
    test_table: Path | None
    train_sounds: Path
    test_sounds: Path
    extra_test_sounds: bool


def load(root: Path) -> pd.DataFrame:
    """Return the clip table, see `catalogue.load`.

    Train clips have the fold and group of the manifest, by file name. Of the test clips those that
    the challenge scored are listed; they count as verified, for the organisers checked all of them.

    Raises
    ------
    DataError
        A table, a column, a sound or a clip of the manifest is missing, or a clip is in the tables
        and not in the manifest. The message names file and line.

    Warns
    -----
    UserWarning
        Sounds that no table lists; no table of the test clips.
    """
    files = find_files(root)
    folds = read_folds()
    clips = []
    for line, row in read_rows(files.train_table, ("fname", "label", "manually_verified")):
        where = f"{files.train_table}, line {line}"
        if row["manually_verified"] not in ("0", "1"):
            raise DataError(
                f"{where}: manually_verified is {row['manually_verified']!r}; legal are 0 and 1"
            )
        fold, group = _look_up(folds, row["fname"], "train", where)
        clip = clip_row(files.train_sounds / row["fname"], row["label"], fold, group, where)
        clips.append(clip | {"verified": row["manually_verified"] == "1"})
    _check_complete(files.train_table, clips, folds, "train")
    _tell_unlisted(files.train_sounds, clips)

    scored = []
    for line, row in _test_rows(files.test_table):
        where = f"{files.test_table}, line {line}"
        _, group = _look_up(folds, row["fname"], "test", where)
        clip = clip_row(files.test_sounds / row["fname"], row["label"], NO_FOLD, group, where)
        scored.append(clip | {"split": "test"})
    if files.test_table is None:
        warnings.warn(
            f"{files.train_table.parent}: no {TEST_TABLES[0]}, so that the test clips cannot be "
            "scored; it is on the challenge's page on Kaggle",
            stacklevel=2,
        )
    else:
        _check_complete(files.test_table, scored, folds, "test")
        if not files.extra_test_sounds:
            _tell_unlisted(files.test_sounds, scored)
    clips += scored
    check_files(clips)
    return as_table(clips)


def usage_of_test_clips(root: Path) -> pd.Series:
    """Return Public or Private for each scored test clip, index ``clip_id``; empty without a table.

    The clips that the challenge's public and private rankings were made from.
    """
    table = find_files(root).test_table
    usage = {Path(row["fname"]).stem: row["usage"] for _, row in _test_rows(table)}
    return pd.Series(usage, dtype=object, name="usage").rename_axis("clip_id").sort_index()


def sample_submission(root: Path) -> pd.DataFrame | None:
    """Return Kaggle's sample_submission.csv, columns fname and label; None where it is not there.

    It lies beside Kaggle's train.csv and lists all 9,400 test clips.
    """
    path = find_files(root).train_table.with_name("sample_submission.csv")
    if not path.is_file():
        return None
    rows = [row for _, row in read_rows(path, ("fname", "label"))]
    return pd.DataFrame(rows)[["fname", "label"]]


def find_files(root: Path) -> Files:
    """Find the files in Zenodo's or Kaggle's layout, or fetch Zenodo's archives.

    In this order: Zenodo's, unpacked under ``root``; Kaggle's, in a folder `KAGGLE_FOLDER` under
    DATA_MIRROR or ``root``, which is read where it lies; Zenodo's archives under DATA_MIRROR;
    Zenodo's archives, downloaded.
    """
    *needed, documents = DATASET.archives
    if not all((root / archive.folder).is_dir() for archive in needed):
        mirror = os.environ.get("DATA_MIRROR", "")
        for place in ([Path(mirror)] if mirror else []) + [root]:
            if (place / KAGGLE_FOLDER).is_dir():
                return _kaggle_files(place / KAGGLE_FOLDER)
    meta, train, test = (archives.fetch(archive, root) for archive in needed)
    _fetch_documents(documents, needed, root)
    return Files(
        meta / "train_post_competition.csv",
        meta / "test_post_competition_scoring_clips.csv",
        train,
        test,
        extra_test_sounds=False,
    )


def _kaggle_files(folder: Path) -> Files:
    tables = [folder / name for name in TRAIN_TABLES if (folder / name).is_file()]
    if not tables:
        raise DataError(
            f"{folder}: no {TRAIN_TABLES[0]}; put there the files of the challenge as Kaggle has "
            "them (train.csv, audio_train/, audio_test/), or take the folder away to use Zenodo's"
        )
    for name in ("audio_train", "audio_test"):
        if not (folder / name).is_dir():
            raise DataError(f"{folder}: no folder {name}; unpack {name}.zip there")
    tests = [folder / name for name in TEST_TABLES if (folder / name).is_file()]
    return Files(
        tables[0],
        tests[0] if tests else None,
        folder / "audio_train",
        folder / "audio_test",
        extra_test_sounds=True,
    )


def _fetch_documents(documents: Archive, others: Iterable[Archive], root: Path) -> None:
    """Fetch the archive of documents along with the others.

    Nothing reads it, so it is no reason to go online for those who brought the others.
    """
    mirror = os.environ.get("DATA_MIRROR", "")
    downloaded = any((root / "downloads" / archive.file).is_file() for archive in others)
    if downloaded or (mirror and Path(mirror, documents.file).is_file()):
        archives.fetch(documents, root)


def _test_rows(table: Path | None) -> list[tuple[int, dict[str, str]]]:
    """Return the rows of the scored test clips with their line numbers."""
    if table is None:
        return []
    scored = []
    # The labels of the ignored clips are blank or mean nothing.
    for line, row in read_rows(table, ("fname", "label", "usage"), may_be_blank=("label",)):
        if row["usage"] not in USAGES:
            raise DataError(
                f"{table}, line {line}: usage is {row['usage']!r}; legal are {', '.join(USAGES)}"
            )
        if row["usage"] in SCORED:
            if not row["label"]:
                raise DataError(f"{table}, line {line}: label is blank")
            scored.append((line, row))
    return scored


# --- folds -------------------------------------------------------------------------------------


def read_folds() -> pd.DataFrame:
    """Return the committed folds: index fname, columns fold (-1 for test clips) and group.

    Raises
    ------
    DataError
        The manifest is not there, as after an installation without the repository.
    """
    path = archives.MANIFESTS / MANIFEST
    if not path.is_file():
        raise DataError(
            f"{path}: the list of folds is missing; install from a clone of the repository "
            "(pip install -e .)"
        )
    rows = [row for _, row in read_rows(path, ("fname", "fold", "group"))]
    return pd.DataFrame(rows).astype({"fold": int}).set_index("fname")


def _look_up(folds: pd.DataFrame, fname: str, split: str, where: str) -> tuple[int, str]:
    """Return a clip's fold and group, by file name."""
    if fname not in folds.index:
        raise DataError(
            f"{where}: clip {fname!r} is not in {archives.MANIFESTS / MANIFEST}, which has the "
            "fold of every clip of FSDKaggle2018; for a set of your own give a path/to/table.csv"
        )
    fold, group = folds.at[fname, "fold"], folds.at[fname, "group"]
    if (fold == NO_FOLD) != (split == "test"):
        other = "train" if split == "test" else "test"
        raise DataError(f"{where}: clip {fname!r} is a {other} clip; it cannot be a {split} clip")
    return int(fold), str(group)


def _check_complete(table: Path, clips: list[dict], folds: pd.DataFrame, split: str) -> None:
    """Refuse a table that lacks clips of the manifest: folds of a part are other folds."""
    wanted = folds.index[(folds["fold"] == NO_FOLD) == (split == "test")]
    missing = sorted(set(wanted) - {Path(clip["path"]).name for clip in clips})
    if missing:
        more = f" and {len(missing) - 1} more clips" if len(missing) > 1 else ""
        raise DataError(
            f"{table}: does not list {missing[0]}{more} of FSDKaggle2018; get the whole table from "
            "FSDKaggle2018.meta.zip"
        )


def _tell_unlisted(folder: Path, clips: list[dict]) -> None:
    """Warn of sounds that no table lists; they are left out."""
    unlisted = sorted(
        {file.name for file in folder.glob("*.wav")} - {Path(clip["path"]).name for clip in clips}
    )
    if unlisted:
        warnings.warn(
            f"{folder}: {len(unlisted)} sounds are in no table and are left out, the first is "
            f"{unlisted[0]}",
            stacklevel=3,
        )


def upload_groups(freesound_ids: dict[str, int], labels: dict[str, str]) -> dict[str, str]:
    """Return the run of consecutive Freesound numbers and one label that each clip belongs to.

    Freesound numbers sounds as they are uploaded. Of the 4,568 pairs of clips with consecutive
    numbers, train and scored test together, 96 % have one label, where chance would give 3 %: they
    are takes that one person uploaded in one go. See ``data/README.md``.

    Parameters
    ----------
    freesound_ids, labels : of each clip, by file name.

    Returns
    -------
    For each file name the lowest Freesound number of its run.
    """
    if not freesound_ids:
        return {}
    ordered = sorted(freesound_ids, key=lambda name: (freesound_ids[name], name))
    first = ordered[0]
    groups = {first: str(freesound_ids[first])}
    for before, name in pairwise(ordered):
        apart = freesound_ids[name] - freesound_ids[before]
        if apart > 1 or (apart == 1 and labels[name] != labels[before]):
            first = name
        groups[name] = str(freesound_ids[first])
    return groups


def stratified_folds(
    clip_ids: Sequence[str],
    strata: Sequence[str],
    groups: Sequence[str],
    n_folds: int = 5,
    seed: int = 0,
) -> dict[str, int]:
    """Deal clips into folds of like composition, keeping groups whole.

    Groups are dealt one at a time, large ones first and otherwise in an order drawn from the seed
    and the group's name, each to the fold that has the fewest clips of the group's strata so far.
    Nothing depends on the order of the arguments' elements. The committed folds were dealt by this
    function; tables of one's own go by `tables.deal_folds`.

    Parameters
    ----------
    clip_ids, strata, groups : for each clip its id, the stratum to spread evenly (a label, say) and
        its source recording.
    n_folds : fewer are used where there are fewer groups.
    seed : another seed deals other folds.

    Returns
    -------
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


def make_folds(tables: Path) -> pd.DataFrame:
    """Deal the train clips into folds stratified on label x manually_verified, runs kept whole.

    Parameters
    ----------
    tables : folder with train_post_competition.csv and test_post_competition_scoring_clips.csv.

    Returns
    -------
    Columns fname, fold (-1 for test clips), group, sorted by fname.
    """
    train = read_rows(tables / TRAIN_TABLES[1], ("fname", "label", "manually_verified"))
    rows = {row["fname"]: row for _, row in train}
    scored = _test_rows(tables / TEST_TABLES[1])
    both = rows | {row["fname"]: row for _, row in scored}
    groups = upload_groups(
        {name: int(row["freesound_id"]) for name, row in both.items()},
        {name: row["label"] for name, row in both.items()},
    )
    folds = stratified_folds(
        list(rows),
        [f"{row['label']}|{row['manually_verified']}" for row in rows.values()],
        [groups[name] for name in rows],
    )
    table = [(name, folds.get(name, NO_FOLD), groups[name]) for name in sorted(both)]
    return pd.DataFrame(table, columns=["fname", "fold", "group"])


def main(arguments: list[str] | None = None) -> int:
    """Write the manifest of folds and return the exit status."""
    parser = argparse.ArgumentParser(description="Write the folds of FSDKaggle2018.")
    parser.add_argument("--tables", required=True, type=Path, help="folder of FSDKaggle2018.meta")
    options = parser.parse_args(arguments)
    try:
        folds = make_folds(options.tables)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path = archives.MANIFESTS / MANIFEST
    folds.to_csv(path, index=False, lineterminator="\n")
    print(f"{path}: {len(folds)} clips")
    return 0


if __name__ == "__main__":
    sys.exit(main())
