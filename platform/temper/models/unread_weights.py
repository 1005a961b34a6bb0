"""Why a file is not read as weights: what it is instead, and what to do."""

import re
from pathlib import Path
from zipfile import is_zipfile

OTHER_FILES = {
    b"version https://git-lfs.github.com/": (
        "a Git LFS pointer; fetch the file that it stands for with `git lfs pull`"
    ),
    b"\x89HDF": "an HDF5 file, such as Keras writes; convert it to a PyTorch state dict",
    b"\x1f\x8b": "a gzip file; unpack it first",
}
"""First bytes -> what lies there instead of weights, and what to do."""
GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def what_it_is(path: Path) -> str | None:
    """What lies there instead of weights, and what to do; ``None`` where its first bytes do not tell."""
    try:
        with path.open("rb") as file:
            head = file.read(1024)
    except OSError as problem:
        return problem.strerror
    if not head:
        return "the file is empty; download it again"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page; download the file itself, not the page that shows it"
    if path.suffix == ".onnx":
        return "an ONNX model; save the PyTorch model's state_dict() instead"
    if head.startswith(b"PK") and path.suffix == ".safetensors":
        return "a file of torch.save under another name; call it .pth"
    if head.startswith(b"PK") and not is_zipfile(path):
        return "a file of torch.save that ends too early; copy or download it again"
    return next((what for start, what in OTHER_FILES.items() if head.startswith(start)), None)


def reason_of(problem: Exception) -> str:
    """What is wrong, without PyTorch's hints on how to load it unsafely."""
    text = str(problem)
    if "TorchScript" in text:
        return "a TorchScript archive; save the model's state_dict() instead"
    found = GLOBAL.search(text)
    if found or "weights_only" in text or "Weights only" in text:
        objects = f": {found[1][:100]}" if found else ""
        return f"it holds pickled objects{objects}, which may run code; save the model's state_dict() instead"
    return text.splitlines()[0][:200] if text else type(problem).__name__
