"""FSDKaggle2018: Zenodo's layout and Kaggle's, the committed folds, and what bad files get.

The sounds cannot be had here; made-up files have the real layout. The real tables are used where
the environment variable FSDKAGGLE2018_TABLES names a folder that holds them.
"""

import importlib.util
import os
import random
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from test_datasets import check_contract, shuffled_listing, write_zip

from freesound_tagging.errors import DataError
from freesound_tagging.sounds import archives
from freesound_tagging.sounds.archives import read_manifest
from freesound_tagging.sounds.catalogue import load
from freesound_tagging.sounds.clips import load_clip
from freesound_tagging.sounds.fsdkaggle2018 import KAGGLE_FOLDER, usage_of_test_clips

SCRIPT = archives.MANIFESTS / "deal_fsdkaggle2018_folds.py"
spec = importlib.util.spec_from_file_location("deal_folds", SCRIPT)
dealing = importlib.util.module_from_spec(spec)
spec.loader.exec_module(dealing)

LABELS = ("Hi-hat", "Saxophone", "Trumpet")
TRAIN_HEAD = "fname,label,manually_verified,freesound_id,license"
TEST_HEAD = "fname,label,usage,freesound_id,license"
TABLES = ("train_post_competition.csv", "test_post_competition_scoring_clips.csv")
MANIFEST = "fsdkaggle2018_folds"

# The stand-in is not the published archive, and load says so.
pytestmark = pytest.mark.filterwarnings("ignore:.*its md5 is not the published")


def fsd_rows(n: int = 60) -> tuple[list[str], list[str]]:
    """Lines of the two tables: three labels, a third verified, no two uploaded in one go."""
    train = [
        f"{i:08x}.wav,{LABELS[i % 3]},{int(i // 3 % 3 == 0)},{1000 + 2 * i},Attribution"
        for i in range(n)
    ]
    usage = ("Public", "Private", "Private")
    test = [
        f"f{i:07x}.wav,{LABELS[i % 3]},{usage[i // 2 % 3]},{9000 + 2 * i},Attribution"
        for i in range(6)
    ]
    return train, test


def names_of(lines: list[str]) -> list[str]:
    return [line.split(",")[0] for line in lines]


def table_bytes(head: str, lines: list[str], end: str = "\n") -> bytes:
    """A table in UTF-8; with Windows line ends it has a byte order mark too."""
    return (end.join([head, *lines]) + end).encode("utf-8-sig" if end == "\r\n" else "utf-8")


def write_fsd(
    folder: Path,
    train: list[str],
    test: list[str],
    end: str = "\n",
    heads: tuple[str, str] = (TRAIN_HEAD, TEST_HEAD),
) -> None:
    """The archives of Zenodo, with empty sounds."""
    sounds = [dict.fromkeys(names_of(rows), b"") for rows in fsd_rows()]
    tables = zip(TABLES, heads, (train, test), strict=True)
    meta = {name: table_bytes(head, rows, end) for name, head, rows in tables}
    parts = {"meta": meta, "audio_train": sounds[0], "audio_test": sounds[1]}
    folder.mkdir(parents=True, exist_ok=True)
    for part, files in parts.items():
        write_zip(folder / f"FSDKaggle2018.{part}.zip", files)


def make_folds(train: list[str], test: list[str]) -> pd.DataFrame:
    """The folds of the made-up clips, made as those of the real ones are."""
    read = [
        pd.DataFrame([row.split(",") for row in rows], columns=head.split(","))
        for rows, head in ((train, TRAIN_HEAD), (test, TEST_HEAD))
    ]
    return dealing.make_folds(*(table.astype({"freesound_id": int}) for table in read))


@pytest.fixture
def fsd(tmp_path, monkeypatch) -> Path:
    """A DATA_MIRROR, and folds of the made-up clips in place of the committed ones."""
    folders = tmp_path / "manifests", tmp_path / "mirror"
    for folder in folders:
        folder.mkdir()
    make_folds(*fsd_rows()).to_csv(folders[0] / f"{MANIFEST}.csv", index=False)
    monkeypatch.setattr(archives, "MANIFESTS", folders[0])
    monkeypatch.setenv("DATA_MIRROR", str(folders[1]))
    return folders[1]


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "raw"


# --- Zenodo's layout ---------------------------------------------------------------------------


def test_zenodo_table(fsd, root):
    write_fsd(fsd, *fsd_rows())
    with pytest.warns(UserWarning, match=r"FSDKaggle2018\.meta\.zip: its md5 is not"):
        table = load("fsdkaggle2018", root)
    check_contract(table)
    train, test = (table[table["split"] == split] for split in ("train", "test"))
    assert (len(train), len(test)) == (60, 6)
    assert test["fold"].eq(-1).all()
    assert test["verified"].all()
    assert train["verified"].sum() == 21
    clip = table.loc["00000004"]
    assert (clip["label"], clip["group"], clip["verified"]) == ("Saxophone", "1008", False)
    assert clip["path"] == str(root / "fsdkaggle2018/FSDKaggle2018.audio_train/00000004.wav")
    # Each fold has its share of every label x verified: 7 or 13 clips over 5 folds.
    counts = pd.crosstab([train["label"], train["verified"]], train["fold"]).to_numpy()
    assert (counts.max(axis=1) - counts.min(axis=1)).max() <= 1
    assert train["fold"].value_counts().between(11, 13).all()
    usage = usage_of_test_clips(root)
    assert usage.to_dict() == {f"f{i:07x}": "Public" if i < 2 else "Private" for i in range(6)}


