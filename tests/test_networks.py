"""Every network has three groups that hold every weight, and says where its weights come from."""

import urllib.error

import pytest
import torch
import torchvision

from freesound_tagging.learning.networks import (
    NETWORKS,
    best_device,
    build_network,
    count_weights,
    is_pretrained,
    layer_groups,
    lite0_network,
    lite0_weights,
    resnext_weights,
)


@pytest.fixture(autouse=True)
def read_weights_anew():
    yield
    lite0_weights.cache_clear()
    resnext_weights.cache_clear()


SEEN = [name for name in NETWORKS if name != "yamnet"]  # what takes spectrograms


@pytest.mark.parametrize("shape", [(57, 64), (65, 91)])
@pytest.mark.parametrize("architecture", SEEN)
def test_groups_hold_every_weight_once_and_take_one_channel_or_three(architecture, shape):
    network = build_network(architecture, 5, pretrained=False).eval()
    groups = layer_groups(network)
    assert len(groups) == 3
    held = [id(weight) for group in groups for weight in group]
    assert sorted(held) == sorted({id(weight) for weight in network.parameters()})
    spectrogram = torch.randn(2, 1, *shape)
    with torch.no_grad():
        logits = network(spectrogram)
        assert logits.shape == (2, 5)
        torch.testing.assert_close(logits, network(spectrogram.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("shape", [(64, 64), (57, 50)])
def test_lite0_is_the_network_of_its_package_and_learns_as_it_does(shape):
    from efficientnet_lite_pytorch import EfficientNet

    published = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    published.load_state_dict(lite0_weights())
    published._global_params = published._global_params._replace(drop_connect_rate=None)
    early, late, _ = lite0_network(10, 8, lite0_weights()).double()
    spectrogram = torch.randn(3, 3, *shape, dtype=torch.float64)
    expected = published.double().extract_features(spectrogram)
    found = late(early(spectrogram)).flip(-2, -1)  # inside it is turned by half a turn
    torch.testing.assert_close(found, expected)
    theirs = [weight for name, weight in published.named_parameters() if "_fc" not in name]
    ours = [*early.parameters(), *late.parameters()]
    slopes = [
        torch.autograd.grad(features.square().mean(), weights)
        for features, weights in ((found, ours), (expected, theirs))
    ]
    for own, other in zip(*slopes, strict=True):
        torch.testing.assert_close(own.flip(-2, -1) if own.dim() == 4 else own, other)


def test_only_the_pretrained_lite0_begins_from_its_weights():
    first = [
        build_network("efficientnet_lite0", 3, pretrained=pretrained)[0][1].weight
        for pretrained in (True, True, False)
    ]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])
    assert is_pretrained("efficientnet_lite0") is True
    assert is_pretrained("compact") is None


def test_without_a_network_resnext_starts_from_random_weights_and_says_so(monkeypatch):
    weights = torchvision.models.ResNeXt50_32X4D_Weights

    def offline(*arguments, **options):
        raise urllib.error.URLError("no route")

    resnext_weights.cache_clear()
    monkeypatch.setattr(weights, "get_state_dict", offline)
    with pytest.warns(UserWarning, match=r"resnext50_32x4d .*no route.*\.pth in .*checkpoints"):
        assert is_pretrained("resnext50_32x4d") is False
    plain = build_network("resnext50_32x4d", 6)
    resnext_weights.cache_clear()
    network = torchvision.models.resnext50_32x4d(weights=None)
    fetched = {name: value + 1 for name, value in network.state_dict().items()}
    monkeypatch.setattr(weights, "get_state_dict", lambda *arguments, **options: fetched)
    first, other = (one[0][1].weight for one in (build_network("resnext50_32x4d", 6), plain))
    assert torch.equal(first, fetched["conv1.weight"]) and not torch.equal(first, other)


def test_the_networks_are_as_large_as_they_say():
    assert round(count_weights(build_network("compact", 10)), -4) == 100_000
    lite0 = build_network("efficientnet_lite0", 10, pretrained=False)
    assert round(count_weights(lite0), -5) == 3_400_000


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_device_is_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device().type == expected
