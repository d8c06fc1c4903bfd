"""What all blocks of the spec have in common: frozen, strict about keys, and some short for one of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import BaseModel, ConfigDict, model_validator

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic_core import CoreSchema


class Model(BaseModel):
    """Frozen, and strict about keys: what is not known is refused.

    `shorthand` names the keys that a bare value stands for; empty: only a mapping will do.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    shorthand: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="before")
    @classmethod
    def _spell_out(cls, value: object) -> object:
        if cls.shorthand and isinstance(value, (str, int, float)) and not isinstance(value, bool):
            return dict.fromkeys(cls.shorthand, value)
        return value

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """A mapping, or what the first key of the shorthand takes."""
        block = handler.resolve_ref_schema(handler(schema))
        properties = cast("dict[str, dict[str, Any]]", block.get("properties", {}))
        if not cls.shorthand or not properties:
            return block
        short = {key: value for key, value in properties[cls.shorthand[0]].items() if key not in ("default", "title")}
        return {"title": cls.__name__, "description": block.pop("description", ""), "anyOf": [short, block]}
