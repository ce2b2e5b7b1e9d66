"""Log lines: on the console and in the log."""

import hashlib
import logging
import re
import sys
from typing import Any

import pytest

from flightlog import flow, get_run_logger, states, task
from flightlog.errors import MissingContextError

TIME = re.compile(r"^\d\d:\d\d:\d\d\.\d\d\d \| ")


@task
def get_stars(repo: str) -> int:
    """Print and return."""
    print(f"{repo} has stars")
    return 5


def lines(text: str) -> list[str]:
    """Return the console's lines without their times; each has to have one."""
    found = text.splitlines()
    assert all(TIME.match(line) for line in found), text
    return [TIME.sub("", line) for line in found]


def test_E160_the_console_lines_of_the_basic_example(capfd: Any, history: Any) -> None:
    """The basic example shows the lines of Prefect's first page, in order (decision 3)."""

    @flow(name="github-stars")
    def github_stars(repos: list[str]) -> None:
        for repo in repos:
            get_stars(repo)

    github_stars(["a/b", "c/d"])
    out, err = capfd.readouterr()
    name = history.data("flow_run.created")[0]["name"]
    digits = hashlib.md5(f"{__name__}.get_stars".encode()).hexdigest()[:8]
    runs = [f"get_stars-{digits}-{n}" for n in (0, 1)]
    assert lines(err) == [
        f"INFO    | flightlog.engine - Created flow run {name!r} for flow 'github-stars'",
        f"INFO    | Flow run {name!r} - Using task runner 'ConcurrentTaskRunner'",
        f"INFO    | Flow run {name!r} - Created task run {runs[0]!r} for task 'get_stars'",
        f"INFO    | Task run {runs[0]!r} - Finished in state Completed()",
        f"INFO    | Flow run {name!r} - Created task run {runs[1]!r} for task 'get_stars'",
        f"INFO    | Task run {runs[1]!r} - Finished in state Completed()",
        f"INFO    | Flow run {name!r} - Finished in state Completed('All states completed.')",
    ]
    assert out == "a/b has stars\nc/d has stars\n"


def test_E160_prints_stand_between_the_lines(capsys: Any, history: Any) -> None:
    """On one stream a task's print stands between its Created and Finished lines."""

    @flow
    def f() -> None:
        get_stars("a/b")

    stderr, sys.stderr = sys.stderr, sys.stdout
    try:
        f()
    finally:
        sys.stderr = stderr
    found = capsys.readouterr().out.splitlines()
    assert found[3] == "a/b has stars"


def test_E163_a_failure_and_its_retry_on_the_console(capfd: Any) -> None:
    """A failure shows its traceback, the retry says so, and the end is an ERROR line."""

    @task(retries=1)
    def t() -> None:
        raise ValueError("boom")

    @flow
    def f() -> int:
        t(return_state=True)
        return 1

    f()
    err = capfd.readouterr().err
    shown = [TIME.sub("", line) for line in err.splitlines()]
    told = [line for line in shown if re.match(r"[A-Z]+ +\| Task run", line)]
    run = told[0].split("'")[1]
    again = (
        "Received non-final state 'AwaitingRetry' when proposing final state 'Failed' and will attempt to run again..."
    )
    assert told == [
        f"ERROR   | Task run '{run}' - Encountered exception during execution:",
        f"INFO    | Task run '{run}' - {again}",
        f"ERROR   | Task run '{run}' - Encountered exception during execution:",
        told[-1],
    ]
    assert re.fullmatch(
        rf"ERROR   \| Task run '{run}' - Finished in state Failed\('Task run encountered an exception:? "
        r"ValueError: boom'\)",
        told[-1],
    )
    assert err.count("Traceback (most recent call last):") == 2
    assert err.count("ValueError: boom") >= 2


def test_E163_tracebacks_begin_in_user_code(capfd: Any) -> None:
    """The traceback of a failure shows user code, and none of the engine's."""

    @task
    def t() -> None:
        raise ValueError("boom")

    @flow
    def f() -> int:
        t.submit()
        return 1

    f()
    err = capfd.readouterr().err
    assert "test_logging.py" in err
    assert "flightlog/engine" not in err


