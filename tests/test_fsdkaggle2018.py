"""FSDKaggle2018: Zenodo's layout and Kaggle's, the committed folds, and what bad files get.

The sounds cannot be had here; made-up files have the real layout. The real tables are used where
the environment variable FSDKAGGLE2018_TABLES names a folder that holds them.
"""

import os
import random
import warnings
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st
from test_datasets import assert_nothing_left, check_contract, shuffled_listing, write_zip

from freesound_tagging.errors import DataError
from freesound_tagging.sounds import archives, fsdkaggle2018
from freesound_tagging.sounds.catalogue import load
from freesound_tagging.sounds.clips import load_clip
from freesound_tagging.sounds.fsdkaggle2018 import (
    KAGGLE_FOLDER,
    MANIFEST,
    make_folds,
    read_folds,
    stratified_folds,
    upload_groups,
    usage_of_test_clips,
)

LABELS = ("Hi-hat", "Saxophone", "Trumpet")
TRAIN_HEAD = "fname,label,manually_verified,freesound_id,license"
TEST_HEAD = "fname,label,usage,freesound_id,license"

# The stand-in is not the published archive, and load says so.
other_md5 = pytest.mark.filterwarnings("ignore:.*its md5 is not the published")


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
    sounds: dict[str, bytes] | None = None,
    heads: tuple[str, str] = (TRAIN_HEAD, TEST_HEAD),
) -> None:
    """The archives of Zenodo, with empty sounds; ``sounds`` are added to those for training."""
    meta = {
        "train_post_competition.csv": table_bytes(heads[0], train, end),
        "test_post_competition_scoring_clips.csv": table_bytes(heads[1], test, end),
    }
    for_training, for_testing = (dict.fromkeys(names_of(rows), b"") for rows in fsd_rows())
    for_training |= sounds or {}
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"meta": meta, "audio_train": for_training, "audio_test": for_testing}
    for part, files in parts.items():
        write_zip(folder / f"FSDKaggle2018.{part}.zip", files)


def write_manifest(folder: Path, train: list[str], test: list[str]) -> None:
    """The folds of the made-up clips, made as those of the real ones are."""
    tables = folder / "tables"
    tables.mkdir(exist_ok=True)
    (tables / "train_post_competition.csv").write_bytes(table_bytes(TRAIN_HEAD, train))
    (tables / "test_post_competition_scoring_clips.csv").write_bytes(table_bytes(TEST_HEAD, test))
    make_folds(tables).to_csv(folder / MANIFEST, index=False)


@pytest.fixture
def manifest(tmp_path, monkeypatch) -> Path:
    """Folds of the made-up clips in place of the committed ones."""
    folder = tmp_path / "manifests"
    folder.mkdir()
    write_manifest(folder, *fsd_rows())
    monkeypatch.setattr(archives, "MANIFESTS", folder)
    return folder


@pytest.fixture
def fsd(tmp_path, monkeypatch, manifest) -> Path:
    """A DATA_MIRROR."""
    folder = tmp_path / "mirror"
    folder.mkdir()
    monkeypatch.setenv("DATA_MIRROR", str(folder))
    return folder


@pytest.fixture
def root(tmp_path) -> Path:
    return tmp_path / "raw"


# --- Zenodo's layout ---------------------------------------------------------------------------


@other_md5
def test_zenodo_table(fsd, root):
    write_fsd(fsd, *fsd_rows())
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


@other_md5
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


@other_md5
def test_mirror_with_other_md5_is_told(fsd, root):
    write_fsd(fsd, *fsd_rows())
    with pytest.warns(UserWarning, match=r"FSDKaggle2018\.meta\.zip: its md5 is not"):
        load("fsdkaggle2018", root)


@other_md5
def test_listed_clip_without_sound(fsd, root, manifest):
    train, test = fsd_rows()
    train.append("zzzz.wav,Trumpet,0,77,Attribution")
    write_manifest(manifest, train, test)
    write_fsd(fsd, train, test)
    with pytest.raises(DataError, match=r"train_post_competition\.csv, line 62: no file .*zzzz"):
        load("fsdkaggle2018", root)


