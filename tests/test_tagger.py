"""A saved model tags any sound, and refuses a folder that is not what it says it is."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from freesound_tagging import cli
from freesound_tagging import model as models
from freesound_tagging import tag as tagging
from freesound_tagging.errors import DataError
from freesound_tagging.experiment import open_experiment
from freesound_tagging.features.grid import Grid
from freesound_tagging.learning import tagger as saved_models
from freesound_tagging.learning.networks import build_network
from freesound_tagging.learning.tagger import Tagger, Tags, read_settings, save
from freesound_tagging.sounds import catalogue
from freesound_tagging.sounds.clips import load_clip

RATE = 22_050
SOUNDS = {"clips": 3, "licence": "CC0", "citation": "me"}
CLASSES = ["clicks", "sweep", "tone", "none of it"]
GRID = {"duration": 1.0, "hop_length": 1576, "bins_per_octave": 3.3, "oversampling": 6}


def write_model(folder: Path, representations=("log_db", "hires_q2"), threshold: float = 0.0):
    """Save networks that nobody trained: what they say is arbitrary, and always the same."""
    torch.manual_seed(0)
    networks, weights = {}, {}
    for name in representations:
        network = build_network("compact", len(CLASSES), 8)
        for _, values in network.named_parameters():
            values.data *= 3  # so that sounds differ in what is said about them
        weights[name] = network.state_dict()
        networks[name] = {
            "architecture": "compact",
            "width": 8,
            "mean": [0.5],
            "deviation": [0.25],
            "temperature": 2.0,
            "threshold": threshold,
            "expected": {"top1_accuracy": 0.5, "top3_error": 0.25, "foreign": {}},
        }
    about = {
        "dataset": "mine",
        "profile": "smoke",
        "versions": {},
        "sounds": SOUNDS,
        "classes": CLASSES,
        "grid": {**Grid(**GRID).__dict__},
        "networks": networks,
    }
    save(folder, about, weights)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "mine" / "smoke")


@pytest.fixture
def copied(model, tmp_path) -> Path:
    """A copy of the model, to be spoilt."""
    return shutil.copytree(model, tmp_path / "model")


def sound(seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A tone in noise, in the first half a higher one."""
    t = np.arange(round(seconds * rate)) / rate
    pitch = np.where(t < seconds / 2, 2500.0, 600.0)
    noise = np.random.default_rng(seed).standard_normal(len(t))
    return (0.3 * np.sin(2 * np.pi * pitch * t) + 0.05 * noise).astype(np.float32)


