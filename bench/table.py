"""The table of all rows: kept as JSON between runs, written as Markdown, and copied into a page."""

import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from row import Row

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs/performance.md"
PACKAGES = (
    "torch", "torchvision", "numpy", "pillow", "ray", "foolbox", "torchattacks",
    "adversarial-robustness-toolbox", "kornia",
)  # fmt: skip
HEADINGS = ("measure", "against", "unit", "ours", "peer", "ratio", "least to greatest", "goal", "won")

Result = dict[str, Any]
"""A measured row: what it is, its figures, and where and when they were taken."""


def result_of(script: str, row: Row, figures: dict[str, float]) -> Result:
    """``row`` with what was measured."""
    return {
        "script": script, "measure": row.name, "against": row.peer_name, "unit": row.unit, "goal": row.goal,
        **figures, "is_won": row.is_won(figures["ratio"]),
        "date": time.strftime("%Y-%m-%d"), "commit": commit(), "load": round(os.getloadavg()[0], 1),
        "machine": machine(),
    }  # fmt: skip


def cells(result: Result) -> list[str]:
    """A line of the table, under ``HEADINGS``."""
    spread = f"{_short(result['least'])} to {_short(result['greatest'])}"
    sides = (_short(result[side]) for side in ("ours", "peer"))
    names = (result[name] for name in ("measure", "against", "unit"))
    won = "yes" if result["is_won"] else "no"
    return [*names, *sides, _short(result["ratio"]), spread, result["goal"], won]


def _short(number: float) -> str:
    """Three digits that count, and all of those before the point."""
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def read_results(path: Path) -> list[Result]:
    """What former runs left; nothing where there are none."""
    if not path.is_file():
        return []
    found: list[Result] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return found


def merged(former: list[Result], new: list[Result], order: Sequence[str]) -> list[Result]:
    """The rows of the scripts in ``order``, each as it was measured last."""

    def key(result: Result) -> tuple[str, str, str]:
        return result["script"], result["measure"], result["against"]

    latest = {key(result): result for result in [*former, *new]}
    kept = [result for result in latest.values() if result["script"] in order]
    return sorted(kept, key=lambda result: order.index(result["script"]))


def write_results(rows: list[Result], path: Path, command: str) -> None:
    """JSON at ``path``, Markdown beside it, and into the page, where that has a place for such a table."""
    document = {"versions": versions(), "command": command, "rows": rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    text = markdown(rows, command)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    if path.resolve().parent == ROOT / "bench" and PAGE.is_file():
        page, (begin, end) = PAGE.read_text(encoding="utf-8"), marks(path.stem)
        if begin in page:
            before, _, rest = page.partition(begin)
            _, _, after = rest.partition(end)
            PAGE.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")


def marks(name: str) -> tuple[str, str]:
    """Before and after the table that is kept in bench/``name``.json, on the page."""
    return f"<!-- bench/{name}.md -->", f"<!-- end of bench/{name}.md -->"


def markdown(rows: list[Result], command: str) -> str:
    """The table, with what has to be known of the machine and the versions."""
    won = sum(result["is_won"] for result in rows)
    machines = dict.fromkeys(result["machine"] for result in rows)
    lines = [
        f"{won} of {len(rows)} rows won. The last run was `{command}`. Measured on: {'; '.join(machines)}.",
        "Versions of the last run: "
        + ", ".join(f"{name} {number}" for name, number in versions().items())
        + ".",
        "",
        "| " + " | ".join((*HEADINGS, "date", "commit")) + " |",
        "|---|---|---|---:|---:|---:|---:|---|---|---|---|",
    ]
    lines += ["| " + " | ".join((*cells(result), result["date"], result["commit"])) + " |" for result in rows]
    return "\n".join(lines) + "\n"


def machine() -> str:
    """Processor, its vector units as PyTorch uses them, cores, and threads of PyTorch."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [line.partition(":")[2].strip() for line in cpuinfo.read_text().splitlines()
                 if line.startswith("model name")]  # fmt: skip
        model = names[0] if names else model
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    units = torch.backends.cpu.get_cpu_capability()
    return f"{model} ({units}), {os.cpu_count()} cores, {torch.get_num_threads()} threads{gpu}"


def versions() -> dict[str, str]:
    """Of Python and of the packages that take part, where they are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    """The commit that is measured, with a + where files were changed since."""
    places = ["--", "bench/*.py", "platform"]
    changed = _git("status", "--porcelain", *places)
    return (_git("rev-parse", "--short", "HEAD") or "unknown") + ("+" if changed else "")


def _git(*words: str) -> str:
    command = ["git", "-C", str(ROOT), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
