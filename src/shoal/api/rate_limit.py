"""How often one address may try something that costs us more than him."""

from __future__ import annotations

_REMEMBERED = 4096  # addresses


class RateLimit:
    """`most` at once, then `per_s`, each address by itself. A time is an argument."""

    def __init__(self, most: int, per_s: float) -> None:
        self._most = most
        self._per_s = per_s
        self._left: dict[str, tuple[float, float]] = {}  # by address: how many, at what time

    def allows(self, address: str, now: float) -> bool:
        """Whether one more is allowed; it counts if it is."""
        left, at = self._left.pop(address, (float(self._most), now))
        left = min(float(self._most), left + max(0.0, now - at) * self._per_s)
        allowed = left >= 1.0
        self._left[address] = (left - 1.0 if allowed else left, now)
        if len(self._left) > _REMEMBERED:
            del self._left[next(iter(self._left))]
        return allowed
