"""A saved model tags any sound, and refuses a folder that is not what it says it is."""

import json
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile as sf
import torch

from freesound_tagging import cli
from freesound_tagging import model as models
from freesound_tagging.errors import DataError
from freesound_tagging.experiment import open_experiment
from freesound_tagging.features.grid import Grid
from freesound_tagging.learning.networks import build_network
from freesound_tagging.learning.tagger import Tagger, save
from freesound_tagging.sounds import catalogue

RATE = 22_050
CLASSES = ["clicks", "sweep", "tone", "none of it"]
GRID = Grid(duration=1.0, hop_length=1576, bins_per_octave=3.3, oversampling=6)
ABOUT = {
    "dataset": "mine",
    "profile": "smoke",
    "sounds": {"clips": 3, "licence": "CC0", "citation": "me"},
    "classes": CLASSES,
    "grid": dict(GRID.__dict__),
}


def write_model(folder: Path, representations=("log_db", "hires_q2"), classes=CLASSES, **network):
    """Save networks that nobody trained: what they say is arbitrary, and always the same."""
    torch.manual_seed(0)
    networks, weights = {}, {}
    for name in representations:
        trained = build_network("compact", len(classes), 8)
        for values in trained.parameters():
            values.data *= 3  # so that sounds differ in what is said about them
        learned = {"mean": torch.zeros(128), "axes": torch.zeros(1, 128), "spread": torch.ones(())}
        learned = {f"unknown.{part}": value for part, value in learned.items()}
        weights[name] = trained.state_dict() | learned
        channels = 3 if name.startswith("3ch") else 1
        about = {"architecture": "compact", "width": 8, "temperature": 2.0, "limit": 1e9}
        about |= {"mean": [0.5] * channels, "deviation": [0.25] * channels}
        foreign = {"birds": {"n": 4, "labelled": 0.25}}
        expected = {"top1_accuracy": 0.5, "top3_error": 0.25, "foreign": foreign}
        networks[name] = about | {"expected": expected} | network
    save(folder, ABOUT | {"classes": list(classes), "networks": networks}, weights)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_model(tmp_path_factory.mktemp("models") / "mine" / "smoke")


@pytest.fixture(scope="module")
def tagger(model) -> Tagger:
    return Tagger(model)


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


def test_probabilities_are_over_the_classes_and_of_a_file_the_same(model, tagger, tmp_path):
    tags = tagger(sound(3.3), RATE)
    assert tags.classes == tuple(CLASSES)
    assert tags.probabilities.sum() == pytest.approx(1)
    assert np.allclose(tags.window_probabilities.sum(axis=1), 1)
    assert list(tags.starts) == pytest.approx([0, 0.5, 1, 1.5, 2, 2.3])
    assert tags.seconds == pytest.approx(3.3)
    best = tags.best(3)
    assert [tag.probability for tag in best] == sorted(tags.probabilities, reverse=True)[:3]
    assert all(0 <= tag.start < tag.end <= 3.3 for tag in best)
    assert list(pd.DataFrame(best)["label"]) == [tag.label for tag in best]  # as in notebook 6
    again = Tagger(model)(sound(3.3), RATE)
    assert np.array_equal(tags.probabilities, again.probabilities)
    sf.write(tmp_path / "sound.flac", sound(3.3), RATE, subtype="PCM_24")
    said = tagger.tag_file(tmp_path / "sound.flac")
    assert np.allclose(said.probabilities, tags.probabilities, atol=1e-3)


@pytest.mark.parametrize(("gain", "seconds", "channels"), [(1e-3, 0.05, 1), (30.0, 2.7, 2)])
def test_level_and_a_second_channel_change_nothing(tagger, gain, seconds, channels):
    waveform = sound(seconds)
    plain = tagger(waveform, RATE)
    changed = tagger(np.stack([gain * waveform] * channels), RATE)
    # A code may round to the other side.
    assert np.allclose(plain.probabilities, changed.probabilities, atol=0.05)
    assert plain.loudness == pytest.approx(changed.loudness / gain, rel=1e-3)


