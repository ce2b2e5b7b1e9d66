"""``flightlog blocks``: from the shell, without a secret ever on a command line."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TYPES = """
from pydantic import BaseModel, SecretStr
from flightlog.blocks import Block

class Login(Block):
    "Who somebody is."
    user: str
    password: SecretStr

class Options(BaseModel):
    port: int = 25
    token: SecretStr | None = None

class Mail(Block):
    _block_type_name = "E-mail Server"
    _block_schema_capabilities = ("notify",)
    host: str
    login: Login
    options: Options = Options()
    tags: list[str] = []
"""


@pytest.fixture
def types(tmp_path: Path) -> str:
    """A file with types of blocks."""
    file = tmp_path / "blocks.py"
    file.write_text(TYPES)
    return str(file)


def flightlog(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command, and return how it went."""
    command = [sys.executable, "-m", "flightlog", *arguments]
    environ = {**os.environ, **environment}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60, env=environ)


def ok(*arguments: str, stdin: str = "", **environment: str) -> str:
    """Run a command that has to succeed, and return what it printed."""
    done = flightlog(*arguments, stdin=stdin, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def document(*arguments: str) -> Any:
    """Run a command with ``--json``, and return the document."""
    return json.loads(ok(*arguments, "--json"))


def test_a_secret_is_saved_shown_and_deleted(own_home: Path) -> None:
    """From standard input; masked unless it is asked for, which is on record; `block` is what some type."""
    ok("block", "create", "secret/api-key", "--field", "value=@-", stdin="sk-4711-0815\n")
    assert ok("blocks", "ls").split("\t")[0] == "secret/api-key"
    assert "sk-4711" not in ok("blocks", "show", "secret/api-key")
    assert ok("blocks", "show", "secret/api-key", "--secrets").splitlines() == ["secret/api-key", "value\tsk-4711-0815"]
    shown = document("blocks", "show", "secret/api-key")
    assert (shown["fields"], shown["masked"], shown["is_known"]) == ({"value": "********"}, ["/value"], True)
    assert document("blocks", "show", "secret/api-key", "--secrets")["fields"] == {"value": "sk-4711-0815"}
    reads = document("events", "ls", "--type", "block.secrets_read")
    assert [event["actor"].partition(":")[0] for event in reads] == ["cli"] * 2
    again = flightlog("blocks", "create", "secret/api-key", "--field", "value=@-", stdin="x")
    assert (again.returncode, "--overwrite" in again.stderr) == (2, True)
    ok("blocks", "create", "secret/api-key", "--field", "value=env:MY_KEY", "--overwrite", MY_KEY="sk-other")
    assert "sk-other" in ok("blocks", "show", "secret/api-key", "--secrets")
    ok("blocks", "delete", "secret/api-key")
    assert flightlog("blocks", "delete", "secret/api-key").returncode == 3
    assert document("blocks", "ls") == []
    contents = b"".join(path.read_bytes() for path in own_home.iterdir())
    assert b"sk-4711" not in contents
    assert b"sk-other" not in contents


@pytest.mark.parametrize(
    "field",
    ["login.password=hunter22", 'login={"user": "a", "password": "hunter22"}', 'options={"token": "hunter22"}',
     "options.token=hunter22", "host=smtp://ann:hunter22@host"],
)  # fmt: skip
def test_a_secret_on_the_command_line_is_refused(field: str, types: str, own_home: Path) -> None:
    """A field that is one, that has one in it, or a URL with a password; nothing is saved, or said of it."""
    refused = flightlog("blocks", "create", "e-mail-server/x", "-m", types, "--field", field)
    assert refused.returncode == 2
    assert "others can see it in the list of processes" in refused.stderr
    assert "hunter22" not in refused.stderr
    assert not own_home.exists()


def test_fields_of_fields_and_blocks_in_blocks(types: str, tmp_path: Path) -> None:
    """OUTER.INNER, a block by its name, JSON where text will not do, files; the log knows what refers to what."""
    (tmp_path / "password").write_text("hunter22\n")
    create = ("blocks", "create", "-m", types)
    ok(*create, "login/ann", "-f", "user=ann", "-f", f"password=@{tmp_path}/password")
    ok(*create, "e-mail-server/a", "-f", "host=123", "-f", "login=login/ann", "-f", 'tags=["x"]')
    ok(*create, "e-mail-server/b", "-f", 'host="@home"', "-f", "login.user=bob", "-f", "login.password=@-",
       "-f", "options.port=465", "-f", "options.token=env:TOKEN", stdin='"quoted"', TOKEN="t-4711-0815")  # fmt: skip
    first = document("blocks", "show", "e-mail-server/a")
    assert first["fields"]["login"] == {"$ref": {"block": "login/ann"}}
    assert (first["fields"]["host"], first["fields"]["tags"]) == ("123", ["x"])
    second = document("blocks", "show", "e-mail-server/b", "--secrets")["fields"]
    assert second["login"] == {"user": "bob", "password": '"quoted"'}
    assert second["options"] == {"port": 465, "token": "t-4711-0815"}
    assert second["host"] == "@home"
    assert [one["block"] for one in document("blocks", "ls", "--capability", "notify")] == [
        "e-mail-server/a",
        "e-mail-server/b",
    ]
    assert [one["block"] for one in document("blocks", "ls", "--type", "login")] == ["login/ann"]
    ok("blocks", "set", "e-mail-server/b", "-m", types, "-f", "login.password=@-", "-f", 'tags=["y"]', stdin="new-one")
    changed = document("blocks", "show", "e-mail-server/b", "--secrets")["fields"]
    assert changed == second | {"login": {"user": "bob", "password": "new-one"}, "tags": ["y"]}
    ok("blocks", "set", "e-mail-server/b", "-m", types, "-f", "login=login/ann")
    assert document("blocks", "show", "e-mail-server/b")["fields"]["login"] == {"$ref": {"block": "login/ann"}}
    told = flightlog("blocks", "delete", "login/ann").stderr
    assert "e-mail-server/a refers to it" in told


def test_what_does_not_fit_is_told(types: str, tmp_path: Path) -> None:
    """Unknown types, blocks and fields with the nearest; fields that are missing or wrong; files that are not there."""
    for arguments, code, said in (
        (("create", "secet/x"), 3, "Did you mean 'secret'?"),
        (("create", "secret"), 2, "is not TYPE/NAME"),
        (("create", "secret/Upper", "-f", "value=env:HOME"), 2, "lower-case letters"),
        (("create", "secret/x"), 2, "value: Field required. The fields: flightlog blocks types secret"),
        (("create", "secret/x", "-f", "valu=@-"), 2, "Did you mean 'value'?"),
        (("create", "secret/x", "-f", "value"), 2, "nobody is there to be asked"),
        (("create", "secret/x", "-f", "value=@nowhere"), 2, "nowhere cannot be read"),
        (("create", "secret/x", "-f", "value=env:NO_SUCH"), 2, "no variable 'NO_SUCH'"),
        (("create", "json/x", "-f", "value=[1"), 2, "is no JSON"),
        (("create", "login/x", "-m", types, "-f", "user.name=x"), 2, "has no fields of its own"),
        (("create", "e-mail-server/x", "-m", types, "-f", "login=login/eve", "-f", "host=x"), 3, "no block login/eve"),
        (("create", "e-mail-server/x", "-m", types, "-f", "options.port=x", "-f", "host=x"), 2, "valid integer"),
        (("set", "e-mail-server/none", "-m", types, "-f", "host=x"), 3, "no block 'e-mail-server/none'"),
        (("types", "secet"), 3, "Did you mean 'secret'?"),
        (("create", "login/x", "-m", f"{tmp_path}/none.py"), 3, "There is no file"),
    ):
        done = flightlog("blocks", *arguments)
        assert (done.returncode, said in " ".join(done.stderr.split())) == (code, True), (arguments, done.stderr)
    ok("blocks", "create", "string/greeting", "-f", "value=hello")
    for arguments in (("show", "string/greetin"), ("delete", "string/greetin")):
        done = flightlog("blocks", *arguments)
        assert done.returncode == 3
        assert "Did you mean 'string/greeting'?" in done.stderr


def test_types_are_listed_with_their_fields(types: str) -> None:
    """Those that come along, and those of a module; the schema as JSON."""
    listed = ok("blocks", "types", "-m", types)
    assert "e-mail-server\tE-mail Server\tnotify\t" in listed
    assert "login\tLogin\t\tWho somebody is." in listed
    shown = ok("blocks", "types", "login", "-m", types).splitlines()
    assert "password\trequired\tsecret\t" in shown
    schema = json.loads(ok("blocks", "types", "e-mail-server", "-m", types, "--json"))
    assert schema["secret_fields"] == ["login.password", "options.token"]
    assert schema["schema"]["properties"]["host"]["type"] == "string"
    slugs = [kind["slug"] for kind in document("blocks", "types")]
    assert {"date-time", "json", "local-file-system", "remote-file-system", "secret", "string"} <= set(slugs)


def test_I9_a_block_of_a_type_that_is_not_here_is_shown(types: str) -> None:
    """What is no secret of it, and that its type is not known."""
    ok("blocks", "create", "login/ann", "-m", types, "-f", "user=ann", "-f", "password=@-", stdin="hunter22")
    shown = flightlog("blocks", "show", "login/ann")
    assert shown.stdout.splitlines() == ["login/ann", "user\tann", "password\t********"]
    assert "type is not known here" in shown.stderr
    assert document("blocks", "ls")[0]["is_known"] is False
    assert document("blocks", "show", "login/ann", "--secrets")["fields"]["password"] == "hunter22"


def test_the_key_is_changed_and_doctor_looks_for_it(own_home: Path) -> None:
    """`rotate-key`, also when it is lost; `doctor` says where the key is, who can read it, and if it is missing."""
    assert "0 blocks" in flightlog("blocks", "rotate-key").stderr
    ok("blocks", "create", "secret/key", "-f", "value=@-", stdin="sk-4711-0815")
    (old,) = own_home.glob("*.block-key")
    assert "1 blocks" in flightlog("blocks", "rotate-key").stderr
    (new,) = own_home.glob("*.block-key")
    assert old != new

    def found() -> Any:
        done = flightlog("doctor", "--quick", "--json")
        return next(one for one in json.loads(done.stdout) if one["what"] == "blocks' key")

    assert (found()["status"], found()["found"]) == ("ok", str(new))
    new.chmod(0o644)
    assert found()["mend"] == f"chmod 600 {new}"
    new.unlink()
    assert found()["status"] == "bad"
    failed = flightlog("blocks", "show", "secret/key", "--secrets")
    assert failed.returncode == 1
    assert "rotate-key --lost" in failed.stderr
    assert "sk-4711" not in failed.stderr
    assert "secret/key has lost its secrets" in flightlog("blocks", "rotate-key", "--lost").stderr


def test_the_key_in_the_environment_is_never_shown() -> None:
    """`config view` masks it."""
    key = "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY="
    viewed = ok("config", "view", FLIGHTLOG_BLOCKS_KEY=key)
    assert "FLIGHTLOG_BLOCKS_KEY\t********\tenvironment" in viewed
    ok("blocks", "create", "secret/key", "-f", "value=@-", stdin="sk-4711-0815", FLIGHTLOG_BLOCKS_KEY=key)
    assert "in FLIGHTLOG_BLOCKS_KEY" in flightlog("doctor", "--quick", FLIGHTLOG_BLOCKS_KEY=key).stdout


def test_a_person_is_asked_for_a_secret_without_an_echo() -> None:
    """On a terminal: for a field without a value, and for one that is missing."""
    for name, fields in (("one", ["--field", "value"]), ("two", [])):
        typed = _typed(["blocks", "create", f"secret/{name}", *fields], "value: ", "sk-4711-0815")
        assert "is saved" in typed
        assert "sk-4711" not in typed
        assert "sk-4711-0815" in ok("blocks", "show", f"secret/{name}", "--secrets")


def _typed(arguments: list[str], prompt: str, answer: str) -> str:
    """Run a command on a terminal, answer its question, and return all that the terminal showed."""
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, [sys.executable, "-m", "flightlog", *arguments])
    shown = b""
    answered = False
    while True:
        try:
            read = os.read(terminal, 1000)
        except OSError:  # how a terminal tells that nobody has its other end any more
            read = b""
        if not read:
            break
        shown += read
        if not answered and re.search(prompt.encode() + b"$", shown):
            os.write(terminal, answer.encode() + b"\n")
            answered = True
    os.waitpid(process, 0)
    os.close(terminal)
    return shown.decode()
