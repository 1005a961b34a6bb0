"""What can be started from: the table against the networks themselves, and where their weights are."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from temper.cluster.launch import start_weights
from temper.models.backbones import SMALL, backbone_names, build_backbone, is_known_backbone
from temper.pretrained import (
    TORCHVISION_WEIGHTS,
    Network,
    cached_timm_networks,
    find_network,
    list_networks,
    locate,
    search_networks,
)
from temper.pretrained.caches import hub_cache, torch_checkpoints
from temper.pretrained.networks import CIFAR, RANDOM, TIMM
from temper.recipe import build_recipe

needs_timm = pytest.mark.skipif(importlib.util.find_spec("timm") is None, reason="needs temper[timm]")


def named(name: str) -> Network:
    network = find_network(name)
    assert network is not None, name
    return network


def count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_every_network_is_a_backbone_and_every_backbone_is_listed() -> None:
    names = [network.name for network in list_networks()]
    assert len(set(names)) == len(names)
    assert all(map(is_known_backbone, names))
    assert set(backbone_names()) <= set(names)


@pytest.mark.parametrize("name", TORCHVISION_WEIGHTS)
def test_numbers_of_torchvision(name: str) -> None:
    weights: Any = torchvision.models.get_model_weights(name).DEFAULT
    keywords = weights.transforms.keywords
    theirs = (weights.meta["num_params"], keywords["crop_size"], weights.url.rpartition("/")[2])
    assert TORCHVISION_WEIGHTS[name] == theirs
    has_own_licence = "license" in weights.meta
    assert ("SWAG" in (named(name).licence or "")) == has_own_licence


def test_torchvision_counts_as_we_do() -> None:
    with torch.device("meta"):
        assert count(torchvision.models.resnet18()) == named("resnet18").num_params


@pytest.mark.parametrize("name", SMALL)
def test_numbers_of_the_small_networks(name: str) -> None:
    """Those of CIFAR-10 have a classifier of 64 features and 10 classes besides."""
    with torch.device("meta"):
        module = build_backbone(name, 32).module
    assert named(name).num_params == count(module) + (650 if name in CIFAR else 0)
    assert (name in RANDOM) != (name in CIFAR)


@needs_timm
@pytest.mark.parametrize("name", TIMM)
def test_what_timm_says(name: str) -> None:
    import timm

    config, network = timm.get_pretrained_cfg(name), named(f"timm/{name}")
    assert network.hub_repo == config.hf_hub_id
    assert network.image_size == config.input_size[-1]
    assert (network.licence or "").lower() == config.license
    assert find_network(f"timm/{name}.{config.tag}") is network


@needs_timm
@pytest.mark.parametrize(
    "name", ["tf_efficientnet_lite0", "tf_efficientnet_lite2", "tf_efficientnet_b7", "convnext_atto",
             "vit_tiny_patch16_224", "resnet10t"]
)  # fmt: skip
def test_parameters_of_timm(name: str) -> None:
    import timm

    with torch.device("meta"):
        assert count(timm.create_model(name)) == TIMM[name][0]


@needs_timm
def test_all_of_timm() -> None:
    from temper.models.timm_networks import list_pretrained

    networks = {network.name: network for network in list_pretrained()}
    assert len(networks) > 500
    assert networks["timm/mobilenetv3_small_100"].image_size == 224
    assert networks["timm/mobilenetv3_small_100"].licence == "Apache-2.0"
    assert all(locate(network).place in ("hub", "cache") for network in networks.values())


@pytest.fixture
def caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty ones of torch and the hub, in ``tmp_path``."""
    for name in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TEMPER_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path


def test_the_caches_are_those_of_torch_and_the_hub(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (
        torch_checkpoints() == caches / "torch/hub/checkpoints" == Path(torch.hub.get_dir()) / "checkpoints"
    )
    assert hub_cache() == caches / "huggingface/hub"
    monkeypatch.setenv("TORCH_HOME", "~/torches")
    assert torch_checkpoints() == Path("~/torches/hub/checkpoints").expanduser()
    assert torch_checkpoints() == Path(torch.hub.get_dir()) / "checkpoints"
    monkeypatch.setenv("HF_HOME", str(caches / "faces"))
    assert hub_cache() == caches / "faces/hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(caches / "own"))
    assert hub_cache() == caches / "own"


def test_weights_that_torch_has_downloaded(caches: Path) -> None:
    network = named("resnet18")
    assert (locate(network).place, locate(network).path) == ("hub", None)
    file = torch_checkpoints() / "resnet18-f37072fd.pth"
    file.parent.mkdir(parents=True)
    file.touch()
    assert (locate(network).place, locate(network).path) == ("cache", file)


def put_into_hub_cache(repo: str, file: str = "model.safetensors") -> Path:
    folder = hub_cache() / f"models--{repo.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc123")
    path = folder / "snapshots/abc123" / file
    path.parent.mkdir(parents=True)
    path.touch()
    return path


def test_weights_that_the_hub_has_downloaded(caches: Path) -> None:
    network = named("timm/tf_efficientnet_b0")
    assert locate(network).place == "hub"
    path = put_into_hub_cache("timm/tf_efficientnet_b0.ns_jft_in1k")
    assert (locate(network).place, locate(network).path) == ("cache", path)
    path.unlink()
    assert locate(network).place == "hub"
    put_into_hub_cache("timm/resnet26.bt_in1k", "pytorch_model.bin")
    put_into_hub_cache("timm/vit_tiny_patch16_224.other", "config.json")
    assert [network.name for network in cached_timm_networks()] == ["timm/resnet26.bt_in1k"]


@needs_timm
def test_the_hub_finds_what_we_find(caches: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import try_to_load_from_cache

    path = put_into_hub_cache("timm/resnet10t.c3_in1k")
    found = try_to_load_from_cache("timm/resnet10t.c3_in1k", "model.safetensors", cache_dir=hub_cache())
    assert found == str(path) == str(locate(named("timm/resnet10t")).path)


def test_a_random_start_has_no_weights() -> None:
    assert locate(named("resnet8")).place == "none"


def test_searching() -> None:
    names = {network.name for network in search_networks("Lite0", list_networks())}
    assert names == {"timm/tf_efficientnet_lite0", "timm/efficientnet_lite0"}
    assert find_network("resnet19") is None


def test_a_folder_called_pretrained_does_not_stand_for_the_pretrained_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pretrained").mkdir()
    asked = {name: build_recipe({"data": {"target": "shards", "image_size": 32}, "threat": {"eps": 0.1},
             "name": "a", "epochs": 1, "model": {"backbone": "resnet18", "weights": name}})
             for name in ("pretrained", "./pretrained")}  # fmt: skip
    found = {name: start_weights(recipe, tmp_path) for name, recipe in asked.items()}
    assert found == {"pretrained": "pretrained", "./pretrained": str(tmp_path / "pretrained")}
