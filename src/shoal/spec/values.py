"""The scalar types of the spec: what people may write for a number, a duration, a command.

Each takes what YAML 1.2 read and also the same as text, since `"${PORT:-8000}"` is text. What YAML 1.1 would have read
otherwise (`no`, `010`, `1_000`) is refused by name rather than guessed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from shoal.units import parse_cpu_cores, parse_duration_s, parse_memory_bytes, parse_percent

_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_NUMBER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,17})?")
_OLD_BOOLEANS = frozenset({"yes", "no", "on", "off", "y", "n"})


def _boolean(value: object) -> object:
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        if value in ("true", "True", "TRUE"):
            return True
        if value in ("false", "False", "FALSE"):
            return False
        if value.lower() in _OLD_BOOLEANS:
            raise ValueError(f"{value!r} is text, as YAML 1.2 reads it; expected true or false")
    raise ValueError(f"{shown(value)} is not a truth value; expected true or false")


def _integer(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[-+]?0[0-9_]+", value):
        raise ValueError(f"{value!r} is octal to some readers of YAML and decimal to others; write it without the 0")
    if isinstance(value, str) and re.fullmatch(r"[-+]?[0-9][0-9_]+", value):
        raise ValueError(f"{value!r} is not a whole number in YAML 1.2; write it without the _")
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    raise ValueError(f"{shown(value)} is not a whole number; expected a number such as 8")


def _number(value: object) -> object:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value if abs(value) < 1e18 else 1e18
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return float(value)
    raise ValueError(f"{shown(value)} is not a number; expected a number such as 20 or 0.5")


def _scalar(value: object, wanted: str) -> str | float:
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        return value
    raise ValueError(f"{shown(value)} is not {wanted}")


def _duration_s(value: object) -> float:
    return parse_duration_s(_scalar(value, "a duration; expected a number with a unit, such as 250ms, 90s or 1h30m"))


def _memory_bytes(value: object) -> int:
    amount = _scalar(value, "an amount of memory; expected a number with a unit, such as 256Mi or 4Gi")
    return parse_memory_bytes(str(amount) if isinstance(amount, float) else amount)


def _cpu_cores(value: object) -> float:
    return parse_cpu_cores(_scalar(value, "an amount of CPU; expected cores such as 500m or 2"))


def _percent(value: object) -> float:
    return parse_percent(_scalar(value, "a percentage; expected a number such as 70%"))


def _share(value: object) -> int | str:
    """A count stays a count, a percentage is text: `25%`."""
    if isinstance(value, str) and value.strip().endswith("%"):
        percent = parse_percent(value)
        if percent > 100:
            raise ValueError(f"{shown(value)} is more than all; expected at most 100%")
        return f"{percent:g}%"
    try:
        count = _integer(value)
    except ValueError:
        raise ValueError(f"{shown(value)} is neither a count nor a percentage; expected 1 or 25%") from None
    if not isinstance(count, int) or not 0 <= count <= 10**6:
        raise ValueError(f"{shown(value)} is no count of replicas; expected 0 or more, or a percentage such as 25%")
    return count


def _argv(value: object) -> object:
    """A string is split as a shell would split it, and never run by a shell."""
    argv = value
    if isinstance(value, str):
        try:
            argv = tuple(shlex.split(value))
        except ValueError as error:
            raise ValueError(f"{shown(value)} can't be split as a shell would: {str(error).lower()}") from None
    if isinstance(argv, (list, tuple)):
        parts = cast("list[object] | tuple[object, ...]", argv)
        if not parts or not parts[0]:
            raise ValueError("there is no program; expected its name and its arguments")
        if any(isinstance(part, str) and "\0" in part for part in parts):
            raise ValueError("there is a NUL character in it, which no argument can hold")
    return cast("object", argv)


def _assignments(value: object) -> object:
    """`[A=b]` is `{A: b}`."""
    if not isinstance(value, (list, tuple)):
        return value
    pairs: dict[str, str] = {}
    for item in cast("list[object] | tuple[object, ...]", value):
        if not isinstance(item, str) or "=" not in item:
            raise ValueError(f"{shown(item)} is not an assignment; expected NAME=value")
        name, _, text = item.partition("=")
        pairs[name] = text
    return pairs


def _user(value: object) -> object:
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str) or not _USER.fullmatch(text):
        raise ValueError(
            f"{shown(value)} is no user; expected a number or name, and a group after a colon, such as 1000:1000"
        )
    return text


def _capability(value: object) -> object:
    name = value.removeprefix("CAP_") if isinstance(value, str) else ""
    if name not in CAPABILITY_NAMES:
        near = get_close_matches(name.upper(), CAPABILITY_NAMES, n=1)
        expected = f"did you mean {near[0]}?" if near else "expected one such as NET_BIND_SERVICE"
        raise ValueError(f"{shown(value)} is no capability of Linux; {expected}")
    return name


def shown(value: object) -> str:
    """A found value as people would write it, cut to a length fit for a message."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, (list, tuple)):
        return "a list"
    text = repr(value) if isinstance(value, str) else str(value)[:60]
    return text if len(text) <= 60 else f"{text[:57]}..."


