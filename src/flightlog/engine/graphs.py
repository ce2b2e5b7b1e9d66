"""Drawing flows: from their code, without running its tasks, or from a recorded run. As DOT, Mermaid, or an image."""

import inspect
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flightlog.engine.annotations import Annotation
from flightlog.engine.arguments import items_of
from flightlog.engine.bridge import run_in_loop
from flightlog.engine.context import CURRENT
from flightlog.engine.tracking import trackable
from flightlog.errors import GraphvizExecutableNotFoundError, VisualizationUnsupportedError

if TYPE_CHECKING:
    from flightlog.engine.definitions import Definition
    from flightlog.engine.flows import Flow
    from flightlog.projections.projector import Projector

_COLORS = {"COMPLETED": "#1a7f37", "FAILED": "#cf222e", "CRASHED": "#8250df", "CANCELLED": "#9a6700"}
_NEUTRAL = "#57606a"


@dataclass(slots=True)
class Node:
    """A task run, or a subflow's.

    Attributes:
        name: its name.
        is_flow: whether it is a subflow's.
        state: the type and name of its state; empty if it has not run.
    """

    name: str
    is_flow: bool = False
    state: tuple[str, str] = ("", "")


@dataclass(slots=True)
class Graph:
    """What rests on what in a flow. In a notebook it shows itself, if Graphviz is there.

    Attributes:
        name: the flow's name, or the run's.
        nodes: the task runs, in the order of their creation.
        edges: pairs of places in `nodes`: the first one's result goes to the second one.
    """

    name: str
    nodes: list[Node] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)

    def dot(self) -> str:
        """Return the graph in Graphviz's language."""
        lines = [
            f"digraph {_quoted(self.name)} {{",
            "  rankdir=LR;",
            '  node [shape=box, style=rounded, fontname="sans"];',
        ]
        for number, node in enumerate(self.nodes):
            color = _COLORS.get(node.state[0], _NEUTRAL)
            shape = ", peripheries=2" if node.is_flow else ""
            lines.append(f"  n{number} [label={_quoted(_label(node))}, color={_quoted(color)}{shape}];")
        lines += [f"  n{a} -> n{b};" for a, b in self.edges]
        return "\n".join([*lines, "}"]) + "\n"

    def mermaid(self) -> str:
        """Return the graph in Mermaid's language, which many pages draw."""
        lines = ["flowchart LR"]
        for number, node in enumerate(self.nodes):
            text = _label(node).replace('"', "#quot;").replace("\n", "<br/>")
            lines.append(f'  n{number}[["{text}"]]' if node.is_flow else f'  n{number}["{text}"]')
        lines += [f"  n{a} --> n{b}" for a, b in self.edges]
        return "\n".join(lines) + "\n"

    def render(self, path: str | Path) -> Path:
        """Draw the graph into a file; its ending says how: ``.svg``, ``.png``, ``.pdf``, ``.dot``, ``.mmd``.

        Raises:
            GraphvizExecutableNotFoundError: an image is wanted, and there is no ``dot`` on this machine.
        """
        path = Path(path)
        kind = path.suffix.removeprefix(".") or "svg"
        if kind in ("dot", "mmd"):
            path.write_text(self.dot() if kind == "dot" else self.mermaid())
        else:
            path.write_bytes(self._drawn(kind))
        return path

    def _drawn(self, kind: str) -> bytes:
        program = shutil.which("dot")
        if program is None:
            raise GraphvizExecutableNotFoundError(
                "Drawing an image needs Graphviz's `dot`, which is not on the PATH. Install Graphviz (graphviz.org), "
                "or ask for text: .dot() or .mermaid()."
            )
        done = subprocess.run([program, f"-T{kind}"], input=self.dot().encode(), capture_output=True, check=False)  # noqa: S603 - found on the PATH
        if done.returncode:
            raise VisualizationUnsupportedError(f"`dot` cannot draw {kind!r}: {done.stderr.decode().strip()[:200]}.")
        return done.stdout

    def _repr_svg_(self) -> str | None:
        with suppress(GraphvizExecutableNotFoundError, VisualizationUnsupportedError):
            return self._drawn("svg").decode()
        return None

    def __str__(self) -> str:
        return self.mermaid()


def _label(node: Node) -> str:
    return node.name if not node.state[1] else f"{node.name}\n{node.state[1]}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def graph_of_run(projector: "Projector", run: str, name: str) -> Graph:
    """Return what rested on what in a recorded run.

    Args:
        projector: the projections.
        run: the flow run's id.
        name: its name.
    """
    from flightlog.projections import queries

    graph, places = Graph(name), {}
    for task_run in queries.list_task_runs(projector, run):
        places[task_run.id] = len(graph.nodes)
        state = (task_run.state_type, task_run.state_name)
        graph.nodes.append(Node(task_run.name, task_run.child_flow_run_id is not None, state))
        if task_run.parent in places:
            graph.edges.append((places[task_run.parent], places[task_run.id]))
    for edge in queries.list_dependencies(projector, run):
        if edge.upstream in places and edge.task_run_id in places:
            graph.edges.append((places[edge.upstream], places[edge.task_run_id]))
    graph.edges = sorted(set(graph.edges))
    return graph


