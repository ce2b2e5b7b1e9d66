"""The result cache: keys, policies, hits and misses, expiry, and two runs that want the same value at once."""

import asyncio
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.engine.conftest import History, VirtualClock

from flightlog import flow, tags, task
from flightlog.cache_policies import (
    DEFAULT,
    FLOW_PARAMETERS,
    INPUTS,
    NO_CACHE,
    NONE,
    RUN_ID,
    TASK_SOURCE,
    CachePolicy,
    IsolationLevel,
)
from flightlog.concurrency import set_limit
from flightlog.engine.runtime import Engine, using
from flightlog.events.log import Log
from flightlog.events.stores.memory import MemoryStore
from flightlog.settings import load
from flightlog.tasks import task_input_hash

SERIALIZABLE = INPUTS.configure(isolation_level=IsolationLevel.SERIALIZABLE)


class Calls(list[Any]):
    """Counts calls: a function that remembers what it was given."""

    def __call__(self, value: Any) -> Any:
        """Remember a value and return it in a list."""
        self.append(value)
        return [value]


def test_E2_E123_only_a_cached_task_is_not_called_twice(history: History) -> None:
    """Two equal calls of a task with a cache policy are one computation; the second ends as Cached."""
    plain, cached = Calls(), Calls()

    @task
    def uncached(x: int) -> Any:
        return plain(x)

    @task(cache_policy=INPUTS)
    def kept(x: int) -> Any:
        return cached(x)

    @flow
    def f() -> Any:
        assert [uncached(1), uncached(1)] == [[1], [1]]
        return [kept(1), kept(1), kept(2)]

    assert f() == [[1], [1], [2]]
    assert (plain, cached) == ([1, 1], [1, 2])
    assert history.states("kept") == [
        ["Pending", "Running", "Completed"],
        ["Pending", "Cached"],
        ["Pending", "Running", "Completed"],
    ]


def test_E123_the_state_of_a_hit_is_called_cached() -> None:
    """`return_state` gives Cached(type=COMPLETED) with the value."""

    @task(cache_policy=INPUTS)
    def t(x: int) -> int:
        return x

    @flow
    def f() -> str:
        t(1)
        state = t(1, return_state=True)
        assert state.result() == 1
        return str(state)

    assert f() == "Cached(type=COMPLETED)"


def test_E122_a_cache_key_fn_gets_the_run_and_the_resolved_arguments() -> None:
    """`cache_key_fn(context, parameters)` sees task, task run and values in place of futures; None means uncached."""
    seen: list[tuple[str, str, Any]] = []
    calls = Calls()

    def key(context: Any, parameters: dict[str, Any]) -> str | None:
        seen.append((context.task.name, context.task_run.flow_run_id, parameters["x"]))
        return None if parameters["x"] == 0 else "the same"

    @task
    def source() -> int:
        return 7

    @task(cache_key_fn=key)
    def t(x: int) -> Any:
        return calls(x)

    @flow
    def f() -> None:
        t(source.submit())
        t(8)
        t(0)
        t(0)

    f()
    assert calls == [7, 0, 0]
    assert [entry[2] for entry in seen] == [7, 8, 0, 0]
    assert {entry[0] for entry in seen} == {"t"}
    assert len({entry[1] for entry in seen}) == 1


@pytest.mark.parametrize("problem", ["raises", "wrong type"])
def test_E122_E129_a_key_that_cannot_be_computed_is_said_and_the_task_runs(problem: str, history: History) -> None:
    """A key function that raises or returns no string never fails a run: it is logged, and the task runs uncached."""

    def key(_: Any, __: Any) -> Any:
        if problem == "raises":
            raise LookupError("no key today")
        return 5

    @task(cache_key_fn=key)
    def t() -> int:
        return 1

    @flow
    def f() -> int:
        return t() + t()

    assert f() == 2
    assert len([line for line in history.log_lines() if "uncached" in line]) == 2


def test_E124_keys_are_shared_by_flows_and_tasks_and_failures_are_not_kept() -> None:
    """One key means one value, whichever flow, run or task asks; only completed runs leave one."""
    calls = Calls()

    @task(cache_key_fn=lambda _, __: "k")
    def fails() -> int:
        calls("fails")
        raise ValueError

    @task(cache_key_fn=lambda _, __: "k")
    def one() -> Any:
        return calls("one")

    @task(cache_key_fn=lambda _, __: "k")
    def other() -> Any:
        return calls("other")

    @flow
    def first() -> Any:
        fails(return_state=True)
        return one()

    @flow
    def second() -> Any:
        return other()

    assert (first(), second(), first()) == (["one"], ["one"], ["one"])
    assert calls == ["fails", "one"]


