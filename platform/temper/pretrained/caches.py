"""Where torch and the Hugging Face hub keep what they have downloaded, by the rules of their own."""

import os
from pathlib import Path


def torch_checkpoints() -> Path:
    """The folder that ``torch.hub`` downloads weights files into (``torch.hub.get_dir``)."""
    home = os.environ.get("TORCH_HOME") or _user_caches() / "torch"
    return Path(os.path.expandvars(home)).expanduser() / "hub" / "checkpoints"


def hub_cache() -> Path:
    """The folder of the Hugging Face hub (``huggingface_hub.constants.HF_HUB_CACHE``)."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := os.environ.get(variable):
            return Path(os.path.expandvars(value)).expanduser()
    home = os.environ.get("HF_HOME") or _user_caches() / "huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"


def _user_caches() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
