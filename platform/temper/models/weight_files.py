"""Weights files: fetched and read without ever running code from them."""

from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor

from temper.credentials import mask
from temper.errors import ModelError
from temper.records import sha256_of

SCHEMES = ("https", "http", "file")
CONTAINERS = ("state_dict", "model_state_dict", "model", "net")
"""Names under which training scripts keep the state dict in their files."""


def is_url(weights: str) -> bool:
    return "://" in weights


def fetch_weights(url: str, sha256: str | None) -> Path:
    """Download a weights file once; it is kept by its digest in torch's own cache of checkpoints.

    Raises:
        ModelError: no digest, a URL of another scheme, a download that fails, or a file of another digest.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise ModelError(
            f"model.weights: {mask(url)}: unsupported scheme {parts.scheme}://; allowed: "
            f"{', '.join(SCHEMES)}; copy it to a file and give its path"
        )
    if sha256 is None:
        raise ModelError(
            f"model.sha256: required for weights from a URL ({mask(url)}): the SHA-256 of the file, "
            "64 hex digits"
        )
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{sha256}{Path(parts.path).suffix}"
    if path.exists() and sha256_of(path) == sha256:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        # It is checked under a temporary name, so that no other file ever has this digest as its name.
        torch.hub.download_url_to_file(url, str(path), hash_prefix=sha256, progress=False)
    except RuntimeError as problem:
        raise ModelError(f"model.sha256: {mask(url)} is another file ({problem})") from None
    except (OSError, HTTPException, ValueError) as problem:
        raise ModelError(
            f"model.weights: {mask(url)} could not be downloaded ({problem}); download it elsewhere "
            "and give the file's path"
        ) from None
    return path


def check_digest(path: Path, sha256: str | None) -> None:
    """Refuse a file whose SHA-256 is not ``sha256``, where one is given.

    Raises:
        ModelError: the digests differ, or the file cannot be read.
    """
    if sha256 is None:
        return
    try:
        digest = sha256_of(path)
    except OSError as problem:
        raise ModelError(f"model.weights: {path} cannot be read ({problem.strerror})") from None
    if digest != sha256:
        raise ModelError(f"model.sha256: {path} is another file: its SHA-256 is {digest}, expected {sha256}")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict of a ``.safetensors`` file or of one that ``torch.save`` wrote, as it names its entries.

    Raises:
        ModelError: no such file, a file that is neither, or one that holds more than tensors and numbers.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Never a full unpickling, which runs whatever the file says.
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"model.weights: {path}: no such file or run folder") from None
    except Exception as problem:  # torch raises many kinds for a file that is not a plain state dict
        reason = str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__
        raise ModelError(
            f"model.weights: {path} is not a safetensors file or plain state dict ({reason})"
        ) from None
    while isinstance(loaded, dict):
        if loaded and all(isinstance(value, Tensor) for value in loaded.values()):
            return {str(name): _plain(path, str(name), tensor) for name, tensor in loaded.items()}
        inner = (loaded[name] for name in CONTAINERS if isinstance(loaded.get(name), dict))
        loaded = next(inner, None)
    raise ModelError(
        f"model.weights: {path} holds no state dict (names to tensors), neither by itself nor under "
        f"{', '.join(CONTAINERS)}"
    )


def _plain(path: Path, name: str, tensor: Tensor) -> Tensor:
    """``tensor`` where it has a value of its own for each element: sizes that lie would fill the memory."""
    is_dense = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    if not is_dense or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelError(
            f"model.weights: {path}: '{name}' is not a plain dense tensor, shape {tuple(tensor.shape)}"
        )
    return tensor
