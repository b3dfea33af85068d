"""Values of params.yaml are set in its text, so that comments, order and spelling of everything else stay."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from components.contracts import InputError

_PLAIN = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAKEN = ("true", "false", "yes", "no", "on", "off", "null", "none", "y", "n")
"""Words that YAML, 1.1 or 1.2, reads as something else than a text."""


def with_values(text: str, changes: Mapping[str, Any]) -> str:
    """The text of a YAML mapping with these scalars, by keys with dots; a key whose mapping is there is added to it.

    Raises:
        InputError: a key leads nowhere, or the text is written in a way in which that cannot be done.
    """
    from ruamel.yaml.error import YAMLError

    wanted = _apart(parsed(text))
    for key, value in changes.items():
        *way, last = key.split(".")
        _followed(wanted, way, key)[last] = value
    try:
        for key, value in changes.items():
            *way, last = key.split(".")
            text = _with_value(text, way, last, value)
        holds = parsed(text) == wanted
    except (YAMLError, InputError, LookupError):  # where a value was put, it broke what stands around it
        holds = False
    if not holds:
        raise InputError("it is written in a way in which single values cannot be set; set them by hand")
    return text


def scalar(value: Any) -> str:
    """A number, a truth value, a word or nothing, as YAML 1.1 and 1.2 both read it."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, float):
        text = repr(value)
        return text.replace("e", ".0e") if "e" in text and "." not in text else text
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in _TAKEN:
        return value
    return json.dumps(value, ensure_ascii=False)


def _with_value(text: str, way: list[str], last: str, value: Any) -> str:
    from ruamel.yaml import YAML

    node = YAML().compose(text)
    for part in way:
        node = {name.value: inner for name, inner in node.value}[part]  # a merged one is not there
    found = next((inner for name, inner in node.value if name.value == last), None)
    if found is not None:
        return text[: found.start_mark.index] + scalar(value) + text[found.end_mark.index :]
    if node.flow_style:
        at = node.value[-1][1].end_mark.index if node.value else node.start_mark.index + 1
        return f"{text[:at]}{', ' if node.value else ''}{last}: {scalar(value)}{text[at:]}"
    # After the last entry of one line: what stands at the end of a block of several may be a comment on what follows.
    ends = [(name, inner.end_mark.index) for name, inner in node.value if "\n" not in _span(text, name, inner)]
    name, at = ends[-1] if ends else (node.value[0][0], node.value[0][0].start_mark.index)
    line_end = text.find("\n", at)
    at = (len(text) if line_end < 0 else line_end) if ends else at - name.start_mark.column - 1
    return f"{text[:at]}\n{' ' * name.start_mark.column}{last}: {scalar(value)}{text[at:]}"


def _span(text: str, name: Any, inner: Any) -> str:
    return text[name.start_mark.index : inner.end_mark.index]


def _followed(values: Any, way: list[str], key: str) -> dict[str, Any]:
    for part in way:
        values = values.get(part) if isinstance(values, dict) else None
    if not isinstance(values, dict):
        raise InputError(f"{key}: there is no {'.'.join(way)}, or it is no mapping")
    return values


def _apart(values: Any) -> Any:
    """The same without sharing: an alias changes with its anchor."""
    if isinstance(values, dict):
        return {key: _apart(one) for key, one in values.items()}
    return [_apart(one) for one in values] if isinstance(values, list) else values


def parsed(text: str) -> Any:
    """What a YAML text says.

    Raises:
        InputError: it is not valid.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(text)
    except (YAMLError, ValueError) as error:
        raise InputError(f"not valid YAML: {str(error).splitlines()[0]}") from None
