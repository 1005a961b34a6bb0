"""Completion scripts of three shells; each is whole, and starts no process of temper at a key."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from temper.cli.options import Shell


@dataclass(frozen=True)
class Option:
    """One option of a command."""

    names: tuple[str, ...]
    help: str
    takes_value: bool


@dataclass(frozen=True)
class Place:
    """A command as it stands on the line, such as ``sweep show``, and what may follow it."""

    name: str
    words: tuple[str, ...]
    """Commands within it, and what its arguments may be where they can be listed."""
    options: tuple[Option, ...]


# For bash and zsh: where on the line we are, and what may stand there.
TABLES = """\
_temper_is_place() {{
  case "$1" in
    {names}) return 0 ;;
  esac
  return 1
}}
_temper_words() {{
  case "$1" in
{words}
  esac
}}
_temper_options() {{
  case "$1" in
{options}
  esac
}}
_temper_valued() {{
  case "$1" in
    {valued}) return 0 ;;
  esac
  return 1
}}
_temper_fields() {{
  echo '{fields}'
}}
_temper_place() {{
  local place='' word
  for word in "$@"; do
    if [ "$word" = '--' ]; then
      place=''
    elif _temper_is_place "${{place:+$place }}$word"; then
      place="${{place:+$place }}$word"
    fi
  done
  echo "$place"
}}
"""

BASH = """\
# bash completion of temper; `temper completion bash` made it.
{tables}
_temper() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" place words=''
  place="$(_temper_place "${{COMP_WORDS[@]:1:COMP_CWORD-1}}")"
  COMPREPLY=()
  if [ "$previous" = '--set' ]; then
    words="$(_temper_fields)"
    compopt -o nospace 2>/dev/null
  elif [[ "$current" == -* ]]; then
    words="$(_temper_options "$place")"
  elif _temper_valued "$previous"; then
    return
  else
    words="$(_temper_words "$place")"
  fi
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -o default -F _temper temper
"""

ZSH = """\
#compdef temper
# zsh completion of temper; `temper completion zsh` made it.
{tables}
_temper() {{
  local place previous="${{words[CURRENT-1]}}"
  place="$(_temper_place "${{(@)words[2,CURRENT-1]}}")"
  if [[ "$previous" == --set ]]; then
    compadd -S '' -- ${{=$(_temper_fields)}}
  elif [[ "$PREFIX" == -* ]]; then
    compadd -- ${{=$(_temper_options "$place")}}
  elif _temper_valued "$previous"; then
    _files
  else
    compadd -- ${{=$(_temper_words "$place")}} || {{ [[ -n "$place" ]] && _files }}
  fi
}}
if [ "$funcstack[1]" = '_temper' ]; then
  _temper "$@"
else
  compdef _temper temper
fi
"""

FISH = """\
# fish completion of temper; `temper completion fish` made it.
function __temper_place
    set -l place ''
    for word in (commandline -opc)[2..-1]
        if test "$word" = --
            set place ''
            continue
        end
        switch (string trim -- "$place $word")
            case {names}
                set place (string trim -- "$place $word")
        end
    end
    echo $place
end
function __temper_at
    set -l place (__temper_place)
    test "$place" = "$argv[1]"
end
function __temper_fields
    string split ' ' -- '{fields}'
end
{lines}
"""


def bash(places: Sequence[Place], fields: Sequence[str]) -> str:
    """For a file in ``~/.local/share/bash-completion/completions``."""
    return BASH.format(tables=_tables(places, fields))


def zsh(places: Sequence[Place], fields: Sequence[str]) -> str:
    """For a file ``_temper`` in a folder of ``fpath``."""
    return ZSH.format(tables=_tables(places, fields))


def fish(places: Sequence[Place], fields: Sequence[str]) -> str:
    """For a file in ``~/.config/fish/completions``."""
    lines = []
    for place in places:
        at = f"complete -c temper -n '__temper_at \"{place.name}\"'"
        if place.words:
            # At the start only commands; elsewhere paths too.
            lines.append(f"{at}{'' if place.name else ' -f'} -a {_quoted(' '.join(place.words))}")
        for option in place.options:
            names = " ".join(
                f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in option.names
            )
            value = (
                " -x -a '(__temper_fields)'"
                if "--set" in option.names
                else " -r"
                if option.takes_value
                else ""
            )
            lines.append(f"{at} {names}{value} -d {_quoted(option.help)}")
    names = " ".join(_quoted(place.name) for place in places if place.name)
    return FISH.format(names=names, fields=" ".join(_as_assignments(fields)), lines="\n".join(lines))


def _tables(places: Sequence[Place], fields: Sequence[str]) -> str:
    valued = {name for place in places for one in place.options if one.takes_value for name in one.names}
    return TABLES.format(
        names="|".join(_quoted(place.name) for place in places if place.name),
        words="\n".join(f"    {_quoted(one.name)}) echo {_quoted(' '.join(one.words))} ;;" for one in places),
        options="\n".join(
            f"    {_quoted(one.name)}) echo "
            f"{_quoted(' '.join(name for option in one.options for name in option.names))} ;;"
            for one in places
        ),
        valued="|".join(sorted(valued - {"--set"})),
        fields=" ".join(_as_assignments(fields)),
    )


def _as_assignments(fields: Sequence[str]) -> list[str]:
    return [f"{field}=" for field in fields]


def _quoted(text: str) -> str:
    """As one word of any of the shells."""
    return "'" + text.replace("'", "’") + "'"


SCRIPTS: dict[Shell, Callable[[Sequence[Place], Sequence[str]], str]] = {
    "bash": bash,
    "zsh": zsh,
    "fish": fish,
}
