"""The studies around the grid: what each asks, and of which data sets.

`freesound_tagging.runs.studies` says how each is planned; this table alone is enough to check a
command's arguments.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Study:
    """A question, and the data sets on which it is asked."""

    question: str
    datasets: tuple[str, ...]


STUDIES: dict[str, Study] = {
    "controls": Study(
        "What is a gain due to: reassignment, or the axis, the hop, the rows, the windows?",
        ("microcalls", "esc10"),
    ),
    "difficulty": Study("How fine a distinction does it take?", ("microcalls",)),
    "noise": Study("How much noise takes a gain away?", ("microcalls",)),
    "speakers": Study("Do digits x speakers, 60 classes, need more detail?", ("fsdd",)),
    "trials": Study(
        "Which optimizer, learning rate and mixup does each variant want, by inner folds?",
        ("esc10",),
    ),
    "tuned": Study("Does tuning change the ranking?", ("esc10",)),
    "tagger": Study("How good a tagger does this make, from scratch?", ("esc10",)),
}


def check_study(study: str, dataset: str) -> None:
    """Raise ValueError where a study is unknown or not asked on a data set."""
    if study not in STUDIES:
        raise ValueError(f"unknown STUDY {study!r}; the known ones are: {', '.join(STUDIES)}")
    asked = STUDIES[study].datasets
    if dataset not in asked:
        raise ValueError(f"STUDY={study} is asked on {', '.join(asked)}, not on {dataset}")
