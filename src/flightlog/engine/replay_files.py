"""A recorded run as a test: a file for pytest in which the run's calls return what they returned."""

import ast
import base64
import os
import pprint
import re
import textwrap
import zlib
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from flightlog.engine import results
from flightlog.engine.calls import latest
from flightlog.engine.history import History, RecordedCall, read_history
from flightlog.engine.pickles import NotRecordable, dumps
from flightlog.engine.resuming import flow_of
from flightlog.engine.runtime import Engine
from flightlog.errors import CannotResume, CorruptResult, LogCorrupt, MissingResult, RunNotFound
from flightlog.events.narration import state_of

_WIDTH: Final = 100
_RUNS: Final = "RUNS"


@dataclass(slots=True)
class ReplayFile:
    """A test made of a run.

    Attributes:
        text: the file's text.
        remarks: what whoever asked for it should know, a sentence each.
    """

    text: str
    remarks: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Recording:
    """What calls returned, as source text with a comment, by function, in the order in which they were made."""

    engine: Engine
    returned: dict[str, list[tuple[str, str]]] = field(default_factory=lambda: defaultdict(list))
    lacking: list[str] = field(default_factory=list)


def replay_file(engine: Engine, run: bytes, folder: Path) -> ReplayFile:
    """Return a test that replays a run.

    Args:
        engine: gives the log and its key.
        run: the flow run's id, 16 bytes.
        folder: where the file will stand: the flow's own file is named from there.

    Raises:
        RunNotFound: there is no such run.
        CannotResume: the log lacks what it takes: where the flow is, or its parameters.
        ScriptError: the flow cannot be loaded.
    """
    history = read_history(engine.log, run)
    flow_of(history)  # what is on record may be of classes that its file defines
    recording = _Recording(engine)
    _record(recording, history)
    given, lacking = _parameters(engine, history)
    file = ReplayFile(_text(history, _place(history, folder), given, recording, _expected(engine, history)))
    if lacking:
        file.remarks.append(
            f"Not on record: {', '.join(lacking)} (secret, or no pickle). Put values into PARAMETERS; until then the "
            "test fails."
        )
    if recording.lacking:
        file.remarks.append(f"These calls run, since their values cannot be had: {', '.join(recording.lacking)}.")
    if history.rules.type == "CRASHED":
        file.remarks.append("The run crashed: what ended its process from outside is not in the test.")
    if _is_personal(history):
        file.remarks.append("It holds personal values in plain text, which erasing somebody does not reach.")
    file.remarks.append("The file holds values of the run: look at it before you share it.")
    return file


def _is_personal(history: History) -> bool:
    """Tell whether a run, or a call of it, knows personal values."""
    references = [history.created.get("exact"), *(call.result for call in history.calls.values())]
    return any("personal" in (reference or {}) for reference in references)


# --- what is on record ----------------------------------------------------------------------------------


def _record(recording: _Recording, history: History) -> None:
    """Note what the calls of a run returned; of a subflow that did not complete, what its own calls did."""
    unmade = {call.key for call in history.calls.values() if call.completed}
    for call in latest(history.calls.values()):
        if call.parent in unmade:  # it was made by a call that returns at once
            unmade.add(call.key)
            continue
        source = _value(recording, call) if call.completed else _RUNS
        recording.returned[call.function].append((source, f"{call.name}: {_outcome(call)}"))
        if source == _RUNS and call.child is not None:
            try:
                _record(recording, read_history(recording.engine.log, call.child))
            except RunNotFound:
                continue


def _value(recording: _Recording, call: RecordedCall) -> str:
    try:
        return source_of(_fetched(recording.engine, call.result or {}))
    except (results.NotLoadable, MissingResult, CorruptResult, LogCorrupt, NotRecordable) as error:
        recording.lacking.append(f"{call.name} ({str(error).rstrip('.')})")
        return _RUNS


def _fetched(engine: Engine, reference: Mapping[str, Any]) -> Any:
    if "value" not in reference and "digest" not in reference:
        raise NotRecordable(reference.get("not_recorded", "not recorded"))
    return results.fetch(engine.key, reference, engine.log.blob, vault=engine.vault)


def _outcome(call: RecordedCall) -> str:
    if call.completed:
        return "completed"
    error = call.error or {}
    told = f"{error['type']}: {error['message']}" if error else call.message or ""
    return f"{(call.state_name or call.type).lower()} {_one_line(told)}".rstrip()


def _parameters(engine: Engine, history: History) -> tuple[list[tuple[str, str]], list[str]]:
    """Return the parameters as source text, and the names of those that are not on record."""
    exact, lacking = history.created.get("exact") or {}, list(history.created.get("not_recorded") or ())
    values: dict[str, Any] = {}
    if "digest" in exact:
        try:
            values = results.fetch(engine.key, exact, engine.log.blob, vault=engine.vault)
        except results.NotLoadable as error:
            raise CannotResume(f"The parameters of run {history.name!r} cannot be loaded: {error}") from None
    given = [(name, source_of(value)) for name, value in values.items()]
    return [*given, *((name, f"not_recorded({name!r})") for name in lacking)], lacking


