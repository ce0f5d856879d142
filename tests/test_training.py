"""Training repeats to the byte, goes in two stages, and never sees what it scores."""

import random
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.callback.mixup import MixUp
from fastai.torch_core import set_seed
from torch.nn.functional import cross_entropy

from freesound_tagging.features.store import Store
from freesound_tagging.learning.dataloaders import make_dataloaders
from freesound_tagging.learning.learner import (
    SkipValidation,
    WeightedCrossEntropy,
    fit,
    make_learner,
    order_by_seed,
    predict,
)
from freesound_tagging.scoring.metrics import map_at_k, top_k_error


class Recorder(Callback):
    """Note the rate of each group at every step, and the weights around each stage."""

    def before_fit(self):
        self.stages = [*getattr(self, "stages", []), {"rates": [], "before": self.weights()}]

    def after_batch(self):
        if self.training:
            self.stages[-1]["rates"].append([group["lr"] for group in self.opt.hypers])

    def after_fit(self):
        self.stages[-1]["after"] = self.weights()

    def weights(self) -> dict[str, torch.Tensor]:
        named = self.learn.model.named_parameters()
        return {name: weight.detach().clone() for name, weight in named}


def fitted(table, store, profile, fold=0, seed=0, disturb=lambda: None):
    """Train a learner as a run does and return it with its recorder."""
    set_seed(seed, reproducible=True)
    disturb()
    dls = make_dataloaders(table, store, "log_db", fold, profile)
    order_by_seed(dls, seed)
    learner, recorder = make_learner(dls, profile), Recorder()
    with learner.no_bar(), learner.no_logging(), learner.added_cbs([recorder, SkipValidation()]):
        fit(learner, profile)
    return learner, recorder


# --- the same seed, the same scores ------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["compact", "efficientnet_lite0"])
def test_same_seed_same_scores_whatever_other_threads_draw(table, store, profile, architecture):
    # A Dask worker's own threads draw from the generator that fastai takes the clips' order from.
    settings = replace(profile, architecture=architecture)
    first = predict(fitted(table, store, settings)[0])
    pd.testing.assert_frame_equal(
        predict(fitted(table, store, settings, disturb=random.random)[0]), first, check_exact=True
    )
    assert np.abs(predict(fitted(table, store, settings, seed=1)[0]) - first).max(None) > 1e-4


# --- what a network may look at ----------------------------------------------------------------


class HeldOutScrambled(Store):
    """A store whose clips of fold 0 are noise."""

    def read(self, channel, clip_ids):
        codes = super().read(channel, clip_ids)
        noise = np.random.default_rng(0).integers(0, 256, codes.shape, dtype=np.uint8)
        held_out = [clip_id.split("-")[1] == "0" for clip_id in clip_ids]
        codes[held_out] = noise[held_out]
        return codes


def test_held_out_clips_leave_no_trace_in_the_network(table, store, profile):
    learner, _ = fitted(table, store, profile)
    other = table.copy()
    held_out = other["fold"] == 0
    other.loc[held_out, "label"] = np.roll(other.loc[held_out, "label"].to_numpy(), 4)
    scrambled = HeldOutScrambled(store.grid, store.places)
    again, _ = fitted(other, scrambled, profile)
    for name, value in learner.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert not np.allclose(predict(learner), predict(again))  # the fold itself did change
    learned = [fitted(table, kept, profile, fold=1)[0].model for kept in (store, scrambled)]
    assert not torch.equal(*(next(network.parameters()) for network in learned))


# --- stages and rates --------------------------------------------------------------------------


def test_the_head_alone_then_all_layers_with_differential_rates(table, store, profile):
    profile = replace(profile, frozen_epochs=2, epochs=2)
    learner, recorder = fitted(table, store, profile)
    for frozen, stage in zip((True, False), recorder.stages, strict=True):
        for name, before in stage["before"].items():
            if before.dim() > 1:  # fastai lets a frozen layer's normalisation go on learning
                moved = not torch.equal(before, stage["after"][name])
                assert moved == (not frozen or name.startswith("2.")), name
    steps = len(learner.dls.train)
    first, rates = (np.array(stage["rates"]) for stage in recorder.stages)
    assert (len(first), len(rates)) == (2 * steps, 2 * steps)
    assert first.max() == pytest.approx(profile.frozen_lr)
    early, late, head = rates.max(axis=0)
    assert head == pytest.approx(profile.lr_max)
    assert head / early == pytest.approx(profile.lr_ratio)
    assert late == pytest.approx(np.sqrt(early * head))
    assert rates[:, 2].argmax() not in (0, len(rates) - 1)  # one cycle: up, then down
    _, recorder = fitted(table, store, replace(profile, frozen_epochs=0, lr_ratio=1))
    (stage,) = recorder.stages
    assert np.ptp(stage["rates"], axis=1).max() == pytest.approx(0)
    before, after = stage["before"], stage["after"]
    assert not any(torch.equal(before[name], after[name]) for name in after)


