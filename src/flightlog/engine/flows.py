"""Flows: functions whose every call is a flow run."""

import functools
import signal
import threading
import warnings
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Literal, NoReturn, TypeVar, overload

from flightlog.engine import loading, provenance
from flightlog.engine.bridge import ASYNC, SYNC, run_sync
from flightlog.engine.context import current
from flightlog.engine.definitions import KEEP, Definition, Delays, P, R, default_name, finish
from flightlog.engine.flow_calls import FlowCall
from flightlog.engine.flow_runs import run_flow
from flightlog.engine.names import checked_template, source_file
from flightlog.engine.outcomes import Terminated
from flightlog.engine.parameters import Validator, schema
from flightlog.engine.runtime import current_engine
from flightlog.engine.states import State
from flightlog.engine.task_runners import TaskRunner, checked_runner

T = TypeVar("T")


class Flow(Definition[P, R]):
    """A function whose every call is a flow run. Make one with `flow`.

    Attributes:
        fn: the function itself; calling it leaves no trace.
        name: the flow's name.
        isasync: whether the function is a coroutine function.
        version: the flow's version; the MD5 of its source file by default.
    """

    def __init__(  # noqa: PLR0913 - the options that users know
        self,
        fn: Callable[P, R],
        *,
        name: str | None = None,
        version: str | None = None,
        description: str | None = None,
        flow_run_name: str | Callable[[], str] | None = None,
        retries: int = 0,
        retry_delay_seconds: Delays = 0,
        task_runner: TaskRunner | type[TaskRunner] | None = None,
        timeout_seconds: float | None = None,
        validate_parameters: bool = True,
        persist_result: bool | None = None,
        log_prints: bool | None = None,
    ) -> None:
        super().__init__(
            fn,
            kind="flow",
            default_name=_dashed(default_name(fn)),
            name=name,
            version=version or provenance.source_digests(source_file(fn))[1],
            description=description,
            retries=retries,
            retry_delay_seconds=retry_delay_seconds,
            timeout_seconds=timeout_seconds,
            persist_result=persist_result,
            log_prints=log_prints,
        )
        self.flow_run_name = checked_template(flow_run_name, "flow_run_name", self.signature.names)
        self.task_runner = checked_runner(task_runner)
        self.should_validate_parameters = validate_parameters
        self.validate = Validator(self.signature) if validate_parameters else _as_they_are

    @property
    def parameters(self) -> dict[str, Any]:
        """The JSON Schema of the parameters, with ``properties`` by name and which are ``required``."""
        return schema(self.signature)

    def with_options(  # noqa: PLR0913 - the options that users know
        self,
        *,
        name: str | None = None,
        version: str | None = None,
        description: str | None = None,
        flow_run_name: Any = KEEP,
        retries: int | None = None,
        retry_delay_seconds: Delays | None = None,
        task_runner: TaskRunner | type[TaskRunner] | None = None,
        timeout_seconds: float | None = None,
        validate_parameters: bool | None = None,
        persist_result: bool | None = KEEP,
        log_prints: bool | None = KEEP,
    ) -> "Flow[P, R]":
        """Return a flow like this one with some options changed; this one stays as it is.

        `timeout_seconds=0` takes the time limit away; None resets `flow_run_name`, `persist_result`, `log_prints`.
        """
        return Flow(
            self.fn,
            name=name or self.name,
            version=version or self.version,
            description=description or self.description,
            flow_run_name=self.flow_run_name if flow_run_name is KEEP else flow_run_name,
            retries=self.retries if retries is None else retries,
            retry_delay_seconds=self.retry_delay_seconds if retry_delay_seconds is None else retry_delay_seconds,
            task_runner=task_runner or self.task_runner,
            timeout_seconds=self.timeout_seconds if timeout_seconds is None else timeout_seconds,
            validate_parameters=self.should_validate_parameters if validate_parameters is None else validate_parameters,
            persist_result=self.persist_result if persist_result is KEEP else persist_result,
            log_prints=self.log_prints if log_prints is KEEP else log_prints,
        )

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
            return None
        caller = current()
        parameters = self.signature.bind(args, kwargs)
        if wait_for is not None and caller is None:
            raise ValueError("Only flows run as subflows can wait for dependencies.")
        engine = caller.flow_context.engine if caller is not None else current_engine()
        call = FlowCall(self, engine, caller, parameters, wait_for)
        if self.isasync and (caller is None or caller.isasync):
            return self._run_async(call, return_state)
        with termination(outermost=caller is None):
            return finish(run_sync(run_flow(SYNC, call)), return_state)

    async def _run_async(self, call: FlowCall, return_state: bool) -> Any:
        with termination(outermost=call.caller is None):
            return finish(await run_flow(ASYNC, call), return_state)

    def __repr__(self) -> str:
        return f"<Flow {self.name!r}>"


def _dashed(name: str) -> str:
    return "unknown-lambda" if name == "<lambda>" else name.replace("_", "-")


def _as_they_are(parameters: dict[str, Any]) -> dict[str, Any]:
    return parameters


@contextmanager
def termination(*, outermost: bool) -> Iterator[None]:
    """While an outermost flow runs in the main thread, SIGTERM ends it as an exception, so that it is recorded."""
    main = threading.current_thread() is threading.main_thread()
    if not (outermost and main) or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _terminate(number: int, _: FrameType | None) -> NoReturn:
    raise Terminated(128 + number)


@overload
def flow(fn: Callable[P, R], /) -> Flow[P, R]: ...
@overload
def flow(
    *,
    name: str | None = None,
    version: str | None = None,
    description: str | None = None,
    flow_run_name: str | Callable[[], str] | None = None,
    retries: int = 0,
    retry_delay_seconds: Delays = 0,
    task_runner: TaskRunner | type[TaskRunner] | None = None,
    timeout_seconds: float | None = None,
    validate_parameters: bool = True,
    persist_result: bool | None = None,
    log_prints: bool | None = None,
) -> Callable[[Callable[P, R]], Flow[P, R]]: ...


def flow(fn: Any = None, /, **options: Any) -> Any:
    """Make a flow of a function: ``@flow`` or ``@flow(retries=1)``.

    Args:
        name: the flow's name; the function's with ``-`` for ``_`` by default.
        version: its version; the MD5 of the source file by default.
        description: what it does; the docstring by default.
        flow_run_name: names of its runs: a template over the parameters (``"load {day}"``) or a function; two
            random words by default.
        retries: how often a failed attempt is tried again; what completed in it does not run again.
        retry_delay_seconds: seconds before each retry.
        task_runner: where submitted tasks run: `ConcurrentTaskRunner` (default) or `SequentialTaskRunner`.
        timeout_seconds: how long an attempt may take; None for ever.
        validate_parameters: whether arguments are checked against the annotations, and cast.
        persist_result: False to leave its values out of the log.
        log_prints: whether prints become log lines; None as the flow that calls it has it, or the setting.

    Raises:
        InvalidNameError: the name has one of ``/ % & > <``.
        ReservedArgumentError: a parameter is called ``return_state`` or ``wait_for``.
        ValueError: the annotations cannot be made a model of.
    """
    if fn is None:
        return functools.partial(_make, options)
    return Flow(fn, **options)


def _make(options: dict[str, Any], fn: Any) -> Flow[Any, Any]:
    return Flow(fn, **options)
