"""Blocks: what a type says of itself, what is kept of one, and that no secret of it is anywhere to be seen."""

import asyncio
import copy
import json
import pickle
import subprocess
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from enum import Enum
from pathlib import Path
from typing import Any
from uuid import UUID

import pydantic
import pytest
from pydantic import BaseModel, Field, RootModel, SecretBytes, SecretStr, field_serializer
from tests.postgres import Server

from flightlog import flow, get_run_logger, task
from flightlog.blocks import JSON, Block, DateTime, Secret, SecretDict, String, register_block_types
from flightlog.blocks.core import Block as CoreBlock
from flightlog.blocks.system import Secret as SystemSecret
from flightlog.engine.runtime import Engine, close_engine, current_engine
from flightlog.errors import BlockError, BlockNotFound
from flightlog.events.log import Log
from flightlog.events.model import NewEvent
from flightlog.events.stores.memory import MemoryStore
from flightlog.events.types import BLOCK_DELETED, BLOCK_REENCRYPTED, BLOCK_SAVED, BLOCK_SECRETS_READ
from flightlog.events.vocabulary import payload
from flightlog.filesystems import LocalFileSystem, RemoteFileSystem
from flightlog.plugins import blocks as types_here
from flightlog.plugins.block_store import BlockStore, saved_blocks
from flightlog.projections.blocks import Blocks
from flightlog.testing import VirtualClock, memory_engine


class Login(Block):
    """A user and a password.

    Used by other blocks.

    Args:
        user: who.

    Example:
        Login(user="ann", password="...").save("ann")

        Login.load("ann")
    """

    _block_schema_capabilities = ("log-in",)

    user: str = "ann"
    password: SecretStr


class Mail(Login):
    _block_type_name = "E-mail Server"
    _description = """
        Sends mail.
    """
    _code_example = "Mail.load('x')"
    _block_schema_capabilities = ("notify",)


class Colour(Enum):
    """What an enumeration is."""

    RED = "red"


class Inner(BaseModel):
    """A model that is no block."""

    tokens: list[SecretStr] = []
    since: date = date(2026, 1, 1)
    named: int = Field(default=1, alias="na-med")


class Names(RootModel[list[SecretStr]]):
    """A model of one value."""


@dataclass
class Plain:
    """A dataclass."""

    token: SecretStr
    number: int = 1


class Everything(Block):
    """A block with fields of all kinds."""

    login: Login
    logins: dict[str, Login] = Field(default={})
    inner: Inner = Inner()
    names: Names = Names([])
    plain: Plain | None = None
    either: Login | str | None = None
    settings: SecretDict = SecretDict({})
    number: pydantic.Secret[int] = pydantic.Secret[int](1)
    raw: SecretBytes = SecretBytes(b"")
    anything: Any = None
    url: str = ""
    colour: Colour = Colour.RED
    when: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    numbers: set[int] = Field(default=set())
    aliased: int = Field(default=3, alias="ali-ased")
    left_out: int = Field(default=4, exclude=True)
    doubled: int = 1

    @field_serializer("doubled")
    def _halved(self, value: int) -> int:
        return value  # a serializer of its own is used, whatever it does


@pytest.fixture(autouse=True)
def engine() -> Iterator[Engine]:
    """Give each test an engine over a log in memory."""
    with memory_engine(VirtualClock()) as engine:
        yield engine


def data(engine: Engine, type_: str = BLOCK_SAVED) -> list[dict[str, Any]]:
    """Return the payloads of the events of a type."""
    return [event.data for event in engine.log.read_all(types=[type_])]


# --- types --------------------------------------------------------------------------------------------


def test_O63_a_type_says_what_it_is() -> None:
    """Name, slug, description and example come from attributes of its own, else from class and docstring."""
    assert (Login.get_block_type_name(), Login.get_block_type_slug()) == ("Login", "login")
    assert Login.get_description() == "A user and a password.\n\nUsed by other blocks."
    assert Login.get_code_example() == 'Login(user="ann", password="...").save("ann")\n\nLogin.load("ann")'
    assert (Mail.get_block_type_name(), Mail.get_block_type_slug()) == ("E-mail Server", "e-mail-server")
    assert (Mail.get_description(), Mail.get_code_example()) == ("Sends mail.", "Mail.load('x')")
    assert "Everything.load(" in Everything.get_code_example()
    assert CoreBlock is Block
    assert SystemSecret is Secret


