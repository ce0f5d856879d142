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
"""Share of the known sounds whose best label must stay: it sets the threshold for "none"."""


BINS = 10
"""Steps of probability in a reliability diagram."""


def sharpen(probabilities: ArrayLike, temperature: float) -> np.ndarray:
    """Return the probabilities that logits divided by ``temperature`` give, rows summing to 1.

    Above 1 they become more even, below 1 more extreme; the ranking stays.

    Parameters
    ----------
    probabilities : shape (..., classes).
    temperature : above 0.
    """
    logits = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), 1e-12, 1))
    return softmax(logits / temperature, axis=-1)


def log_loss(probabilities: np.ndarray, targets: np.ndarray) -> float:
    """Return the mean of -ln(probability of the true class), (n, classes) and (n,)."""
    true = np.clip(probabilities[np.arange(len(targets)), targets], 1e-12, 1)
    return float(-np.log(true).mean())


def fit_temperature(probabilities: ArrayLike, targets: ArrayLike) -> float:
    """Return the temperature, 0.1 to 10, with the lowest log loss.

    Parameters
    ----------
    probabilities : of clips that the network did not train on, shape (n, classes).
    targets : index of the true class, shape (n,).
    """
    probabilities, targets = np.asarray(probabilities), np.asarray(targets)

    def loss(log_temperature: float) -> float:
        return log_loss(sharpen(probabilities, np.exp(log_temperature)), targets)

    found = minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded")
    return float(np.exp(found.x))


def reliability(probabilities: np.ndarray, targets: np.ndarray) -> pd.DataFrame:
    """Return how often the best label was right, by how sure it was: a reliability diagram's bars.

    Returns
    -------
    One row for each of `BINS` even steps of probability that has clips: ``low``, ``high``,
    ``n`` (clips), ``sure`` (mean probability of the best label), ``right`` (share that was right).
    """
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    step = np.minimum((sure * BINS).astype(int), BINS - 1)
    clips = pd.DataFrame({"sure": sure, "right": right})
    diagram = clips.groupby(step).agg(
        n=("sure", "size"), sure=("sure", "mean"), right=("right", "mean")
    )
    low = diagram.index.to_numpy()
    borders = pd.DataFrame({"low": low / BINS, "high": (low + 1) / BINS}, index=low)
    return borders.join(diagram).reset_index(drop=True)


def calibration_error(diagram: pd.DataFrame) -> float:
    """Return the expected calibration error: mean gap of a `reliability` diagram, by clips."""
    gaps = (diagram["sure"] - diagram["right"]).abs()
    return float((gaps * diagram["n"]).sum() / diagram["n"].sum())


def calibrate(scores: pd.DataFrame) -> dict:
    """Return temperature, threshold and reliability, from out-of-fold scores.

    The temperature and the threshold come from all scores. What they are worth is measured on each
    fold with the temperature of the other folds.

    Parameters
    ----------
    scores : out-of-fold scores, as in `metrics`.

    Returns
    -------
    ``temperature``; ``threshold``, the probability that the best label of `KNOWN_KEPT` of the
    clips reaches; ``calibration_error_before`` and ``calibration_error``; ``reliability``, rows of
    the diagram after calibration; ``reliability_before``.
    """
    classes = classes_of(scores)
    probabilities = scores[classes].to_numpy(dtype=np.float64)
    targets = true_indices(scores)
    folds = scores["fold"].to_numpy()
    temperature = fit_temperature(probabilities, targets)
    crossed = np.empty_like(probabilities)
    for fold in np.unique(folds):
        held_out = folds == fold
        others = ~held_out if (~held_out).any() else held_out
        crossed[held_out] = sharpen(
            probabilities[held_out], fit_temperature(probabilities[others], targets[others])
        )
    sure = sharpen(probabilities, temperature).max(axis=1)
    before, after = reliability(probabilities, targets), reliability(crossed, targets)
    return {
        "temperature": temperature,
        "threshold": float(np.quantile(sure, 1 - KNOWN_KEPT)),
        "calibration_error_before": calibration_error(before),
        "calibration_error": calibration_error(after),
        "reliability_before": before.to_dict("records"),
        "reliability": after.to_dict("records"),
    }
