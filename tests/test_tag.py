"""``freesound-tagging tag``: what is found in folders, said, written, kept when it is stopped."""

import csv
import errno
import os
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import replace
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
def many(tmp_path) -> Path:
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
    taken = ("a.wav", "b.BWF", "sub/c.flac", "x.wav/d.mp3", "\udcfc.wav", "<b>\n$x_y$.wav")
    trash = (".Trash/t.wav", "@eaDir/a.wav/INFO", "__MACOSX/._a.wav")
    for name in (*taken, *trash, "._a.wav", "n.txt", "READ", "m.m4a"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).touch()
    (elsewhere / "far").mkdir(parents=True)
    (elsewhere / "far" / "e.wav").touch()
    (elsewhere / "back").symlink_to(top)
    (top / "0").symlink_to(elsewhere)
    (top / "1").symlink_to(elsewhere / "far")
    (top / "loop").symlink_to(top / "loop")
    (top / "gone.wav").symlink_to(tmp_path / "gone.wav")
    found = tagging.find_sounds([str(top), str(top / "a.wav")])
    assert set(found) == {top / name for name in (*taken, "gone.wav", "0/far/e.wav")}
    assert len(found) == 8
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for kind in ("1 .txt", "1 .m4a", "2 without an ending", "1 hidden file"):
        assert kind in said
    for name in (".Trash", "@eaDir", "__MACOSX"):
        assert f"1 hidden or trash folder ({name})" in said


# --- what is said ------------------------------------------------------------------------------


def test_a_folder_is_tagged_and_what_is_amiss_with_a_file_is_said(model, tmp_path, capsys):
    sounds, x = tmp_path / "sounds", sound(1)
    sounds.mkdir()
    sf.write(sounds / "a.wav", np.stack([sound(2.6, 44_100)] * 2, axis=1), 44_100)
    sf.write(sounds / "b.FLAC", sound(0.2, 8000), 8000, format="FLAC")
    sf.write(sounds / "cancels.wav", np.stack([x, -x], axis=1), RATE)
    sf.write(sounds / "click.wav", x[:1000], RATE)
    sf.write(sounds / "silent.wav", np.zeros(9000), RATE)
    (sounds / "junk.mp3").write_bytes(b"junk" * 999)
    arguments = ["tag", str(sounds), "--model", str(model), "--csv", str(tmp_path / "tags.csv")]
    assert cli.main(arguments) == 2
    said = capsys.readouterr().out
    rows = rows_of(tmp_path / "tags.csv")
    notes = {Path(row["file"]).name: row["note"] for row in rows}
    for name in ("silent.wav", "junk.mp3"):
        (line,) = [line for line in said.splitlines() if name in line]
        assert line == f"error: {notes[name]}"
    for name, words in {"cancels.wav": "the channels cancel", "click.wav": "shorter than"}.items():
        assert words in notes[name] and notes[name] == load_clip(sounds / name)[1]
        assert f"note: {notes[name]}" in said
    assert notes["a.wav"] == notes["b.FLAC"] == ""
    tagged = [row for row in rows if row["rank"]]
    assert len(tagged) == 12
    for row in tagged:
        assert row["label"] in CLASSES and 0 <= float(row["probability"]) <= 1
        assert 0 <= float(row["start"]) < float(row["end"]) <= 2.6
    assert "first label is right for 50%" in said
    assert "25% of 4 sounds of birds" in said and "licence: CC0" in said


def test_silent_and_strange_windows_have_no_label_and_a_strange_sound_is_none_of_the_classes():
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
    assert tagging.as_line("x", tags, 1) == "x: a 0.50 (0.0 to 2.0 s)"
    strange = replace(tags, limit=2.0, note="short")
    assert tagging.as_line("x", strange, 1).startswith(f"x: {tagging.NOT_KNOWN}; nearest: a")
    assert tagging.as_rows(strange, 1)[0][-1] == f"{tagging.NOT_KNOWN}; short"


# --- pictures ----------------------------------------------------------------------------------