def test_O63_a_block_can_prepare_itself() -> None:
    """`block_initialization` is called once its fields are there, also when it is loaded."""

    class Prepared(Block):
        name: str
        _greeting: str = ""

        def block_initialization(self) -> None:
            self._greeting = f"hello {self.name}"

    Prepared(name="ann").save("x")
    assert Prepared.load("x")._greeting == "hello ann"


def test_O64_secret_fields_are_found_at_any_depth() -> None:
    """Dotted through models, lists, dicts and unions, once each; `.*` for a dict of secrets; also in a recursion."""

    class Tree(Block):
        secret: SecretStr | None = None
        children: "list[Tree]" = Field(default=[])

    assert Everything.secret_fields() == [
        "login.password", "logins.password", "inner.tokens", "names", "either.password", "settings.*", "number", "raw",
    ]  # fmt: skip
    assert Tree.secret_fields() == ["secret"]
    assert String.secret_fields() == []


def test_O64_the_schema_says_what_a_block_is_more_than_a_model() -> None:
    """Slug, secret fields and the types of the blocks in it; for those too."""
    schema = Everything.get_block_schema()
    assert schema["block_type_slug"] == "everything"
    assert schema["secret_fields"] == Everything.secret_fields()
    assert schema["block_schema_references"]["login"] == [{"block_type_slug": "login"}]
    assert schema["$defs"]["Login"]["secret_fields"] == ["password"]


def test_O64_the_checksum_is_that_of_the_fields() -> None:
    """The same for the same fields; other blocks in it may change; what has no JSON Schema is no obstacle."""

    def of(**fields: Any) -> str:
        made: type[Block] = pydantic.create_model("Made", __base__=Block, **fields)
        return made.get_schema_checksum()

    assert of(a=(int, 1)).startswith("sha256:")
    assert of(a=(int, 1)) == of(a=(int, 1)) != of(a=(int, 2))
    with_one = Everything.get_schema_checksum()
    Login.model_fields["user"].description = "who it is"
    Login.model_rebuild(force=True)
    Everything.model_rebuild(force=True)
    assert Everything.get_schema_checksum() == with_one

    class Odd(Block):
        call: pydantic.SkipValidation[Any] = print

    assert Odd.get_schema_checksum().startswith("sha256:")


def test_O69_capabilities_are_the_union_over_base_classes() -> None:
    """A type can do what its base classes can, and the log knows it of each block."""
    assert Mail.get_block_capabilities() == ["log-in", "notify"]
    Mail(password=SecretStr("hunter22")).save("x")
    assert next(iter(saved_blocks(current_engine().log).values()))["capabilities"] == ["log-in", "notify"]


def test_a_type_with_a_slug_that_does_not_fit_is_refused() -> None:
    """When it is defined."""
    with pytest.raises(BlockError, match="slug"):
        type("Odd", (Block,), {"_block_type_slug": "Odd/Slug", "__module__": __name__})


def test_types_may_be_had_only_when_they_are_asked_for() -> None:
    """`register_block_types` takes what returns types, and calls it for a slug that is not known; once."""
    asked = []

    def more() -> list[type[Block]]:
        asked.append(1)
        return [type("Late", (Block,), {"__module__": __name__})]

    register_block_types(more)
    assert types_here.find_block_type("login") is Login
    assert asked == []
    late = types_here.find_block_type("late")
    assert late is not None
    assert late.__name__ == "Late"
    assert types_here.find_block_type("never") is None
    assert asked == [1]
    assert {"json", "string", "secret", "date-time", "local-file-system", "remote-file-system"} <= set(
        types_here.block_types()
    )


# --- save, load, delete -------------------------------------------------------------------------------