def test_windows_count_by_their_loudness(tagger):
    loud, soft = sound(1.0, seed=1), 1e-5 * sound(8.0, seed=2)
    whole = np.concatenate([loud, soft])
    among, alone = tagger(whole, RATE), tagger(whole[: RATE * 3 // 2], RATE)
    assert (len(among.starts), len(alone.starts)) == (17, 2)
    assert np.abs(among.probabilities - alone.probabilities).max() < 0.01
    silence = np.concatenate([loud, np.zeros(8 * RATE, np.float32)])
    assert all(tag.start <= 0.5 for tag in tagger(silence, RATE).best(4))


def test_what_is_tagged_is_what_was_trained_on(table, store, profile, tmp_path):
    """The network's logits on the store's spectrograms are the tagger's on the files."""
    from freesound_tagging.features.representations import get_variant
    from freesound_tagging.learning.dataloaders import ReadCodes
    from freesound_tagging.learning.learner import predict
    from freesound_tagging.runs import train

    learner = train(table, store, "log_db", None, 0, profile)
    assert len(learner.dls.train_ds) == len(table)
    network, weights = models.network_of(learner, profile)
    about = ABOUT | {"classes": list(learner.dls.vocab), "grid": dict(profile.grid.__dict__)}
    network |= {"temperature": 1.0, "limit": 1.0, "expected": {}}
    save(tmp_path / "model", about | {"networks": {"log_db": network}}, {"log_db": weights})
    tagger = Tagger(tmp_path / "model")
    clips = sorted(table.index)[::5]
    wanted = predict(learner, ReadCodes(store, get_variant("log_db"), clips))
    for clip_id in clips:
        tags = tagger.tag_file(table.loc[clip_id, "path"])
        assert np.allclose(tags.probabilities, wanted.loc[clip_id, list(tags.classes)], atol=1e-4)


def test_false_alarms_are_counted_on_other_data_sets_that_are_at_hand_and_whole(
    tmp_path, monkeypatch
):
    for number in range(3):
        sf.write(tmp_path / f"{number}.wav", sound(1, seed=number), RATE)
    paths = sorted(map(str, tmp_path.glob("*.wav")))

    def load(name, root, **options):
        if name == "esc10":
            raise DataError("half an archive")
        return pd.DataFrame({"path": paths, "label": "x", "fold": 0})

    monkeypatch.setattr(catalogue, "load", load)
    monkeypatch.setattr(catalogue, "describe", lambda name: SimpleNamespace(archives=()))
    experiment = open_experiment("microcalls", "smoke")  # not asked, for its classes are known
    for limit, share in ((1e9, 1.0), (-1e9, 0.0)):
        tagger = Tagger(write_model(tmp_path / f"model{limit}", limit=limit))
        with pytest.warns(UserWarning, match="half an archive"):
            counted = models.count_false_alarms(tagger, experiment)
        assert counted == {"fsdd": {"n": 3, "labelled": share}}
    paths[0] = "gone.wav"
    with pytest.warns(UserWarning, match="fsdd is left out: gone.wav"):
        assert models.count_false_alarms(tagger, experiment) == {}


@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (np.zeros(0), "empty"),
        (np.full(9000, 0.3), "silent"),
        (np.full(9000, np.nan), "NaN"),
        (np.zeros((9000, 2)), "shape"),
    ],
)
def test_waveforms_that_cannot_be_tagged(tagger, waveform, words):
    with pytest.raises(DataError, match=words):
        tagger(waveform, RATE)


def spoil(folder: Path, path: str, value=None) -> None:
    """Change what stands at a path in ``model.json``, as ``sounds.licence``; None removes it."""
    about = json.loads((folder / "model.json").read_text())
    *parents, name = path.split(".")
    place = about
    for parent in parents:
        place = place[parent]
    place[name] = value
    if value is None:
        del place[name]
    (folder / "model.json").write_text(json.dumps(about))


LOG_DB = "networks.log_db"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("algorithm", -1, "algorithm"),
        ("classes", CLASSES[:3], "size mismatch"),
        ("classes", None, "classes"),
        ("grid.hop_length", "394", "grid.hop_length"),
        ("networks", {"nonesuch": {}}, "networks.nonesuch."),
        (f"{LOG_DB}.mean", [1.0, 2.0], "zip"),
        (f"{LOG_DB}.deviation", [0.0], f"{LOG_DB}.deviation.0"),
        (f"{LOG_DB}.architecture", "alexnet", "alexnet"),
        ("log_db.safetensors", "spoilt", "sha256"),
        ("log_db.safetensors", None, "No such file"),
        ("model.json", "{", "JSON"),
    ],
)
def test_a_model_that_is_not_what_it_says_is_refused(model, tmp_path, capsys, path, value, words):
    folder = shutil.copytree(model, tmp_path / "model")
    if not (folder / path).exists():
        spoil(folder, path, value)
    elif value is None:
        (folder / path).unlink()
    else:
        (folder / path).write_text(value)
    sf.write(tmp_path / "a.wav", sound(1), RATE)
    assert cli.main(["tag", str(tmp_path / "a.wav"), "--model", str(folder)]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert said.err.startswith(f"error: {folder}") and words in said.err


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
