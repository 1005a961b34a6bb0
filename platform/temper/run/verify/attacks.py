"""Checking a record's model again: predictions, saved images, new attacks, gates."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy.special import bdtrc
from torch import Tensor

from temper.batches import as_floats
from temper.data import stratified_subset
from temper.evaluation import CascadePlan, EvaluationPlan, suite_for
from temper.evaluation.cascade import LabelledImages
from temper.evaluation.chunk import answer_clean, evaluate_chunk
from temper.evaluation.chunk_outcome import CleanOutcome
from temper.evaluation.counted_model import held_still
from temper.evaluation.evaluate import NUM_KEPT
from temper.evaluation.gates import run_gates
from temper.evaluation.metrics import measure
from temper.evaluation.result import main_cascade
from temper.evaluation.threats import is_valid
from temper.records import GateRecord
from temper.run.target import EvaluationTarget
from temper.seeds import derive_seed
from temper.statistics import wilson
from temper.verification import Check, Evidence, check_of, differences

MAX_FLIPPED_FRAC: Final = 0.005
"""Of clean predictions, which float arithmetic may change on another machine."""
MAX_RETURNED_FRAC: Final = 0.05
"""Of adversarial images, which lie close to the boundary."""
MAX_FALLEN_FRAC: Final = 0.005
"""Of all images: robust accuracy is to be right within half a point."""
METRIC_TOLERANCE: Final = 0.002
MAX_SURPRISE: Final = 0.01
"""How unlikely what fell must be, for a record whose searches were as good as ours, before it is refused."""
CAME_LATER: Final = frozenset({"memory", "without its front"})
"""Gates that records of November 2026 and before lack."""


@dataclass(frozen=True)
class Reexamined:
    """The model, asked again about all N images."""

    evidence: Evidence
    target: EvaluationTarget
    data: LabelledImages
    clean: CleanOutcome
    seed: int

    @classmethod
    def of(cls, evidence: Evidence, target: EvaluationTarget) -> "Reexamined":
        test = target.test
        images = torch.from_numpy(np.ascontiguousarray(test.images))
        data = LabelledImages(images, torch.from_numpy(test.labels.astype(np.int64)))
        with held_still(target.model, as_floats(images[:8], target.device)) as held:
            clean = answer_clean(held.model, data, target.settings.batch_size, target.device)
        return cls(evidence, target, data, clean, evidence.record.seed)

    def check_predictions(self) -> Check:
        """Clean predictions and the metrics of their logits."""
        claimed = self.evidence.columns["prediction"]
        flipped = int((self.clean.prediction.numpy() != claimed).sum())
        problems = []
        if flipped > MAX_FLIPPED_FRAC * len(claimed):
            problems.append(f"{flipped} of {len(claimed)} clean predictions differ from the outcomes")
        metrics, found = self.evidence.record.metrics, measure(self.clean.logits, self.clean.labels)
        if metrics is not None:
            for name in ("auroc", "ece"):
                problems += differences(
                    f"metrics.clean.{name}",
                    getattr(metrics.clean, name),
                    getattr(found, name),
                    METRIC_TOLERANCE,
                )
        return check_of("predictions", problems, f"{len(claimed)} images, {flipped} predictions flipped")

    def check_adversarial(self) -> Check:
        """Saved images obey the threat model and fool the model as claimed, and none is left out."""
        saved, columns, record = self.evidence.saved, self.evidence.columns, self.evidence.record
        kept = stratified_subset(columns["label"], NUM_KEPT, record.seed)
        fallen = [place for place in kept if columns["correct"][place] and not columns["robust"][place]]
        expected = columns["row"][fallen]
        problems = []
        if not np.array_equal(np.sort(expected), np.sort(saved.rows)):
            problems.append(f"{len(saved.rows)} images are saved, expected {len(expected)}")
        places = np.flatnonzero(np.isin(columns["row"], saved.rows))
        if not np.array_equal(columns["row"][places], saved.rows):
            return check_of("adversarial images", [*problems, "not in the order of the outcomes"], "")
        images = torch.from_numpy(saved.images)
        valid = is_valid(as_floats(self.data.images[torch.from_numpy(places)]), images, record.threat)
        if not valid.all():
            problems.append(f"{int((~valid).sum())} images are not within {record.threat.label}")
        returned = int((self._answer(images) != saved.predictions).sum())
        if returned > max(1, MAX_RETURNED_FRAC * len(images)):
            problems.append(f"{returned} of {len(images)} images do not fool the model as claimed")
        good = f"{len(images)} images within {record.threat.label}, {returned} predicted differently"
        return check_of("adversarial images", problems, good)

    def _answer(self, images: Tensor) -> np.ndarray:
        """(K,) what the model takes float images for; -1 where its answer is not finite."""
        if not len(images):
            return np.zeros(0, np.int64)
        target = self.target
        with torch.no_grad(), held_still(target.model, images[:8].to(target.device)) as held:
            logits, finite = held.model.answer(images.to(target.device))
        return torch.where(finite, logits.argmax(1), -1).cpu().numpy()

    def attack_again(self, num_sampled: int) -> list[Check]:
        """New attacks with another seed on a stratified sample, and the gates on the model."""
        record, columns, seed = self.evidence.record, self.evidence.columns, derive_seed(self.seed, "verify")
        chosen = stratified_subset(columns["label"], num_sampled, seed)
        standing, gates = self._search(chosen, seed)
        robust = columns["robust"][chosen]
        num_fallen = int((robust & ~standing).sum())
        again = judge_fallen(num_fallen, len(chosen), int(robust.sum()))
        if not again.passed and record.threat.norm == "patch":
            other, _ = self._search(chosen, derive_seed(seed, "other"))
            again = judge_search(num_fallen, int((standing != other).sum()), len(chosen))
        looked = any(gate.name == "leakage" for gate in record.gates)  # older records did not
        return [again, judge_gates(record.gates, [*gates, *(self.target.leakage() if looked else [])])]

    def _search(self, chosen: np.ndarray, seed: int) -> tuple[np.ndarray, list[GateRecord]]:
        """Which of ``chosen`` (K,) stand after the suite ``quick`` and the gates, (K,) bool; the gates."""
        columns, device, plan = self.evidence.columns, self.target.device, self._plan(seed)
        places = torch.from_numpy(chosen)
        data = LabelledImages(self.data.images[places], self.data.labels[places])
        rows, kept = torch.from_numpy(columns["row"][chosen]), torch.zeros(len(chosen), dtype=torch.bool)
        fresh = self.target.fresh()
        found = evaluate_chunk(self.target.model, data, rows, kept, plan, 0, device)
        relatives = self.target.relatives()
        with held_still(self.target.model, as_floats(data.images[:8], self.target.device)) as held:
            gates = run_gates(held, data, found, plan, device, relatives, fresh)
        return main_cascade(found, plan).standing.numpy(), gates

    def _plan(self, seed: int) -> EvaluationPlan:
        """The suite ``quick`` with another seed."""
        threat, settings = self.evidence.record.threat, self.target.settings
        main = CascadePlan(threat=threat, suite=suite_for("quick", threat.norm))
        return EvaluationPlan(main=main, seed=seed, batch_size=settings.batch_size)


def judge_fallen(num_fallen: int, num_sampled: int, num_robust: int) -> Check:
    share = wilson(num_fallen, num_sampled)
    problems = []
    if share.low > MAX_FALLEN_FRAC:
        problems.append(
            f"{num_fallen} of {num_sampled} images count as robust but fell to new attacks "
            f"(at least {share.low:.1%} of all, {MAX_FALLEN_FRAC:.1%} are allowed)"
        )
    good = f"of {num_sampled} images, {num_robust} counted as robust, {num_fallen} fell to new attacks"
    return check_of("attacked again", problems, good)


def judge_search(num_fallen: int, num_apart: int, num_sampled: int) -> Check:
    """Of patches: a search over places finds now these images and now those, so half a point is too strict.

    ``num_fallen`` images count as robust and fell to a new search; ``num_apart`` fell to one alone of that
    search and another new one. Were the record's search as good as each of these, an image that falls by
    chance would be among the former as often as among either half of the latter: one time in three.
    """
    surprise = float(bdtrc(num_fallen - 1, num_fallen + num_apart, 1 / 3))
    seen = f"{num_fallen} of {num_sampled} images count as robust but fell to new attacks"
    luck = f"two new searches with other seeds differ in {num_apart}"
    problems = [f"{seen}, and {luck}: chance {surprise:.2g}"] if surprise < MAX_SURPRISE else []
    return check_of("attacked again", problems, f"{seen}, which may be luck: {luck}")


def judge_gates(claimed: list[GateRecord], found: list[GateRecord]) -> Check:
    passed = {gate.name: gate.passed for gate in claimed}
    problems = [
        f"the record lacks the gate '{gate.name}'"
        for gate in found
        if gate.name not in passed and not (gate.name in CAME_LATER and gate.passed)
    ]
    problems += [
        f"'{gate.name}' passed in the record, but fails: {gate.detail}"
        for gate in found
        if passed.get(gate.name) and not gate.passed
    ]
    return check_of("gates again", problems, f"{len(found)} gates, as in the record")