def test_labels_and_pictures_are_named_after_the_sounds(model, tmp_path):
    files = [tmp_path / "a.wav", tmp_path / "below" / "a.wav", tmp_path / "a (2).wav"]
    for file in files:
        file.parent.mkdir(exist_ok=True)
        sf.write(file, sound(2.6), RATE)
    beside = tmp_path / "tags"
    arguments = ["tag", *map(str, files), "--model", str(model), "--audacity", "--picture"]
    assert cli.main([*arguments, "--folder", str(beside)]) == 0
    names = {file.name for file in beside.iterdir()}
    stems = ("a", "a (2)", "a (2) (2)")
    assert names == {f"{stem}.{end}" for stem in stems for end in ("labels.txt", "tags.png")}
    assert (beside / "a.tags.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["log_db", "3ch_linear_mel_log", "3ch_mfcc_deltas", "waveform"])
def test_every_kind_of_representation_is_drawn(name, tmp_path):
    tagger = Tagger(write_model(tmp_path / "model", [name], ["$5_$", "a$_{$b"]))
    tags = tagger(sound(1.5), RATE)
    figure = tagging.draw(tagger, tags, sound(1.5), RATE, begin=7.0)
    figure.draw_without_rendering()
    above, below = figure.axes[:2]
    assert above.get_xlim() == below.get_xlim() == pytest.approx((7.0, 8.5))


def test_a_picture_of_a_long_file_shows_what_lies_around_its_strongest_window(
    model, tmp_path, monkeypatch
):
    sf.write(tmp_path / "a.flac", sound(4.0), RATE)
    tagger, drawn = Tagger(model), []
    monkeypatch.setattr(tagging, "SHOWN", 2.0)
    draw = tagging.draw
    monkeypatch.setattr(tagging, "draw", lambda *given: drawn.append(given) or draw(*given))
    tags = tagger.tag_file(tmp_path / "a.flac")
    assert tagging.draw_file(tagger, tags, tmp_path / "a.flac").startswith(b"\x89PNG")
    ((_, _, waveform, rate, begin),) = drawn
    best = tags.best(1)[0]
    assert begin <= best.start and best.end <= begin + 2
    whole = sf.read(tmp_path / "a.flac")[0][round(begin * rate) :]
    assert np.allclose(waveform, whole[: len(waveform)], atol=1e-4) and len(waveform) == 2 * rate


# --- where it is written -----------------------------------------------------------------------


def test_a_stopped_call_goes_on_and_ends_with_the_same_table(model, many, tmp_path, monkeypatch):
    out, asked, tag_file = tmp_path / "tags.csv", [], Tagger.tag_file
    arguments = ["tag", str(many), "--model", str(model), "--csv", str(out)]
    assert cli.main(arguments) == 0
    whole = out.read_text()
    lines = whole.splitlines(keepends=True)
    monkeypatch.setattr(Tagger, "tag_file", lambda *a: asked.append(a[1].name) or tag_file(*a))
    # Cut after a file, after a row, in a row, in a name, in the header, not at all.
    name = len(lines[6]) - 9
    for rows, cut, again in ((7, 0, 4), (8, 0, 3), (8, 9, 3), (7, name, 4), (1, 9, 5), (16, 0, 1)):
        kept = "".join(lines[:rows])
        out.write_text(kept[: len(kept) - cut])
        asked.clear()
        assert cli.main([*arguments, "--resume"]) == 0
        assert out.read_text() == whole and len(asked) == again


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


def test_resume_keeps_the_rows_of_others_and_tries_again_what_failed(model, many, tmp_path, capsys):
    out, other, name = tmp_path / "tags.csv", tmp_path / "other", "\u0436" * 110
    other.mkdir()
    (many / "0.wav").rename(many / f"{name}.wav")  # of 224 bytes
    whole = (many / f"{name}.wav").read_bytes()
    (other / f"{name}.wav").write_bytes(whole[:2000])
    arguments = ["tag", "--model", str(model), "--csv", str(out), "--audacity", "--resume"]
    assert cli.main([*arguments, str(many), "--folder", str(many)]) == 0
    before = rows_of(out)
    assert cli.main([*arguments, str(other), "--folder", str(many)]) == 2
    assert f"{name}.labels.txt is there already" in capsys.readouterr().err
    assert rows_of(out) == before
    for content, n in ((whole[:2000], 16), (whole, 18)):
        (other / f"{name}.wav").write_bytes(content)
        cli.main([*arguments, str(other), "--folder", str(other)])
        assert rows_of(out)[:15] == before and len(rows_of(out)) == n


def test_a_link_is_followed_and_a_pipe_is_written_to(model, many, tmp_path):
    arguments = ["tag", str(many), "--model", str(model), "--csv"]
    shared, link, pipe = tmp_path / "all.csv", tmp_path / "tags.csv", tmp_path / "pipe"
    shared.touch()
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
def test_a_full_device_is_an_error(model, many, capsys):
    assert cli.main(["tag", str(many), "--model", str(model), "--csv", "/dev/full"]) == 2
    said = capsys.readouterr().err
    assert "5 of 5 files are left" in said and os.strerror(errno.ENOSPC) in said


def test_names_that_the_terminal_cannot_show_stop_nothing(model, many, tmp_path):
    (many / "0.wav").rename(many / "gr\udcfcn\n.wav")  # the byte FC, in no encoding
    (many / "1.wav").rename(many / "\u767d<b>.wav")
    arguments = (many, "--model", model, "--csv", tmp_path / "tags.csv")
    env = os.environ | {"PYTHONIOENCODING": "ascii", "LANG": "C"}
    process = start(*arguments, stdout=subprocess.PIPE, env=env)
    said, errors = process.communicate()
    assert errors == b"" and process.returncode == 0 and said.isascii()
    assert len(said.split(b"\n\n")[0].splitlines()) == 5
    names = {Path(row["file"]).name for row in rows_of(tmp_path / "tags.csv")}
    assert {"gr\\udcfcn\n.wav", "\u767d<b>.wav"} < names
    assert cli.main(["tag", *map(str, arguments), "--resume"]) == 0
    assert len(rows_of(tmp_path / "tags.csv")) == 15


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
        (["a.wav", "--model", "nowhere"], "nowhere"),
        (["a.wav", "--representation", "mel_db"], "mel_db"),
        (["a.wav", "--csv", "gone/tags.csv"], "gone"),
        (["a.wav", "--csv", "empty"], "directory"),
        (["a.wav", "--csv", "a.wav"], "is not replaced"),
        (["linked", "--csv", "linked"], "is not replaced"),
        (["a.wav", "--csv", "other.csv"], "--resume goes on"),
        (["a.wav", "--resume"], "--csv"),
        (["a.wav", "--resume", "--csv", "other.csv"], "other.csv was not written by tag"),
        (["a.wav", "--folder", "a.wav", "--audacity"], "a.wav"),
        (["a.wav", "--folder", "gone/x", "--audacity"], "gone/x"),
        (["a.wav", "--folder", "edited", "--audacity"], "a.labels.txt is there already"),
        (["empty"], "no sound file"),
        (["pipe.wav"], "is not a file"),
    ],
)
def test_slips_get_one_line(model, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    sf.write("a.wav", sound(1), RATE)
    Path("linked").symlink_to("a.wav")
    Path("other.csv").write_text("a,b\n1,2\n")
    os.mkfifo("pipe.wav")
    for name in ("empty", "edited"):
        Path(name).mkdir()
    Path("edited/a.labels.txt").write_text("by hand")
    files = [file for file in Path().rglob("*.*") if file.is_file()]
    before = {file: file.read_bytes() for file in files}
    assert cli.main(["tag", "--model", str(model), *arguments]) == 2
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


def test_the_experiment_wants_a_clone_and_says_so(tmp_path, monkeypatch, capsys):
    site = tmp_path / "lib" / "site-packages" / "freesound_tagging"
    monkeypatch.setattr(cli, "__file__", str(site / "cli.py"))
    for command in ("run", "neighbours", "model"):
        assert cli.main([command]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ") and "clone" in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
