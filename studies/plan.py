"""results/PLAN.md as data: the representations in their order, the contrasts, the schedule."""

import pandas as pd

from freesound_tagging.experiment import REFERENCE

QUESTION = ("log_db", "mel_db", "hires_q2", "gabor_q2", "hires_q8", "gabor_q8")
CAUSES = (
    *("hires_q2_smooth", "hires_q8_smooth", "gabor_q8_masked"),
    *("hires_q8_magnitude", "gabor_q8_magnitude"),
)
MIXES = ("3ch_hires_q1_q8_log_db", "3ch_gabor_q1_q8_log_db", "3ch_log_db_windows")
CONTROLS = ("gabor_q1", "gabor_q2", "gabor_q4", "gabor_q8", *MIXES[1:])

_ALL = tuple(dict.fromkeys((*QUESTION, *REFERENCE, *CONTROLS)))
_PRETRAINED = (
    (QUESTION, 3),  # steps (a) and (b)
    (CAUSES, 3),  # (c)
    (MIXES, 3),  # (d)
    (("log_linear",), 3),  # contrast 12
    (tuple(name for name in _ALL if name in REFERENCE), 1),  # (e): those that are not made yet
)
GRID: dict[str, tuple[tuple[tuple[str, ...], int], ...]] = {
    "esc10/pretrained": _PRETRAINED,
    "insectset32/pretrained": _PRETRAINED,
    "microcalls/cpu": ((_ALL, 5), (CAUSES, 5)),
    "esc10/cpu": ((_ALL, 3),),
    "fsdd/cpu": ((QUESTION, 3),),
}
"""DATASET/PROFILE -> steps, most wanted first: representations, and seeds of each."""

BASIC = (
    ("hires_q2", "log_db"),
    ("hires_q8", "log_db"),
    ("hires_q2", "gabor_q2"),
    ("hires_q8", "gabor_q8"),
    ("gabor_q8", "log_db"),
)
"""Contrasts 1 to 5."""
CONTRASTS = (
    *BASIC,
    ("3ch_hires_q1_q8_log_db", "3ch_gabor_q1_q8_log_db"),
    ("3ch_hires_q1_q8_log_db", "3ch_log_db_windows"),
    ("hires_q2_smooth", "hires_q2"),
    ("hires_q8_smooth", "hires_q8"),
    ("gabor_q8_masked", "gabor_q8"),
    ("hires_q8_magnitude", "gabor_q8_magnitude"),
)
"""Contrasts 1 to 11: representation, and what it is compared with."""
LOUDNESS = (
    ("log_linear", "log_db"),
    ("hires_q8_magnitude", "hires_q8"),
    ("gabor_q8_magnitude", "gabor_q8"),
)
"""Contrasts 12 to 14: magnitudes against decibels."""


def families_of(dataset: str, profile: str) -> tuple[tuple[tuple[str, str], ...], ...]:
    """Return the planned contrasts of a grid; each family of them is judged together."""
    if profile == "pretrained":
        known = dataset == "insectset32"  # 13 and 14, before they were planned
        return CONTRASTS, LOUDNESS[:1] if known else LOUDNESS
    causes = CONTRASTS[7:]  # contrasts 8 to 11
    return (BASIC, causes) if dataset == "microcalls" else (BASIC,)


def choose_schedule(losses: pd.DataFrame) -> str:
    """Return the schedule that the plan's rule takes.

    ``losses`` are mean log losses: a row for each schedule, a column for each representation. One
    rate stays, unless another is lower with every representation; of several, the lowest mean.
    """
    lower = losses[(losses < losses.loc["one_rate"]).all(axis=1)]
    return "one_rate" if lower.empty else str(lower.mean(axis=1).idxmin())
