"""Blocks: configuration with types, saved by name. Their secrets are encrypted, and masked wherever they are shown."""

import hashlib
import inspect
import json
import re
import warnings
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar
from uuid import UUID
from weakref import WeakSet

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, PrivateAttr, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue, JsonSchemaWarningKind
from pydantic_core import CoreSchema

from flightlog.awaiting import as_asked
from flightlog.errors import BlockError, BlockNotFound
from flightlog.masking import MASKER
from flightlog.names import did_you_mean
from flightlog.plugins import engine_port
from flightlog.plugins.block_documents import Name, change, kinds, put_together, secret_fields, taken_apart
from flightlog.plugins.block_store import BlockStore, Overtaken, Stored
from flightlog.plugins.engine_port import EnginePort

if TYPE_CHECKING:
    from flightlog.plugins.host import Host

_NAME = re.compile(r"[a-z0-9-]{1,255}")
_SECTION = re.compile(r"(Args|Arguments|Attributes|Examples?|Raises|Returns|Yields|Notes?):\s*$")


class Block(BaseModel):
    """Configuration with types: subclass it, and save instances by name.

    Fields with secrets are `pydantic.SecretStr`, `SecretBytes`, `Secret[...]` or `SecretDict`. `save`, `load` and
    `delete` may be called from async code too, and be awaited there, as in Prefect 2.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, hide_input_in_errors=True)

    _block_type_name: ClassVar[str | None] = None
    """What the type is called; the class's name by default."""
    _block_type_slug: ClassVar[str] = "block"
    """How it is written in ``slug/name``; made of the type's name by default."""
    _description: ClassVar[str | None] = None
    """What it is for; the docstring by default."""
    _code_example: ClassVar[str | None] = None
    """How it is used; the example in the docstring by default."""
    _logo_url: ClassVar[str | None] = None
    _documentation_url: ClassVar[str | None] = None
    _block_schema_capabilities: ClassVar[Sequence[str] | None] = None
    """What it can do, such as ``notify``, besides what its base classes can."""
    _block_schema_version: ClassVar[str | None] = None

    _block_document_id: UUID | None = PrivateAttr(None)
    _block_document_name: str | None = PrivateAttr(None)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        own = vars(cls)
        if own.get("_block_type_name") is None:
            cls._block_type_name = cls.__name__
        cls._block_type_slug = own.get("_block_type_slug") or _slug(cls.get_block_type_name())
        if not _NAME.fullmatch(cls._block_type_slug):
            raise BlockError(_bad_name(cls._block_type_slug, "The slug of a block's type"))
        register_block_types([cls])

    def model_post_init(self, context: Any, /) -> None:
        """Call `block_initialization` once the fields are there."""
        super().model_post_init(context)
        self.block_initialization()

    def block_initialization(self) -> None:
        """Do what is to be done when a block is made; for subclasses."""

    # --- what is kept -----------------------------------------------------------------------------

    def save(
        self,
        name: str | None = None,
        overwrite: bool = False,
        *,
        actor: str = "engine",
        engine: EnginePort | None = None,
    ) -> UUID:
        """Save the block under a name.

        A block in it that is saved itself is referred to; another one is saved with this one. A secret that is
        ``********``, as it is shown, keeps the one that is saved.

        Args:
            name: lower-case letters, digits and hyphens; the one that it was saved or loaded under by default.
            overwrite: whether there may be one of that name already.
            actor: who does so.
            engine: the engine; this process's by default.

        Returns:
            The id of the block, which stays the same when it is overwritten.

        Raises:
            BlockError: there is one of that name already, or the name or a value does not fit.
            BlockKeyError: the key that secrets are encrypted with is missing.
        """
        name = name or self._block_document_name
        if name is None:
            raise BlockError(f"This {type(self).__name__} has no name yet: save(name).")
        if not _NAME.fullmatch(name):
            raise BlockError(_bad_name(name, "The name of a block"))
        store = BlockStore(engine or engine_port.current())
        return as_asked(_save(self, name, store, overwrite=overwrite, actor=actor))

    def __await__(self) -> Generator[Any, Any, Self]:
        yield from ()
        return self

    @classmethod
    def load(cls, name: str, validate: bool = True, *, engine: EnginePort | None = None) -> Self:
        """Return a saved block. From here on its secrets are masked in whatever this process records.

        Args:
            name: its name; as ``slug/name`` it may be of another type, when called on a base class such as `Block`.
            validate: whether it has to fit its type as this is now; if not, fields that are missing are None.
            engine: the engine; this process's by default.

        Raises:
            BlockNotFound: there is none of that name, or its type is not known in this process.
            BlockError: it does not fit its type.
            BlockKeyError: the key of its secrets is missing.
        """
        place, make = _place(cls, name), _made if validate else _made_anyway
        return _checked(cls, place, _loaded(BlockStore(engine or engine_port.current()), place, cls, make))

    @classmethod
    def change(
        cls, name: str, fields: Mapping[str, Any], *, actor: str = "engine", engine: EnginePort | None = None
    ) -> Self:
        """Save a block with some fields changed; the others, and secrets that are ``********``, stay as they are.

        Args:
            name: its name; as ``slug/name`` when called on a base class such as `Block`.
            fields: the new values by name; a field of a field has a dot in its name: ``login.password``.
            actor: who does so.
            engine: the engine; this process's by default.

        Returns:
            The block as it is saved now.

        Raises:
            BlockNotFound: there is none of that name, or its type is not known in this process.
            BlockError: a value does not fit.
            BlockKeyError: the key of its secrets is missing.
        """
        place = _place(cls, name)
        store = BlockStore(engine or engine_port.current())
        while True:
            stored, kind = store.load(place), _kind(place, cls)
            for field, value in fields.items():
                _check_field(kind, field)
                change(stored.document, field, value)
            block = _checked(cls, place, _assembled(store, place, stored, kind, _made_anew))
            try:
                _save(block, place.partition("/")[2], store, actor=actor, overwrite=True, based_on=stored.version)
            except Overtaken:
                continue
            return block

    @classmethod
    def delete(cls, name: str, *, actor: str = "engine", engine: EnginePort | None = None) -> None:
        """Delete a saved block. Blocks that refer to it can be loaded no more.

        Args:
            name: its name; as ``slug/name`` when called on a base class such as `Block`.
            actor: who does so.
            engine: the engine; this process's by default.

        Raises:
            BlockNotFound: there is none of that name.
        """
        BlockStore(engine or engine_port.current()).delete(_place(cls, name), actor=actor)
        return as_asked(None)

    # --- what it is -------------------------------------------------------------------------------

    @classmethod
    def get_block_type_name(cls) -> str:
        """Return what the type is called."""
        return cls._block_type_name or cls.__name__

    @classmethod
    def get_block_type_slug(cls) -> str:
        """Return how the type is written in ``slug/name``."""
        return cls._block_type_slug

    @classmethod
    def get_description(cls) -> str:
        """Return what the type is for: `_description`, or the docstring up to its first section."""
        if own := vars(cls).get("_description"):
            return inspect.cleandoc(own)
        return _paragraphs(cls, in_example=False)

    @classmethod
    def get_code_example(cls) -> str:
        """Return how the type is used: `_code_example`, or the docstring's example, or how it is loaded."""
        if own := vars(cls).get("_code_example"):
            return inspect.cleandoc(own)
        example = _paragraphs(cls, in_example=True)
        name = f"{cls.__module__} import {cls.__name__}"
        return example or f'from {name}\n\nblock = {cls.__name__}.load("BLOCK-NAME")'

    @classmethod
    def get_block_capabilities(cls) -> list[str]:
        """Return what blocks of the type can do, by the type and its base classes."""
        own = (vars(base).get("_block_schema_capabilities") or () for base in cls.__mro__)
        return sorted({capability for capabilities in own for capability in capabilities})

    @classmethod
    def secret_fields(cls) -> list[str]:
        """Return the names of the fields that are secrets: ``credentials.password``, and ``tokens.*`` for a dict."""
        return secret_fields(cls.model_fields, (cls,))

    @classmethod
    def get_block_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of the fields, with the slug, the secret fields and the types of blocks in them."""
        schema = cls.model_json_schema(schema_generator=_Schema)
        if "$ref" in schema:  # the type is in itself, at whatever depth
            schema = {**schema["$defs"][schema["$ref"].rpartition("/")[2]], "$defs": schema["$defs"]}
        return schema

    @classmethod
    def get_schema_checksum(cls) -> str:
        """Return ``sha256:`` and the SHA-256 of the schema, without the fields that are secrets and other blocks."""
        schema = cls.get_block_schema()
        del schema["secret_fields"]
        definitions = schema.pop("$defs", {})
        if others := {name: one for name, one in definitions.items() if "block_type_slug" not in one}:
            schema["$defs"] = others
        return f"sha256:{hashlib.sha256(json.dumps(schema, sort_keys=True).encode()).hexdigest()}"

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        schema["block_type_slug"] = cls._block_type_slug
        schema["secret_fields"] = cls.secret_fields()
        schema["block_schema_references"] = {
            name: [{"block_type_slug": one._block_type_slug} for one in found]
            for name, field in cls.model_fields.items()
            if (found := [k for k in kinds(field.annotation) if isinstance(k, type) and issubclass(k, Block)])
        }
        return schema


class _Schema(GenerateJsonSchema):
    """Says nothing of what JSON Schema has no words for: such types may be in a block all the same."""

    ignored_warning_kinds: set[JsonSchemaWarningKind] = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 - pydantic has it so

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> JsonSchemaValue:
        """Return the schema that fits anything."""
        return {}


def _place(cls: type[Block], name: str) -> str:
    """Return ``slug/name`` of a name that may be that already."""
    slug, slash, rest = name.partition("/")
    if not slash and (cls is Block or inspect.isabstract(cls)):
        raise BlockError(f"{name!r} does not say of which type: {cls.__name__}.load('slug/name').")
    return f"{slug}/{rest}" if slash else f"{cls._block_type_slug}/{name}"


def _save(
    block: Block, name: str, store: BlockStore, *, overwrite: bool, actor: str, based_on: int | None = None
) -> UUID:
    """Save a block. See `Block.save` and `BlockStore.save`."""
    document = taken_apart(block, _name_of)
    facts: dict[str, Any] = {"checksum": block.get_schema_checksum()}
    if capabilities := block.get_block_capabilities():
        facts["capabilities"] = capabilities
    place = f"{block._block_type_slug}/{name}"
    saved = store.save(place, document, facts, overwrite=overwrite, actor=actor, based_on=based_on)
    block._block_document_name, block._block_document_id = name, UUID(bytes=saved)
    return UUID(bytes=saved)


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def _bad_name(name: str, what: str) -> str:
    return f"{what} has 1 to 255 lower-case letters, digits and hyphens; {name!r} does not fit."


def _name_of(model: BaseModel) -> Name | None:
    """Return what a model is known by that is a block."""
    return Name(model._block_type_slug, model._block_document_name) if isinstance(model, Block) else None


def _paragraphs(cls: type, *, in_example: bool) -> str:
    """Return the part of a class's docstring before its first section, or its example."""
    lines: list[str] = []
    section = ""
    for line in inspect.cleandoc(cls.__doc__ or "").splitlines():
        if found := _SECTION.match(line):
            section = found[1]
        elif section.startswith("Example") if in_example else not section:
            lines.append(line)
    return inspect.cleandoc("\n".join(["", *lines])).strip()


