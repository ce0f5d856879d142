"""Clip tables: what each data set holds, and what bad tables and archives get.

Most tests use made-up archives with the real layout; those of the real sounds need the archives.
"""

import hashlib
import itertools
import os
import random
import shutil
import threading
import unicodedata
import warnings
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from freesound_tagging.errors import DataError
from freesound_tagging.sounds import archives, clips, esc10, insectset32
from freesound_tagging.sounds.catalogue import describe, load, load_at_hand
from freesound_tagging.sounds.tables import COLUMNS, check_sounds, deal_folds

REPOSITORY = Path(__file__).resolve().parents[1]
(ESC10,) = esc10.DATASET.archives


def check_contract(table: pd.DataFrame) -> None:
    """What every clip table promises."""
    assert table.index.name == "clip_id"
    assert table.index.is_unique
    assert table.index.is_monotonic_increasing
    assert tuple(table.columns) == COLUMNS
    assert table["fold"].dtype == int
    assert table["verified"].dtype == bool
    for column in ("path", "label", "split", "group"):
        assert table[column].map(type).eq(str).all()
    train = table[table["split"] == "train"]
    assert sorted(train["fold"].unique()) == list(range(train["fold"].max() + 1))
    assert train.groupby("group")["fold"].nunique().max() == 1
    assert train.groupby("label")["fold"].nunique().min() >= 2
    assert table["path"].map(os.path.isfile).all()


# --- the real archives -------------------------------------------------------------------------


CB = "Chorthippusbiguttulus"


