"""Checks and JSON readers that the data classes share, with uniform error messages.

Every check raises ValueError. Values come from users' JSON files as well as from code, so a value
of a wrong type is refused here and does not cause a TypeError later.
Standard library only.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar, get_args

from keras_inception.bounded import parsed_json, shown

Data = TypeVar("Data")
# By schema version, from its fields to those of the next version.
Migrations = Mapping[int, Callable[[dict[str, Any]], dict[str, Any]]]


# Sizes of arrays are 32-bit integers in the libraries that compute with them.
MOST = 2**31 - 1
_MOST_LETTERS = 100


def unexpected(owner: object, label: str, expected: str) -> ValueError:
    """Return the error for a field of a data class: expected and received value."""
    name = getattr(owner, "name", None)
    what = type(owner).__name__ if name is None else f"{type(owner).__name__} {shown(name)}"
    return ValueError(
        f"Expected `{label}` of {what} to be {expected}. "
        f"Received: {label}={shown(getattr(owner, label))}"
    )


def is_integer(value: object) -> bool:
    """Return whether `value` is an int other than True and False."""
    return isinstance(value, int) and not isinstance(value, bool)


def require_integers(owner: object, *labels: str, least: int = 1, most: int = MOST) -> None:
    """Require each field to be an integer from `least` to `most`."""
    for label in labels:
        value = getattr(owner, label)
        if is_integer(value) and value > most:
            raise unexpected(owner, label, f"at most {most:,}")
        if not is_integer(value) or value < least:
            kind = "a positive integer" if least == 1 else f"an integer of {least} or more"
            raise unexpected(owner, label, kind)


def require_numbers(owner: object, *labels: str, positive: bool = True) -> None:
    """Require each field to be a finite number, above 0 unless `positive` is False."""
    for label in labels:
        value = getattr(owner, label)
        if not is_finite(value) or (positive and value <= 0):
            raise unexpected(owner, label, f"a {'positive ' * positive}finite number")


def require_rates(owner: object, *labels: str) -> None:
    """Require each field to be a number from 0 up to, not including, 1."""
    for label in labels:
        value = getattr(owner, label)
        if not (is_finite(value) and 0 <= value < 1):
            raise unexpected(owner, label, "a number from 0 up to, not including, 1")


def require_flags(owner: object, *labels: str) -> None:
    """Require each field to be True or False."""
    for label in labels:
        if not isinstance(getattr(owner, label), bool):
            raise unexpected(owner, label, "True or False")


def require_choice(owner: object, label: str, choices: Any) -> None:
    """Require the field to be one of the strings of a `Literal`."""
    if getattr(owner, label) not in get_args(choices):
        raise unexpected(owner, label, f"one of {get_args(choices)}")


def require_odd(owner: object, label: str) -> None:
    """Require the field, an integer, to be odd: a window needs a centre."""
    if getattr(owner, label) % 2 == 0:
        raise unexpected(owner, label, "odd, so that the window has a centre")


def require_layer_name(owner: object, label: str = "name") -> None:
    """Require the field to be a valid prefix of Keras layer names, which forbid "/"."""
    name = getattr(owner, label)
    if not isinstance(name, str) or not name.isascii() or not name.replace("_", "").isalnum():
        raise unexpected(
            owner,
            label,
            "ASCII letters, digits and underscores, since Keras layers are named after it",
        )
    _require_short(owner, label)


def require_title(owner: object, label: str = "name") -> None:
    """Require the field to be a valid name of a model and a folder."""
    name = getattr(owner, label)
    if not isinstance(name, str) or not name.strip() or set(name) & set("/\\"):
        raise unexpected(
            owner, label, "text without slashes, since models and folders are named after it"
        )
    if not name.isprintable():
        raise unexpected(owner, label, "text without control characters")
    _require_short(owner, label)


def _require_short(owner: object, label: str) -> None:
    if len(getattr(owner, label)) > _MOST_LETTERS:
        raise unexpected(owner, label, f"at most {_MOST_LETTERS} characters")


def derived_name(name: str, ending: str) -> str:
    """Return a name with an ending, cut before it where it would be too long."""
    return name[: _MOST_LETTERS - len(ending)] + ending


def require_tuple(owner: object, label: str, *kinds: type) -> None:
    """Require the field to be a tuple of instances of `kinds`."""
    value = getattr(owner, label)
    if not isinstance(value, tuple) or not all(isinstance(item, kinds) for item in value):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise unexpected(owner, label, f"a tuple of {names}")


def require_instance(owner: object, label: str, kind: type) -> None:
    """Require the field to be an instance of `kind`."""
    if not isinstance(getattr(owner, label), kind):
        raise unexpected(owner, label, f"a {kind.__name__}")


def require_instance_or_none(owner: object, label: str, kind: type) -> None:
    """Require the field to be None or an instance of `kind`."""
    value = getattr(owner, label)
    if value is not None and not isinstance(value, kind):
        raise unexpected(owner, label, f"a {kind.__name__} or None")


def json_document(
    text: str, what: str, schema_version: int, migrations: Migrations | None = None
) -> dict[str, Any]:
    """Return the fields in a JSON text, migrated to `schema_version`.

    Args:
        text: an object with the key "schema_version".
        what: the name of the document in errors, such as "spec".
        schema_version: the version that this release writes.
        migrations: for each older version, a function from its fields to the next version's.

    Raises:
        ValueError: not JSON, not an object, or a version that this release cannot read.
    """
    data = parsed_json(text, what)
    if not isinstance(data, dict) or "schema_version" not in data:
        raise ValueError(
            f'Expected the JSON of a {what}, an object with "schema_version" among its keys. '
            f"Received: {text[:60]!r}"
        )
    version = _readable_version(data.pop("schema_version"), what, schema_version)
    for older in range(version, schema_version):
        data = (migrations or {})[older](data)
    return data


def repeated(names: Iterable[Any]) -> list[Any]:
    """Return the names that occur more than once, sorted."""
    return sorted(name for name, count in Counter(names).items() if count > 1)


def _readable_version(version: Any, what: str, newest: int) -> int:
    if is_integer(version) and 1 <= version <= newest:
        return version
    is_newer = is_integer(version) and version > newest
    remedy = "Install a newer keras-inception" if is_newer else "Write it again with `to_json`"
    raise ValueError(
        f"Expected a {what} with schema_version {'1' if newest == 1 else f'1 to {newest}'}. "
        f"Received: schema_version={shown(version)}. {remedy}."
    )


def from_fields(cls: type[Data], data: Any, **readers: Callable[[Any], Any]) -> Data:
    """Read a data class from a JSON object of its fields; fields with a default may be missing.

    Args:
        cls: the data class.
        data: the object.
        readers: by field, a function from the JSON value to the field's value; other fields
            take the JSON value.

    Raises:
        ValueError: missing or unknown keys, or invalid values.
    """
    require_keys(cls, data)
    return cls(**data | {key: read(data[key]) for key, read in readers.items() if key in data})


def object_of(cls: type) -> Callable[[Any], Any]:
    """Return a reader of an object of a data class, for `from_fields`."""
    return lambda data: from_fields(cls, data)


def optional(read: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return a reader that keeps None and passes other values to `read`, for `from_fields`."""
    return lambda value: None if value is None else read(value)


