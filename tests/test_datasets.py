"""Clip tables: what each data set holds, and what bad tables and archives get.

Most tests use made-up archives with the real layout; those of the real sounds need the archives.
"""

import csv
import dataclasses
import hashlib
import http.server
import itertools
import os
import random
import shutil
import stat
import threading
import unicodedata
import zipfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
from hypothesis import given, settings
from hypothesis import strategies as st

from freesound_tagging.errors import DataError
from freesound_tagging.sounds import archives, checks, clips, download, esc10, insectset32
from freesound_tagging.sounds.catalogue import NAMES, describe, load
from freesound_tagging.sounds.tables import COLUMNS, deal_folds

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


# --- names and settings ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["esc50", "", "ESC10", "sounds.tsv"])
def test_unknown_name_lists_the_known_ones(name, tmp_path):
    with pytest.raises(DataError) as caught:
        load(name, tmp_path)
    for known in (*NAMES, ".csv", repr(name)):
        assert known in str(caught.value)


def test_options_are_for_microcalls_only(tmp_path):
    with pytest.raises(DataError, match="'esc10' takes no options, got seed"):
        load("esc10", tmp_path, seed=1)


def test_microcalls_takes_options(tmp_path):
    table = load("microcalls", tmp_path, clips_per_class=1, seed=1)
    assert len(table) == describe("microcalls").n_classes
    assert tuple(table.columns) == COLUMNS
    with pytest.raises(DataError, match=r"'microcalls' takes the options .*seed.*, got sede"):
        load("microcalls", tmp_path, sede=1)


def test_every_declaration_is_complete():
    for name in NAMES:
        dataset = describe(name)
        assert dataset.licence, name
        assert dataset.citation, name
        for archive in dataset.archives:
            assert archive.url.startswith("https://")
            assert archive.file.endswith(".zip")
            assert archive.md5 or (REPOSITORY / "data" / f"{archive.folder}.csv").is_file()


# --- the real archives -------------------------------------------------------------------------


@pytest.fixture(scope="session")
def unpacked(tmp_path_factory):
    """A folder into which the real archives may be unpacked."""
    return tmp_path_factory.mktemp("raw")


