"""A worker process, as the process that has the flow run sees it.

It is a new interpreter that imports the engine and what is sent to it, and never runs the script again that started it:
so a script needs no ``if __name__ == "__main__":`` for the sake of its workers. It has a session of its own, so that
what its tasks have started ends with it.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from multiprocessing import resource_tracker, spawn
from typing import Any

from flightlog.engine.bridge import check_time
from flightlog.engine.context import CURRENT, check
from flightlog.engine.travel import Way
from flightlog.engine.worker import RUN, Body, Setup, packed_body
from flightlog.errors import LostWorker

_LOOK_SECONDS = 0.2
_END_SECONDS = 5.0
_BOOT = """\
import sys
sys.path[:] = [place for place in sys.path if place]
from multiprocessing.connection import Connection
pipe = Connection(int(sys.argv[1]))
sys.path[:] = pipe.recv()
from flightlog.engine.worker import main
main(pipe, *map(int, sys.argv[2:5]))
"""


class Worker:
    """A worker process.

    Args:
        initializer: the function that is called in it first, and its arguments, packed; None for none.

    Raises:
        LostWorker: it cannot be started.
    """

    way = Way.TO_PROCESS

    def __init__(self, initializer: bytes | None) -> None:
        self.returned: Any = None
        self._pipe, theirs = multiprocessing.Pipe()
        alive, self._lifeline = os.pipe()
        self._ended_for = ""
        try:
            self._process = _started(theirs.fileno(), alive)
        except BaseException:
            self._close()
            raise
        finally:
            theirs.close()
            os.close(alive)
        try:
            self._send(sys.path)
            self._send(tuple(Setup(sys.argv, bytes(multiprocessing.current_process().authkey), initializer)))
        except BaseException:
            self.kill()
            raise

    @property
    def is_alive(self) -> bool:
        """Whether it can be given something to do."""
        return self._process.poll() is None

    def send(self, kind: str, content: Any) -> None:
        """Send a message.

        Raises:
            LostWorker: it is gone.
        """
        self._send((kind, content))

    def _send(self, message: Any) -> None:
        try:
            self._pipe.send(message)
        except OSError:
            raise self._lost() from None

    def receive(self, until: float | None) -> tuple[str, Any]:
        """Wait for a message.

        Raises:
            LostWorker: the worker died.
            TimedOut: the time is over.
            RunCancelled, Abandoned: the run is to go on no more.
        """
        context = CURRENT.get()
        while True:
            left = _LOOK_SECONDS if until is None else min(_LOOK_SECONDS, max(0.0, until - time.monotonic()))
            try:
                if self._pipe.poll(left):
                    kind, content = self._pipe.recv()
                    return kind, content
            except (EOFError, OSError):
                raise self._lost() from None
            if not self.is_alive and not self._pipe.poll():
                raise self._lost()
            if context is not None:
                check(context)
            check_time(until)

    def begin(self, body: Body) -> int:
        """Have a function called; return the number of the call.

        Raises:
            CannotTravel: something that goes with it cannot be pickled.
            LostWorker: the worker died.
        """
        self.send(RUN, packed_body(body, self.way))
        return 0

    def stop(self, number: int) -> None:
        """Have a call go on no more: nothing ends code in another process but the end of that process."""
        self.kill("a task in it was to go on no more")

    def _lost(self) -> LostWorker:
        process = self._process
        with suppress(subprocess.TimeoutExpired):
            process.wait(_END_SECONDS)
        code = process.returncode
        self._end_group()  # another attempt is not to meet what this one has started
        how = f"ended with exit code {code}" if code is not None else "closed its connection"
        if self._ended_for:
            how = f"was ended, since {self._ended_for},"
        elif code is not None and code < 0:
            with suppress(ValueError):
                how = f"was killed by {signal.Signals(-code).name}"
        return LostWorker(f"The worker process {process.pid} {how} while the task ran in it.")

    def kill(self, why: str = "") -> None:
        """End it at once, and what its tasks have started.

        Args:
            why: why, for people.
        """
        self._ended_for = self._ended_for or why
        if self.is_alive:
            self._end_group()
        self._process.wait()
        self._close()

    def _end_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> None:
        """Ask for nothing more; it ends by itself."""
        self._pipe.close()

    def join(self, until: float) -> None:
        """Wait until it has ended; end it if it takes too long."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, until - time.monotonic()))
        self.kill()

    def _close(self) -> None:
        self._pipe.close()
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1


def _started(pipe: int, alive: int) -> "subprocess.Popen[bytes]":
    """Start the interpreter, with the options that this one has."""
    tracker = resource_tracker.getfd()
    assert tracker is not None
    options: Any = subprocess
    command = [
        os.fsdecode(spawn.get_executable()),
        *options._args_from_interpreter_flags(),  # as multiprocessing does
        *("-c", _BOOT, str(pipe), str(alive), str(tracker), str(os.getpid()), "flightlog-worker"),
    ]
    descriptors = (pipe, alive, tracker)
    try:
        return subprocess.Popen(  # noqa: S603 - it is this very interpreter
            command, stdin=subprocess.DEVNULL, pass_fds=descriptors, start_new_session=True
        )
    except OSError as error:
        raise LostWorker(f"No worker process can be started: {error}") from None


__all__ = ["Worker"]
