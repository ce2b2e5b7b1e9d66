"""Runs and states, under the names that hooks are annotated with: ``from flightlog.client.schemas import FlowRun``."""

from flightlog.engine.runs import FlowRun, TaskRun
from flightlog.engine.states import State, StateDetails, StateType

__all__ = ["FlowRun", "State", "StateDetails", "StateType", "TaskRun"]
