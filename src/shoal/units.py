"""Quantities as people write them: `1h30m`, `500m`, `256Mi`, `70%`.

Durations follow Compose (`1h30m`, `90s`, `250ms`); quantities follow Kubernetes (`500m` CPU, `256Mi` memory).
"""

from __future__ import annotations

import re

_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|d|h|m|s)")
_DURATION_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|Pi|k|K|M|G|T|P|kb|mb|gb|b|B)?")
_MEMORY_UNITS = {
    "": 1, "b": 1, "B": 1,
    "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "kb": 2**10, "mb": 2**20, "gb": 2**30,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
_CPU = re.compile(r"(\d+(?:\.\d+)?)(m)?")


def parse_duration_s(text: str | float) -> float:
    """Seconds from `1h30m`, `250ms`, `2d`, or a bare number of seconds.

    Raises ValueError with what was expected.
    """
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        if text < 0:
            raise ValueError(f"{text!r} is negative; expected a duration such as 90s or 1h30m")
        return float(text)
    stripped = str(text).strip()
    parts = _DURATION_PART.findall(stripped)
    if not parts or "".join(number + unit for number, unit in parts) != stripped:
        raise ValueError(f"{text!r} is not a duration; expected a number with a unit, such as 250ms, 90s or 1h30m")
    return sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in parts)


def parse_memory_bytes(text: str | int) -> int:
    """Bytes from `256Mi`, `1.5Gi`, `512mb` (Compose's, 1024-based), `1G` (Kubernetes', 1000-based) or a bare number.

    Raises ValueError with what was expected.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise ValueError(f"{text!r} is negative; expected an amount such as 256Mi")
        return text
    match = _MEMORY.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not an amount of memory; expected a number with a unit, such as 256Mi or 4Gi")
    return int(float(match[1]) * _MEMORY_UNITS[match[2] or ""])


def parse_cpu_cores(text: str | float) -> float:
    """Cores from `500m`, `2` or `0.5`. Raises ValueError with what was expected."""
    if isinstance(text, bool):
        raise ValueError(f"{text!r} is not an amount of CPU; expected cores such as 500m or 2")  # noqa: TRY004 - one kind for pydantic
    match = _CPU.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is not an amount of CPU; expected cores such as 500m or 2")
    return float(match[1]) / (1000 if match[2] else 1)


def format_duration(seconds: float) -> str:
    """The shortest usual form: `250ms`, `90s` as `1m30s`, `0s`."""
    if 0 < seconds < 1:
        return f"{seconds * 1000:g}ms"
    parts: list[str] = []
    rest = seconds
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if rest >= size:
            parts.append(f"{int(rest // size)}{unit}")
            rest %= size
    if rest or not parts:
        parts.append(f"{rest:g}s")
    return "".join(parts)


def format_memory(amount_bytes: float) -> str:
    """`256Mi`, `1.5Gi`, `900` with at most one decimal."""
    for unit, size in (("Ti", 2**40), ("Gi", 2**30), ("Mi", 2**20), ("Ki", 2**10)):
        if amount_bytes >= size:
            return f"{amount_bytes / size:.1f}".removesuffix(".0") + unit
    return f"{int(amount_bytes)}"
