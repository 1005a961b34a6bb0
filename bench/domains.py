"""What alpha, the schedule and the strength of training did in three domains: docs/results.md.

    TEMPER_DATA=... python bench/domains.py medical
    python bench/domains.py medical --only-page

The first runs the commands that stand under the domain's title on that page, in the order in which they stand
there, and goes on where it was interrupted; then, as the second does alone, it writes the page's pictures and
tables from the records. `--set` and `--space` make a smaller sweep, `--docs` another page, for trying it out.
"""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

from domain_page import write_page

DOCS = Path(__file__).parents[1] / "docs"
DOMAINS = ("medical", "manufacturing", "traffic")


def commands_of(domain: str, page: Path) -> list[list[str]]:
    """The commands of temper in the first fence under the domain's title."""
    section = page.read_text(encoding="utf-8").partition(f"\n## {domain.capitalize()}\n")[2]
    fence = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert fence is not None, f"{page}: no commands under {domain}"
    lines = os.path.expandvars(fence[1].replace("\\\n", " ")).splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))[:1] == ["temper"]]


def run(domain: str, page: Path, space: str | None, changes: list[str]) -> None:
    """Run them; shards that are there already are kept."""
    for words in commands_of(domain, page):
        if words[1] == "shards" and Path(words[3]).exists():
            continue
        if words[1] == "sweep":
            words[3] = space or words[3]
            words += [word for change in changes for word in ("--set", change)]
        print("$", shlex.join(words), flush=True)
        began = time.perf_counter()
        program = shutil.which("temper", path=str(Path(sys.executable).parent)) or "temper"
        ended = subprocess.run([program, *words[1:]])
        if ended.returncode:
            raise SystemExit(
                f"{shlex.join(words[:3])} ended with {ended.returncode}; the same command goes on"
            )
        print(f"{words[1]}: {(time.perf_counter() - began) / 60:.1f} minutes", flush=True)


def main() -> None:
    """Run a domain's sweep, unless told not to, and write its part of the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("domain", choices=DOMAINS)
    parser.add_argument("--only-page", action="store_true", help="train nothing")
    parser.add_argument("--set", action="append", default=[], help="changes the recipe", dest="changes")
    parser.add_argument("--space", help="in the place of the page's")
    parser.add_argument("--docs", type=Path, default=DOCS, help="the folder with results.md")
    arguments = parser.parse_args()
    if not arguments.only_page:
        run(arguments.domain, arguments.docs / "results.md", arguments.space, arguments.changes)
    write_page(arguments.domain, arguments.docs)


if __name__ == "__main__":
    main()
