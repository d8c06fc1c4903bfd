"""What a request carries, read with words for who asked wrongly."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from shoal.errors import ShoalError


async def read_body(request: web.Request) -> dict[str, Any]:
    """The JSON object that was sent."""
    try:
        body = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ShoalError(f"the request's body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ShoalError(f"the request's body is a {type(body).__name__}, expected an object")
    return body  # pyright: ignore[reportUnknownVariableType] - JSON


def text_of(body: dict[str, Any], key: str) -> str:
    """A text of the body."""
    found = body.get(key)
    if not isinstance(found, str):
        raise ShoalError(f"{key}: found {found!r}, expected a text")
    return found


def number_of(request: web.Request, name: str, default: float | None) -> float | None:
    """A number of the query."""
    text = request.query.get(name)
    if text is None:
        return default
    try:
        return float(text)
    except ValueError as error:
        raise ShoalError(f"{name}: found {text!r}, expected a number") from error


def whole_of(request: web.Request, name: str, default: Any) -> Any:
    """A whole number of the query."""
    number = number_of(request, name, None)
    return default if number is None else int(number)
