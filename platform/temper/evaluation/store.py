"""Finished chunks on a disk, so that a killed evaluation does not repeat them."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from temper.evaluation.chunk_outcome import (
    CASCADE_TENSORS,
    MEMBER_TENSORS,
    CascadeOutcome,
    ChunkOutcome,
    CleanOutcome,
    MemberOutcome,
    PassCounts,
)
from temper.records import ChunkSource, write_atomic
from temper.spec import Threat, content_hash

BEHAVIOUR = "behaviour.safetensors"


class ChunkStore:
    """Chunks of one evaluation under ``folder``. ``identity`` names everything that their outcomes depend on:

    plan, model, images; what was found under another identity is not read.
    """

    def __init__(self, folder: Path, identity: dict[str, str]) -> None:
        self.folder = folder / content_hash(identity)

    def read(self, index: int) -> ChunkOutcome | None:
        """Chunk number ``index``; ``None`` where it is not there, or damaged."""
        path = self._path(index)
        if not path.exists():
            return None
        try:
            return unpack(path.read_bytes())
        except (OSError, SafetensorError, KeyError, ValueError):
            return None

    def write(self, index: int, found: ChunkOutcome) -> None:
        """Keep a chunk."""
        write_atomic(self._path(index), pack(found))

    def indices(self) -> list[int]:
        """Numbers of the chunks that are here, readable or not."""
        return sorted(
            int(path.stem.removeprefix("chunk-")) for path in self.folder.glob("chunk-*.safetensors")
        )

    def drop(self, indices: Iterable[int]) -> None:
        """Remove some of the chunks."""
        for index in indices:
            self._path(index).unlink(missing_ok=True)

    def read_behaviour(self) -> dict[str, Tensor] | None:
        """What ``write_behaviour`` kept; ``None`` where that is not there, or damaged."""
        try:
            return load((self.folder / BEHAVIOUR).read_bytes())
        except (OSError, SafetensorError):
            return None

    def write_behaviour(self, tensors: dict[str, Tensor]) -> None:
        """Keep how the model behaves, by which it is known again."""
        write_atomic(self.folder / BEHAVIOUR, save(tensors))

    def clear(self) -> None:
        """Remove all chunks, also of other identities, once what they add up to is written elsewhere."""
        for pattern in ("*/*.safetensors", "*/.*.safetensors.*.tmp"):  # a killed process leaves the latter
            for path in self.folder.parent.glob(pattern):
                path.unlink()
        for folder in (*self.folder.parent.glob("*"), self.folder.parent):
            if folder.is_dir() and not list(folder.iterdir()):
                folder.rmdir()

    def _path(self, index: int) -> Path:
        return self.folder / f"chunk-{index:05}.safetensors"


def pack(found: ChunkOutcome) -> bytes:
    """Tensors, and everything else as JSON in one of them, as bytes."""
    tensors: dict[str, Tensor] = {
        name: getattr(found.clean, name).contiguous() for name in ("labels", "logits", "finite")
    }
    cascades = []
    for number, cascade in enumerate(found.cascades):
        for name in CASCADE_TENSORS:
            tensors[f"{number}/{name}"] = getattr(cascade, name).contiguous()
        members = []
        for place, member in enumerate(cascade.members):
            for name in MEMBER_TENSORS:
                tensors[f"{number}/{place}/{name}"] = getattr(member, name).contiguous()
            plain = ("name", "settings", "sees", "num_rejected", "seconds")
            members.append({name: getattr(member, name) for name in plain})
        cascades.append(
            {"threat": cascade.threat.model_dump(mode="json"), "suite": cascade.suite, "members": members}
        )
    for group, corrupted in found.corrupted.items():
        tensors[f"corrupted/{group}"] = corrupted
    if found.minimum_norms is not None:
        tensors["minimum_norms"] = found.minimum_norms
    sources = [source.model_dump() for source in found.sources]
    rest = {"cascades": cascades, "passes": asdict(found.passes), "sources": sources}
    tensors["rest"] = torch.frombuffer(bytearray(json.dumps(rest).encode()), dtype=torch.uint8)
    # Tensors of one memory are refused.
    return save({name: tensor.clone() for name, tensor in tensors.items()})


def unpack(content: bytes) -> ChunkOutcome:
    """What ``pack`` packed.

    Raises:
        SafetensorError, KeyError, ValueError: something else.
    """
    tensors = load(content)
    rest = json.loads(bytes(tensors["rest"].tolist()))

    def of(prefix: str, names: Sequence[str]) -> dict[str, Any]:
        return {name: tensors[f"{prefix}{name}"] for name in names}

    cascades = []
    for number, plain in enumerate(rest["cascades"]):
        members = [
            MemberOutcome(**described, **of(f"{number}/{place}/", MEMBER_TENSORS))
            for place, described in enumerate(plain["members"])
        ]
        threat = Threat.model_validate(plain["threat"])
        tensors_of = of(f"{number}/", CASCADE_TENSORS)
        cascades.append(CascadeOutcome(threat, plain["suite"], **tensors_of, members=members))
    clean = CleanOutcome(tensors["labels"], tensors["logits"], tensors["finite"])
    corrupted = {
        name.removeprefix("corrupted/"): tensor
        for name, tensor in tensors.items()
        if name.startswith("corrupted/")
    }
    sources = [ChunkSource(**one) for one in rest.get("sources", [])]
    return ChunkOutcome(
        clean, cascades, PassCounts(**rest["passes"]), corrupted, tensors.get("minimum_norms"), sources
    )