@other_md5
def test_sound_that_is_not_listed(fsd, root):
    write_fsd(fsd, *fsd_rows(), sounds={"stray.wav": b"", "stray2.wav": b"", "notes.txt": b""})
    with pytest.warns(UserWarning, match=r"audio_train: 2 sounds are in no table.*is stray\.wav"):
        table = load("fsdkaggle2018", root)
    assert "stray" not in table.index


@other_md5
def test_clip_listed_twice(fsd, root):
    train, test = fsd_rows()
    write_fsd(fsd, [*train, train[4]], test)
    with pytest.raises(DataError, match=r"clip '00000004' is listed twice .*line 6"):
        load("fsdkaggle2018", root)


@other_md5
def test_clip_that_the_tables_lack(fsd, root):
    train, test = fsd_rows()
    write_fsd(fsd, train[:-2], test)
    with pytest.raises(DataError, match=r"does not list 0000003a\.wav and 1 more clips"):
        load("fsdkaggle2018", root)


@other_md5
def test_clip_that_has_no_fold(fsd, root, manifest):
    train, test = fsd_rows()
    write_fsd(fsd, [*train, "zzzz.wav,Trumpet,0,77,Attribution"], test)
    with pytest.raises(
        DataError, match=rf"line 62: clip 'zzzz\.wav' is not in .*{MANIFEST}.*path/to/table\.csv"
    ):
        load("fsdkaggle2018", root)


@other_md5
def test_test_clip_among_those_for_training(fsd, root):
    train, test = fsd_rows()
    write_fsd(fsd, [*train, "f0000000.wav,Trumpet,0,77,Attribution"], test)
    with pytest.raises(DataError, match=r"line 62: clip 'f0000000\.wav' is a test clip"):
        load("fsdkaggle2018", root)


@other_md5
@pytest.mark.parametrize(
    ("heads", "message"),
    [
        (
            (TRAIN_HEAD.replace("label", "class"), TEST_HEAD),
            r"train_.*line 1: no column label",
        ),
        ((TRAIN_HEAD.replace("man", "auto"), TEST_HEAD), "line 1: no column manually_verified"),
        ((TRAIN_HEAD, TEST_HEAD.replace("usage", "use")), r"test_.*csv, line 1: no column usage"),
    ],
)
def test_missing_columns(fsd, root, heads, message):
    write_fsd(fsd, *fsd_rows(), heads=heads)
    with pytest.raises(DataError, match=message):
        load("fsdkaggle2018", root)


@other_md5
def test_values_that_are_not_legal(fsd, root, tmp_path):
    train, test = fsd_rows()
    write_fsd(fsd, [train[0].replace(",1,", ",yes,"), *train[1:]], test)
    with pytest.raises(DataError, match="line 2: manually_verified is 'yes'; legal are 0 and 1"):
        load("fsdkaggle2018", root)
    write_fsd(fsd, train, [test[0].replace("Public", "Secret"), *test[1:]])
    with pytest.raises(DataError, match="line 2: usage is 'Secret'; legal are Public, Private, Ig"):
        load("fsdkaggle2018", tmp_path / "elsewhere")


@other_md5
@pytest.mark.parametrize("part", ["meta", "audio_train", "audio_test"])
def test_truncated_archive_leaves_nothing_of_its_own(fsd, root, part):
    write_fsd(fsd, *fsd_rows())
    path = fsd / f"FSDKaggle2018.{part}.zip"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(DataError, match=rf"FSDKaggle2018\.{part}\.zip: is truncated"):
        load("fsdkaggle2018", root)
    assert not (root / "fsdkaggle2018" / f"FSDKaggle2018.{part}").exists()


@other_md5
@pytest.mark.parametrize("name", ["../outside.wav", "/outside.wav"])
def test_unsafe_names_are_refused(fsd, root, name):
    write_fsd(fsd, *fsd_rows())
    with zipfile.ZipFile(fsd / "FSDKaggle2018.meta.zip", "a") as archive:
        archive.writestr(name, b"evil")
    with pytest.raises(DataError, match="leads outside its folder; nothing was unpacked"):
        load("fsdkaggle2018", root)
    assert not list((root / "fsdkaggle2018").iterdir())