def test_metrics_of_the_learner_are_those_of_the_evaluation(table, store, profile):
    table["label"] += table["fold"].astype(str) * (table["fold"] > 0)  # more than three classes
    table["fold"] = [int(clip_id[-1]) for clip_id in table.index]
    learner, _ = fitted(table, store, replace(profile, batch_size=4))
    with learner.no_bar():
        _, *found = learner.validate()
    scores = predict(learner)
    targets = [scores.columns.get_loc(label) for label in table.loc[scores.index, "label"]]
    expected = [1 - top_k_error(scores, targets, 1), top_k_error(scores, targets, 3)]
    assert found == pytest.approx([*expected, map_at_k(scores, targets, 3)], abs=1e-6)


# --- clips whose label no person checked -------------------------------------------------------


@pytest.mark.parametrize("weights", [[1.0], [0.25, 1.0, 0.6], [0.0, 1.0, 1.0, 0.0], [0.0, 0.0]])
def test_the_loss_is_the_weighted_mean_of_the_cross_entropy(weights):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(len(weights), 5, generator=draw)
    targets, loss = torch.randint(0, 5, (len(weights),), generator=draw), WeightedCrossEntropy()
    each = cross_entropy(logits, targets, reduction="none").numpy()
    expected = np.average(each, weights=weights) if sum(weights) else 0.0
    both = torch.stack([targets.float(), torch.tensor(weights)], dim=1)
    assert float(loss(logits, both)) == pytest.approx(expected, rel=1e-5)
    assert float(loss(logits, targets)) == pytest.approx(each.mean(), rel=1e-6)


def test_with_mixup_each_part_of_a_blend_has_the_weight_of_its_clip(table, store, profile):
    table = table.assign(verified=np.arange(len(table)) % 2 == 0)
    weighted = replace(profile, unverified_weight=0.3, mixup=0.4)
    learner = make_learner(make_dataloaders(table, store, "log_db", 0, weighted), weighted)
    seen = []

    class Check(SkipValidation):
        order = 100  # after MixUp and the loss

        def after_loss(self):
            mix = next(cb for cb in self.learn.cbs if isinstance(cb, MixUp))
            parts = []
            for (targets,) in (self.yb, mix.yb1):
                classes, weights = targets.as_subclass(torch.Tensor).unbind(dim=1)
                logits = self.pred.as_subclass(torch.Tensor)
                each = cross_entropy(logits, classes.long(), reduction="none")
                parts.append(each * weights / weights.mean())
                assert {round(weight, 3) for weight in weights.tolist()} <= {0.3, 1.0}
            expected = (mix.lam * parts[0] + (1 - mix.lam) * parts[1]).mean()
            seen.append((self.loss_grad.item(), expected.item()))

    with learner.no_bar(), learner.no_logging(), learner.added_cbs(Check()):
        learner.fit(1)
    assert len(seen) >= 2
    for loss, expected in seen:
        assert loss == pytest.approx(expected, rel=1e-5)


def test_training_clips_bring_their_weights_and_held_out_ones_none(table, store, profile):
    # Verified is what is no tone, so that a clip's class says what its weight must be.
    table = table.assign(verified=table["label"] != "tone")
    dls = make_dataloaders(table, store, "log_db", 0, replace(profile, unverified_weight=0.25))
    tone = list(dls.vocab).index("tone")
    batches = [targets for _, targets in dls.train]
    assert sum(len(targets) for targets in batches) == 18 // dls.train.bs * dls.train.bs
    for classes, weights in (targets.unbind(dim=1) for targets in batches):
        assert torch.equal(weights, torch.where(classes == tone, 0.25, 1.0))
    assert all(targets.dim() == 1 for _, targets in dls.valid)
    dls.show_batch(max_n=4)