def _expected(engine: Engine, history: History) -> str | None:
    """Return what a run that completed returned, as source text; None if it did not, or that is not on record."""
    last = history.last
    if history.rules.type != "COMPLETED" or last is None:
        return None
    try:
        return source_of(_fetched(engine, last.data.get("result") or {}))
    except (results.NotLoadable, MissingResult, CorruptResult, LogCorrupt, NotRecordable):
        return None


def _place(history: History, folder: Path) -> str:
    """Return the source text of where the flow is, as seen from a folder."""
    place, _, name = history.created["entrypoint"].rpartition(":")
    if not place.endswith(".py"):
        return repr(history.created["entrypoint"])
    script = Path(history.created.get("directory") or "", place)
    try:
        near = Path(os.path.relpath(script, folder)).as_posix()
    except ValueError:  # another drive
        return repr(f"{script}:{name}")
    return f'f"{{Path(__file__).parent}}/{near}:{name}"'


# --- source text ----------------------------------------------------------------------------------------


def source_of(value: Any) -> str:
    """Return Python source text that gives a value: itself where it is made of literals, else its pickle."""
    text = pprint.pformat(value, width=_WIDTH, sort_dicts=False)
    try:
        if _is_plain(value) and repr(ast.literal_eval(text)) == repr(value):
            return text
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        pass
    packed = base64.b85encode(zlib.compress(dumps(value))).decode()
    lines = textwrap.wrap(packed, _WIDTH)
    # Base 85 as it is here has neither quotes nor backslashes.
    return f"pickled({lines[0]!r})" if len(lines) == 1 else "pickled(\n" + "".join(f"{x!r}\n" for x in lines) + ")"


def _is_plain(value: Any) -> bool:
    """Tell whether a value is of literals' own types all through: a subclass of dict has the same literal."""
    if type(value) in (list, tuple, set):
        return all(map(_is_plain, value))
    if type(value) is dict:
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    return value is None or type(value) in (bool, int, float, complex, str, bytes)


def _text(
    history: History, place: str, given: list[tuple[str, str]], recording: _Recording, expected: str | None
) -> str:
    name = re.sub(r"\W+", "_", history.created["flow"]).strip("_").lower() or "flow"
    body = "".join(_lines(history, place, given, recording, expected, name))
    used = [word for word in ("RUNS", "not_recorded", "pickled", "replayed") if re.search(rf"\b{word}\b", body)]
    imports = "from pathlib import Path\n\n" if "Path(" in body else ""
    head = _docstring(history)
    return (
        f"{head}\n{imports}from flightlog.flows import load_flow\n"
        f"from flightlog.testing import {', '.join(used)}\n\n{body}"
    )


def _docstring(history: History) -> str:
    last = history.last
    assert last is not None
    error = last.data.get("error")
    why = f" It failed: {_one_line(error['type'] + ': ' + error['message'])}." if error else ""
    told = f"{_one_line(history.name)} ({history.text}) of the flow {_one_line(history.created['flow'])}"
    first = f"Replays the run {told}, which ended as {state_of(last.type, last.data)[1]}.{why}"
    return (
        f"{textwrap.fill(first, 118, initial_indent='# ', subsequent_indent='# ')}\n"
        "# Made by `flightlog runs to-test`: calls that completed return what they returned then, all others run. So\n"
        "# the test fails as the run failed, and passes once the reason is mended.\n"
    )


def _lines(
    history: History,
    place: str,
    given: list[tuple[str, str]],
    recording: _Recording,
    expected: str | None,
    name: str,
) -> Iterator[str]:
    yield f"FLOW = load_flow({place})\n"
    yield "PARAMETERS = {\n"
    for parameter, source in given:
        yield f"    {parameter!r}: {_indented(source)},\n"
    yield "}\nRETURNED = {\n"
    for function, calls in recording.returned.items():
        yield f"    {function!r}: [\n"
        for source, comment in calls:
            yield f"        # {comment}\n        {_indented(source, 8)},\n"
        yield "    ],\n"
    yield "}\n\n\n"
    yield f"def test_{name}_{history.text[:8]}():\n    with replayed(RETURNED) as test:\n"
    if expected is None:
        yield "        test.call(FLOW, **PARAMETERS)\n"
    else:
        yield f"        assert test.call(FLOW, **PARAMETERS) == {_indented(expected, 8)}\n"


def _indented(source: str, by: int = 4) -> str:
    return source.replace("\n", "\n" + " " * by) if "'''" not in source else source


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]