@other_md5
def test_documents_come_along_but_are_no_reason_to_go_online(fsd, root, tmp_path, monkeypatch):
    write_fsd(fsd, *fsd_rows())
    monkeypatch.setattr(archives, "download_file", lambda *_, **__: pytest.fail("went online"))
    load("fsdkaggle2018", root)
    assert not (root / "fsdkaggle2018" / "FSDKaggle2018.doc").exists()
    write_zip(fsd / "FSDKaggle2018.doc.zip", {"README.md": b"who made the sounds"})
    load("fsdkaggle2018", root)
    assert (root / "fsdkaggle2018" / "FSDKaggle2018.doc" / "README.md").is_file()


def test_the_four_archives_are_fetched_where_none_is_there(manifest, root, tmp_path, monkeypatch):
    write_fsd(tmp_path / "zenodo", *fsd_rows())
    write_zip(tmp_path / "zenodo" / "FSDKaggle2018.doc.zip", {"README.md": b""})
    monkeypatch.delenv("DATA_MIRROR", raising=False)
    asked = {}

    def copy(url, target, *, md5):
        asked[url] = md5
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((tmp_path / "zenodo" / target.name).read_bytes())
        return target

    monkeypatch.setattr(archives, "download_file", copy)
    check_contract(load("fsdkaggle2018", root))
    assert asked == {a.url: a.md5 for a in fsdkaggle2018.DATASET.archives}
    assert len(asked) == 4
    assert all(len(md5) == 32 for md5 in asked.values())


# --- Kaggle's layout ---------------------------------------------------------------------------


def write_kaggle(
    folder: Path,
    *,
    extra_columns: bool = True,
    test_table: bool = True,
    train_name: str = "train.csv",
) -> None:
    """The challenge's files as Kaggle has them, with ignored test clips, some of them empty."""
    train, test = fsd_rows()
    test = [*test, *(f"1gnored{i}.wav,None,Ignored,,," for i in range(4))]
    test = [line.removesuffix(",") if line.endswith(",,,") else line for line in test]
    for name, lines in (("audio_train", train), ("audio_test", test)):
        (folder / name).mkdir(parents=True)
        for i, fname in enumerate(names_of(lines)):
            if fname.startswith("1gnored") and i % 2:
                (folder / name / fname).write_bytes(b"")
            else:
                sf.write(folder / name / fname, np.sin(np.arange(500) * 0.1), 44_100)
    if not extra_columns:
        train = [line.rsplit(",", 2)[0] for line in train]
    head = TRAIN_HEAD if extra_columns else "fname,label,manually_verified"
    (folder / train_name).write_bytes(table_bytes(head, train))
    if test_table:
        (folder / "test_post_competition.csv").write_bytes(table_bytes(TEST_HEAD, test))


@other_md5
@pytest.mark.parametrize("extra_columns", [True, False])
@pytest.mark.parametrize("place", ["mirror", "raw"])
@pytest.mark.parametrize("train_name", ["train.csv", "train_post_competition.csv"])
def test_kaggle_layout_gives_zenodos_table(
    fsd, root, tmp_path, monkeypatch, extra_columns, place, train_name
):
    write_fsd(fsd, *fsd_rows())
    zenodo = load("fsdkaggle2018", root)
    own = tmp_path / "own"
    folder = (own if place == "mirror" else own / "raw") / KAGGLE_FOLDER
    write_kaggle(folder, extra_columns=extra_columns, train_name=train_name)
    monkeypatch.setenv("DATA_MIRROR", str(own) if place == "mirror" else "")
    monkeypatch.setattr(archives, "find_archive", lambda *_: pytest.fail("no archive is needed"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = load("fsdkaggle2018", own / "raw")
    check_contract(table)
    pd.testing.assert_frame_equal(table.drop(columns="path"), zenodo.drop(columns="path"))
    assert set(map(str, folder.rglob("*.wav"))) > set(table["path"])
    assert {len(load_clip(path)[0]) for path in table["path"]} == {44_100}
    pd.testing.assert_series_equal(usage_of_test_clips(own / "raw"), usage_of_test_clips(root))


def test_kaggle_without_a_table_of_the_test_clips(fsd, root):
    write_kaggle(fsd / KAGGLE_FOLDER, test_table=False)
    with pytest.warns(UserWarning, match=r"no test_post_competition\.csv, so that the test clips"):
        table = load("fsdkaggle2018", root)
    assert table["split"].eq("train").all()
    assert len(table) == 60
    assert usage_of_test_clips(root).empty


@other_md5
def test_zenodos_files_go_first_once_unpacked(fsd, root):
    write_fsd(fsd, *fsd_rows())
    zenodo = load("fsdkaggle2018", root)
    write_kaggle(fsd / KAGGLE_FOLDER)
    pd.testing.assert_frame_equal(load("fsdkaggle2018", root), zenodo)


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("train.csv", r"no train\.csv; put there the files of the challenge"),
        ("audio_train", r"no folder audio_train; unpack audio_train\.zip there"),
        ("audio_test", r"no folder audio_test; unpack audio_test\.zip there"),
        ("audio_train/00000007.wav", r"train\.csv, line 9: no file .*00000007\.wav"),
        ("audio_test/f0000003.wav", r"test_post_competition\.csv, line 5: no file .*f0000003"),
    ],
)
def test_kaggle_folder_that_is_not_whole(fsd, root, gone, message):
    folder = fsd / KAGGLE_FOLDER
    write_kaggle(folder)
    (folder / gone).rename(folder / "gone")
    with pytest.raises(DataError, match=message):
        load("fsdkaggle2018", root)
    assert_nothing_left(root)