def test_E124_a_value_expires(virtual_clock: VirtualClock, history: History) -> None:
    """`cache_expiration` counts from the completion on; after it the task runs again, and says why."""
    calls = Calls()

    @task(cache_policy=INPUTS, cache_expiration=timedelta(seconds=60))
    def t(x: int) -> Any:
        return calls(x)

    @flow
    def f() -> None:
        t(1)
        virtual_clock.sleep(59)
        t(1)
        virtual_clock.sleep(2)
        t(1)

    f()
    assert calls == [1, 1]
    misses = [data["cache"]["miss"] for data in history.data("task_run.running")]
    assert misses[0] == "Nothing is recorded for this key."
    assert misses[1].startswith("The recorded value expired at ")


def test_E125_task_input_hash_tells_tasks_and_arguments_apart() -> None:
    """The same inputs to another task, other inputs, and inputs that cannot be compared, are not taken for the same."""
    calls = Calls()

    @task(cache_key_fn=task_input_hash)
    def one(x: Any) -> Any:
        return calls(("one", x))

    @task(cache_key_fn=task_input_hash)
    def two(x: Any) -> Any:
        return calls(("two", x))

    lock = threading.Lock()

    @flow
    def f() -> None:
        one(1)
        one(1)
        two(1)
        one(2)
        one(lock)
        one(lock)

    f()
    assert calls == [("one", 1), ("two", 1), ("one", 2), ("one", lock), ("one", lock)]


def test_E125_task_input_hash_tells_edited_code_apart() -> None:
    """A task of the same name at the same place whose code has changed computes anew; the same code again does not."""
    calls = Calls()

    def defined(body: str) -> Any:
        scope: dict[str, Any] = {"calls": calls, "__name__": __name__}
        exec(f"def t(x):\n    calls(x)\n    return {body}\n", scope)
        return task(cache_key_fn=task_input_hash)(scope["t"])

    before, again, edited = defined("x + 1"), defined("x + 1"), defined("x + 2")

    @flow
    def f() -> list[int]:
        return [before(1), again(1), edited(1), edited(1)]

    assert f() == [2, 2, 3, 3]
    assert calls == [1, 1]


def test_E126_refresh_cache_computes_anew_and_stores(tmp_path: Path) -> None:
    """True runs and overwrites; None follows the setting; False opts out of it."""
    calls = Calls()

    @task(cache_policy=INPUTS)
    def t(x: int) -> Any:
        calls(x)
        return len(calls)

    @flow
    def f() -> list[int]:
        return [t(1), t.with_options(refresh_cache=True)(1), t(1)]

    assert f() == [1, 2, 2]
    settings = load({"FLIGHTLOG_HOME": str(tmp_path), "FLIGHTLOG_TASKS_REFRESH_CACHE": "true"})
    engine = Engine(Log(MemoryStore()), b"k" * 32, settings)

    @flow
    def g() -> list[int]:
        return [t(1), t(1), t.with_options(refresh_cache=False)(1)]

    with using(engine):
        assert g() == [3, 4, 4]
    engine.log.close()


def test_E127_a_hit_takes_no_slot_and_calls_no_completion_hook() -> None:
    """What is in the cache runs nothing: no slot of a tag's limit, no on_completion."""
    hooks = Calls()
    set_limit("tag:one", 1)

    def on_completion(task: Any, task_run: Any, state: Any) -> None:
        hooks(state.name)

    @task(cache_policy=INPUTS, tags=["one"], on_completion=[on_completion])
    def t(x: int) -> int:
        return x

    @task(tags=["one"])
    def holds_the_slot() -> int:
        return t(1)

    @flow
    def f() -> int:
        t(1)
        return holds_the_slot()

    assert f() == 1
    assert hooks == ["Completed"]


