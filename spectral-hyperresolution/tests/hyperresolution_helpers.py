"""What the tests of the transform share."""

import numpy as np

# The reference's grid on a range that keeps small signals quick.
SMALL = {"tdeci": 50, "over": 4, "noct": 12, "minf": 0.01, "maxf": 0.5}


def relative_error(result, expected) -> float:
    """Largest difference relative to the largest expected value."""
    result, expected = np.asarray(result), np.asarray(expected)
    return float(np.abs(result - expected).max() / np.abs(expected).max())


def cosine(a, b) -> float:
    """Cosine similarity of two pictures."""
    a, b = np.asarray(a, dtype=np.float64).ravel(), np.asarray(b, dtype=np.float64).ravel()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))
