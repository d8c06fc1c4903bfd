"""What people write. Law: no I/O but reading the files that it is told to read."""

from __future__ import annotations

from typing import Any

from shoal.spec.loading import Loaded, load
from shoal.spec.model import Fleet
from shoal.spec.origins import Origin, Origins

__all__ = ["Fleet", "Loaded", "Origin", "Origins", "json_schema", "load"]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a spec file, draft 2020-12, with shorthands and descriptions."""
    from shoal.spec.schema import json_schema as make  # noqa: PLC0415 - only `shoal schema` and the docs need it

    return make()
