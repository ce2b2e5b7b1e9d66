"""The last checkpoint of each log that was seen here: a log that was rewound or written anew is told by it.

It is kept in FLIGHTLOG_HOME/checkpoints, in a file by the log's id: outside of the database, so that whoever changes
that does not change this too.
"""

import os
from pathlib import Path

from flightlog.errors import LogError, LogRewound
from flightlog.events.log import Log
from flightlog.events.notes import Checkpoint, NoteError, read_note
from flightlog.events.sealing import Seal, leaves, origin_of, seal_at
from flightlog.events.store import PARTIAL, REPLAY
from flightlog.ids import id_text


class SeenCheckpoint:
    """The last checkpoint of a log that was seen.

    Args:
        home: the folder of all files that Flightlog keeps.
        log: the log.
    """

    def __init__(self, home: Path, log: Log) -> None:
        self.path = home / "checkpoints" / id_text(log.log_id)
        self._log = log

    def read(self) -> Checkpoint | None:
        """Return it; None if none was seen.

        Raises:
            LogError: its file cannot be read, or holds something else.
        """
        try:
            found, _ = read_note(self.path.read_text())
        except FileNotFoundError:
            return None
        except (OSError, NoteError, UnicodeDecodeError) as error:
            raise LogError(
                f"The checkpoint in {self.path} cannot be read: {error}. Put it back from a backup, or forget it: "
                "flightlog audit forget"
            ) from None
        if found.origin != origin_of(self._log.log_id):
            raise LogError(f"The checkpoint in {self.path} is another log's. Forget it: flightlog audit forget")
        return found

    def check(self) -> None:
        """Refuse a log that was rewound or written anew; what is sealed there is believed here, see `verify`.

        A replay, and a log that has some of another one's streams, are left alone: they say what they are.

        Raises:
            LogRewound: the log is not the one that was seen.
        """
        seen = self.read()
        if seen is not None and not {REPLAY, PARTIAL} & self._log.store.facts().keys():
            self._seal_of(seen)

    def _seal_of(self, seen: Checkpoint) -> Seal:
        location, head = self._log.store.location, self._log.head().position
        anyway = "If that is meant (an older copy, say): flightlog audit forget"
        found = seal_at(self._log, seen.size)
        if found is None:
            raise LogRewound(
                f"The log at {location} ends at position {head}, and lacks what was seen of it before, a seal of "
                f"{seen.size} events: it was rewound. {anyway}"
            )
        if found.root != seen.root:
            raise LogRewound(
                f"The first {seen.size} events of the log at {location} are not those that were sealed when it was "
                f"seen before: it was written anew. {anyway}"
            )
        return found

    def keep(self, seal: Seal) -> None:
        """Remember a seal's checkpoint, once it is shown that the log grew out of the last one that was seen.

        Raises:
            LogRewound: it did not.
            LogError: it cannot be remembered.
        """
        seen = self.read()
        if seen is not None:
            before = self._seal_of(seen)
            if before.last >= seal.last:
                return
            tree = before.frontier()
            for hashes in leaves(self._log.store, before.last, seal.last):
                tree.extend(hashes)
            if tree.root() != seal.root:
                raise LogRewound(
                    f"The seal at position {seal.position} of the log at {self._log.store.location} does not go on "
                    f"from the checkpoint of {seen.size} events that was seen before. flightlog audit verify says more."
                )
        self._write(seal.note(self._log.log_id))

    def _write(self, note: str) -> None:
        draft = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_text(note)
            draft.replace(self.path)
        except OSError as error:
            raise LogError(f"The checkpoint cannot be kept in {self.path}: {error.strerror}.") from None

    def forget(self) -> bool:
        """Forget it; tell if there was one."""
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True