def load_real(name: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> pd.DataFrame:
    file = describe(name).archives[0].file
    mirrors = (os.environ.get("DATA_MIRROR", ""), str(REPOSITORY.parent / "shared" / "data"))
    for mirror in filter(None, mirrors):
        if Path(mirror, file).is_file():
            monkeypatch.setenv("DATA_MIRROR", mirror)
            return load(name, root)
    pytest.skip(f"needs {file} in the folder that DATA_MIRROR names")


def test_esc10(unpacked, monkeypatch):
    table = load_real("esc10", unpacked, monkeypatch)
    check_contract(table)
    assert len(table) == describe("esc10").n_clips == 400
    assert table["fold"].value_counts().to_dict() == dict.fromkeys(range(5), 80)
    assert table["label"].value_counts().to_dict() == dict.fromkeys(
        [
            *("Dog bark", "Rain", "Sea waves", "Baby cry", "Clock tick", "Person sneeze"),
            *("Helicopter", "Chainsaw", "Rooster", "Fire crackling"),
        ],
        40,
    )
    assert table["group"].nunique() == 304
    clip = table.loc["5-215658-B"]
    assert (clip["fold"], clip["group"], clip["label"]) == (4, "215658", "Fire crackling")
    for path in table["path"].iloc[::40]:
        waveform, note = clips.load_clip(path)
        assert waveform.shape == (44_100,)
        assert waveform.any()
        assert note == ""
    assert (unpacked / "esc10" / "README.md").is_file()  # it names each clip's author


def test_fsdd(unpacked, monkeypatch):
    table = load_real("fsdd", unpacked, monkeypatch)
    check_contract(table)
    assert len(table) == describe("fsdd").n_clips == 3000
    assert table["fold"].value_counts().to_dict() == dict.fromkeys(range(6), 500)
    assert table["label"].value_counts().to_dict() == dict.fromkeys("0123456789", 300)
    speakers = table.index.str.split("_").str[1]
    assert (pd.crosstab(speakers, table["fold"]) > 0).to_numpy().tolist() == np.eye(6).tolist()
    assert table["group"].nunique() == 60
    assert clips.load_clip(table["path"].iloc[0])[0].shape == (44_100,)


def test_insectset32(unpacked, monkeypatch):
    table = load_real("insectset32", unpacked, monkeypatch)
    check_contract(table)
    described = describe("insectset32")
    assert len(table) == described.n_clips == 330
    assert table["label"].nunique() == described.n_classes == 32
    assert table["label"].value_counts().agg(["min", "max"]).tolist() == [4, 22]
    assert table["group"].nunique() == 231
    assert table["fold"].value_counts().between(64, 68).all()
    for path in table["path"].iloc[::30]:
        waveforms, note = clips.load_windows(path, clips.ClipSettings(44_100, 1.0), 3)
        assert waveforms.shape == (3, 44_100)
        assert note == ""


def test_a_second_load_needs_no_archive(unpacked, monkeypatch):
    table = load_real("esc10", unpacked, monkeypatch)
    monkeypatch.setattr(archives, "find_archive", refuse)
    pd.testing.assert_frame_equal(load("esc10", unpacked), table)


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


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A DATA_MIRROR with a small ESC-10, and its manifest in place of the committed one."""
    folder = tmp_path / "mirror"
    manifests = tmp_path / "manifests"
    folder.mkdir()
    manifests.mkdir()
    files = esc10_files()
    write_zip(folder / ESC10.file, files | {"README.md": b"authors", "extra.txt": b"not wanted"})
    with (manifests / "esc10.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "sha256"])
        rows.writerows((name, hashlib.sha256(files[name]).hexdigest()) for name in files)
    monkeypatch.setattr(archives, "MANIFESTS", manifests)
    monkeypatch.setenv("DATA_MIRROR", str(folder))
    return folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "raw"


def assert_nothing_left(root: Path) -> None:
    """After a failure there is neither a half data set nor a temporary folder."""
    assert not root.exists() or [p for p in root.iterdir() if p.name != "downloads"] == []


def test_unpacks_what_is_wanted(mirror, root):
    table = load("esc10", root)
    check_contract(table)
    assert len(table) == 20
    found = {p.relative_to(root / "esc10").as_posix() for p in root.rglob("*") if p.is_file()}
    assert found == {*esc10_files(), "README.md", ".verified"}
    assert [path.name for path in root.iterdir()] == ["esc10"]


def test_second_load_does_not_hash(mirror, root, monkeypatch):
    table = load("esc10", root)
    monkeypatch.setattr(archives.pooch, "file_hash", refuse)
    monkeypatch.setattr(archives, "find_archive", refuse)
    pd.testing.assert_frame_equal(load("esc10", root), table)


@pytest.mark.parametrize("fault", ["gone", "shorter", "same size", "marker"])
def test_damage_on_disk_is_mended_from_the_archive(mirror, root, fault):
    table = load("esc10", root)
    path = Path(table["path"].iloc[3])
    whole = path.read_bytes()
    if fault == "gone":
        path.unlink()
    elif fault == "shorter":
        path.write_bytes(whole[:-1])
    elif fault == "same size":
        path.write_bytes(bytes(len(whole)))
        os.utime(path, ns=(1, 1))
    else:
        (root / "esc10" / ".verified").write_bytes(b"\xff{")
    pd.testing.assert_frame_equal(load("esc10", root), table)
    assert path.read_bytes() == whole


def test_a_copied_folder_is_verified_and_used(mirror, root, monkeypatch):
    """Copying changes the times; somebody may also have unpacked the archive by hand."""
    for name, content in esc10_files().items():
        path = root / "esc10" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.setattr(archives, "find_archive", refuse)
    check_contract(load("esc10", root))


def test_order_of_directories_and_manifests_changes_nothing(mirror, root, tmp_path, monkeypatch):
    """Faults 1 and 4 of the reference experiment: labels and folds go by name, not position."""
    table = load("esc10", root)

    files = list(esc10_files().items())
    manifest = archives.MANIFESTS / "esc10.csv"
    head, *lines = manifest.read_text().splitlines()
    random.Random(1).shuffle(files)
    random.Random(2).shuffle(lines)
    write_zip(mirror / ESC10.file, dict(files))
    manifest.write_text("\n".join([head, *lines]) + "\n")
    shuffled_listing(monkeypatch)
    again = load("esc10", tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(
        again.drop(columns="path"), table.drop(columns="path"), check_exact=True
    )
    for clip_id in table.index:
        assert (
            Path(table.at[clip_id, "path"]).read_bytes()
            == Path(again.at[clip_id, "path"]).read_bytes()
        )


def shuffled_listing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make directories list their entries in another order."""
    listdir = os.listdir

    def listed(path="."):
        names = listdir(path)
        random.Random(len(names)).shuffle(names)
        return names

    monkeypatch.setattr(os, "listdir", listed)


def test_wrong_hash_names_the_clip(mirror, root):
    files = esc10_files()
    files["002 - Rain/3-310-A.ogg"] = b"another sound"
    write_zip(mirror / ESC10.file, files)
    with pytest.raises(DataError, match=r"ESC-10.*zip: clip 002 - Rain/3-310-A\.ogg has sha256"):
        load("esc10", root)
    assert_nothing_left(root)


def test_missing_clip(mirror, root):
    files = esc10_files()
    del files["002 - Rain/3-310-A.ogg"]
    write_zip(mirror / ESC10.file, files)
    with pytest.raises(DataError, match=r"does not hold 002 - Rain/3-310-A\.ogg"):
        load("esc10", root)
    assert_nothing_left(root)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_clip_twice(mirror, root):
    with zipfile.ZipFile(mirror / ESC10.file, "a") as archive:
        archive.writestr(f"{Path(ESC10.file).stem}/002 - Rain/3-310-A.ogg", b"other")
    with pytest.raises(DataError, match=r"holds 002 - Rain/3-310-A\.ogg twice"):
        load("esc10", root)
    assert_nothing_left(root)


@pytest.mark.parametrize("kept", [0, 1, 100, -200, -1])
def test_truncated_archive(mirror, root, kept):
    path = mirror / ESC10.file
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"ESC-10.*zip: is truncated.*Delete .* and fetch it again"):
        load("esc10", root)
    assert_nothing_left(root)