@pytest.mark.parametrize(
    ("name", "sizes", "folds", "labels", "clip", "row"),
    [
        (
            "esc10",
            (400, 10, 304),
            (80, 80),
            (40, 40),
            "5-215658-B",
            ("Fire crackling", 4, "215658"),
        ),
        ("fsdd", (3000, 10, 60), (500, 500), (300, 300), "7_jackson_3", ("7", 1, "jackson_7")),
        (
            "insectset32",
            (330, 32, 231),
            (64, 68),
            (4, 22),
            f"{CB}_dat030-001",
            (CB, 4, f"{CB}|dat030"),
        ),
    ],
)
def test_real_archives(tmp_path, monkeypatch, name, sizes, folds, labels, clip, row):
    (archive,) = describe(name).archives
    mirrors = (os.environ.get("DATA_MIRROR", ""), str(REPOSITORY.parent / "shared" / "data"))
    for mirror in filter(None, mirrors):
        if Path(mirror, archive.file).is_file():
            break
    else:
        pytest.skip(f"needs {archive.file} in the folder that DATA_MIRROR names")
    monkeypatch.setenv("DATA_MIRROR", mirror)
    table = load(name, tmp_path)
    check_contract(table)
    assert (len(table), table["label"].nunique(), table["group"].nunique()) == sizes
    for column, (fewest, most) in (("fold", folds), ("label", labels)):
        assert table[column].value_counts().agg(["min", "max"]).tolist() == [fewest, most]
    assert tuple(table.loc[clip, ["label", "fold", "group"]]) == row
    for path in table["path"].iloc[:: len(table) // 10]:
        waveforms, note = clips.load_windows(path, 44_100, 1.0, 3)
        assert waveforms.shape == (3, 44_100)
        assert note == "" or name == "fsdd"  # spoken digits are shorter
    if name != "insectset32":  # its authors are named in data/README.md
        assert list((tmp_path / name).glob("README*"))
    monkeypatch.setattr(archives, "find_archive", refuse)
    pd.testing.assert_frame_equal(load(name, tmp_path), table)


def refuse(*_, **__):
    raise AssertionError("nothing should be fetched or hashed")


# --- made-up archives --------------------------------------------------------------------------


def esc10_files(seed: int = 0) -> dict[str, bytes]:
    """Two classes in five folds; what is in the files does not matter to `load`."""
    draw = random.Random(seed)
    return {
        f"{label}/{fold}-{100 * fold + 10 * c}-{take}.ogg": draw.randbytes(50)
        for (c, label), fold, take in itertools.product(
            enumerate(["001 - Dog bark", "002 - Rain"]), range(1, 6), "AB"
        )
    }


def write_zip(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(f"{path.stem}/{name}", content)


def write_manifest(folder: Path, lines: list[str]) -> None:
    (folder / "esc10.csv").write_text("\n".join(["file,sha256", *lines]) + "\n")


LINES = [f"{name},{hashlib.sha256(content).hexdigest()}" for name, content in esc10_files().items()]


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A DATA_MIRROR with a small ESC-10, and its manifest in place of the committed one."""
    folder = tmp_path / "mirror"
    manifests = tmp_path / "manifests"
    folder.mkdir()
    manifests.mkdir()
    write_zip(folder / ESC10.file, esc10_files() | {"README.md": b"authors"})
    write_manifest(manifests, LINES)
    monkeypatch.setattr(archives, "MANIFESTS", manifests)
    monkeypatch.setenv("DATA_MIRROR", str(folder))
    return folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "raw"


def assert_nothing_left(root: Path) -> None:
    """After a failure there is neither a half data set nor a temporary folder."""
    assert not root.exists() or [p for p in root.iterdir() if p.name != "downloads"] == []


def test_an_archive_is_unpacked_and_verified_once(mirror, root, monkeypatch):
    (root / ".esc10.part").mkdir(parents=True)  # a run was killed while it unpacked
    found = []
    threads = [threading.Thread(target=lambda: found.append(load("esc10", root))) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for table in found:
        check_contract(table)
        assert len(table) == 20
    assert {p.name for p in root.iterdir()} == {"esc10", "downloads"}
    monkeypatch.setattr(archives, "find_archive", refuse)
    pd.testing.assert_frame_equal(load("esc10", root), found[0])
    pd.testing.assert_frame_equal(found[1], found[0])


def test_order_of_directories_and_manifests_changes_nothing(mirror, root, tmp_path, monkeypatch):
    """Faults 1 and 4 of the reference experiment: labels and folds go by name, not position."""
    table = load("esc10", root)
    files = list(esc10_files().items())
    random.Random(1).shuffle(files)
    write_zip(mirror / ESC10.file, dict(files))
    write_manifest(archives.MANIFESTS, random.Random(1).sample(LINES, len(LINES)))
    shuffled_listing(monkeypatch)
    again = load("esc10", tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(again.drop(columns="path"), table.drop(columns="path"))
    for path, other in zip(table["path"], again["path"], strict=True):
        assert Path(path).read_bytes() == Path(other).read_bytes()


def shuffled_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make directories list their entries in another order."""
    listdir, draw = os.listdir, random.Random(0)
    monkeypatch.setattr(
        os, "listdir", lambda path=".": sorted(listdir(path), key=lambda _: draw.random())
    )


CLIP = "002 - Rain/3-310-A.ogg"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("other", rf"{CLIP} has sha256 \w+, expected"),
        ("missing", f"{CLIP} has sha256 none: it is missing"),
        (0, "is truncated"),
        (-1, "is truncated"),
        ("flipped", "ESC-10"),
        ("room", r"no room to unpack ESC-10.*zip: .*set WORK_FOLDER"),
    ],
)
def test_archives_that_cannot_be_used_leave_nothing(mirror, root, monkeypatch, damage, message):
    path, files = mirror / ESC10.file, esc10_files()
    content = bytearray(path.read_bytes())
    if damage in ("other", "missing"):
        del files[CLIP]
        write_zip(path, files | ({CLIP: b"another sound"} if damage == "other" else {}))
    elif damage == "flipped":
        content[200] ^= 0xFF
        path.write_bytes(content)
    elif damage == "room":
        needed = sum(map(len, files.values()))
        monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    else:
        path.write_bytes(content[:damage])
    with pytest.raises(DataError, match=message) as caught:
        load("esc10", root)
    assert "ESC-10" in str(caught.value)
    assert_nothing_left(root)
    with pytest.warns(UserWarning, match="esc10 is left out: "):  # for false alarms
        assert load_at_hand("esc10", root) is None


