"""``model.onnx``, where the packages for it are installed: the extra ``onnx``."""

import importlib.util
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from temper.errors import ModelError

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def missing_packages() -> list[str]:
    """Those of ``PACKAGES`` that are not installed: one writes, one translates, one asks the model again."""
    return [name for name in PACKAGES if importlib.util.find_spec(name) is None]


def to_onnx(model: nn.Module, images: Tensor) -> bytes:
    """``model``, for batches of any size; ``images`` (2,3,S,S) show what it takes.

    Raises:
        ModelError: an operation that ONNX does not have, or more than the 2 GB that such a file may hold.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            program: Any = torch.onnx.export(
                model,
                (images,),
                dynamo=True,
                dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
                input_names=["images"],
                output_names=["logits"],
                verbose=False,
            )
            content: bytes = program.model_proto.SerializeToString()
    except Exception as problem:  # torch raises many kinds, with pages of advice
        reason = (str(problem) or type(problem).__name__).strip().splitlines()[0]
        raise ModelError(f"torch.onnx.export cannot translate this network ({reason[:200]})") from problem
    return content


def run_onnx(content: bytes) -> Callable[[Tensor], Tensor]:
    """The answers of an ONNX model, on the CPU; such files hold operations alone, and no code."""
    onnxruntime: Any = importlib.import_module("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def answer(images: Tensor) -> Tensor:
        (logits,) = session.run(["logits"], {"images": images.numpy()})
        return torch.from_numpy(logits)

    return answer
