"""Names that users of Prefect 2 import are there under the same paths, cost nothing, and wrong ones say so."""

import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import flightlog
from flightlog import errors, exceptions, missing
from flightlog.engine.run_logs import FLOW_RUNS

TOLD = tomllib.loads((Path(__file__).parents[2] / "docs" / "prefect.toml").read_text())


def run(code: str) -> "subprocess.CompletedProcess[str]":
    """Run some code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.parametrize(
    ("path", "name"), [(path, name) for path, names in TOLD["imports"].items() for name in names.split()]
)
def test_a_name_is_where_prefect_has_it(path: str, name: str) -> None:
    """With `prefect` changed into `flightlog` the import of every name in the documented table works."""
    scope: dict[str, Any] = {}
    exec(f"from {path.replace('prefect', 'flightlog', 1)} import {name}", scope)
    assert scope[name] is not None


@pytest.mark.parametrize("path", list(TOLD["imports-missing"]))
def test_what_the_table_calls_missing_is_missing(path: str) -> None:
    """A name that has come to be there is to be moved in the table."""
    module, _, name = path.replace("prefect", "flightlog", 1).rpartition(".")
    with pytest.raises(ImportError):
        exec(f"from {module} import {name}", {})


def test_remarks_are_about_what_is_there() -> None:
    """Each remark of the table belongs to a path in it."""
    assert set(TOLD["imports-otherwise"]) <= set(TOLD["imports"])


def test_paths_for_users_cost_nothing_at_the_start() -> None:
    """Neither the package nor its functions load them; and the room of events loads no engine."""
    thin = ["exceptions", "logging", "client", "utilities", "results", "flow_runs", "missing", "artifacts"]
    for line in ("import flightlog", "from flightlog import flow, task", "import flightlog.engine.flows"):
        done = run(f"import sys; {line}; print([m for m in {thin!r} if f'flightlog.{{m}}' in sys.modules])")
        assert done.stdout == "[]\n", done.stderr
    done = run(
        "import sys, flightlog.events.opening; print([m for m in sys.modules if m.startswith('flightlog.engine')])"
    )
    assert done.stdout == "[]\n", done.stderr


SYNC_FLOW = """
import sys
from flightlog import flow, task

tries = []

@task(retries=1)
def double(n):
    tries.append(n)
    if len(tries) == 1:
        raise ValueError("once")
    return n * 2

@flow
def doubles():
    return double(1), double.submit(2).result(), double.map([3, 4]).result()

@flow
def fails():
    raise ValueError("as it should")

print(doubles(), fails(return_state=True).type.name, "asyncio" in sys.modules)
"""


def test_a_sync_flow_does_without_asyncio() -> None:
    """Calls, futures, retries and failures load no event loop: it would double the time to import the package."""
    assert run(SYNC_FLOW).stdout == "(2, 4, [6, 8]) FAILED False\n"


def test_submodules_are_there_without_being_imported() -> None:
    """`import flightlog` is enough for `flightlog.states.Completed()`, as with Prefect."""
    code = "import flightlog; print(flightlog.states.Completed(), flightlog.runtime.flow_run.id, flightlog.artifacts)"
    assert run(code).stdout.startswith("Completed() None <module 'flightlog.artifacts'")
    assert run("from flightlog import runtime, variables; print(runtime.__name__)").stdout == "flightlog.runtime\n"


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("deploy", "flightlog has no 'deploy' yet: it comes with deployments; until then call the flow, or use"),
        ("serve", "flightlog has no 'serve' yet: it comes with deployments;"),
        ("get_client", "flightlog has no 'get_client' yet: it comes with the server;"),
        ("taks", "flightlog has no 'taks'; did you mean 'task'?"),
        ("Completed", "flightlog has no 'Completed'; it is in flightlog.states."),
        ("task_input_hsh", "flightlog has no 'task_input_hsh'; did you mean 'task_input_hash' of flightlog.tasks?"),
        ("zzzzzz", "flightlog has no 'zzzzzz', and nothing like it."),
    ],
)
def test_a_wrong_name_says_so_in_one_sentence(name: str, told: str) -> None:
    """Imported or asked for, a name that is not there says that it is to come, where it is, or what is near."""
    with pytest.raises(ImportError, match=f"^{re.escape(told)}"):
        exec(f"from flightlog import {name}", {})
    assert not hasattr(flightlog, name)
    near = told if "flightlog." not in told else f"flightlog has no {name!r}"
    with pytest.raises(AttributeError, match=f"^{re.escape(near)}"):
        getattr(flightlog, name)


def test_methods_that_are_not_there_say_so() -> None:
    """What Prefect's flows and tasks have besides says whether it is to come; any other name is just missing."""

    @flightlog.flow
    def f() -> None:
        pass

    @flightlog.task
    def t() -> None:
        pass

    told = {
        (f, "serve"): "A Flow has no 'serve': it comes with deployments; until then",
        (t, "delay"): "A Task has no 'delay': tasks run in flows; there is no queue of tasks beside them.",
        (t, "sumbit"): "A Task has no 'sumbit'.",
    }
    for (target, name), text in told.items():
        assert not hasattr(target, name)
        with pytest.raises(AttributeError, match=f"^{re.escape(text)}"):
            getattr(target, name)


def test_names_with_underscores_are_answered_at_once() -> None:
    """What tools ask of any module (`__wrapped__`) is not looked for."""
    with pytest.raises(AttributeError, match="has no attribute '__wrapped__'"):
        flightlog.__wrapped__  # noqa: B018


def test_the_modules_that_are_searched_for_names_are_there() -> None:
    """Each has a list of its names."""
    for module in missing._SUBMODULES:
        assert import_module(f"flightlog.{module}").__all__


def test_every_error_for_users_is_among_the_exceptions() -> None:
    """`flightlog.exceptions` has what Prefect calls so; they are the very classes of `flightlog.errors`."""
    own = {name for name, value in vars(errors).items() if isinstance(value, type)}
    for name in own & set(exceptions.__all__):
        assert getattr(exceptions, name) is getattr(errors, name)
    assert {"MissingResult", "FailedRun", "UpstreamTaskError", "ParameterTypeError", "BlockedLoop"} <= own
    assert exceptions.PrefectException is errors.FlightlogError


def test_loggers_of_ones_own_are_below_ours() -> None:
    """`get_logger` gives children of `flightlog`'s logger, whose lines are shown at once."""
    from flightlog.logging import get_logger

    assert get_logger().name == "flightlog"
    assert get_logger("mine").name == get_logger("flightlog.mine").name == "flightlog.mine"
    shown = run("from flightlog.logging import get_logger; get_logger('mine').info('hello')").stderr
    assert re.search(r"\| INFO    \| flightlog.mine - hello\n$", shown)
    assert FLOW_RUNS.parent is get_logger()