def test_kaggle_scored_clip_without_a_label(fsd, root):
    write_kaggle(fsd / KAGGLE_FOLDER)
    table = fsd / KAGGLE_FOLDER / "test_post_competition.csv"
    table.write_text(table.read_text().replace("f0000001.wav,Saxophone", "f0000001.wav,"))
    with pytest.raises(DataError, match=r"test_post_competition\.csv, line 3: label is blank"):
        load("fsdkaggle2018", root)


# --- dealing ------------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 30)), min_size=1, max_size=80),
    st.randoms(use_true_random=False),
    st.integers(0, 5),
)
def test_folds_keep_groups_and_ignore_order(clips_drawn, order, seed):
    rows = [(f"clip{i}", f"s{s}", f"g{g}") for i, (s, g) in enumerate(clips_drawn)]
    folds = stratified_folds(*zip(*rows, strict=True), seed=seed)
    assert set(folds) == {clip_id for clip_id, _, _ in rows}
    groups = {group: {folds[c] for c, _, g in rows if g == group} for _, _, group in rows}
    assert all(len(used) == 1 for used in groups.values())
    assert set(folds.values()) == set(range(min(5, len(groups))))
    order.shuffle(rows)
    assert stratified_folds(*zip(*rows, strict=True), seed=seed) == folds


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=200))
def test_folds_without_groups_are_as_even_as_can_be(strata):
    names = [f"clip{i}" for i in range(len(strata))]
    folds = stratified_folds(names, [str(s) for s in strata], names)
    counts = Counter((s, folds[name]) for s, name in zip(strata, names, strict=True))
    for s in set(strata):
        each = [counts[s, fold] for fold in range(5)]
        assert max(each) - min(each) <= 1
    sizes = Counter(folds.values())
    assert max(sizes.values()) - min(sizes.values()) <= 2


def test_folds_are_fixed_for_good():
    """Published results rest on these: another Python or library must deal the same."""
    names = [f"{i:03d}.wav" for i in range(12)]
    folds = stratified_folds(names, ["a", "b"] * 6, names)
    assert [folds[name] for name in names] == [1, 3, 2, 0, 3, 4, 4, 1, 3, 0, 0, 2]
    assert stratified_folds(names, ["a", "b"] * 6, names, seed=1) != folds


# --- the committed folds -----------------------------------------------------------------------

# As counted in the tables.
N_TRAIN, N_TEST = 9_473, 1_600


def test_the_committed_folds():
    folds = read_folds()
    assert folds.index.is_unique
    assert folds.index.is_monotonic_increasing
    assert folds.index.str.fullmatch(r"[0-9a-f]{8}\.wav").all()
    train, test = folds[folds["fold"] >= 0], folds[folds["fold"] == -1]
    assert (len(train), len(test)) == (N_TRAIN, N_TEST)
    assert fsdkaggle2018.DATASET.n_clips == len(folds)
    assert sorted(train["fold"].unique()) == [0, 1, 2, 3, 4]
    assert train["fold"].value_counts().between(1_850, 2_000).all()
    assert train.groupby("group")["fold"].nunique().max() == 1
    assert train["group"].nunique() == 5_770
    assert (archives.MANIFESTS / MANIFEST).stat().st_size < 300_000


