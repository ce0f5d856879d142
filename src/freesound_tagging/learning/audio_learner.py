"""YAMNet fine-tuned: log-mel patches of clips -> a fastai Learner with three groups of layers."""

from collections.abc import Sequence

import fastai.callback.schedule  # noqa: F401  (adds fine_tune and fit_one_cycle to Learner)
import torch
from fastai.data.block import CategoryBlock, DataBlock, TransformBlock
from fastai.data.transforms import IndexSplitter
from fastai.learner import Learner
from fastai.metrics import accuracy
from fastai.torch_core import TensorBase
from fasttransform import Transform
from torch import Tensor

from freesound_tagging.learning.networks import build_network, layer_groups


class TensorPatches(TensorBase):
    """Log-mel patches of one clip, (patches, 96, 64), or of a batch of clips."""


class DrawPatches(Transform):
    """Draw ``count`` of a training clip's patches anew each time, some twice if it has fewer."""

    split_idx = 0

    def __init__(self, count: int):
        self.count = count

    def encodes(self, patches: TensorPatches):
        most = max(len(patches), self.count)
        return patches[torch.randperm(most)[: self.count] % len(patches)]


def audio_learner(
    patches: Sequence[Tensor],
    labels: Sequence[str],
    held_out: Sequence[int],
    drawn: int = 4,
    batch_size: int = 16,
) -> Learner:
    """Return a fastai Learner of YAMNet with Google's weights and a new head, on the CPU.

    Its groups are early layers, late layers and head, so ``learner.fine_tune(6, 3e-3)`` trains the
    head first and then all, the early layers slowest, and ``slice(1e-5, 1e-3)`` works as a rate.

    Parameters
    ----------
    patches : `log_mel_patches` of each clip, shape (patches, 96, 64); half precision will do.
    labels : the class of each clip.
    held_out : positions of the clips that do not train. They are scored with all their patches.
    drawn : patches that training takes of a clip each time.
    batch_size : clips.
    """
    block = DataBlock(
        blocks=(TransformBlock(item_tfms=[DrawPatches(drawn)]), CategoryBlock(sorted(set(labels)))),
        get_x=lambda clip: TensorPatches(patches[clip].float()),
        get_y=lambda clip: labels[clip],
        splitter=IndexSplitter(list(held_out)),
    )
    every = list(range(len(labels)))  # of different numbers of patches: they are scored singly
    loaders = block.dataloaders(every, bs=batch_size, val_bs=1, num_workers=0, device="cpu")
    network = build_network("yamnet", len(loaders.vocab))
    return Learner(loaders, network, metrics=accuracy, splitter=layer_groups)