def _policy_calls(policy: CachePolicy, arguments: list[tuple[int, int]]) -> list[tuple[int, int]]:
    calls: list[tuple[int, int]] = []

    @task(cache_policy=policy)
    def t(a: int, b: int) -> int:
        calls.append((a, b))
        return a + b

    @flow
    def f(_: int = 0) -> None:
        for a, b in arguments:
            t(a, b)

    f(1)
    f(2)
    return calls


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (INPUTS, [(1, 1), (1, 2)]),
        (INPUTS - "b", [(1, 1)]),
        (INPUTS + RUN_ID, [(1, 1), (1, 2), (1, 1), (1, 2)]),
        (INPUTS + FLOW_PARAMETERS, [(1, 1), (1, 2), (1, 1), (1, 2)]),
        ((INPUTS + TASK_SOURCE) - "b", [(1, 1)]),
        (TASK_SOURCE + NO_CACHE, [(1, 1)]),
        (NO_CACHE + TASK_SOURCE, [(1, 1)]),
        (FLOW_PARAMETERS, [(1, 1), (1, 1)]),
        (RUN_ID, [(1, 1), (1, 1)]),
        (DEFAULT, [(1, 1), (1, 2), (1, 1), (1, 2)]),
        (NONE, [(1, 1), (1, 2), (1, 1), (1, 2)]),
    ],
    ids=repr,
)
def test_E128_what_a_policy_tells_apart(policy: CachePolicy, expected: list[tuple[int, int]]) -> None:
    """Each policy, and each sum of policies, runs a call again exactly when one of its parts differs."""
    assert _policy_calls(policy, [(1, 1), (1, 2)]) == expected


def test_E128_equal_arguments_of_two_tasks_collide_under_inputs_alone() -> None:
    """INPUTS says nothing of the task: another task with equal arguments gets the same value."""

    @task(cache_policy=INPUTS)
    def one(x: int) -> str:
        return "one"

    @task(cache_policy=INPUTS)
    def two(x: int) -> str:
        return "two"

    @flow
    def f() -> list[str]:
        return [one(1), two(1)]

    assert f() == ["one", "one"]


def test_E128_policies_that_do_not_go_together_are_refused() -> None:
    """Different isolation levels in a sum, a subtraction from anything but inputs, and what is no policy."""
    with pytest.raises(ValueError, match="isolation levels"):
        SERIALIZABLE + TASK_SOURCE.configure(isolation_level="READ_COMMITTED")
    assert (SERIALIZABLE + TASK_SOURCE).isolation_level is IsolationLevel.SERIALIZABLE
    with pytest.raises(TypeError, match="INPUTS - 'x'"):
        RUN_ID - "x"
    with pytest.raises(TypeError, match="CachePolicy"):
        task(cache_policy="INPUTS")(print)  # type: ignore[call-overload]


def test_E128_a_cache_key_fn_beats_a_policy_and_persist_result_false_beats_both() -> None:
    """Both given: a warning, and the function counts; a value that is not recorded cannot be cached."""
    calls = Calls()
    with pytest.warns(UserWarning, match="cache_policy does not count"):

        @task(cache_policy=RUN_ID, cache_key_fn=lambda _, __: "k")
        def t(x: int) -> Any:
            return calls(x)

    @flow
    def f() -> None:
        t(1)
        t(2)
        unkept = t.with_options(persist_result=False)
        unkept(1)

    with pytest.warns(UserWarning, match="cache_policy does not count"):
        f()
    assert calls == [1, 1]


def test_E128_a_policy_of_ones_own() -> None:
    """A subclass computes its key from task run, inputs and flow parameters; it can be added to others."""
    calls = Calls()

    class Even(CachePolicy):
        def compute_key(
            self, task_ctx: Any, inputs: Mapping[str, Any], flow_parameters: Mapping[str, Any], **_: Any
        ) -> str | None:
            assert flow_parameters == {"n": 5}
            return None if inputs["x"] < 0 else str(inputs["x"] % 2)

    @task(cache_policy=Even() + TASK_SOURCE)
    def t(x: int) -> Any:
        return calls(x)

    @flow
    def f(n: int) -> None:
        for x in (0, 2, 1, 3, -1, -1):
            t(x)

    f(5)
    assert calls == [0, 1, -1, -1]


