"""Drawing flows: from their code and from recorded runs."""

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import History

from flightlog import flow, task, unmapped
from flightlog.engine.graphs import Graph, graph_of_run
from flightlog.engine.runtime import Engine
from flightlog.errors import GraphvizExecutableNotFoundError, VisualizationUnsupportedError
from flightlog.projections.projector import Projector


@task
def extract(n: int) -> list[int]:
    """Return numbers."""
    if n < 0:
        raise AssertionError("never called")
    return list(range(n))


@task(viz_return_value=[1, 2])
def known(n: int) -> list[int]:
    """Return what is known beforehand."""
    return [n]


@task
def load(rows: Any, other: Any = None) -> int:
    """Return how many there are."""
    return len(rows)


@task
async def wait_a_bit(x: Any) -> Any:
    """Return what it is given."""
    return x


def edges(graph: Graph) -> set[tuple[str, str]]:
    """Return the edges by name."""
    return {(graph.nodes[a].name, graph.nodes[b].name) for a, b in graph.edges}


def test_E156_a_flow_is_drawn_without_running_its_tasks(history: History) -> None:
    """Nodes are named `name-n`; results, futures, `wait_for` and containers make edges; nothing is recorded."""

    @flow
    def child(x: Any) -> Any:
        return x

    @flow
    def f(n: int) -> Any:
        rows = extract(n)
        future = load.submit(rows)
        mapped = load.map(rows, unmapped(future))
        known(1, wait_for=[future])
        sub = child({"deep": [rows]})
        return [future.result(), mapped, sub]

    graph = f.visualize(-1)
    assert [node.name for node in graph.nodes] == ["extract-0", "load-0", "load-1", "known-0", "child-0"]
    assert [node.is_flow for node in graph.nodes] == [False] * 4 + [True]
    assert edges(graph) == {
        ("extract-0", "load-0"),
        ("extract-0", "load-1"),
        ("load-0", "load-1"),
        ("load-0", "known-0"),
        ("extract-0", "child-0"),
    }
    assert not history.events()


def test_E156_viz_return_value_stands_for_a_result() -> None:
    """Code that looks at a result gets it; edges are kept; without one it is a clear error."""

    @flow
    def looks() -> None:
        rows = known(1)
        for _ in range(len(rows)):
            load(rows)

    assert edges(looks.visualize()) == {("known-0", "load-0"), ("known-0", "load-1")}

    @flow
    def cannot() -> None:
        for _ in range(len(extract(3))):
            load([])

    with pytest.raises(VisualizationUnsupportedError, match="viz_return_value"):
        cannot.visualize()


def test_E156_async_flows_are_drawn_too() -> None:
    """Awaited, gathered and submitted."""

    @flow
    async def f() -> Any:
        first = await wait_a_bit(1)
        both = await asyncio.gather(wait_a_bit(first), wait_a_bit(first))
        return await wait_a_bit(both)

    assert edges(f.visualize()) == {
        ("wait_a_bit-0", "wait_a_bit-1"),
        ("wait_a_bit-0", "wait_a_bit-2"),
        ("wait_a_bit-1", "wait_a_bit-3"),
        ("wait_a_bit-2", "wait_a_bit-3"),
    }


def test_E156_a_recorded_run_is_drawn_with_its_states(engine: Engine, history: History) -> None:
    """From the dependency edges of the log."""

    @task
    def fails(x: Any) -> None:
        raise ValueError

    @flow
    def f() -> None:
        rows = extract(3)
        load(rows)
        fails(rows, return_state=True)

    f(return_state=True)
    (run,) = history.flow_runs("f")
    projector = Projector(engine.log, None)
    try:
        graph = graph_of_run(projector, run, "f")
    finally:
        projector.close()
    assert [node.state[1] for node in graph.nodes] == ["Completed", "Completed", "Failed"]
    assert graph.edges == [(0, 1), (0, 2)]


def test_E156_text_and_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DOT and Mermaid escape what they have to; an image without Graphviz is a clear error."""

    @flow
    def f() -> None:
        load(task(name='say "hi"')(load.fn)([1]))

    graph = f.visualize()
    assert 'label="say \\"hi\\"-0"' in graph.dot()
    assert "n0 -> n1" in graph.dot()
    assert 'n0["say #quot;hi#quot;-0"]' in graph.mermaid()
    assert graph.render(tmp_path / "g.mmd").read_text() == graph.mermaid() == str(graph)
    assert graph.render(tmp_path / "g.dot").read_text() == graph.dot()
    if shutil.which("dot"):
        assert "<svg" in graph.render(tmp_path / "g.svg").read_text()
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(GraphvizExecutableNotFoundError, match="Install Graphviz"):
        graph.render(tmp_path / "g.svg")
    assert graph._repr_svg_() is None
