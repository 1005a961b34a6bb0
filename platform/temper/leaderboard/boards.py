"""Boards and ranks: only what is comparable is compared, and what cannot be told apart shares a rank."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from temper.errors import RecordError
from temper.leaderboard.collect import FoundRecord
from temper.leaderboard.entries import RANKED, Entry, Status, build_entry
from temper.leaderboard.evidence import Answers, read_answers
from temper.leaderboard.submission import doubts_about, submission_of
from temper.records import EvaluationRecord, caution_about
from temper.spec import Spec, Threat
from temper.statistics import pairwise_mid_p, pairwise_unpaired_p, shared_ranks


class Board(Spec):
    """Models that were measured on the same images, threat model and suite."""

    data_name: str
    fingerprint: str
    classes: list[str]
    num_images: int
    image_size: int
    threat: Threat
    suite: str
    suite_version: int
    suite_hash: str
    attack_names: list[str]
    """Attacks that every model met, in their order: the suite's, and gates that were needed everywhere."""
    num_unpaired: int
    """Ranked models that were compared by their totals alone, for want of outcomes on the same images."""
    entries: list[Entry]
    """By rank, then by robust accuracy, clean accuracy and name."""
    blocked: list[Entry]
    """A gate did not trust their numbers."""
    unverified: list[Entry]
    """Their numbers are not those of their evidence, or were not verified where that was asked for."""

    @property
    def caution(self) -> str:
        """By how much the suite's numbers may be too high, where that was measured; else empty."""
        return caution_about(self.suite, self.suite_version)


def headings(boards: Sequence[Board]) -> list[str]:
    """What sets each board apart from the others of the same data and threat model; empty where none is."""
    return [_apart(board, boards) for board in boards]


def _apart(board: Board, boards: Sequence[Board]) -> str:
    same = [one for one in boards if (one.data_name, one.threat) == (board.data_name, board.threat)]
    parts = {
        f"suite {board.suite}": len({one.suite for one in same}) > 1,
        f"version {board.suite_version}": len({(one.suite, one.suite_version) for one in same})
        > len({one.suite for one in same}),
        f"{board.num_images} images": len({one.num_images for one in same}) > 1,
        f"{board.image_size} px": len({one.image_size for one in same}) > 1,
        f"data {board.fingerprint}": len({one.fingerprint for one in same}) > 1,
        f"suite hash {board.suite_hash}": len(
            {(one.suite, one.suite_version, one.suite_hash) for one in same}
        )
        > len({(one.suite, one.suite_version) for one in same}),
    }
    return ", ".join(part for part, differs in parts.items() if differs)


@dataclass(frozen=True)
class Candidate:
    """A record that is to be placed."""

    found: FoundRecord
    answers: Answers | None
    entry: Entry

    @property
    def order(self) -> tuple[Any, ...]:
        entry = self.entry
        return -entry.robust_acc, -entry.clean_acc, entry.name, entry.path


def rank(records: Sequence[FoundRecord], *, require_verified: bool = False) -> list[Board]:
    """One board per (images, threat model, suite).

    ``require_verified`` ranks only entries of a board folder whose submission was verified.
    """
    groups: dict[tuple[Any, ...], list[FoundRecord]] = {}
    for found in records:
        groups.setdefault(_board_key(found.record), []).append(found)
    return [_board(groups[key], require_verified) for key in sorted(groups)]


def _board_key(record: EvaluationRecord) -> tuple[Any, ...]:
    data, suite = record.data, record.suite
    return (
        data.name, data.fingerprint, data.num_images, data.image_size,
        record.threat.norm, record.threat.eps, record.threat.channels,
        suite.name, suite.version, suite.hash,
    )  # fmt: skip


