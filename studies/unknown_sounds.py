"""Does YAMNet's embedding tell ESC-10's sounds from others? python -m studies.unknown_sounds.

Five measures of how much a clip is like the training clips, each computed from the networks of the
five folds: own clips are those held out, strangers are sounds of other data sets and, as the harder
test, the clips of one class at a time that is left out of the training. The threshold is where 10 %
of the own clips are refused; the table says which share of the strangers is accepted. Nothing is
fitted to a stranger, so a measure that is chosen by the left-out classes can be judged by the other
sets.
"""

import numpy as np
import pandas as pd
import torch
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.preprocessing import normalize

from freesound_tagging import load
from studies.audio import make_head, read_inputs

REFUSED = 0.1
STRANGERS = {"fsdd": 10, "insectset32": 1, "microcalls": 2}  # every tenth clip, every one ...
C = 10.0  # as the inner folds of studies/audio.py choose it on ESC-10


def distances(inputs: np.ndarray, centre: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """Return the squared Mahalanobis distance of each row to a centre."""
    offsets = inputs - centre
    return ((offsets @ precision) * offsets).sum(axis=1)


def likeness(inputs: np.ndarray, labels: np.ndarray, asked: np.ndarray) -> dict[str, np.ndarray]:
    """Return each measure of the asked clips, shape (asked,): higher is more like the training."""
    head = make_head(C=C).fit(inputs, labels)
    logits = head.decision_function(asked)
    means = {label: inputs[labels == label].mean(axis=0) for label in head.classes_}
    within = LedoitWolf().fit(inputs - np.stack([means[label] for label in labels])).precision_
    overall = LedoitWolf().fit(inputs).precision_
    nearest_class = np.min([distances(asked, mean, within) for mean in means.values()], axis=0)
    return {
        "largest probability": head.predict_proba(asked).max(axis=1),
        "energy of the logits": logsumexp(logits, axis=1),
        "nearest training clip (cosine)": (normalize(asked) @ normalize(inputs).T).max(axis=1),
        "nearest class (Mahalanobis)": -nearest_class,
        "nearest class against all (relative Mahalanobis)": (
            distances(asked, inputs.mean(axis=0), overall) - nearest_class
        ),
    }


def accepted(own: pd.DataFrame, strangers: pd.DataFrame) -> pd.Series:
    """Return the share of strangers above the threshold of each measure."""
    return (strangers >= own.quantile(REFUSED)).mean()


def main() -> None:
    torch.set_num_threads(1)
    table = load("esc10")
    inputs, labels = read_inputs(table["path"], "mean"), table["label"].to_numpy()
    others = {name: load(name).iloc[::step] for name, step in STRANGERS.items()}
    others = {name: read_inputs(sounds["path"], "mean") for name, sounds in others.items()}

    columns = {}
    for left_out in [None, *sorted(set(labels))]:
        own, strangers = [], {name: [] for name in (others if left_out is None else [left_out])}
        for fold in range(5):
            held_out, known = (table["fold"] == fold).to_numpy(), labels != left_out
            training = inputs[~held_out & known], labels[~held_out & known]
            own.append(pd.DataFrame(likeness(*training, inputs[held_out & known])))
            unknown = others if left_out is None else {left_out: inputs[held_out & ~known]}
            for name, sounds in unknown.items():
                strangers[name].append(pd.DataFrame(likeness(*training, sounds)))
        for name, parts in strangers.items():
            columns[name] = accepted(pd.concat(own), pd.concat(parts))
    result = pd.DataFrame(columns)
    result.insert(0, "classes left out, mean", result[sorted(set(labels))].mean(axis=1))
    print(result.round(3).T.to_string())


if __name__ == "__main__":
    main()
