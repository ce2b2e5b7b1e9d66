"""Templates: what they can do, what they cannot, and that no message is lost by one."""

import dataclasses
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flightlog.notifications.notifier import Entry, Message
from flightlog.notifications.templates import FILTERS, VARIABLES, Rendered, TemplateProblem, check_template, render
from flightlog.testing.notifier_contract import hostile, sample


def body(source: str, message: Message | None = None) -> str:
    """Return the body that a template gives."""
    rendered = render(message or sample(), body=source)
    assert rendered.problem is None
    return rendered.body


def problem(source: str) -> str:
    """Return what is wrong with a template."""
    with pytest.raises(TemplateProblem) as caught:
        check_template(source)
    return str(caught.value)


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ run.flow }} is {{ run.state_name }}", "daily-etl is Failed"),
        ("{{ run.took|duration }} at {{ at|time }}", "4m 12s at 2025-11-25 06:02 UTC"),
        ("{{ run.state_type|icon }} {{ run.error|truncate(14) }}", "✕ ValueError:..."),
        ("{% for state, n in run.tasks|items %}{{ state|lower }}={{ n }} {% endfor %}",
         "completed=13 failed=1 scheduled=2 cancelled=2"),
        ("{% if severity in ('error', 'critical') %}Bad{% else %}Fine{% endif %}", "Bad"),
        ("{{ run.tags|join(', ') }}{{ count + 1 }}", "prod2"),
        ("{% for label, value in facts %}{{ loop.index }}. {{ label }}: {{ value }}{% endfor %}",
         "1. Trigger: schedule nightly"),
        ("{{ run.name|replace('-', ' ')|title }}", "Wise Otter"),
        ("{{ subject }}", "Failed: daily-etl (validate: ValueError)"),
        ("{{ body }}",
         "validate, attempt 3 of 3, flows/etl.py:41\nValueError: 5 rows violate not_null(customer_id)"),
        ("{% for i in range(3) %}{{ i }}{% endfor %}{{ commands|first|upper }}",
         "012FLIGHTLOG RUNS LOGS WISE-OTTER --FAILED"),
        ("{# a note #}{{ 'x' ~ 7 // 2 ~ 7 % 2 ~ (count > 0 and not repeat) }}", "x31True"),
    ],
)  # fmt: skip
def test_what_templates_can_do(source: str, text: str) -> None:
    """Show, choose, repeat, and the filters of the table."""
    check_template(source)
    assert body(source) == text


def test_what_is_not_there_is_empty() -> None:
    """A message about no run, a run without an error: nothing is shown, and tests for it are false."""
    source = "[{{ run.flow }}{{ run.took|duration }}{% if run %}run{% endif %}{{ run.error|truncate(5) }}]"
    check_template(source)
    assert body(source, sample(run=None)) == "[]"


