"""How sure to be: one temperature from out-of-fold scores, and when to say "none of these".

A network trained to the end is too sure of itself. Dividing its logits by one number, the
temperature, changes no ranking and makes "0.8" mean right 8 times in 10 (Guo and others, On
calibration of modern neural networks, ICML 2017).
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from freesound_tagging.scoring.metrics import classes_of, true_indices

KNOWN_KEPT = 0.9
"""Share of the known sounds that must keep their label: it sets the limit of strangeness."""

BINS = 10  # even steps of probability in a reliability diagram


def sharpen(probabilities: ArrayLike, temperature: float) -> np.ndarray:
    """Return the probabilities that logits divided by ``temperature`` give, shape (..., classes).

    Above 1 they become more even, below 1 more extreme; the ranking stays.
    """
    logits = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), 1e-12, 1))
    return softmax(logits / temperature, axis=-1)


def fit_temperature(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Return the temperature, 0.1 to 10, with the lowest log loss of clips not trained on.

    ``probabilities`` have the shape (n, classes), ``targets`` are the index of each true class.
    """
    rows, targets = np.arange(len(targets)), np.asarray(targets)

    def loss(log_temperature: float) -> float:
        true = sharpen(probabilities, np.exp(log_temperature))[rows, targets]
        return -np.log(np.clip(true, 1e-12, 1)).mean()

    found = minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded")
    return float(np.exp(found.x))


def reliability(probabilities: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """Return how often the best label was right, by how sure it was: a reliability diagram's bars.

    One row for each of `BINS` even steps of probability that has clips: ``low``, ``high``, ``n``
    (clips), ``sure`` (mean probability of the best label), ``right`` (share that was right).
    """
    sure, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == targets
    low = np.minimum((sure * BINS).astype(int), BINS - 1) / BINS
    clips = pd.DataFrame({"low": low, "high": low + 1 / BINS, "sure": sure, "right": right})
    named = {"n": ("sure", "size"), "sure": ("sure", "mean"), "right": ("right", "mean")}
    return clips.groupby(["low", "high"]).agg(**named).reset_index()


def calibration_error(diagram: pd.DataFrame) -> float:
    """Return the expected calibration error: mean gap of a `reliability` diagram, by clips."""
    return float(np.average((diagram["sure"] - diagram["right"]).abs(), weights=diagram["n"]))


def calibrate(scores: pd.DataFrame) -> dict:
    """Return temperature, limit of strangeness and reliability, from out-of-fold scores.

    What the temperature is worth is measured on each fold with that of the other folds. The limit
    is what the strangeness of `KNOWN_KEPT` of the clips does not exceed. Scores are of clips as the
    network learns them; of a longer file windows are averaged, so that more files pass.
    """
    probabilities = scores[classes_of(scores)].to_numpy(dtype=np.float64)
    targets, folds = true_indices(scores), scores["fold"].to_numpy()
    crossed = np.empty_like(probabilities)
    for fold in np.unique(folds):
        held_out = folds == fold
        temperature = fit_temperature(probabilities[~held_out], targets[~held_out])
        crossed[held_out] = sharpen(probabilities[held_out], temperature)
    before, after = reliability(probabilities, targets), reliability(crossed, targets)
    return {
        "temperature": fit_temperature(probabilities, targets),
        "limit": float(np.quantile(scores["strangeness"], KNOWN_KEPT)),
        "calibration_error_before": calibration_error(before),
        "calibration_error": calibration_error(after),
        "reliability_before": before.to_dict("records"),
        "reliability": after.to_dict("records"),
    }
