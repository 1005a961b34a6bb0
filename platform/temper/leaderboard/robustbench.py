"""Entries of RobustBench (Croce et al. 2021, arXiv:2010.09670) as external records.

``model_info/DATA/NORM/MODEL.json``: the file's name is the model's, its folder says the norm, and numbers are
percentages in strings.
"""

import html
import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import ValidationError

from temper.errors import RecordError
from temper.records import LINK, ExternalRecord
from temper.safe_load import read_json
from temper.spec import Norm, Threat

MAX_BYTES = 64 * 1024
NEEDED: Final = ("name", "dataset", "eps", "clean_acc")
ROBUST: Final = ("autoattack_acc", "external", "reported")
TEXTS: Final = {
    "title": "name", "authors": "authors", "venue": "venue", "architecture": "architecture",
    "footnote": "footnote",
}  # fmt: skip
FLAGS: Final = {"extra_data": "additional_data", "is_unreliable": "unreliable"}
KEYS: Final = {**TEXTS, **FLAGS, "num_forward_passes": "number_forward_passes"}
"""Field of the record -> key of the file, where they differ."""
KNOWN: Final = {*NEEDED, *ROBUST, "link", *KEYS.values()}
CORRUPTIONS: Final = "corruptions"
TAG = re.compile(r"</?[A-Za-z][^<>]*>")
ENTITY = re.compile(r"&#?\w{1,31};")
NORM_IN_TEX = re.compile(r"\\\(\s*\\ell_\{?\s*(\\infty|\d)\s*\}?\s*\\\)")
NORMS: Final = get_args(Norm)


def is_of_corruptions(path: Path) -> bool:
    """Whether an entry is about common corruptions, which have no norm and no eps."""
    return path.resolve().parent.name.lower() == CORRUPTIONS


def read_model_info(path: Path, data_name: str | None, norm: str | None) -> tuple[ExternalRecord, list[str]]:
    """The record of one file, and its keys that are not taken over.

    ``data_name`` is what boards call the data set, if not what the file does; ``norm`` is that of a file in a
    folder that does not say it.

    Raises:
        RecordError: not readable, no such entry, or values that cannot be.
    """
    try:
        document = _entry(read_json(path, MAX_BYTES))
        record = _record(path.resolve(), document, data_name, norm)
    except ValidationError as problem:
        first = problem.errors()[0]
        field = ".".join(map(str, first["loc"]))
        where = f"'{KEYS.get(field, field)}': " if field else ""
        raise RecordError(f"{path}: {where}{first['msg'].removeprefix('Value error, ')}") from None
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise RecordError(f"{path}: {reason}") from None
    return record, sorted(set(document) - KNOWN)


def _entry(document: Any) -> dict[str, Any]:
    if not isinstance(document, dict):
        raise ValueError(f"a {type(document).__name__}, not an entry of RobustBench's model_info")
    if "schema_version" in document:
        raise ValueError("a temper file; `temper submit-entry` adds records to a board")
    missing = [name for name in NEEDED if name not in document]
    missing += [] if any(name in document for name in ROBUST) else [" or ".join(ROBUST)]
    if missing:
        raise ValueError(f"not an entry of RobustBench's model_info: no {', '.join(missing)}")
    return document


def _record(path: Path, document: dict[str, Any], data_name: str | None, norm: str | None) -> ExternalRecord:
    name = path.stem
    if not name.isprintable():  # as of bytes that are no UTF-8
        raise ValueError(f"the file's name is the model's, and {name[:60]!a} cannot be printed")
    dataset = _dataset(path, document)
    record = ExternalRecord(
        kind="external",
        publisher="RobustBench",
        name=name,
        data_name=data_name or dataset,
        dataset=dataset,
        threat=Threat(norm=_norm(path, norm), eps=_eps(document["eps"])),
        clean_acc=_clean(document),
        autoattack_acc=_share(document, "autoattack_acc"),
        external_acc=_share(document, "external"),
        reported_acc=_share(document, "reported"),
        link=_link(document),
        num_forward_passes=_passes(document),
        **{field: _text(document, key) for field, key in TEXTS.items()},
        **{field: _flag(document, key) for field, key in FLAGS.items()},
    )
    if record.threat.eps == 0:
        raise ValueError("'eps' is 0, within which nothing is perturbed")
    if record.robust_acc is None and record.reported_acc is None:
        raise ValueError(f"no robust accuracy: {', '.join(ROBUST)} are all empty")
    if record.robust_acc is not None and record.robust_acc > record.clean_acc:
        raise ValueError("its robust accuracy is above its clean accuracy, which is impossible")
    return record