def test_E163_a_failed_flow_on_the_console(capfd: Any) -> None:
    """A flow that raised shows its traceback and ends with an ERROR line."""

    @flow
    def f() -> None:
        raise ValueError("boom")

    f(return_state=True)
    shown = [TIME.sub("", line) for line in capfd.readouterr().err.splitlines()]
    assert any(line.startswith("ERROR   | Flow run") and "Encountered exception" in line for line in shown)
    assert shown[-1].startswith("ERROR   | Flow run")
    assert "Finished in state Failed('Flow run encountered an exception" in shown[-1]


def test_E163_a_crash_on_the_console(capfd: Any) -> None:
    """A crash is an ERROR line."""

    @flow
    def f() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        f()
    err = capfd.readouterr().err
    assert re.search(
        r"ERROR   \| Flow run '[^']+' - Crash detected! Execution was aborted by an interrupt signal\.", err
    )


def test_E130_the_run_logger_in_flow_and_task(capfd: Any, history: Any) -> None:
    """In a flow the logger speaks for the flow run, in a task for the task run; lines are kept with the run."""

    @task
    def t() -> None:
        logger = get_run_logger()
        assert logger.logger.name == "flightlog.task_runs"
        logger.warning("from the %s", "task")

    @flow
    def f() -> None:
        logger = get_run_logger()
        assert logger.logger.name == "flightlog.flow_runs"
        logger.info("from the flow")
        t()

    f()
    shown = lines(capfd.readouterr().err)
    assert any(re.fullmatch(r"INFO    \| Flow run '[^']+' - from the flow", line) for line in shown)
    assert any(re.fullmatch(r"WARNING \| Task run 't-[^']+' - from the task", line) for line in shown)
    assert history.log_lines() == ["from the flow", "from the task"]


def test_E130_the_run_logger_in_submitted_and_async_tasks(history: Any) -> None:
    """The logger is there in threads and coroutines, too."""

    @task
    def t() -> None:
        get_run_logger().info("sync")

    @task
    async def u() -> None:
        get_run_logger().info("async")

    @flow
    def f() -> None:
        t.submit().wait()
        _ = u.submit().wait()

    f()
    assert history.log_lines() == ["sync", "async"]


def test_E130_outside_a_run_there_is_no_run_logger() -> None:
    """Outside a run the logger is missing, with a clear message."""
    with pytest.raises(MissingContextError, match="There is no active flow or task run context") as caught:
        get_run_logger()
    assert isinstance(caught.value, RuntimeError)


def test_E131_records_know_their_run(caplog: Any, history: Any) -> None:
    """Log records have the run's ids and names, and extra values of logger and call."""

    @task
    def t() -> None:
        get_run_logger(a=1).info("in task", extra={"b": 2})

    @flow
    def f() -> None:
        get_run_logger().info("in flow")
        t()

    with caplog.at_level(logging.INFO):
        f()
    flow_record: Any = next(record for record in caplog.records if record.getMessage() == "in flow")
    task_record: Any = next(record for record in caplog.records if record.getMessage() == "in task")
    [flow_run_id] = history.flow_runs("f")
    flow_run_name = history.data("flow_run.created")[0]["name"]
    [created] = history.task_runs("t")
    for record in (flow_record, task_record):
        assert (record.flow_name, record.flow_run_name) == ("f", flow_run_name)
        assert str(record.flow_run_id) == flow_run_id
    assert (task_record.task_name, task_record.task_run_name) == ("t", created["name"])
    assert str(task_record.task_run_id).replace("-", "") == created["task_run_id"].hex()
    assert (task_record.a, task_record.b) == (1, 2)


def test_E132_debug_lines_are_not_shown_by_default(capfd: Any, history: Any) -> None:
    """Only INFO and above are shown and recorded."""

    @flow
    def f() -> None:
        get_run_logger().debug("hidden")

    f()
    assert "hidden" not in capfd.readouterr().err
    assert history.log_lines() == []


def test_E132_the_console_is_stderr(capfd: Any) -> None:
    """Lines go to stderr, prints to stdout."""

    @flow
    def f() -> None:
        print("printed")

    f()
    out, err = capfd.readouterr()
    assert out == "printed\n"
    assert "printed" not in err


def test_E132_messages_with_percent_and_many_lines_are_shown_as_they_are(capfd: Any, history: Any) -> None:
    """A message without arguments may hold `%`; line ends are kept."""

    @flow
    def f() -> None:
        get_run_logger().info("100% of %s\nsecond")

    f()
    assert "100% of %s\nsecond" in capfd.readouterr().err
    assert history.log_lines() == ["100% of %s\nsecond"]


