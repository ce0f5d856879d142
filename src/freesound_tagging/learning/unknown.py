"""Is a sound of none of the classes? How far it lies from the clips that a network learned from.

Softmax compares the classes with each other and never asks whether any of them fits. The features
before a network's last layer do tell.
"""

import torch
from torch import Tensor, nn

PREFIX = "unknown."
"""Of what a model's weights hold besides its network's."""


def features_and_logits(network: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Return what goes into a network's last layer, (n, features), and what comes out of it.

    Of clips with several windows the features are the mean over these.
    """
    last = [layer for layer in network.modules() if isinstance(layer, nn.Linear)][-1]
    seen: list[Tensor] = []
    hook = last.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = network(pictures)
    finally:
        hook.remove()
    return torch.stack(seen).mean(dim=0), logits


def split(weights: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return a model's weights as the network's own and what `learn` returned."""
    learned = {name.removeprefix(PREFIX): weights[name] for name in weights if PREFIX in name}
    return {name: weights[name] for name in weights if PREFIX not in name}, learned


def prefixed(learned):
    return {f"{PREFIX}{name}": value for name, value in learned.items()}


def learn(learner):
    return {}


def strangeness(features, logits, learned):
    return -logits.double().logsumexp(dim=1)