def test_entries_have_their_fields() -> None:
    """A message about many things lists them."""
    entries = tuple(Entry(at=1_764_050_520_000_000, text=f"error {n}", run=f"r{n}") for n in range(3))
    source = "{% for one in entries %}{{ one.at|time }} {{ one.run }}: {{ one.text }}\n{% endfor %}"
    check_template(source)
    assert body(source, sample(entries=entries)).splitlines()[2] == "2025-11-25 06:02 UTC r2: error 2"


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        ("{{ run.flwo }}", 1, "There is no 'run.flwo'. Did you mean 'flow'?"),
        ("a\n{{ rnu.flow }}", 2, "There is no 'rnu'. Did you mean 'run'?"),
        ("{{ run['errror'] }}", 1, "There is no 'run.errror'. Did you mean 'error'?"),
        ("{% for e in entries %}\n\n{{ e.txt }}{% endfor %}", 3, "There is no 'e.txt'. Did you mean 'text'?"),
        ("\n\n{{ run.error|uper }}", 3, "There is no filter 'uper'. Did you mean 'upper'?"),
        ("{{ count is evn }}", 1, "There is no test 'evn'. Did you mean 'even'?"),
        ("{{ run.flow", 1, "unexpected end of template"),
        ("{% if count %}", 1, "Unexpected end of template"),
        ("x\n{% iff count %}{% endif %}", 2, "Encountered unknown tag 'iff'"),
        ("{{ 1 / (count - 2) }}", 1, "division by zero"),
        ("{{ first }}", 1, "There is no 'first'."),
        ("{{ run.flow.upper }}", 1, "that is a function"),
    ],
)
def test_mistakes_are_named_with_their_line(source: str, line: int, text: str) -> None:
    """Syntax, names, filters, tests: each with the nearest one that there is."""
    with pytest.raises(TemplateProblem) as caught:
        check_template(source)
    assert caught.value.line == line
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "source",
    [
        "{{ run.__class__ }}", "{{ run.flow.__class__.__mro__ }}", "{{ ''.__class__ }}", "{{ run['__class__'] }}",
        "{{ run|attr('__class__') }}", "{{ run.flow.format('x') }}", "{{ self }}",
        "{{ self._TemplateReference__context }}",
        "{{ cycler }}", "{{ lipsum() }}", "{{ namespace(a=1) }}", "{{ dict(a=1) }}",
        "{{ joiner }}", "{{ range.__globals__ }}",
        "{% set x = 1 %}", "{% macro f() %}{% endmacro %}", "{% include 'x' %}", "{% import 'x' as y %}",
        "{% extends 'x' %}", "{% block a %}{% endblock %}", "{% call f() %}{% endcall %}",
        "{% filter upper %}{% endfilter %}",
        "{% with a = 1 %}{% endwith %}", "{% autoescape true %}{% endautoescape %}", "{{ loop }}", "{{ super() }}",
        "{% for x in entries recursive %}{{ loop(x) }}{% endfor %}", "{{ _steps }}", "{{ run.flow|map('upper') }}",
        "{% for x in entries %}{{ loop.__init__ }}{% endfor %}", "{{ run.tasks.items }}", "{{ run.flow|tojson }}",
    ],
)  # fmt: skip
def test_nothing_inside_can_be_reached(source: str) -> None:
    """No attributes that are not of a message, no functions, no other templates."""
    problem(source)


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 1000000000 }}", "{{ [1] * 1000000000 }}", "{{ 9 ** 9 ** 9 }}", "{{ '%999999999d' % 1 }}",
        "{{ range(10000000) }}", "{% for a in range(100) %}{% for b in range(100) %}{% endfor %}{% endfor %}",
        "{% for a in entries %}{% for b in entries %}{% for c in entries %}{% endfor %}{% endfor %}{% endfor %}",
        "{% for c in body %}{{ c }}{% endfor %}", "{{ 'a'" + "|replace('a', 'aaaaaaaaaa')" * 9 + " }}",
        "{{ run.error|replace('', 'x') }}", "{{ 'a'|length" + " ~ body" * 900 + " }}",
        "{{ " + "(" * 2_000 + "1" + ")" * 2_000 + " }}", "{% if count %}" * 200 + "{% endif %}" * 200, "x" * 6_000,
        "{% for a in entries %}{% endfor %}" * 11, "{{ " + " * ".join(["999999999999"] * 9) + " }}",
    ],
)  # fmt: skip
def test_nothing_grows_without_bound(source: str) -> None:
    """Texts, numbers, loops, nesting: each is refused before it fills the memory, when the rule is saved."""
    assert problem(source).startswith("Line ")


def test_an_output_that_is_too_long_is_cut() -> None:
    """A template may say much; what goes out is bounded."""
    source = "{% for a in range(100) %}{{ a }}" + "x" * 3_000 + "{% endfor %}"
    assert len(body(source)) == 20_000


