"""``leaderboard.json``: all boards, what changed, and the record files that are on none."""

import json
from typing import Literal

from temper.leaderboard.boards import Board
from temper.leaderboard.changes import Changes
from temper.leaderboard.collect import Problem
from temper.leaderboard.external import ExternalTable
from temper.records import OverTargets, TargetSummary
from temper.spec import Spec, Threat


class CrossvalSummary(Spec):
    """What the boards show of a cross-validation."""

    path: str
    name: str
    created: str
    threat: Threat
    folds: int
    seeds: list[int]
    targets: list[TargetSummary]
    over_targets: dict[str, OverTargets]
    robust: dict[str, list[float | None]]
    """Target -> robust accuracy of each fold, the mean over its seeds; ``None`` where no run counts."""


class LeaderboardSummary(Spec):
    """Everything that the page shows."""

    schema_version: Literal[2] = 2
    as_of: str
    """The newest record's date; empty where nothing was measured."""
    boards: list[Board]
    external: list[ExternalTable]
    """What others published and nobody measured here: never ranked, on no board."""
    crossvals: list[CrossvalSummary]
    changes: Changes | None
    """Since an older leaderboard, where one was named."""
    skipped: list[Problem]


def json_schema() -> str:
    """The JSON schema (draft 2020-12) of ``leaderboard.json``."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **LeaderboardSummary.model_json_schema(mode="serialization"),
    }
    return json.dumps(schema, indent=2) + "\n"
