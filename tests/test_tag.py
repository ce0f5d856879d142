"""``freesound-tagging tag``: what is found in folders, said, written, kept when it is stopped."""

import csv
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from test_tagger import CLASSES, RATE, sound, write_model

from freesound_tagging import cli
from freesound_tagging import tag as tagging
from freesound_tagging.errors import DataError
from freesound_tagging.learning.tagger import Tagger, Tags
from freesound_tagging.sounds.clips import load_clip


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "mine" / "smoke")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Two sounds, one below the other, and what is none, or not to be read."""
    sounds = tmp_path / "sounds"
    (sounds / "below").mkdir(parents=True)
    sf.write(sounds / "a.wav", np.stack([sound(2.6, 44_100)] * 2, axis=1), 44_100)
    sf.write(sounds / "below" / "b.FLAC", sound(0.2, 8000), 8000, format="FLAC")
    sf.write(sounds / "silent.wav", np.zeros(9000), RATE)
    (sounds / "empty.wav").touch()
    (sounds / "junk.mp3").write_bytes(b"junk" * 999)
    return sounds


@pytest.fixture
def many(tmp_path) -> Path:
    """Five sounds."""
    (tmp_path / "many").mkdir()
    for number in range(5):
        sf.write(tmp_path / "many" / f"{number}.wav", sound(0.5, seed=number), RATE)
    return tmp_path / "many"


def rows_of(table: Path) -> list[dict]:
    with table.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def start(*arguments, **options) -> subprocess.Popen:
    command = [sys.executable, "-m", "freesound_tagging", "tag", *map(str, arguments)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, **options)


# --- which files -------------------------------------------------------------------------------


def test_sounds_are_found_whatever_else_lies_in_a_folder(tmp_path, capsys):
    top, elsewhere = tmp_path / "survey", tmp_path / "elsewhere"
    for name in ("a.wav", "b.BWF", "sub/c.flac", "x.wav/d.mp3", "\udcfc.wav", "<b>\n$x_y$.wav"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    taken = {top / name for name in ("a.wav", "b.BWF", "sub/c.flac", "x.wav/d.mp3", "\udcfc.wav")}
    for name in (
        ".Trash/t.wav",
        "@eaDir/a.wav/INFO",
        "__MACOSX/._a.wav",
        "._a.wav",
        "n.txt",
        "READ",
    ):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    (top / "m.m4a").touch()
    (elsewhere / "far").mkdir(parents=True)
    (elsewhere / "far" / "e.wav").touch()
    (elsewhere / "back").symlink_to(top)
    (top / "0").symlink_to(elsewhere)
    (top / "1").symlink_to(elsewhere / "far")
    (top / "loop").symlink_to(top / "loop")
    (top / "gone.wav").symlink_to(tmp_path / "gone.wav")
    found = tagging.find_sounds([str(top), str(top / "a.wav")])
    taken |= {top / "<b>\n$x_y$.wav", top / "gone.wav", top / "0" / "far" / "e.wav"}
    assert set(found) == taken and len(found) == len(taken)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for kind in ("1 .txt", "1 .m4a", "2 without an ending", "1 hidden file"):
        assert kind in said
    for name in (".Trash", "@eaDir", "__MACOSX"):
        assert f"1 hidden or trash folder ({name})" in said


# --- what is said ------------------------------------------------------------------------------


def test_a_folder_is_tagged_and_what_cannot_be_read_is_a_line(model, folder, tmp_path, capsys):
    out = tmp_path / "tags.csv"
    assert cli.main(["tag", str(folder), "--model", str(model), "--csv", str(out)]) == 2
    said = capsys.readouterr().out
    for name in ("silent.wav", "empty.wav", "junk.mp3"):
        (line,) = [line for line in said.splitlines() if name in line]
        assert line.startswith("error: ")
    rows = rows_of(out)
    assert sum(bool(row["note"]) for row in rows) == 3
    tagged = [row for row in rows if row["rank"]]
    assert len(tagged) == 6
    assert {Path(row["file"]).name for row in tagged} == {"a.wav", "b.FLAC"}
    for row in tagged:
        assert row["label"] in CLASSES and 0 <= float(row["probability"]) <= 1
        assert 0 <= float(row["start"]) < float(row["end"]) <= 2.6


def test_what_makes_labels_doubtful_is_said(model, tmp_path, capsys):
    x = sound(1)
    sf.write(tmp_path / "cancels.wav", np.stack([x, -x], axis=1), RATE)
    sf.write(tmp_path / "click.wav", x[:1000], RATE)
    sf.write(tmp_path / "plain.wav", x, RATE)
    out = tmp_path / "tags.csv"
    arguments = ["tag", str(tmp_path), "--model", str(model), "--top", "1", "--csv", str(out)]
    assert cli.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    notes = {Path(row["file"]).stem: row["note"] for row in rows_of(out)}
    for name, words in {"cancels": "the channels cancel", "click": "shorter than one"}.items():
        (line,) = [line for line in lines if f"{name}.wav: " in line]
        assert words in line and notes[name] == load_clip(tmp_path / f"{name}.wav")[1]
    assert notes["plain"] == ""


def test_what_is_stranger_than_the_limit_is_none_of_the_classes(tmp_path, capsys):
    strange = write_model(tmp_path / "strange", limit=-1e9)
    sf.write(tmp_path / "a.wav", sound(2), RATE)
    arguments = ["tag", str(tmp_path / "a.wav"), "--model", str(strange), "--audacity"]
    assert cli.main([*arguments, "--csv", "-", "--folder", str(tmp_path)]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [row["note"] for row in rows] == [tagging.NOT_KNOWN] * 3
    assert (tmp_path / "a.labels.txt").read_text() == ""


def test_an_audacity_track_joins_windows_and_leaves_out_silent_and_strange_ones():
    window_probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9], [0.2, 0.8]])
    tags = Tags(
        classes=("a", "b"),
        probabilities=np.array([0.5, 0.5]),
        starts=np.array([0.0, 1.0, 2.0, 3.0, 3.5]),
        window_probabilities=window_probabilities,
        loudness=np.array([1.0, 1.0, 1.0, 1.0, 0.0]),
        strangeness=np.array([0.0, 0.0, 9.0, 0.0, 0.0]),
        seconds=5.5,
        window=2.0,
        limit=5.0,
    )
    lines = [line.split("\t") for line in tagging.as_audacity(tags).splitlines()]
    assert lines == [["0.000000", "2.500000", "a 0.90"], ["3.500000", "4.250000", "b 0.90"]]


# --- pictures ----------------------------------------------------------------------------------


def test_labels_and_pictures_are_named_after_the_sounds(model, folder, tmp_path):
    (folder / "below" / "a.wav").write_bytes((folder / "a.wav").read_bytes())
    files = [str(folder / "a.wav"), str(folder / "below" / "a.wav")]
    beside = tmp_path / "tags"
    arguments = ["tag", *files, "--model", str(model), "--audacity", "--picture"]
    assert cli.main([*arguments, "--folder", str(beside)]) == 0
    names = {file.name for file in beside.iterdir()}
    assert names == {f"a{n}.{end}" for n in ("", "-2") for end in ("labels.txt", "tags.png")}
    assert (beside / "a.tags.png").read_bytes().startswith(b"\x89PNG")
    end = 0.0
    for line in (beside / "a.labels.txt").read_text().splitlines():
        begin, stop, label = line.split("\t")
        assert end <= float(begin) < float(stop) <= 2.6 + 1e-6
        assert label.rpartition(" ")[0] in CLASSES
        end = float(stop)


@pytest.mark.parametrize("name", ["log_db", "3ch_linear_mel_log", "3ch_mfcc_deltas", "waveform"])
def test_every_kind_of_representation_is_drawn(name, tmp_path):
    tagger = Tagger(write_model(tmp_path / "model", [name], ["$5_$", "a$_{$b"]))
    beep = sound(0.3 if name == "log_db" else 1.5)
    assert len(tagger.spectrogram(beep, RATE)) == len(tagger.about.planes)
    figure = tagging.draw(beep, RATE, [(tagger, tagger(beep, RATE))], title="$\\frac$")
    figure.draw_without_rendering()
    if name == "log_db":  # the window is drawn as the network saw it: between zeros
        (window,) = (ax for ax in figure.axes if ax.get_title().startswith("strongest window"))
        shape = np.asarray(window.collections[0].get_array()).shape
        assert shape == (tagger.grid.n_bins, tagger.grid.n_frames)


def test_a_picture_that_cannot_be_drawn_is_told_beside_the_csv(
    model, many, tmp_path, monkeypatch, capsys
):
    def fail(*_):
        raise DataError("no room")

    monkeypatch.setattr(tagging, "picture", fail)
    arguments = ["tag", str(many / "0.wav"), "--model", str(model), "--csv", "-", "--picture"]
    assert cli.main([*arguments, "--folder", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out.startswith(",".join(tagging.CSV_COLUMNS))
    assert said.err == f"error: {many / '0.wav'}: it has no picture (no room)\n"


# --- where it is written -----------------------------------------------------------------------


@pytest.mark.parametrize("cut", ["after a file", "in a row", "after a row", "in the header", "not"])
def test_a_stopped_call_goes_on_and_ends_with_the_same_table(
    model, many, tmp_path, monkeypatch, capsys, cut
):
    out = tmp_path / "tags.csv"
    arguments = ["tag", str(many), "--model", str(model), "--csv", str(out)]
    assert cli.main(arguments) == 0
    whole, asked = out.read_text(), []
    lines = whole.splitlines(keepends=True)
    kept = {
        "after a file": "".join(lines[:7]),
        "after a row": "".join(lines[:8]),
        "in a row": "".join(lines[:8])[:-9],
        "in the header": lines[0][:9],
        "not": whole,
    }
    out.write_text(kept[cut])
    tag_file = Tagger.tag_file
    monkeypatch.setattr(Tagger, "tag_file", lambda *a: asked.append(a[1].name) or tag_file(*a))
    capsys.readouterr()
    assert cli.main([*arguments, "--resume"]) == 0
    assert out.read_text() == whole
    again = {"in the header": 5, "not": 0}.get(cut, 3)
    assert len(asked) == again


def test_control_c_leaves_what_is_done_and_says_what_is_left(
    model, many, tmp_path, monkeypatch, capsys
):
    out, tag_file = tmp_path / "tags.csv", Tagger.tag_file

    def stop(self, file):
        if file.name == "3.wav":
            assert len(rows_of(out)) == 9  # rows come one by one
            os.kill(os.getpid(), signal.SIGTERM)
        return tag_file(self, file)

    monkeypatch.setattr(Tagger, "tag_file", stop)
    arguments = ["tag", str(many), "--model", str(model), "--csv", str(out), "--audacity"]
    before = signal.getsignal(signal.SIGTERM)
    try:
        assert cli.main([*arguments, "--folder", str(tmp_path / "l")]) == cli.STOPPED
    finally:
        signal.signal(signal.SIGTERM, before)
    assert "2 of 5 files are left" in capsys.readouterr().err
    assert len(list((tmp_path / "l").iterdir())) == 3
    monkeypatch.undo()
    assert cli.main([*arguments, "--folder", str(tmp_path / "l"), "--resume"]) == 0
    assert len(rows_of(out)) == 15 and len(list((tmp_path / "l").iterdir())) == 5


def test_another_table_is_not_gone_on_with(model, many, tmp_path, capsys):
    arguments = ["tag", str(many), "--model", str(model), "--resume", "--csv"]
    for text in ("a,b\n1,2\n", f"{','.join(tagging.CSV_COLUMNS)}\nx.wav,1,owl,1,0,1,\n"):
        (tmp_path / "other.csv").write_text(text)
        assert cli.main([*arguments, str(tmp_path / "other.csv")]) == 2
        assert "other.csv" in capsys.readouterr().err
        assert (tmp_path / "other.csv").read_text() == text


def test_a_link_is_followed_and_a_pipe_is_written_to(model, many, tmp_path):
    arguments = ["tag", str(many), "--model", str(model), "--csv"]
    shared, link, pipe = tmp_path / "all.csv", tmp_path / "tags.csv", tmp_path / "pipe"
    shared.write_text("old")
    link.symlink_to(shared)
    assert cli.main([*arguments, str(link)]) == 0
    assert link.is_symlink() and len(rows_of(shared)) == 15
    os.mkfifo(pipe)
    heard = []
    reader = threading.Thread(target=lambda: heard.append(pipe.read_bytes()))
    reader.start()
    assert cli.main([*arguments, str(pipe)]) == 0
    reader.join()
    assert heard == [shared.read_bytes()] and stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_device_is_an_error_that_names_it(model, many, capsys):
    assert cli.main(["tag", str(many), "--model", str(model), "--csv", "/dev/full"]) == 2
    assert f"error: /dev/full: {os.strerror(errno.ENOSPC)}" in capsys.readouterr().err


@pytest.mark.parametrize("target", ["-", "/dev/stdout"])
def test_the_csv_alone_is_printed_in_any_encoding(model, many, tmp_path, target):
    (many / "0.wav").rename(many / "gr\udcfcn\n.wav")  # the byte FC, in no encoding
    (many / "1.wav").rename(many / "\u767d<b>.wav")
    out = tmp_path / "out"
    with out.open("wb") as stream:
        env = os.environ | {"PYTHONIOENCODING": "ascii", "LANG": "C"}
        process = start(many, "--model", model, "--csv", target, stdout=stream, env=env)
        assert process.communicate()[1] == b"" and process.returncode == 0
    rows = rows_of(out)
    assert len(rows) == 15 and out.read_bytes().isascii()
    names = {Path(row["file"]).name for row in rows}
    assert {"gr\\udcfcn\n.wav", "\\u767d<b>.wav"} < names


def test_nobody_has_to_read_the_output_to_its_end(model, many):
    process = start(many / "0.wav", "--model", model, stdout=subprocess.PIPE)
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == cli.NOT_READ


# --- slips -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.wav"], "gone.wav"),
        (["a.wav", "--top", "0"], "--top"),
        (["a.wav", "--longest", "0"], "--longest"),
        (["a.wav", "--model", "nowhere"], "nowhere"),
        (["a.wav", "--representation", "mel_db"], "mel_db"),
        (["a.wav", "--csv", "gone/tags.csv"], "gone"),
        (["a.wav", "--csv", "empty"], "this is a folder"),
        (["a.wav", "--csv", "a.wav"], "this is a sound"),
        (["linked", "--csv", "linked"], "this is a sound"),
        (["a.wav", "--csv", "new.flac"], "this is a sound"),
        (["a.wav", "--csv", "memo.3gp"], "is not replaced"),
        (["a.wav", "--resume"], "--csv"),
        (["a.wav", "--folder", "a.wav", "--audacity"], "this is a file"),
        (["a.wav", "--folder", "gone/x", "--audacity"], "gone/x"),
        (["a.wav", "--folder", "edited", "--audacity"], "a.labels.txt is there already"),
        (["empty"], "no sound file"),
        (["pipe.wav"], "is not a file"),
    ],
)
def test_slips_get_one_line(model, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    sf.write("a.wav", sound(1), RATE)
    Path("memo.3gp").write_bytes(b"\0\0\0\x18ftyp3gp4")
    Path("linked").symlink_to("a.wav")
    os.mkfifo("pipe.wav")
    for name in ("empty", "edited"):
        Path(name).mkdir()
    Path("edited/a.labels.txt").write_text("by hand")
    files = [file for file in Path().rglob("*.*") if file.is_file()]
    before = {file: file.read_bytes() for file in files}
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(model)]
    assert cli.main(["tag", *arguments]) == 2
    said = capsys.readouterr()
    errors = [line for line in (said.out + said.err).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0]
    assert {file: file.read_bytes() for file in before} == before
    assert {file for file in Path().rglob("*.*") if file.is_file()} == set(before)


def test_the_newest_model_is_taken_and_without_one_it_says_how_to_make_one(
    model, tmp_path, monkeypatch
):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    with pytest.raises(DataError, match="make model"):
        tagging.newest_model()
    for name, seconds in (("b", 1000), ("a", 2000), ("c", 500)):
        file = tmp_path / "models" / name / "cpu" / "model.json"
        file.parent.mkdir(parents=True)
        file.touch()
        os.utime(file, (seconds, seconds))
    assert tagging.newest_model() == (tmp_path / "models" / "a" / "cpu").resolve()


def test_a_file_of_more_than_an_hour_is_refused_unless_asked_for(model, tmp_path):
    path = tmp_path / "long.wav"
    sf.write(path, np.tile(sound(1.0, 1000), 90), 1000)
    refused = tagging.tag_file(Tagger(model), path, longest=60)
    assert isinstance(refused, DataError) and "--longest" in str(refused)
    assert tagging.tag_file(Tagger(model), path, longest=90).seconds == pytest.approx(90)


def test_the_experiment_wants_a_clone_and_says_so(tmp_path, monkeypatch, capsys):
    site = tmp_path / "lib" / "site-packages" / "freesound_tagging"
    monkeypatch.setattr(cli, "__file__", str(site / "cli.py"))
    for command in ("run", "neighbours", "model"):
        assert cli.main([command]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and "clone" in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
