"""Each field of a configuration does what its description says; one without a test fails here."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel
from tests.notifications.rule_cases import Case, lived
from tests.notifications.rule_world import Notifier, World, working

from flightlog.notifications import rules
from flightlog.notifications.configuring import present
from flightlog.notifications.notifier import DeliveryError
from flightlog.notifications.responding import Responder
from flightlog.notifications.rules import Channel, Configuration, Route, Rule

CASES = [
    # --- match
    Case("Match.flow", "fail report", "ops opened, ops opened", {"match.flow": "etl"}, "ops opened"),
    Case("Match.task", "fail task", "ops opened", {"match.task": "lo*"}, "ops opened, ops resolved",
         rule={"group_by": ["flow", "task"]}),
    Case("Match.tags", "fail ok prod", "ops opened, ops resolved, ops opened", {"match.tags": ["prod"]}, "ops opened"),
    Case("Match.deployment", "fail ok deployed", "ops opened, ops resolved, ops opened", {"match.deployment": "night*"},
         "ops opened"),
    Case("Match.state", "fail ok", "ops opened, ops resolved", {"match.state": "Cancelled"}, ""),
    Case("Match.event", "emit", "", {"match.event": "data.*"}, "ops opened"),
    Case("Match.where", "fail ok key", "ops opened, ops resolved, ops opened",
         {"match.where": "data.error.type == 'KeyError'"}, "ops opened"),
    # --- threshold
    Case("Threshold.failures", "fail 5m fail", "ops opened", {"threshold.failures": 3, "threshold.within": "1h"}, ""),
    Case("Threshold.within", "fail 5m fail 2h fail", "ops opened", {"threshold.within": "1h"}, "",
         rule={"threshold": {"failures": 3, "within": "1d"}}),
    Case("Threshold.consecutive", "fail ok fail", "ops opened, ops resolved, ops opened",
         {"threshold.consecutive": 2}, ""),
    Case("Threshold.not_succeeded_within", "ok 2h", "", {"threshold.not_succeeded_within": "1h"}, "ops opened"),
    Case("Threshold.slower_than", "slow:5m slow:20m", "", {"threshold.slower_than": "10m"},
         "ops opened, ops resolved"),
    Case("Threshold.recovered", "fail fail ok", "ops opened, ops resolved", {"threshold.recovered": True},
         "ops resolved"),
    # --- flapping, inhibition
    Case("Flapping.changes", "fail ok fail ok fail ok", "ops opened, ops resolved" + ", ops opened, ops resolved" * 2,
         {"flapping.changes": 3}, "ops opened, ops resolved, ops opened"),
    Case("Flapping.within", "fail 2h ok 2h fail 2h ok", "ops opened, ops resolved, ops opened",
         {"flapping.within": "1h"}, "ops opened, ops resolved, ops opened, ops resolved",
         rule={"flapping": {"changes": 3, "within": "1d"}}),
    Case("Inhibit.parents", "parent", "ops opened", {"inhibit.parents": False}, "ops opened, ops opened"),
    Case("Inhibit.rules", "fail report 5m ok",
         "mail opened other, ops opened, ops opened, mail resolved other, ops resolved",
         {"inhibit.rules": ["other"]}, "mail opened other, mail resolved other, ops opened",
         more=({"name": "other", "match": {"flow": "etl"}, "channels": ["mail"]},)),
    # --- mute times: the clock begins on a Thursday, at midnight UTC
    Case("MuteTime.days", "fail", "", {"mute.days": ["fri"]}, "ops opened", rule={"mute": [{"to": "06:00"}]}),
    Case("MuteTime.start", "fail", "", {"mute.from": "00:30"}, "ops opened", rule={"mute": [{"to": "06:00"}]}),
    Case("MuteTime.end", "fail 30m 90m", "", {"mute.to": "02:00"}, "ops opened", rule={"mute": [{"from": "00:00"}]}),
    Case("MuteTime.timezone", "fail", "", {"mute.timezone": "Asia/Kolkata"}, "ops opened",
         rule={"mute": [{"from": "00:00", "to": "05:00"}]}),
    # --- escalation
    Case("Step.after", "fail 20m", "ops opened, mail escalated", {"escalate.after": "1h"}, "ops opened",
         rule={"escalate": [{"after": "10m", "channels": ["mail"]}]}),
    Case("Step.channels", "fail 20m", "ops opened, mail escalated", {"escalate.channels": ["ops"]},
         "ops opened, ops escalated", rule={"escalate": [{"after": "10m", "channels": ["mail"]}]}),
    # --- the rule
    Case("Rule.name", "fail", "ops opened", {"name": "named"}, "ops opened named"),
    Case("Rule.enabled", "fail", "ops opened", {"enabled": False}, ""),
    Case("Rule.severity", "fail", "ops opened", {"severity": "critical"}, "mail opened", rule={"channels": []},
         routes=({"severity": ["critical"], "channels": ["mail"]}, {"channels": ["ops"]})),
    Case("Rule.match", "fail report", "ops opened, ops opened", {"match": {"flow": "report"}}, "ops opened"),
    Case("Rule.threshold", "fail", "ops opened", {"threshold": {"consecutive": 2}}, ""),
    Case("Rule.hold", "fail 5m ok 20m", "ops opened, ops resolved", {"hold": "10m"}, ""),
    Case("Rule.group_by", "fail key", "ops opened", {"group_by": ["error"]}, "ops opened, ops opened"),
    Case("Rule.resolve", "fail ok 2h", "ops opened, ops resolved", {"resolve": "never"}, "ops opened"),
    Case("Rule.flapping", "fail ok fail ok fail", "ops opened, ops resolved, ops opened, ops resolved, ops opened",
         {"flapping": {"changes": 2}}, "ops opened, ops updated"),
    Case("Rule.inhibit", "parent", "ops opened", {"inhibit": {"parents": False}}, "ops opened, ops opened"),
    Case("Rule.mute", "fail", "ops opened", {"mute": [{"to": "06:00"}]}, ""),
    Case("Rule.channels", "fail", "ops opened", {"channels": ["mail", "ops"]}, "mail opened, ops opened"),
    Case("Rule.escalate", "fail 20m", "ops opened", {"escalate": [{"after": "10m", "channels": ["mail"]}]},
         "ops opened, mail escalated"),
    Case("Rule.repeat_every", "fail 1h 1h ack 1h", "ops opened", {"repeat_every": "1h"},
         "ops opened, ops escalated, ops escalated"),
    Case("Rule.update_every", "fail fail 2m fail 2m", "ops opened, ops updated, ops updated", {"update_every": "1h"},
         "ops opened", channels={"ops": {"kind": "slack", "settings": {"token": "env:T", "channel": "#a"}}}),
    Case("Rule.digest", "fail report 2h", "ops opened, ops opened", {"digest": "1h"}, "ops digest"),
    # --- channels
    Case("Channel.rate", "fail report 2h", "ops opened, ops opened", {"channel.rate": "1/1h"},
         "ops opened, ops digest"),
    Case("Channel.kind", "fail fail 2m", "ops opened",
         {"channel.kind": "slack", "channel.settings": {"token": "env:T", "channel": "#a"}}, "ops opened, ops updated"),
    # --- routes
    Case("Route.flow", "report", "ops opened", {"route.flow": "etl"}, "mail opened"),
    Case("Route.tags", "fail", "ops opened", {"route.tags": ["prod"]}, "mail opened"),
    Case("Route.deployment", "fail ok deployed", "ops opened, ops resolved, ops opened",
         {"route.deployment": "nightly"}, "mail opened, mail resolved, ops opened"),
    Case("Route.rule", "fail", "ops opened", {"route.rule": "other"}, "mail opened"),
    Case("Route.severity", "fail", "ops opened", {"route.severity": ["info"]}, "mail opened"),
    Case("Route.channels", "fail", "ops opened", {"route.channels": ["mail", "ops"]}, "mail opened, ops opened"),
    Case("Route.go_on", "fail", "ops opened", {"route.continue": True}, "mail opened, ops opened"),
    Case("Route.routes", "fail", "ops opened", {"route.routes": [{"flow": "etl", "channels": ["mail"]}]},
         "mail opened"),
]  # fmt: skip
ELSEWHERE = {
    "Rule.description": "it is for people alone",
    "Rule.subject": "test_templates_of_a_rule",
    "Rule.body": "test_templates_of_a_rule",
    "Channel.name": "every test here names one",
    "Channel.block": "test_saved_channels",
    "Channel.settings": "test_sending: addresses and headers that are found in the environment",
    "Channel.can_update": "test_a_channel_that_can_update_is_found_out",
    "Channel.fallback": "test_the_fallback_of_a_channel_is_told_that_it_is_down",
    "Configuration.rules": "every test here has one",
    "Configuration.channels": "every test here has two",
    "Configuration.routes": "the tests of routes",
    "Silence.rule": "test_a_silence_is_about_what_it_names",
    "Silence.flow": "test_a_silence_is_about_what_it_names",
    "Silence.tags": "test_a_silence_is_about_what_it_names",
    "Silence.comment": "it is for people alone",
}
LISTS = ("mute", "escalate")


@pytest.fixture
def world() -> Iterator[World]:
    """Return a log in virtual time with rules at work."""
    with working() as made:
        yield made


def with_field(case: Case) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """Return a case's rule, channels and routes with its field set."""
    rule = {**case.rule}
    channel = {**case.channels.get("ops", {})}
    route: dict[str, Any] = {"channels": ["ops"]}
    for name, value in case.set.items():
        place, _, key = name.rpartition(".")
        if place == "channel":
            channel[key] = value
        elif place == "route":
            route[key] = value
        elif place in LISTS:
            rule[place] = [{**case.rule[place][0], key: value}]
        elif place:
            rule[place] = {**rule.get(place, {}), key: value}
        else:
            rule[key] = value
    is_about_routes = case.name.startswith("Route.")
    routes = [route, {"channels": ["mail"]}] if is_about_routes else list(case.routes)
    return {**rule, **({"channels": []} if is_about_routes else {})}, {"ops": channel}, routes


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_field_does_what_it_says(case: Case) -> None:
    """The same story ends otherwise with it."""
    is_about_routes = case.name.startswith("Route.")
    with working() as world:
        routes = [{"channels": ["ops"]}, {"channels": ["mail"]}] if is_about_routes else case.routes
        rule = {**case.rule, **({"channels": []} if is_about_routes else {})}
        assert lived(world, rule, case, case.channels, routes) == case.without
    with working() as world:
        rule, channels, routes = with_field(case)
        assert lived(world, rule, case, channels, routes) == case.sent
    assert case.sent != case.without