def everything() -> Everything:
    """Return a block with something in each field."""
    return Everything(
        login=Login(password=SecretStr("one-secret")),
        logins={"a/b~c": Login(user="bob", password=SecretStr("two-secret"))},
        inner=Inner.model_validate({"tokens": ["three-secret", "four-secret"], "na-med": 7}),
        names=Names([SecretStr("five-secret")]),
        plain=Plain(SecretStr("six-secret"), 2),
        either=Login(password=SecretStr("seven-secret")),
        settings=SecretDict({"key": "eight-secret", "deep": {"er": ["nine-secret"]}}),
        number=pydantic.Secret[int](1000000010),
        raw=SecretBytes(b"eleven-secret"),
        anything=[SecretStr("twelve-secret"), {"$ref": "#/mine"}, pydantic.Secret[Any](["fourteen-secret"])],
        url="postgres://ann:thirteen-secret@host/one-secret",
        when=datetime(2026, 2, 3, tzinfo=UTC),
        numbers={3, 1},
        aliased=5,  # type: ignore[call-arg]
        doubled=9,
    )


SECRETS = (*(f"{n}-secret" for n in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")),
           "1000000010", "eleven-secret", "twelve-secret", "thirteen-secret", "fourteen-secret")  # fmt: skip


def test_O65_a_block_comes_back_as_it_was_saved(engine: Engine) -> None:
    """Whatever its fields are; what is no secret can be read in the log, and what is one cannot."""
    block = everything()
    identifier = block.save("all")
    assert isinstance(identifier, UUID)
    loaded = Everything.load("all")
    assert loaded == block
    again = Block.load("everything/all")
    assert isinstance(again, Everything)
    assert again.logins["a/b~c"].password.get_secret_value() == "two-secret"
    assert again.settings.get_secret_value()["deep"] == {"er": ["nine-secret"]}
    assert again.raw.get_secret_value() == b"eleven-secret"
    assert again.url == "postgres://ann:thirteen-secret@host/one-secret"
    assert isinstance(again.anything[0], SecretStr)
    (saved,) = data(engine)
    shown = json.loads(saved["data"])
    assert shown["url"] == "postgres://ann:********@host/********"
    assert shown["inner"] == {"tokens": ["********"] * 2, "since": "2026-01-01", "na-med": 7}
    assert shown["settings"] == {"key": "********", "deep": "********"}
    assert (shown["aliased"], shown["numbers"], shown["login"]["user"]) == (5, [1, 3], "ann")
    assert "left_out" not in shown
    assert not [secret for secret in SECRETS if secret in repr(saved)]


def test_O65_names_are_taken_once(engine: Engine) -> None:
    """A second save needs `overwrite`, and keeps the id; without any name there is nothing to save it under."""
    greeting = String(value="hello")
    with pytest.raises(ValueError, match="no name"):
        greeting.save()
    first = greeting.save("greeting")
    with pytest.raises(ValueError, match="overwrite=True"):
        String(value="bye").save("greeting")
    assert String.load("greeting").value == "hello"
    assert String(value="bye").save("greeting", overwrite=True) == first
    loaded = String.load("greeting")
    assert loaded.value == "bye"
    assert loaded.save(overwrite=True) == first
    assert [event["document_id"] for event in data(engine)] == [first.bytes] * 3


def test_O65_what_is_not_there_cannot_be_loaded_or_deleted() -> None:
    """A ValueError that names what may have been meant; deleted, and saved anew, it is another one."""
    first = String(value="x").save("greeting")
    with pytest.raises(ValueError, match=r"no block string/greting\. Did you mean 'string/greeting'"):
        String.load("greting")
    with pytest.raises(ValueError, match="no block secret/greeting"):
        Secret.delete("greeting")
    with pytest.raises(BlockNotFound, match=r"'strin' is not known here\. Did you mean 'string'"):
        types_here.block_type("strin")
    with pytest.raises(ValueError, match="of which type"):
        Block.load("greeting")
    String.delete("greeting")
    with pytest.raises(BlockNotFound):
        String.load("greeting")
    assert String(value="y").save("greeting") != first
    Block.delete("string/greeting")
    with pytest.raises(BlockNotFound):
        Block.load("string/greeting")


def test_O65_load_gives_a_block_of_the_class_that_was_asked() -> None:
    """Also by slug and name; one of another class is refused."""
    Mail(password=SecretStr("hunter22")).save("x")
    assert isinstance(Login.load("e-mail-server/x"), Mail)
    with pytest.raises(BlockError, match="is a Mail, not a Secret"):
        Secret.load("e-mail-server/x")


def test_O65_a_type_that_has_changed_since() -> None:
    """A new field that is needed is told by name; unchecked it is None, with a warning; a field that is gone too."""

    def changing(**fields: Any) -> Any:
        return pydantic.create_model("Changing", __base__=Block, **fields)

    old = changing(a=(int, 1), b=(SecretStr, SecretStr("in-the-open")))
    old(a=5).save("x")
    new = changing(a=(int, 1), b=(int, 2), c=(str, ...))
    with pytest.raises(
        BlockError, match=r"does not fit its type Changing: .*c: Field required.*validate=False"
    ) as told:
        new.load("x")
    assert "in-the-open" not in "".join(traceback.format_exception(told.value))
    with pytest.warns(UserWarning, match="Set c and save it again"):
        loaded: Any = new.load("x", validate=False)
    assert (loaded.a, loaded.c) == (5, None)
    fewer = changing(a=(int, 1))
    with pytest.warns(UserWarning, match="has no more: b") as warned:
        assert fewer.load("x") == fewer(a=5) or True
    assert warned[0].filename == __file__


@pytest.mark.parametrize("name", ["Upper", "under_score", "blank ", "ü", "a/b", "x" * 256])
def test_O66_names_are_lower_case_letters_digits_and_hyphens(name: str) -> None:
    """Anything else is a ValueError."""
    with pytest.raises(ValueError, match="hyphens"):
        String(value="x").save(name)


def test_O67_the_mask_keeps_the_secret_that_is_saved(engine: Engine) -> None:
    """Ours and pydantic's, in a field, in a dict of secrets and in a URL; all else is as it is given now."""
    block = everything()
    block.save("all")
    shown = json.loads(data(engine)[0]["data"])
    # What somebody gets who edits what is shown, and saves it.
    shown["either"] = "text"
    shown["login"]["password"] = "**********"
    shown["settings"]["key"], shown["settings"]["more"] = "another-key", "more-secret"
    shown["inner"]["tokens"][1] = "other-token"
    shown["anything"], shown["number"] = None, 2000000020
    Everything.model_validate(shown).save("all", overwrite=True)
    loaded = Everything.load("all")
    assert loaded.login.password.get_secret_value() == "one-secret"
    expected = {"key": "another-key", "deep": {"er": ["nine-secret"]}, "more": "more-secret"}
    assert loaded.settings.get_secret_value() == expected
    assert [token.get_secret_value() for token in loaded.inner.tokens] == ["three-secret", "other-token"]
    assert loaded.url == block.url
    assert (loaded.either, loaded.number.get_secret_value()) == ("text", 2000000020)


def test_O67_a_mask_where_nothing_is_saved_is_refused() -> None:
    """In a new block, at a new place, in a list that has grown, in a URL that has changed."""
    with pytest.raises(BlockError, match="password is masked"):
        Login(password=SecretStr("********")).save("x")
    with pytest.raises(BlockError, match="value is masked"):
        String(value="http://ann:********@host").save("x")
    Everything(login=Login(password=SecretStr("one-secret")), inner=Inner(tokens=[SecretStr("three-secret")])).save("x")
    for wrong in (
        {"inner": {"tokens": ["********", "********"]}},
        {"inner": {"tokens": ["four-secret", "********"]}},
        {"settings": {"key": "********"}},
        {"logins": {"a": {"password": "********"}}},
        {"url": "http://ann:********@other"},
    ):
        block = Everything.model_validate({"login": {"password": "********"}, **wrong})
        with pytest.raises(BlockError, match="is masked"):
            block.save("x", overwrite=True)
    assert Everything.load("x").login.password.get_secret_value() == "one-secret"
    String(value="********").save("no-secret")
    assert String.load("no-secret").value == "********"


def test_O67_some_fields_are_changed(engine: Engine) -> None:
    """The others stay, secrets too, and those that are masked in what is given; also in other blocks and in dicts."""
    everything().save("all")
    login = Login(password=SecretStr("saved-secret"))
    login.save("ann")
    shown = json.loads(data(engine)[0]["data"])
    changed = Everything.change(
        "all",
        {
            "logins.a/b~c.user": "eve", "inner": {**shown["inner"], "na-med": 8}, "settings.more": "more-secret",
            "url": shown["url"], "either": login, "number": 2000000020, "raw": "********", "plain": None,
        },
    )  # fmt: skip
    loaded = Everything.load("all")
    assert loaded == changed
    assert (loaded.logins["a/b~c"].user, loaded.logins["a/b~c"].password.get_secret_value()) == ("eve", "two-secret")
    assert [token.get_secret_value() for token in loaded.inner.tokens] == ["three-secret", "four-secret"]
    assert loaded.inner.named == 8
    expected = {"key": "eight-secret", "deep": {"er": ["nine-secret"]}, "more": "more-secret"}
    assert loaded.settings.get_secret_value() == expected
    assert (loaded.url, loaded.raw.get_secret_value(), loaded.plain) == (everything().url, b"eleven-secret", None)
    assert loaded.number.get_secret_value() == 2000000020
    assert data(engine)[-1]["references"] == {"/either": "login/ann"}
    Everything.change("all", {"inner.tokens": ["new-secret"], "either": shown["either"] | {"password": "x-secret"}})
    loaded = Everything.load("all")
    assert [token.get_secret_value() for token in loaded.inner.tokens] == ["new-secret"]
    assert isinstance(loaded.either, Login)
    assert loaded.either.password.get_secret_value() == "x-secret"
    assert loaded.names.root[0].get_secret_value() == "five-secret"


def test_O67_what_does_not_fit_changes_nothing() -> None:
    """A field that there is not, one of a block of its own, a value of another kind, a mask where nothing was."""
    login = Login(password=SecretStr("one-secret"))
    login.save("ann")
    Everything(login=login).save("x")
    for fields, match in (
        ({"logn": 1}, "no field 'logn'. Did you mean 'login'"),
        ({"login.user": "x"}, "login is a block of its own: change login/ann"),
        ({"when": "yesterday"}, "cannot be changed so: when: "),
        ({"logins.a": {"user": "a", "password": "********"}}, "is masked"),
        ({"settings.key": "********"}, "is masked"),
    ):
        with pytest.raises(BlockError, match=match):
            Everything.change("x", fields)
    with pytest.raises(BlockNotFound):
        Everything.change("y", {"url": "x"})
    assert Everything.load("x") == Block.load("everything/x")
    assert Everything.load("x").url == ""


def test_I7_changes_that_come_in_between_are_not_lost(engine: Engine) -> None:
    """Who changes a field of a block looks again if somebody else has changed another one meanwhile."""

    class Racing(Block):
        a: int = 1
        b: int = 1
        c: int = 1

        def block_initialization(self) -> None:
            if self.a == 2 and not raced:
                raced.append(True)
                Racing.change("x", {"b": 2})

    raced: list[bool] = []
    Racing().save("x")
    Racing.change("x", {"a": 2})
    loaded = Racing.load("x")
    assert (loaded.a, loaded.b, loaded.c) == (2, 2, 1)


def test_O68_a_saved_block_in_another_one_is_referred_to(engine: Engine) -> None:
    """What it is changed to shows when the other one is loaded next; one that is not saved is a part of it."""
    login = Login(password=SecretStr("one-secret"))
    login.save("ann")
    Everything(login=login, logins={"b": Mail(password=SecretStr("two-secret"))}).save("all")
    saved = data(engine)[-1]
    assert json.loads(saved["data"])["login"] == {"$ref": {"block": "login/ann"}}
    assert (saved["references"], saved["inline"]) == ({"/login": "login/ann"}, {"/logins/b": "e-mail-server"})
    Login(user="eve", password=SecretStr("other-secret")).save("ann", overwrite=True)
    loaded = Everything.load("all")
    assert (loaded.login.user, loaded.login.password.get_secret_value()) == ("eve", "other-secret")
    assert isinstance(loaded.logins["b"], Mail)
    Login.delete("ann")
    with pytest.raises(BlockNotFound, match="everything/all refers to login/ann, which is gone"):
        Everything.load("all")


def test_O68_blocks_in_a_circle_are_told() -> None:
    """Instead of being loaded for ever."""

    class Ring(Block):
        next: "Ring | None" = None

    first = Ring()
    first.save("a")
    Ring(next=first).save("b")
    Ring(next=Ring.load("b")).save("a", overwrite=True)
    with pytest.raises(BlockError, match="ring/a → ring/b → ring/a"):
        Ring.load("a")


def test_O70_the_types_that_come_along() -> None:
    """A secret, any JSON, a string, a moment."""
    Secret(value=SecretStr("sk-4711-0815")).save("key")
    assert Secret.load("key").get() == "sk-4711-0815"
    value = {"a": [1, None, {"b": 1.5}], "$ref": "x"}
    JSON(value=value).save("config")
    assert JSON.load("config").value == value
    moment = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
    DateTime(value=moment).save("start")
    assert DateTime.load("start").value == moment


def test_O71_O72_file_systems_are_blocks(tmp_path: Path, engine: Engine) -> None:
    """A folder and an fsspec URL are saved by name, what is given to fsspec as secrets, and used as result storages."""
    LocalFileSystem(tmp_path / "results").save("results")
    folder = LocalFileSystem.load("results")
    folder.write_path("a/b", b"content")
    assert (tmp_path / "results/a/b").read_bytes() == folder.read_path("a/b") == b"content"
    assert LocalFileSystem().basepath == Path.cwd()
    for outside in ("/etc/passwd", "../x"):
        with pytest.raises(ValueError, match="outside"):
            folder.read_path(outside)
    RemoteFileSystem("memory://bucket/x/", {"secret": "s3-secret-key"}).save("remote")
    remote = RemoteFileSystem.load("remote")
    assert (remote.url, repr(remote)) == ("memory://bucket/x", "RemoteFileSystem('memory://bucket/x')")
    assert remote.settings.get_secret_value() == {"secret": "s3-secret-key"}
    assert json.loads(data(engine)[-1]["data"])["settings"] == {"secret": "********"}
    assert LocalFileSystem.get_block_capabilities() == ["read-path", "write-path"]

    @task(result_storage=folder, persist_result=True)
    def t() -> int:
        return 5

    @flow
    def f() -> int:
        return t()

    assert f() == 5
    assert len([path for path in (tmp_path / "results").rglob("*") if path.is_file()]) == 2


def test_blocks_are_saved_and_loaded_from_async_code() -> None:
    """The same calls, which are not awaited."""

    async def main() -> str:
        Secret(value=SecretStr("sk-4711-0815")).save("key")
        return Secret.load("key").get()

    assert asyncio.run(main()) == "sk-4711-0815"


def test_what_cannot_be_kept_is_told_by_its_place() -> None:
    """An object without JSON, bytes that are no text, a list that contains itself."""
    endless: list[Any] = [SecretStr("in-a-circle")]
    endless.append(endless)
    for value, match in (
        (object(), "value cannot be kept"),
        (SecretBytes(b"\xff\xfe"), "value cannot"),
        (endless, "levels"),
    ):
        with pytest.raises(BlockError, match=match):
            JSON(value=value).save("x")


def test_fields_that_a_type_does_not_have_are_refused() -> None:
    """A typing error is no field."""
    with pytest.raises(pydantic.ValidationError, match="Extra inputs"):
        Login(password="x", passwrod="y")  # type: ignore[call-arg, arg-type]


# --- the log ------------------------------------------------------------------------------------------


def test_what_is_written_validates_and_its_projection_is_a_fold(engine: Engine) -> None:
    """Every event fits the vocabulary, strictly; folding them anew gives what is kept (I6)."""
    everything().save("all")
    Secret(value=SecretStr("sk-4711-0815")).save("key")
    String(value="x").save("plain")
    store = BlockStore(engine)
    store.read_secrets("secret/key", actor="cli:ann")
    assert store.change_key(actor="cli:ann") == (2, [])
    String.delete("plain", actor="cli:ann")
    events = [event for event in engine.log.read_all() if event.type.startswith("block")]
    assert all(payload(event) is not None for event in events)
    assert len({event.type for event in events}) == 5
    assert engine.log.states("blocks") == engine.log.folded(Blocks())
    assert sorted(saved_blocks(engine.log)) == ["everything/all", "secret/key"]
    assert {event.actor for event in events if event.type != BLOCK_SAVED and event.version > 1} == {"cli:ann"}


def test_I10_who_is_shown_secrets_is_on_record(engine: Engine) -> None:
    """Who, when, of which block and which; before anything is shown."""
    Secret(value=SecretStr("sk-4711-0815")).save("key")
    engine.clock.sleep(60)
    store = BlockStore(engine)
    assert store.read_secrets("secret/key", actor="cli:ann").document.hidden["/value"].value == "sk-4711-0815"
    (event,) = engine.log.read_all(types=[BLOCK_SECRETS_READ])
    assert (event.actor, event.occurred_at) == ("cli:ann", engine.clock.now())
    assert event.data == {"block_type": "secret", "name": "key", "masked": ["/value"]}


def test_I9_a_type_that_is_gone_is_no_obstacle(engine: Engine) -> None:
    """Its blocks are listed with what is no secret; inside of another one it is what its fields say."""
    gone = type("Gone", (Login,), {"__module__": __name__})
    gone(password=SecretStr("one-secret")).save("x")
    Everything(login=gone(password=SecretStr("two-secret"))).save("all")
    del types_here._types["gone"]
    assert json.loads(saved_blocks(engine.log)["gone/x"]["data"]) == {"user": "ann", "password": "********"}
    with pytest.raises(BlockNotFound, match="'gone' is not known here"):
        Block.load("gone/x")
    loaded = Everything.load("all")
    assert type(loaded.login) is Login
    assert loaded.login.password.get_secret_value() == "two-secret"


def test_I9_events_of_later_versions_are_carried_along(engine: Engine) -> None:
    """An event of a type that is not known changes nothing; facts that are not known stay where they are."""
    String(value="x").save("greeting")
    stream = "block/string/greeting"
    later = {**data(engine)[0], "labels": ["new"], "data": '{"value": "later"}'}
    events = [
        NewEvent(engine.ids.new(), "block.renamed", {"to": "x"}, 1),
        NewEvent(engine.ids.new(), BLOCK_SAVED, later, 2, schema=2),
    ]
    engine.log.append(stream, events)
    assert String.load("greeting").value == "later"
    assert saved_blocks(engine.log)["string/greeting"]["labels"] == ["new"]
    assert payload(next(iter(engine.log.read_all(types=["block.renamed"])))) is None


def test_a_fold_ignores_a_block_that_is_gone() -> None:
    """Another key for a block that was deleted meanwhile is nothing, and deleting twice neither."""
    log = Log(MemoryStore())
    fold = Blocks()
    with log:
        told = {"block_type": "a", "name": "b"}
        other: dict[str, Any] = {**told, "secrets": b"x", "key_id": b"8" * 8}
        types = ((BLOCK_DELETED, told), (BLOCK_REENCRYPTED, other), (BLOCK_DELETED, told))
        events = [NewEvent(bytes([number]) * 16, type_, facts, 1) for number, (type_, facts) in enumerate(types)]
        log.append("block/a/b", events)
        assert log.folded(fold) == {}


# --- no secret anywhere -------------------------------------------------------------------------------


def test_I10_no_secret_is_shown_by_what_holds_it() -> None:
    """In no repr, string, dump, error or traceback, and not by pickling errors or copies."""
    block = everything()
    block.save("all")
    loaded = Everything.load("all")
    texts = [repr(loaded), str(loaded), loaded.model_dump_json(exclude={"url"}), repr(copy.deepcopy(loaded))]
    assert pickle.loads(pickle.dumps(loaded)) == loaded
    wrong: Any = {"a": SECRETS[0]}
    try:
        Login(password=wrong)
    except pydantic.ValidationError as error:
        texts.append("".join(traceback.format_exception(error)))
    for secret in SECRETS:
        # What stands in a field that is no secret is the user's own to show: it is masked where it is recorded.
        assert not [text for text in texts if secret in text.replace(repr(loaded.url), "")], secret


def leave_traces() -> None:
    """Save and load a block, and have its secrets logged, printed, raised and returned in a flow."""
    everything().save("all")
    everything().save("all", overwrite=True)
    login = Login(password=SecretStr("one-secret"))
    login.save("ann")

    @task
    def uses(given: Everything) -> str:
        loaded = Everything.load("all")
        get_run_logger().info("%s %s", loaded.url, loaded.settings.get_secret_value())
        print(loaded.names.root[0].get_secret_value(), loaded.number.get_secret_value())
        return loaded.login.password.get_secret_value()

    @flow(log_prints=True)
    def shows(login: Login, text: str) -> None:
        state = uses(everything(), return_state=True)
        uses.map([everything()]).wait()
        raise ValueError(f"{login.password.get_secret_value()} {text} {state}")

    shows(Login.load("ann"), "eleven-secret", return_state=True)
    shows({"password": ["one-secret"]}, "x", return_state=True)
    BlockStore(current_engine()).change_key(actor="engine")
    BlockStore(current_engine()).read_secrets("everything/all", actor="cli:ann")
    Everything.delete("all")
    current_engine().log.flush()


def test_I10_no_secret_is_in_a_file(own_home: Path, engine: Engine, capfd: pytest.CaptureFixture[str]) -> None:
    """Neither in the database nor in its write-ahead log, and none is on the console, whatever is done with it."""
    from flightlog.engine import runtime

    before, runtime._engine = runtime._engine, None
    try:
        leave_traces()
        during = b"".join(path.read_bytes() for path in own_home.iterdir())
        assert (own_home / "flightlog.db-wal").stat().st_size > 0
        close_engine()
        after = b"".join(path.read_bytes() for path in own_home.iterdir())
    finally:
        runtime._engine = before
    shown = "".join(capfd.readouterr()).encode()
    assert b"********" in during
    assert b"********" in shown
    for secret in SECRETS:
        for place in (during, after, shown):
            assert secret.encode() not in place, secret


LOADS = """
from flightlog import flow, get_run_logger, task
from tests.plugins.test_blocks import Everything

@task
def echo(text):
    return text

@flow
def loads():
    block = Everything.load("all")
    get_run_logger().info("%s", block.settings.get_secret_value())
    echo(block.login.password.get_secret_value())
    raise ValueError(block.url, block.number.get_secret_value(), block.raw.get_secret_value())

loads(return_state=True)
"""


def test_I10_whoever_loads_a_block_masks_its_secrets(own_home: Path, engine: Engine) -> None:
    """Also in a process that has not saved it: in log lines, errors, results and shown parameters."""
    from flightlog.engine import runtime

    before, runtime._engine = runtime._engine, None
    try:
        everything().save("all")
        close_engine()
    finally:
        runtime._engine = before
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", LOADS], capture_output=True, text=True, timeout=60, check=True, cwd=root
    )
    contents = b"".join(path.read_bytes() for path in own_home.iterdir()) + done.stderr.encode() + done.stdout.encode()
    assert b"ValueError: ('postgres://ann:********@host/********'" in contents
    for secret in SECRETS:
        assert secret.encode() not in contents, secret


def test_I10_no_secret_is_in_postgresql(
    postgres: Server, postgres_url: str, own_home: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In no row of any table; the key is in FLIGHTLOG_HOME."""
    from flightlog.engine import runtime

    monkeypatch.setenv("FLIGHTLOG_LOG_URL", postgres_url)
    before, runtime._engine = runtime._engine, None
    try:
        leave_traces()
        assert Login.load("ann").password.get_secret_value() == "one-secret"
        close_engine()
    finally:
        runtime._engine = before
    assert len(list((own_home / "keys").glob("*.block-key"))) == 1
    database = postgres_url.rpartition("/")[2]
    tables = postgres.sql(
        "SELECT table_schema, table_name FROM information_schema.tables "
        "WHERE table_schema NOT IN ('pg_catalog', 'information_schema')",
        database,
    )
    rows = [row for schema, table in tables for row in postgres.sql(f'SELECT * FROM "{schema}"."{table}"', database)]
    contents = b"".join(cell if isinstance(cell, bytes) else repr(cell).encode() for row in rows for cell in row)
    assert b"********" in contents
    for secret in SECRETS:
        assert secret.encode() not in contents, secret
