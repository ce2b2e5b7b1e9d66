"""The keys of secrets in blocks: where they are, what happens without them, and that changing them loses nothing."""

import multiprocessing
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr

from flightlog.blocks import Block, Secret, String
from flightlog.engine.runtime import Engine, close_engine, current_engine, open_engine
from flightlog.errors import BlockError, BlockKeyError, SettingsError
from flightlog.events.moving import backup, copy
from flightlog.events.opening import open_log
from flightlog.events.types import BLOCK_KEY_CHANGED, BLOCK_KEY_STREAM, BLOCK_REENCRYPTED, BLOCK_SAVED
from flightlog.ids import RandomIds
from flightlog.plugins.block_keys import BlockKeys
from flightlog.plugins.block_store import BlockStore
from flightlog.settings import load

_SPAWN = multiprocessing.get_context("spawn")


class Pair(Block):
    """Two secrets that belong together."""

    one: SecretStr
    two: SecretStr


@pytest.fixture
def home(own_home: Path) -> Iterator[Path]:
    """The folder of the log and its keys, with a secret in it."""
    Secret(value=SecretStr("sk-4711-0815")).save("key")
    yield own_home
    close_engine()


def key_files(home: Path) -> list[Path]:
    """Return the files with keys of blocks."""
    return sorted(home.glob("*.block-key"))


def change_key() -> int:
    """Change the key of this process's log; tell for how many blocks."""
    return BlockStore(current_engine()).change_key(actor="cli:ann").reencrypted


def test_I10_the_key_is_in_a_file_for_its_owner_alone(home: Path) -> None:
    """Beside the log's own key, mode 0600; the log has its fingerprint, in the file's name, and nothing else of it."""
    (file,) = key_files(home)
    assert file.stat().st_mode & 0o777 == 0o600
    events = list(current_engine().log.read(BLOCK_KEY_STREAM))
    assert [event.data["key_id"].hex() for event in events] == [file.name.split(".")[-2]]
    close_engine()
    contents = b"".join(path.read_bytes() for path in home.glob("flightlog.db*") if path != file)
    assert file.read_bytes() not in contents


def test_blocks_without_secrets_need_no_key(own_home: Path) -> None:
    """None is made for them, nor is one changed."""
    String(value="x").save("greeting")
    assert key_files(own_home) == []
    assert change_key() == 0
    assert String.load("greeting").value == "x"


def test_a_lost_key_is_told(home: Path) -> None:
    """By the file that it was in, and what to do; blocks without secrets can be had, and the secrets saved anew."""
    (file,) = key_files(home)
    content = file.read_bytes()
    file.unlink()
    String(value="x").save("greeting")
    for touch in (lambda: Secret.load("key"), lambda: Secret(value=SecretStr("other")).save("other"), change_key):
        with pytest.raises(BlockKeyError, match=rf"{file}, cannot be read .*Put it back from a backup"):
            touch()
    assert String.load("greeting").value == "x"
    file.write_bytes(content + b"\n")
    assert Secret.load("key").get() == "sk-4711-0815"


def test_a_key_that_is_lost_for_good(home: Path) -> None:
    """A new one is begun, whoever lost secrets is named, and they can be saved anew; with the mask they cannot."""
    (file,) = key_files(home)
    file.unlink()
    String(value="x").save("greeting")
    changed = BlockStore(current_engine()).change_key(actor="cli:ann", is_lost=True)
    assert changed == (0, ["secret/key"])
    with pytest.raises(BlockKeyError):
        Secret.load("key")
    with pytest.raises(BlockKeyError):
        Secret(value=SecretStr("********")).save("key", overwrite=True)
    Secret(value=SecretStr("another-one")).save("key", overwrite=True)
    Secret(value=SecretStr("a-new-one")).save("new")
    assert [Secret.load(name).get() for name in ("key", "new")] == ["another-one", "a-new-one"]
    assert change_key() == 2