def _board(records: list[FoundRecord], require_verified: bool) -> Board:
    candidates = sorted(
        (_candidate(found, require_verified) for found in records), key=lambda candidate: candidate.order
    )
    ranked = [candidate for candidate in candidates if candidate.entry.status in RANKED]
    first = candidates[0].found.record
    return Board(
        data_name=first.data.name,
        fingerprint=first.data.fingerprint,
        classes=first.data.classes,
        num_images=first.data.num_images,
        image_size=first.data.image_size,
        threat=first.threat,
        suite=first.suite.name,
        suite_version=first.suite.version,
        suite_hash=first.suite.hash,
        attack_names=_common_attacks([candidate.found.record for candidate in ranked or candidates]),
        num_unpaired=sum(not paired for paired in _paired_with_most(ranked)),
        entries=_place(ranked),
        blocked=[one.entry for one in candidates if one.entry.status == "blocked"],
        unverified=[one.entry for one in candidates if one.entry.status == "unverified"],
    )


def _candidate(found: FoundRecord, require_verified: bool) -> Candidate:
    try:
        answers = read_answers(found.path, found.record)
    except RecordError as problem:
        return Candidate(found, None, build_entry(found, "unverified", [str(problem)]))
    status, reasons = _status(found, answers, require_verified)
    return Candidate(found, answers, build_entry(found, status, reasons))


def _status(found: FoundRecord, answers: Answers | None, require_verified: bool) -> tuple[Status, list[str]]:
    record = found.record
    failed = [f"{gate.name}: {gate.detail}" for gate in record.gates if not gate.passed]
    if record.status == "blocked" or failed:
        return "blocked", failed or ["the record does not say why"]
    submission, doubt = submission_of(found.path)
    doubts = [doubt] if doubt else doubts_about(submission, found.path) if submission else []
    if doubts:
        return "unverified", doubts
    if submission is not None:
        return "verified", []
    if require_verified:
        return "unverified", ["not submitted through `temper submit-entry`"]
    return ("no outcomes" if answers is None else "ok"), []


def _common_attacks(records: list[EvaluationRecord]) -> list[str]:
    common = set.intersection(*({attack.name for attack in record.attacks} for record in records))
    return [attack.name for attack in records[0].attacks if attack.name in common]


def _place(ranked: list[Candidate]) -> list[Entry]:
    """The entries with their ranks; those that cannot be told apart share one."""
    if not ranked:
        return []
    ranks = shared_ranks(_p_values(ranked))
    front = _pareto({(one.entry.clean_acc, one.entry.robust_acc) for one in ranked})
    return [
        one.entry.model_copy(
            update={
                "rank": place,
                "is_tied": ranks.count(place) > 1,
                "is_pareto": (one.entry.clean_acc, one.entry.robust_acc) in front,
            }
        )
        for one, place in zip(ranked, ranks, strict=True)
    ]


def _p_values(ranked: list[Candidate]) -> np.ndarray:
    """(M,M): in pairs where both answered for the same images, else from the totals."""
    values = np.array([one.entry.robust_acc for one in ranked])
    totals = np.array([one.found.record.robust_acc.total for one in ranked], dtype=float)
    p = pairwise_unpaired_p(values * totals, totals)
    for places in _by_images(ranked).values():
        answers = np.stack([one.robust for place in places if (one := ranked[place].answers)])
        p[np.ix_(places, places)] = pairwise_mid_p(answers)
    return p


def _by_images(ranked: list[Candidate]) -> dict[str, list[int]]:
    """Digest of images -> the places of the models that answered for them."""
    places: dict[str, list[int]] = {}
    for place, one in enumerate(ranked):
        if one.answers is not None:
            places.setdefault(one.answers.images, []).append(place)
    return places


def _paired_with_most(ranked: list[Candidate]) -> list[bool]:
    """Whether each model was compared in pairs with the largest group of the others."""
    largest = max(_by_images(ranked).values(), key=len, default=[])
    return [place in largest for place in range(len(ranked))]


def _pareto(points: set[tuple[float, float]]) -> set[tuple[float, float]]:
    """The points (clean, robust) that no other one equals or beats in both."""
    front, best = set(), -1.0
    for point in sorted(points, reverse=True):
        if point[1] > best:
            front.add(point)
            best = point[1]
    return front
