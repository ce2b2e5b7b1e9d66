"""Texts of a rule's own: a small, harmless part of Jinja, checked when the rule is saved.

Whoever may write a rule must not get at the process, its secrets or its memory by it. So a template can show, choose
and repeat, and nothing else: there is no assignment, no macro and no call but ``range``, loops and everything that
could grow are bounded, and of objects only public fields can be seen.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache, wraps
from typing import Any

from jinja2 import (
    ChainableUndefined,
    StrictUndefined,
    Template,
    TemplateError,
    TemplateSyntaxError,
    Undefined,
    meta,
    nodes,
    pass_context,
)
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from flightlog.clock import duration
from flightlog.errors import FlightlogError
from flightlog.names import did_you_mean
from flightlog.notifications import wording
from flightlog.notifications.notifier import Entry, Message, RunFacts

LONGEST_SOURCE = 5_000
LONGEST_TEXT = 20_000
LONGEST_VALUE = 4_000
MOST_LOOPS, DEEPEST_LOOP, MOST_ITEMS, MOST_STEPS = 10, 2, 100, 1_000
_HIDDEN = frozenset({"first", "reached"})
VARIABLES = tuple(one.name for one in fields(Message) if one.name not in _HIDDEN)
"""What a template can name; `run` has the fields of `RunFacts`, and each of `entries` those of `Entry`."""
_PARTS: Mapping[str, type] = {"run": RunFacts, "entries": Entry}
_TEXTS = ("message", "error", "where", "task", "url")
_BUILT_IN = (
    "abs", "capitalize", "default", "first", "float", "int", "items", "last", "length", "lower", "round", "title",
    "trim", "truncate", "upper", "urlencode",
)  # fmt: skip
_ALLOWED = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.For, nodes.Name, nodes.Const, nodes.Getattr,
    nodes.Getitem, nodes.Slice, nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.And, nodes.Or, nodes.Not,
    nodes.Neg, nodes.Pos, nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Concat,
    nodes.CondExpr, nodes.List, nodes.Tuple, nodes.Dict, nodes.Pair, nodes.Keyword,
)  # fmt: skip
_WORDS = {"Assign": "set", "AssignBlock": "set", "Call": "a call", "Pow": "**", "CallBlock": "call"}


class TemplateProblem(FlightlogError, ValueError):
    """A template cannot be used.

    Args:
        text: what is wrong with it.
        line: in which line, from 1.
    """

    def __init__(self, text: str, line: int) -> None:
        super().__init__(f"Line {line}: {text}")
        self.line = line


@dataclass(frozen=True, slots=True)
class Rendered:
    """The texts of a message.

    Attributes:
        subject: one line.
        body: lines of plain text.
        problem: what was wrong with a template, if its text could not be used; the default one is there instead.
    """

    subject: str
    body: str
    problem: str | None = None


def check_template(source: str) -> None:
    """Check a template before it is used: its syntax, what it names, and that messages of each kind can be made.

    Args:
        source: the template.

    Raises:
        TemplateProblem: it cannot be used; the text says why, and in which line.
    """
    template = _compiled(source)
    for message in _samples():
        _text(template, message)


def render(message: Message, *, subject: str | None = None, body: str | None = None) -> Rendered:
    """Return the texts of a message. A template that fails never costs the message: the default text goes out.

    Args:
        message: the facts; its own subject and body do not count.
        subject: a template for the subject; None for the default.
        body: a template for the body; None for the default.
    """
    problems: list[str] = []

    def text(source: str | None, default: str, what: str) -> str:
        if source is None:
            return default
        try:
            return wording.clean(_text(_compiled(source), message), LONGEST_TEXT).strip() or default
        except TemplateProblem as problem:
            problems.append(f"The template of the {what} failed, so this is the default text. {problem}")
            return default

    line = wording.one_line(text(subject, wording.default_subject(message), "subject"))
    lines = text(body, wording.default_body(message), "body")
    if problems:
        lines = "\n\n".join([lines, *problems])
    return Rendered(line, lines, " ".join(problems) or None)


def _text(template: Template, message: Message) -> str:
    """Return a template's text for a message, cut when it gets too long."""
    pieces: list[str] = []
    size = 0
    try:
        for piece in template.generate(**_values(message)):
            pieces.append(piece)
            size += len(piece)
            if size > LONGEST_TEXT:
                break
    except Exception as error:  # noqa: BLE001 - whatever the user's template does wrong
        raise TemplateProblem(wording.one_line(str(error) or type(error).__name__, 300), _line(error)) from None
    return "".join(pieces)


