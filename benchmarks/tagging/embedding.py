"""Does YAMNet's embedding tell ESC-10's sounds from others? ``python embedding.py``.

Five measures of how much a clip is like the training clips, each computed from the heads of the
five folds: own clips are those held out, strangers are sounds of other data sets and, as the harder
test, the clips of one class at a time that is left out of the training. The threshold is where 10 %
of the own clips are refused; the record says which share of the strangers is accepted.
"""

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, normalize

from freesound_tagging.experiment import open_experiment
from freesound_tagging.features.yamnet import EMBEDDING
from freesound_tagging.learning import unknown
from freesound_tagging.learning.audio import YAMNET, read_rows

sys.path.append(str(Path(__file__).resolve().parents[1]))
from surroundings import surroundings

RECORD = Path(__file__).with_suffix(".json")
REFUSED = 0.1
STRANGERS = {"fsdd": 10, "insectset32": 1, "microcalls": 2}  # every tenth clip, every one ...
C = 10.0  # as inner folds choose it on ESC-10


def likeness(inputs: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
    """Return each measure of the asked clips, shape (asked,): higher is more like the training."""
    head = LogisticRegression(C=C, max_iter=2000)
    head = make_pipeline(StandardScaler(), PCA(), head).fit(inputs, labels)
    means = pd.DataFrame(inputs).groupby(labels).mean()
    within = LedoitWolf().fit(inputs - means.loc[labels].to_numpy()).precision_
    offsets = asked[:, None] - means.to_numpy()
    nearest_class = np.einsum("ncf,fg,ncg->nc", offsets, within, offsets, optimize=True).min(axis=1)
    learned = unknown.learn_classes(inputs, labels)
    relative = unknown.class_strangeness(torch.from_numpy(asked), learned).numpy()
    return {
        "largest probability": head.predict_proba(asked).max(axis=1),
        "energy of the logits": logsumexp(head.decision_function(asked), axis=1),
        "nearest training clip (cosine)": (normalize(asked) @ normalize(inputs).T).max(axis=1),
        "nearest class (Mahalanobis)": -nearest_class,
        "nearest class against all (relative Mahalanobis)": -relative,
    }


def accepted(own: pd.DataFrame, strangers: pd.DataFrame) -> pd.Series:
    """Return the share of strangers above the threshold of each measure."""
    return (strangers >= own.quantile(REFUSED)).mean()


def main() -> None:
    """Measure, write the record and print it."""
    where = surroundings()
    torch.set_num_threads(1)
    ours = open_experiment("esc10", "audio")

    def mean_embeddings(name: str, step: int = 1) -> tuple[np.ndarray, pd.DataFrame]:
        experiment = open_experiment(name, "audio")
        table = experiment.load_table().iloc[::step]
        store = experiment.build_store(table, [YAMNET], ours.profile.grid)
        return read_rows(store, table)[:, :EMBEDDING], table

    inputs, table = mean_embeddings("esc10")
    labels = table["label"].to_numpy()
    others = {name: mean_embeddings(name, step)[0] for name, step in STRANGERS.items()}

    columns = {}
    for left_out in [None, *sorted(set(labels))]:
        own, strangers = [], {name: [] for name in (others if left_out is None else [left_out])}
        for fold in range(5):
            held_out, known = (table["fold"] == fold).to_numpy(), labels != left_out
            training = inputs[~held_out & known], labels[~held_out & known]
            own.append(pd.DataFrame(likeness(*training, inputs[held_out & known])))
            asked = others if left_out is None else {left_out: inputs[held_out & ~known]}
            for name, sounds in asked.items():
                strangers[name].append(pd.DataFrame(likeness(*training, sounds)))
        for name, parts in strangers.items():
            columns[name] = accepted(pd.concat(own), pd.concat(parts))
    result = pd.DataFrame(columns)
    result.insert(0, "classes left out, mean", result[sorted(set(labels))].mean(axis=1))
    record = {**where, "refused": REFUSED, "accepted": result.round(3).T.to_dict("index")}
    RECORD.write_text(json.dumps(record, indent=1) + "\n")
    print(result.round(3).T.to_string())


if __name__ == "__main__":
    main()