def test_a_model_loads_without_what_only_training_needs(model):
    slow = {"fastai", "pandas", "numba", "scipy.signal", "matplotlib", "torchvision"}
    code = (
        "import sys, freesound_tagging as ft; ft.Tagger(sys.argv[1], 'log_db'); print(*sys.modules)"
    )
    command = [sys.executable, "-c", code, str(model)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not slow & set(ran.stdout.split())


# --- what is said ------------------------------------------------------------------------------


def test_probabilities_are_over_the_classes_and_the_same_twice(model):
    tagger = Tagger(model)
    tags = tagger(sound(3.3), RATE)
    assert tags.classes == tuple(CLASSES)
    assert tags.probabilities.sum() == pytest.approx(1)
    assert np.allclose(tags.window_probabilities.sum(axis=1), 1)
    assert list(tags.starts) == pytest.approx([0, 0.5, 1, 1.5, 2, 2.3])
    assert tags.seconds == pytest.approx(3.3)
    best = tags.best(3)
    assert [tag.probability for tag in best] == sorted(tags.probabilities, reverse=True)[:3]
    assert all(0 <= tag.start < tag.end <= 3.3 for tag in best)
    assert list(tags.table()["label"]) == [tag.label for tag in best]
    assert [label for label, _ in tags][:3] == [tag.label for tag in best]
    again = Tagger(model)(sound(3.3), RATE)
    assert np.array_equal(tags.probabilities, again.probabilities)


def test_a_file_is_tagged_as_its_waveform(model, tmp_path):
    path = tmp_path / "sound.flac"
    sf.write(path, sound(3.3), RATE)
    waveform, _ = sf.read(path)
    tagger = Tagger(model)
    assert np.allclose(
        tagger.tag_file(path).probabilities, tagger(waveform, RATE).probabilities, atol=1e-5
    )


@given(
    gain=st.sampled_from([1e-3, 0.5, 30.0]),
    seconds=st.floats(0.05, 4.0),
    channels=st.integers(1, 2),
)
@settings(max_examples=12, deadline=None)
def test_level_and_a_second_channel_change_nothing(model, gain, seconds, channels):
    tagger, waveform = Tagger(model), sound(seconds)
    plain = tagger(waveform, RATE)
    changed = tagger(np.stack([gain * waveform] * channels), RATE)
    # A code may round to the other side.
    assert np.allclose(plain.probabilities, changed.probabilities, atol=0.05)
    assert plain.loudness == pytest.approx(changed.loudness / gain, rel=1e-3)


def test_windows_count_by_their_loudness(model):
    tagger = Tagger(model)
    loud, soft = sound(1.0, seed=1), 1e-5 * sound(8.0, seed=2)
    whole = np.concatenate([loud, soft])
    among, alone = tagger(whole, RATE), tagger(whole[: RATE * 3 // 2], RATE)
    assert (len(among.starts), len(alone.starts)) == (17, 2)
    assert np.abs(among.probabilities - alone.probabilities).max() < 0.01
    silence = np.concatenate([loud, np.zeros(8 * RATE, np.float32)])
    assert all(tag.start <= 0.5 for tag in tagger(silence, RATE).best(4))


def test_below_the_threshold_it_is_none_of_the_classes(model, tmp_path, capsys):
    assert Tagger(model)(sound(2), RATE).is_known
    unsure = write_model(tmp_path / "unsure", threshold=1.1)
    assert not Tagger(unsure)(sound(2), RATE).is_known
    sf.write(tmp_path / "a.wav", sound(2), RATE)
    assert cli.main(["tag", str(tmp_path / "a.wav"), "--model", str(unsure)]) == 0
    said = capsys.readouterr().out
    assert tagging.NOT_KNOWN in said and "1.10" in said


@pytest.mark.parametrize(
    ("name", "rows"),
    [("3ch_linear_mel_log", "frequency (Hz"), ("3ch_mfcc_deltas", "coefficient")],
)
def test_three_planes_are_tagged_and_drawn(name, rows, tmp_path):
    network = build_network("compact", 2, 4)
    about = {
        "dataset": "mine",
        "profile": "smoke",
        "versions": {},
        "sounds": SOUNDS,
        "classes": ["a", "b"],
        "grid": {**Grid(**GRID).__dict__},
        "networks": {
            name: {
                "architecture": "compact",
                "width": 4,
                "mean": [0.1, 0.2, 0.3],
                "deviation": [1.0, 1.0, 1.0],
                "temperature": 1,
                "threshold": 0,
                "expected": {},
            }
        },
    }
    save(tmp_path / "model", about, {name: network.state_dict()})
    tagger = Tagger(tmp_path / "model")
    tags = tagger(sound(1.5), RATE)
    assert tags.probabilities.shape == (2,)
    assert tagger.spectrogram(sound(1.5), RATE).shape[0] == 3
    figure = tagging.draw(sound(1.5), RATE, [(tagger, tags)])
    figure.draw_without_rendering()
    labels = [ax.get_ylabel() for ax in figure.axes if "channel" in ax.get_title()]
    assert len(labels) == 3 and all(label.startswith(rows) for label in labels)


def test_a_short_sound_is_drawn_between_zeros_as_the_network_saw_it(model):
    tagger, beep = Tagger(model), sound(0.3)
    figure = tagging.draw(beep, RATE, [(tagger, tagger(beep, RATE))])
    (window,) = (ax for ax in figure.axes if ax.get_title().startswith("strongest window"))
    rows, columns = np.asarray(window.collections[0].get_array()).shape
    assert (rows, columns) == (tagger.grid.n_bins, tagger.grid.n_frames)


def test_nobody_has_to_read_the_output_to_its_end(model, folder):
    command = [sys.executable, "-m", "freesound_tagging", "tag", str(folder / "a.wav")]
    process = subprocess.Popen(
        [*command, "--model", str(model)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait() == cli.NOT_READ


def test_what_is_tagged_is_what_was_trained_on(table, store, profile, tmp_path):
    """The network's logits on the store's spectrograms are the tagger's on the files."""
    from freesound_tagging.learning.dataloaders import Loudness
    from freesound_tagging.runs import train

    learner = train(table, store, "log_db", None, 0, profile)
    assert len(learner.dls.train_ds) == len(table)
    loudness = next(step for step in learner.dls.after_batch.fs if isinstance(step, Loudness))
    classes = list(learner.dls.vocab)
    about = {
        "dataset": "three",
        "profile": "smoke",
        "versions": {},
        "sounds": SOUNDS,
        "classes": classes,
        "grid": {**profile.grid.__dict__},
        "networks": {
            "log_db": {
                "architecture": profile.architecture,
                "width": profile.width,
                "mean": loudness.mean.flatten().tolist(),
                "deviation": loudness.deviation.flatten().tolist(),
                "temperature": 1.0,
                "threshold": 0.0,
                "expected": {},
            }
        },
    }
    save(tmp_path / "model", about, {"log_db": learner.model.state_dict()})
    tagger = Tagger(tmp_path / "model")
    from freesound_tagging.learning.learner import predict_others

    clips = sorted(table.index)[::5]
    wanted = predict_others(learner, store, "log_db", clips)
    for clip_id in clips:
        tags = tagger.tag_file(table.loc[clip_id, "path"])
        assert np.allclose(tags.probabilities, wanted.loc[clip_id, classes], atol=1e-4)


def test_false_alarms_are_counted_on_sounds_of_other_data_sets_at_hand(
    model, tmp_path, monkeypatch
):
    for number in range(3):
        sf.write(tmp_path / f"{number}.wav", sound(1, seed=number), RATE)
    foreign = pd.DataFrame({"path": sorted(map(str, tmp_path.glob("*.wav"))), "label": "x"})
    monkeypatch.setattr(catalogue, "load", lambda name, root, **options: foreign.assign(fold=0))
    monkeypatch.setattr(models, "is_at_hand", lambda name, root: name != "esc10")
    experiment = open_experiment("microcalls", "smoke")
    counted = models.count_false_alarms(model, experiment, ["log_db", "hires_q2"])
    # All reach the threshold of 0, and the model's own data set is not asked.
    assert counted["log_db"] == counted["hires_q2"] == {"fsdd": {"n": 3, "labelled": 1.0}}
    unsure = write_model(tmp_path / "unsure", threshold=1.1)
    counted = models.count_false_alarms(unsure, experiment, ["log_db"])
    assert counted == {"log_db": {"fsdd": {"n": 3, "labelled": 0.0}}}


# --- bad input ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (np.zeros(0), "empty"),
        (np.zeros(9000), "silent"),
        (np.full(9000, 0.3), "silent"),
        (np.full(9000, np.nan), "NaN"),
        (np.zeros((2, 3, 4)), "shape"),
        (np.zeros((9000, 2)), "shape"),
    ],
)
def test_waveforms_that_cannot_be_tagged(model, waveform, words):
    with pytest.raises(DataError, match=words):
        Tagger(model)(waveform, RATE)


@pytest.mark.parametrize("sample_rate", [-1, 1, 99, 44_100.0])
def test_a_sample_rate_that_is_none(model, sample_rate):
    with pytest.raises(DataError, match="sample_rate"):
        Tagger(model)(sound(1), sample_rate)


def change(folder: Path, **changes) -> None:
    file = folder / "model.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def spoil_setting(folder: Path, name: str, value=None) -> None:
    """Take a setting of the first network away, or give it another value."""
    about = read_settings(folder)["networks"]
    first = about[next(iter(about))]
    first.pop(name) if value is None else first.update({name: value})
    change(folder, networks=about)


def flip_byte(folder: Path) -> None:
    file = folder / "log_db.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)


def drop(name: str):
    def spoil(folder: Path) -> None:
        about = json.loads((folder / "model.json").read_text())
        del about[name]
        (folder / "model.json").write_text(json.dumps(about))

    return spoil


SPOILT = {
    "another format": (lambda folder: change(folder, format=2), "format 2"),
    "other spectrograms": (lambda folder: change(folder, algorithm=-1), "version -1"),
    "a changed byte": (flip_byte, "sha256"),
    "no weights": (lambda folder: (folder / "log_db.safetensors").unlink(), "cannot be read"),
    "no JSON": (lambda folder: (folder / "model.json").write_text("{"), "no JSON"),
    "a list": (lambda folder: (folder / "model.json").write_text("[]"), "format None"),
    "one class fewer": (lambda folder: change(folder, classes=CLASSES[:3]), "does not fit"),
    "no class": (lambda folder: change(folder, classes=[]), "classes"),
    "another grid": (lambda folder: change(folder, grid={"columns": 3}), "grid"),
    "no network": (lambda folder: change(folder, networks={}), "networks"),
    "an unknown representation": (lambda f: change(f, networks={"nonesuch": {}}), "nonesuch"),
    "no mean": (lambda folder: spoil_setting(folder, "mean"), "networks.log_db.mean"),
    "two means": (lambda folder: spoil_setting(folder, "mean", [1.0, 2.0]), "mean"),
    "text for a mean": (lambda folder: spoil_setting(folder, "mean", ["a"]), "mean"),
    "temperature 0": (lambda folder: spoil_setting(folder, "temperature", 0), "temperature"),
    "text for a width": (lambda folder: spoil_setting(folder, "width", "8"), "width"),
    "another width": (lambda folder: spoil_setting(folder, "width", 16), "does not fit"),
    "no such network": (lambda f: spoil_setting(f, "architecture", "alexnet"), "alexnet"),
    "other planes": (lambda f: spoil_setting(f, "planes", [["mel", "db"]]), "planes"),
    "another channel": (
        lambda f: spoil_setting(f, "channels", {"log": {"axis": "log", "n_fft": 512}}),
        "computed otherwise",
    ),
    "no licence": (lambda f: change(f, sounds={"clips": 3, "citation": ""}), "sounds.licence"),
    "half of what to expect": (
        lambda f: spoil_setting(f, "expected", {"top1_accuracy": 0.5}),
        "networks.log_db.expected.top3_error",
    ),
    **{f"no {name}": (drop(name), name) for name in saved_models.SETTINGS if name != "format"},
}


@pytest.mark.parametrize("fault", SPOILT)
def test_a_model_that_is_not_what_it_says_is_refused(copied, tmp_path, capsys, fault):
    spoil, words = SPOILT[fault]
    spoil(copied)
    sf.write(tmp_path / "a.wav", sound(1), RATE)
    assert cli.main(["tag", str(tmp_path / "a.wav"), "--model", str(copied)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith("error: ") and words in said.err


def test_nothing_is_unpickled(copied, tmp_path):
    """A pickle in place of the weights is not opened, even where its hash is the one named."""
    import hashlib
    import pickle

    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    content = pickle.dumps(Trap())
    (copied / "log_db.safetensors").write_bytes(content)
    spoil_setting(copied, "sha256", hashlib.sha256(content).hexdigest())
    with pytest.raises(DataError, match="does not fit"):
        Tagger(copied)
    assert not (tmp_path / "sprung").exists()


def test_a_representation_that_the_model_lacks(model):
    with pytest.raises(DataError, match="hires_q8"):
        Tagger(model, "hires_q8")


# --- the command -------------------------------------------------------------------------------


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
    (sounds / "notes.md").write_text("no sound")
    (sounds / "._a.wav").write_bytes(b"what macOS knows of a.wav")
    (sounds / "phone.m4a").write_bytes(b"not read")
    return sounds


def test_a_folder_is_tagged_and_what_cannot_be_read_is_a_line(model, folder, tmp_path, capsys):
    out = tmp_path / "tags.csv"
    assert cli.main(["tag", str(folder), "--model", str(model), "--csv", str(out)]) == 2
    captured = capsys.readouterr()
    said = captured.out
    (left_out,) = [line for line in captured.err.splitlines() if "left out" in line]
    assert "left out 1 in formats that are not read (.m4a)" in left_out
    assert "._a.wav" not in said
    for name in ("silent.wav", "empty.wav", "junk.mp3"):
        (line,) = [line for line in said.splitlines() if name in line]
        assert line.startswith("error: ")
    assert "notes.md" not in said
    rows = list(csv.DictReader(out.open()))
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
    high = 0.5 * np.sin(2 * np.pi * 15_000 * np.arange(44_100) / 44_100)
    sf.write(tmp_path / "high.wav", high, 44_100)
    sf.write(tmp_path / "plain.wav", x, RATE)
    out = tmp_path / "tags.csv"
    arguments = ["tag", str(tmp_path), "--model", str(model), "--top", "1", "--csv", str(out)]
    assert cli.main(arguments) == 0
    said = capsys.readouterr().out
    rows = {Path(row["file"]).stem: row["note"] for row in csv.DictReader(out.open())}
    for name, words in {
        "cancels": "the channels cancel",
        "click": "shorter than one window",
        "high": "what is loud lies above 11,025 Hz",
    }.items():
        (line,) = [line for line in said.splitlines() if f"{name}.wav: " in line]
        assert line.startswith("note: ") and words in line and words in rows[name]
        assert rows[name].endswith(load_clip(tmp_path / f"{name}.wav")[1])
    assert rows["plain"] in ("", tagging.NOT_KNOWN) and "plain.wav: " not in said


def test_a_model_of_unknown_worth_says_so(copied, tmp_path, capsys):
    spoil_setting(copied, "expected", {})
    sf.write(tmp_path / "a.wav", sound(1), RATE)
    assert cli.main(["tag", str(tmp_path / "a.wav"), "--model", str(copied)]) == 0
    said = capsys.readouterr().out
    assert "was not measured" in said and "One in ten" not in said


def test_the_csv_alone_is_printed(model, folder, capsys):
    arguments = ["tag", str(folder / "a.wav"), "--model", str(model), "--csv", "-", "--top", "1"]
    assert cli.main(arguments) == 0
    header, row = capsys.readouterr().out.splitlines()
    assert header == ",".join(tagging.CSV_COLUMNS)
    assert row.split(",")[1] == "1"


def test_labels_and_pictures_are_named_after_the_sounds(model, folder, tmp_path, capsys):
    shutil.copy(folder / "a.wav", folder / "below" / "a.wav")
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


def test_a_picture_that_cannot_be_drawn_is_told_beside_the_csv(
    model, folder, tmp_path, monkeypatch, capsys
):
    def fail(*_):
        raise DataError("no room")

    monkeypatch.setattr(tagging, "picture", fail)
    arguments = ["tag", str(folder / "a.wav"), "--model", str(model), "--csv", "-", "--picture"]
    assert cli.main([*arguments, "--folder", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out.startswith(",".join(tagging.CSV_COLUMNS))
    assert said.err == f"error: {folder / 'a.wav'}: it has no picture (no room)\n"


def test_an_audacity_track_joins_windows_and_leaves_out_what_is_not_sure():
    window_probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.5, 0.5], [0.1, 0.9], [0.2, 0.8]])
    tags = Tags(
        classes=("a", "b"),
        probabilities=np.array([0.5, 0.5]),
        starts=np.array([0.0, 1.0, 2.0, 3.0, 3.5]),
        window_probabilities=window_probabilities,
        loudness=np.array([1.0, 1.0, 1.0, 1.0, 0.0]),
        seconds=5.5,
        window=2.0,
        threshold=0.7,
    )
    lines = [line.split("\t") for line in tagging.as_audacity(tags).splitlines()]
    assert lines == [["0.000000", "2.500000", "a 0.90"], ["3.500000", "4.250000", "b 0.90"]]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["gone.wav"], "gone.wav"),
        (["a.wav", "--top", "0"], "--top"),
        (["a.wav", "--longest", "0"], "--longest"),
        (["a.wav", "--model", "nowhere"], "nowhere"),
        (["a.wav", "--representation", "mel_db"], "mel_db"),
        (["a.wav", "--csv", "gone/tags.csv"], "gone"),
        (["a.wav", "--csv", "a.wav"], "this is a sound"),
        (["a.wav", "--csv", "new.flac"], "this is a sound"),
        (["a.wav", "--folder", "a.wav", "--audacity"], "this is a file"),
        (["a.wav", "--folder", "edited", "--audacity"], "a.labels.txt is there already"),
        (["empty"], "no sound file"),
    ],
)
def test_slips_get_one_line(model, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    sf.write("a.wav", sound(1), RATE)
    Path("empty").mkdir()
    Path("edited").mkdir()
    Path("edited/a.labels.txt").write_text("by hand")
    before = {file: file.read_bytes() for file in Path().rglob("*.*")}
    if "--model" not in arguments:
        arguments = [*arguments, "--model", str(model)]
    assert cli.main(["tag", *arguments]) == 2
    said = capsys.readouterr()
    errors = [line for line in (said.out + said.err).splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and words in errors[0]
    assert {file: file.read_bytes() for file in Path().rglob("*.*")} == before


def test_no_file_at_all(capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["tag"])
    assert stopped.value.code == 2
    assert "FILE" in capsys.readouterr().err


def test_without_a_model_it_says_how_to_make_one(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    sf.write(tmp_path / "a.wav", sound(1), RATE)
    assert cli.main(["tag", str(tmp_path / "a.wav")]) == 2
    assert "make model" in capsys.readouterr().err


def test_the_newest_model_is_taken(model, tmp_path, monkeypatch):
    monkeypatch.setenv("WORK_FOLDER", str(tmp_path))
    for name, seconds in (("b", 1000), ("a", 2000), ("c", 500)):
        shutil.copytree(model, tmp_path / "models" / name / "cpu")
        os.utime(tmp_path / "models" / name / "cpu" / "model.json", (seconds, seconds))
    assert tagging.newest_model() == (tmp_path / "models" / "a" / "cpu").resolve()


def test_a_file_of_more_than_an_hour_is_refused_unless_asked_for(model, tmp_path, monkeypatch):
    path = tmp_path / "long.wav"
    sf.write(path, np.tile(sound(1.0, 1000), 90), 1000)
    tagger = Tagger(model)
    ((_, refused),) = tagging.tag_files(tagger, [path], longest=60)
    assert isinstance(refused, DataError) and "--longest" in str(refused)
    ((_, tags),) = tagging.tag_files(tagger, [path], longest=90)
    assert tags.seconds == pytest.approx(90)


def test_a_long_file_takes_little_memory(model, tmp_path):
    """Four minutes at 44.1 kHz are 42 MB of samples."""
    path = tmp_path / "long.flac"
    with sf.SoundFile(path, "w", 44_100, 1) as file:
        for second in range(240):
            file.write(sound(1.0, 44_100, seed=second % 7))
    tagger = Tagger(model, "log_db")
    tagger(sound(2), RATE)  # what is computed once
    tracemalloc.start()
    tags = tagger.tag_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(tags.starts) == 479
    assert peak < 20e6
