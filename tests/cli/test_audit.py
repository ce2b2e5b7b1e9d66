"""``flightlog audit``: keys, seals, checkpoints, verifying, bundles."""

import json
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flightlog.events.notes import public_key, read_note
from flightlog.events.opening import open_log
from flightlog.testing.log_contract import new_event

FLOWS = """
from flightlog import flow, task

@task
def double(n: int) -> int:
    return 2 * n

@flow
def small(n: int = 3) -> list[int]:
    return [double(number) for number in range(n)]
"""


def flightlog(*arguments: str | Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """Run a command, and return how it went."""
    command = [sys.executable, "-m", "flightlog", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def ok(*arguments: str | Path, **environment: str) -> str:
    """Run a command that has to succeed, and return what it printed."""
    done = flightlog(*arguments, **environment)
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def refused(*arguments: str | Path, code: int = 1, **environment: str) -> str:
    """Run a command that has to fail with one sentence, and return that."""
    done = flightlog(*arguments, **environment)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.fixture
def home(own_home: Path) -> Path:
    """Return the home of a log with nine events."""
    own_home.mkdir()
    append(own_home, 9)
    return own_home


def append(home: Path, count: int) -> None:
    """Record some events."""
    with open_log(f"sqlite:///{home}/flightlog.db") as log:
        log.append("s", [new_event(n=number) for number in range(count)])


def verified(*arguments: str | Path, code: int = 0, **environment: str) -> Any:
    """Return what ``audit verify`` finds."""
    done = flightlog("audit", "verify", "--json", *arguments, **environment)
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_a_key_is_made_once(home: Path) -> None:
    """It is in a file that nobody else can read; what is printed is the verifier key; it is never replaced."""
    printed = ok("audit", "keygen")
    key = public_key(printed)
    file = home / "flightlog.db.audit-key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    assert before.startswith("PRIVATE+KEY+flightlog/")
    assert "not replaced" in refused("audit", "keygen")
    assert file.read_text() == before
    assert "not replaced" in refused("audit", "keygen", FLIGHTLOG_AUDIT_KEY=before.strip())
    checkpoint, (signature,) = read_note(ok("audit", "checkpoint"))
    assert key.accepts(checkpoint.text(), signature.value)
    assert before.strip() not in ok("config", "view", FLIGHTLOG_AUDIT_KEY=before.strip())


def test_sealing_and_verifying(home: Path) -> None:
    """What is sealed is proved, what is behind it is not."""
    found = verified()
    assert (found["sound"], found["sealed"], found["unproved"]) == (True, 0, 9)
    sealed = json.loads(ok("audit", "seal", "--json"))
    assert (sealed["first"], sealed["last"], sealed["signer"], sealed["new"]) == (1, 9, None, True)
    assert json.loads(ok("audit", "seal", "--json"))["new"] is False
    append(home, 2)
    found = verified()
    assert (found["sealed"], found["unproved"], found["known"]) == (9, 3, 9)
    assert "1 seal: nothing up to position 9 was changed" in ok("audit", "verify")
    assert "1, up to position 9, not signed; 3 events behind are unproved" in flightlog("doctor").stdout


def test_the_first_bad_event_is_named(home: Path) -> None:
    """With position, stream, version and type; the exit code is 1, for `doctor` too."""
    ok("audit", "seal")
    connection = sqlite3.connect(home / "flightlog.db")
    connection.execute("DROP TRIGGER events_no_update")
    changed = "CAST(substr(record, 1, length(record) - 1) || x'55' AS BLOB)"
    connection.execute(f"UPDATE events SET record = {changed} WHERE position = 4")
    connection.commit()
    connection.close()
    first = verified(code=1)["problems"][0]
    assert (first["position"], first["stream"], first["version"], first["type"]) == (4, "s", 4, "thing.happened")
    done = flightlog("audit", "verify")
    assert done.returncode == 1
    assert done.stdout.startswith("✕ event 4: it was changed: the next one of its stream carries the hash of another")
    assert "✕ verify       event 4: it was changed" in flightlog("doctor").stdout


def test_a_checkpoint_is_a_note_that_others_can_keep(home: Path, tmp_path: Path) -> None:
    """A log that does not grow out of it is told by it, whatever is remembered here."""
    file = tmp_path / "checkpoint.txt"
    ok("audit", "checkpoint", "-o", file)
    assert "not signed" in flightlog("audit", "checkpoint").stderr
    append(home, 5)
    ok("audit", "seal")
    ok("audit", "forget")
    assert verified("--checkpoint", file)["known"] == 9
    origin, size, root, *rest = file.read_text().split("\n")
    file.write_text("\n".join([origin, size, root.replace(root[5], "x" if root[5] != "x" else "y", 1), *rest]))
    (problem,) = verified("--checkpoint", file, code=1)["problems"]
    assert "the first 9 events are not those of the checkpoint" in problem["what"]
    file.write_text("\n".join(["flightlog/other", size, root, *rest]))
    assert "is a checkpoint of another log" in refused("audit", "verify", "--checkpoint", file, code=2)
    file.write_text("nonsense")
    assert "is no checkpoint" in refused("audit", "verify", "--checkpoint", file, code=2)


def test_a_rewound_log_is_refused(home: Path) -> None:
    """An older copy in place of the log: every command that reads says so in one sentence, until it is meant."""
    ok("audit", "seal")
    database = home / "flightlog.db"
    copy = home.with_name("copy.db")
    shutil.copyfile(database, copy)
    append(home, 3)
    ok("audit", "seal")
    shutil.copyfile(copy, database)
    for name in ("flightlog.db-wal", "flightlog.db-shm"):
        (home / name).unlink(missing_ok=True)
    for command in (["runs", "ls"], ["events", "ls"], ["audit", "seal"], ["audit", "checkpoint"]):
        told = refused(*command)
        assert told.startswith("Error: The log at ")
        assert "it was rewound. If that is meant (an older copy, say): flightlog audit forget" in told
    (problem,) = verified(code=1)["problems"]
    assert problem["what"] == "the log has 10 events, but a checkpoint of 13 was seen before: its end was cut off"
    assert "it was rewound" in flightlog("doctor").stdout
    ok("audit", "forget")
    assert verified()["known"] == 0
    ok("runs", "ls")


def test_a_forked_log_is_refused(home: Path) -> None:
    """A copy that went on in another way, to the same length and sealed like the other one."""
    ok("audit", "seal")
    database = home / "flightlog.db"
    copy = home.with_name("copy.db")
    shutil.copyfile(database, copy)
    with open_log(f"sqlite:///{copy}") as log:
        log.append("s", [new_event(n=1000), new_event(n=1000), new_event(n=1000)])
    append(home, 3)
    ok("audit", "seal")
    ok("audit", "seal", FLIGHTLOG_LOG_URL=f"sqlite:///{copy}", FLIGHTLOG_HOME=str(home.with_name("other")))
    told = refused("runs", "ls", FLIGHTLOG_LOG_URL=f"sqlite:///{copy}")
    assert "are not those that were sealed when it was seen before: it was written anew" in told
    (problem,) = verified(code=1, FLIGHTLOG_LOG_URL=f"sqlite:///{copy}")["problems"]
    assert "not those of the checkpoint" in problem["what"]


def test_a_damaged_memory_is_told(home: Path) -> None:
    """The file of the last checkpoint holds something else."""
    ok("audit", "seal")
    (file,) = (home / "checkpoints").iterdir()
    file.write_text("nonsense")
    assert "forget it: flightlog audit forget" in refused("runs", "ls")
    ok("audit", "forget")
    ok("runs", "ls")


def test_keys_that_are_lost_wrong_or_changed(home: Path) -> None:
    """A seal of a key that does not count is found; after a change, both count."""
    first = ok("audit", "keygen").strip()
    ok("audit", "seal")
    assert verified()["signed"] == 9
    file = home / "flightlog.db.audit-key"
    file.rename(home / "old-key")
    append(home, 3)
    ok("audit", "seal")  # without a key
    assert "signed by nobody" in verified("--key", first, code=1)["problems"][0]["what"]
    second = ok("audit", "keygen").strip()
    append(home, 3)
    ok("audit", "seal")
    found = verified()
    assert (found["sound"], found["signed"]) == (True, 17)
    assert verified("--key", second)["signers"] == [first, second]
    assert "not by a key that counts" in verified("--key", first, code=1)["problems"][0]["what"]
    assert verified("--key", first, "--key", second)["sound"]
    assert "is no key of a signer" in refused("audit", "verify", "--key", "nonsense", code=2)
    file.write_text("nonsense")
    assert "is damaged" in refused("audit", "seal")


def test_what_cannot_be_sealed(home: Path, tmp_path: Path) -> None:
    """A replay of the past, and a log that is not there."""
    url = f"sqlite:///{tmp_path}/replay.db"
    ok("replay", "--to", "5", "-o", tmp_path / "replay.db")
    assert "is a replay of another one's past" in refused("audit", "seal", code=2, FLIGHTLOG_LOG_URL=url)
    assert "There is no log" in refused("audit", "seal", code=3, FLIGHTLOG_LOG_URL=f"sqlite:///{tmp_path}/none.db")
    with open_log(f"sqlite:///{tmp_path}/empty.db"):
        pass
    assert "nothing to seal" in refused("audit", "checkpoint", FLIGHTLOG_LOG_URL=f"sqlite:///{tmp_path}/empty.db")


def test_a_range_goes_out_as_lines(home: Path) -> None:
    """As JSON, or as CloudEvents, which have what the specification asks for; a range has its ends in it."""
    lines = [json.loads(line) for line in ok("audit", "export", "--jsonl", "--from", "3", "--to", "5").splitlines()]
    assert [line["position"] for line in lines] == [3, 4, 5]
    assert lines[0]["data"] == {"n": 2}
    events = [json.loads(line) for line in ok("audit", "export", "--cloudevents").splitlines()]
    assert len(events) == 9
    first = events[0]
    assert first["specversion"] == "1.0"
    assert (first["type"], first["subject"], first["position"]) == ("thing.happened", "s", 1)
    assert first["source"].startswith("/flightlog/")
    assert (first["datacontenttype"], first["data"]) == ("application/json", {"n": 0})
    assert len({event["id"] for event in events}) == 9
    assert all(
        name.isascii() and name.isalnum() and name.islower() for name in first
    )  # as attributes' names have to be
    assert "Name a run" in refused("audit", "export", code=2)
    assert "not both" in refused("audit", "export", "--jsonl", "--cloudevents", code=2)
    assert "not both" in refused("audit", "export", "@last", "--jsonl", code=2)


def test_a_run_goes_out_and_comes_back(tmp_path: Path) -> None:
    """Exported, verified by itself, shown without the log; one that was changed is refused."""
    flows = tmp_path / "flows.py"
    flows.write_text(FLOWS)
    ok("run", f"{flows}:small")
    ok("audit", "keygen")
    bundle = tmp_path / "run.zip"
    told = flightlog("audit", "export", "@last", "-o", bundle).stderr
    assert "To verify it: unzip -p" in told
    elsewhere = {"FLIGHTLOG_HOME": str(tmp_path / "elsewhere")}
    assert "small" in ok("runs", "show", "--from", bundle, **elsewhere)
    document = json.loads(ok("runs", "show", "--from", bundle, "--json", **elsewhere))
    assert (document["flow"], len(document["task_runs"])) == ("small", 3)
    here = json.loads(ok("runs", "show", "@last", "--json"))
    assert document == here
    changed = bytearray(bundle.read_bytes())
    changed[len(changed) // 2] ^= 1
    bundle.write_bytes(changed)
    assert "is not what was exported" in refused("runs", "show", "--from", bundle)
    assert "Name a run" in refused("runs", "show", code=2)
    assert "without --as-of" in refused("runs", "show", "--from", bundle, "--as-of", "3", code=2)


def test_a_log_in_postgresql(postgres_url: str, tmp_path: Path, own_home: Path) -> None:
    """The key is in FLIGHTLOG_HOME; sealing, verifying and exporting go as with a file."""
    flows = tmp_path / "flows.py"
    flows.write_text(FLOWS)
    here = {"FLIGHTLOG_LOG_URL": postgres_url, "FLIGHTLOG_LOG_SEAL": "exit"}
    ok("run", f"{flows}:small", **here)
    key = ok("audit", "keygen", **here).strip()
    (file,) = (own_home / "keys").glob("*.audit-key")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    bundle = tmp_path / "run.zip"
    ok("run", f"{flows}:small", **here)
    ok("audit", "export", "@last", "-o", bundle, **here)
    found = json.loads(ok("audit", "verify", "--json", "--key", key, **here))
    assert (found["seals"], found["unproved"], found["signed"]) == (2, 1, found["sealed"])
    assert "small" in ok("runs", "show", "--from", bundle)
    told = ok("audit", "verify", **here)
    assert f"signed up to position {found['sealed']} by {key}" in told
