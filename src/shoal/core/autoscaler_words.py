"""A decision's reason, in words for people."""

from __future__ import annotations

from shoal.core.autoscaler_demand import Demand
from shoal.core.decision import Proposal
from shoal.core.ownership import Held

_UNITS = {"cpu": " %", "memory": " %", "p95": " s"}


def reason_for(demand: Demand, current: int, count: int, capped_by: str, *, held: int, proposal: int | None) -> str:
    """Why it is `count`: what asks for how many, and what kept it from that."""
    if capped_by == "pin":
        return f"pinned to {count} by hand"
    if proposal is None and count != current:
        return f"{current} is {'above max' if capped_by == 'max' else 'below min'} {count}"
    if proposal is None:
        return f"kept at {count}: {demand.error}"
    asked = _asked(demand, proposal, held=held)
    if demand.error:
        asked += f" ({demand.error})"
    if count == proposal:
        return asked if count != current else f"{asked}, as there are"
    return f"{asked}, {_held_back(current, count, capped_by)}"


def describe_held(held: Held) -> str:
    """Who set it, and what keeps that one from setting it."""
    owner = held.owner
    verb = "set to" if owner.lasting else "set by hand to"
    trouble = f", which can't tell how many there should be: {owner.trouble}" if owner.trouble else ""
    return f"{verb} {held.count} by {owner.name}{trouble}"


def _asked(demand: Demand, proposal: int, *, held: int) -> str:
    if not demand.proposals and not held:
        return "there is no target"
    leading = None if demand.leading is None else demand.proposals[demand.leading]
    if leading is not None and leading.count == proposal:
        return f"{_measured(leading)} asks for {proposal}"
    if proposal > (demand.count or 0):
        requests = "1 held request asks" if held == 1 else f"{held} held requests ask"
        return f"{requests} for {proposal}" if held else f"waiting work asks for {proposal}"
    return "no trigger asks for any"


def _measured(proposal: Proposal) -> str:
    if proposal.target is None:
        return "an open cron window"
    unit = _UNITS.get(proposal.trigger, "")
    per = "" if unit else " a replica"
    value = "" if proposal.value is None else f" {proposal.value:.4g}{unit}"
    return f"{proposal.trigger}{value} (target {proposal.target:.4g}{unit}{per})"


def _held_back(current: int, count: int, capped_by: str) -> str:
    verb = "kept at" if count == current else "held at"
    because = {
        "max": "by max",
        "min": "by min",
        "stabilization": "by recent recommendations",
    }.get(capped_by, f"by the {capped_by}")
    return f"{verb} {count} {because}"
