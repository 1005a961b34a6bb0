"""What is measured, and in which chunks: fixed before the first attack, so that workers agree."""

from collections.abc import Iterator

from pydantic import Field

from temper.evaluation.corruptions import Group
from temper.evaluation.suite import Suite
from temper.spec import Spec, Threat, content_hash


class CascadePlan(Spec):
    """A suite within a threat model."""

    threat: Threat
    suite: Suite


class EvaluationPlan(Spec):
    """Everything that outcomes depend on beside the model and the images.

    Images are attacked in chunks of ``chunk_size``, each on its own: which worker takes which chunk changes
    nothing, and a finished chunk need not be repeated.
    """

    main: CascadePlan
    curve: tuple[float, ...] = ()
    """Further eps of the main norm."""
    others: tuple[CascadePlan, ...] = ()
    """Other threat models."""
    corruptions: tuple[Group, ...] = ()
    """Groups of corruptions to measure accuracy under."""
    minimum_norms: bool = False
    """Whether the smallest perturbation that fools the model is searched for, image by image."""
    seed: int
    batch_size: int = Field(default=128, ge=1)
    chunk_size: int = Field(default=256, ge=1)

    @property
    def cascades(self) -> list[CascadePlan]:
        """In the order of work: smaller balls first, for what falls there falls in the larger ones too."""
        threat = self.main.threat
        levels = sorted({*self.curve, threat.eps})
        main = [
            CascadePlan(threat=threat.model_copy(update={"eps": eps}), suite=self.main.suite)
            for eps in levels
        ]
        return [*main, *sorted(self.others, key=lambda plan: (plan.threat.norm, plan.threat.eps))]

    @property
    def hash(self) -> str:
        """Tells outcomes of one plan from those of another."""
        return content_hash(self.model_dump(mode="json"))

    def chunks(self, num_images: int) -> Iterator[slice]:
        """The images of each chunk."""
        for start in range(0, num_images, self.chunk_size):
            yield slice(start, min(start + self.chunk_size, num_images))
