"""Quantities as people write them: `1h30m`, `500m`, `256Mi`, `70%`.

Durations follow Compose (`1h30m`, `90s`, `250ms`); quantities follow Kubernetes (`500m` CPU, `256Mi` memory).
"""

from __future__ import annotations

import math
import re

_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|us|d|h|m|s))+")
_DURATION_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|us|d|h|m|s)")
_DURATION_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_MEMORY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(Ki|Mi|Gi|Ti|Pi|k|K|M|G|T|P|kb|mb|gb|b|B)?")
_MEMORY_UNITS = {
    "": 1, "b": 1, "B": 1,
    "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15,
    "kb": 2**10, "mb": 2**20, "gb": 2**30,
    "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40, "Pi": 2**50,
}  # fmt: skip
_CPU = re.compile(r"([0-9]+(?:\.[0-9]+)?)(m)?")
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*%?")

# Beyond these a number is a slip, and the sums made of it would leave what a clock or a kernel can hold.
LONGEST_DURATION_S = 100 * 365 * 86400.0
LARGEST_MEMORY_BYTES = 2**60
LARGEST_CPU_CORES = 1e6
LARGEST_PERCENT = 1e6


def parse_duration_s(text: str | float) -> float:
    """Seconds from `1h30m`, `250ms`, `2d`, or a bare number of seconds, up to 100 years.

    Raises ValueError with what was expected.
    """
    if isinstance(text, bool):
        raise ValueError(_not(text, "a duration", "a number with a unit, such as 250ms, 90s or 1h30m"))  # noqa: TRY004 - one kind for pydantic
    if isinstance(text, (int, float)):
        if text < 0:
            raise ValueError(f"{text!r} is negative; expected a duration such as 90s or 1h30m")
        return _at_most(text, LONGEST_DURATION_S, text, "100 years")
    stripped = str(text).strip()
    if _DURATION.fullmatch(stripped) is None:
        raise ValueError(_not(text, "a duration", "a number with a unit, such as 250ms, 90s or 1h30m"))
    total = sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in _DURATION_PART.findall(stripped))
    return _at_most(total, LONGEST_DURATION_S, text, "100 years")


def parse_memory_bytes(text: str | int) -> int:
    """Bytes from `256Mi`, `1.5Gi`, `512mb` (Compose's, 1024-based), `1G` (Kubernetes', 1000-based) or a bare number.

    Raises ValueError with what was expected.
    """
    if isinstance(text, int) and not isinstance(text, bool):
        if text < 0:
            raise ValueError(f"{text!r} is negative; expected an amount such as 256Mi")
        return int(_at_most(text, LARGEST_MEMORY_BYTES, text, "1024Pi"))
    match = None if isinstance(text, bool) else _MEMORY.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(_not(text, "an amount of memory", "a number with a unit, such as 256Mi or 4Gi"))
    return int(_at_most(float(match[1]) * _MEMORY_UNITS[match[2] or ""], LARGEST_MEMORY_BYTES, text, "1024Pi"))


def parse_cpu_cores(text: str | float) -> float:
    """Cores from `500m`, `2` or `0.5`. Raises ValueError with what was expected."""
    match = None if isinstance(text, bool) else _CPU.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(_not(text, "an amount of CPU", "cores such as 500m or 2"))
    return _at_most(float(match[1]) / (1000 if match[2] else 1), LARGEST_CPU_CORES, text, "a million cores")


def parse_percent(text: str | float) -> float:
    """Percent from `70%`, or 70. Raises ValueError with what was expected."""
    match = None if isinstance(text, bool) else _PERCENT.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(_not(text, "a percentage", "a number such as 70%"))
    return _at_most(float(match[1]), LARGEST_PERCENT, text, "a million percent")


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


def _not(found: object, what: str, expected: str) -> str:
    return f"{_shown(found)} is not {what}; expected {expected}"


def _shown(found: object) -> str:
    text = str(found).lower() if isinstance(found, bool) else repr(found)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _at_most(number: float, largest: float, found: object, spoken: str) -> float:
    """`number` as a float; not-a-number counts as too large."""
    if not number <= largest:
        text = "infinity" if isinstance(number, float) and not math.isfinite(number) else _shown(found)
        raise ValueError(f"{text} is too large; expected at most {spoken}")
    return float(number)