def test_sounds_that_are_not_at_hand_are_not_fetched(mirror, root, monkeypatch):
    monkeypatch.setattr(archives, "download_file", refuse)
    assert len(load_at_hand("esc10", root)) == 20
    assert load_at_hand("fsdd", root) is None
    monkeypatch.delenv("DATA_MIRROR")
    assert len(load_at_hand("esc10", root)) == 20  # unpacked before


def test_a_mirror_that_is_not_there(root, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_MIRROR", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"DATA_MIRROR=.*gone: there is no such folder"):
        load("fsdd", root)


# --- InsectSet32: verified by its samples --------------------------------------------------------


def test_insects_as_flac_or_wav(tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_MIRROR", str(tmp_path))
    monkeypatch.setattr(archives, "MANIFESTS", tmp_path)
    lines, sounds = ["file,label,group,fold,samples_sha256"], {}
    for i in range(6):
        x = np.random.default_rng(i).integers(-(2**15), 2**15, 500).astype(np.int16)
        for ending in (".wav", ".flac"):
            sf.write(tmp_path / f"{i}{ending}", x, 44_100)
            sounds[i, ending] = (tmp_path / f"{i}{ending}").read_bytes()
        digest = hashlib.sha256((x.astype("<i4") << 16).tobytes()).hexdigest()
        assert insectset32.samples_hash(tmp_path / f"{i}.flac") == digest
        lines.append(f"data/A.b%20{i}.wav,{'ab'[i % 2]},session{i},{i // 2},{digest}")
    (tmp_path / "insectset32.csv").write_text("\n".join(lines))

    def load_insects(endings: list[str], folder: str, **other: bytes) -> pd.DataFrame:
        files = {f"data/A.b%20{i}{end}": sounds[i, end] for i, end in enumerate(endings)}
        files |= other
        write_zip(tmp_path / insectset32.DATASET.archives[0].file, files)
        return load("insectset32", tmp_path / folder)

    table = load_insects([".wav"] * 6, "wav")
    check_contract(table)
    assert table.at["A.b%203", "group"] == "session3"
    again = load_insects([".flac", ".wav"] * 3, "both")
    pd.testing.assert_frame_equal(again.drop(columns="path"), table.drop(columns="path"))
    assert again["path"].str.endswith(".flac").sum() == 3
    for content, message in (
        (sounds[2, ".wav"], " has sha256 .*, expected"),
        (b"", "': Format not recognised"),
    ):
        with pytest.raises(DataError, match=rf"data/A\.b%204\.wav{message}"):
            load_insects(
                [".wav"] * 4, "bad", **{"data/A.b%204.wav": content, "data/A.b%205.wav": b""}
            )
        assert_nothing_left(tmp_path / "bad")


# --- folds -------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), min_size=2, max_size=60),
    st.randoms(use_true_random=False),
)
def test_folds_keep_groups_spread_labels_and_ignore_order(clips_drawn, order):
    """Groups hold clips of several labels, so that labels hang together in every way."""
    rows = [(f"clip{i}", f"l{label}", f"g{g}") for i, (label, g) in enumerate(clips_drawn)]
    table = pd.DataFrame(rows, columns=["clip_id", "label", "group"])
    try:
        table["fold"] = deal_folds(table)
    except DataError as error:
        assert "could be both learned and tested; give each clip its fold" in str(error)
        return
    assert set(table["fold"]) == set(range(table["fold"].max() + 1))
    assert table.groupby("group")["fold"].nunique().max() == 1
    spread = table.groupby("label")[["fold", "group"]].nunique()
    assert (spread["fold"] > 1)[spread["group"] > 1].all()
    again = table.sample(frac=1, random_state=order.randrange(1000))
    pd.testing.assert_series_equal(deal_folds(again).sort_index(), table["fold"], check_names=False)


def test_labels_that_share_all_recordings_ask_for_a_fold_column():
    """Each of 15 rare labels lies in two of six recordings: five folds cannot part them all."""
    pairs = list(itertools.combinations("uvwxyz", 2))
    rows = [(f"{i}{g}", f"rare{i}", g) for i, pair in enumerate(pairs) for g in pair]
    rows += [(f"common{i}", "common", "uvwxyz"[i % 6]) for i in range(30)]
    with pytest.raises(DataError, match=r"label 'rare.* a column `fold`"):
        deal_folds(pd.DataFrame(rows, columns=["clip_id", "label", "group"]))


# --- a table of one's own ----------------------------------------------------------------------


@pytest.fixture
def sounds(tmp_path):
    """Twenty sounds in two folders, and a function that writes a table beside them."""
    for i in range(20):
        path = tmp_path / "my sounds" / f"{'ab'[i % 2]}" / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.random.default_rng(i).standard_normal(50 + i), 8_000)

    def write(text: str, encoding: str = "utf-8") -> Path:
        path = tmp_path / "my sounds" / "table.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


