"""A head on YAMNet: embeddings -> logistic regression, folded into one affine map, and tags.

Of YAMNet nothing is trained. Each clip is one row of 2,048 numbers in the store (`yamnet.embed`),
so that all folds take seconds.
"""

import numpy as np
import pandas as pd
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from freesound_tagging.features import yamnet
from freesound_tagging.features.codes import encode
from freesound_tagging.features.store import Store
from freesound_tagging.features.yamnet import EMBEDDING
from freesound_tagging.learning import unknown
from freesound_tagging.learning.tagger import Settings

YAMNET = "yamnet"  # the representation, and the architecture of the profile that trains on it
LICENCE = "YAMNet's weights: Google, trained on AudioSet, Apache 2.0"
STRENGTHS = 10.0 ** np.arange(-3, 3)  # values of logistic regression's C to choose from


def read_rows(store: Store, clips: pd.DataFrame) -> np.ndarray:
    """Return the embeddings of clips, mean and maximum, shape (clips, 2048)."""
    return store.read(YAMNET, list(clips.index))[:, 0]


def fit(
    rows: np.ndarray, labels: np.ndarray, groups: np.ndarray
) -> tuple[dict[str, Tensor], float]:
    """Return a head's weights, with what `unknown.learn_classes` returns, and its C.

    C is chosen by the log loss on inner folds that keep each of the groups together; where no such
    fold has two classes to learn and one of them to test, it is 1. Rows are standardised, and
    turned to as many axes as there are clips, which changes nothing in the fit.
    """
    n_groups, every, splits = len(set(groups)), np.arange(len(labels)), []
    if n_groups > 1:
        splits = [
            (train, test)
            for train, test in GroupKFold(min(5, n_groups)).split(rows, labels, groups)
            if len(set(labels[train])) > 1 and np.isin(labels[test], labels[train]).any()
        ]
    turn = make_pipeline(StandardScaler(), PCA()).fit(rows)
    search = GridSearchCV(
        LogisticRegression(max_iter=2000),
        {"C": STRENGTHS if splits else [1.0]},
        scoring=_seen_log_loss,
        cv=splits or [(every, every)],
    ).fit(turn.transform(rows), labels)

    def logits(inputs: np.ndarray) -> np.ndarray:
        found = search.decision_function(turn.transform(inputs))
        return found if found.ndim == 2 else np.stack([0 * found, found], axis=1)  # of two classes

    bias = logits(np.zeros((1, rows.shape[1])))
    weight = (logits(np.eye(rows.shape[1])) - bias).T
    head = {"weight": torch.from_numpy(weight).float(), "bias": torch.from_numpy(bias[0]).float()}
    learned = unknown.learn_classes(rows[:, :EMBEDDING], labels)
    return head | learned, float(search.best_params_["C"])


def _seen_log_loss(head: LogisticRegression, inputs: np.ndarray, labels: np.ndarray) -> float:
    """Score a head, higher is better; all clips of a rare class may lie in folds it did not see."""
    seen = np.isin(labels, head.classes_)
    return -log_loss(labels[seen], head.predict_proba(inputs[seen]), labels=head.classes_)


def fit_clips(store: Store, clips: pd.DataFrame) -> tuple[dict[str, Tensor], float]:
    """Return `fit` of clips; inner folds are the table's, or of recordings where it is one."""
    groups = clips["fold"] if clips["fold"].nunique() > 1 else clips["group"]
    return fit(read_rows(store, clips), clips["label"].to_numpy(), groups.to_numpy())


def answer(rows: Tensor, weights: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Return logits, float64, (n, classes), and strangeness, (n,), of rows (n, 2048)."""
    logits = rows.double() @ weights["weight"].double().T + weights["bias"].double()
    return logits, unknown.class_strangeness(rows[:, :EMBEDDING], weights)


def score_fold(
    table: pd.DataFrame, store: Store, fold: int, seed: int, test: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Fit a head with one fold held out, and return its scores, see `runs.train_and_score`."""
    table = table.sort_index()
    training = table[table["fold"] != fold].drop(store.failed, errors="ignore")
    asked = pd.concat([table[table["fold"] == fold], test]).drop(store.failed, errors="ignore")
    weights, _ = fit_clips(store, training)
    logits, strangeness = answer(torch.from_numpy(read_rows(store, asked)), weights)
    about = {"seed": seed, "fold": fold, "label": asked["label"], "strangeness": strangeness}
    classes = sorted(training["label"].unique())
    scores = pd.DataFrame(logits.softmax(dim=1).numpy(), asked.index, classes)
    return pd.DataFrame(about, asked.index).join(scores).rename_axis("clip_id").reset_index()


def train_on_all(table: pd.DataFrame, store: Store) -> tuple[dict, dict[str, Tensor]]:
    """Return what tagging needs of a head that all clips train: its settings, and its weights."""
    weights, strength = fit_clips(store, table.drop(store.failed, errors="ignore"))
    about = {
        "architecture": YAMNET,
        "width": weights["weight"].shape[1],
        "mean": [],
        "deviation": [],
        "yamnet": yamnet.SHA256[yamnet.WEIGHTS],
        "C": strength,
    }
    return about, weights


class AudioNetwork:
    """A saved head behind YAMNet; what `tagger.SpectrogramNetwork` is for the others."""

    padded = False

    def __init__(self, settings: Settings, representation: str, weights: dict[str, Tensor]):
        self._grid, self._weights = settings.grid, weights
        self._yamnet = settings.networks[representation].yamnet
        yamnet.load_yamnet(self._yamnet)  # where it is not installed, that is told now

    def spectrogram(self, waveforms: Tensor) -> Tensor:
        """Return 8-bit codes, (windows, 1, 64 mel bands, time), of waveforms (windows, time)."""
        return encode(yamnet.mel_magnitude(waveforms).transpose(-1, -2))[:, None]

    def __call__(self, waveforms: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits, float64, (windows, classes), and strangeness, (windows,)."""
        rows = yamnet.embed(waveforms, self._grid, self._yamnet)
        return answer(rows[:, 0], self._weights)
