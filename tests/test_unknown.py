"""Sounds of no class lie outside the space that the training clips' features fill."""

import numpy as np
import pytest
import torch
from torch import nn

from freesound_tagging.learning import unknown
from freesound_tagging.learning.networks import build_network
from freesound_tagging.runs import train, train_and_score


def space(seed: int, n: int, within: int = 4, features: int = 30):
    """Return features in a space of few dimensions."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(features, within, generator=torch.Generator()))[0]
    return 3 + torch.randn(n, within, generator=generator) @ axes.T, axes


class Fixed:
    """Stands for a Learner whose training clips have given features."""

    def __init__(self, features, monkeypatch):
        self.dls = self
        self.train = features[:, None]
        monkeypatch.setattr(unknown, "_features", lambda learner, loader: loader)


def test_what_lies_outside_of_the_training_clips_space_is_strange_in_units_of_their_spread(
    monkeypatch,
):
    known, axes = space(0, 400)
    learned = unknown.learn(Fixed(known, monkeypatch))
    others, _ = space(1, 5)
    assert unknown.strangeness(others[:, None], learned).max() < 1e-3
    away = torch.randn(5, 30, generator=torch.Generator().manual_seed(2))
    away -= away @ axes @ axes.T
    spread = (known - known.mean(dim=0)).norm(dim=1).square().mean().sqrt()
    wanted = (away.norm(dim=1) / spread).numpy()
    found = unknown.strangeness((others + away)[:, None], learned)
    assert found.numpy() == pytest.approx(wanted, rel=1e-3)
    # As strange, whatever the scale of a network's features; of several windows the mean.
    scaled = unknown.learn(Fixed(100 * known, monkeypatch))
    both = torch.stack([100 * others, 100 * (others + away)], dim=1)
    assert unknown.strangeness(both, scaled).numpy() == pytest.approx(wanted / 2, rel=1e-3)


@pytest.mark.parametrize("architecture", ["compact", "efficientnet_lite0", "waveform"])
def test_the_features_are_what_the_last_layer_turns_into_logits(architecture):
    network = build_network(architecture, 3, pretrained=False).eval()
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    pictures = torch.rand(2, 4, 1, 64, 60)
    with torch.no_grad():
        features, logits = unknown.features_and_logits(network, pictures)
        assert features.shape == (2, 4, last.in_features)
        assert torch.equal(logits, network(pictures))
        mean = last(features).softmax(dim=-1).mean(dim=1).log()
    assert torch.allclose(logits, mean, atol=1e-5)


def test_scores_hold_the_strangeness_of_the_held_out_clips(table, store, profile):
    scores = train_and_score(table, store, "log_db", 1, 0, profile)
    assert list(scores.columns[:5]) == ["clip_id", "seed", "fold", "label", "strangeness"]
    assert list(scores["clip_id"]) == sorted(table.index[table["fold"] == 1])
    assert np.isfinite(scores["strangeness"]).all() and scores["strangeness"].nunique() > 1
    learner = train(table, store, "log_db", 1, 0, profile)
    learned = unknown.learn(learner)
    found = unknown.strangeness(unknown._features(learner, learner.dls.valid), learned)
    by_id = scores.set_index("clip_id")["strangeness"]
    assert found.numpy() == pytest.approx(by_id.loc[list(learner.dls.valid_ds.items)].to_numpy())
    # The training clips are seen as they are, not augmented: twice the same.
    assert torch.equal(unknown.learn(learner)["unknown.mean"], learned["unknown.mean"])
