"""What of a source may be meant otherwise than it is read: nothing is refused for it, but it is said."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from temper.data.archives import is_tar
from temper.data.folders import Scan
from temper.data.groups import GROUP, SITE
from temper.data.metadata import FILE_NAME, KEY, Table, key
from temper.data.walk import IMAGE_SUFFIXES, is_junk, quoted

MISSING = {"nan", "na", "n/a", "#n/a", "<na>", "nat", "none", "null", "?", "-"}
"""What programs write where a value is missing, in lower case."""
HIDDEN = {".ipynb_checkpoints", ".git", ".dvc", ".cache", ".thumbnails", ".trash", ".trashes"}
"""Folders in which programs keep copies."""
MASK = re.compile(r"(.+?)[ _-](?:masks?|seg|segmentation|annotation|gt|groundtruth|label)(?:[ _-]?\d+)?")
VARIANT = re.compile(r"(.+)\.rf\.[0-9a-f]{16,}\.\w+")
"""A picture and its variants as Roboflow exports them."""
HEAD = 65536
"""Bytes of a table that are looked at."""


def doubts_of(source: Path, scan: Scan, table: Table | None, labels: Path | None) -> tuple[str, ...]:
    """Each in a line; ``table`` was read for ``scan``, from ``labels`` where it is elsewhere."""
    has_labels = table is not None and table.has("label")
    found = [
        "" if has_labels else _same_folders(scan),
        *(_alike(what, names) for what, names in _names(scan).items()),
        *(() if table is None else _missing(scan, has_labels)),
        _lone_groups(scan),
        _numbers_as_text(scan.classes),
        _masks(scan),
        _variants(scan),
        _hidden(scan),
        _unread_table(source, scan, labels),
    ]
    return tuple(filter(None, found))


def _same_folders(scan: Scan) -> str:
    """What to say where every class is made of the same sub-folders, such as one for each site.

    A WebDataset's tars, which are folders once they are unpacked, do not count.
    """
    parts = [file.relative.split("/") for file in scan.files]
    pairs = list(zip(parts, (scan.classes[file.label] for file in scan.files), strict=True))
    top = int(any(path[0] != name for path, name in pairs))  # below the folders of splits
    inside: dict[str, set[str]] = {name: set() for name in scan.classes}
    for path, name in pairs:
        below = path[top + 1 : -1]
        if not below or any(is_tar(Path(part)) for part in below):
            return ""
        inside[name].add(below[0])
    common, *others = inside.values()
    if len(common) < 2 or any(own != common for own in others):
        return ""
    return (
        f"the classes are the topmost folders ({quoted(scan.classes)}), and each is made of the same "
        f"folders ({quoted(sorted(common))}); if these are the classes, give a table with a column "
        "'label': metadata.csv beside them, or --labels CSV"
    )


def _values(scan: Scan, attribute: str) -> list[str]:
    """What is known of the files, in their order."""
    if attribute not in scan.attributes:
        return []
    place = scan.attributes.index(attribute)
    return [value for file in scan.files if (value := file.values[place]) is not None]


def _names(scan: Scan) -> dict[str, Iterable[str]]:
    return {
        "classes": scan.classes,
        "groups": sorted(set(_values(scan, GROUP))),
        "sites": sorted(set(_values(scan, SITE))),
    }


def _alike(what: str, names: Iterable[str]) -> str:
    """Names that differ in capitals, in what separates words, or in the zeros of a number."""
    seen: dict[str, str] = {}
    pairs = []
    for name in names:
        plain = re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFKC", name).casefold()).strip()
        if re.fullmatch(r"\d+(\.0*)?", plain):
            plain = plain.partition(".")[0].lstrip("0")
        if (other := seen.setdefault(plain, name)) != name:
            pairs.append((other, name))
    if not pairs:
        return ""
    more = f" (and {len(pairs) - 1} more such pairs)" if len(pairs) > 1 else ""
    return (
        f"the {what} {quoted(pairs[0])}{more} differ only in capitals, spaces or zeros, and are kept apart; "
        "if they are the same, give them one name"
    )


def _missing(scan: Scan, has_labels: bool) -> Iterator[str]:
    """Values of a table that programs write where nothing is known."""
    own = [scan.classes[file.label] for file in scan.files] if has_labels else []
    for what, values in {"label": own, GROUP: _values(scan, GROUP), SITE: _values(scan, SITE)}.items():
        for value, count in Counter(one for one in values if one.lower() in MISSING).items():
            todo = "remove these rows with their files" if what == "label" else "leave these cells empty"
            yield (
                f"the {what} of {count} images is {value!a}, which looks like a missing value but counts as "
                f"a {what} of its own; if it is none, {todo}"
            )


def _lone_groups(scan: Scan) -> str:
    values = _values(scan, GROUP)
    if len(values) < 2 or len(set(values)) < len(values):
        return ""
    return (
        "every group has one image, so that groups keep nothing together; see whether they are the right ones"
    )


def _numbers_as_text(classes: list[str]) -> str:
    if not all(re.fullmatch("[0-9]+", name) for name in classes) or classes == sorted(classes, key=int):
        return ""
    return (
        f"the classes are numbers in the order of text ({', '.join(classes[:5])}, ...): a model from "
        "elsewhere has to answer in this order; names of one width, such as 02 and 10, sort as numbers do"
    )


def _masks(scan: Scan) -> str:
    """Masks of segmentation beside the images that they belong to."""
    stems = [PurePosixPath(file.relative).with_suffix("").as_posix() for file in scan.files]
    found = [(stem, match[1]) for stem in stems if (match := MASK.fullmatch(stem))]
    known = set(stems) if found else set()
    pairs = [(mask, image) for mask, image in found if image in known]
    if not pairs:
        return ""
    mask, image = pairs[0]
    return (
        f"{len(pairs)} files are named like masks of others, such as {quoted([mask])} of {quoted([image])}, "
        "but count as images; move them away if they are masks"
    )


def _variants(scan: Scan) -> str:
    if GROUP in scan.attributes:
        return ""
    matches = (VARIANT.fullmatch(file.path.name) for file in scan.files if ".rf." in file.path.name)
    counts = Counter(match[1] for match in matches if match)
    several = {name: count for name, count in counts.items() if count > 1}
    if not several:
        return ""
    return (
        f"{sum(several.values())} files are named like variants of {len(several)} pictures, such as "
        f"{quoted([next(iter(several))])}; --group '^(.+)[.]rf[.]' keeps those of one picture in one split"
    )


def _hidden(scan: Scan) -> str:
    """Images of hidden folders that no program is known to make."""
    found = []
    for name in scan.notes:
        junk = [part for part in name.split("/") if is_junk(part)]
        is_own = all(part[0] == "." and part[:2] != "._" and part.lower() not in HIDDEN for part in junk)
        if junk and is_own and name.lower().endswith(IMAGE_SUFFIXES):
            found.append(name)
    if not found:
        return ""
    return (
        f"{len(found)} hidden files with the suffix of an image are left out, such as {quoted(found[:1])}; "
        "rename what begins with a dot if they are images of the set"
    )


def _unread_table(source: Path, scan: Scan, labels: Path | None) -> str:
    """A table that names images, as ``metadata.csv`` does, under another name."""
    notes = [name for name in scan.notes if name.lower().endswith(".csv") and not is_junk(name)]
    tables = [source / name for name in notes if PurePosixPath(name).name.lower() != FILE_NAME]
    if labels is not None and labels.exists():
        tables = [path for path in tables if path.exists() and not path.samefile(labels)]
    known = {name for file in scan.files for name in (file.path.name, file.path.stem)} if tables else set()
    found = [path for path in tables if _names_images(path, known)]
    if not found:
        return ""
    return (
        f"{quoted([found[0].relative_to(source).as_posix()])} names images, but is not read; --labels reads "
        f"it, if its columns are called '{KEY}' and 'label' (or 'group', 'site', 'split')"
    )


def _names_images(path: Path, known: set[str]) -> bool:
    """Whether the header of a table, or its first row, speaks of the files in ``known``."""
    try:
        with path.open("rb") as file:
            lines = file.read(HEAD).decode("utf-8-sig", "replace").splitlines()[:2]
    except OSError:
        return False
    cells = [cell.strip(" \"'") for line in lines for cell in re.split("[,;\t]", line)]
    return any(cell.lower() == KEY or PurePosixPath(key(cell)).name in known for cell in cells if cell)
