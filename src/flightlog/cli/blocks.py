"""``flightlog blocks``: configuration that is saved by name, its secrets encrypted."""

import json
from typing import Any

import click

from flightlog.cli.main import OK
from flightlog.cli.printing import clean, color_option, json_option, not_found, note, print_json, say, table
from flightlog.cli.reading import actor, reading, writing
from flightlog.clock import isoformat

_module = click.option(
    "--module", "-m", metavar="MODULE", help="A file or module that defines types of its own, such as blocks.py."
)


@click.group()
def blocks() -> None:
    """Keep configuration by name: fields with types, secrets encrypted. A block is named TYPE/NAME."""


@blocks.command("ls")
@click.option("--type", "slug", metavar="TYPE", help="Only blocks of that type.")
@click.option("--capability", metavar="NAME", help="Only blocks that can do that, such as `notify`.")
@json_option
@color_option
def list_blocks(slug: str | None, capability: str | None, as_json: bool) -> None:
    """List the blocks.

    \b
    Examples:
      flightlog blocks ls
      flightlog blocks ls --capability notify --json
    """
    states = {
        place: state
        for place, state in _saved().items()
        if slug in (None, state["block_type"]) and (capability is None or capability in state.get("capabilities", ()))
    }
    if as_json:
        print_json([_document(place, state) for place, state in states.items()])
        return
    if not states:
        note("No blocks. To make one: flightlog blocks create TYPE/NAME. The types: flightlog blocks types")
        return
    rows = [
        (place, isoformat(state["saved_at"])[:19], " ".join(state.get("capabilities", ())))
        for place, state in states.items()
    ]
    table(["BLOCK", "WHEN", "CAN"], rows)


@blocks.command("show", short_help="Show a block.")
@click.argument("block", metavar="TYPE/NAME")
@click.option("--secrets", is_flag=True, help="Also its secrets; the log keeps who looked at them, and when.")
@json_option
@color_option
def show_block(block: str, secrets: bool, as_json: bool) -> int:
    """Show the fields of a block, secrets masked.

    \b
    Examples:
      flightlog blocks show slack-webhook/ops
      flightlog blocks show secret/api-key --secrets
    """
    states = _saved()
    if block not in states:
        return not_found("block", block, list(states))
    document = _document(block, states[block])
    if secrets:
        document["fields"] = _revealed(block)
    if as_json:
        print_json(document)
        return OK
    say(block, bold=True)
    if not document["is_known"]:
        note("Its type is not known here: its collection is not installed, or its module is not imported.")
    table(["FIELD", "VALUE"], [(name, _text(value)) for name, value in document["fields"].items()])
    return OK


def _revealed(block: str) -> Any:
    from flightlog.plugins.block_documents import revealed
    from flightlog.plugins.block_store import BlockStore

    with writing() as engine:
        return revealed(BlockStore(engine).read_secrets(block, actor=actor()).document)


@blocks.command("create", short_help="Save a block.")
@click.argument("block", metavar="TYPE/NAME")
@click.option("--field", "-f", "fields", multiple=True, metavar="NAME[=VALUE]", help="A field; see above.")
@click.option("--overwrite", is_flag=True, help="Also if there is one of that name.")
@_module
@json_option
@color_option
def create_block(block: str, fields: tuple[str, ...], overwrite: bool, module: str | None, as_json: bool) -> None:
    """Save a block.

    A VALUE is JSON or plain text; @FILE reads it from a file, @- from standard input, env:NAME from the environment.
    Secrets are read in these ways only, since others can see a command line: with NAME alone, you are asked. A field
    that is a block itself is given as TYPE/NAME; a field of a field as OUTER.INNER.

    \b
    Examples:
      flightlog blocks create string/greeting --field value=hello
      flightlog blocks create secret/api-key --field value
      echo hunter22 | flightlog blocks create secret/password --field value=@-
    """
    from flightlog.cli.block_fields import given_fields, made
    from flightlog.errors import BlockKeyError, BlockNotFound

    slug, slash, name = block.partition("/")
    if not slash or not name:
        raise click.BadParameter(f"{block!r} is not TYPE/NAME, such as secret/api-key.", param_hint="TYPE/NAME")
    kind = _type(slug, module)
    values = given_fields(kind, fields)
    with writing() as engine:
        try:
            made(kind, values, engine).save(name, overwrite, actor=actor(), engine=engine)
        except (BlockKeyError, BlockNotFound):
            raise
        except ValueError as error:
            raise click.UsageError(str(error).replace("overwrite=True", "--overwrite")) from None
    if as_json:
        print_json(_document(block, _saved()[block]))
    note(f"{block} is saved.")


@blocks.command("set", short_help="Change fields of a block.")
@click.argument("block", metavar="TYPE/NAME")
@click.option("--field", "-f", "fields", multiple=True, required=True, metavar="NAME[=VALUE]", help="As in `create`.")
@_module
@color_option
def set_fields(block: str, fields: tuple[str, ...], module: str | None) -> int:
    """Change some fields of a block; the others, and its secrets, stay as they are. See `create` for VALUE.

    \b
    Examples:
      flightlog blocks set remote-file-system/results --field settings.secret
    """
    from flightlog.cli.block_fields import given_fields, with_blocks
    from flightlog.errors import BlockKeyError, BlockNotFound
    from flightlog.plugins.blocks import Block

    states = _saved()
    if block not in states:
        return not_found("block", block, list(states))
    kind = _type(block.partition("/")[0], module)
    values = given_fields(kind, fields)
    with writing() as engine:
        try:
            Block.change(block, with_blocks(kind, values, engine), actor=actor(), engine=engine)
        except (BlockKeyError, BlockNotFound):
            raise
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    note(f"{block} is changed.")
    return OK