def test_flipped_byte_in_archive(mirror, root):
    path = mirror / ESC10.file
    raw = bytearray(path.read_bytes())
    raw[200] ^= 0xFF
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"ESC-10.*zip"):
        load("esc10", root)
    assert_nothing_left(root)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.ogg",
        "ESC/../../outside.ogg",
        "/tmp/outside.ogg",
        "..\\outside.ogg",
        "\\outside.ogg",
        "C:\\outside.ogg",
        "C:outside.ogg",
    ],
)
def test_unsafe_names_are_refused(mirror, root, name):
    with zipfile.ZipFile(mirror / ESC10.file, "a") as archive:
        archive.writestr(name, b"evil")
    with pytest.raises(DataError, match="leads outside its folder; nothing was unpacked"):
        load("esc10", root)
    assert_nothing_left(root)
    assert not list(root.parent.rglob("outside.ogg"))


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_are_refused(mirror, root, kind):
    link = zipfile.ZipInfo(f"{Path(ESC10.file).stem}/001 - Dog bark/link.ogg")
    link.create_system = 3
    link.external_attr = (kind | 0o777) << 16
    with zipfile.ZipFile(mirror / ESC10.file, "a") as archive:
        archive.writestr(link, "/etc/hostname")
    with pytest.raises(DataError, match=r"link\.ogg' is a link or special file"):
        load("esc10", root)
    assert_nothing_left(root)


def test_full_disk_leaves_nothing(mirror, root, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "_extract", full)
    with pytest.raises(DataError, match=r"could not be unpacked to .*No space left"):
        load("esc10", root)
    assert_nothing_left(root)


def test_room_is_checked_before_unpacking(mirror, root, monkeypatch):
    needed = sum(map(len, esc10_files().values()))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=needed - 1))
    with pytest.raises(DataError, match=r"no room to unpack ESC-10.*zip: .*set WORK_FOLDER"):
        load("esc10", root)
    assert_nothing_left(root)


def test_two_runs_at_once(mirror, root):
    tables, faults = [], []

    def run():
        try:
            tables.append(load("esc10", root))
        except Exception as fault:
            faults.append(fault)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not faults
    for table in tables:
        pd.testing.assert_frame_equal(table, tables[0])
    assert [path.name for path in root.iterdir()] == ["esc10"]


def test_mirror_that_is_no_folder(root, monkeypatch, tmp_path):
    monkeypatch.setenv("DATA_MIRROR", str(tmp_path / "gone"))
    with pytest.raises(DataError, match=r"DATA_MIRROR=.*gone: there is no such folder"):
        load("fsdd", root)


