"""The fast form against the exact one on what is hard for it: clicks and steps, and every q."""

import numpy as np
from hyperresolution_helpers import DRAWN, cosine, histograms, thresholded
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

drawn = given(
    kind=st.sampled_from(sorted(DRAWN)),
    n=st.integers(1500, 2600),
    how_many=st.integers(2, 30),
    q=st.sampled_from([0.25, 0.4, 0.5, 0.75, 1.0, 2.0, 4.0, 8.0, 16.0]),
    seed=st.integers(0, 99),
)


@drawn
@example(kind="clicks", n=10_007, how_many=40, q=0.5, seed=0)  # a prime length: 0.943 once
@example(kind="clicks", n=1500, how_many=12, q=0.4, seed=0)  # a point on an edge: 0.9988 once
@example(kind="steps", n=2311, how_many=13, q=2.0, seed=1)  # 0.993 once
@settings(max_examples=25, deadline=None, derandomize=True)
def test_energy_is_close_to_that_of_the_exact_form(kind, n, how_many, q, seed):
    x = DRAWN[kind](n, how_many, seed)
    exact, _ = histograms(x, q, exact=True)
    # A point on the edge of two bins may fall to either, so a rare signal stands a little lower.
    assert cosine(histograms(x, q)[0], exact) > 0.999
    if q >= 1:
        assert cosine(histograms(x, q, accuracy=4)[0], exact) > 0.999


@drawn
@settings(max_examples=15, deadline=None, derandomize=True)
def test_threshold_keeps_what_is_clear_of_its_limit(kind, n, how_many, q, seed):
    """Bins whose number of points is half as large again as the limit, or as small, are alike."""
    # Over faint noise: in digital silence rounding decides how many points there are.
    x = DRAWN[kind](n, how_many, seed) + 1e-3 * DRAWN["noise"](n, 0, seed)
    exact, number = histograms(x, q, exact=True)
    assume(number.max() > 10)  # of a single step at a small q hardly a point is followed
    ratio = number / np.sqrt(number.max())
    clear = (ratio > 1.5) | (ratio < 1 / 1.5)
    fast = thresholded(*histograms(x, q))
    least = 0.99 if kind == "clicks" else 0.998
    assert cosine(fast * clear, thresholded(exact, number) * clear) > least