ROWS = [f"{'ab'[i % 2]}/{i:02d}.wav,{'ab'[i % 2]}" for i in range(20)]


def table_text(rows=ROWS, head="file,label", end="\n") -> str:
    return end.join([head, *rows]) + end


def test_own_table(sounds):
    path = sounds(table_text())
    table = load(path)
    check_contract(table)
    assert list(table.index) == sorted(row.split(",")[0] for row in ROWS)
    assert table.at["b/03.wav", "label"] == "b"
    assert table.at["b/03.wav", "group"] == "b/03.wav"
    assert Path(table.at["b/03.wav", "path"]) == path.parent / "b" / "03.wav"
    assert (pd.crosstab(table["label"], table["fold"]) == 2).to_numpy().all()
    assert table["split"].eq("train").all()
    assert table["verified"].all()


SWAPPED = [",".join(reversed(row.split(","))) for row in random.Random(1).sample(ROWS, len(ROWS))]
QUOTED = ['"{}", "{}"'.format(*row.split(",")) if i % 2 else row for i, row in enumerate(ROWS)]
WINDOWS = [row.replace("/", "\\") if i % 2 else f"./{row}" for i, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (table_text(SWAPPED, head="label,file"), "utf-8"),  # fault 1 of the reference, once more
        (table_text(end="\r\n"), "utf-8-sig"),
        (table_text(end="\r"), "utf-8"),
        (table_text().replace(",", ";"), "utf-8"),
        (table_text().replace(",", "\t"), "utf-8"),
        (table_text(QUOTED, ' file , "label"'), "utf-8"),
        (table_text([f"{row},," for row in ROWS], "\ufefffile,\u00a0label,,") + ",,,\n\n", "utf-8"),
        (table_text([f"{row}," for row in ROWS]), "utf-8"),
        (table_text(WINDOWS), "utf-8"),
    ],
)
def test_tables_as_programs_write_them(sounds, text, encoding):
    plain = load(sounds(table_text()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pd.testing.assert_frame_equal(load(sounds(text, encoding)), plain)


def test_given_folds_and_groups(sounds):
    rows = [f"{row},{(1, 2, 7)[i // 4 % 3]},rec{i // 2}" for i, row in enumerate(ROWS)]
    table = load(sounds(table_text(rows, "file,label,fold,group")))
    check_contract(table)
    assert table["fold"].tolist() == [(0, 1, 2)[int(c[2:4]) // 4 % 3] for c in table.index]
    assert table.at["a/06.wav", "group"] == "rec3"
    rows = [f"{row},rec{i // 3}" for i, row in enumerate(ROWS)]
    check_contract(load(sounds(table_text(rows, "file,label,group"))))


FOLDED = [f"{row},{i // 2 % 2}" for i, row in enumerate(ROWS)]
GROUPED = [f"{row},{i // 2 % 2},rec{i}" for i, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        ("file,class", ROWS, "line 1: needed are columns file, label.* found file, class"),
        ("", [], "is no CSV"),
        ("file,label,label ", [f"{row},b" for row in ROWS], "column 'label' stands twice"),
        ("file,label", [], "has no rows"),
        ("file,label", [*ROWS, ROWS[3]], r"line 22: clip 'b/03\.wav' is listed twice.*line 5"),
        ("file,label", ["", "", *ROWS, "a/99.wav,a"], r"line 24: no file .*a.99\.wav"),
        ("file,label", [*ROWS, "a,a"], "line 22: no file"),
        ("file,label", [*ROWS, "x" * 300 + ".wav,a"], r"line 22: no file .*x\.wav"),
        ("file,label", [*ROWS, ",a"], "line 22: file is blank"),
        ("file,label", [*ROWS, "a/00.wav,\u200b "], "line 22: label is blank"),
        ("file,label", [*ROWS[:4], '"b/05.wav","b\tc"'], r"line 6: label 'b\\tc' holds a control"),
        ("file,label", [*ROWS, "a/00.wav"], "line 22: label is blank"),
        ("file,label", [*ROWS, "a/00.wav,a,b"], "fields.* in double quotes"),
        ("file,label", [f"{row},b" for row in ROWS], "Length of header.* in double quotes"),
        ("file,label,x", [*ROWS, 'a/00.wav,a,"1\n2"', "a/00.wav"], "line 24: label is blank"),
        ("file,label", [*ROWS[:-1], ROWS[-1][:-1] + "B"], r"'B' differs from 'b' \(.*line 3\)"),
        ("file,label", [row[:-1] + "seed" for row in ROWS], "only 'seed'"),
        ("file,label", [row.replace(",a", ",seed") for row in ROWS], "'seed' cannot be a label"),
        ("file,label", [row.replace(",a", ",strangeness") for row in ROWS], "cannot be a label"),
        ("file,label", ROWS[::2] + ROWS[1:2], "line 12: label 'b' is seen in one fold only"),
        ("file,label,fold", [*FOLDED[1:], "a/00.wav,a,"], "line 21: fold is ''; legal are whole"),
        ("file,label,fold", [*FOLDED[1:], "a/00.wav,a,-1"], "line 21: fold is '-1'"),
        ("file,label,fold", [*FOLDED[1:], "a/00.wav,a," + 20 * "1"], "line 21: fold is '111"),
        ("file,label,fold", [f"{row},3" for row in ROWS], "label 'a' is seen in one fold only"),
        ("file,label,fold,group", [*GROUPED[1:], "a/00.wav,a,0,"], "line 21: group is blank"),
    ],
)
def test_faulty_tables(sounds, head, rows, message):
    path = sounds(table_text(rows, head))
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert str(path) in str(caught.value)


def test_tables_that_cannot_be_opened(sounds, tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv: cannot be read \(No such file"):
        load(tmp_path / "gone.csv")
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load(sounds(table_text([*ROWS, "ä.wav,a"]), encoding="latin-1"))


@pytest.mark.parametrize("twin", ["song\u00a0thrush", "\ufeffsong \u2009thrush\u00ad"])
def test_labels_that_look_alike_are_one(sounds, twin):
    rows = [row[:-1] + ("robin", "song thrush", twin)[i % 3] for i, row in enumerate(ROWS)]
    with pytest.warns(UserWarning, match="is read as 'song thrush'"):
        table = load(sounds(table_text(rows)))
    assert sorted(table["label"].unique()) == ["robin", "song thrush"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.filterwarnings("ignore:.*is read as")
def test_unicode_forms_of_labels_and_files(sounds, tmp_path, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    sf.write(tmp_path / "my sounds" / unicodedata.normalize(form, "é.wav"), np.ones(99), 8_000)
    rows = [row.replace(",b", ",café") for row in ROWS] + ["é.wav,a"]
    table = load(sounds(table_text(unicodedata.normalize(other, row) for row in rows)))
    check_contract(table)
    assert sorted(table["label"].unique()) == ["a", "café"]
    assert "é.wav" in table.index


def test_a_linked_table_keeps_its_own_folder(sounds, tmp_path):
    path = sounds(table_text())
    path.rename(tmp_path / "MD5E-s99.csv")
    path.symlink_to("../MD5E-s99.csv")
    check_contract(load(path))


# --- doubles -----------------------------------------------------------------------------------


def test_copies_stay_in_one_fold(sounds, tmp_path):
    for row in ROWS:
        file = tmp_path / "my sounds" / row.split(",")[0]
        shutil.copy(file, f"{file}.copy")
    rows = [*ROWS, *(row.replace(",", ".copy,") for row in ROWS)]
    table = load(sounds(table_text(rows)))
    check_contract(table)
    for name in table.index[::2]:
        for column in ("fold", "group"):
            assert table.at[f"{name}.copy", column] == table.at[name, column]
    first = tmp_path / "my sounds" / "b" / "03.wav"
    (tmp_path / "my sounds" / "link.wav").symlink_to(first)
    linked = load(sounds(table_text([*ROWS, "link.wav,b", f"{first},b"])))
    assert (
        linked.loc["link.wav", "fold"] == linked.loc[str(first), "fold"] == linked.fold["b/03.wav"]
    )
    folded = [f"{row},{i // 2 % 5}" for i, row in enumerate(rows)]
    check_contract(load(sounds(table_text(folded, "file,label,fold"))))
    folded[23] = folded[23].replace(",1", ",2")
    with pytest.raises(DataError, match=r"group 'b/03\.wav' is in fold 2 here and in fold 1"):
        load(sounds(table_text(folded, "file,label,fold")))


def test_a_label_of_copies_is_told(sounds, tmp_path):
    for i in range(4):
        shutil.copy(tmp_path / "my sounds" / "a" / "00.wav", tmp_path / "my sounds" / f"{i}.wav")
    rows = [*ROWS, *(f"{i}.wav,c" for i in range(4))]
    with pytest.warns(UserWarning, match="label 'c' has under three different sounds"):
        check_contract(load(sounds(table_text(rows))))


# --- sounds that cannot be learned --------------------------------------------------------------


def test_labels_whose_clips_cannot_be_read(sounds, tmp_path):
    rows = [row.replace(",b", ",c") if row[2:4] in ("03", "07") else row for row in ROWS]
    table = load(sounds(table_text(rows)))
    check_sounds(table)
    (tmp_path / "my sounds" / "b" / "07.wav").write_bytes(b"broken")
    with pytest.raises(
        DataError, match=r"label 'c' has readable clips in 1 folds.*07\.wav: cannot"
    ):
        check_sounds(table)
    for i, path in enumerate(table["path"]):
        Path(path).write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100 + i))
    with pytest.raises(DataError, match=r"label 'a' .*00\.wav: .*convert it to wav.* and 7 more"):
        check_sounds(table)


def test_a_table_of_which_nothing_sounds(sounds):
    table = load(sounds(table_text()))
    for i, path in enumerate(table["path"]):
        sf.write(path, np.zeros(99 + i), 8_000)
    with pytest.raises(DataError, match=r"no clip holds sound.*00\.wav for one"):
        check_sounds(table)
    sf.write(table["path"].iloc[-1], np.random.default_rng(0).standard_normal(8_000), 8_000)
    check_sounds(table)
