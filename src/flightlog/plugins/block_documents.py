"""Blocks as documents: what of one is kept in the open, what is encrypted, and which other blocks it refers to.

Places in a document are JSON pointers (RFC 6901), such as ``/credentials/password``.
"""

import dataclasses
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, RootModel, SecretBytes, SecretStr
from pydantic import Secret as SecretOf
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from flightlog.errors import BlockError
from flightlog.masking import MASK, MASKER

_MASKS = frozenset({MASK, "*" * 10})
"""Our mask, and pydantic's."""
_MASKED_IN_URL = f":{MASK}@"
_DEEPEST = 100
_SEQUENCES = (list, tuple, set, frozenset, deque)


class SecretDict(SecretOf[dict[str, Any]]):
    """A dict whose values are secrets; its keys are not."""


class Name(NamedTuple):
    """What a block is known by.

    Attributes:
        slug: its type's.
        saved: its own name; None for one that is not saved.
    """

    slug: str
    saved: str | None


class Hidden(NamedTuple):
    """What is masked at a place.

    Attributes:
        kind: ``str``, ``bytes``, ``secret`` and ``dict`` for the secret types; ``text`` for a string of no secret type
            that holds something known to be a secret.
        value: the value, as JSON has it.
    """

    kind: str
    value: Any

    @property
    def is_mask(self) -> bool:
        """Whether it is the mask that was written back, or holds it: then what was there before is meant."""
        if self.kind == "dict":
            return any(map(_is_mask, self.value.values()))
        return _MASKED_IN_URL in self.value if self.kind == "text" else _is_mask(self.value)

    def learn(self) -> None:
        """Have everybody in this process mask it."""
        if self.kind != "text" and not self.is_mask:
            for text in _texts(self.value):
                MASKER.learn(text)


@dataclasses.dataclass(slots=True)
class Document:
    """A block taken apart.

    Attributes:
        shown: its fields as JSON has them, masked.
        hidden: what is masked, by place.
        references: the saved blocks in it, as ``slug/name``, by place.
        inline: the types' slugs of the other blocks in it, by place.
    """

    shown: Any
    hidden: dict[str, Hidden] = dataclasses.field(default_factory=dict)
    references: dict[str, str] = dataclasses.field(default_factory=dict)
    inline: dict[str, str] = dataclasses.field(default_factory=dict)


def taken_apart(block: BaseModel, name_of: Callable[[BaseModel], Name | None]) -> Document:
    """Return a block as a document.

    Args:
        block: the block.
        name_of: tells what a model is known by that is a block; None for other models.

    Raises:
        BlockError: a value in it cannot be kept; the message says where.
    """
    taking = _Taking(name_of)
    document = taking.document
    document.shown = taking.fields(block, "")
    for hidden in document.hidden.values():
        hidden.learn()
    # Only now, when the block's own secrets are known: one of them may be a part of another field's text.
    document.shown = _masked(document, document.shown, "")
    return document