@pytest.mark.parametrize(
    ("about", "is_told"),
    [
        ({}, False), ({"flow": "et*"}, False), ({"flow": "report"}, True), ({"rule": "r"}, False),
        ({"rule": "other"}, True), ({"tags": ["prod"]}, False), ({"tags": ["test"]}, True),
    ],
)  # fmt: skip
def test_a_silence_is_about_what_it_names(world: World, about: dict[str, Any], is_told: bool) -> None:
    """Incidents of other rules, flows and tags are told."""
    Responder(world.engine.log, world.clock, world.engine.ids).silence(10**9, rules.Silence(**about))
    assert lived(world, {}, Case("", "prod", "", {}, ""), {}, ()) == ("ops opened" if is_told else "")


def test_every_field_has_a_test() -> None:
    """A field that is new needs one."""
    models = [
        one for one in vars(rules).values()
        if isinstance(one, type) and issubclass(one, BaseModel) and one.__module__ == rules.__name__
    ]  # fmt: skip
    fields = {f"{model.__name__}.{name}" for model in models for name in model.model_fields}
    assert fields == {case.name for case in CASES} | ELSEWHERE.keys()
    assert {Channel, Configuration, Route, Rule} <= set(models)


STORY = Case("", "fail", "", {}, "")


def test_templates_of_a_rule(world: World) -> None:
    """They say what a message says."""
    rule = {"subject": "{{ rule }}: {{ run.flow }}", "body": "{{ run.error }}!"}
    assert lived(world, rule, STORY, {}, ()) == "ops opened"
    (message,) = world.notifiers["ops"].sent
    assert (message.subject, message.body) == ("r: etl", "ValueError: no rows!")


def test_a_channel_that_can_update_is_found_out(world: World) -> None:
    """By its notifier, whatever is written down."""
    slack = {"kind": "slack", "settings": {"token": "env:T", "channel": "#a"}}
    world.configure({"name": "r"}, channels={"ops": slack, "mail": {"can_update": True}})
    found = {name: one.can_update for name, one in present(world.engine.log).channels.items()}
    assert found == {"ops": True, "mail": False}


@pytest.mark.parametrize(("fallback", "told"), [(["mail"], ["mail"]), ([], ["chat", "mail"])])
def test_the_fallback_of_a_channel_is_told_that_it_is_down(world: World, fallback: list[str], told: list[str]) -> None:
    """All others are, if it has none."""
    world.notifiers["chat"] = Notifier()
    world.notifiers["ops"].problem = DeliveryError("gone", is_final=True)
    lived(world, {}, STORY, {"ops": {"fallback": fallback}}, ())
    assert sorted(name for name, one in world.notifiers.items() if one.sent) == told
