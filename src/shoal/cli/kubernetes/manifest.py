"""Objects as the YAML that kubectl, Git and policy checkers read: one form, whatever reads it.

What reads YAML 1.1 takes `y` and `1e3` for other than text, what reads 1.2 does not: only text that begins as a word
and is none of theirs goes without quotes. A fleet of 1,000 agents is 150,000 lines, which a general writer of YAML
takes five times as long for.
"""

from __future__ import annotations

import json
import re
from typing import cast

_PLAIN = re.compile(r"(?!(?:true|false|null|yes|no|on|off)$)[A-Za-z/][A-Za-z0-9._/-]+", re.IGNORECASE)
_NOT_PRINTED = re.compile("[\x7f-\xa0\u2028\u2029\ufeff\ufffe\uffff]")  # or taken for the end of a line
_INDENT = "  "


def format_manifest(value: dict[str, object]) -> str:
    """One document, in the order of the values, which are JSON's."""
    return "\n".join(_block(value, "")) + "\n"


def _block(value: object, indent: str) -> list[str]:
    lines: list[str] = []
    if isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            if _is_block(inner):
                lines.append(f"{indent}{_scalar(key)}:")
                lines += _block(inner, indent if isinstance(inner, list) else indent + _INDENT)
            else:
                lines.append(f"{indent}{_scalar(key)}: {_scalar(inner)}")
        return lines
    for inner in cast("list[object]", value):
        if _is_block(inner):
            first, *others = _block(inner, indent + _INDENT)
            lines += [f"{indent}- {first[len(indent) + len(_INDENT) :]}", *others]
        else:
            lines.append(f"{indent}- {_scalar(inner)}")
    return lines


def _is_block(value: object) -> bool:
    return isinstance(value, (dict, list)) and bool(cast("object", value))


def _scalar(value: object) -> str:
    if not isinstance(value, str):
        return json.dumps(value)
    if _PLAIN.fullmatch(value):
        return value
    return _NOT_PRINTED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
