"""What the tests of the transform share."""

import numpy as np
import signals

from spectral_hyperresolution import Settings, pictures

# The reference's grid on a range that keeps small signals quick.
SMALL = {"tdeci": 50, "over": 4, "noct": 12, "minf": 0.01, "maxf": 0.5}


def relative_error(result, expected) -> float:
    """Largest difference relative to the largest expected value."""
    result, expected = np.asarray(result), np.asarray(expected)
    return float(np.abs(result - expected).max() / np.abs(expected).max())


def cosine(a, b) -> float:
    a, b = np.asarray(a, dtype=np.float64).ravel(), np.asarray(b, dtype=np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


# What signals drawn at random are compared on. The hop is odd: no step, half-way between two
# samples, lies on the edge of two frames.
DRAWN_GRID = {"hop_length": 51, "bins_per_octave": 10, "oversampling": 6, "fmin": 0.005}


def histograms(
    x: np.ndarray, q: float, dtype: type = np.float64, **options
) -> tuple[np.ndarray, np.ndarray]:
    """Energy and number of points, each (frequency, time)."""
    settings = Settings(1.0, q=q, **DRAWN_GRID, **options)
    ((energy, count),) = pictures.histograms(x[None].astype(dtype), [settings])
    return energy[0].astype(np.float64), count[0].astype(np.float64)


def thresholded(energy: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Energy without the bins below the count threshold."""
    return np.where(count < np.sqrt(count.max()), 0, energy)


def clicks(n: int, how_many: int, seed: int) -> np.ndarray:
    """Samples of random height, none near the edge of two frames, where either may have them."""
    rng = np.random.default_rng(seed)
    hop = DRAWN_GRID["hop_length"]
    x = np.zeros(n)
    where = hop * rng.integers(0, n // hop, how_many) + rng.integers(5, hop - 5, how_many)
    x[where] = rng.standard_normal(how_many)
    return x


def steps(n: int, how_many: int, seed: int) -> np.ndarray:
    """A random staircase."""
    x = np.cumsum(clicks(n, how_many, seed))
    return x - x.mean()


def noise(n: int, how_many: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(n)


def glide(n: int, how_many: int, seed: int) -> np.ndarray:
    """A sine from one random frequency to another."""
    start, stop = np.random.default_rng(seed).uniform(0.006, 0.45, 2)
    return signals.chirp(1.0, n, start, stop)


DRAWN = {"clicks": clicks, "steps": steps, "noise": noise, "glide": glide}
