"""The generated corpus *microcalls*: short calls that differ only in fine structure.

Eight families of two classes each. The two members of a family share everything (pitch, level,
onset, length, noise, reverberation, extent of the modulation) but one quantity: how long a glide
takes, which way a sweep bends, how fast a vibrato, trill, tremolo or click train runs, how far two
partials lie apart, whether a small step goes up or down. Four families ask for detail in
frequency, four for detail in time. `CALLS` says in words what sets each class apart.

A clip keeps its draws (pitch, onset, noise ...) when only the signal-to-noise ratio changes: such
comparisons are paired.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import NamedTuple

import joblib
import numpy as np
import pandas as pd
import scipy  # its signal is loaded when first used
import soundfile
from tqdm import tqdm

from freesound_tagging.files import write_atomically
from freesound_tagging.sounds.archives import Dataset
from freesound_tagging.sounds.tables import COLUMNS

# Part of the folder's name: raise it whenever the same seed would give other sounds, so that
# sounds of an older version are never served for the new one.
VERSION = 1

SAMPLE_RATE = 22_050  # Hz; all of a call lies below 5.5 kHz
SWEEP_OCTAVES = 5 / 12  # both sweep families run between the same two end points
WOBBLE_OCTAVES = 0.7 / 12  # rms-matched extent of vibrato and trill, see `_voices`
TREMOLO_DEPTH = 0.9
CLICK_SECONDS = 0.008  # standard deviation of one click's Gaussian envelope
SWITCH_SECONDS = 0.004  # steps glide over about this time: a jump would click
FADE_SECONDS = 0.02  # raised-cosine attack and release of every call
NOISE_BAND = (500.0, 5500.0)  # Hz; the calls live here, so the noise is measured here
FOLDS = 5

# What varies from clip to clip in the same way for every class: lowest and highest value, and
# whether it is drawn uniformly in the logarithm. The order is the order of the draws: appending
# keeps the earlier ones, anything else does not.
NUISANCES: dict[str, tuple[float, float, bool]] = {
    "pitch": (600, 4000, True),  # Hz: centre frequency (geometric middle of the call)
    "length": (0.4, 1.2, False),  # s: length of the call
    "onset": (0, 1, False),  # of the room left: start of the call; in s once drawn
    "level": (-38, -20, False),  # dB re full scale: rms of the dry call over its length
    "depth": (0.8, 1.25, True),  # times: extent of sweeps, vibrato and trill
    "position": (0.4, 0.6, False),  # of the length: middle of a glide or step
    "phase": (0, 1, False),  # cycle: phase of a modulation at the onset
    "snr": (-4, 16, False),  # dB: dry call over noise in 500 to 5500 Hz
    "colour": (0, 1.5, False),  # noise power falls as frequency to the minus this
    "decay": (0.1, 0.6, True),  # s: time in which the reverberation falls by 60 dB
    "wet": (-24, -6, False),  # dB: reverberation over the direct sound
}

FAMILIES: dict[str, str] = {
    **dict.fromkeys(("slope", "curvature", "partials", "step"), "frequency"),
    **dict.fromkeys(("vibrato", "trill", "tremolo", "click"), "time"),
}
"""The resolution, in frequency or in time, that telling a family's two classes apart asks for."""


class Call(NamedTuple):
    """One class: its family, the value of the quantity that sets it apart, and what is heard."""

    family: str
    value: float
    words: str


# The values of a family lie by the same offset, or by the same ratio, on either side of the middle.
CALLS: dict[str, Call] = {
    "slope_fast": Call("slope", 0.12 * 2.2**-0.5, "steady, a quick glide up, steady"),
    "slope_slow": Call("slope", 0.12 * 2.2**0.5, "a slower glide between the same two pitches"),
    "curve_concave": Call("curvature", -1.2, "a sweep up that rises early and flattens out"),
    "curve_convex": Call("curvature", 1.2, "a sweep up, same end points, that rises late"),
    "partials_narrow": Call("partials", 1.1 * 1.5**-0.5, "two equal partials, closer together"),
    "partials_wide": Call("partials", 1.1 * 1.5**0.5, "two equal partials, further apart"),
    "step_down": Call("step", -0.7, "a steady tone that drops by a small step about halfway"),
    "step_up": Call("step", 0.7, "a steady tone that rises by a small step about halfway"),
    "vibrato_slow": Call("vibrato", 10 * 1.3**-0.5, "pitch swings smoothly, slower"),
    "vibrato_fast": Call("vibrato", 10 * 1.3**0.5, "pitch swings smoothly, faster"),
    "trill_slow": Call("trill", 10 * 1.3**-0.5, "pitch jumps between two notes, slower"),
    "trill_fast": Call("trill", 10 * 1.3**0.5, "pitch jumps between two notes, faster"),
    "tremolo_slow": Call("tremolo", 12 * 1.22**-0.5, "a steady pitch, loudness swings slower"),
    "tremolo_fast": Call("tremolo", 12 * 1.22**0.5, "a steady pitch, loudness swings faster"),
    "click_slow": Call("click", 12 * 1.22**-0.5, "a train of tone bursts, fewer a second"),
    "click_fast": Call("click", 12 * 1.22**0.5, "a train of tone bursts, more a second"),
}


