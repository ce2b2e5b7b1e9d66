"""Every error that Flightlog raises, in one tree.

::

    FlightlogError
    ├── SettingsError                a setting has a wrong value
    ├── PluginError                  a plug-in cannot be used
    ├── BlockError                   (ValueError) a block cannot be saved or loaded so
    │   ├── BlockNotFound            there is none of that name
    │   └── BlockKeyError            the key of the secrets in blocks is missing or another one
    ├── LogError                     something about the log
    │   ├── LogUnavailable           it cannot be opened (a folder, a network share, not a log, too new)
    │   ├── LogCorrupt               its file is damaged
    │   ├── LogWriteError            it cannot be written now (disk full, read-only)
    │   ├── LogKeyError              its key is missing or is another log's
    │   ├── LogRewound               it is not the one that was seen before: cut off, or changed
    │   └── VersionConflict          somebody else appended first
    ├── RunNotFound                  no run, or more than one, fits the given name or id
    ├── CannotResume                 a run that is still going, or is done, or lacks what going on needs
    ├── CannotCancel                 a run that has ended
    ├── NotPausedError               a run that nobody has to resume
    ├── FlowPauseTimeout             a paused run that nobody resumed in time
    ├── InvalidInput                 (RuntimeError) the input for a paused run does not fit
    ├── ScriptError                  a file or a flow in it cannot be loaded
    ├── MissingContextError          (RuntimeError) needs an active flow or task run
    ├── BlockedLoop                  (RuntimeError) waiting in a way that would never end
    ├── InvalidNameError             (ValueError) a flow's or task's name has a reserved character
    ├── ReservedArgumentError        (TypeError) a parameter has a name that calls use themselves
    ├── ParameterBindError           (TypeError) the arguments do not fit the signature
    ├── ParameterTypeError           (TypeError) the arguments do not fit the annotations
    ├── PersonalValues               what could not be erased was to be recorded
    ├── VisualizationUnsupportedError        a flow that cannot be drawn from its code
    ├── GraphvizExecutableNotFoundError      drawing an image needs Graphviz
    ├── MappingError                 (ValueError) `map` was given arguments that it cannot split
    │   ├── MappingLengthMismatch
    │   └── MappingMissingIterable
    ├── LostWorker                   the process that a task ran in died
    ├── UpstreamTaskError            a call rests on a run that did not complete
    ├── ConcurrencySlotAcquisitionError      slots of a concurrency limit that cannot be had
    ├── AcquireConcurrencySlotTimeoutError   (TimeoutError) no slot became free in time
    ├── MissingResult                a run ended, but its value was not recorded, or is gone
    ├── CorruptResult                a value is not the one that was recorded
    └── UnsuccessfulRun              asked for the value of a run that has none
        ├── FailedRun
        ├── CrashedRun
        ├── CancelledRun
        ├── PausedRun
        └── UnfinishedRun

`TakenOver`, `CallsDiffer`, `RunCancelled` and `RunSuspended` stand outside, as `BaseException`: user code that catches
`Exception` must not keep a run alive that somebody else has taken over or cancelled, that is suspended, or whose code
differs from what is recorded of it.
"""

from typing import Any


class FlightlogError(Exception):
    """The base of all errors that Flightlog raises on purpose."""


class SettingsError(FlightlogError):
    """A setting has a value that cannot be used."""


class PluginError(FlightlogError):
    """A plug-in cannot be used: it is broken, or made for another version."""


class BlockError(FlightlogError, ValueError):
    """A block cannot be saved, or loaded, as asked."""


class BlockNotFound(BlockError):
    """There is no block of that name, or it is of a type that is not known here."""


class BlockKeyError(BlockError):
    """The key that the secrets in blocks are encrypted with is missing, unreadable, or another one."""


class LogError(FlightlogError):
    """Something is wrong with the log."""


class LogUnavailable(LogError):
    """The log cannot be opened."""


class LogCorrupt(LogError):
    """The file of the log is damaged."""


class LogWriteError(LogError):
    """The log cannot be written at present; what was recorded before is intact."""


class LogKeyError(LogError):
    """The key that belongs to the log is missing, unreadable, or another log's."""


class LogRewound(LogError):
    """The log is not the one that was seen before: its end was cut off, or what was sealed differs."""


class VersionConflict(LogError):
    """A stream is not at the version that an append expected: somebody else was first.

    Attributes:
        stream: the stream's name.
        expected: the version that the append asked for.
        actual: the version that the stream has.
    """

    def __init__(self, stream: str, expected: int, actual: int) -> None:
        super().__init__(
            f"Stream {stream!r} is at version {actual}, not {expected}: somebody else appended first. "
            "Read the stream again and decide anew."
        )
        self.stream = stream
        self.expected = expected
        self.actual = actual