def test_manifest_missing(root, monkeypatch, tmp_path):
    monkeypatch.setattr(archives, "MANIFESTS", tmp_path)
    with pytest.raises(DataError, match=r"fsdd\.csv: the list of clips is missing"):
        load("fsdd", root)


# --- InsectSet32: verified by its samples --------------------------------------------------------


@pytest.fixture
def insects(tmp_path, monkeypatch):
    """A DATA_MIRROR with six recordings, re-packed or not, and the list of them."""
    monkeypatch.setenv("DATA_MIRROR", str(tmp_path))
    monkeypatch.setattr(archives, "MANIFESTS", tmp_path)
    lines = ["file,label,group,fold,samples_sha256"]
    for i in range(6):
        x = np.random.default_rng(i).integers(-(2**15), 2**15, 500).astype(np.int16)
        sf.write(tmp_path / f"{i}.flac", x, 44_100)
        sf.write(tmp_path / f"{i}.wav", x, 44_100)
        digest = insectset32.samples_hash(tmp_path / f"{i}.wav")
        assert digest == hashlib.sha256((x.astype("<i4") << 16).tobytes()).hexdigest()
        lines.append(f"data/A.b%20{i}.wav,{'ab'[i % 2]},session{i},{i // 2},{digest}")
    (tmp_path / "insectset32.csv").write_text("\n".join(lines))

    def write(*endings: str) -> None:
        names = {f"data/A.b%20{i}{ending}": f"{i}{ending}" for i, ending in enumerate(endings)}
        files = {name: (tmp_path / file).read_bytes() for name, file in names.items()}
        archive = tmp_path / insectset32.DATASET.archives[0].file
        write_zip(archive, files | {"data/README.txt": b"who", "data/A.b%209.wav": b"a double"})

    return write


def test_the_published_split_of_the_insects_parts_recording_sessions():
    clips = pd.read_csv(archives.MANIFESTS / "insectset32.csv", dtype=str)
    parts = clips[clips["published_split"] != "?"].groupby("group")["published_split"].nunique()
    said = f"puts {(parts > 1).sum()} of {clips['group'].nunique()} sessions into more than one"
    assert said in (archives.MANIFESTS / "README.md").read_text()
    assert said in insectset32.__doc__.replace("\n", " ")


def test_insects_as_flac_or_wav(insects, root, tmp_path):
    insects(*[".wav"] * 6)
    table = load("insectset32", root)
    check_contract(table)
    assert table.at["A.b%203", "group"] == "session3"
    insects(*[".flac", ".wav"] * 3)
    again = load("insectset32", tmp_path / "elsewhere")
    pd.testing.assert_frame_equal(again.drop(columns="path"), table.drop(columns="path"))
    assert again["path"].str.endswith(".flac").sum() == 3
    found = [path.name for path in (tmp_path / "elsewhere").rglob("*") if path.is_file()]
    assert "README.txt" in found
    assert "A.b%209.wav" not in found  # not in the list
    shutil.rmtree(tmp_path / "elsewhere" / "insectset32" / "data")
    pd.testing.assert_frame_equal(load("insectset32", tmp_path / "elsewhere"), again)


def test_an_insect_with_other_samples_is_named(insects, root, tmp_path):
    shutil.copy(tmp_path / "2.flac", tmp_path / "4.flac")
    insects(*[".flac"] * 6)
    with pytest.raises(DataError, match=r"clip data/A\.b%204\.wav has sha256 .* expected"):
        load("insectset32", root)
    assert_nothing_left(root)
    (tmp_path / "4.flac").write_bytes(b"no sound")
    insects(*[".flac"] * 6)
    with pytest.raises(DataError, match=r"clip data/A\.b%204\.wav has sha256 none"):
        load("insectset32", root)


# --- download ----------------------------------------------------------------------------------


