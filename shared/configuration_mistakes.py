"""pydantic's findings as sentences that say what would be right and repeat no value, as some are secret."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from pydantic import BaseModel

from shared.errors import Mistake

Location = tuple[int | str, ...]

_SENTENCES: Mapping[str, str] = {
    "missing": "this key is required",
    "literal_error": "write {expected}",
    "string_pattern_mismatch": (
        "write a Kubernetes name: lower case letters, digits, '-' and '.', "
        "with a letter or digit at both ends"
    ),
    "string_too_long": "write at most {max_length} characters",
    "string_too_short": "this must not be empty",
    "string_type": "write a text; in quotes if it looks like a number, a date or yes and no",
    "too_short": "name at least {min_length}",
    "tuple_type": "write a list, as [a, b]",
    "dict_type": "write a mapping, as {{key: value}}",
    "model_type": "write a mapping, as {{key: value}}",
    "invalid_key": "keys are texts; put this one in quotes",
    "greater_than": "write a number above {gt}",
    "greater_than_equal": "write a number of at least {ge}",
    "less_than_equal": "write a number of at most {le}",
    "finite_number": "write a finite number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
}
_NUMBERS = {"int": "write a whole number", "float": "write a number", "decimal": "write a number, as 0.8"}


def mistakes_from(errors: Sequence[Mapping[str, Any]], *, model: type[BaseModel]) -> tuple[Mistake, ...]:
    """What pydantic's ValidationError.errors() say of a document for `model`, each with its path."""
    locations = [error["loc"] for error in errors]
    return tuple(
        Mistake(path=_path(error, model=model), message=_sentence(error, model=model))
        for error in errors
        if not _is_echo(error, locations)
    )


def _path(error: Mapping[str, Any], *, model: type[BaseModel]) -> str:
    """Where, as `pools[0].workload.name`."""
    location: Location = error["loc"]
    if error["type"] != "extra_forbidden":
        location = _in_the_file(location, model=model)
    parts = (f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return "".join(parts).removeprefix(".")


def _in_the_file(location: Location, *, model: type[BaseModel]) -> Location:
    """pydantic names a key that was left out as the model does, not as the file would."""
    *above, last = location
    fields = _model_at(tuple(above), model=model).model_fields
    return (*above, fields[last].alias or last) if last in fields else location


def _is_echo(error: Mapping[str, Any], locations: Iterable[Location]) -> bool:
    """A list counts as too short when none of its items is right: the items have been named already."""
    here: Location = error["loc"]
    return error["type"] == "too_short" and any(
        len(other) > len(here) and other[: len(here)] == here for other in locations
    )


def _sentence(error: Mapping[str, Any], *, model: type[BaseModel]) -> str:
    kind, context = error["type"], error.get("ctx") or {}
    if kind == "extra_forbidden":
        return _unknown_key(error["loc"], model=model)
    if kind == "value_error":
        return str(context["error"])
    if kind in _SENTENCES:
        return _SENTENCES[kind].format_map(context)
    return _NUMBERS.get(kind.partition("_")[0], "this cannot be used here; see the configuration reference")


def _unknown_key(location: Location, *, model: type[BaseModel]) -> str:
    key = str(location[-1])
    known = sorted(_keys(_model_at(location[:-1], model=model)))
    close = get_close_matches(key, known, n=1)
    if close:
        return f"this key is not known; did you mean {close[0]}?"
    return f"this key is not known; there are {', '.join(known)}"


def _keys(model: type[BaseModel]) -> dict[str, Any]:
    """The types of a model's fields, by the names they have in the file."""
    return {info.alias or name: info.annotation for name, info in model.model_fields.items()}


def _model_at(location: Location, *, model: type[BaseModel]) -> type[BaseModel]:
    for part in location:
        if isinstance(part, str):
            model = model_in(_keys(model)[part]) or model
    return model


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside `tuple[Model, ...]`, `Model | None` and the like."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for argument in get_args(annotation) if (found := model_in(argument))), None)
