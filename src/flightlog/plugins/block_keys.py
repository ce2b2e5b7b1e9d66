"""The keys that secrets in blocks are encrypted with: outside of the database, one file of mode 0600 for each.

A key is known by its fingerprint. The log says which one counts, and each block which one it is encrypted with, so a
file's name carries the fingerprint, and no file ever changes: nothing that two processes do at once can lose a key.
"""

from collections.abc import Iterable
from pathlib import Path
from weakref import WeakKeyDictionary

from flightlog.errors import BlockKeyError
from flightlog.events.keys import block_key_path, fingerprint, key_file, write_key
from flightlog.events.log import Log
from flightlog.masking import MASKER
from flightlog.settings import Settings

_in_memory: "WeakKeyDictionary[Log, dict[bytes, bytes]]" = WeakKeyDictionary()


class BlockKeys:
    """The keys of one log.

    Args:
        log: the log.
        settings: say where the log is, and which keys are given in place of files.
    """

    def __init__(self, log: Log, settings: Settings) -> None:
        self._log = log
        self._log_key = key_file(log, settings)
        self._given = {fingerprint(key): key for key in map(str.encode, settings.blocks_key)}

    @property
    def are_given(self) -> bool:
        """Whether the setting FLIGHTLOG_BLOCKS_KEY says which key new secrets are encrypted with."""
        return bool(self._given)

    def new(self) -> bytes:
        """Return the id of the key that is to count from now on: the first one given, or one that is made."""
        if self._given:
            return next(iter(self._given))
        from cryptography.fernet import Fernet

        key = Fernet.generate_key()
        key_id = fingerprint(key)
        path = self.path(key_id)
        if path is None:
            _in_memory.setdefault(self._log, {})[key_id] = key
            return key_id
        try:
            write_key(path, key)
        except OSError as error:
            raise BlockKeyError(f"The key of the blocks cannot be written to {path}: {error.strerror}.") from None
        return key_id

    def get(self, key_id: bytes) -> bytes:
        """Return a key.

        Raises:
            BlockKeyError: it is not here; the message says where it should be.
        """
        key = self._given.get(key_id) or _in_memory.get(self._log, {}).get(key_id) or self._read(key_id)
        MASKER.learn(key)
        return key

    def _read(self, key_id: bytes) -> bytes:
        path = self.path(key_id)
        other = " The key in FLIGHTLOG_BLOCKS_KEY is another one." if self._given else ""
        if path is None:
            raise BlockKeyError(f"The key of the blocks in the log in memory is gone.{other}")
        place = f"The key that the secrets of the blocks are encrypted with, {path},"
        advice = (
            "Put it back from a backup, or give it in FLIGHTLOG_BLOCKS_KEY. If it is lost: flightlog blocks rotate-key "
            "--lost, and save the secrets anew."
        )
        try:
            key = path.read_bytes().strip()
        except OSError as error:
            raise BlockKeyError(f"{place} cannot be read ({error.strerror}).{other} {advice}") from None
        if fingerprint(key) != key_id:
            raise BlockKeyError(f"{place} is not the one that it was.{other} {advice}")
        return key

    def drop(self, key_ids: Iterable[bytes]) -> None:
        """Delete keys that nothing is encrypted with any more; those that are given stay where they are."""
        for key_id in key_ids:
            _in_memory.get(self._log, {}).pop(key_id, None)
            path = self.path(key_id)
            if path is not None:
                path.unlink(missing_ok=True)

    def path(self, key_id: bytes) -> Path | None:
        """Return the file of a key, beside the log's own; None for a log in memory."""
        return None if self._log_key is None else block_key_path(self._log_key, key_id)