def tuple_of(read: Callable[[Any], Any] | None = None) -> Callable[[Any], Any]:
    """Return a reader of a list, item by item with `read` if it is given, for `from_fields`.

    Other values are returned unchanged, for the data class to refuse.
    """
    return lambda value: (
        tuple(map(read, value) if read else value) if isinstance(value, list) else value
    )


def require_keys(cls: type, data: Any) -> None:
    """Require an object of a data class's fields; those with defaults may be missing."""
    if not isinstance(data, dict):
        raise ValueError(
            f"Expected an object of the keys of {cls.__name__}. Received: {shown(data)}"
        )
    known = [item for item in fields(cls) if item.init]
    needed = {item.name for item in known if item.default is MISSING}
    missing = sorted(needed - set(data))
    unknown = sorted(set(data) - {item.name for item in known})
    if missing or unknown:
        raise ValueError(
            f"Expected the keys of {cls.__name__}. Received: missing keys {missing}, "
            f"unknown keys {shown(unknown)}"
        )


def is_finite(value: object) -> bool:
    """Return whether `value` is a number other than infinity and NaN that a float can hold."""
    if not (is_integer(value) or isinstance(value, float)):
        return False
    try:
        return math.isfinite(value)  # type: ignore[arg-type]
    except OverflowError:
        return False
