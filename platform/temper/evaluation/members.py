"""Members of attack suites: Foolbox's attacks, with settings that can be trusted."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from torch import Tensor

from temper.attacks.norms import project, steepest
from temper.spec import Norm, Spec

if TYPE_CHECKING:
    import foolbox


class Member(Spec):
    """One attack of a suite. ``restarts`` are separate passes over the images that still stand."""

    kind: str
    restarts: int = Field(default=1, ge=1)

    @property
    def name(self) -> str:
        """Short and unique within a suite."""
        return self.kind

    def run(
        self, fmodel: "foolbox.PyTorchModel", images: Tensor, labels: Tensor, norm: Norm, eps: float
    ) -> Tensor:
        """Perturbed images (B,3,H,W). The caller checks them; nothing that Foolbox claims is believed."""
        # With an epsilon, Foolbox cuts minimum-norm results to the ball; the raw ones of a fixed-epsilon
        # attack may leave it. So always take the clipped images.
        _, clipped, _ = self.build(norm)(fmodel, images, labels, epsilons=eps)
        return clipped  # type: ignore[no-any-return]

    def build(self, norm: Norm) -> Any:
        """The Foolbox attack."""
        raise AssertionError(f"{type(self).__name__} does not name its attack")


class FGSMMember(Member):
    """One full step. Goodfellow et al. 2014, arXiv:1412.6572."""

    kind: Literal["fgsm"] = "fgsm"

    def build(self, norm: Norm) -> Any:
        import foolbox.attacks as fa

        assert norm != "l1"
        return fa.LinfFastGradientAttack() if norm == "linf" else fa.L2FastGradientAttack()


class PGDMember(Member):
    """Cross-entropy PGD from a random start. Madry et al. 2018, arXiv:1706.06083.

    Foolbox's default step sizes are too small to find what is there (71.9 % against 34.4 % robust in
    L2), so the step is always given: ``rel_stepsize`` times eps.
    """

    kind: Literal["pgd"] = "pgd"
    steps: int = Field(ge=1)
    rel_stepsize: float = Field(gt=0)

    @property
    def name(self) -> str:
        return f"pgd-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    def build(self, norm: Norm) -> Any:
        import foolbox.attacks as fa

        assert norm != "l1"
        attack = fa.LinfPGD if norm == "linf" else fa.L2PGD
        return attack(rel_stepsize=self.rel_stepsize, steps=self.steps, random_start=True)


class DeepFoolMember(Member):
    """Steps to the nearest linearised boundary. Moosavi-Dezfooli et al. 2016, arXiv:1511.04599."""

    kind: Literal["deepfool"] = "deepfool"
    steps: int = Field(default=25, ge=1)
    candidates: int = Field(default=10, ge=2)

    def build(self, norm: Norm) -> Any:
        import foolbox.attacks as fa

        assert norm != "l1"
        attack = fa.LinfDeepFoolAttack if norm == "linf" else fa.L2DeepFoolAttack
        return attack(steps=self.steps, candidates=self.candidates)


class DDNMember(Member):
    """Decoupled direction and norm, L2 only. Rony et al. 2019, arXiv:1811.09600."""

    kind: Literal["ddn"] = "ddn"
    steps: int = Field(default=100, ge=1)

    @property
    def name(self) -> str:
        return f"ddn-{self.steps}"

    def build(self, norm: Norm) -> Any:
        import foolbox.attacks as fa

        assert norm == "l2"
        return fa.DDNAttack(steps=self.steps)


class SLIDEMember(Member):
    """Sparse descent, L1 only, from a random start. Tramer and Boneh 2019, arXiv:1904.13000.

    Foolbox's loop with our geometry. Its projection ends outside the ball, because it divides by one
    coordinate too many, and an image inside the ball is thrown out of it whenever another of the batch is
    outside; its quantiles are computed by NumPy, whatever the device.
    """

    kind: Literal["slide"] = "slide"
    steps: int = Field(ge=1)
    rel_stepsize: float = Field(gt=0)

    @property
    def name(self) -> str:
        return f"slide-{self.steps}" + (f"x{self.restarts}" if self.restarts > 1 else "")

    def build(self, norm: Norm) -> Any:
        import eagerpy
        import foolbox.attacks as fa

        assert norm == "l1"
        attack = fa.SparseL1DescentAttack(rel_stepsize=self.rel_stepsize, steps=self.steps, random_start=True)
        attack.project = lambda x, x0, epsilon: eagerpy.astensor(project("l1", x.raw, x0.raw, epsilon))
        attack.normalize = lambda gradients, x, bounds: eagerpy.astensor(steepest("l1", gradients.raw, x.raw))
        return attack


class FMNMember(Member):
    """Fast minimum norm, L1 only. Pintor et al. 2021, arXiv:2102.12827.

    Foolbox's L2 variant does not project at all, so L2 has DDN. The L1 variant does, but it may stop just
    short of the boundary (4 % of the images of a small network, measured), so it is never the only member.
    """

    kind: Literal["fmn"] = "fmn"
    steps: int = Field(default=100, ge=1)

    @property
    def name(self) -> str:
        return f"fmn-{self.steps}"

    def build(self, norm: Norm) -> Any:
        import foolbox.attacks as fa

        assert norm == "l1"
        return fa.L1FMNAttack(steps=self.steps)


class EADMember(Member):
    """Elastic-net attack, L1 only. Chen et al. 2018, arXiv:1709.04114.

    Its early end depends on the loss of the whole batch, so it is off.
    """

    kind: Literal["ead"] = "ead"
    searches: int = Field(default=6, ge=1)
    """Steps of the search for the weight of the loss."""
    steps: int = Field(default=100, ge=1)
    """Of each search."""

    @property
    def name(self) -> str:
        return f"ead-{self.searches}x{self.steps}"

    def build(self, norm: Norm) -> Any:
        import foolbox.attacks as fa

        assert norm == "l1"
        return fa.EADAttack(
            binary_search_steps=self.searches,
            steps=self.steps,
            initial_const=1.0,
            decision_rule="L1",
            abort_early=False,
        )


AnyMember = Annotated[
    FGSMMember | PGDMember | DeepFoolMember | DDNMember | SLIDEMember | FMNMember | EADMember,
    Field(discriminator="kind"),
]
