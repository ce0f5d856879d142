"""The stack of notebook 12 on the runs of the study ``stack``: its scores, for ``results/``."""

import pandas as pd

from freesound_tagging.features.clip_statistics import table_statistics
from freesound_tagging.runs import studies
from freesound_tagging.runs.experiment import Experiment
from freesound_tagging.scoring.metrics import average_networks
from freesound_tagging.scoring.stacking import (
    make_forest,
    make_lightgbm,
    make_logistic,
    nested_features,
    out_of_fold,
    permutation_importance,
    simple_features,
)


def mean_of_networks(scores: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the scores of several networks averaged by clip, as seed 0."""
    return average_networks(pd.concat(scores.values()))


def stack_networks(experiment: Experiment) -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """Return the scores of every stack, by name, and which members matter to the first.

    Raises
    ------
    FileNotFoundError
        Where the study ``stack`` has not been run to its end.
    """
    table = experiment.load_table()
    networks = studies.load_study_scores(experiment, "stack", finished=True)
    statistics = table_statistics(table, experiment.profile.grid)
    outer, inner = networks["grid"], networks["pairs"]
    everything = nested_features(table, outer, inner, statistics)
    stacked, models = out_of_fold(make_lightgbm, table, everything)
    alone = nested_features(table, outer, inner)
    scores = {
        "lightgbm": stacked,
        "lightgbm_networks_alone": out_of_fold(make_lightgbm, table, alone)[0],
        "logistic": out_of_fold(make_logistic, table, everything)[0],
        "mean_of_networks": mean_of_networks(outer),
        "forest_on_statistics": out_of_fold(
            make_forest, table, simple_features(table, {}, statistics)
        )[0],
    }
    return scores, permutation_importance(models, table, everything)
