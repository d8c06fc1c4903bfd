"""What a check of `shoal doctor` found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Result = Literal["ok", "note", "warning", "failure"]


@dataclass(frozen=True, slots=True)
class Finding:
    """And what to do about it."""

    check: str
    result: Result
    found: str
    remedy: str = ""