def test_E138_log_prints_makes_prints_log_lines(capfd: Any, history: Any) -> None:
    """With `log_prints=True` prints become INFO lines of the run, trailing whitespace stripped."""

    @task
    def t() -> None:
        print("in", "task", sep="-", end="  \n\n")

    @flow(log_prints=True)
    def f() -> None:
        print("in flow", 5)
        t()
        t.submit()

    f()
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(r"INFO    \| Flow run '[^']+' - in flow 5\n", err)
    assert len(re.findall(r"INFO    \| Task run 't-[^']+' - in-task\n", err)) == 2
    assert history.log_lines() == ["in flow 5", "in-task", "in-task"]


def test_E138_log_prints_is_inherited_and_can_be_opted_out(capfd: Any) -> None:
    """None inherits from the flow, False opts out; subflows inherit from their parent."""

    @task(log_prints=False)
    def quiet() -> None:
        print("quiet")

    @task(log_prints=True)
    def loud() -> None:
        print("loud")

    @flow
    def child() -> None:
        print("child")

    @flow(log_prints=True)
    def f() -> None:
        quiet()
        child()

    @flow
    def g() -> None:
        loud()
        print("plain")

    f()
    g()
    out, err = capfd.readouterr()
    assert out == "quiet\nplain\n"
    assert " - child\n" in err
    assert " - loud\n" in err


def test_E138_prints_to_other_files_are_left_alone(tmp_path: Any, capfd: Any) -> None:
    """`file=` other than stdout and stderr is untouched; stderr counts as a print."""
    path = tmp_path / "out.txt"

    @flow(log_prints=True)
    def f() -> None:
        with path.open("w") as file:
            print("to a file", file=file)
        print("to stderr", file=sys.stderr)

    f()
    err = capfd.readouterr().err
    assert path.read_text() == "to a file\n"
    assert "to a file" not in err
    assert " - to stderr\n" in err


def test_E138_print_is_itself_again_after_the_flow() -> None:
    """The built-in `print` is restored."""
    import builtins

    before = builtins.print

    @flow(log_prints=True)
    def f() -> None:
        print("x")

    f()
    assert builtins.print is before


def test_E161_a_subflow_says_who_created_it(capfd: Any) -> None:
    """The parent says that it created a subflow run."""

    @flow
    def child() -> None:
        pass

    @flow
    def parent() -> None:
        child()

    parent()
    shown = lines(capfd.readouterr().err)
    assert any(
        re.fullmatch(r"INFO    \| Flow run '[^']+' - Created subflow run '[^']+' for flow 'child'", x) for x in shown
    )
    assert not any("Created task run" in line for line in shown)


def test_E163_a_flow_that_is_retried_says_so(capfd: Any) -> None:
    """A flow's retry is told as a task's is."""

    @flow(retries=1)
    def f() -> None:
        raise ValueError("boom")

    f(return_state=True)
    err = capfd.readouterr().err
    assert len(re.findall(r"INFO    \| Flow run '[^']+' - Received non-final state 'AwaitingRetry'", err)) == 1
    assert len(re.findall(r"ERROR   \| Flow run '[^']+' - Encountered exception during execution:", err)) == 2


@pytest.mark.parametrize("name", ["Failed", "Cancelled", "Crashed"])
def test_E163_final_states_other_than_completed_are_errors(name: str, capfd: Any) -> None:
    """The Finished line is an ERROR for every final state but Completed."""

    @task
    def t() -> Any:
        return vars(states)[name](message="m")

    @flow
    def f() -> int:
        t.submit()
        return 1

    f()
    shown = lines(capfd.readouterr().err)
    assert any(
        re.fullmatch(rf"ERROR   \| Task run 't-[^']+' - Finished in state {name}\('m'\)", line) for line in shown
    )


def test_E84_a_custom_name_is_shown_with_its_type(capfd: Any) -> None:
    """A Completed state of another name is shown with its type."""

    @task
    def t() -> Any:
        return states.Completed(name="Skipped", data=1)

    @flow
    def f() -> Any:
        return [t()]

    assert f() == [1]
    assert " - Finished in state Skipped(type=COMPLETED)\n" in capfd.readouterr().err
