"""Keeping the value of a run that has completed: in the log or in a storage, in memory or not."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flightlog.engine import facts, results
from flightlog.engine.bridge import Waits
from flightlog.engine.context import CURRENT
from flightlog.engine.outcomes import value_facts
from flightlog.engine.results import Keeping
from flightlog.engine.states import MISSING, State
from flightlog.errors import InvalidNameError, MissingResult
from flightlog.masking import MASKER

if TYPE_CHECKING:
    from flightlog.engine.context import TaskRunContext
    from flightlog.engine.runs import Run
    from flightlog.engine.runtime import Engine


async def kept(waits: Waits, engine: "Engine", state: State[Any], keeping: Keeping) -> tuple[dict[str, Any], Any]:
    """Return what the log is told of a completed state's value, and the blobs that go with it."""
    if keeping.storage is None:
        told, blobs = value_facts(engine.key, state.data, keeping)
    else:
        told, blobs = await waits.elsewhere(partial(value_facts, engine.key, state.data, keeping))
        if why := told["result"].get("not_recorded"):
            _warn(why)
    if not keeping.in_memory and state.data is not None and "digest" in told["result"]:
        state.data, state.load = MISSING, partial(_load, engine, told["result"], keeping)
    return told, blobs


def privately(keeping: Keeping, run: "Run") -> Keeping:
    """Return how a value of a run is kept: encrypted, if the run knows personal values."""
    if not run.subjects:
        return keeping
    return replace(keeping, closing=results.Closing(run.journal.engine.vault, run.subjects))


def _warn(why: str) -> None:
    from flightlog.engine.run_logs import ENGINE, say

    say(ENGINE, 30, f"A result was not recorded: {why.rstrip('.')}. The run goes on; its value is in memory only.", {})


def _load(engine: "Engine", reference: dict[str, Any], keeping: Keeping) -> Any:
    engine.log.flush()  # its blob may still be in line
    try:
        return results.fetch(engine.key, reference, engine.log.blob, keeping, vault=engine.vault)
    except results.NotLoadable as error:
        raise MissingResult(f"The recorded value cannot be loaded: {error}.") from None


def named(keeping: Keeping, home: Path, template: str, context: "TaskRunContext") -> Keeping:
    """Return how a value is kept under the name that a template gives.

    Args:
        keeping: how it is kept otherwise.
        home: the folder of all files that Flightlog keeps: there, in ``storage``, if no storage is named.
        template: `str.format` over ``parameters`` and the facts of `flightlog.runtime`: ``flow_run``, ``task_run``.
        context: the run whose value it is.

    Raises:
        InvalidNameError: the template cannot be filled in.
    """
    if context.task_run.subjects and "parameters" in template:
        raise InvalidNameError(
            f"The result_storage_key {template!r} would write personal values into the name of a file, from which "
            "they could not be erased. Make the name of something else."
        )
    runs = {"flow_run": facts.flow_run, "task_run": facts.task_run, "deployment": facts.deployment}
    token = CURRENT.set(context)
    try:
        key = MASKER.mask(template.format(parameters=dict(context.parameters), **runs))
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise InvalidNameError(f"The result_storage_key {template!r} cannot be filled in: {error}.") from None
    finally:
        CURRENT.reset(token)
    if keeping.storage is not None:
        return replace(keeping, key=key)
    from flightlog.plugins.file_systems import LocalFileSystem

    return replace(keeping, key=key, storage=LocalFileSystem(home / "storage"))
