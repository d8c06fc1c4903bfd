"""Kubernetes' quantities (`500m`, `256Mi`, `1e3`) as its autoscaler reads them: in whole milli-units.

A part of `k8s.io/apimachinery/pkg/api/resource/quantity.go` (0.34). Fractions of a milli-unit are rounded away from
zero where the quantity is small enough for an int64, upward where it is not; amounts past int64 wrap. All of this is
as there.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from shoal.core.hpa_numbers import MAX_INT64, int64

_FORM = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)")
_EXPONENT = re.compile(r"[eE]([-+]?[0-9]+)")
_DECIMAL = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DIGITS = 18  # what surely fits an int64
_NANO = -9


class Quantity(NamedTuple):
    """`unscaled * 10**scale`; `small` where Kubernetes keeps it as an int64 rather than as a big decimal."""

    unscaled: int
    scale: int
    small: bool


def milli_value(text: str) -> int:
    """`Quantity.MilliValue()`. Raises ValueError where `text` is not a quantity."""
    return _scaled(parse_quantity(text), -3)


def approximate_float(text: str) -> float:
    """`Quantity.AsApproximateFloat64()`: mantissa times a power of ten, so `0.57` is 0.5700000000000001.

    Raises ValueError where `text` is not a quantity.
    """
    unscaled, scale, _ = parse_quantity(text)
    base = float(unscaled)
    return base if scale == 0 else base * float(f"1e{scale}")


def parse_quantity(text: str) -> Quantity:
    """`ParseQuantity`. Raises ValueError where `text` is not a quantity."""
    match = _FORM.fullmatch(text)
    if match is None or not text:
        raise ValueError(f"{text!r} is not a quantity; expected a number with a unit, such as 500m or 256Mi")
    sign, whole, fraction, suffix = match[1], match[2].lstrip("0"), match[3] or "", match[4]
    if not suffix and match[3] is None and not whole:
        return Quantity(0, 0, small=True)
    base, exponent = _suffix(text, suffix)
    digits = (whole or "0") + fraction
    negative = sign == "-"
    small = _parse_small(digits, len(whole or "0"), len(fraction), base, exponent)
    if small is not None:
        return small._replace(unscaled=-small.unscaled) if negative else small
    if not match[2] and not fraction:
        raise ValueError(f"{text!r} is not a quantity; expected digits")
    unscaled, scale = _parse_big(digits, len(fraction), base, exponent)
    return Quantity(-unscaled if negative else unscaled, scale, small=False)


def _suffix(text: str, suffix: str) -> tuple[int, int]:
    if suffix in _DECIMAL:
        return 10, _DECIMAL[suffix]
    if suffix in _BINARY:
        return 2, _BINARY[suffix]
    exponent = _EXPONENT.fullmatch(suffix)
    if exponent is None:
        raise ValueError(f"{text!r} is not a quantity; {suffix!r} is no unit")
    return 10, int(exponent[1])


def _parse_small(digits: str, whole: int, fraction: int, base: int, exponent: int) -> Quantity | None:
    """The form as an int64, where it surely fits and is no finer than a billionth."""
    mantissa, scale = 1, 0
    if base == 10:
        scale, precision = exponent, _DIGITS - whole - fraction
    elif fraction == 0:
        mantissa, precision = 1 << exponent, 15 - whole - int(exponent * 3 / 10) - 1
    else:
        return None
    scale -= fraction
    if precision < 0 or scale < _NANO:
        return None
    value = int(digits) * mantissa
    return Quantity(value, scale, small=True) if value <= MAX_INT64 else None


def _parse_big(digits: str, fraction: int, base: int, exponent: int) -> tuple[int, int]:
    """The form as a big decimal: no finer than a billionth, rounded up; binary ones at most the greatest int64."""
    unscaled, scale = int(digits), -fraction
    if base == 10:
        scale += exponent
    else:
        unscaled <<= exponent
    if unscaled and scale != _NANO:
        unscaled = _round_up(unscaled, scale, _NANO)
        scale = _NANO
    if base == 2 and unscaled > MAX_INT64 * 10 ** -min(scale, 0):
        unscaled, scale = MAX_INT64, 0
    return unscaled, scale


def _round_up(unscaled: int, scale: int, to_scale: int) -> int:
    if scale >= to_scale:
        return unscaled * 10 ** (scale - to_scale)
    return -(-unscaled // 10 ** (to_scale - scale))


def _scaled(quantity: Quantity, to_scale: int) -> int:
    unscaled, scale, small = quantity
    if not small:
        return _scaled_big(unscaled, scale, to_scale)
    if scale >= to_scale:
        return _multiplied(unscaled, scale - to_scale)
    magnitude = _round_up(abs(unscaled), scale, to_scale)
    return magnitude if unscaled >= 0 else -magnitude


def _multiplied(value: int, power: int) -> int:
    """By a power of ten: the usual steps wrap, the others give 0 past int64."""
    product = value * 10**power
    if power in {0, 1, 2, 3, 6, 9} or -MAX_INT64 <= product <= MAX_INT64:
        return int64(product)
    return 0


def _scaled_big(unscaled: int, scale: int, to_scale: int) -> int:
    if scale >= to_scale:
        return int64(int64(unscaled) * 10 ** (scale - to_scale))
    divisor = 10 ** (to_scale - scale)
    if unscaled < MAX_INT64 and to_scale - scale < 19:  # Go's int64 remainder, whatever the value's size below
        value = int64(unscaled)
        truncated = abs(value) // divisor if value >= 0 else -(abs(value) // divisor)
        return truncated + (1 if abs(value) % divisor else 0)
    floor, rest = divmod(unscaled, divisor)
    return int64(int64(floor) + (1 if rest else 0))
