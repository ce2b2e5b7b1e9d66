"""Files that configure notifications: what is wrong in one is said with its line."""

import tomllib
from pathlib import Path
from typing import Any

import pytest

from flightlog.errors import SettingsError
from flightlog.notifications.files import read_file
from flightlog.notifications.finding import find_file
from flightlog.notifications.toml_lines import line_of

DOCUMENT = '''\
# A comment with [rules] and name = "x"
title = """
[[rules]]
name = "in a text"
"""
[[rules]]
name = 'first # no comment'
match.flow = "etl"
"match"."tags" = [
  "a",  # one
  "b]",
]
[rules.threshold]
failures = 3
[[rules.escalate]]
after = "1m"
[[rules.escalate]]
after = "5m"
channels = ["a"]
[[rules]]
name = "second"
match = { flow = "etl", "where" = "1", inner = { deep = [{ b = 1 }, { c = 2 }] } }
escalate = [
  { after = "1m", channels = ["x"] },
  { after = "2m", channels = [  # an array may go on
    "y"] },
]
when = 1979-05-27 07:32:00
  [rules.inhibit]
  parents = false
[ channels . "a.b" ]
rate.per = \'\'\'it's\'\'\'
text = "a \\"quoted\\" = {word"
'''
LINES = {
    ("title",): 2,
    ("rules", 0): 6,
    ("rules", 0, "name"): 7,
    ("rules", 0, "match", "flow"): 8,
    ("rules", 0, "match", "tags", 1): 11,
    ("rules", 0, "threshold"): 13,
    ("rules", 0, "threshold", "failures"): 14,
    ("rules", 0, "escalate", 0, "after"): 16,
    ("rules", 0, "escalate", 1): 17,
    ("rules", 0, "escalate", 1, "channels", 0): 19,
    ("rules", 1, "name"): 21,
    ("rules", 1, "match", "inner", "deep", 1, "c"): 22,
    ("rules", 1, "escalate", 1, "channels"): 25,
    ("rules", 1, "escalate", 1, "channels", 0): 26,
    ("rules", 1, "when"): 28,
    ("rules", 1, "inhibit", "parents"): 30,
    ("channels", "a.b", "rate", "per"): 32,
    ("channels", "a.b", "text"): 33,
    ("channels", "a.b", "not there", 3): 31,
    ("nothing",): 1,
}


