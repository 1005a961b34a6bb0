"""Weights files: fetched and read without ever running code from them."""

import logging
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch
from safetensors.torch import load_file
from torch import Tensor

from temper.credentials import mask
from temper.errors import ModelError
from temper.models.unread_weights import reason_of, what_it_is
from temper.records import sha256_of

SCHEMES = ("https", "http", "file")
CONTAINERS = ("state_dict", "model_state_dict", "model", "net", "module", "params", "weights")
"""Names under which training scripts keep the state dict in their files."""
AVERAGED = (
    "state_dict_ema",
    "model_ema",
    "ema_state_dict",
    "model_ema_state_dict",
    "ema_model_state_dict",
    "ema_model",
    "ema",
    "params_ema",
    "swa_state_dict",
    "swa_model",
    "ema_state",
    "ema_weights",
)
"""The same for weights averaged over steps; they are preferred."""
AVERAGED_PREFIXES = ("ema_model.", "model_ema.", "ema.", "swa_model.")
"""Of averaged entries that lie beside the raw ones in one state dict."""
LEARNED = (".weight", ".bias", ".running_mean", ".running_var")
"""Ends of the names of entries that are finite in every model that works."""
MANY = 4
"""Tensors in a container that may be another state dict; an optimizer keeps fewer for each parameter."""
logger = logging.getLogger(__name__)


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

    Of raw and averaged weights (EMA, SWA) in one file the averaged are read, as timm does, and a warning
    says so.

    Raises:
        ModelError: no such file, a file that is neither, one that holds more than tensors and numbers, or
            weights that are no numbers (NaN).
    """
    try:
        if path.suffix == ".safetensors" or _is_safetensors(path):
            loaded: Any = load_file(path)
        else:  # never a full unpickling, which runs whatever the file says
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"model.weights: {path}: no such file or run folder") from None
    except Exception as problem:  # torch raises many kinds for a file that is not a plain state dict
        raise ModelError(
            f"model.weights: {path} is not a safetensors file or plain state dict "
            f"({what_it_is(path) or reason_of(problem)})"
        ) from None
    found = _state_dict(loaded)
    if found is None:
        raise ModelError(
            f"model.weights: {path} holds no state dict (names to tensors), neither by itself nor under "
            f"{', '.join((*CONTAINERS, *AVERAGED))}; it holds {_described(loaded)}; save the state dict to a "
            "file of its own"
        )
    where, tensors = found
    _say_which(path, where, loaded)
    plain = {str(name): _plain(path, str(name), tensor) for name, tensor in tensors.items()}
    return _usable(path, _averaged_entries(path, plain))


def _state_dict(loaded: Any, depth: int = 4) -> tuple[str, dict[Any, Tensor]] | None:
    """Where a state dict lies, such as ``ema.module``, and its entries; ``None`` where there is none."""
    if not isinstance(loaded, dict) or not loaded:
        return None
    if all(isinstance(value, Tensor) for value in loaded.values()):
        return "", loaded
    for name in (*AVERAGED, *CONTAINERS):
        found = _state_dict(loaded.get(name), depth - 1) if depth else None
        if found is not None:
            return f"{name}.{found[0]}".strip("."), found[1]
    return None


def _say_which(path: Path, where: str, loaded: Any) -> None:
    """Say which weights are taken of a file that holds raw and averaged ones."""
    if not isinstance(loaded, dict) or not where:
        return
    top = where.partition(".")[0]
    raw = [name for name in CONTAINERS if name != top and _state_dict(loaded.get(name)) is not None]
    if top in AVERAGED and raw:
        _say(f"model.weights: {path}: the averaged weights ({where}) are taken, not the raw ones ({raw[0]})")
    unread = [name for name in AVERAGED if loaded.get(name) is not None]
    if top not in AVERAGED and unread:
        held = _described(loaded[unread[0]])
        _say(f"model.weights: {path}: the raw weights ({where}) are taken: {unread[0]} is {held}")
    known = (top, *CONTAINERS, *AVERAGED)
    others = [name for name, value in loaded.items() if name not in known and _num_tensors(value) > MANY]
    if others:
        _say(f"model.weights: {path}: the weights in {where} are taken, not those in {others[0]}")


def _num_tensors(value: Any, depth: int = 4) -> int:
    """The most that lie directly in one dict or list: ``value``, or what it holds."""
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    inside = max((_num_tensors(part, depth - 1) for part in parts), default=0) if depth else 0
    return max(inside, sum(isinstance(one, Tensor) for one in parts))


def _averaged_entries(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The averaged ones of entries that hold both, ``model.NAME`` beside ``ema_model.NAME``, without that."""
    for prefix in AVERAGED_PREFIXES:
        own = {n.removeprefix(prefix): tensor for n, tensor in tensors.items() if n.startswith(prefix)}
        others = {name for name in tensors if not name.startswith(prefix)}
        raw = others | {name.partition(".")[2] for name in others}
        if 2 * len(own.keys() & raw) > len(own):  # a part of a network may bear such a name, too
            _say(f"model.weights: {path}: the averaged weights ({prefix}*) are taken, not the raw ones")
            return own
    return tensors


@cache
def _say(message: str) -> None:
    """Once in a process, which may read a file several times."""
    logger.warning("%s; to use others, save them in a file of their own", message)


def _described(value: Any) -> str:
    if not isinstance(value, dict):
        return f"a {type(value).__name__}"
    keys = [f"{name} ({_kind(inner)})" for name, inner in list(value.items())[:8]]
    return f"the keys {', '.join(keys)}{', ...' if len(value) > 8 else ''}" if keys else "nothing"


def _kind(value: Any) -> str:
    return f"dict of {len(value)}" if isinstance(value, dict) else type(value).__name__


def _is_safetensors(path: Path) -> bool:
    """Whether it begins as such a file does, whatever its name: the length of a JSON header, and that."""
    with path.open("rb") as file:
        head = file.read(9)
    return head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _plain(path: Path, name: str, tensor: Tensor) -> Tensor:
    """``tensor`` where it has a value of its own for each element: sizes that lie would fill the memory."""
    is_dense = tensor.layout == torch.strided and not tensor.is_quantized and tensor.device.type == "cpu"
    if not is_dense or tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ModelError(
            f"model.weights: {path}: '{name}' is not a plain dense tensor, shape {tuple(tensor.shape)}"
        )
    return tensor


def _usable(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """``tensors`` where all are numbers; infinity is one in buffers, as masks of attention have it."""
    learned = {name: tensor for name, tensor in tensors.items() if name.endswith(LEARNED)}
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    again = "the training that wrote it diverged; take an earlier checkpoint"
    unquantized = "as those of a quantized model, which is not read; save the model that it was made from"
    for what, bad, todo in (
        ("NaN", [name for name, tensor in floats.items() if tensor.isnan().any()], again),
        ("infinity", [n for n, tensor in learned.items() if n in floats and tensor.isinf().any()], again),
        (
            "integers",
            [n for n, tensor in learned.items() if n not in floats and not tensor.is_complex()],
            unquantized,
        ),
    ):
        if bad:
            more = f" and {len(bad) - 1} more" if len(bad) > 1 else ""
            raise ModelError(f"model.weights: {path} holds {what} in '{bad[0]}'{more}: {todo}")
    return tensors
