"""Clips whose label no person checked may count for less in training, and only there."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.mixup import MixUp
from fastai.torch_core import set_seed
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from freesound_tagging import keys
from freesound_tagging.keys import run_key
from freesound_tagging.learning.dataloaders import make_dataloaders
from freesound_tagging.learning.learner import SkipValidation, WeightedCrossEntropy, make_learner
from freesound_tagging.run import train_and_score


@pytest.fixture
def half_verified(table) -> pd.DataFrame:
    """Every second clip by clip id is verified; of each label and fold some are and some not."""
    table = table.sort_index()
    return table.assign(verified=np.arange(len(table)) % 2 == 0).sample(frac=1, random_state=4)


def relabelled(table: pd.DataFrame) -> pd.DataFrame:
    """The same clips, those of folds 1 and 2 that are not verified with the wrong labels."""
    wrong = {"clicks": "sweep", "sweep": "tone", "tone": "clicks"}
    spoilt = ~table["verified"] & (table["fold"] != 0)
    return table.assign(label=table["label"].mask(spoilt, table["label"].map(wrong)))


def scores_of(table, store, profile) -> pd.DataFrame:
    return train_and_score(table, store, "log_db", 0, 0, profile)


def with_weights(targets: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.stack([targets.float(), weights], dim=1)


# --- the loss ----------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 0.25, 0.6, 1.0]), min_size=1, max_size=12),
    st.integers(0, 1000),
)
def test_the_loss_is_the_weighted_mean_of_the_cross_entropy(weights, seed):
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(weights), 5, generator=draw)
    targets = torch.randint(0, 5, (len(weights),), generator=draw)
    w = torch.tensor(weights)
    loss = float(WeightedCrossEntropy()(logits, with_weights(targets, w)))
    each = cross_entropy(logits, targets, reduction="none").numpy()
    expected = np.average(each, weights=weights) if sum(weights) else 0.0
    assert loss == pytest.approx(expected, rel=1e-5, abs=1e-6)
    plain = float(cross_entropy(logits, targets))
    assert float(WeightedCrossEntropy()(logits, targets)) == pytest.approx(plain, rel=1e-6)
    alike = torch.full_like(w, 0.3)
    loss = float(WeightedCrossEntropy()(logits, with_weights(targets, alike)))
    assert loss == pytest.approx(plain, rel=1e-5)


def test_with_mixup_each_part_of_a_blend_has_the_weight_of_its_clip(half_verified, store, profile):
    weighted = replace(profile, unverified_weight=0.3, mixup=0.4)
    set_seed(0, reproducible=True)
    learner = make_learner(make_dataloaders(half_verified, store, "log_db", 0, weighted), weighted)
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


# --- which clips have which weight -------------------------------------------------------------


def test_training_clips_bring_their_weights_and_held_out_ones_none(table, store, profile):
    # Verified is what is no tone, so that a clip's class says what its weight must be.
    table = table.assign(verified=table["label"] != "tone")
    dls = make_dataloaders(table, store, "log_db", 0, replace(profile, unverified_weight=0.25))
    tone = list(dls.vocab).index("tone")
    n = 0
    for _ in range(2):
        for _, targets, weights in dls.train:
            expected = torch.where(targets.as_subclass(torch.Tensor) == tone, 0.25, 1.0)
            assert torch.equal(weights, expected)
            n += len(weights)
    assert n == 2 * (18 // dls.train.bs) * dls.train.bs
    assert all(len(batch) == 2 for batch in dls.valid)
    dls.show_batch(max_n=4)


def test_a_learner_with_weights_validates_and_predicts(half_verified, store, profile):
    weighted = replace(profile, unverified_weight=0.5)
    learner = make_learner(make_dataloaders(half_verified, store, "log_db", 0, weighted), weighted)
    with learner.no_bar(), learner.no_logging():
        learner.fit(1)
        assert len(learner.validate()) == 4


@pytest.mark.parametrize("mixup", [0.0, 0.3])
def test_clips_of_weight_0_teach_nothing(half_verified, store, profile, mixup):
    ignored = replace(profile, unverified_weight=0.0, mixup=mixup)
    spoilt = relabelled(half_verified)
    expected = scores_of(half_verified, store, ignored)
    pd.testing.assert_frame_equal(scores_of(spoilt, store, ignored), expected)
    some = replace(ignored, unverified_weight=0.5)
    columns = ["clicks", "sweep", "tone"]
    assert not np.allclose(
        scores_of(spoilt, store, some)[columns], scores_of(half_verified, store, some)[columns]
    )


def test_of_weight_1_it_does_not_matter_who_verified(table, half_verified, store, profile):
    assert profile.unverified_weight == 1
    pd.testing.assert_frame_equal(
        scores_of(half_verified, store, profile), scores_of(table, store, profile)
    )


@pytest.mark.parametrize("weight", [-0.1, 1.5, float("nan")])
def test_a_weight_that_is_not_legal_is_named(table, store, profile, weight):
    with pytest.raises(ValueError, match="unverified_weight must be 0 to 1, got"):
        make_dataloaders(table, store, "log_db", 0, replace(profile, unverified_weight=weight))


# --- which runs are repeated -------------------------------------------------------------------


def test_the_setting_is_part_of_a_run_only_where_it_changes_it(
    table, half_verified, store, profile, monkeypatch
):
    weighted = replace(profile, unverified_weight=0.6)
    found = {
        run_key(clips, store, "log_db", settings)
        for clips in (table, half_verified)
        for settings in (profile, weighted)
    }
    assert len(found) == 3
    contents = []
    monkeypatch.setattr(keys.json, "dumps", lambda content, **_: contents.append(content) or "{}")
    run_key(half_verified, store, "log_db", profile)
    run_key(half_verified, store, "log_db", weighted)
    monkeypatch.undo()
    # A run made before there was such a setting has the first of these keys.
    assert "unverified_weight" not in json.dumps(contents[0])
    assert "verified" not in contents[0]
    assert contents[1]["profile"]["unverified_weight"] == 0.6
    assert len(contents[1]["verified"]) == len(half_verified)
