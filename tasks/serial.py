"""Frozen dataclasses to plain JSON values and back, by their type hints.

Only what the seam needs: scalars, ``Optional``, tuples of one type (or of fixed types), ``dict`` with string keys and
nested dataclasses. Unknown keys are refused, so that a misspelt field in a hand-edited job file is not ignored.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Dict, Mapping, Type, TypeVar, Union, get_args, get_origin, get_type_hints

from .errors import BadInput

T = TypeVar("T")


def to_plain(value: Any) -> Any:
    """Return ``value`` as JSON-ready plain values; NaN and infinities become the strings that JSON lacks."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise TypeError(f"{type(value).__name__} has no plain form")


def from_plain(cls: Type[T], data: Any, where: str = "") -> T:
    """Build the dataclass ``cls`` from what `to_plain` gave.

    Raises:
        BadInput: a key is unknown, a required one is missing, or a value has the wrong type; names the key.
    """
    where = where or cls.__name__
    if not isinstance(data, Mapping):
        raise BadInput(f"{where} must be a JSON object, not {type(data).__name__}.")
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    unknown = sorted(set(data) - set(fields))
    if unknown:
        raise BadInput(f"{where} has no field '{unknown[0]}'.", f"Its fields are: {', '.join(fields)}.")
    values: Dict[str, Any] = {k: _convert(hints[k], v, f"{where}.{k}") for k, v in data.items()}
    for name, field in fields.items():
        without = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if field.init and without and name not in values:
            raise BadInput(f"{where} lacks the field '{name}'.", f"Its fields are: {', '.join(fields)}.")
    return cls(**values)


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if hint is Any:
        return value
    if origin is Union:
        if value is None:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, where)
    if dataclasses.is_dataclass(hint):
        return from_plain(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise BadInput(f"{where} must be a list, not {value!r}.")
        if len(args) == 2 and args[1] is Ellipsis:
            return tuple(_convert(args[0], v, f"{where}[{i}]") for i, v in enumerate(value))
        if len(args) != len(value):
            raise BadInput(f"{where} must have {len(args)} values, not {len(value)}.")
        return tuple(_convert(a, v, f"{where}[{i}]") for i, (a, v) in enumerate(zip(args, value)))
    if origin is dict:
        if not isinstance(value, Mapping):
            raise BadInput(f"{where} must be a JSON object, not {value!r}.")
        return {str(k): _convert(args[1], v, f"{where}.{k}") for k, v in value.items()}
    if hint is float and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise BadInput(f"{where} must be a number, not {value!r}.") from None
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is int and isinstance(value, bool):
        raise BadInput(f"{where} must be a whole number, not {value!r}.")
    if isinstance(value, hint):
        return value
    raise BadInput(f"{where} must be {hint.__name__}, not {value!r}.")
