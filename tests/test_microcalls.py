"""The generated corpus: same seed same bytes, no give-away, and the physics its table states."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.signal
import scipy.stats
import soundfile
from test_datasets import check_contract

from freesound_tagging.sounds import microcalls
from freesound_tagging.sounds.microcalls import CALLS, NUISANCES

RATE = 22050
PITCH = 1500.0
LABELS = list(CALLS)
FINGERPRINT = 700.5128074793888  # of the sounds of VERSION 1


def members(family: str) -> list[str]:
    return [label for label, call in CALLS.items() if call.family == family]


def digests(table: pd.DataFrame) -> dict[str, str]:
    return {
        clip_id: hashlib.sha256(Path(path).read_bytes()).hexdigest()
        for clip_id, path in table["path"].items()
    }


def clean(label: str) -> np.ndarray:
    return microcalls.example(label, pitch=PITCH).astype(float)


def semitones(x: np.ndarray) -> np.ndarray:
    """Instantaneous frequency about PITCH in semitones, (n - 1,)."""
    phase = np.unwrap(np.angle(scipy.signal.hilbert(x)))
    frequency = np.diff(phase) * RATE / (2 * np.pi)
    smooth = scipy.signal.medfilt(frequency, 21)
    return 12 * np.log2(np.maximum(smooth, 1.0) / PITCH)


def peak_frequency(x: np.ndarray, low: float, high: float) -> float:
    """Strongest frequency of a real signal in Hz, between low and high."""
    size = 1 << 19
    spectrum = np.abs(np.fft.rfft((x - x.mean()) * np.hanning(len(x)), size))
    frequency = np.fft.rfftfreq(size, 1 / RATE)
    inside = (frequency >= low) & (frequency <= high)
    return float(frequency[inside][np.argmax(spectrum[inside])])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    return microcalls.load(tmp_path_factory.mktemp("corpus"), clips_per_class=5)


# ---- the files


def test_clip_table(corpus: pd.DataFrame):
    check_contract(corpus)
    assert set(corpus["label"]) == set(CALLS)
    assert (pd.crosstab(corpus["label"], corpus["fold"]) == 1).all(axis=None)
    assert list(corpus["group"]) == list(corpus.index)
    for path in corpus["path"]:
        x, rate = soundfile.read(path)
        assert rate == RATE and x.shape == (2 * RATE,)
        assert np.isfinite(x).all() and 0.01 < np.max(np.abs(x)) < 1


def test_same_bytes_for_any_number_of_jobs_and_of_clips(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "2")
    more = microcalls.load(tmp_path, clips_per_class=6)
    first, second = digests(corpus), digests(more)
    assert len(set(second.values())) == len(more) == 6 * len(CALLS)
    assert all(second[clip_id] == digest for clip_id, digest in first.items())
    other = digests(microcalls.load(tmp_path, clips_per_class=1, seed=1))
    assert not set(other.values()) & set(second.values())


def test_the_sounds_stay_those_of_this_version(corpus: pd.DataFrame):
    """Committed results rest on them. A sum, for the last bits may differ between machines."""
    weights = np.random.default_rng(0).standard_normal(2 * RATE)
    sounds = np.array([soundfile.read(path)[0] for path in corpus["path"]])
    assert np.abs(sounds @ weights).sum() == pytest.approx(FINGERPRINT, rel=1e-6)
    # Python's own hash of a string would give another number here in every process.
    assert microcalls.clip_rng(0, "step_up", 3).integers(1 << 30) == 140041418


def test_only_what_is_missing_is_written(tmp_path: Path):
    table = microcalls.load(tmp_path, clips_per_class=1)
    before = digests(table)
    lost, kept = Path(table["path"].iloc[3]), Path(table["path"].iloc[4])
    lost.unlink()
    os.utime(kept, (1, 1))
    microcalls.load(tmp_path, clips_per_class=1)
    assert kept.stat().st_mtime == 1
    assert digests(table) == before


# ---- nothing but the stated quantity tells the classes apart


def test_no_nuisance_differs_between_the_classes():
    draws = pd.DataFrame(
        {"label": label} | microcalls.draw_nuisances(microcalls.clip_rng(0, label, index))
        for label in LABELS
        for index in range(150)
    )
    p = {
        name: scipy.stats.kruskal(*(group for _, group in draws.groupby("label")[name])).pvalue
        for name in NUISANCES
    }
    # Eleven tests of a fixed seed: chance alone goes below 0.001 once in a hundred such corpora.
    assert min(p.values()) > 0.001, p


def test_level_and_signal_to_noise_ratio_are_what_was_drawn(monkeypatch: pytest.MonkeyPatch):
    # The level is that of the dry call; a steady tone's echo may add to it or take from it.
    monkeypatch.setattr(scipy.signal, "fftconvolve", lambda dry, tail: np.zeros(len(dry)))
    band = scipy.signal.butter(8, microcalls.NOISE_BAND, "band", fs=RATE, output="sos")
    for label in LABELS:
        loud, quiet, draw = (
            microcalls.synthesise(label, microcalls.clip_rng(0, label, 0), snr_db=80).astype(float),
            microcalls.synthesise(label, microcalls.clip_rng(0, label, 0), snr_db=5).astype(float),
            microcalls.draw_nuisances(microcalls.clip_rng(0, label, 0)),
        )
        start, n = round(draw["onset"] * RATE), round(draw["length"] * RATE)
        level = 10 * np.log10(np.mean(loud[start : start + n] ** 2))
        assert abs(level - draw["level"]) < 0.01
        noise = scipy.signal.sosfilt(band, quiet - loud)
        snr = draw["level"] - 10 * np.log10(np.mean(noise**2))
        assert abs(snr - 5) < 0.5


def test_a_fixed_noise_leaves_the_other_draws_alone():
    drawn = microcalls.draw_nuisances(microcalls.clip_rng(0, "step_up", 0))
    fixed = microcalls.draw_nuisances(microcalls.clip_rng(0, "step_up", 0), snr_db=3)
    assert fixed == drawn | {"snr": 3.0}


# ---- the physics of each family, measured on clean calls


@pytest.mark.parametrize("label", members("slope"))
def test_slope(label: str):
    pitch = semitones(clean(label))
    sweep = 12 * microcalls.SWEEP_OCTAVES
    middle = pitch[round(0.3 * RATE) : round(0.7 * RATE)]
    np.testing.assert_allclose(middle[[0, -1]], [-sweep / 2, sweep / 2], atol=0.05)
    seconds = np.sum(np.abs(middle) < 0.4 * sweep) / RATE / 0.8
    assert seconds == pytest.approx(CALLS[label].value, rel=0.05)


@pytest.mark.parametrize("label", members("curvature"))
def test_curvature(label: str):
    pitch = semitones(clean(label))
    sweep = 12 * microcalls.SWEEP_OCTAVES
    bend = CALLS[label].value
    # An exponential's steepness grows evenly in the logarithm, by exp(bend) from end to end.
    inside = slice(round(0.05 * RATE), round(0.95 * RATE))
    steepness = scipy.signal.savgol_filter(pitch, 2001, 2, deriv=1)[inside]
    time = np.arange(len(pitch))[inside] / RATE
    assert np.polyfit(time, np.log(steepness), 1)[0] == pytest.approx(bend, abs=0.05)
    # Halfway in time it lies at 1 / (1 + exp(bend / 2)) of the way: the end points are the same.
    halfway = pitch[round(0.5 * RATE)] / sweep
    assert halfway == pytest.approx(1 / (1 + np.exp(bend / 2)) - 0.5, abs=0.01)


@pytest.mark.parametrize("label", members("partials"))
def test_partials(label: str):
    x = clean(label)
    found = 12 * np.log2(peak_frequency(x, PITCH, 2 * PITCH) / peak_frequency(x, 500, PITCH))
    assert found == pytest.approx(CALLS[label].value, rel=0.02)


@pytest.mark.parametrize("label", members("step"))
def test_step(label: str):
    pitch = semitones(clean(label))
    before = np.median(pitch[round(0.1 * RATE) : round(0.4 * RATE)])
    after = np.median(pitch[round(0.6 * RATE) : round(0.9 * RATE)])
    assert after - before == pytest.approx(CALLS[label].value, abs=0.01)


@pytest.mark.parametrize("label", members("vibrato") + members("trill"))
def test_vibrato_and_trill(label: str):
    pitch = semitones(clean(label))[round(0.05 * RATE) : round(0.95 * RATE)]
    assert peak_frequency(pitch, 2, 40) == pytest.approx(CALLS[label].value, rel=0.03)
    # Both wobble equally far, so the extent does not tell one from the other.
    assert np.std(pitch) == pytest.approx(12 * microcalls.WOBBLE_OCTAVES, rel=0.15)


@pytest.mark.parametrize("label", members("tremolo") + members("click"))
def test_tremolo_and_click(label: str):
    envelope = np.abs(scipy.signal.hilbert(clean(label)))
    inside = envelope[round(0.05 * RATE) : round(0.95 * RATE)]
    assert peak_frequency(inside, 4, 40) == pytest.approx(CALLS[label].value, rel=0.03)
    peaks, _ = scipy.signal.find_peaks(envelope, height=0.4, distance=RATE // 40)
    gaps = np.diff(peaks[1:-1]) / RATE
    assert np.median(gaps) == pytest.approx(1 / CALLS[label].value, rel=0.03)