def test_E129_inputs_that_cannot_be_compared_run_uncached_and_say_so(history: History) -> None:
    """A lock among the arguments has no digest: logged, and the task runs."""

    @task(cache_policy=INPUTS)
    def t(x: Any) -> int:
        return 1

    @flow
    def f() -> int:
        lock = threading.Lock()
        return t(lock) + t(lock)

    assert f() == 2
    assert any("'x' (lock) cannot be compared" in line for line in history.log_lines())


def failing_key(_: Any, __: Any) -> str:
    """Give no key."""
    raise ValueError("no key today")


class Moody(CachePolicy):
    """A policy that never gives a key."""

    def compute_key(self, *_: Any, **__: Any) -> None:
        """Give no key."""


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"cache_policy": INPUTS + RUN_ID}, "The argument 'x' (lock) cannot be compared with those of other runs."),
        ({"cache_key_fn": task_input_hash}, "The argument 'x' (lock) cannot be compared with those of other runs."),
        ({"cache_key_fn": lambda *_: None}, "Its cache_key_fn '<lambda>' returned None."),
        ({"cache_key_fn": failing_key}, "Its cache key could not be computed: ValueError: no key today"),
        ({"cache_policy": Moody()}, "Its cache policy <Moody> gave no key."),
        ({"cache_key_fn": lambda *_: 7}, "The function returned int, not a string."),
        ({"cache_policy": RUN_ID, "persist_result": False}, "Its results are not recorded (persist_result=False)."),
    ],
)
def test_E129_why_a_call_is_not_cached_is_on_record(options: dict[str, Any], reason: str, history: History) -> None:
    """A call that asks for caching and is not cached says why, with its start."""

    @task(**options)
    def t(x: Any) -> int:
        return 1

    @flow
    def f() -> int:
        lock = threading.Lock()
        return t(lock) + t(lock)

    assert f() == 2
    assert [data["cache"] for data in history.data("task_run.running")] == [{"uncached": reason}] * 2


def test_E129_a_value_that_cannot_be_recorded_is_not_in_the_cache(history: History) -> None:
    """That a value did not get into the cache is said with the end of its run."""

    @task(cache_policy=INPUTS)
    def t(x: int) -> Any:
        return threading.Lock()

    @flow
    def f() -> int:
        t(1)
        t(1)
        return 1

    assert f() == 1
    told = [data["cache"] for data in history.data("task_run.completed")]
    assert [cache["uncached"] for cache in told] == [
        "Its result was not recorded (TypeError: cannot pickle '_thread.lock' object)."
    ] * 2


@pytest.mark.parametrize("options", [{"cache_policy": INPUTS}, {"cache_key_fn": task_input_hash}])
def test_E114_a_cached_task_is_recorded_whatever_the_setting_says(options: Any, tmp_path: Path) -> None:
    """A cache needs the values: they are recorded where only the setting says that values are not."""
    settings = load({"FLIGHTLOG_HOME": str(tmp_path), "FLIGHTLOG_RESULTS_PERSIST_BY_DEFAULT": "false"})
    calls = Calls()

    @task(**options)
    def t(x: int) -> Any:
        return calls(x)

    @flow
    def f() -> Any:
        return [t(1), t(1)]

    log = Log(MemoryStore())
    with using(Engine(log, b"k" * 32, settings)):
        assert f() == [[1], [1]]
    log.close()
    assert calls == [1]


def test_E129_serializable_computes_once_and_the_others_wait(history: History) -> None:
    """Of ten runs that want one value at the same time one computes it; the others wait, visibly, and are hits."""
    calls, begun = Calls(), threading.Event()

    @task(cache_policy=SERIALIZABLE)
    def slow(x: int) -> Any:
        begun.wait(0.15)
        return calls(x)

    @flow
    def f() -> list[Any]:
        return [future.result() for future in [slow.submit(3) for _ in range(10)]]

    assert f() == [[3]] * 10
    assert calls == [3]
    states = history.states("slow")
    assert sum(one == ["Pending", "Running", "Completed"] for one in states) == 1
    assert all(one[-1] == "Cached" for one in states if "Running" not in one)
    awaiting = [data for data in history.data("task_run.pending") if data["name"] == "AwaitingCache"]
    assert awaiting
    assert "which computes the value of the same cache key" in awaiting[0]["message"]


