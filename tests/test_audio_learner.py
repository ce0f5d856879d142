"""YAMNet fine-tuned in fastai: which patches it sees, and which layers move how far."""

import numpy as np
import pytest
import torch
from fastai.torch_core import set_seed

from freesound_tagging.features.yamnet import SAMPLE_RATE, load_yamnet, log_mel_patches
from studies.audio_finetuned import DrawPatches, TensorPatches, audio_learner

HELD_OUT = [3, 4]


@pytest.fixture(scope="module")
def clips():
    """Eight clips of different lengths, noise and tones in turns."""
    generator = np.random.default_rng(0)
    patches = []
    for clip in range(8):
        n = SAMPLE_RATE + clip * 4_000
        tone = np.sin(2 * np.pi * 500 * (clip + 1) * np.arange(n) / SAMPLE_RATE)
        waveform = generator.standard_normal(n) if clip % 2 else tone
        patches.append(log_mel_patches(0.3 * waveform, SAMPLE_RATE).half())
    return patches, ["tone", "noise"] * 4


@pytest.fixture
def learner(clips):
    set_seed(0)
    return audio_learner(*clips, HELD_OUT, drawn=2, batch_size=6)


def test_training_sees_some_patches_of_a_clip_and_scoring_all(clips, learner):
    pictures, classes = learner.dls.train.one_batch()
    assert pictures.shape == (6, 2, 96, 64) and len(classes) == 6
    for clip, (pictures, _) in zip(HELD_OUT, learner.dls.valid, strict=True):
        assert torch.equal(pictures[0], clips[0][clip].float())


@pytest.mark.parametrize(("there", "drawn"), [(1, 3), (3, 3), (9, 3)])
def test_drawn_patches_are_the_clips_own_and_as_different_as_can_be(there, drawn):
    patches = TensorPatches(torch.arange(there).repeat_interleave(96 * 64).view(-1, 96, 64))
    picked = DrawPatches(drawn)(patches, split_idx=0)[:, 0, 0].tolist()
    assert len(picked) == drawn and len(set(picked)) == min(there, drawn)
    assert set(picked) <= set(range(there))


def test_it_learns_and_early_layers_move_least(learner):
    before = load_yamnet().state_dict()
    with learner.no_bar(), learner.no_logging():
        learner.fit_one_cycle(6, slice(1e-6, 1e-2))
        probabilities, targets = learner.get_preds(ds_idx=1)
    assert (probabilities.argmax(dim=1) == targets).all()
    moved = {}
    for name, weights in learner.model.state_dict().items():
        if not name.startswith("head"):
            group = name.split(".")[0]
            moved[group] = max(moved.get(group, 0), float((weights - before[name]).abs().max()))
    assert 0 < moved["early"] < 0.1 * moved["late"]
