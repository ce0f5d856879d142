"""DataLoaders -> Learner: metrics, loss and optimizer; training in stages; predictions."""

import ctypes
import random
import sys
from collections.abc import Sequence

import fastai.callback.fp16
import fastai.callback.progress
import fastai.callback.schedule  # noqa: F401  (these three add to_fp16, no_bar and fit_one_cycle to Learner)
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.mixup import MixUp
from fastai.data.core import DataLoaders
from fastai.layers import NoneReduce
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.torch_core import to_device
from torch import Tensor
from tqdm import tqdm

from freesound_tagging.features.representations import get_variant
from freesound_tagging.features.store import Store
from freesound_tagging.learning.dataloaders import ReadPicture
from freesound_tagging.learning.networks import build_network, layer_groups
from freesound_tagging.learning.profiles import Profile

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h: when to hand memory back (-1: never), how many blocks to map apart."""


def top1_accuracy(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the share of clips whose first choice is right; logits (n, classes), targets (n,)."""
    return (_ranks(predictions, targets) == 0).float().mean()


def top3_error(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the share of clips whose class is not among the first three choices."""
    return (_ranks(predictions, targets) >= 3).float().mean()


def map3(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return MAP@3: the mean over clips of 1/rank, 0 where the rank is above 3."""
    ranks = _ranks(predictions, targets)
    return torch.where(ranks < 3, 1 / (ranks + 1), 0.0).mean()


def _ranks(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the place of the true class in each row, 0 for the highest score, (n,) floats.

    Of equal scores the lower index ranks first, as in `freesound_tagging.scoring.metrics`. A score
    that is not a number ranks last, so that a network that has diverged is not taken for a perfect
    one.
    """
    predictions = predictions.as_subclass(Tensor)
    targets = targets.as_subclass(Tensor).view(-1, 1)
    true = predictions.gather(1, targets)
    before = torch.arange(predictions.shape[1], device=predictions.device) < targets
    ahead = ~(predictions <= true) | ((predictions == true) & before)
    return ahead.sum(dim=1).float()


class WeightedCrossEntropy(CrossEntropyLossFlat):
    """Cross entropy in which each clip has a weight: the weighted mean over the batch.

    Targets are classes (n,), and the loss is the plain one; or classes and weights, (n, 2). MixUp
    shuffles both together and calls the loss for either part of each blend: each part then counts
    by the weight of the clip that it comes from.
    """

    def __call__(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits (n, classes)."""
        if targets.dim() == 1:
            return super().__call__(predictions, targets)
        classes, weights = targets.as_subclass(Tensor).unbind(dim=1)
        reduction = self.reduction
        with NoneReduce(self):
            losses = super().__call__(predictions, classes.long())
        # Scaled to a mean of 1 in the batch; where all are 0 the loss is 0, not a quotient of two.
        losses = losses * weights / weights.mean().clamp_min(torch.finfo(weights.dtype).tiny)
        return losses.mean() if reduction == "mean" else losses


class WeighClips(Callback):
    """Put the weights that training batches bring beside their classes, for the loss."""

    order = -1  # before MixUp, which takes a batch to have one target

    def before_batch(self):
        if self.training:
            classes, weights = self.yb
            self.learn.yb = (torch.stack([classes.as_subclass(Tensor).float(), weights], dim=1),)


def prepare_cpu() -> None:
    """Set this process up for a run on one core: one thread, and memory that is kept.

    One thread adds up the same way every time, and several wait for each other where runs go side
    by side. Each step of training frees hundreds of megabytes; glibc would hand them back to the
    system and fetch them again. Other C libraries are left as they are.
    """
    torch.set_num_threads(1)
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            for parameter, value in (M_TRIM_THRESHOLD, -1), (M_MMAP_MAX, 0):
                mallopt(parameter, value)


def make_learner(dls: DataLoaders, profile: Profile) -> Learner:
    """Return a fastai Learner: network in three groups, optimizer, the three metrics.

    On CUDA it trains in mixed precision; on a CPU pictures are laid out channels last, which its
    convolutions prefer.

    Raises
    ------
    ValueError
        Where the profile's network is unknown; the message lists the known ones.
    """
    weighted = profile.unverified_weight != 1
    learner = Learner(
        dls,
        build_network(profile.architecture, len(dls.vocab), profile.width),
        loss_func=WeightedCrossEntropy() if weighted else CrossEntropyLossFlat(),
        splitter=layer_groups,
        metrics=[top1_accuracy, top3_error, map3],
        wd=profile.weight_decay,
        cbs=[WeighClips()] * weighted + ([MixUp(profile.mixup)] if profile.mixup else []),
    )
    if dls.device.type == "cuda":
        return learner.to_fp16()
    if dls.device.type == "cpu":
        learner.model.to(memory_format=torch.channels_last)
    return learner


def fit(learner: Learner, profile: Profile) -> None:
    """Train in one or two stages of one-cycle training: the head alone, then all layers.

    Pretrained early layers see general shapes and need to move least; the head starts from nothing.
    """
    if profile.frozen_epochs:
        learner.freeze()
        learner.fit_one_cycle(profile.frozen_epochs, profile.frozen_lr)
        learner.unfreeze()
    rates = slice(profile.lr_max / profile.lr_ratio, profile.lr_max)
    learner.fit_one_cycle(profile.epochs, rates)


def predict(learner: Learner) -> pd.DataFrame:
    """Return the probabilities of the held-out clips: index ``clip_id``, one column a class.

    Of a clip with several windows they are the mean over all of these.
    """
    with learner.no_bar():
        probabilities, _ = learner.get_preds(ds_idx=1)
    clip_ids = pd.Index(learner.dls.valid_ds.items, name="clip_id")
    return pd.DataFrame(probabilities.numpy(), index=clip_ids, columns=list(learner.dls.vocab))


def predict_others(
    learner: Learner, store: Store, variant: str, clip_ids: Sequence[str]
) -> pd.DataFrame:
    """Return the probabilities of clips that are in none of the learner's folds, as `predict` does.

    Clips that the store could not read are left out.
    """
    clip_ids = [clip_id for clip_id in clip_ids if clip_id not in store.failed]
    read = ReadPicture(store, get_variant(variant), clip_ids)
    loader, classes = learner.dls.valid, list(learner.dls.vocab)
    learner.model.eval()
    parts = [torch.empty(0, len(classes))]
    with torch.no_grad():
        for start in range(0, len(clip_ids), loader.bs):
            codes = read.gather(clip_ids[start : start + loader.bs])
            # The held-out clips' transforms: loudness as over the training clips, no variation.
            (pictures,) = loader.after_batch((to_device(codes, loader.device),))
            parts.append(learner.model(pictures).softmax(dim=1).as_subclass(Tensor).float().cpu())
    index = pd.Index(clip_ids, name="clip_id")
    return pd.DataFrame(torch.cat(parts).numpy(), index=index, columns=classes)


class CountEpochs(Callback):
    """Advance a progress bar by one with each epoch."""

    def __init__(self, bar: tqdm):
        self.bar = bar

    def after_epoch(self):
        self.bar.update()


class SkipValidation(Callback):
    """Do not score the held-out fold after each epoch: nothing may be chosen by it."""

    def before_validate(self):
        raise CancelValidException()


def _order_by_seed(dls: DataLoaders, seed: int) -> None:
    """Let the seed alone decide in which order clips come.

    fastai draws it from Python's one generator for the whole process, and so do other threads there
    (a Dask worker's, a notebook kernel's), now and then between the seed and the draw. These are
    the draws that the seed gives undisturbed.
    """
    generator = random.Random(seed)
    for loader in dls.loaders:
        loader.rng = random.Random(generator.randint(0, 2**32 - 1))