# --- loading ------------------------------------------------------------------------------------------


Make = Callable[[type[Block], dict[str, Any], str], Block]
B = TypeVar("B", bound=Block)


def _loaded(store: BlockStore, place: str, expected: type[Block], make: Make, above: tuple[str, ...] = ()) -> Block:
    """Return a block, and the ones in it.

    Args:
        store: has them.
        place: as ``slug/name``.
        expected: the class that was asked, which may be newer than the one that is known by its slug.
        make: makes a block of its type, its fields and its place.
        above: the blocks that it is in.
    """
    if place in above:
        raise BlockError(f"Blocks refer to each other in a circle: {' → '.join([*above, place])}.")
    try:
        stored = store.load(place)
    except BlockNotFound as error:
        raise (BlockNotFound(f"The block {above[-1]} refers to {place}, which is gone.") if above else error) from None
    return _assembled(store, place, stored, _kind(place, expected), make, above)


def _checked(cls: type[B], place: str, found: Block) -> B:
    if not isinstance(found, cls):
        raise BlockError(f"The block {place} is a {type(found).__name__}, not a {cls.__name__}.")
    return found


def _kind(place: str, expected: type[Block]) -> type[Block]:
    """Return the type of a block, by its place."""
    slug = place.partition("/")[0]
    return expected if slug == expected._block_type_slug else block_type(slug)