@pytest.mark.parametrize(
    "source", ["{{ 10 // (count - 1) }}", "{{ run.took / 2 }}{{ nonsense }}", "{{ run.flow", "x" * 9_999]
)
def test_a_template_that_fails_never_costs_the_message(source: str) -> None:
    """The default text goes out, with what was wrong."""
    rendered = render(sample(), subject=source, body=source)
    default = render(sample())
    assert rendered.subject == default.subject
    assert rendered.body.startswith(default.body)
    assert "The template of the subject failed" in rendered.body
    assert "The template of the body failed" in rendered.body
    assert rendered.problem
    assert "Line 1" in rendered.problem


def test_an_empty_text_is_the_default_one() -> None:
    """A message always says something."""
    assert render(sample(), subject="{% if false %}x{% endif %}", body="  ") == render(sample())


def test_a_subject_is_one_line() -> None:
    """Whatever its template gives."""
    rendered = render(sample(), subject="a\r\nBcc: x\n\n{{ run.flow }}")
    assert rendered.subject == "a Bcc: x daily-etl"


@pytest.mark.parametrize(
    ("changes", "subject"),
    [
        ({}, "Failed: daily-etl (validate: ValueError)"),
        ({"count": 12}, "Failed 12 times: daily-etl (validate: ValueError)"),
        ({"kind": "updated", "count": 3}, "Failed again: daily-etl (validate: ValueError), 3 events"),
        ({"kind": "escalated", "at": 1_764_054_120_000_000},
         "Escalated: daily-etl (validate: ValueError), open for 1h 00m"),
        ({"kind": "resolved", "at": 1_764_058_020_000_000}, "Recovered: daily-etl after 2h 05m"),
        ({"kind": "digest", "run": None, "left_out": 3}, "Digest: 3 incidents, prod failures"),
        ({"kind": "drill", "is_drill": True}, "Drill: Failed: daily-etl (validate: ValueError)"),
        ({"kind": "drill", "run": None}, "Drill: prod failures"),
        ({"run": None}, "Error: flow=daily-etl"),
        ({"run": None, "group": "", "severity": "critical"}, "Critical: prod failures"),
    ],
)  # fmt: skip
def test_default_subjects(changes: dict[str, Any], subject: str) -> None:
    """Short, and the same words everywhere."""
    assert render(sample(**changes)).subject == subject


def test_default_subjects_tell_states_by_their_names() -> None:
    """A time limit and a crash are not just failures."""
    run = sample().run
    assert run is not None
    late = dataclasses.replace(run, state_name="TimedOut", task=None, error="TimeoutError: exceeded 60 s")
    lost = dataclasses.replace(run, state_type="CRASHED", state_name="Crashed", task=None, error=None)
    assert render(sample(run=late)).subject == "TimedOut: daily-etl (TimeoutError)"
    assert render(sample(run=lost)).subject == "Crashed: daily-etl"


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=200) | st.lists(st.sampled_from([
    "{{", "}}", "{%", "%}", "run", ".", "flow", "|", "upper", "for", "x", "in", "entries", "endfor", "if", "endif", " ",
    "(", ")", "'a'", "*", "99", "[", "]", "~", "body", "join", "replace", "range",
]), max_size=40).map(" ".join))  # fmt: skip
def test_any_source_gives_a_text_or_a_problem(source: str) -> None:
    """Nothing else ever comes out of a template."""
    rendered = render(hostile(), subject=source, body=source)
    assert isinstance(rendered, Rendered)
    assert rendered.subject
    assert "\n" not in rendered.subject
    assert len(rendered.body) < 50_000
    with suppress(TemplateProblem):
        check_template(source)


def test_what_is_documented_is_what_there_is() -> None:
    """Receipts are no business of templates; each filter has a name that one can type."""
    assert not {"first", "reached"} & set(VARIABLES)
    assert {"run", "count", "entries", "severity", "group", "rule"} <= set(VARIABLES)
    assert all(name.isalpha() for name in FILTERS)
