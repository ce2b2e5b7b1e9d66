"""The logs projection: what runs logged, and what their state changes say, in one sequence."""

from collections.abc import Iterable, Sequence

from sqlalchemy import BigInteger, Column, Integer, LargeBinary, MetaData, Table, Text

from flightlog.events.model import Event
from flightlog.events.narration import narrate
from flightlog.events.types import FLOW_RUN, LOG_LINES, STATES, TASK_RUN, flow_run_of
from flightlog.projections.projection import Look, Put

metadata = MetaData()

log_lines = Table(
    "log_lines",
    metadata,
    Column("flow_run_id", LargeBinary, primary_key=True),
    Column("at", BigInteger, primary_key=True),
    Column("position", BigInteger, primary_key=True),
    Column("line", Integer, primary_key=True),
    Column("level", Integer),
    Column("task_run_id", LargeBinary),
    Column("message", Text),
    sqlite_with_rowid=False,
)


class LogsProjection:
    """Folds log lines and state changes into the lines of every flow run."""

    name: str = "logs"
    version: int = 2
    tables: Sequence[Table] = (log_lines,)
    types: frozenset[str] | None = frozenset(
        {LOG_LINES, *(f"{kind}.{suffix}" for kind in (FLOW_RUN, TASK_RUN) for suffix in STATES)}
    )

    def apply(self, event: Event, look: Look, /) -> Iterable[Put]:
        """Return the lines that an event adds."""
        flow_run = flow_run_of(event.stream)
        if flow_run is None:
            return
        if event.type == LOG_LINES:
            for number, (at, level, _, task_run, message) in enumerate(event.data["lines"]):
                values = {"level": level, "message": message}
                if task_run is not None:
                    values["task_run_id"] = task_run
                yield Put("log_lines", (flow_run, at, event.position, number), values)
            return
        kind = event.type.partition(".")[0]
        for number, line in enumerate(narrate(event.type, event.data, kind)):
            values = {"level": line.level, "message": line.text}
            if kind == TASK_RUN and not line.by_flow:
                values["task_run_id"] = event.data["task_run_id"]
            yield Put("log_lines", (flow_run, event.occurred_at, event.position, number), values)