def _dataset(path: Path, document: dict[str, Any]) -> str:
    """Within ``model_info`` what the folder says, by which RobustBench goes: one of its files errs."""
    folders = path.parents
    if len(folders) > 2 and folders[2].name == "model_info":
        return folders[1].name
    name = _text(document, "dataset")
    if not name:
        raise ValueError("'dataset' is empty")
    return name


def _norm(path: Path, given: str | None) -> Norm:
    folder = path.parent.name
    said = next((norm for norm in NORMS if norm == folder.lower()), None)
    if said is not None and given not in (None, said):
        raise ValueError(f"its folder says {folder}, --norm {given}")
    norm: Norm | None = said or next((norm for norm in NORMS if norm == given), None)
    if norm is None:
        raise ValueError(
            f"its norm is unknown: the folder '{folder}' is none of Linf, L2 and L1, as in "
            "model_info/DATA/NORM; give --norm"
        )
    return norm


def _eps(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str) or len(str(value)) > 32:
        raise ValueError(f"'eps' must be a number or a ratio such as \"8/255\", got {_shown(value)}")
    return value


def _clean(document: dict[str, Any]) -> float:
    share = _share(document, "clean_acc")
    if share is None:
        raise ValueError("'clean_acc' is empty")
    if share <= 0.01:
        raise ValueError(f"'clean_acc' must be in percent, got {_shown(document['clean_acc'])}, a fraction?")
    return share


def _share(document: dict[str, Any], key: str) -> float | None:
    """A percentage as a fraction; ``None`` where nothing stands."""
    value = document.get(key)
    if value is None or value == "":
        return None
    text = "" if isinstance(value, bool) or not isinstance(value, int | float | str) else str(value).strip()
    if not re.fullmatch(r"-?\d{1,9}(\.\d{0,30})?", text, re.ASCII):
        raise ValueError(f"'{key}' must be a percentage such as \"53.08\", got {_shown(value)}")
    share = float(Decimal(text) / 100)
    if not 0 <= share <= 1:
        raise ValueError(f"'{key}' must be in 0..100 percent, got {text}")
    return share


def _text(document: dict[str, Any], key: str) -> str:
    """On one line, without HTML; what TeX says of a norm in words."""
    value = document.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"'{key}' must be text, got {_shown(value)}")
    plain = ENTITY.sub(lambda found: html.unescape(found[0]), TAG.sub(" ", value))
    plain = NORM_IN_TEX.sub(lambda found: f"L{found[1].replace(chr(92) + 'infty', 'inf')}", plain)
    return " ".join(plain.split())


def _link(document: dict[str, Any]) -> str | None:
    value = document.get("link")
    if value is None or value == "":
        return None
    if not isinstance(value, str) or not re.fullmatch(LINK, value):
        raise ValueError(f"'link' must be an http or https address, got {_shown(value)}")
    return value


def _flag(document: dict[str, Any], key: str) -> bool | None:
    value = document.get(key)
    if not isinstance(value, bool | None):
        raise ValueError(f"'{key}' must be true or false, got {_shown(value)}")
    return value


def _passes(document: dict[str, Any]) -> int | None:
    value = document.get("number_forward_passes")
    if isinstance(value, bool) or not isinstance(value, int | None):
        raise ValueError(f"'number_forward_passes' must be a whole number, got {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def model_info_files(path: Path) -> Iterator[Path]:
    """The file itself, or every ``.json`` under a folder but for hidden places, sorted."""
    if not path.is_dir():
        yield path
        return
    for file in sorted(path.rglob("*.json")):
        if not any(part.startswith(".") for part in file.relative_to(path).parts):
            yield file