# --- from the code ------------------------------------------------------------------------------------


class Drawn:
    """Stands for the result of a call while a flow is drawn: a value, a future and a state in one."""

    def __init__(self, name: str) -> None:
        self.name = name

    def result(self, *_: Any, **__: Any) -> "Drawn":
        """Return what stands for the value."""
        return self

    wait = get_state = result

    def __await__(self) -> Any:
        yield from ()
        return self

    def __repr__(self) -> str:
        return f"<the result of {self.name}>"


class _Pencil:
    """Takes the calls of a flow that is drawn, and notes each as a node."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._counts: Counter[str] = Counter()
        self._made: dict[int, int] = {}
        self._held: list[Any] = []  # an identity means nothing once its object is gone

    def call(self, definition: "Definition[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note a call; return what stands for its value."""
        kwargs.pop("return_state", None)
        return _awaitable(definition, self._note(definition, [*args, *kwargs.values()]))

    def submit(self, definition: "Definition[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note a call that is submitted; return what stands for its future."""
        kwargs.pop("return_state", None)
        value = self._note(definition, [*args, *kwargs.values()])
        return value if isinstance(value, Drawn) else _Settled(value)

    def map(self, definition: "Definition[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Note one call for all children of a map; return a list of what stands for their futures."""
        return [self.submit(definition, args, kwargs)]

    def _note(self, definition: "Definition[..., Any]", given: Iterable[Any]) -> Any:
        number = len(self.graph.nodes)
        name = f"{definition.name}-{self._counts[definition.name]}"
        self._counts[definition.name] += 1
        self.graph.nodes.append(Node(name, definition.kind == "flow"))
        self._look(list(given), number)
        stand_in = definition.options.get("viz_return_value")
        value = Drawn(name) if stand_in is None else stand_in
        self._held.append(value)
        if trackable(value):
            self._made[id(value)] = number
        return value

    def _look(self, value: Any, number: int, depth: int = 0) -> None:
        value = value.value if isinstance(value, (Annotation, _Settled)) else value
        source = self._made.get(id(value))
        if source is not None:
            if source != number and (source, number) not in self.graph.edges:
                self.graph.edges.append((source, number))
        elif depth < 20:
            for item in items_of(value):
                self._look(item, number, depth + 1)


class _Settled(Drawn):
    """Stands for a future whose value is given by `viz_return_value`."""

    def __init__(self, value: Any) -> None:
        super().__init__(repr(value))
        self.value = value

    def result(self, *_: Any, **__: Any) -> Any:
        """Return the value."""
        return self.value

    wait = get_state = result


def _awaitable(definition: "Definition[..., Any]", value: Any) -> Any:
    if not definition.isasync or isinstance(value, Drawn):
        return value

    async def given() -> Any:
        return value

    return given()


class _Paper:
    """As much of a flow's context as calls in it need while it is drawn."""

    def __init__(self, pencil: _Pencil, isasync: bool) -> None:
        self.relay = pencil
        self.isasync = isasync
        self.stopped = None
        self.parent = None

    @property
    def flow_context(self) -> "_Paper":
        return self


def drawn(flow: "Flow[..., Any]", args: tuple[Any, ...], kwargs: dict[str, Any]) -> Graph:
    """Run a flow's code with nothing in the place of its tasks, and return what rests on what.

    Raises:
        VisualizationUnsupportedError: the code needs the value of a task that has no `viz_return_value`.
    """
    graph = Graph(flow.name)
    paper: Any = _Paper(_Pencil(graph), flow.isasync)
    call: Callable[..., Any] = flow.function
    positional, named = flow.signature.call_with(flow.bind(args, kwargs))
    token = CURRENT.set(paper)
    try:
        value = call(*positional, **named)
        if inspect.iscoroutine(value):
            run_in_loop(value)
        elif inspect.isgenerator(value):
            list(value)
    except VisualizationUnsupportedError:
        raise
    except Exception as error:  # the flow's own code
        raise VisualizationUnsupportedError(
            f"The flow {flow.name!r} cannot be drawn: {type(error).__name__}: {error}. If its code looks at the result "
            "of a task, give that task a viz_return_value."
        ) from error
    finally:
        CURRENT.reset(token)
    return graph


__all__ = ["Graph", "Node", "drawn", "graph_of_run"]
