"""Is a sound of none of the classes? How far its features lie from those of the training clips.

Softmax compares the classes and never asks whether any of them fits. The features that go into a
network's last layer tell: those of the training clips lie in a few dozen of many dimensions, and
what a sound has outside of these is how strange it is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from fastai.data.core import TfmdDL
    from fastai.learner import Learner

KEPT = 0.99  # share of the training clips' variance in the dimensions where nothing is strange
PREFIX = "unknown."  # of names in a model's weights that `learn` and `learn_classes` return


def features_and_logits(network: nn.Module, spectrograms: Tensor) -> tuple[Tensor, Tensor]:
    """Return what goes into a network's last layer, (n, windows, features), and its logits."""
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    seen: list[Tensor] = []
    with last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        logits = network(spectrograms)
    return torch.stack([window.as_subclass(Tensor) for window in seen], dim=1), logits


@torch.no_grad()
def _features(learner: Learner, loader: TfmdDL) -> Tensor:
    """Return the features of a loader's clips in their order, seen as held-out clips are."""
    loader = loader.new(shuffle=False, drop_last=False)
    network = learner.model.eval()
    with loader.dataset.set_split_idx(1):  # no augmentation
        return torch.cat([features_and_logits(network, batch[0])[0].cpu() for batch in loader])


def learn(learner: Learner) -> dict[str, Tensor]:
    """Return what `strangeness` needs to know of a trained Learner's training clips.

    ``unknown.mean``, shape (features,); ``unknown.axes``, shape (kept, features), orthonormal;
    ``unknown.spread``, root mean square distance of the training clips from their mean, shape ().
    """
    features = _features(learner, learner.dls.train).flatten(0, 1).double()
    mean = features.mean(dim=0)
    variances, axes = torch.linalg.eigh((features - mean).T @ (features - mean) / len(features))
    share = variances.flip(0).cumsum(0) / variances.sum()
    kept = axes.T.flip(0)[: int((share < KEPT).sum()) + 1]
    found = {"mean": mean, "axes": kept, "spread": variances.sum().sqrt()}
    return {f"{PREFIX}{name}": value.float() for name, value in found.items()}


def strangeness(features: Tensor, learned: dict[str, Tensor]) -> Tensor:
    """Return how strange features (n, windows, features) are, mean over windows, (n,), float64.

    It is the distance from the space of the training clips over their spread: around 0.1 for them.
    """
    mean, axes, spread = (learned[PREFIX + name].double() for name in ("mean", "axes", "spread"))
    offset = features.double() - mean
    return ((offset - offset @ axes.T @ axes).norm(dim=-1) / spread).mean(dim=1)


def score(learner: Learner) -> Tensor:
    """Return the strangeness of the held-out clips, in the order of ``learner.dls.valid_ds``."""
    return strangeness(_features(learner, learner.dls.valid), learn(learner))


def learn_classes(features: np.ndarray, labels: np.ndarray) -> dict[str, Tensor]:
    """Return what `class_strangeness` needs to know of training clips' features, (n, features).

    With the covariances within classes and of all (Ledoit and Wolf 2004), in this order:
    ``unknown.mean`` (features,); ``unknown.form`` (features, features); ``unknown.slopes``
    (classes, features); ``unknown.offsets`` (classes,).
    """
    from sklearn.covariance import LedoitWolf  # slow to load

    features = features - (mean := features.mean(axis=0, dtype=np.float64))
    classes, places = np.unique(labels, return_inverse=True)
    means = np.stack([features[labels == label].mean(axis=0) for label in classes])
    within = LedoitWolf(assume_centered=True).fit(features - means[places]).precision_
    overall = LedoitWolf(assume_centered=True).fit(features).precision_
    slopes = means @ within
    offsets = (slopes * means).sum(axis=1)
    found = {"mean": mean, "form": within - overall, "slopes": -2 * slopes, "offsets": offsets}
    return {f"{PREFIX}{name}": torch.from_numpy(value).float() for name, value in found.items()}


def class_strangeness(features: Tensor, learned: dict[str, Tensor]) -> Tensor:
    """Return how strange features (n, features) are, shape (n,), float64.

    It is the relative Mahalanobis distance (Ren and others 2021, arXiv 2106.09022): that to the
    nearest class, minus that to all training clips together, both squared.
    """
    names = ("mean", "form", "slopes", "offsets")
    mean, form, slopes, offsets = (learned[PREFIX + name].double() for name in names)
    offset = features.double() - mean
    return ((offset @ form) * offset).sum(dim=1) + (offset @ slopes.T + offsets).amin(dim=1)