def clip_rng(seed: int, label: str, index: int) -> np.random.Generator:
    """Return the random generator of one clip, which depends on these three alone."""
    # Python's own hash of a string differs from one process to the next; this one never does.
    name = int.from_bytes(hashlib.sha256(label.encode()).digest()[:8], "big")
    return np.random.default_rng(np.random.SeedSequence([seed, name, index]))


def draw_nuisances(
    rng: np.random.Generator, duration: float = 2.0, snr_db: float | None = None
) -> dict[str, float]:
    """Draw what varies from clip to clip; knows nothing of the class.

    As many numbers are taken from ``rng`` whatever the settings. Keys and units are those of
    `NUISANCES`; ``onset`` in s. ``snr_db`` fixes the signal-to-noise ratio; None draws it.
    """
    draw = {}
    for name, (low, high, log) in NUISANCES.items():
        share = rng.uniform()
        draw[name] = float(low * (high / low) ** share if log else low + (high - low) * share)
    draw["onset"] *= duration - draw["length"]
    if snr_db is not None:
        draw["snr"] = float(snr_db)
    return draw


def _voices(
    family: str, value: float, t: np.ndarray, draw: dict[str, float]
) -> tuple[list[np.ndarray], np.ndarray | float]:
    """Return the partials of a call, in octaves above the pitch at times t (s); their amplitude."""
    sweep, wobble = SWEEP_OCTAVES * draw["depth"], WOBBLE_OCTAVES * draw["depth"]
    after = t - draw["position"] * draw["length"]  # s since the middle of a glide or step
    cycles = value * t + draw["phase"]  # of a modulation whose rate is the value
    wave = np.sin(2 * np.pi * cycles)
    match family:
        case "slope":  # value: time a glide takes, s
            return [sweep * np.clip(after / value, -0.5, 0.5)], 1.0
        case "curvature":  # bend of a sweep
            # An exponential between fixed end points: the opposite bend is its exact mirror in time
            # and frequency, so neither member of the family sweeps further or steeper.
            path = np.expm1(value * t / draw["length"]) / np.expm1(value)
            return [sweep * (path - 0.5)], 1.0
        case "partials":  # distance, semitones
            return [0 * t - value / 24, 0 * t + value / 24], 1.0
        case "step":  # semitones
            return [value / 24 * np.tanh(after / SWITCH_SECONDS)], 1.0
        case "vibrato":  # rate, Hz; so are those that follow
            return [wobble * (np.sqrt(2) * wave)], 1.0
        case "trill":
            # The slope at a crossing is 2 pi rate, so the switch takes as long at any rate.
            return [wobble * np.tanh(wave / (2 * np.pi * value * SWITCH_SECONDS))], 1.0
        case "tremolo":
            return [0 * t], 1 + TREMOLO_DEPTH * wave
    seconds = (cycles % 1 - 0.5) / value  # from the middle of the nearest click
    return [0 * t], np.exp(-0.5 * (seconds / CLICK_SECONDS) ** 2)


def _dry_call(label: str, draw: dict[str, float], phases: np.ndarray, rate: int) -> np.ndarray:
    """The call alone, (n,) float64, at an rms of one over its length."""
    t = np.arange(round(draw["length"] * rate)) / rate
    family, value, _ = CALLS[label]
    voices, amplitude = _voices(family, value, t, draw)
    call = np.zeros(len(t))
    for octaves, phase in zip(voices, phases, strict=False):
        # Summing the frequency keeps the phase continuous: a sine wave of frequency(t) * t would
        # sweep twice as far as meant.
        cycles = np.cumsum(draw["pitch"] * 2**octaves) / rate
        call += np.sin(2 * np.pi * (cycles + phase))
    edge = np.minimum(t, t[::-1]) / FADE_SECONDS
    call *= amplitude * (0.5 - 0.5 * np.cos(np.pi * np.clip(edge, 0, 1)))
    return call / np.sqrt(np.mean(call**2))