def parts(value: Any, place: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Return all places of a document."""
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place, *(found for key, one in inside for found in parts(one, (*place, key)))]


@pytest.mark.parametrize("place", LINES)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_each_part_has_its_line(place: tuple[str | int, ...], end: str) -> None:
    """Also in tables in tables, inline ones, arrays, dotted and quoted keys, and whatever texts look like."""
    assert line_of(DOCUMENT.replace("\n", end), place) == LINES[place]


def test_every_part_of_a_document_is_found() -> None:
    """The reader of lines and that of the standard library see the same parts."""
    from flightlog.notifications.toml_lines import _Scanner

    assert set(_Scanner(DOCUMENT).offsets) == set(parts(tomllib.loads(DOCUMENT))) - {()}


_OR = "Input should be 'retries' or 'no'"
WRONG: dict[str, tuple[str | bytes, list[str]]] = {
    "a nested table": (
        '[[rules]]\nname = "a"\n\n[rules.threshold]\nfailures = 0\nwithin = "1h"\n',
        [":5: rules.0.threshold.failures: Input should be greater than or equal to 1"],
    ),
    "an inline table": (
        '[[rules]]\nname = "a"\nmatch = { flwo = "etl" }\n',
        [":3: rules.0.match.flwo: there is no such key. Did you mean 'flow'?"],
    ),
    "an array of tables": (
        '[[rules]]\nname = "a"\n[[rules.mute]]\nfrom = "22:00"\n[[rules.mute]]\nform = "22:00"\n',
        [":6: rules.0.mute.1.form: there is no such key. Did you mean 'from'?"],
    ),
    "an array on several lines": (
        '[[rules]]\nname = "a"\nescalate = [\n  { after = "1m", channels = ["x"] },\n  { after = "1m" },\n]\n',
        [":5: rules.0.escalate.1.channels: this key is missing"],
    ),
    "a dotted key": (
        '[[rules]]\nname = "a"\nthreshold.slower_than = "p100"\n',
        [":3: rules.0.threshold.slower_than: 'p100' is no span of time; write it like 90s, 10m, 1h30m or 2d"],
    ),
    "routes in routes": (
        '[[rules]]\nname = "a"\n[[routes]]\nflow = "x"\n[[routes.routes]]\ncontinu = true\n',
        [":6: routes.0.routes.0.continu: there is no such key. Did you mean 'continue'?"],
    ),
    "several things": (
        '[[rules]]\nname = "a"\nhold = "long"\nseverity = "bad"\n',
        [
            ":3: rules.0.hold: 'long' is no span of time; write it like 90s, 10m, 1h30m or 2d; or: " + _OR,
            ":4: rules.0.severity: Input should be 'info', 'warning', 'error' or 'critical'",
        ],
    ),
    "a key at the top": ('[[rule]]\nname = "a"\n', [":1: rule: there is no such key. Did you mean 'rules'?"]),
    "a table where a list belongs": (
        '\n[rules]\nname = "a"\n',
        [":2: rules: a list belongs here, such as [[rules]]"],
    ),
    "a name twice": (
        '[[rules]]\nname = "a"\n[[rules]]\nname = "a"\n',
        [":4: rules.1.name: there are two rules named 'a'"],
    ),
    "the name of our own rule": (
        '[[rules]]\nname = "channel down"\n',
        [":2: rules.0.name: the rule 'channel down' comes with Flightlog; give yours another name"],
    ),
    "an expression": (
        '[[rules]]\nname = "a"\n[rules.match]\nwhere = "sate == 1"\n',
        [":4: rules.0.match.where: the expression 'sate == 1' uses 'sate', which there is not. Did you mean 'state'?"],
    ),
    "no TOML": ('[[rules]]\nname = "a\n', [":2: this is no TOML: Illegal character '\\n'."]),
    "a text without an end": ('[[rules]]\nname = """a\n', [":3: this is no TOML: Unterminated string."]),
    "another encoding": (
        b'[[rules]]\nname = "a"\ndescription = "caf\xe9"\n',
        [":3: this is not UTF-8, as TOML has to be. Save the file as UTF-8."],
    ),
    "lines of Windows, with a mark in front": (
        b'\xef\xbb\xbf[[rules]]\r\nname = "a"\r\nhld = "1m"\r\n',
        [":3: rules.0.hld: there is no such key. Did you mean 'hold'?"],
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_has_its_line(what: str, tmp_path: Path) -> None:
    """One line for each problem, with the file, the line and the key."""
    content, problems = WRONG[what]
    file = tmp_path / "notifications.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(SettingsError) as caught:
        read_file(file)
    assert str(caught.value).splitlines() == [f"{file}{problem}" for problem in problems]


def test_lines_count_in_the_shared_file_too(tmp_path: Path) -> None:
    """Where notifications are a table of flightlog.toml."""
    file = tmp_path / "flightlog.toml"
    file.write_text('[profiles]\n\n[[notifications.rules]]\nname = "a"\nhld = "1m"\n')
    with pytest.raises(SettingsError, match=r"flightlog.toml:5: rules.0.hld: there is no such key"):
        read_file(file)


def test_a_mark_in_front_hides_nothing(tmp_path: Path) -> None:
    """Some editors put one there."""
    file = tmp_path / "flightlog.toml"
    file.write_bytes(b'\xef\xbb\xbf[[notifications.rules]]\nname = "a"\n')
    assert find_file(tmp_path, tmp_path) == file
    assert [rule.name for rule in read_file(file).rules] == ["a"]
