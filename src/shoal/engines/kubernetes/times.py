"""When something was, as Kubernetes writes it."""

from __future__ import annotations

from datetime import datetime


def epoch_s(text: str | None) -> float | None:
    """As epoch seconds."""
    return datetime.fromisoformat(text).timestamp() if text else None