def _sorted(value: Mapping[str, str]) -> dict[str, str]:
    return dict(sorted(value.items()))


_TEXT_OR_NUMBER: dict[str, Any] = {"type": ["string", "number"]}
_SHARE: dict[str, Any] = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "pattern": "^[0-9]+([.][0-9]+)?%?$"}],
}
_TEXT_MAP: dict[str, Any] = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}
_ASSIGNMENT_MAP: dict[str, Any] = {
    "anyOf": [_TEXT_MAP, {"type": "array", "items": {"type": "string"}}],
}
_ARGV: dict[str, Any] = {
    "anyOf": [
        {"type": "string", "minLength": 1},
        {"type": "array", "minItems": 1, "items": {"type": ["string", "number", "boolean"]}},
    ],
}


_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[A-Za-z0-9_][A-Za-z0-9_.-]*)?")
CAPABILITY_NAMES = (
    "ALL", "AUDIT_CONTROL", "AUDIT_READ", "AUDIT_WRITE", "BLOCK_SUSPEND", "BPF", "CHECKPOINT_RESTORE", "CHOWN",
    "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "IPC_LOCK", "IPC_OWNER", "KILL", "LEASE",
    "LINUX_IMMUTABLE", "MAC_ADMIN", "MAC_OVERRIDE", "MKNOD", "NET_ADMIN", "NET_BIND_SERVICE", "NET_BROADCAST",
    "NET_RAW", "PERFMON", "SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYSLOG", "SYS_ADMIN", "SYS_BOOT",
    "SYS_CHROOT", "SYS_MODULE", "SYS_NICE", "SYS_PACCT", "SYS_PTRACE", "SYS_RAWIO", "SYS_RESOURCE", "SYS_TIME",
    "SYS_TTY_CONFIG", "WAKE_ALARM",
)  # fmt: skip


class FromAssignments:
    """Marks a map that people may also write as a list of `NAME=value`."""


Boolean = Annotated[bool, BeforeValidator(_boolean)]
Integer = Annotated[int, BeforeValidator(_integer)]
Number = Annotated[float, BeforeValidator(_number)]
DurationS = Annotated[float, BeforeValidator(_duration_s), WithJsonSchema(_TEXT_OR_NUMBER)]
MemoryBytes = Annotated[int, BeforeValidator(_memory_bytes), WithJsonSchema(_TEXT_OR_NUMBER)]
CpuCores = Annotated[float, BeforeValidator(_cpu_cores), WithJsonSchema(_TEXT_OR_NUMBER)]
Percent = Annotated[float, BeforeValidator(_percent), WithJsonSchema(_TEXT_OR_NUMBER)]
Share = Annotated[int | str, BeforeValidator(_share), WithJsonSchema(_SHARE)]
Argv = Annotated[tuple[str, ...], BeforeValidator(_argv), WithJsonSchema(_ARGV)]
Names = tuple[str, ...]
User = Annotated[str, BeforeValidator(_user), WithJsonSchema({"type": ["string", "integer"]})]
Capability = Annotated[str, BeforeValidator(_capability), WithJsonSchema({"type": "string"})]
StringMap = Annotated[
    Mapping[str, str], PlainSerializer(_sorted, return_type=dict[str, str]), WithJsonSchema(_TEXT_MAP)
]
Assignments = Annotated[
    Mapping[str, str],
    BeforeValidator(_assignments),
    PlainSerializer(_sorted, return_type=dict[str, str]),
    WithJsonSchema(_ASSIGNMENT_MAP),
    FromAssignments(),
]