class RunNotFound(FlightlogError):
    """No run, or more than one, fits the given id, prefix or name."""


class CannotResume(FlightlogError):
    """A run cannot be gone on with: it is still going, or done, or the log lacks what that needs."""


class CannotCancel(FlightlogError):
    """A run cannot be cancelled, since it has ended."""


class NotPausedError(FlightlogError):
    """A run is not paused, so nobody has to resume it."""


class FlowPauseTimeout(FlightlogError):
    """Nobody resumed a paused run in time."""


class InvalidInput(FlightlogError, RuntimeError):
    """The input for a paused run does not fit what it asks for; the run stays paused."""


class ScriptError(FlightlogError):
    """A file cannot be loaded, or has no such flow."""


class MissingContextError(FlightlogError, RuntimeError):
    """Called outside a flow or task run, where one is needed."""


class BlockedLoop(FlightlogError, RuntimeError):
    """Code in an event loop waits, without `await`, for what that very loop is to do."""


class InvalidNameError(FlightlogError, ValueError):
    """A name has a character that is reserved: one of ``/ % & > <``."""


class ReservedArgumentError(FlightlogError, TypeError):
    """A function has a parameter whose name calls of flows and tasks use themselves."""


class ParameterBindError(FlightlogError, TypeError):
    """The arguments of a call do not fit the function's signature."""


class ParameterTypeError(FlightlogError, TypeError):
    """The arguments of a flow do not fit its annotations."""


class PersonalValues(FlightlogError):
    """What could not be erased was to be recorded of a run that has personal values."""


class VisualizationUnsupportedError(FlightlogError):
    """A flow cannot be drawn from its code alone."""


class GraphvizExecutableNotFoundError(FlightlogError):
    """Drawing an image needs Graphviz's `dot`, which is not there."""


class MappingError(FlightlogError, ValueError):
    """`map` cannot split the arguments that it was given."""


class MappingLengthMismatch(MappingError):
    """The iterables given to `map` differ in length."""


class MappingMissingIterable(MappingError):
    """No argument given to `map` is iterable."""


class LostWorker(FlightlogError):
    """The worker process that a task ran in died."""


class UpstreamTaskError(FlightlogError):
    """A call rests on a run that did not reach a COMPLETED state."""


class ConcurrencySlotAcquisitionError(FlightlogError):
    """Slots were asked for that a concurrency limit will never have."""


class AcquireConcurrencySlotTimeoutError(FlightlogError, TimeoutError):
    """No slot of a concurrency limit became free in time."""


class MissingResult(FlightlogError):
    """A run completed, but its value was not recorded (or is not held in memory)."""


class CorruptResult(FlightlogError):
    """A value was changed after it was recorded, or does not bear the mark of the log's key."""


class UnsuccessfulRun(FlightlogError):
    """The value of a run was asked for that has none."""


class FailedRun(UnsuccessfulRun):
    """The run failed without an exception of its own."""


class CrashedRun(UnsuccessfulRun):
    """The run crashed."""


class CancelledRun(UnsuccessfulRun):
    """The run was cancelled."""


class PausedRun(UnsuccessfulRun):
    """The run is paused."""


class UnfinishedRun(UnsuccessfulRun):
    """The run has not ended yet."""


class RunCancelled(BaseException):
    """Raised in the code of a run that somebody has cancelled.

    Attributes:
        run_id: the flow run that was cancelled: the one that the code belongs to, or one that it was called in.
    """

    def __init__(self, run_id: str, message: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class RunSuspended(BaseException):
    """Raised in the code of a run that is being suspended.

    Attributes:
        facts: what the log is told: which pause, what is asked, until when.
    """

    def __init__(self, facts: dict[str, Any]) -> None:
        super().__init__("The flow run is suspended.")
        self.facts = facts


class TakenOver(BaseException):
    """Somebody else owns this run now: the stream's epoch was raised, and late writes are refused.

    Attributes:
        stream: the stream's name.
        epoch: the epoch of the refused append.
        current: the epoch that the stream has.
    """

    def __init__(self, stream: str, epoch: int, current: int) -> None:
        super().__init__(f"Stream {stream!r} was taken over: its epoch is {current}, this writer's is {epoch}.")
        self.stream = stream
        self.epoch = epoch
        self.current = current


class CallsDiffer(BaseException):
    """A resumed flow run makes another call than the one that is recorded; the text says which."""
