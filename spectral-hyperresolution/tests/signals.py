"""Named signals, for the tests and the benchmarks.

Every function takes the sample rate in Hz first and returns a float64 array of shape (N,), in
[-1, 1] unless it says otherwise.
"""

import numpy as np


def time_axis(sample_rate: float, duration: float) -> np.ndarray:
    """Sample times in seconds, shape (round(duration * sample_rate),)."""
    return np.arange(round(duration * sample_rate)) / sample_rate


def sine(sample_rate: float, duration: float, frequency: float, amplitude: float = 0.5):
    """One steady sine of `frequency` Hz."""
    return amplitude * np.sin(2 * np.pi * frequency * time_axis(sample_rate, duration))


def two_partials(sample_rate: float, duration: float, frequency: float, ratio: float = 1.06):
    """Two steady sines of equal amplitude, `ratio` apart (1.06: a semitone)."""
    lower = sine(sample_rate, duration, frequency, 0.4)
    return lower + sine(sample_rate, duration, frequency * ratio, 0.4)


def chirp(sample_rate: float, duration: float, start: float, stop: float, amplitude: float = 0.5):
    """A sine that glides exponentially from `start` to `stop` Hz: straight on a log axis."""
    t = time_axis(sample_rate, duration)
    rate = np.log(stop / start) / duration
    return amplitude * np.sin(2 * np.pi * start * np.expm1(rate * t) / rate)


def chirp_and_clicks(sample_rate: float, duration: float = 0.5, period: float = 0.05):
    """A chirp that crosses a click train: something narrow in frequency, something in time."""
    x = chirp(sample_rate, duration, 400, 6000, 0.1)
    positions = np.round(np.arange(period / 2, duration, period) * sample_rate)
    x[positions.astype(int).clip(0, len(x) - 1)] += 0.9
    return x


def noise(sample_rate: float, duration: float, seed: int = 0, amplitude: float = 0.1):
    """White Gaussian noise with standard deviation `amplitude`; may leave [-1, 1]."""
    n_samples = round(duration * sample_rate)
    return amplitude * np.random.default_rng(seed).standard_normal(n_samples)


def impulse(n_samples: int, position: int):
    """One sample of 1 at index `position`."""
    return (np.arange(n_samples) == position).astype(float)


def square(sample_rate: float, duration: float, frequency: float):
    """A full-scale square wave, every sample at -1 or 1."""
    phase = (frequency * time_axis(sample_rate, duration)) % 1.0
    return np.where(phase < 0.5, 1.0, -1.0)


def bird(sample_rate: float, duration: float, seed: int = 0):
    """A song of short gliding syllables with two harmonics over faint noise."""
    rng = np.random.default_rng(seed)
    t = time_axis(sample_rate, duration)
    x = noise(sample_rate, duration, seed, 0.002)
    onset = 0.05 * duration
    while onset < 0.9 * duration:
        length = rng.uniform(0.04, 0.15)
        start, stop = rng.uniform(0.08, 0.2, 2) * sample_rate
        inside = (t >= onset) & (t < onset + length)
        u = (t[inside] - onset) / length
        phase = 2 * np.pi * length * (start * u + 0.5 * (stop - start) * u**2)
        x[inside] += np.sin(np.pi * u) ** 2 * (0.3 * np.sin(phase) + 0.05 * np.sin(2 * phase))
        onset += length + rng.uniform(0.02, 0.1)
    return x


# What the benchmarks and the tests run over: name -> function of (sample_rate, duration).
LIBRARY = {
    "chirp_and_clicks": chirp_and_clicks,
    "two_partials": lambda sample_rate, duration: two_partials(sample_rate, duration, 440.0),
    "noise": noise,
    "bird": bird,
    "square": lambda sample_rate, duration: square(sample_rate, duration, 110.0),
}
