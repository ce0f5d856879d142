"""A probability of 0.8 should be right 8 times in 10."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from freesound_tagging.scoring.calibration import (
    KNOWN_KEPT,
    calibrate,
    calibration_error,
    fit_temperature,
    reliability,
    sharpen,
)


def drawn_scores(overconfidence: float, n: int = 3000, classes: int = 5):
    """Return probabilities whose logits are ``overconfidence`` times too large, and true labels."""
    rng = np.random.default_rng(0)
    logits = 1.5 * rng.standard_normal((n, classes))
    honest = sharpen(np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), 1)
    targets = np.array([rng.choice(classes, p=row) for row in honest])
    return sharpen(honest, 1 / overconfidence), targets


@given(st.lists(st.floats(1e-6, 1), min_size=2, max_size=6), st.floats(0.1, 10))
def test_a_temperature_keeps_the_ranking_and_the_sum(weights, temperature):
    probabilities = np.array(weights) / sum(weights)
    changed = sharpen(probabilities, temperature)
    assert changed.sum() == pytest.approx(1)
    assert np.all(np.diff(changed[np.argsort(probabilities)]) >= -1e-12)
    assert np.allclose(sharpen(probabilities, 1), probabilities, atol=1e-9)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 3.0])
def test_the_temperature_undoes_what_made_the_scores_too_sure(overconfidence):
    probabilities, targets = drawn_scores(overconfidence)
    assert fit_temperature(probabilities, targets) == pytest.approx(overconfidence, rel=0.1)


def test_calibration_mends_scores_that_are_too_sure_and_keeps_nine_in_ten_clips():
    probabilities, targets = drawn_scores(3.0)
    scores = pd.DataFrame(probabilities, columns=list("abcde")).assign(
        clip_id=np.arange(len(targets)).astype(str), seed=0, fold=np.arange(len(targets)) % 4
    )
    scores["label"] = np.array(list("abcde"))[targets]
    scores["strangeness"] = np.random.default_rng(1).standard_normal(len(scores))
    found = calibrate(scores)
    assert found["calibration_error_before"] > 0.2
    assert found["calibration_error"] < 0.03
    assert (scores["strangeness"] <= found["limit"]).mean() == pytest.approx(KNOWN_KEPT, abs=0.001)


def test_the_diagram_counts_every_clip_once():
    probabilities = np.array([[1.0, 0.0], [0.55, 0.45], [0.5, 0.5], [0.05, 0.95]])
    diagram = reliability(probabilities, np.array([0, 1, 0, 1]))
    assert diagram["n"].sum() == 4
    assert list(diagram["low"]) == [0.5, 0.9]
    assert list(diagram["right"]) == [0.5, 1.0]
    assert calibration_error(diagram) == pytest.approx((2 * 0.025 + 2 * 0.025) / 4)