def _assembled(
    store: BlockStore, place: str, stored: Stored, kind: type[Block], make: Make, above: tuple[str, ...] = ()
) -> Block:
    """Return the block that a document is. See `_loaded`."""
    fields = put_together(
        stored.document,
        lambda target: _loaded(store, target, Block, _made, (*above, place)),
        lambda inner, data: _inner(inner, data, place),
    )
    block = make(kind, _known(kind, fields, place), place)
    block._block_document_name, block._block_document_id = place.partition("/")[2], UUID(bytes=stored.document_id)
    return block


def _inner(slug: str, fields: dict[str, Any], place: str) -> Any:
    """Return a block that was saved inside of another one; its fields, if its type is not known here."""
    kind = find_block_type(slug)
    return fields if kind is None else _made(kind, _known(kind, fields, place), place)


def _made(kind: type[Block], fields: dict[str, Any], place: str) -> Block:
    """Return a block of its fields, as they were saved."""
    try:
        return kind.model_validate(fields, strict=False)
    except ValidationError as error:
        raise BlockError(
            f"The block {place} does not fit its type {kind.__name__}: {_problems(error)}. It was saved by another "
            "version of the type: load it with validate=False, give what is missing, and save it again."
        ) from None


def _made_anew(kind: type[Block], fields: dict[str, Any], place: str) -> Block:
    """Return a block of its fields, as somebody has changed them."""
    try:
        return kind.model_validate(fields, strict=False)
    except ValidationError as error:
        raise BlockError(f"The block {place} cannot be changed so: {_problems(error)}.") from None