def _values(message: Message) -> dict[str, Any]:
    values: dict[str, Any] = {name: getattr(message, name) for name in VARIABLES}
    values["_steps"] = [MOST_STEPS]
    for name in ("subject", "body"):
        values[name] = wording.clean(getattr(wording, f"default_{name}")(message), LONGEST_VALUE)
    if message.run is not None:
        values["run"] = _run(message.run)
    else:
        # So that {{ run.flow }} is empty in a message that is about no run, and {% if run %} is false.
        values["run"] = ChainableUndefined(name="run")
    return values


def _run(run: RunFacts) -> RunFacts:
    """Return a run as templates see it: texts are never None, so that they can be cut, and not too long."""
    texts: dict[str, Any] = {name: wording.clean(getattr(run, name) or "", LONGEST_VALUE) for name in _TEXTS}
    return replace(run, **texts)


def _line(error: Exception) -> int:
    """Return the template's line that an error comes from, which is in the traceback."""
    found, trace = 1, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            found = trace.tb_lineno
        trace = trace.tb_next
    return found


@lru_cache(256)
def _compiled(source: str) -> Template:
    if len(source) > LONGEST_SOURCE:
        raise TemplateProblem(f"It has {len(source):,} characters; {LONGEST_SOURCE:,} are the most.", 1)
    sandbox = environment()
    try:
        tree = sandbox.parse(source)
        allowed(tree)
        _names(tree)
        _bound_loops(tree)
        return Template.from_code(sandbox, sandbox.compile(tree, filename="<template>"), sandbox.make_globals(None))
    except TemplateSyntaxError as error:
        raise TemplateProblem(_syntax(error), error.lineno) from None
    except (TemplateError, RecursionError, MemoryError, SyntaxError, ValueError) as error:
        if isinstance(error, TemplateProblem):
            raise
        raise TemplateProblem(wording.one_line(str(error) or type(error).__name__, 300), 1) from None


def _syntax(error: TemplateSyntaxError) -> str:
    """Return what is wrong with the syntax, with the nearest name for a filter or test that there is not."""
    text = (error.message or "It cannot be read").rstrip(".")
    found = re.fullmatch(r"No (filter|test) named '(.*)'", text)
    if found is None:
        return f"{text}."
    known = environment().filters if found[1] == "filter" else environment().tests
    return (
        f"There is no {found[1]} {found[2]!r}.{did_you_mean(found[2], sorted(one for one in known if one[0] != '_'))}"
    )


def allowed(tree: nodes.Template) -> None:
    """Refuse what templates and expressions here cannot do.

    Raises:
        TemplateProblem: there is something of the kind.
    """
    for node in tree.find_all(nodes.Node):
        if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name == "range":
            continue
        if not isinstance(node, (*_ALLOWED, nodes.Helper)):
            name = type(node).__name__
            raise TemplateProblem(f"Templates here cannot have {_WORDS.get(name, name.lower())!r}.", node.lineno)
        if isinstance(node, nodes.For) and node.recursive:
            raise TemplateProblem("Loops cannot be recursive.", node.lineno)