@pytest.fixture
def server(mirror, monkeypatch):
    """The archive of `mirror`, served over HTTP; `agents` collects who asked."""
    agents = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(mirror))

        def do_GET(self):
            agents.append(self.headers["User-Agent"])
            super().do_GET()

        def log_message(self, *_):
            """Keep the test run quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{httpd.server_port}/{ESC10.file}"
        serve(monkeypatch, url=url)
        monkeypatch.delenv("DATA_MIRROR")
        yield agents
        httpd.shutdown()


def serve(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    """Change what is declared about the archive of esc10."""
    (archive,) = esc10.DATASET.archives
    archive = dataclasses.replace(archive, **changes)
    monkeypatch.setattr(esc10, "DATASET", dataclasses.replace(esc10.DATASET, archives=(archive,)))


def test_download_says_who_asks_and_is_kept(server, root, capfd):
    table = load("esc10", root)
    check_contract(table)
    assert server == [download.USER_AGENT]
    assert "100%" in capfd.readouterr().err
    assert (root / "downloads" / ESC10.file).is_file()
    Path(table["path"].iloc[0]).unlink()
    load("esc10", root)
    assert len(server) == 1


def test_download_with_wrong_md5_is_refused(server, root, monkeypatch):
    serve(monkeypatch, md5="0" * 32)
    with pytest.raises(DataError, match=r"could not be downloaded .*md5.* set DATA_MIRROR"):
        load("esc10", root)
    left = [file.name for file in (root / "downloads").iterdir()]
    assert left == [f".{ESC10.file}.lock"]


def test_server_down(mirror, root, monkeypatch):
    monkeypatch.delenv("DATA_MIRROR")
    monkeypatch.setattr(download, "RETRY", download.RETRY.new(total=0))
    serve(monkeypatch, url="http://127.0.0.1:9/none.zip")
    with pytest.raises(DataError, match=r"could not be downloaded .* get ESC-10-.*zip another way"):
        load("esc10", root)


# --- folds -------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 12)), min_size=2, max_size=60),
    st.randoms(use_true_random=False),
)
def test_folds_keep_groups_spread_labels_and_ignore_order(clips_drawn, order):
    """Groups hold clips of several labels, so that labels hang together in every way."""
    rows = [(f"clip{i}", f"l{label}", f"g{g}") for i, (label, g) in enumerate(clips_drawn)]
    folds = deal_folds(*zip(*rows, strict=True))
    assert set(folds) == {clip_id for clip_id, _, _ in rows}
    assert set(folds.values()) == set(range(max(folds.values()) + 1))
    for group in {group for _, _, group in rows}:
        assert len({folds[c] for c, _, g in rows if g == group}) == 1
    for label in {label for _, label, _ in rows}:
        own = {g for _, other, g in rows if other == label}
        assert len({folds[c] for c, other, _ in rows if other == label}) == 1 or len(own) > 1
        if len(own) > 1:
            assert len({folds[c] for c, other, _ in rows if other == label}) > 1
    order.shuffle(rows)
    assert deal_folds(*zip(*rows, strict=True)) == folds


def test_folds_are_found_where_rare_labels_share_recordings():
    """Each of 15 rare labels lies in two of six recordings: every recording needs its own fold."""
    pairs = list(itertools.combinations("uvwxyz", 2))
    rows = [(f"{i}{g}", f"rare{i}", g) for i, pair in enumerate(pairs) for g in pair]
    rows += [(f"common{i}", "common", "uvwxyz"[i % 6]) for i in range(30)]
    folds = deal_folds(*zip(*rows, strict=True))
    assert len(set(folds.values())) == 6


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=200))
def test_folds_without_groups_are_even(labels):
    names = [f"clip{i}" for i in range(len(labels))]
    folds = deal_folds(names, [str(label) for label in labels], names)
    counts = Counter((label, folds[name]) for label, name in zip(labels, names, strict=True))
    used = set(folds.values())
    for label in set(labels):
        each = [counts[label, fold] for fold in used]
        assert max(each) - min(each) <= 1


# --- a table of one's own ----------------------------------------------------------------------


@pytest.fixture
def sounds(tmp_path):
    """Twenty sounds in two folders, and a function that writes a table beside them."""
    for i in range(20):
        path = tmp_path / "my sounds" / f"{'ab'[i % 2]}" / f"{i:02d}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        sf.write(path, np.zeros(10 + i), 8_000)

    def write(text: str, encoding: str = "utf-8") -> str:
        path = tmp_path / "my sounds" / "table.csv"
        path.write_bytes(text.encode(encoding))
        return str(path)

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
    assert Path(table.at["b/03.wav", "path"]) == Path(path).parent / "b" / "03.wav"
    assert (pd.crosstab(table["label"], table["fold"]) == 2).to_numpy().all()
    assert table["split"].eq("train").all()
    assert table["verified"].all()
    pd.testing.assert_frame_equal(load(Path(path)), table)


def test_own_table_in_another_order(sounds):
    """Fault 1 once more: shuffled rows and columns leave every clip its fold and label."""
    table = load(sounds(table_text()))
    for seed in range(5):
        rows = random.Random(seed).sample(ROWS, len(ROWS))
        swapped = [",".join(reversed(row.split(","))) for row in rows]
        again = load(sounds(table_text(swapped, head="label,file")))
        pd.testing.assert_frame_equal(again, table)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_line_ends_and_byte_order_mark(sounds, end, encoding):
    plain = load(sounds(table_text()))
    again = load(sounds(table_text(end=end, head=" file ,label") + end, encoding))
    pd.testing.assert_frame_equal(again, plain)


def test_given_folds_and_groups(sounds):
    rows = [f"{row},{i // 4},rec{i // 2}" for i, row in enumerate(ROWS)]
    table = load(sounds(table_text(rows, "file,label,fold,group")))
    check_contract(table)
    assert table.at["a/06.wav", "fold"] == 1
    assert table.at["a/06.wav", "group"] == "rec3"


def test_folds_that_do_not_start_at_0_are_renumbered(sounds):
    rows = [f"{row},{(1, 2, 7)[i // 2 % 3]}" for i, row in enumerate(ROWS)]
    table = load(sounds(table_text(rows, "file,label,fold")))
    assert table["fold"].tolist() == [(0, 1, 2)[int(c[2:4]) // 2 % 3] for c in table.index]


def test_groups_stay_whole_when_folds_are_made(sounds):
    rows = [f"{row},rec{i // 3}" for i, row in enumerate(ROWS)]
    check_contract(load(sounds(table_text(rows, "file,label,group"))))


def test_backslashes_and_dots_in_names(sounds):
    rows = [row.replace("/", "\\") if i % 2 else f"./{row}" for i, row in enumerate(ROWS)]
    pd.testing.assert_frame_equal(load(sounds(table_text(rows))), load(sounds(table_text())))


FOLDED = [f"{row},{i // 2 % 2}" for i, row in enumerate(ROWS)]
GROUPED = [f"{row},{i // 2 % 2},rec{i}" for i, row in enumerate(ROWS)]


@pytest.mark.parametrize(
    ("head", "rows", "message"),
    [
        ("file,class", ROWS, "line 1: no column label; needed are file, label.* found file, class"),
        ("file;label", ROWS, "line 1: no column file, label"),
        ("file,label,label", ROWS, "line 1: a column name appears twice"),
        ("file,label", [], "has no rows"),
        ("file,label", [*ROWS, ROWS[3]], r"line 22: file 'b/03\.wav' is listed twice.*line 5"),
        ("file,label", [*ROWS, "./b//03.wav,b"], r"line 22: file './b//03\.wav' is listed twice"),
        ("file,label", [*ROWS, "a/99.wav,a"], r"line 22: no file .*a.99\.wav"),
        ("file,label", ["", "", *ROWS, "a/99.wav,a"], r"line 24: no file .*a.99\.wav"),
        ("file,label", [*ROWS, "a,a"], "line 22: no file"),
        ("file,label", [*ROWS, ",a"], "line 22: file is blank"),
        ("file,label", [*ROWS, "a/00.wav, "], "line 22: label is blank"),
        ("file,label", [*ROWS, "a/00.wav"], "line 22: not 2 fields"),
        (
            "file,label",
            [*ROWS[:-1], ROWS[-1][:-1] + "B"],
            r"label 'B' differs from 'b' \(.*, line \d+\) in",
        ),
        ("file,label", [*ROWS, "a/00.wav,a,b"], "line 22: not 2 fields"),
        ("file,label", ['"a/00.wav"x,a', *ROWS], "line 2: cannot be read as CSV"),
        ("file,label", ROWS[::2] + ROWS[1:2], "line 12: label 'b' has one clip only"),
        ("file,label,fold", [*FOLDED[1:], "a/00.wav,a,"], "line 21: fold is ''; legal are whole"),
        ("file,label,fold", [*FOLDED[1:], "a/00.wav,a,-1"], "line 21: fold is '-1'"),
        ("file,label,fold", [*FOLDED[1:], "a/00.wav,a,1.5"], r"line 21: fold is '1\.5'"),
        ("file,label,fold", [*FOLDED[1:], "a/00.wav,a,test"], "line 21: fold is 'test'"),
        ("file,label,fold", [*FOLDED[1:], "a/00.wav,c,1"], "line 21: label 'c' has one clip only"),
        (
            "file,label,fold",
            [f"{row},3" for row in ROWS],
            "line 2: label 'a' is seen in one fold only",
        ),
        (
            "file,label,fold,group",
            [*GROUPED[1:], "a/00.wav,a,1,rec1"],
            r"group 'rec1' is in fold 0 here and in fold 1 \(.*line 21",
        ),
        ("file,label,fold,group", [*GROUPED[1:], "a/00.wav,a,0,"], "line 21: group is blank"),
    ],
)
def test_faulty_tables(sounds, head, rows, message):
    path = sounds(table_text(rows, head))
    with pytest.raises(DataError, match=message) as caught:
        load(path)
    assert path in str(caught.value)


def test_faulty_table_files(sounds, tmp_path):
    with pytest.raises(DataError, match=r"gone\.csv: there is no such table"):
        load(tmp_path / "gone.csv")
    with pytest.raises(DataError, match=r"no column file, label.*found none"):
        load(sounds(""))
    with pytest.raises(DataError, match="is not UTF-8 text"):
        load(sounds(table_text([*ROWS, "ä.wav,a"]), encoding="latin-1"))


def test_many_missing_files_are_counted(sounds):
    rows = [*ROWS, *(f"gone{i}.wav,a" for i in range(9))]
    with pytest.raises(DataError, match=r"line 22: .*line 26: .*and 4 more"):
        load(sounds(table_text(rows)))


# --- doubles, names, files that cannot be reached ----------------------------------------------


@pytest.fixture
def ten(tmp_path):
    """Ten different sounds of two labels, and their rows."""
    for i in range(10):
        sf.write(tmp_path / f"{i}.wav", np.random.default_rng(i).standard_normal(50), 8_000)
    return [f"{i}.wav,{'ab'[i % 2]}" for i in range(10)]


def write_own(folder: Path, rows: list[str], head: str = "file,label") -> Path:
    path = folder / "own.csv"
    path.write_text(table_text(rows, head), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["absolute", "symbolic link", "hard link"])
def test_one_file_under_two_names_is_refused(tmp_path, ten, kind):
    other = tmp_path / "other.wav"
    if kind == "absolute":
        other = tmp_path / "3.wav"
    elif kind == "hard link":
        os.link(tmp_path / "3.wav", other)
    else:
        other.symlink_to("3.wav")
    path = write_own(tmp_path, [*ten, f"{other},b"])
    with pytest.raises(DataError, match=r"line 12: .* is the same file as 3\.wav \(.*line 5\)"):
        load(path)


def test_copies_stay_in_one_fold(tmp_path, ten):
    for i in range(10):
        shutil.copy(tmp_path / f"{i}.wav", tmp_path / f"copy{i}.wav")
    rows = [*ten, *(f"copy{row}" for row in ten)]
    table = load(write_own(tmp_path, rows))
    check_contract(table)
    for i in range(10):
        assert table.at[f"copy{i}.wav", "fold"] == table.at[f"{i}.wav", "fold"]
        assert table.at[f"copy{i}.wav", "group"] == table.at[f"{i}.wav", "group"]
    folded = [f"{row},{i // 2 % 5}" for i, row in enumerate(rows)]
    check_contract(load(write_own(tmp_path, folded, "file,label,fold")))
    folded[13] = folded[13].replace(",1", ",2")
    with pytest.raises(DataError, match=r"line 15: copy3\.wav holds the same sound as 3\.wav"):
        load(write_own(tmp_path, folded, "file,label,fold"))


def test_copies_join_the_recordings_they_were_put_in(tmp_path, ten):
    shutil.copy(tmp_path / "0.wav", tmp_path / "copy.wav")
    rows = [f"{row},rec{i}" for i, row in enumerate(ten)]
    table = load(write_own(tmp_path, [*rows, "copy.wav,a,rec1"], "file,label,group"))
    assert table["group"].nunique() == 9
    assert table.at["0.wav", "fold"] == table.at["1.wav", "fold"]


def test_a_label_of_copies_alone_is_told(tmp_path, ten):
    for i in range(4):
        shutil.copy(tmp_path / "0.wav", tmp_path / f"copy{i}.wav")
    rows = [*ten, *(f"copy{i}.wav,c" for i in range(4))]
    with (
        pytest.warns(UserWarning, match="all files of label 'c' hold the same sound"),
        pytest.warns(UserWarning, match=r"labelled 'c', not 'a' \(and 3 more such files\)"),
    ):
        check_contract(load(write_own(tmp_path, rows)))


def test_a_copy_with_another_label_is_told(tmp_path, ten):
    shutil.copy(tmp_path / "0.wav", tmp_path / "copy.wav")
    with pytest.warns(UserWarning, match=r"copy\.wav holds .* 0\.wav and is labelled 'b', not 'a'"):
        load(write_own(tmp_path, [*ten, "copy.wav,b"]))


def test_a_label_in_one_recording_only_is_named(tmp_path, ten):
    rows = [f"{row},rec{i}" for i, row in enumerate(ten)]
    rows[3:5] = ["3.wav,c,rec3", "4.wav,c,rec3"]
    with pytest.raises(DataError, match=r"label 'c' lies in one recording only, 'rec3'"):
        load(write_own(tmp_path, rows, "file,label,group"))


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_unicode_forms_of_labels_and_files(tmp_path, ten, form):
    other = {"NFC": "NFD", "NFD": "NFC"}[form]
    sf.write(tmp_path / unicodedata.normalize(form, "é.wav"), np.ones(60), 8_000)
    rows = [row.replace(",b", ",café") for row in ten]
    rows[::3] = [unicodedata.normalize("NFD", row) for row in rows[::3]]
    table = load(write_own(tmp_path, [*rows, unicodedata.normalize(other, "é.wav,a")]))
    check_contract(table)
    assert sorted(table["label"].unique()) == ["a", "café"]
    assert "é.wav" in table.index


def test_names_that_no_disk_can_hold(tmp_path, ten):
    with pytest.raises(DataError, match=r"line 12: no file .*x\.wav \(.*too long\)"):
        load(write_own(tmp_path, [*ten, f"{'x' * 300}.wav,a"]))


def test_a_table_and_a_folder_without_permission(tmp_path, ten, monkeypatch):
    path = write_own(tmp_path, ten)

    def refuse_open(*_, **__):
        raise PermissionError(13, "Permission denied", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", refuse_open)
        with pytest.raises(DataError, match=r"own\.csv: cannot be read \(Permission denied\)"):
            load(path)
    monkeypatch.setattr(Path, "is_file", refuse_open)
    with pytest.raises(DataError, match=r"line 2: no file .*0\.wav \(Permission denied\)"):
        load(path)


# --- sounds that cannot be learned --------------------------------------------------------------


def test_a_label_whose_clips_cannot_be_read(tmp_path, ten):
    (tmp_path / "7.wav").write_bytes(b"broken")
    rows = [row.replace(",b", ",c") if row[0] in "37" else row for row in ten]
    table = load(write_own(tmp_path, rows))
    with pytest.raises(DataError, match=r"label 'c' has readable clips in 1 folds.*7\.wav: cannot"):
        checks.check_sounds(table, clips.ClipSettings())
    checks.check_sounds(load(write_own(tmp_path, ten)), clips.ClipSettings())


def test_a_table_of_which_nothing_can_be_read(tmp_path):
    rows = [f"{i}.m4a,{'ab'[i % 2]}" for i in range(8)]
    for i in range(8):
        (tmp_path / f"{i}.m4a").write_bytes(b"\0\0\0\x18ftypM4A " + bytes(100 + i))
    with pytest.raises(DataError, match=r"label 'a' .*0\.m4a: .*convert it to wav.* and 1 more"):
        checks.check_sounds(load(write_own(tmp_path, rows)), clips.ClipSettings())


def test_a_table_of_which_nothing_sounds(sounds):
    table = load(sounds(table_text()))
    with pytest.raises(DataError, match=r"no clip holds sound.*00\.wav for one"):
        checks.check_sounds(table, clips.ClipSettings())
    sf.write(table["path"].iloc[-1], np.random.default_rng(0).standard_normal(8_000), 8_000)
    checks.check_sounds(table, clips.ClipSettings())
