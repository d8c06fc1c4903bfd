"""What the controllers of a fleet wrote on the bed's Kubernetes, and whose turn it was then."""

from __future__ import annotations

import asyncio

from testbed.kubernetes.audit import Asked, Audit
from testbed.kubernetes.bed import KubeBed

_PATIENCE_S = 60.0
_LEASES = "leases"


class Turns:
    """Since this was made."""

    def __init__(self, bed: KubeBed, namespace: str) -> None:
        self._audit = Audit(bed, namespace)

    def writes(self, pod: str = "") -> list[Asked]:
        """Of all controllers, or of one; the Lease itself is not of them."""
        return [each for each in self._asked() if _acts(each) and pod in ("", each.pod)]

    async def written(self, pod: str, count: int) -> None:
        """Returns once one has written so often."""
        async with asyncio.timeout(_PATIENCE_S):
            while len(self.writes(pod)) < count:  # noqa: ASYNC110 - the server's file
                await asyncio.sleep(0.005)

    def out_of_turn(self) -> list[Asked]:
        """Writes of one that began after another one had the Lease; where nobody of ours has it, since somebody else
        took it, those that began after its own next look at it."""
        asked, found = self._asked(), list[Asked]()
        looks = [each for each in asked if each.resource == _LEASES]
        for write in filter(_acts, asked):
            before = [each for each in looks if each.ended < write.began]
            taken = next((each for each in reversed(before) if each.writes), None)
            if taken is None or taken.holder == write.pod:
                continue
            if taken.pod or any(each.pod == write.pod and each.began > taken.ended for each in before):
                found.append(write)
        return found

    def _asked(self) -> list[Asked]:
        """In the order in which it came."""
        return sorted(self._audit.asked(), key=lambda each: each.began)


def _acts(asked: Asked) -> bool:
    return asked.writes and bool(asked.pod) and asked.resource != _LEASES