def _check_field(kind: type[Block], name: str) -> None:
    first = name.partition(".")[0]
    if first not in kind.model_fields:
        raise BlockError(f"A {kind.__name__} has no field {first!r}.{did_you_mean(first, kind.model_fields)}")


def _problems(error: ValidationError) -> str:
    """Return what does not fit, without what was given."""
    found = error.errors(include_input=False, include_url=False, include_context=False)
    lines = (f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in found)
    return MASKER.mask("; ".join(lines))


def _known(kind: type[Block], fields: dict[str, Any], place: str) -> dict[str, Any]:
    """Return the fields that a type has; a warning names the others."""
    if kind.model_config.get("extra") != "forbid":
        return fields
    aliases = {field.alias for field in kind.model_fields.values()}
    if gone := [name for name in fields if name not in kind.model_fields and name not in aliases]:
        names = ", ".join(gone)
        warnings.warn(f"The block {place} has fields that its type has no more: {names}.", stacklevel=5)
    return {name: value for name, value in fields.items() if name not in gone}


def _made_anyway(kind: type[Block], fields: dict[str, Any], place: str) -> Block:
    """Return a block of its fields, unchecked; those that are missing are None."""
    try:
        return _made(kind, fields, place)
    except BlockError:
        required = [name for name, field in kind.model_fields.items() if field.is_required()]
        missing = [name for name in required if name not in fields]
        warnings.warn(
            f"The block {place} does not fit its type any more. Set {', '.join(missing) or 'what is wrong'} and save "
            "it again before you use it.",
            stacklevel=5,
        )
        return kind.model_construct(**fields, **dict.fromkeys(missing))


# --- types --------------------------------------------------------------------------------------------

BlockTypes = Iterable[type[Block]] | Callable[[], Iterable[type[Block]]]
_types: dict[str, type[Block]] = {}
_sources: list[Callable[[], Iterable[type[Block]]]] = []
_asked: "WeakSet[Host]" = WeakSet()
"""The hosts whose plug-ins were asked."""


def register_block_types(types: BlockTypes) -> None:
    """Make types of blocks known in this process by their slugs. Every subclass of `Block` is so when it is defined.

    Args:
        types: the types; or what returns them, which is called when a type is looked for that is not known.
    """
    if callable(types):
        _sources.append(types)
        return
    for kind in types:
        if kind is not Block and not inspect.isabstract(kind):
            _types[kind._block_type_slug] = kind


def _ask_all() -> None:
    """Make the types known that are had only when they are asked for: our own, and those of plug-ins."""
    from flightlog.plugins.host import current_host

    while _sources:
        register_block_types(_sources.pop(0)())
    host = current_host()
    if host in _asked:
        return
    _asked.add(host)
    for plugin, offered in host.all("register_blocks"):
        kinds = [kind for kind in offered if _is_block_type(kind)] if isinstance(offered, Sequence) else []
        register_block_types(kinds)
        if not isinstance(offered, Sequence) or len(kinds) < len(offered):
            host.complain(plugin, "register_blocks", "what it returns is no list of subclasses of Block")
    for _, offered in host.all("register_notifiers"):
        # A channel's configuration may be saved as a block; whether it is a notifier is for others to say.
        if isinstance(offered, Mapping):
            register_block_types(kind for kind in offered.values() if _is_block_type(kind))


def _is_block_type(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Block)


def find_block_type(slug: str) -> type[Block] | None:
    """Return the type that is known by a slug; None if there is none in this process, nor in a plug-in."""
    if slug not in _types:
        _ask_all()
    return _types.get(slug)


def block_type(slug: str) -> type[Block]:
    """Return the type that is known by a slug.

    Raises:
        BlockNotFound: there is none in this process, nor in a plug-in.
    """
    found = find_block_type(slug)
    if found is None:
        hint = did_you_mean(slug, _types, else_say="")
        raise BlockNotFound(
            f"The type of block {slug!r} is not known here.{hint} Import the module that defines it, or install the "
            "collection that has it."
        )
    return found


def block_types() -> dict[str, type[Block]]:
    """Return all types that are known in this process or to its plug-ins, by slug, sorted."""
    _ask_all()
    return dict(sorted(_types.items()))


__all__ = ["Block", "block_type", "block_types", "find_block_type", "register_block_types"]