def _bound_loops(tree: nodes.Template) -> None:
    """Bound the number of loops and their depth, and let each pass what it goes through to a filter that bounds it."""
    loops = list(tree.find_all(nodes.For))
    if len(loops) > MOST_LOOPS:
        raise TemplateProblem(f"There are {len(loops)} loops; {MOST_LOOPS} are the most.", loops[MOST_LOOPS].lineno)
    for loop in loops:
        if any(True for inner in loop.find_all(nodes.For) for _ in inner.find_all(nodes.For)):
            raise TemplateProblem(f"Loops can be {DEEPEST_LOOP} deep at the most.", loop.lineno)
    for loop in loops:
        loop.iter = nodes.Filter(loop.iter, "_bounded", [], [], None, None, lineno=loop.lineno)
        loop.iter.set_environment(environment())


def _names(tree: nodes.Template) -> None:
    """Refuse names that no message has, of variables and of their fields."""
    unknown = meta.find_undeclared_variables(tree) - {*VARIABLES, "range"}
    for name in tree.find_all(nodes.Name):
        if name.name in unknown or name.name == "self":
            raise TemplateProblem(f"There is no {name.name!r}.{did_you_mean(name.name, VARIABLES)}", name.lineno)
    parts = {"run": RunFacts, **dict(_loop_variables(tree))}
    for node in tree.find_all((nodes.Getattr, nodes.Getitem)):
        assert isinstance(node, (nodes.Getattr, nodes.Getitem))
        if isinstance(node.node, nodes.Name) and node.node.name in parts:
            _field(node, node.node.name, parts[node.node.name])


def _field(node: nodes.Node, owner: str, kind: type) -> None:
    """Refuse a field that there is not."""
    name = node.attr if isinstance(node, nodes.Getattr) else getattr(getattr(node, "arg", None), "value", None)
    known = [one.name for one in fields(kind)]
    if isinstance(name, str) and name not in known:
        raise TemplateProblem(f"There is no {f'{owner}.{name}'!r}.{did_you_mean(name, known)}", node.lineno)


def _loop_variables(tree: nodes.Template) -> Iterator[tuple[str, type]]:
    """Yield the variables of loops over what has fields."""
    for loop in tree.find_all(nodes.For):
        if isinstance(loop.target, nodes.Name) and isinstance(loop.iter, nodes.Name) and loop.iter.name == "entries":
            yield loop.target.name, _PARTS["entries"]


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, with arithmetic for numbers alone: a text times a billion fills the memory."""

    intercepted_binops = frozenset({"*", "%", "+", "-", "/", "//", "**"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Calculate with numbers; add texts, which only adds up."""
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            return _short(left + right)
        if not isinstance(left, (int, float)) or not isinstance(right, (int, float)):
            raise SecurityError(f"{operator} is for numbers here")
        if abs(left) > 1e18 or abs(right) > 1e18:
            raise SecurityError("the numbers are too large")
        return super().call_binop(context, operator, left, right)


def _short(text: Any) -> Any:
    if isinstance(text, str) and len(text) > LONGEST_TEXT:
        raise SecurityError(f"a text has more than {LONGEST_TEXT:,} characters")
    return text


def _list(values: Any) -> list[Any]:
    """Return what can be gone through, as a list that is not too long."""
    if isinstance(values, Undefined) or values is None:
        return []
    if not isinstance(values, (tuple, list, range, Mapping, Iterator)):
        raise SecurityError("only lists can be gone through")
    found = [value for value, _ in zip(values, range(MOST_ITEMS + 1), strict=False)]
    if len(found) > MOST_ITEMS:
        raise SecurityError(f"a list has more than {MOST_ITEMS} parts")
    return found


@pass_context
def _bounded(context: Context, values: Any) -> list[Any]:
    """Return what a loop goes through, as long as the template's loops together do not take too many steps."""
    found, steps = _list(values), context["_steps"]
    steps[0] -= len(found)
    if steps[0] < 0:
        raise SecurityError(f"the loops take more than {MOST_STEPS:,} steps together")
    return found