class _Taking:
    """Takes one block apart."""

    def __init__(self, name_of: Callable[[BaseModel], Name | None]) -> None:
        self.document = Document(None)
        self._name_of = name_of

    def fields(self, model: BaseModel, place: str) -> dict[str, Any]:
        """Return a model's fields; each as pydantic writes it, unless there is something special in it."""
        found: dict[str, Any] = {}
        for name, key in _keys(model):
            value = getattr(model, name)
            if self._is_special(value, place, 0):
                found[key] = self._take(value, f"{place}/{_escaped(key)}")
            else:
                found[key] = _dumped(model, name, f"{place}/{name}")
        return found

    def _take(self, value: Any, place: str) -> Any:
        _check_depth(place, place.count("/"))
        if isinstance(value, BaseModel):
            return self._take_model(value, place)
        if isinstance(value, (SecretStr, SecretBytes, SecretOf)):
            return self._hide(value, place)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            value = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            items = ((next(iter(_jsonable({key: None}, place))), item) for key, item in value.items())
            return {key: self._take(item, f"{place}/{_escaped(key)}") for key, item in items}
        if isinstance(value, _SEQUENCES):
            return [self._take(item, f"{place}/{number}") for number, item in enumerate(value)]
        return _jsonable(value, place)

    def _take_model(self, model: BaseModel, place: str) -> Any:
        name = self._name_of(model)
        if name is not None and name.saved is not None:
            target = self.document.references[place] = f"{name.slug}/{name.saved}"
            return {"$ref": {"block": target}}
        if name is not None:
            self.document.inline[place] = name.slug
        return self._take(model.root, place) if isinstance(model, RootModel) else self.fields(model, place)

    def _hide(self, secret: Any, place: str) -> Any:
        value = secret.get_secret_value()
        if isinstance(secret, SecretDict):
            self.document.hidden[place] = hidden = Hidden("dict", _jsonable(value, place))
            return dict.fromkeys(hidden.value, MASK)
        kind = "str" if isinstance(secret, SecretStr) else "bytes" if isinstance(secret, SecretBytes) else "secret"
        self.document.hidden[place] = Hidden(kind, _jsonable(value, place))
        return MASK

    def _is_special(self, value: Any, place: str, depth: int) -> bool:
        """Tell whether a value is or holds a secret or a block."""
        _check_depth(place, depth)
        if isinstance(value, (SecretStr, SecretBytes, SecretOf)):
            return True
        if isinstance(value, BaseModel) and self._name_of(value) is not None:
            return True
        return any(self._is_special(part, place, depth + 1) for part in _parts(value))


def _check_depth(place: str, depth: int) -> None:
    if depth > _DEEPEST:
        field = _dotted(place).partition(".")[0]
        raise BlockError(f"{field} is nested more than {_DEEPEST} levels deep, or contains itself.")


def _parts(value: Any) -> Iterable[Any]:
    """Return what a value consists of."""
    if isinstance(value, BaseModel):
        return [getattr(value, name) for name, _ in _keys(value)]
    if isinstance(value, Mapping):
        return value.values()
    if isinstance(value, _SEQUENCES):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    return ()


def _keys(model: BaseModel) -> Iterator[tuple[str, str]]:
    """Yield the names of a model's fields, each with the one that it is read back by."""
    config = type(model).model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    for name, field in type(model).model_fields.items():
        if not field.exclude:
            alias = field.validation_alias if isinstance(field.validation_alias, str) else field.alias
            yield name, name if by_name else alias or name
    for name in model.model_extra or {}:
        yield name, name


def _dumped(model: BaseModel, name: str, place: str) -> Any:
    """Return a field as pydantic writes it: with the serializers that its model has for it."""
    try:
        found = model.model_dump(mode="json", include={name}, by_alias=False, round_trip=True, warnings=False)
    except (PydanticSerializationError, UnicodeDecodeError) as error:
        raise _cannot_be_kept(place, error) from None
    return found[name]


def _jsonable(value: Any, place: str) -> Any:
    try:
        return to_jsonable_python(value)
    except (PydanticSerializationError, UnicodeDecodeError) as error:
        raise _cannot_be_kept(place, error) from None


def _cannot_be_kept(place: str, error: Exception) -> BlockError:
    return BlockError(MASKER.mask(f"{_dotted(place)} cannot be kept as JSON: {error}"))


def _masked(document: Document, value: Any, place: str) -> Any:
    """Return what is shown without anything that is known to be a secret; note what that was."""
    if place in document.hidden or place in document.references:
        return value
    if isinstance(value, dict):
        return {key: _masked(document, item, f"{place}/{_escaped(key)}") for key, item in value.items()}
    if isinstance(value, list):
        return [_masked(document, item, f"{place}/{number}") for number, item in enumerate(value)]
    if not isinstance(value, str):
        return value
    masked = MASKER.mask(value)
    if masked == value and _MASKED_IN_URL not in value:
        return value
    document.hidden[place] = Hidden("text", value)
    return masked


def needs_kept(document: Document, shown: Any, masked: Iterable[str]) -> bool:
    """Tell whether a document, as it is written back, means something that was masked before.

    Args:
        document: the document.
        shown: what was shown of it before.
        masked: the places where something was masked.
    """
    if any(hidden.is_mask for hidden in document.hidden.values()):
        return True
    texts = (place for place in masked if place not in document.hidden)
    return any(_is_same_place(p, document.shown, shown) and at(document.shown, p) == at(shown, p) for p in texts)


