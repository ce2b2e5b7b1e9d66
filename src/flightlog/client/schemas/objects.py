"""Runs and states, under the longer name: ``from flightlog.client.schemas.objects import FlowRun``."""

from flightlog.client.schemas import FlowRun, State, StateDetails, StateType, TaskRun

__all__ = ["FlowRun", "State", "StateDetails", "StateType", "TaskRun"]
