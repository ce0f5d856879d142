"""FSDKaggle2018: its clip table from Zenodo's files or from Kaggle's.

The folds are those of ``data/fsdkaggle2018_folds.csv``, found by file name; the script
``data/deal_fsdkaggle2018_folds.py`` dealt them.
"""

import os
import warnings
from pathlib import Path

import pandas as pd

from freesound_tagging.errors import DataError
from freesound_tagging.sounds.archives import Archive, Dataset, fetch, read_manifest
from freesound_tagging.sounds.tables import NO_FOLD, as_table, find_files, read_rows


def _zenodo(name: str, md5: str) -> Archive:
    url = f"https://zenodo.org/records/2552860/files/{name}.zip?download=1"
    return Archive(f"{name}.zip", url, f"fsdkaggle2018/{name}", md5)


DATASET = Dataset(
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
    ),
)

KAGGLE_FOLDER = "freesound-audio-tagging"  # named as the challenge is; its files as they are there


def load(root: Path) -> pd.DataFrame:
    """Return the clip table, see `catalogue.load`.

    Of the test clips those that the challenge scored are listed; they count as verified, for the
    organisers checked all of them.
    """
    train_table, test_table, sounds = find_tables(root)
    folds = read_manifest("fsdkaggle2018_folds", "fname").astype({"fold": int})
    train = read_rows(train_table, ("fname", "label", "manually_verified"))
    train["verified"] = train["manually_verified"] == "1"
    train = _with_folds(train, folds[folds["fold"] != NO_FOLD], sounds["train"])
    if not test_table.is_file():
        warnings.warn(f"{test_table}: is not there, so test clips cannot be scored", stacklevel=2)
        return as_table(train)
    test = _scored(test_table).assign(split="test", verified=True)
    test = _with_folds(test, folds[folds["fold"] == NO_FOLD], sounds["test"])
    return as_table(pd.concat([train.assign(split="train"), test]))


def _with_folds(clips: pd.DataFrame, folds: pd.DataFrame, sounds: Path) -> pd.DataFrame:
    """Add path, fold and group; refuse a table of other clips: folds of a part are other folds."""
    other = sorted(set(clips["fname"]) ^ set(folds.index))
    if other:
        raise DataError(
            f"{clips['where'].iloc[0]}: of this table and FSDKaggle2018 only one lists {other[0]}; "
            "get the table from FSDKaggle2018.meta.zip, or give a path/to/table.csv"
        )
    clips = clips.set_index("fname").assign(fold=folds["fold"], group=folds["group"])
    clips["path"] = [str(sounds / name) for name in clips.index]
    return clips.assign(path=find_files(clips))


def _scored(table: Path) -> pd.DataFrame:
    clips = read_rows(table, ("fname", "usage"))
    return clips[clips["usage"].isin(["Public", "Private"])]


def usage_of_test_clips(root: Path) -> pd.Series:
    """Return Public or Private, the challenge's ranking, for each scored test clip ``clip_id``."""
    scored = _scored(find_tables(root)[1])
    clip_ids = scored["fname"].str.removesuffix(".wav").rename("clip_id")
    return scored["usage"].set_axis(clip_ids).sort_index()


def sample_submission(root: Path) -> pd.DataFrame | None:
    """Return Kaggle's sample_submission.csv, which lies beside its train.csv; None without it."""
    path = find_tables(root)[0].with_name("sample_submission.csv")
    return read_rows(path, ("fname", "label"))[["fname", "label"]] if path.is_file() else None


def find_tables(root: Path) -> tuple[Path, Path, dict[str, Path]]:
    """Find the files in Zenodo's or Kaggle's layout, or fetch Zenodo's archives.

    In this order: Zenodo's, unpacked under ``root``; Kaggle's, in `KAGGLE_FOLDER` under DATA_MIRROR
    or ``root``, which is read where it lies; Zenodo's under DATA_MIRROR; Zenodo's, downloaded.
    Returns the table of the train clips, that of the test clips (which may not be there), and the
    folders of sounds by split.
    """
    if not all((root / archive.folder).is_dir() for archive in DATASET.archives):
        for place in (os.environ.get("DATA_MIRROR", ""), root):
            folder = Path(place, KAGGLE_FOLDER)
            if place and folder.is_dir():
                sounds = {split: folder / f"audio_{split}" for split in ("train", "test")}
                return folder / "train.csv", folder / "test_post_competition.csv", sounds
    meta, train, test = (fetch(archive, root) for archive in DATASET.archives)
    return (
        meta / "train_post_competition.csv",
        meta / "test_post_competition_scoring_clips.csv",
        {"train": train, "test": test},
    )