@pytest.fixture
def tables() -> Path:
    folder = os.environ.get("FSDKAGGLE2018_TABLES", "")
    if not folder:
        pytest.skip("needs FSDKAGGLE2018_TABLES: a folder with the tables of FSDKaggle2018.meta")
    return Path(folder)


def test_the_committed_folds_are_those_of_the_tables(tables):
    text = make_folds(tables).to_csv(index=False, lineterminator="\n")
    assert (archives.MANIFESTS / MANIFEST).read_bytes() == text.encode()


def test_the_folds_have_a_share_of_every_label_and_stratum(tables):
    train = pd.read_csv(tables / "train_post_competition.csv").set_index("fname")
    train = train.join(read_folds())
    by_label = pd.crosstab(train["label"], train["fold"])
    share = by_label.div(by_label.sum(axis=1), axis=0)
    assert by_label.to_numpy().min() >= 1
    # Two labels have a run of uploads longer than a fold's share; all others are dealt evenly.
    uneven = share[(share > 0.3).any(axis=1)].index
    assert set(uneven) == {"Oboe", "Harmonica"}
    strata = pd.crosstab([train["label"], train["manually_verified"]], train["fold"])
    even = strata.drop(index=uneven, level=0)
    assert (even.sub(even.mean(axis=1), axis=0).abs() <= 4).to_numpy().mean() > 0.97


def test_what_the_tables_tell_of_uploads(tables):
    """The figures of data/README.md."""
    train = pd.read_csv(tables / "train_post_competition.csv")
    test = pd.read_csv(tables / "test_post_competition_scoring_clips.csv")
    both = pd.concat([train, test]).sort_values("freesound_id", ignore_index=True)
    assert both["freesound_id"].is_unique
    assert set(both["license"]) == {
        "Attribution",
        "Creative Commons 0",
        "Attribution Noncommercial",
    }
    one_apart = both["freesound_id"].diff() == 1
    alike = both["label"] == both["label"].shift()
    assert (one_apart.sum(), (one_apart & alike).sum()) == (4_568, 4_375)
    assert (both["label"].value_counts(normalize=True) ** 2).sum() == pytest.approx(0.027, abs=5e-4)
    groups = read_folds()
    trained = set(groups.loc[train["fname"], "group"])
    assert groups.loc[test["fname"], "group"].isin(trained).sum() == 522


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(st.integers(0, 60), st.sampled_from("ab"), max_size=30),
    st.randoms(use_true_random=False),
)
def test_runs_of_uploads(uploads, order):
    ids = {f"{number}.wav": number for number in uploads}
    labels = {f"{number}.wav": label for number, label in uploads.items()}
    groups = upload_groups(ids, labels)
    for number, label in uploads.items():
        own = groups[f"{number}.wav"]
        first = number
        while uploads.get(first - 1) == label:
            first -= 1
        assert own == str(first)
    names = list(ids)
    order.shuffle(names)
    assert upload_groups({name: ids[name] for name in names}, labels) == groups


def test_takes_with_one_number_are_one_recording():
    groups = upload_groups({"a": 5, "b": 5, "c": 7}, {"a": "x", "b": "y", "c": "y"})
    assert Counter(groups.values()) == {"5": 2, "7": 1}


def test_the_command_writes_the_manifest(manifest, capsys):
    expected = (manifest / MANIFEST).read_bytes()
    (manifest / MANIFEST).unlink()
    with pytest.raises(DataError, match=rf"{MANIFEST}: the list of folds is missing"):
        read_folds()
    assert fsdkaggle2018.main(["--tables", str(manifest / "tables")]) == 0
    assert (manifest / MANIFEST).read_bytes() == expected
    assert fsdkaggle2018.main(["--tables", str(manifest / "nowhere")]) == 2
    assert "error: " in capsys.readouterr().err
