"""A model frozen for attacks, with every pass through it counted."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from torch import Tensor, nn

from temper.attacks import attack_mode, images_at_once, in_colour, in_portions
from temper.errors import ModelError, TemperError
from temper.models import folded_copy


class CountedModel(nn.Module):
    """Counts images forward and gradients back, and keeps logits that are not finite from the attacks.

    Foolbox takes NaN logits for class 0, so they must never reach it: such rows become zeros and are
    counted.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.num_forward = 0
        self.num_backward = 0
        self._not_finite: Tensor | int = 0

    @property
    def num_not_finite(self) -> int:
        """Answers that were not finite."""
        return int(self._not_finite)

    def forward(self, images: Tensor) -> Tensor:
        return self.answer(images)[0]

    def images_at_once(self, images: Tensor) -> int:
        """How many of ``images`` (B,3,H,W) an attack sends through at once."""
        return images_at_once(self.model, images)

    def answer(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B,C), and whether each row was finite (B,) bool. Grey images may have one channel.

        Raises:
            ModelError: the output is not logits of at least two classes.
        """
        images = in_colour(images)
        needs_graph = images.requires_grad and torch.is_grad_enabled()
        logits = self._logits(images) if needs_graph else in_portions(self._logits, images)
        self.num_forward += len(images)
        finite = torch.isfinite(logits).all(1)
        # Without a look at whether any is not finite: a GPU would be waited for at each step.
        self._not_finite = self._not_finite + (~finite.detach()).sum()
        logits = torch.where(finite[:, None], logits, 0.0)
        if needs_graph and not logits.requires_grad:
            # The model lets no gradient through. Attacks find none, instead of failing; a gate blocks.
            logits = logits + 0 * images.flatten(1).sum(1, keepdim=True)
        if logits.requires_grad:
            logits.register_hook(self._count_backward)  # type: ignore[no-untyped-call]
        return logits, finite

    def _logits(self, images: Tensor) -> Tensor:
        try:
            logits = self.model(images)
        except (TemperError, torch.OutOfMemoryError):
            raise
        except Exception as problem:  # whatever the forward of a foreign module may raise
            reason = str(problem).strip().split("\n")[0]
            raise ModelError(
                f"the model failed on images {_form(images)} ({type(problem).__name__}: {reason}); "
                f"{self._advice(images)}"
            ) from problem
        is_plain = isinstance(logits, Tensor) and logits.layout == torch.strided and not logits.is_complex()
        if not is_plain or logits.dim() != 2 or logits.shape[1] < 2 or len(logits) != len(images):
            form = _form(logits) if isinstance(logits, Tensor) else type(logits).__name__
            raise ModelError(
                f"the model returned {form} for {len(images)} images; expected logits "
                f"({len(images)}, classes) with at least 2 classes{_how_to_return(logits)}"
            )
        # Of half or double precision, as under autocast: everything else computes in single precision.
        return cast(Tensor, logits).float()

    def _advice(self, images: Tensor) -> str:
        weights = next((one for one in self.model.parameters() if one.is_floating_point()), images)
        if weights.dtype != images.dtype:
            return f"its weights are {_name(weights.dtype)}: give it as model.float(), or cast in its forward"
        return (
            "check its forward, and the size of the images; they come with 3 channels, grey ones too, in "
            "batches of any size"
        )

    def check_gradient(self, images: Tensor) -> Tensor:
        """Logits (B,C) of ``images``, once a gradient has come back to them.

        Raises:
            ModelError: as ``answer``; the gradient fails.
        """
        with torch.enable_grad():
            asked = images.detach().clone().requires_grad_()
            logits = self.answer(asked)[0]
            try:
                torch.autograd.grad(logits.sum(), asked)
            except (TemperError, torch.OutOfMemoryError):
                raise
            except Exception as problem:  # whatever a foreign backward may raise
                reason = str(problem).strip().split("\n")[0]
                raise ModelError(
                    f"the model's gradient failed on images {_form(images)} "
                    f"({type(problem).__name__}: {reason}); attacks need one: check what its forward "
                    "changes in place, and its own autograd functions"
                ) from problem
        return logits.detach()

    def _count_backward(self, gradient: Tensor) -> None:
        self.num_backward += len(gradient)


def _form(tensor: Tensor) -> str:
    layout = "" if tensor.layout == torch.strided else f", {str(tensor.layout).removeprefix('torch.')}"
    return f"{tuple(tensor.shape)} of {_name(tensor.dtype)}{layout}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class HeldModel:
    """A model that is judged, and its folded form that is attacked: the same answers, computed faster."""

    def __init__(self, model: nn.Module, folded: nn.Module) -> None:
        self.model = CountedModel(model).eval()
        self.folded = self.model if folded is model else CountedModel(folded).eval()

    @property
    def num_forward(self) -> int:
        """Images sent forward through either."""
        return sum(one.num_forward for one in {self.model, self.folded})

    @property
    def num_backward(self) -> int:
        """Gradients that came back through either, per image."""
        return sum(one.num_backward for one in {self.model, self.folded})

    @property
    def num_not_finite(self) -> int:
        """Answers of either that were not finite."""
        return sum(one.num_not_finite for one in {self.model, self.folded})


@contextmanager
def held_still(model: nn.Module, images: Tensor) -> Iterator[HeldModel]:
    """``model`` in eval mode with frozen parameters and counters; restored exactly afterwards.

    Foolbox's attacks call ``loss.backward()``: with frozen parameters no gradient piles up in them. The
    folded has its BatchNorm folded into the convolutions; it answers the float ``images`` (B,3,H,W), a few of
    those to come, as the model does, or it is the model itself.
    """
    with attack_mode(model):
        yield HeldModel(model, folded_copy(model, images))


def _how_to_return(answer: object) -> str:
    """What to change in a forward that returns something else than logits; empty where it does not tell."""
    if isinstance(answer, dict) or hasattr(answer, "logits"):
        names = [str(name) for name in answer][:5] if isinstance(answer, dict) else ["logits"]
        return f"; return one of its entries ({', '.join(names)}), in a module around it"
    if isinstance(answer, tuple | list):
        return f"; return the one of its {len(answer)} entries that has the logits, in a module around it"
    if not isinstance(answer, Tensor) or not answer.numel() or not answer.dim():
        return ""
    if not answer.is_floating_point():
        return "; return what forward takes the largest of"
    if answer.dim() == 1 or answer.shape[1] == 1:
        return (
            "; a logit z, before the sigmoid, for the second of two classes becomes "
            "torch.cat([torch.zeros_like(z), z], 1) for z of shape (N, 1)"
        )
    return "; flatten(1) removes sides of 1" if answer[0].numel() == answer.shape[1] else ""
