"""Rules, channels, routes: what people configure. One model for files, Python and the command line.

A rule is a fold over the log (`flightlog.notifications.folding`): it matches events, counts them up to a threshold,
holds them back while they may still mend themselves, groups them into incidents, and says who is told.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from flightlog.clock import to_datetime
from flightlog.notifications.durations import Duration, microseconds
from flightlog.notifications.expressions import check_expression
from flightlog.notifications.notifier import Severity

_NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._-]{0,99}$"
_DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_EVENTS_END = 3_600_000_000
"""No run completes after an event of another kind: incidents of such end when nothing more has happened for an hour."""
OURS = "channel down"
"""The name of the rule that comes with Flightlog."""
_GROUPS = ("flow", "run", "task", "state", "error", "event", "resource")


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]
"""One text or several: ``"etl-*"`` or ``["etl-*", "ml-*"]``."""
Expression = Annotated[str, AfterValidator(check_expression)]


class Model(BaseModel):
    """What all parts of a configuration have in common: no field that is not written down here."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Match(Model):
    """Which events a rule is about. What is not given does not matter."""

    flow: Names = Field(
        default=(), description="Names of flows; `*` and `?` stand for anything, `!` in front excludes."
    )
    task: Names = Field(default=(), description="Names of tasks: the rule is then about task runs, not flow runs.")
    tags: Names = Field(default=(), description="Tags that the run has, all of them; `!` in front: has not.")
    deployment: Names = Field(
        default=(), description="Names of the deployments that runs come from; a run that comes from none fits none."
    )
    state: Names = Field(
        default=(), description="State names (`TimedOut`) or types (`FAILED`); FAILED and CRASHED if nothing is said."
    )
    event: Names = Field(
        default=(), description="Event types, such as `event.emitted`: the rule is then about these events."
    )
    where: Expression | None = Field(
        default=None,
        description="An expression over the event's fields, such as `data.attempt >= 2 and 'prod' in tags`.",
    )


class Threshold(Model):
    """How much has to happen before there is an incident. One kind at a time; one matching event if nothing is said."""

    failures: int = Field(default=1, ge=1, description="So many matching events ...")
    within: Duration | None = Field(default=None, description="... within this span.")
    consecutive: int | None = Field(
        default=None, ge=1, description="So many matching runs in a row, none completing between."
    )
    not_succeeded_within: Duration | None = Field(
        default=None, description="No run has completed for so long; counted from the last that did, or the first seen."
    )
    slower_than: str | None = Field(
        default=None,
        description="A run takes longer than a span (`30m`), or than a percentile of its flow's runs (`p95`).",
    )
    recovered: bool = Field(default=False, description="The first run that completes after one that matched.")

    @field_validator("slower_than")
    @classmethod
    def _slower(cls, value: str | None) -> str | None:
        if value is not None and not (value[:1] == "p" and value[1:].isdigit() and 1 <= int(value[1:]) <= 99):
            microseconds(value)
        return value

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        kinds = [
            name
            for name, given in (
                ("failures", self.failures > 1 or self.within is not None),
                ("consecutive", self.consecutive is not None),
                ("not_succeeded_within", self.not_succeeded_within is not None),
                ("slower_than", self.slower_than is not None),
                ("recovered", self.recovered),
            )
            if given
        ]
        if len(kinds) > 1:
            raise ValueError(f"one kind of threshold at a time, not {' and '.join(kinds)}")
        if self.failures > 1 and self.within is None:
            raise ValueError("failures needs `within`: so many within which span?")
        return self


class Flapping(Model):
    """When an incident that comes and goes is told of no more for a while."""

    changes: int = Field(default=4, ge=2, description="So many openings and endings ...")
    within: Duration = Field(
        default=3_600_000_000, description="... within this span; it is over after as long without any."
    )


class Inhibit(Model):
    """What else keeps a rule quiet."""

    parents: bool = Field(
        default=True, description="A subflow's failure is not told if its parent fails too, and that is."
    )
    rules: Names = Field(
        default=(), description="While one of these rules has an open incident; what still goes on then is told after."
    )


