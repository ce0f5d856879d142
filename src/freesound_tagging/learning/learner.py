"""DataLoaders -> Learner: loss and metrics, training in one or two stages, predictions."""

import ctypes
import random
import sys

import fastai.callback.fp16
import fastai.callback.progress
import fastai.callback.schedule  # noqa: F401  (these three add to_fp16, no_bar and fit_one_cycle to Learner)
import pandas as pd
import torch
from fastai.callback.core import Callback, CancelValidException
from fastai.callback.mixup import MixUp
from fastai.data.core import DataLoaders
from fastai.learner import Learner
from fastai.losses import CrossEntropyLossFlat
from fastai.metrics import AccumMetric
from fastai.torch_core import to_device
from torch import Tensor, nn

from freesound_tagging.learning.dataloaders import ReadCodes
from freesound_tagging.learning.networks import build_network, layer_groups
from freesound_tagging.learning.profiles import Profile
from freesound_tagging.scoring.metrics import map_at_k, top_k_error


def make_metrics() -> list[AccumMetric]:
    """Return what a Learner measures on the held-out clips: top-1 accuracy, top-3 error, MAP@3."""
    measured = {
        "top1_accuracy": lambda *given: 1 - top_k_error(*given, k=1),
        "top3_error": top_k_error,
        "map3": map_at_k,
    }
    asked = {"flatten": False, "to_np": True}
    return [AccumMetric(metric, name=name, **asked) for name, metric in measured.items()]


class WeightedCrossEntropy(CrossEntropyLossFlat):
    """Cross entropy in which each clip may have a weight: the weighted mean over the batch."""

    def __call__(self, predictions: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of logits (n, classes); targets are classes (n,), or with weights (n, 2).

        MixUp calls it for either part of each blend.
        """
        if targets.dim() == 1:
            return super().__call__(predictions, targets)
        classes, weights = targets.as_subclass(Tensor).unbind(dim=1)
        losses = nn.functional.cross_entropy(predictions, classes.long(), reduction="none")
        # Weights have a mean of 1 in the batch; where all are 0 the loss is 0.
        losses = losses * weights / weights.mean().clamp_min(torch.finfo(weights.dtype).tiny)
        return losses.mean() if self.reduction == "mean" else losses


def prepare_cpu() -> None:
    """Set this process up for a run on one core: one thread, and memory that is kept.

    One thread adds up the same way every time, and several wait for each other where runs go side
    by side. Each step of training frees hundreds of megabytes, which glibc would hand back to the
    system and fetch again.
    """
    torch.set_num_threads(1)
    if sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt"):
        trim_threshold, mmap_max = -1, -4  # of malloc.h
        ctypes.CDLL(None).mallopt(trim_threshold, -1)  # never hand memory back
        ctypes.CDLL(None).mallopt(mmap_max, 0)  # map no block apart


def make_learner(dls: DataLoaders, profile: Profile) -> Learner:
    """Return a fastai Learner, which trains with AdamW, on CUDA in mixed precision."""
    on = dls.device.type
    # Convolutions prefer channels last, but on MPS.
    layout = torch.contiguous_format if on == "mps" else torch.channels_last
    network = build_network(profile.architecture, len(dls.vocab), profile.width)
    learner = Learner(
        dls,
        network.to(dls.device, memory_format=layout),
        loss_func=WeightedCrossEntropy(),
        splitter=layer_groups,
        metrics=make_metrics(),
        wd=profile.weight_decay,
        cbs=[MixUp(profile.mixup)] if profile.mixup else [],
    )
    return learner.to_fp16() if on == "cuda" else learner


def fit(learner: Learner, profile: Profile) -> None:
    """Train in one or two stages, each one cycle of rates: the head, then all layers.

    fastai lets batch normalisation learn with the head.
    """
    if profile.frozen_epochs:
        learner.freeze()
        learner.fit_one_cycle(profile.frozen_epochs, profile.frozen_lr)
        learner.unfreeze()
    # Of early layers and head; fastai gives late layers the geometric mean.
    rates = slice(profile.lr_max / profile.lr_ratio, profile.lr_max)
    learner.fit_one_cycle(profile.epochs, rates)


@torch.no_grad()
def predict(learner: Learner, read: ReadCodes | None = None) -> pd.DataFrame:
    """Return the probabilities of the held-out clips, or of those that are ``read``.

    Index ``clip_id``, one column a class; of a clip with several windows their mean.
    """
    loader, classes = learner.dls.valid, list(learner.dls.vocab)
    clip_ids = list(learner.dls.valid_ds.items if read is None else read.row)
    parts = [torch.empty(0, len(classes))]
    learner.model.eval()
    for start in range(0, len(clip_ids), loader.bs):
        codes = (read or loader.read).gather(clip_ids[start : start + loader.bs])
        # The held-out clips' transforms: loudness as over the training clips, no variation.
        (inputs,) = loader.after_batch((to_device(codes, loader.device),))
        parts.append(learner.model(inputs).as_subclass(Tensor).softmax(dim=1).cpu())
    index = pd.Index(clip_ids, name="clip_id")
    return pd.DataFrame(torch.cat(parts).numpy(), index=index, columns=classes)


class SkipValidation(Callback):
    """Do not score the held-out fold after each epoch: nothing may be chosen by it."""

    def before_validate(self):
        raise CancelValidException()


def order_by_seed(dls: DataLoaders, seed: int) -> None:
    """Let the seed alone decide in which order clips come.

    fastai draws it from Python's one generator for the whole process, from which other threads draw
    too (a Dask worker's, a notebook kernel's).
    """
    generator = random.Random(seed)
    for loader in dls.loaders:
        loader.rng = random.Random(generator.randint(0, 2**32 - 1))
