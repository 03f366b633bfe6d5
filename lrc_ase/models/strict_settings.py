"""Base of all settings: immutable, validated, and short to print."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Settings"]


class Settings(BaseModel):
    """Base of every settings class: immutable; unknown keys and numbers that are not finite are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """Return a copy with some values replaced and validated; pydantic's own method does not validate.

        Raises
        ------
        ValueError
            A key is unknown (the message suggests the nearest one), or a value is not valid.
        """
        if not update:
            return super().model_copy(deep=deep)
        known = type(self).model_fields
        for key in update.keys() - known.keys():
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known are {list(known)}"
            raise ValueError(f"{type(self).__name__} has no setting '{key:.80}'; {hint}")
        unchanged = {name: getattr(self, name) for name in self.model_fields_set - update.keys()}
        try:
            return type(self).model_validate(unchanged | dict(update))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            key = ".".join([type(self).__name__, *map(str, first["loc"])])
            raise ValueError(f"{key}: {first['msg'].removeprefix('Value error, ')}") from None

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Yield the names and values that differ from their defaults, for a short `repr`."""
        for name, field in type(self).model_fields.items():
            value = getattr(self, name)
            if field.is_required() or value != field.get_default(call_default_factory=True):
                yield name, value