class MuteTime(Model):
    """A time that comes again every week, in which nothing is sent; what still goes on then is told afterwards."""

    days: Names = Field(default=_DAYS, description="`mon` to `sun`.")
    start: time = Field(default=time(0), alias="from", description="Such as `22:00`.")
    end: time = Field(
        default=time(0), alias="to", description="Such as `06:00`; on the next day if it is not after `from`."
    )
    timezone: str = Field(default="UTC", description="Such as `Europe/Oslo`.")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    @field_validator("days")
    @classmethod
    def _known_days(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for day in value:
            if day not in _DAYS:
                raise ValueError(f"{day!r} is no day; they are {', '.join(_DAYS)}")
        return value

    @field_validator("timezone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(f"there is no time zone {value!r}; write it like Europe/Oslo") from None
        return value

    def until(self, now: int) -> int | None:
        """Return when the mute time ends that a moment lies in, in microseconds since 1970; None if it lies in none."""
        zone = ZoneInfo(self.timezone)
        here = to_datetime(now).astimezone(zone)
        for back in (1, 0):
            day = here.date() - timedelta(days=back)
            begin = datetime.combine(day, self.start, zone)
            end = datetime.combine(day if self.end > self.start else day + timedelta(days=1), self.end, zone)
            if _DAYS[day.weekday()] in self.days and begin <= here < end:
                return round(end.timestamp() * 1e6)
        return None


class Step(Model):
    """Whom an incident is told if nobody has acknowledged it."""

    after: Duration = Field(description="So long after it began.")
    channels: Names = Field(min_length=1, description="Through these channels.")


class Rule(Model):
    """A rule."""

    name: str = Field(pattern=_NAME, description="Its name.")
    description: str = Field(default="", description="What it is for.")
    enabled: bool = Field(default=True, description="Whether it counts.")
    severity: Severity = Field(default="error", description="How bad it is; messages show it, routes can ask for it.")
    match: Match = Field(default=Match(), description="Which events it is about.")
    threshold: Threshold = Field(default=Threshold(), description="How much has to happen.")
    hold: Duration | Literal["retries", "no"] = Field(
        default="retries",
        description="`retries`: until the run cannot mend itself any more by retries. A span: as long, and nothing is "
        "said if it recovers meanwhile. `no`: at once.",
    )
    group_by: Names = Field(
        default=("flow",), description=f"What makes one incident: {', '.join(_GROUPS)}, or `tag:PREFIX`."
    )
    resolve: Duration | Literal["success", "never"] = Field(
        default="success",
        description="`success`: a run of the group completes. A span: as long without a matching event.",
    )
    flapping: Flapping | None = Field(default=None, description="When what comes and goes is told of no more.")
    inhibit: Inhibit = Field(default=Inhibit(), description="What else keeps it quiet.")
    mute: tuple[MuteTime, ...] = Field(default=(), description="When nothing is sent.")
    channels: Names = Field(default=(), description="Who is told; the routes say so if nothing is given.")
    escalate: tuple[Step, ...] = Field(default=(), description="Who is told as well if nobody acknowledges it.")
    repeat_every: Duration | None = Field(
        default=None, description="Tell again while it goes on and nobody acknowledges it."
    )
    update_every: Duration = Field(default=60_000_000, description="How often a message that can be updated is.")
    digest: Duration | None = Field(default=None, description="Gather messages so long, and send one.")
    subject: str | None = Field(default=None, description="A template for the subject; ours by default.")
    body: str | None = Field(default=None, description="A template for the text; ours by default.")

    @property
    def ends_after(self) -> int | None:
        """After how long without a matching event an incident is over, in microseconds; None for never."""
        if isinstance(self.resolve, int):
            return self.resolve
        return _EVENTS_END if self.match.event and self.resolve == "success" else None

    @field_validator("name")
    @classmethod
    def _not_ours(cls, value: str) -> str:
        if value == OURS:
            raise ValueError(f"the rule {OURS!r} comes with Flightlog; give yours another name")
        return value

    @field_validator("group_by")
    @classmethod
    def _known_groups(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in _GROUPS and not name.startswith("tag:"):
                raise ValueError(f"{name!r} is nothing to group by; there are {', '.join(_GROUPS)} and tag:PREFIX")
        return value

    @field_validator("subject", "body")
    @classmethod
    def _sound(cls, value: str | None) -> str | None:
        from flightlog.notifications.templates import check_template

        if value is not None:
            check_template(value)
        return value


class Channel(Model):
    """A way that messages go out."""

    name: str = Field(pattern=_NAME, description="Its name.")
    kind: str | None = Field(
        default=None, description="Which notifier: `slack`, `email`, `webhook`, or one of a plug-in's."
    )
    block: str | None = Field(default=None, description="A saved block that is the configuration: `slack-webhook/ops`.")
    settings: Mapping[str, Any] = Field(default={}, description="The notifier's configuration; secrets as `env:NAME`.")
    rate: str | None = Field(
        default=None, description="So many messages at the most: `10/1h`. What is over is summed up."
    )
    fallback: Names = Field(default=(), description="Who is told when this channel is dead; all others by default.")
    can_update: bool = Field(default=False, description="Whether messages can be changed; found out when it is set.")

    @field_validator("rate")
    @classmethod
    def _rate(cls, value: str | None) -> str | None:
        if value is not None:
            rate_of(value)
        return value

    @model_validator(mode="after")
    def _kind_or_block(self) -> Self:
        if (self.kind is None) == (self.block is None):
            raise ValueError("give `kind` with the notifier's settings, or `block`, and not both")
        return self


def rate_of(value: str) -> tuple[int, int]:
    """Return how many messages in how many microseconds a rate such as ``10/1h`` allows.

    Raises:
        ValueError: it is no rate.
    """
    count, slash, span = value.partition("/")
    if not slash or not count.strip().isdigit() or int(count) < 1:
        raise ValueError(f"{value!r} is no rate; write it like 10/1h")
    return int(count), microseconds(span if span.strip()[:1].isdigit() else f"1{span.strip()}")


class Route(Model):
    """A branch of the routing tree: the first that matches takes an incident, and its own branches before itself."""

    flow: Names = Field(default=(), description="Names of flows, as in `match`.")
    tags: Names = Field(default=(), description="Tags, as in `match`.")
    deployment: Names = Field(default=(), description="Names of deployments, as in `match`.")
    rule: Names = Field(default=(), description="Names of rules; `*` and `?` stand for anything.")
    severity: tuple[Severity, ...] = Field(default=(), description="Any of these.")
    channels: Names = Field(default=(), description="Who is told.")
    go_on: bool = Field(default=False, alias="continue", description="Look at the branches that follow, too.")
    routes: "tuple[Route, ...]" = Field(default=(), description="Its own branches.")

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Silence(Model):
    """Which incidents nobody is told of for a time; what still goes on then is told afterwards."""

    rule: Names = Field(default=(), description="Names of rules.")
    flow: Names = Field(default=(), description="Names of flows, as in `match`.")
    tags: Names = Field(default=(), description="Tags, as in `match`.")
    comment: str = Field(default="", description="Why.")


class Configuration(Model):
    """All of a file: rules, channels and routes."""

    rules: tuple[Rule, ...] = ()
    channels: tuple[Channel, ...] = ()
    routes: tuple[Route, ...] = ()

    @model_validator(mode="after")
    def _whole(self) -> Self:
        for what, found in (("rule", self.rules), ("channel", self.channels)):
            names = [one.name for one in found]
            for number, name in enumerate(names):
                if name in names[:number]:
                    told = {"what": what, "name": name, "place": (f"{what}s", number, "name")}
                    raise PydanticCustomError("named_twice", "there are two {what}s named '{name}'", told)
        return self


def channels_of(routes: Sequence[Route]) -> set[str]:
    """Return the channels that a routing tree names."""
    return {name for route in routes for name in (*route.channels, *channels_of(route.routes))}