def with_kept(document: Document, shown: Any, hidden: Mapping[str, Hidden]) -> dict[str, Hidden]:
    """Return what is masked in a document; where the mask was written back, what was there before.

    Args:
        document: the document.
        shown: what was shown of it before; None for nothing.
        hidden: what was masked in it before.

    Raises:
        BlockError: there was nothing at that place.
    """
    found = dict(document.hidden)
    for place, now in found.items():
        if now.is_mask:
            before = hidden.get(place)
            if before is None or not _is_same_place(place, document.shown, shown):
                raise _nothing_to_keep(place)
            if now.kind == "text" and at(document.shown, place) != at(shown, place):
                raise _nothing_to_keep(place)
            found[place] = _kept(place, now, before)
    texts = {place: before for place, before in hidden.items() if before.kind == "text" and place not in found}
    for place, before in texts.items():
        if _is_same_place(place, document.shown, shown) and at(document.shown, place) == at(shown, place):
            found[place] = before
    return found


def change(document: Document, name: str, value: Any) -> None:
    """Put a value into a document; what is masked in it, as it was shown, stays what it is.

    Args:
        document: the document.
        name: the field; a field of a field with a dot.
        value: its value, as JSON or as the field's type takes it.

    Raises:
        BlockError: the field is one of another block, that is saved itself.
    """
    place = "".join(f"/{_escaped(part)}" for part in name.split("."))
    for above, target in document.references.items():
        if place.startswith(f"{above}/"):
            raise BlockError(f"{_dotted(above)} is a block of its own: change {target}.")
    before, document.shown = document.shown, _with_value(document.shown, _split(place), value)
    for found in (document.hidden, document.references, document.inline):
        for one in [one for one in found if _is_in(one, place) or _is_in(place, one)]:
            if not _stays(document, one, before):
                del found[one]


def _stays(document: Document, place: str, before: Any) -> bool:
    """Tell whether what is known of a place holds after a change: whether it is as it was shown."""
    if not _is_same_place(place, document.shown, before):
        return False
    now, then = at(document.shown, place), at(before, place)
    hidden = document.hidden.get(place)
    if hidden is not None and hidden.kind == "dict" and isinstance(now, dict):
        document.hidden[place] = _kept(place, Hidden("dict", now), hidden)
        return True
    if place in document.inline:
        return isinstance(now, dict)
    return bool(now == then or (hidden is not None and _is_mask(now)))


def _is_in(inner: str, place: str) -> bool:
    return inner == place or inner.startswith(f"{place}/")


def _with_value(document: Any, parts: list[str], value: Any) -> Any:
    """Return a document with a value at a place; what is missing on the way is made."""
    if not parts:
        return value
    first, *rest = parts
    found = dict(document) if isinstance(document, dict) else {}
    return {**found, first: _with_value(found.get(first), rest, value)}


def _kept(place: str, now: Hidden, before: Hidden) -> Hidden:
    if now.kind != "dict":
        return Hidden(now.kind, before.value)
    values = dict(now.value)
    for key in [key for key, value in values.items() if _is_mask(value)]:
        if before.kind != "dict" or key not in before.value:
            raise _nothing_to_keep(f"{place}/{_escaped(key)}")
        values[key] = before.value[key]
    return Hidden("dict", values)


def _is_mask(value: Any) -> bool:
    return isinstance(value, str) and value in _MASKS


def _nothing_to_keep(place: str) -> BlockError:
    return BlockError(
        f"{_dotted(place)} is masked ({MASK}), which keeps the secret that is saved; but there is none that is surely "
        "the same. Give the secret itself."
    )


def _is_same_place(place: str, one: Any, other: Any) -> bool:
    """Tell whether a place is in two documents, and surely means the same: no list on the way has grown or shrunk."""
    for part in _split(place):
        if isinstance(one, list) and isinstance(other, list):
            if len(one) != len(other):
                return False
            one, other = one[int(part)], other[int(part)]
        elif isinstance(one, dict) and isinstance(other, dict) and part in one and part in other:
            one, other = one[part], other[part]
        else:
            return False
    return True


