"""Go's numbers: what `int32`, `int64`, `float64` and `time.Time` do where Python's would do otherwise.

Kubernetes' autoscaler is compared with bit by bit, so sums wrap, integer quotients truncate toward zero, a division of
doubles by zero is infinite, and a double that does not fit an integer becomes the least one (what `CVTTSD2SL` and
`CVTTSD2SQ` give, so Go on amd64).
"""

from __future__ import annotations

import math

MIN_INT32 = -(2**31)
MAX_INT32 = 2**31 - 1
MIN_INT64 = -(2**63)
MAX_INT64 = 2**63 - 1

_NS = 10**9
_ZERO_TIME_NS = -62_135_596_800 * _NS  # Go's zero time.Time, the year 1
_NS_EXACT_BELOW_S = 2**22  # a double keeps nanoseconds below this many seconds, microseconds up to 2^32


def int32(value: int) -> int:
    """`value` wrapped into 32 bits, two's complement."""
    return ((value + 2**31) & 0xFFFFFFFF) - 2**31


def int64(value: int) -> int:
    """`value` wrapped into 64 bits, two's complement."""
    return ((value + 2**63) & 0xFFFFFFFFFFFFFFFF) - 2**63


def divide(numerator: float, denominator: float) -> float:
    """A quotient of doubles as IEEE 754 has it: by zero it is infinite, 0/0 is not a number."""
    if denominator != 0:
        return numerator / denominator
    if numerator == 0 or math.isnan(numerator):
        return math.nan
    return math.copysign(math.inf, numerator) * math.copysign(1.0, denominator)


def quotient(numerator: int, denominator: int) -> int:
    """An int64 quotient, truncated toward zero. `denominator` is not 0."""
    magnitude = abs(numerator) // abs(denominator)
    return int64(magnitude if (numerator < 0) == (denominator < 0) else -magnitude)


def truncate_to_int32(value: float) -> int:
    """`int32(value)` in Go on amd64: toward zero; out of range or not a number gives the least int32."""
    return math.trunc(value) if -2147483649.0 < value < 2147483648.0 else MIN_INT32


def ceil_to_int32(value: float) -> int:
    """`int32(math.Ceil(value))`; out of range or not a number gives the least int32."""
    return truncate_to_int32(float(math.ceil(value))) if math.isfinite(value) else MIN_INT32


def ceil_to_int64(value: float) -> int:
    """`int64(math.Ceil(value))`; out of range or not a number gives the least int64."""
    if not math.isfinite(value):
        return MIN_INT64
    ceiling = math.ceil(value)
    return ceiling if MIN_INT64 <= ceiling <= MAX_INT64 else MIN_INT64


def nanoseconds(seconds: float | None) -> int:
    """An instant or a duration as a whole number of nanoseconds, so that `now - period` is exact.

    Whole seconds (an int) are exact. A double is taken to the nanosecond below 2^22 s and to the microsecond above,
    which is as much as it holds of an epoch second: 1700000000.1 and 1700000015.1 are 15 s apart. `None` is Go's zero
    time.
    """
    if seconds is None:
        return _ZERO_TIME_NS
    if isinstance(seconds, int):
        return seconds * _NS
    whole = math.floor(seconds)
    rest = seconds - whole
    if abs(seconds) < _NS_EXACT_BELOW_S:
        return whole * _NS + round(rest * _NS)
    return whole * _NS + round(rest * 10**6) * 1000
