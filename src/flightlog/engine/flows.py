"""Flows: functions whose every call is a flow run."""

import functools
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, Unpack, overload

from flightlog.awaiting import as_asked
from flightlog.engine import loading, provenance
from flightlog.engine.bridge import ASYNC, SYNC, run_sync
from flightlog.engine.cancelling import interruptions
from flightlog.engine.context import current
from flightlog.engine.definitions import Definition, P, R, finish, function_name
from flightlog.engine.depth import awaited_with_room, check_room
from flightlog.engine.flow_calls import FlowCall
from flightlog.engine.flow_runs import run_flow
from flightlog.engine.names import checked_template, source_file
from flightlog.engine.options import FlowOptions, Hook
from flightlog.engine.parameters import Validator, schema
from flightlog.engine.runtime import current_engine
from flightlog.engine.states import State
from flightlog.engine.streams import stream
from flightlog.engine.task_runners import checked_runner

if TYPE_CHECKING:
    from flightlog.engine.graphs import Graph

T = TypeVar("T")


class Flow(Definition[P, R]):
    """A function whose every call is a flow run. Make one with `flow`.

    Attributes:
        fn: the function itself; calling it leaves no trace.
        name: the flow's name.
        isasync: whether the function is a coroutine function.
        version: the flow's version; the MD5 of its source file by default.
    """

    kind = "flow"
    known_options = FlowOptions
    hook_kinds = (*Definition.hook_kinds, "on_cancellation", "on_crashed")
    absent = dict.fromkeys(
        ("serve", "deploy", "to_deployment", "from_source"),
        "it comes with deployments; until then call the flow, or use `flightlog run FILE.py:FLOW`",
    )

    def __init__(self, fn: Callable[P, R], **options: Unpack[FlowOptions]) -> None:
        super().__init__(fn, options)
        self.version = self.version or provenance.source_digests(source_file(self.function))[1]
        self.flow_run_name = checked_template(options.get("flow_run_name"), "flow_run_name", self.signature.names)
        self.task_runner = checked_runner(options.get("task_runner"))
        self.should_validate_parameters = options.get("validate_parameters") is not False
        self.validate = Validator(self.signature) if self.should_validate_parameters else _as_they_are

    @staticmethod
    def default_name(fn: Any) -> str:
        """Return the function's name with ``-`` for ``_``."""
        name = function_name(fn)
        return "unknown-lambda" if name == "<lambda>" else name.replace("_", "-")

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of the parameters, with ``properties`` by name and which are ``required``."""
        return schema(self.signature)

    def with_options(self, **options: Unpack[FlowOptions]) -> Self:
        """Return a flow like this one with some options changed; this one stays as it is.

        An option that is None stays as it is, too; but None resets run-name templates, `persist_result`,
        `log_prints`, and where and how results are stored. `timeout_seconds=0` and `retries=0` mean none.

        Raises:
            TypeError: there is no such option.
        """
        return self._with(options)

    def visualize(self, *args: Any, **kwargs: Any) -> "Graph":
        """Draw the flow: run its code with nothing in the place of its tasks, and return what rests on what.

        All other code of the flow runs. A task whose value that code looks at needs a `viz_return_value`.

        Args:
            args, kwargs: the flow's arguments.

        Returns:
            Graph: as text (``.mermaid()``, ``.dot()``), or as an image: ``.render("flow.svg")``.

        Raises:
            VisualizationUnsupportedError: the code needs a value that is not there.
        """
        from flightlog.engine.graphs import drawn

        return as_asked(drawn(self, args, kwargs))

    def on_cancellation(self, hook: Hook) -> Hook:
        """Call a function when a run is being cancelled: ``hook(flow, flow_run, state)``."""
        return self._add_hook("on_cancellation", hook)

    def on_crashed(self, hook: Hook) -> Hook:
        """Call a function when a run has crashed in this process; see `on_cancellation`."""
        return self._add_hook("on_crashed", hook)

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> R: ...
    @overload
    def __call__(
        self: "Flow[..., Coroutine[Any, Any, T]]",
        /,
        *args: Any,
        return_state: Literal[True],
        wait_for: Iterable[Any] | None = None,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, State[T]]: ...
    @overload
    def __call__(
        self, /, *args: Any, return_state: Literal[True], wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> State[R]: ...
    @overload
    def __call__(
        self, /, *args: Any, return_state: Literal[False] = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> R: ...

    def __call__(  # type: ignore[misc]  # the marks `return_state` and `wait_for` are reserved names
        self, /, *args: Any, return_state: bool = False, wait_for: Iterable[Any] | None = None, **kwargs: Any
    ) -> Any:
        """Run the flow and return its value; awaitable if the function is async.

        The value is what the function returns, with futures and states in it replaced by their values.

        Args:
            args, kwargs: the arguments; they are checked against the annotations, and cast.
            return_state: return the final `State` instead, and do not raise for a flow that failed.
            wait_for: for a flow that is called in a flow: futures or states that have to complete before.

        Raises:
            ParameterBindError: the arguments do not fit the signature; no run is created.
            ParameterTypeError: they do not fit the annotations; the run is Failed.
            Exception: the first failure, if the flow failed.
        """
        if loading.is_loading():
            warnings.warn(
                f"The flow {self.name!r} was called while its file was being loaded, and did not run. Put the call "
                'under `if __name__ == "__main__":`.',
                stacklevel=2,
            )
            return _nothing() if self.isasync else None
        caller = current()
        parameters = self.bind(args, kwargs)
        if wait_for is not None and caller is None:
            raise ValueError("Only flows run as subflows can wait for dependencies.")
        if caller is not None and (relay := caller.flow_context.relay) is not None:
            return relay.call(self, args, {**kwargs, "return_state": return_state, "wait_for": wait_for})
        if caller is None:
            engine = current_engine()
        else:
            check_room(self.name)
            engine = caller.flow_context.engine
        call = FlowCall(self, engine, caller, parameters, wait_for)
        if self.isgenerator and not return_state:
            return stream(call, run_flow, isasync=self.isasync)
        if self.isasync and (caller is None or caller.isasync):
            return self._run_async(call, return_state)
        with termination(outermost=caller is None):
            return finish(run_sync(run_flow(SYNC, call)), return_state)

    def _run(self, *args: P.args, **kwargs: P.kwargs) -> Any:
        """Call the flow and return its final `State`, under the name that Prefect 2 has for that."""
        call: Any = self
        return call(*args, **kwargs, return_state=True)

    async def _run_async(self, call: FlowCall, return_state: bool) -> Any:
        with termination(outermost=call.caller is None):
            return finish(await awaited_with_room(run_flow(ASYNC, call)), return_state)

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}>"


async def _nothing() -> None:
    pass


def _as_they_are(parameters: dict[str, Any]) -> dict[str, Any]:
    return parameters


@contextmanager
def termination(*, outermost: bool) -> Iterator[None]:
    """While an outermost flow runs in the main thread, SIGTERM and the like end it as an exception: it is recorded."""
    if outermost and threading.current_thread() is threading.main_thread():
        with interruptions():
            yield
    else:
        yield


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(fn: "classmethod[Any, P, R]", /) -> Flow[P, R]: ...
@overload
def flow(fn: "staticmethod[P, R]", /) -> Flow[P, R]: ...
@overload
def flow(**options: Unpack[FlowOptions]) -> Callable[[Callable[P, R]], Flow[P, R]]: ...


def flow(fn: Any = None, /, **options: Any) -> Any:
    """Make a flow of a function: ``@flow`` or ``@flow(retries=1)``.

    Args:
        name: the flow's name; the function's with ``-`` for ``_`` by default.
        version: its version; the MD5 of the source file by default.
        description: what it does; the docstring by default.
        flow_run_name: names of its runs: a template over the parameters (``"load {day}"``) or a function; two
            random words by default.
        retries: how often a failed attempt is tried again; what completed in it does not run again. A number, or a
            budget for each cause class; by default what the setting FLIGHTLOG_FLOW_DEFAULT_RETRIES says.
        retry_delay_seconds: seconds before each retry: a number, a list, or a function of `retries`.
        task_runner: where submitted tasks run: `ConcurrentTaskRunner` (default), `SequentialTaskRunner`, another
            one, or the name that a plug-in gives it.
        timeout_seconds: how long an attempt may take; None for ever.
        validate_parameters: whether arguments are checked against the annotations, and cast.
        persist_result: False to leave its values out of the log.
        result_storage: where values of the flow and of its tasks are kept; see `task`.
        result_serializer: how they become bytes; see `task`.
        cache_result_in_memory: False to let go of its value once it is recorded, and load it when asked for.
        log_prints: whether prints become log lines; None as the flow that calls it has it, or the setting.
        on_running: functions that are called as ``hook(flow, flow_run, state)`` once a run starts running.
        on_completion: the same for a run that has completed.
        on_failure: the same for a run that has failed and will not be tried again.
        on_cancellation: the same for a run that is being cancelled.
        on_crashed: the same for a run that has crashed in this process.

    Raises:
        InvalidNameError: the name has one of ``/ % & > <``.
        ReservedArgumentError: a parameter is called ``return_state`` or ``wait_for``.
        TypeError: there is no such option, or what it is given is of the wrong kind.
        ValueError: the annotations cannot be made a model of.
    """
    if fn is None:
        return functools.partial(_make, options)
    return Flow(fn, **options)


def _make(options: dict[str, Any], fn: Any) -> Flow[Any, Any]:
    return Flow(fn, **options)