def test_another_key_is_told(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file, or in the setting; neither is ever shown."""
    (file,) = key_files(home)
    file.chmod(0o600)
    right, other = file.read_bytes(), Fernet.generate_key()
    file.write_bytes(other)
    with pytest.raises(BlockKeyError, match="is not the one that it was") as told:
        Secret.load("key")
    assert other.decode() not in str(told.value)
    file.unlink()
    close_engine()
    monkeypatch.setenv("FLIGHTLOG_BLOCKS_KEY", other.decode())
    with pytest.raises(BlockKeyError, match="FLIGHTLOG_BLOCKS_KEY is another one"):
        Secret.load("key")
    close_engine()
    monkeypatch.setenv("FLIGHTLOG_BLOCKS_KEY", right.decode())
    assert Secret.load("key").get() == "sk-4711-0815"
    assert key_files(home) == []


def test_a_damaged_token_is_told(home: Path) -> None:
    """One sentence that names the block."""
    store = BlockStore(current_engine())
    state = current_engine().kept("blocks", "block/secret/key").state
    with pytest.raises(BlockKeyError, match="secrets of the block secret/key are damaged"):
        store._opened({**state, "secrets": state["secrets"][:-8] + b"AAAAAAAA"})


@pytest.mark.parametrize("wrong", ["short", "x" * 44 + "=", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=,x"])
def test_a_key_in_the_setting_has_a_form(wrong: str) -> None:
    """What does not fit is refused, without being shown."""
    with pytest.raises(SettingsError, match="FLIGHTLOG_BLOCKS_KEY cannot be its value: a key of blocks has 32 bytes"):
        load({"FLIGHTLOG_BLOCKS_KEY": wrong})


def test_another_key_for_all(home: Path) -> None:
    """All secrets are encrypted anew, and the old key is gone: what it encrypted in the log can be read no more."""
    (old,) = key_files(home)
    Pair(one=SecretStr("one-secret"), two=SecretStr("two-secret")).save("x")
    String(value="x").save("greeting")
    assert change_key() == 2
    (new,) = key_files(home)
    assert new != old
    assert Pair.load("x").two.get_secret_value() == "two-secret"
    log = current_engine().log
    assert [event.actor for event in log.read_all(types=[BLOCK_REENCRYPTED])] == ["cli:ann"] * 2
    first = next(iter(log.read_all(types=[BLOCK_SAVED]))).data
    assert first["key_id"].hex() in old.name
    with pytest.raises(BlockKeyError):
        BlockKeys(log, current_engine().settings).get(first["key_id"])


def test_keys_in_the_setting_are_changed_in_three_steps(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new one is put first, all is encrypted with it, and the old one is taken out; from a file it is the same."""
    Secret(value=SecretStr("sk-4711-0815")).save("key")
    one, two = (Fernet.generate_key().decode() for _ in range(2))
    for keys in (one, f"{two},{one}"):
        close_engine()
        monkeypatch.setenv("FLIGHTLOG_BLOCKS_KEY", keys)
        assert Secret.load("key").get() == "sk-4711-0815"
        assert change_key() == 1
        assert key_files(own_home) == []
    with pytest.raises(BlockKeyError, match="names the present key only"):
        change_key()
    close_engine()
    monkeypatch.setenv("FLIGHTLOG_BLOCKS_KEY", two)
    assert Secret.load("key").get() == "sk-4711-0815"


def test_whoever_reads_while_the_key_is_changed_reads_again(home: Path) -> None:
    """The block was looked up before, and its key is gone when the secrets are to be decrypted."""
    engine = current_engine()

    changed = False

    class Late(BlockKeys):
        def get(self, key_id: bytes) -> bytes:
            nonlocal changed
            if not changed:
                changed = True
                assert change_key() == 1
            return super().get(key_id)

    store = BlockStore(engine, Late(engine.log, engine.settings))
    assert store.load("secret/key").document.hidden["/value"].value == "sk-4711-0815"


def test_whoever_saves_while_the_key_is_changed_saves_with_the_new_one(home: Path) -> None:
    """A block that nobody saved before: the change cannot have known of it."""
    engine = current_engine()

    changed = False

    class Late(BlockKeys):
        def get(self, key_id: bytes) -> bytes:
            nonlocal changed
            key = super().get(key_id)
            if not changed:
                changed = True
                assert change_key() == 1
            return key

    document = BlockStore(engine).load("secret/key").document
    BlockStore(engine, Late(engine.log, engine.settings)).save(
        "secret/other", document, {"checksum": "sha256:"}, overwrite=False, actor="engine"
    )
    assert Secret.load("other").get() == "sk-4711-0815"
    assert len(key_files(home)) == 1


def test_a_key_that_counts_since_a_moment_ago_stays(home: Path) -> None:
    """Somebody else has another key count just when all is encrypted with ours, and dies: no key in use is deleted."""
    engine = current_engine()

    class Interrupted(Engine):
        def kept_states(self, projection: str) -> dict[str, Any]:
            states = super().kept_states(projection)
            looks.append(states)
            if len(looks) == 2:  # the last look, before old keys are deleted
                BlockStore(engine)._switch_key("cli:eve", is_lost=False)
            return states

    looks: list[Any] = []
    ours = Interrupted(engine.log, engine.key, engine.settings)
    assert BlockStore(ours).change_key(actor="cli:ann").reencrypted == 1
    assert Secret.load("key").get() == "sk-4711-0815"
    Secret(value=SecretStr("sk-other")).save("other")
    assert Secret.load("other").get() == "sk-other"
    assert len(key_files(home)) == 2
    assert change_key() == 2
    assert len(key_files(home)) == 1


def test_a_kept_secret_is_the_one_that_is_saved_last(home: Path) -> None:
    """Whoever writes the mask back gets what somebody else saved in between, not what was there before."""
    engine = current_engine()

    changed = False

    class Late(BlockKeys):
        def get(self, key_id: bytes) -> bytes:
            nonlocal changed
            key = super().get(key_id)
            if not changed:
                changed = True
                Secret(value=SecretStr("sk-newer-one")).save("key", overwrite=True)
            return key

    document = BlockStore(engine).load("secret/key").document
    document.hidden["/value"] = document.hidden["/value"]._replace(value="********")
    BlockStore(engine, Late(engine.log, engine.settings)).save(
        "secret/key", document, {"checksum": "sha256:"}, overwrite=True, actor="engine"
    )
    assert Secret.load("key").get() == "sk-newer-one"


def test_keys_go_with_a_backup_and_not_with_a_copy(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup can be used as it is; a copy has the secrets encrypted, and says what is missing."""
    log = current_engine().log
    log.flush()
    backup(home / "flightlog.db", tmp_path / "backup" / "b.db")
    copy(log, f"sqlite:///{tmp_path}/copy/c.db")
    close_engine()
    (file,) = (tmp_path / "backup").glob("b.db.*.block-key")
    assert file.stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("FLIGHTLOG_LOG_URL", f"sqlite:///{tmp_path}/backup/b.db")
    assert Secret.load("key").get() == "sk-4711-0815"
    close_engine()
    (home / "flightlog.db.key").rename(tmp_path / "copy" / "c.db.key")
    monkeypatch.setenv("FLIGHTLOG_LOG_URL", f"sqlite:///{tmp_path}/copy/c.db")
    with pytest.raises(BlockKeyError, match=r"c\.db.*cannot be read"):
        Secret.load("key")


def test_blocks_in_a_log_in_memory_have_a_key_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is gone with the log."""
    monkeypatch.setenv("FLIGHTLOG_LOG_URL", "memory://")
    Secret(value=SecretStr("sk-4711-0815")).save("key")
    assert change_key() == 1
    assert Secret.load("key").get() == "sk-4711-0815"


# --- several processes --------------------------------------------------------------------------------


def _save_the_same(url: str, home: str, barrier: Any, number: int, told: Any) -> None:
    os.environ |= {"FLIGHTLOG_HOME": home, "FLIGHTLOG_LOG_URL": url, "FLIGHTLOG_LOGGING_LEVEL": "CRITICAL"}
    current_engine()
    barrier.wait(60)
    won = []
    for name in range(20):
        try:
            Pair(one=SecretStr(f"secret-one-{number}"), two=SecretStr(f"secret-two-{number}")).save(f"n{name}")
            won.append(name)
        except BlockError:
            pass
        Pair(one=SecretStr(f"secret-one-{number}"), two=SecretStr(f"secret-two-{number}")).save("all", overwrite=True)
    told.put((number, won))
    close_engine()


@pytest.mark.parametrize("store", ["sqlite", "postgresql"])
def test_I7_of_processes_that_save_the_same_name_one_wins(
    store: str, own_home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Each name is one process's alone; what is overwritten is whole; all secrets have one key, and no key is left."""
    url = f"sqlite:///{own_home}/flightlog.db" if store == "sqlite" else request.getfixturevalue("postgres_url")
    monkeypatch.setenv("FLIGHTLOG_LOG_URL", url)
    current_engine()  # makes the log, and its own key
    close_engine()
    barrier, told = _SPAWN.Barrier(3), _SPAWN.Queue()
    arguments = [(url, str(own_home), barrier, number, told) for number in range(3)]
    savers = [_SPAWN.Process(target=_save_the_same, args=given) for given in arguments]
    for saver in savers:
        saver.start()
    won = dict(told.get(timeout=60) for _ in savers)
    for saver in savers:
        saver.join(60)
    assert [saver.exitcode for saver in savers] == [0, 0, 0]
    told.close()
    assert sorted(name for names in won.values() for name in names) == list(range(20))
    for number, names in won.items():
        assert all(Pair.load(f"n{name}").one.get_secret_value() == f"secret-one-{number}" for name in names)
    last = Pair.load("all")
    assert last.one.get_secret_value()[-1] == last.two.get_secret_value()[-1]
    log = current_engine().log
    assert len(list(log.read_all(types=[BLOCK_KEY_CHANGED]))) == 1
    assert len(list(own_home.rglob("*.block-key"))) == 1


def _change_keys(home: str, barrier: Any, number: int) -> None:
    os.environ |= {"FLIGHTLOG_HOME": home, "FLIGHTLOG_LOGGING_LEVEL": "CRITICAL"}
    current_engine()
    barrier.wait(60)
    for turn in range(8):
        if number:
            change_key()
        else:
            Pair(one=SecretStr(f"secret-{turn}"), two=SecretStr(f"secret-{turn}")).save(f"n{turn}")
            assert Pair.load("n0").one.get_secret_value() == "secret-0"
    close_engine()


def test_keys_that_several_processes_change_at_once_are_not_lost(home: Path) -> None:
    """Two change the key again and again while a third saves and loads: every secret can be read in the end."""
    close_engine()
    barrier = _SPAWN.Barrier(3)
    processes = [_SPAWN.Process(target=_change_keys, args=(str(home), barrier, number)) for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert Secret.load("key").get() == "sk-4711-0815"
    assert [Pair.load(f"n{turn}").two.get_secret_value() for turn in range(8)] == [f"secret-{n}" for n in range(8)]
    change_key()
    assert len(key_files(home)) == 1


class DyingIds(RandomIds):
    """Ids that end the process instead of giving the one of a number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.left = number

    def new(self) -> bytes:
        """Return an id, or end the process as `kill -9` does."""
        self.left -= 1
        return super().new() if self.left else _die()


class DyingKeys(BlockKeys):
    """Keys that end the process before one of them is deleted."""

    def drop(self, key_ids: Iterable[bytes]) -> None:
        """End the process as `kill -9` does."""
        _die()


def _die() -> NoReturn:
    os.kill(os.getpid(), 9)
    raise AssertionError


def _save_and_change(home: str, number: int) -> None:
    """Save two blocks and change the key twice; die at the event of that number, or before a key is deleted."""
    engine = open_engine(load({"FLIGHTLOG_HOME": home}))
    engine = Engine(engine.log, engine.key, engine.settings, ids=DyingIds(number))
    for name in ("a", "b"):
        if name == "b" or not _has(engine, "a"):
            Pair(one=SecretStr("one-secret"), two=SecretStr("two-secret")).save(name, overwrite=True, engine=engine)
    for _ in range(2):
        keys = DyingKeys(engine.log, engine.settings) if number < 0 else None
        BlockStore(engine, keys).change_key(actor="engine")
    engine.log.close()


def _has(engine: Engine, name: str) -> bool:
    return engine.kept("blocks", f"block/pair/{name}").state is not None


def test_I1_killed_at_any_event_of_saving_and_changing_keys_nothing_is_lost(tmp_path: Path) -> None:
    """What was saved can be read at every moment, and in the end one key is left that counts."""
    died = 0
    for number in (-1, *range(1, 50)):
        home = tmp_path / f"{number}"
        child = _SPAWN.Process(target=_save_and_change, args=(str(home), number))
        child.start()
        child.join(60)
        if child.exitcode == 0:
            break
        assert child.exitcode == -9
        died += 1
        _check_after_death(home)
    # Two blocks of an id for the block and one for the event, the first with one for its key; two changes of three.
    assert died == 1 + 5 + 6


def _check_after_death(home: Path) -> None:
    """See that all that was saved can be read, before and after another change of the key."""
    engine = open_engine(load({"FLIGHTLOG_HOME": str(home)}))
    try:
        saved = [event.stream for event in engine.log.read_all(types=[BLOCK_SAVED])]
        for _ in range(2):
            for stream in saved:
                block = Pair.load(stream.removeprefix("block/pair/"), engine=engine)
                assert block.two.get_secret_value() == "two-secret"
            BlockStore(engine).change_key(actor="engine")
        counted = {event.data["key_id"].hex() for event in engine.log.read(BLOCK_KEY_STREAM)}
        left = {file.name.split(".")[-2] for file in key_files(home)}
        assert len(left & counted) == bool(saved)
    finally:
        engine.log.close()


def test_a_log_that_can_only_be_read_shows_its_blocks(home: Path) -> None:
    """Without their secrets, which need no key."""
    from flightlog.plugins.block_store import saved_blocks

    close_engine()
    with open_log(f"sqlite:///{home}/flightlog.db", read_only=True) as log:
        assert list(saved_blocks(log)) == ["secret/key"]