def _range(*bounds: int) -> range:
    found = range(*bounds)
    if len(found) > MOST_ITEMS:
        raise SecurityError(f"range can have {MOST_ITEMS} numbers at the most")
    return found


def _join(values: Any, between: str = "") -> str:
    """Join texts, with something between them."""
    parts = ["" if value is None else str(value) for value in _list(values)]
    if sum(map(len, parts)) + len(between) * len(parts) > LONGEST_TEXT:
        raise SecurityError(f"a text has more than {LONGEST_TEXT:,} characters")
    return between.join(parts)


def _replace(value: Any, old: str, new: str) -> str:
    """Replace a text in a text."""
    text = str(value)
    if not old or text.count(old) * len(new) + len(text) > LONGEST_TEXT:
        raise SecurityError(f"a text would have more than {LONGEST_TEXT:,} characters")
    return text.replace(old, new)


def _duration(microseconds: Any) -> str:
    """A time span: ``4m 12s``."""
    return duration(microseconds) if isinstance(microseconds, int) else ""


def _time(microseconds: Any) -> str:
    """A time: ``2026-11-25 06:02 UTC``."""
    return wording.moment(microseconds) if isinstance(microseconds, int) else ""


def _icon(state_type: Any) -> str:
    """The sign of a state type: ``✕``."""
    return wording.look_of_state(str(state_type)).icon


OWN_FILTERS: Mapping[str, Callable[..., Any]] = {
    "duration": _duration,
    "icon": _icon,
    "join": _join,
    "replace": _replace,
    "time": _time,
}
FILTERS = tuple(sorted({*_BUILT_IN, *OWN_FILTERS}))


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a filter that does not return more than a text may have."""

    @wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return _short(function(*args, **options))

    return call


def _shown(value: Any) -> Any:
    """Return what a template shows of a value: nothing of None, and no functions."""
    if callable(value) and not isinstance(value, Undefined):
        raise SecurityError("that is a function: it cannot be shown")
    return "" if value is None else value


@lru_cache(1)
def environment() -> _Environment:
    """Return the sandbox that templates and expressions are read and run in."""
    made = _Environment(
        undefined=StrictUndefined,
        finalize=_shown,
        keep_trailing_newline=False,
        trim_blocks=True,
        lstrip_blocks=True,
        cache_size=0,
    )
    filters = {name: _guarded(made.filters[name]) for name in _BUILT_IN}
    made.filters = {**filters, **OWN_FILTERS, "_bounded": _bounded}
    made.globals = {"range": _range}
    return made


def _samples() -> Iterator[Message]:
    """Yield a message of each kind that a template will meet."""
    run = RunFacts(
        id="0197f3a0-0000-7000-8000-000000000000", name="wise-otter", flow="daily-etl", state_type="FAILED",
        state_name="Failed", message="1 of 18 task runs failed", error="ValueError: 5 rows violate not_null",
        where="flows/etl.py:41", task="validate", attempt=3, attempts=3, took=252_000_000, usual=230_000_000,
        tasks={"COMPLETED": 13, "FAILED": 1}, earlier=("COMPLETED", "FAILED"), tags=("prod",),
        url="https://flightlog.example/runs/1",
    )  # fmt: skip
    bare = RunFacts(id="1", name="wise-otter", flow="daily-etl", state_type="CRASHED", state_name="Crashed")
    entry = Entry(at=1_700_000_000_000_000, text="ValueError: 5 rows", run="wise-otter")
    for kind in ("opened", "updated", "escalated", "resolved", "digest", "drill"):
        for about in (run, bare, None):
            yield Message(
                key="k", incident="i", kind=kind, rule="failures", severity="error", subject="", body="", count=2,
                opened_at=1_700_000_000_000_000, at=1_700_000_100_000_000, run=about, entries=(entry,),
                facts=(("Trigger", "schedule nightly"),), commands=("flightlog runs logs @last",), position=7,
                links=(("Logs", "https://flightlog.example/runs/1/logs"),), group="flow=daily-etl",
            )  # fmt: skip
