"""What people write. Law: no I/O but reading the files that it is told to read.

`load` and what it returns are imported when asked for: the controller, which reads only the resolved model, need not
pay for the reader.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shoal.spec.loading import Loaded, load
    from shoal.spec.model import Fleet
    from shoal.spec.origins import Origin, Origins

__all__ = ["Fleet", "Loaded", "Origin", "Origins", "json_schema", "load"]

_PLACES = {"Loaded": "loading", "load": "loading", "Fleet": "model", "Origin": "origins", "Origins": "origins"}


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a spec file, draft 2020-12, with shorthands and descriptions."""
    from shoal.spec.schema import json_schema as make  # noqa: PLC0415 - only `shoal schema` and the docs need it

    return make()


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - with what it imports

    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
