"""Errors, under the names that users of Prefect know: ``from flightlog.exceptions import MissingResult``.

They are those of `flightlog.errors`, where the whole tree is drawn. ``PrefectException`` is `FlightlogError`.
"""

from flightlog.errors import (
    AcquireConcurrencySlotTimeoutError,
    BlockedLoop,
    CancelledRun,
    ConcurrencySlotAcquisitionError,
    CrashedRun,
    FailedRun,
    FlightlogError,
    FlowPauseTimeout,
    GraphvizExecutableNotFoundError,
    InvalidNameError,
    MappingLengthMismatch,
    MappingMissingIterable,
    MissingContextError,
    MissingResult,
    NotPausedError,
    ParameterBindError,
    ParameterTypeError,
    PausedRun,
    ReservedArgumentError,
    RunNotFound,
    ScriptError,
    UnfinishedRun,
    UpstreamTaskError,
    VisualizationUnsupportedError,
)

PrefectException = FlightlogError
FlowScriptError = MissingFlowError = UnspecifiedFlowError = ScriptError
ObjectNotFound = RunNotFound

__all__ = [
    "AcquireConcurrencySlotTimeoutError",
    "BlockedLoop",
    "CancelledRun",
    "ConcurrencySlotAcquisitionError",
    "CrashedRun",
    "FailedRun",
    "FlightlogError",
    "FlowPauseTimeout",
    "FlowScriptError",
    "GraphvizExecutableNotFoundError",
    "InvalidNameError",
    "MappingLengthMismatch",
    "MappingMissingIterable",
    "MissingContextError",
    "MissingFlowError",
    "MissingResult",
    "NotPausedError",
    "ObjectNotFound",
    "ParameterBindError",
    "ParameterTypeError",
    "PausedRun",
    "PrefectException",
    "ReservedArgumentError",
    "RunNotFound",
    "ScriptError",
    "UnfinishedRun",
    "UnspecifiedFlowError",
    "UpstreamTaskError",
    "VisualizationUnsupportedError",
]