def put_together(document: Document, refer: Callable[[str], Any], make: Callable[[str, Any], Any]) -> Any:
    """Return a block's fields, for its type to validate.

    Args:
        document: the document; what is shown in it becomes the fields.
        refer: returns the block ``slug/name``.
        make: returns the block of a type's slug and its fields.
    """
    fields = document.shown
    for place, hidden in document.hidden.items():
        hidden.learn()
        fields = _placed(fields, place, _secret(hidden))
    for place, target in document.references.items():
        fields = _placed(fields, place, refer(target))
    # The innermost first: the others hold them.
    for place, slug in sorted(document.inline.items(), key=lambda item: -item[0].count("/")):
        fields = _placed(fields, place, make(slug, at(fields, place)))
    return fields


def revealed(document: Document) -> Any:
    """Return a block's fields as JSON has them, with all secrets."""
    fields = document.shown
    for place, hidden in document.hidden.items():
        fields = _placed(fields, place, hidden.value)
    return fields


_SECRETS: dict[str, Callable[[Any], Any]] = {
    "str": SecretStr,
    "bytes": lambda value: SecretBytes(value.encode()),
    "secret": SecretOf[Any],
    "dict": SecretDict,
}


def _secret(hidden: Hidden) -> Any:
    """Return what was hidden as what it was: also where any type is allowed it stays a secret."""
    make = _SECRETS.get(hidden.kind)
    return hidden.value if make is None else make(hidden.value)


def at(document: Any, place: str) -> Any:
    """Return what is at a place in a document."""
    for part in _split(place):
        document = document[int(part) if isinstance(document, list) else part]
    return document


def _placed(document: Any, place: str, value: Any) -> Any:
    """Put a value at a place in a document; return the document."""
    if not place:
        return value
    above, _, last = place.rpartition("/")
    container = at(document, above)
    container[int(last) if isinstance(container, list) else _unescaped(last)] = value
    return document


def _split(place: str) -> list[str]:
    return [_unescaped(part) for part in place.split("/")[1:]]


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")


def _unescaped(part: str) -> str:
    return part.replace("~1", "/").replace("~0", "~")


def _dotted(place: str) -> str:
    """Return a place as people write it: ``credentials.password``."""
    return ".".join(_split(place)) or "The block"


def _texts(value: Any) -> Iterator[str]:
    """Yield the strings in a value of JSON, numbers as strings too."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
    elif value is not None and not isinstance(value, bool):
        yield json.dumps(value)


# --- types --------------------------------------------------------------------------------------------


def kinds(annotation: Any) -> Iterator[Any]:
    """Yield the types in an annotation: those of unions and containers, one by one."""
    annotation = getattr(annotation, "__value__", annotation)  # what a `type` statement names
    if isinstance(origin := get_origin(annotation), type) and issubclass(origin, SecretOf):
        yield origin
    elif arguments := get_args(annotation):
        for argument in arguments:
            yield from kinds(argument)
    else:
        yield annotation


def secret_fields(fields: Mapping[str, FieldInfo], above: tuple[type, ...] = ()) -> list[str]:
    """Return the names of the fields that are secrets, dotted where they are in other models.

    Args:
        fields: a model's fields.
        above: the models that it is in.
    """
    found = (place for name, field in fields.items() for place in _secrets_in(field.annotation, name, above))
    return list(dict.fromkeys(found))


def holds_secrets(annotation: Any) -> bool:
    """Tell whether values of a type are secrets or have some in them."""
    return next(_secrets_in(annotation, "", ()), None) is not None


def _secrets_in(annotation: Any, name: str, above: tuple[type, ...]) -> Iterator[str]:
    for kind in kinds(annotation):
        if not isinstance(kind, type):
            continue
        if issubclass(kind, SecretDict):
            yield f"{name}.*"
        elif issubclass(kind, (SecretStr, SecretBytes, SecretOf)):
            yield name
        elif issubclass(kind, RootModel):
            yield from _secrets_in(kind.model_fields["root"].annotation, name, (*above, kind))
        elif issubclass(kind, BaseModel) and kind not in above:
            yield from (f"{name}.{inner}" for inner in secret_fields(kind.model_fields, (*above, kind)))