@blocks.command("delete", short_help="Delete a block.")
@click.argument("block", metavar="TYPE/NAME")
@color_option
def delete_block(block: str) -> int:
    """Delete a block. The log keeps that there was one, and its secrets only encrypted.

    \b
    Examples:
      flightlog blocks delete secret/api-key
    """
    from flightlog.plugins.block_store import BlockStore

    states = _saved()
    if block not in states:
        return not_found("block", block, list(states))
    with writing() as engine:
        BlockStore(engine).delete(block, actor=actor())
    note(f"{block} is gone.")
    for place, state in states.items():
        if place != block and block in (state.get("references") or {}).values():
            note(f"{place} refers to it, and cannot be loaded any more.")
    return OK


@blocks.command("types", short_help="List the types of blocks.")
@click.argument("slug", metavar="[TYPE]", required=False)
@_module
@json_option
@color_option
def list_types(slug: str | None, module: str | None, as_json: bool) -> None:
    """List the types of blocks that are known, or the fields of one.

    \b
    Examples:
      flightlog blocks types
      flightlog blocks types secret
    """
    if slug is not None:
        _show_type(_type(slug, module), as_json)
        return
    kinds = _types(module)
    if as_json:
        print_json([_type_document(kind) for kind in kinds.values()])
        return
    rows = [
        (slug, kind.get_block_type_name(), " ".join(kind.get_block_capabilities()), _first_line(kind))
        for slug, kind in kinds.items()
    ]
    table(["TYPE", "NAME", "CAN", "DESCRIPTION"], rows)


@blocks.command("rotate-key")
@click.option("--lost", is_flag=True, help="The key is lost: begin a new one, and tell which secrets are gone.")
@color_option
def rotate_key(lost: bool) -> None:
    """Encrypt all secrets with a new key, and delete the old one.

    With keys in FLIGHTLOG_BLOCKS_KEY, put the new one first, then a comma, then the old one.

    \b
    Examples:
      flightlog blocks rotate-key
    """
    from flightlog.plugins.block_store import BlockStore

    with writing() as engine:
        changed = BlockStore(engine).change_key(actor=actor(), is_lost=lost)
        are_given = bool(engine.settings.blocks_key)
    note(f"{changed.reencrypted} blocks are encrypted with the new key.")
    for place in changed.lost:
        note(f"{place} has lost its secrets: save it anew.")
    if are_given:
        note("Take the old one out of FLIGHTLOG_BLOCKS_KEY wherever it is set.")


def _saved() -> dict[str, dict[str, Any]]:
    from flightlog.plugins.block_store import saved_blocks

    with reading() as log:
        return saved_blocks(log)


def _types(module: str | None = None) -> dict[str, Any]:
    """Return all types of blocks that are known here, by slug."""
    from flightlog.plugins import system_blocks  # noqa: F401 - its types are known from then on
    from flightlog.plugins.blocks import block_types

    if module is not None:
        from flightlog.engine.loading import load_module

        load_module(module)
    return block_types()


def _type(slug: str, module: str | None) -> Any:
    from flightlog.plugins.blocks import block_type

    _types(module)
    return block_type(slug)


def _document(place: str, state: dict[str, Any]) -> dict[str, Any]:
    from flightlog.ids import id_text

    return {
        "block": place,
        "block_type": state["block_type"],
        "name": state["name"],
        "id": id_text(state["document_id"]),
        "saved_at": isoformat(state["saved_at"]),
        "checksum": state["checksum"],
        "capabilities": state.get("capabilities") or [],
        "masked": state.get("masked") or [],
        "is_known": state["block_type"] in _types(),
        "fields": json.loads(state["data"]),
    }


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _first_line(kind: Any) -> str:
    text: str = kind.get_description().partition("\n")[0]
    return text


def _type_document(kind: Any) -> dict[str, Any]:
    return {
        "slug": kind.get_block_type_slug(),
        "name": kind.get_block_type_name(),
        "description": kind.get_description(),
        "code_example": kind.get_code_example(),
        "capabilities": kind.get_block_capabilities(),
        "secret_fields": kind.secret_fields(),
        "checksum": kind.get_schema_checksum(),
        "schema": kind.get_block_schema(),
    }


def _show_type(kind: Any, as_json: bool) -> None:
    if as_json:
        print_json(_type_document(kind))
        return
    say(f"{kind.get_block_type_slug()}  {kind.get_block_type_name()}", bold=True)
    note(kind.get_description())
    secrets = {name.partition(".")[0] for name in kind.secret_fields()}
    rows = [
        (
            name,
            "required" if field.is_required() else "",
            "secret" if name in secrets else "",
            field.description or "",
        )
        for name, field in kind.model_fields.items()
    ]
    table(["FIELD", "REQUIRED", "SECRET", "DESCRIPTION"], rows)
    say()
    say(clean(kind.get_code_example()))