def test_E129_async_runs_wait_without_blocking_the_loop() -> None:
    """The same for async tasks: the event loop goes on while they wait."""
    calls = Calls()

    @task(cache_policy=SERIALIZABLE)
    async def slow(x: int) -> Any:
        await asyncio.sleep(0.1)
        return calls(x)

    @flow
    async def f() -> list[Any]:
        return list(await asyncio.gather(*(slow(1) for _ in range(5))))

    assert asyncio.run(f()) == [[1]] * 5
    assert calls == [1]


def test_E129_a_claim_whose_run_failed_passes_to_the_next() -> None:
    """The one that was to compute the value fails: the next one computes it."""
    lock, tries = threading.Lock(), Calls()

    @task(cache_policy=SERIALIZABLE)
    def t(x: int) -> str:
        with lock:
            tries(x)
            first = len(tries) == 1
        if first:
            raise ValueError("not today")
        return "done"

    @flow
    def f() -> list[Any]:
        return [future.result(raise_on_failure=False) for future in [t.submit(1) for _ in range(3)]]

    results = f.with_options(name="g")(return_state=True).result(raise_on_failure=False)
    assert sorted(map(str, results)) == ["done", "done", "not today"]
    assert len(tries) == 2


def test_E129_a_task_that_calls_itself_does_not_wait_for_itself() -> None:
    """A claim of a run that waits for this very call counts no more: no deadlock."""

    @task(cache_key_fn=lambda _, __: "one key")
    def inner(depth: int) -> int:
        return depth

    @task(cache_policy=SERIALIZABLE - "depth")
    def outer(depth: int) -> int:
        return depth if depth == 0 else outer(depth - 1) + 1

    @flow
    def f() -> int:
        inner(0)
        return outer(2)

    assert f() == 2


def test_each_part_of_the_key_is_on_record_under_the_logs_key(history: History) -> None:
    """Hits and misses carry key and parts; values are not to be read, or guessed, from them."""

    @task(cache_policy=INPUTS + TASK_SOURCE)
    def t(secret: str, other: int) -> int:
        return other

    @flow
    def f() -> None:
        t("hunter2", 1)
        t("hunter2", 1)

    f()
    (miss,) = [data["cache"] for data in history.data("task_run.running")]
    hit = history.data("task_run.completed")[1]["cache"]
    assert miss["parts"].keys() == {"input secret", "input other", "source"}
    assert (hit["key"], hit["parts"]) == (miss["key"], miss["parts"])
    assert hit["task_run_id"] == history.task_runs("t")[0]["task_run_id"]
    (stored,) = history.data("cache.stored")
    assert stored["key"] == miss["key"]
    assert "hunter2" not in repr(history.events())


def test_a_value_that_is_gone_is_computed_anew(tmp_path: Path, history: History) -> None:
    """A cached value whose file was deleted or altered is a miss that says so, not an error."""
    calls = Calls()

    @task(cache_policy=INPUTS, result_storage=tmp_path / "values")
    def t(x: int) -> Any:
        return calls(x)

    @flow
    def f() -> Any:
        return t(1)

    f()
    (path,) = [path for path in (tmp_path / "values").rglob("*") if path.is_file()]
    path.write_bytes(b"something else")
    assert f() == [1]
    path.unlink()
    assert f() == [1]
    assert calls == [1, 1, 1]
    misses = [data["cache"]["miss"] for data in history.data("task_run.running")]
    assert "SHA-256 is another one" in misses[1]
    assert "is gone" in misses[2]


def test_a_cached_call_is_not_looked_up_again_when_its_flow_is_retried() -> None:
    """A hit counts as completed: the flow's next attempt has it without asking the cache."""
    asked = Calls()

    def key(_: Any, parameters: dict[str, Any]) -> str:
        asked(parameters["x"])
        return f"x{parameters['x']}"

    @task(cache_key_fn=key)
    def t(x: int) -> int:
        return x

    attempts = Calls()

    @flow(retries=1)
    def f() -> int:
        value = t(1) + t(1)
        attempts(1)
        if len(attempts) == 1:
            raise ValueError
        return value

    assert f() == 2
    assert asked == [1, 1]


def test_tags_do_not_change_the_key() -> None:
    """Labels are no part of a key."""
    calls = Calls()

    @task(cache_policy=INPUTS)
    def t(x: int) -> Any:
        return calls(x)

    @flow
    def f() -> None:
        t(1)
        with tags("other"):
            t(1)

    f()
    assert calls == [1]
