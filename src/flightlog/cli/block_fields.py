"""The fields of a block as they are given on a command line; secrets never stand there themselves."""

import json
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

import click
from pydantic import BaseModel, SecretStr, ValidationError

from flightlog.masking import MASKER
from flightlog.names import did_you_mean
from flightlog.plugins.block_documents import SecretDict, holds_secrets
from flightlog.plugins.blocks import Block
from flightlog.plugins.engine_port import EnginePort

_HINT = "--field"


def given_fields(kind: type[Block], fields: tuple[str, ...]) -> dict[str, Any]:
    """Return the fields of a block by name, as they were typed: with dots for a field of a field.

    Args:
        kind: the type of block.
        fields: as they were typed: ``NAME=VALUE``, ``NAME=@FILE``, ``NAME=@-``, ``NAME=env:VARIABLE`` or ``NAME``.

    Raises:
        click.UsageError: one of them does not fit, or is a secret on the command line.
    """
    values: dict[str, Any] = {}
    for field in fields:
        name, equals, text = field.partition("=")
        annotation = _annotation(kind, name)
        value = _read(name, text, annotation) if equals else _asked(name, annotation)
        values[name] = value
    return values


def made(kind: type[Block], values: Mapping[str, Any], engine: EnginePort) -> Block:
    """Return a new block; a person is asked for secrets that it needs.

    Args:
        kind: its type.
        values: its fields.
        engine: gives the blocks among them.

    Raises:
        click.UsageError: they do not fit.
    """
    given: dict[str, Any] = {}
    for name, value in with_blocks(kind, values, engine).items():
        _put(given, name, value)
    for name in _missing_secrets(kind, given):
        given[name] = _asked(name, kind.model_fields[name].annotation)
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        problems = error.errors(include_input=False, include_url=False, include_context=False)
        lines = [f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in problems]
        text = MASKER.mask("; ".join(lines))
        raise click.UsageError(f"{text}. The fields: flightlog blocks types {kind.get_block_type_slug()}") from None


def with_blocks(kind: type[Block], values: Mapping[str, Any], engine: EnginePort) -> dict[str, Any]:
    """Return some fields with the blocks that they name.

    Raises:
        BlockNotFound: there is no such block.
    """
    return {name: _loaded(_annotation(kind, name), value, engine) for name, value in values.items()}


def _annotation(kind: Any, name: str) -> Any:
    """Return the type of a field; of one inside of others where the name has dots."""
    annotation: Any = kind
    for part in name.split("."):
        members = list(_members(annotation))
        if SecretDict in members:
            return SecretStr
        fields = {n: f for one in members if _is_model(one) for n, f in one.model_fields.items()}
        if part not in fields:
            slug = kind.get_block_type_slug()
            hint = did_you_mean(part, fields) if fields else " It has no fields of its own: give all of it as JSON."
            raise click.UsageError(f"{slug} has no field {name!r}.{hint} All: flightlog blocks types {slug}")
        annotation = fields[part].annotation
    return annotation


def _members(annotation: Any) -> Iterator[Any]:
    """Yield the types of a union one by one; another type as it is."""
    if get_origin(annotation) in (Union, UnionType):
        for argument in get_args(annotation):
            yield from _members(argument)
    else:
        yield annotation


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def _read(name: str, text: str, annotation: Any) -> Any:
    """Return the value that a text on the command line is, or tells where to find."""
    if text.startswith("@"):
        return _parsed(name, _content(name, text[1:]), annotation)
    if text.startswith("env:"):
        if (found := os.environ.get(text[4:])) is None:
            raise click.BadParameter(f"{name}: there is no variable {text[4:]!r} in the environment.", param_hint=_HINT)
        return _parsed(name, found, annotation)
    value = _parsed(name, text, annotation, is_typed=True)
    is_reference = isinstance(value, str) and "/" in value and _is_block(annotation)
    if (holds_secrets(annotation) and not is_reference) or MASKER.mask(text) != text:
        raise click.UsageError(
            f"{name} is a secret, or has one in it: others can see it in the list of processes and in the shell's "
            f"history. Say {name} alone to be asked, {name}=@- (standard input), {name}=@FILE or {name}=env:VARIABLE."
        )
    return value


def _content(name: str, path: str) -> str:
    try:
        text = sys.stdin.read() if path == "-" else Path(path).expanduser().read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"{name}: {path} cannot be read: {error}.", param_hint=_HINT) from None
    return text.removesuffix("\n").removesuffix("\r")


def _asked(name: str, annotation: Any) -> Any:
    if not sys.stdin.isatty():
        raise click.UsageError(f"{name} is needed, and nobody is there to be asked. Say {name}=@- or {name}=env:NAME.")
    hidden = holds_secrets(annotation)
    return _parsed(name, click.prompt(name, hide_input=hidden, err=True), annotation)


def _parsed(name: str, text: str, annotation: Any, *, is_typed: bool = False) -> Any:
    """Return a text as a field takes it: JSON where text alone would not do, or where it was typed as such."""
    if holds_secrets(annotation) and not is_typed:
        MASKER.learn(text)
    if all(map(_takes_text, _members(annotation))) and not (is_typed and text.startswith('"')):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        if text[:1] in ("[", "{"):
            raise click.BadParameter(f"{name} is no JSON: {error}.", param_hint=_HINT) from None
        return text


def _takes_text(annotation: Any) -> bool:
    if annotation in (None, NoneType):
        return True
    if annotation in (Any, object) or not isinstance(annotation, type) or get_origin(annotation) is not None:
        return False
    return not issubclass(annotation, (BaseModel, SecretDict, Mapping, list, tuple, set, frozenset))


def _is_block(annotation: Any) -> bool:
    return any(isinstance(member, type) and issubclass(member, Block) for member in _members(annotation))


def _put(values: dict[str, Any], name: str, value: Any) -> None:
    *outer, last = name.split(".")
    for part in outer:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise click.UsageError(f"{part} is given as a whole and in part.")
    values[last] = value


def _missing_secrets(kind: type[Block], values: Mapping[str, Any]) -> list[str]:
    """Return the fields that are needed and are secrets, as far as a person can be asked for them."""
    if not sys.stdin.isatty():
        return []
    secrets = kind.secret_fields()
    return [n for n, field in kind.model_fields.items() if field.is_required() and n in secrets and n not in values]


def _loaded(annotation: Any, value: Any, engine: EnginePort) -> Any:
    """Return the block that a field names; another value as it is."""
    if isinstance(value, str) and "/" in value and _is_block(annotation):
        return Block.load(value, engine=engine)
    return value