def test_order_of_rows_line_ends_and_byte_order_mark_change_nothing(
    fsd, root, tmp_path, monkeypatch
):
    """Fault 1: the reference applied folds in CSV order to files in directory order."""
    write_fsd(fsd, *fsd_rows())
    table = load("fsdkaggle2018", root)
    shuffled = [random.Random(3).sample(lines, len(lines)) for lines in fsd_rows()]
    write_fsd(fsd, *shuffled, end="\r\n")
    shuffled_listing(monkeypatch)
    again = load("fsdkaggle2018", tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(again.drop(columns="path"), table.drop(columns="path"))


TRAIN, TEST = fsd_rows()
STRANGER = "zzzz.wav,Trumpet,0,77,Attribution"
HEADS = (TRAIN_HEAD, TEST_HEAD)


@pytest.mark.parametrize(
    ("train", "test", "heads", "message"),
    [
        (TRAIN[:-2], TEST, HEADS, r"train_.*only one lists 0000003a\.wav"),
        ([*TRAIN, STRANGER], TEST, HEADS, r"only one lists zzzz\.wav; .*path/to/table\.csv"),
        (TRAIN, TEST, (TRAIN_HEAD, "fname,label,c,d,e"), r"test_.*csv, line 1: needed are .*usage"),
    ],
)
def test_faulty_tables(fsd, root, train, test, heads, message):
    write_fsd(fsd, train, test, heads=heads)
    with pytest.raises(DataError, match=message):
        load("fsdkaggle2018", root)


# --- Kaggle's layout ---------------------------------------------------------------------------


def write_kaggle(folder: Path) -> None:
    """The challenge's files as Kaggle has them, with ignored test clips, some of them empty."""
    train, test = fsd_rows()
    test += [f"1gnored{i}.wav,None,Ignored,," for i in range(4)]
    for name, lines in (("audio_train", train), ("audio_test", test)):
        (folder / name).mkdir(parents=True)
        for i, fname in enumerate(names_of(lines)):
            if fname.startswith("1gnored") and i % 2:
                (folder / name / fname).write_bytes(b"")
            else:
                sf.write(folder / name / fname, np.sin(np.arange(500) * 0.1), 44_100)
    train = [line.rsplit(",", 2)[0] for line in train]
    (folder / "train.csv").write_bytes(table_bytes("fname,label,manually_verified", train))
    (folder / "test_post_competition.csv").write_bytes(table_bytes(TEST_HEAD, test))


@pytest.mark.parametrize("place", ["mirror", "raw"])
def test_kaggle_layout_gives_zenodos_table(fsd, root, tmp_path, monkeypatch, place):
    write_fsd(fsd, *fsd_rows())
    zenodo = load("fsdkaggle2018", root)
    write_kaggle(fsd / KAGGLE_FOLDER)
    pd.testing.assert_frame_equal(load("fsdkaggle2018", root), zenodo)  # it goes first, unpacked
    own = tmp_path / "own"
    folder = (own if place == "mirror" else own / "raw") / KAGGLE_FOLDER
    write_kaggle(folder)
    monkeypatch.setenv("DATA_MIRROR", str(own) if place == "mirror" else "")
    monkeypatch.setattr(archives, "find_archive", lambda *_: pytest.fail("no archive is needed"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = load("fsdkaggle2018", own / "raw")
    pd.testing.assert_frame_equal(table.drop(columns="path"), zenodo.drop(columns="path"))
    assert set(map(str, folder.rglob("*.wav"))) > set(table["path"])
    assert {len(load_clip(path)[0]) for path in table["path"]} == {44_100}
    pd.testing.assert_series_equal(usage_of_test_clips(own / "raw"), usage_of_test_clips(root))


def test_kaggle_without_a_table_of_the_test_clips(fsd, root):
    write_kaggle(fsd / KAGGLE_FOLDER)
    (fsd / KAGGLE_FOLDER / "test_post_competition.csv").unlink()
    with pytest.warns(UserWarning, match=r"test_post_competition\.csv: is not there, so test"):
        table = load("fsdkaggle2018", root)
    assert table["split"].eq("train").all()
    assert len(table) == 60


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("train.csv", r"train\.csv: cannot be read"),
        ("audio_train", r"train\.csv, line 2: no file .*and 55 more"),
        ("audio_test/f0000003.wav", r"test_post_competition\.csv, line 5: no file .*f0000003"),
    ],
)
def test_kaggle_folder_that_is_not_whole(fsd, root, gone, message):
    folder = fsd / KAGGLE_FOLDER
    write_kaggle(folder)
    (folder / gone).rename(folder / "gone")
    with pytest.raises(DataError, match=message):
        load("fsdkaggle2018", root)
    assert not root.exists()


# --- the committed folds -----------------------------------------------------------------------


def test_the_committed_folds():
    folds = read_manifest(MANIFEST, "fname").astype({"fold": int})
    assert folds.index.is_unique
    assert folds.index.str.fullmatch(r"[0-9a-f]{8}\.wav").all()
    train, test = folds[folds["fold"] >= 0], folds[folds["fold"] == -1]
    assert (len(train), len(test)) == (9_473, 1_600)
    assert sorted(train["fold"].unique()) == [0, 1, 2, 3, 4]
    assert train["fold"].value_counts().between(1_850, 2_000).all()
    assert train.groupby("group")["fold"].nunique().max() == 1
    assert train["group"].nunique() == 5_770


def test_the_committed_folds_are_those_of_the_tables():
    folder = os.environ.get("FSDKAGGLE2018_TABLES", "")
    if not folder:
        pytest.skip("needs FSDKAGGLE2018_TABLES: a folder with the tables of FSDKaggle2018.meta")
    tables = (pd.read_csv(Path(folder) / name) for name in TABLES)
    text = dealing.make_folds(*tables).to_csv(index=False, lineterminator="\n")
    assert (archives.MANIFESTS / f"{MANIFEST}.csv").read_bytes() == text.encode()
