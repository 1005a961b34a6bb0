"""``model.pt2``: a network as torch.export writes it.

temper writes such files and reads back only what it has just written: ``torch.export.load`` falls back to a
full unpickling and evaluates expressions, so that a file from elsewhere could run code.
"""

import io
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from temper.errors import ModelError


def to_program(model: nn.Module, images: Tensor) -> bytes:
    """``model``, for batches of any size; ``images`` (2,3,S,S) show what it takes.

    Raises:
        ModelError: its forward pass depends on what torch.export cannot follow.
    """
    buffer = io.BytesIO()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch about itself
            batch = torch.export.Dim("batch", min=1)
            program = torch.export.export(
                model, (images,), dynamic_shapes={"images": {0: batch}}, strict=False
            )
            torch.export.save(program, buffer)
    except Exception as problem:  # torch raises many kinds, with pages of advice
        reason = (str(problem) or type(problem).__name__).strip().splitlines()[0]
        raise ModelError(f"torch.export cannot follow this network ({reason[:200]})") from problem
    return buffer.getvalue()


def run_program(content: bytes) -> Callable[[Tensor], Tensor]:
    """The answers of what ``to_program`` has just made; never for a file from elsewhere."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = torch.export.load(io.BytesIO(content)).module()

    def answer(images: Tensor) -> Tensor:
        with torch.no_grad():
            logits: Tensor = module(images)
        return logits

    return answer