def _coloured_noise(white: np.ndarray, colour: float) -> np.ndarray:
    """Shape white noise (n,) and give it a power of one within NOISE_BAND."""
    n = len(white)
    frequency = np.fft.rfftfreq(n, 1 / SAMPLE_RATE)
    # Flat below 50 Hz: no power is spent, and no headroom lost, on a drift that nobody hears.
    spectrum = np.fft.rfft(white) * np.maximum(frequency, 50.0) ** (-colour / 2)
    spectrum[0] = 0
    band = (frequency >= NOISE_BAND[0]) & (frequency <= NOISE_BAND[1])
    power = 2 * np.sum(np.abs(spectrum[band]) ** 2) / n**2
    return np.fft.irfft(spectrum, n) / np.sqrt(power)


def synthesise(
    label: str, rng: np.random.Generator, duration: float = 2.0, snr_db: float | None = None
) -> np.ndarray:
    """Return one clip: a call somewhere in coloured noise, with reverberation.

    Everything that varies comes from ``rng``, for one from `clip_rng`; ``snr_db`` as for
    `draw_nuisances`. The duration in s is at least that of the longest call. Float32, shape
    (round(duration * SAMPLE_RATE),), within -1 to 1.
    """
    draw = draw_nuisances(rng, duration, snr_db)
    phases = rng.uniform(size=2)
    call = _dry_call(label, draw, phases, SAMPLE_RATE)

    n = round(duration * SAMPLE_RATE)
    dry = np.zeros(n)
    start = min(round(draw["onset"] * SAMPLE_RATE), n - len(call))
    dry[start : start + len(call)] = call

    m = round(draw["decay"] * SAMPLE_RATE)
    tail = rng.standard_normal(m) * 10 ** (-3 * np.arange(m) / m)
    tail *= 10 ** (draw["wet"] / 20) / np.sqrt(np.sum(tail**2))
    noise = _coloured_noise(rng.standard_normal(n), draw["colour"])

    clip = dry + scipy.signal.fftconvolve(dry, tail)[:n] + 10 ** (-draw["snr"] / 20) * noise
    clip *= 10 ** (draw["level"] / 20)
    # Reached only where the noise is set far above the call. Everything is turned down together,
    # so that the signal-to-noise ratio stands.
    gain = min(1.0, 0.99 / np.max(np.abs(clip)))
    return (gain * clip).astype(np.float32)


def example(
    label: str, pitch: float = 1500.0, length: float = 1.0, sample_rate: int = 22050
) -> np.ndarray:
    """Return one clean call, without noise, reverberation or silence around it; always the same.

    ``pitch`` is its centre frequency in Hz, 600 to 4000, ``length`` in s, 0.4 to 5. Float32, shape
    (round(length * sample_rate),), with a peak of 0.8.
    """
    draw = {"pitch": pitch, "length": length, "depth": 1.0, "position": 0.5, "phase": 0.0}
    call = _dry_call(label, draw, np.zeros(2), sample_rate)
    return (0.8 / np.max(np.abs(call)) * call).astype(np.float32)


def _write_clip(path: Path, label: str, index: int, seed: int) -> None:
    # Rounded here rather than by the sound library, whose rounding may change with its version.
    pcm = np.round(synthesise(label, clip_rng(seed, label, index)) * 32767).astype(np.int16)
    flac = io.BytesIO()
    soundfile.write(flac, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    write_atomically(path, flac.getvalue())


def load(root: str | Path, clips_per_class: int = 40, seed: int = 0) -> pd.DataFrame:
    """Write what is missing of the corpus and return its clip table, see `catalogue.load`.

    The sounds, of 2 s at 22,050 Hz, go as 16-bit FLAC to a folder under ``root`` named by the
    settings. The same settings give the same bytes, and the first clips of a class are the same
    however many are asked for; multiples of 5 fill the folds evenly. A run that is killed leaves no
    truncated clip, and the next one goes on from there.
    """
    name = f"microcalls-v{VERSION}-c{clips_per_class}-s{seed}-d1-snrmix-r22050-t2"
    folder = Path(root) / name
    folder.mkdir(parents=True, exist_ok=True)
    clips = [
        (folder / f"{label}-{index:04d}.flac", label, index)
        for label in CALLS
        for index in range(clips_per_class)
    ]
    missing = [(*clip, seed) for clip in clips if not clip[0].exists()]
    # Starting processes takes longer than writing a few clips.
    parallel = joblib.Parallel(1 if len(missing) < 32 else -1, return_as="generator_unordered")
    done = parallel(joblib.delayed(_write_clip)(*arguments) for arguments in missing)
    for _ in tqdm(done, total=len(missing), desc=name, unit="clip", disable=not missing):
        pass
    rows = [(p.stem, str(p), label, i % FOLDS, "train", True, p.stem) for p, label, i in clips]
    return pd.DataFrame(rows, columns=["clip_id", *COLUMNS]).set_index("clip_id").sort_index()


DATASET = Dataset("generated here, no rights reserved", "freesound_tagging.sounds.microcalls")
