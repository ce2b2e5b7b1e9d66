"""Whose personal data an event holds: each subject has a key, and what belongs to it can be erased by losing that key.

What belongs to several subjects is encrypted with a key made of all of theirs, so that the loss of any one is enough.
A subject is known in the log by a keyed digest of its name only. Its key is a file of its own, of mode 0600, in a
folder beside the log's key; the encryption is AES-GCM (NIST SP 800-38D) with random nonces.
"""

import base64
import hashlib
import hmac
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from flightlog.clock import Clock, SystemClock
from flightlog.errors import LogError, LogKeyError
from flightlog.events.keys import key_file, write_key
from flightlog.events.model import Append, NewEvent
from flightlog.events.types import SUBJECTS_GROUPED, subject_stream, subjects_stream
from flightlog.ids import Ids, RandomIds
from flightlog.masking import MASKER

if TYPE_CHECKING:
    from flightlog.events.log import Log
    from flightlog.settings import Settings

Subjects = frozenset[bytes]
"""Subjects, each by the digest of its name."""
NOBODY: Subjects = frozenset()
HIDDEN = "<personal>"
ERASED = "<erased>"
_KEY_BYTES = 32
_NONCE_BYTES = 12
_ID_BYTES = 16
_TEXT = re.compile(r"<personal:([\w=-]*)(>?)")  # without its end, if somebody has cut it

_in_memory: "WeakKeyDictionary[Log, dict[bytes, bytes]]" = WeakKeyDictionary()


class Closed(Exception):
    """Something that is encrypted cannot be opened; the text says why."""


class Erased(Closed):
    """The key that something was encrypted with was destroyed."""

    def __init__(self) -> None:
        super().__init__("it belonged to somebody whose personal data was erased")


class KeyMissing(Closed):
    """The key is not here, and no erasure is on record: it was lost, or left where the log was copied from."""


def keys_folder(log: "Log", settings: "Settings") -> Path | None:
    """Return the folder of the subjects' keys, beside the log's own key; None for a log in memory."""
    key = key_file(log, settings)
    return None if key is None else key.with_suffix(".subject-keys")


class Vault:
    """The keys of subjects, and what is done with them.

    Args:
        log: the log.
        folder: where the keys are; None for a log in memory.
        key: the log's key; only naming a subject needs it.
        clock: tells the time.
        ids: gives events their ids.
    """

    def __init__(
        self, log: "Log", folder: Path | None, key: bytes = b"", *, clock: Clock | None = None, ids: Ids | None = None
    ) -> None:
        self._log = log
        self._folder = folder
        self._key = key
        self._clock = clock or SystemClock()
        self._ids = ids or RandomIds()
        self._lock = threading.Lock()
        self._groups: dict[Subjects, bytes] = {}
        self._members: dict[bytes, Subjects] = {}
        self._cached: dict[bytes, tuple[tuple[int, int, int], bytes]] = {}

    # --- subjects -----------------------------------------------------------------------------------

    def subject(self, name: str) -> bytes:
        """Return what a subject is known by in the log, 16 bytes."""
        text = b"flightlog subject " + name.encode("utf-8", "surrogatepass")
        return hmac.digest(self._key, text, "sha256")[:_ID_BYTES]

    def group(self, subjects: Subjects) -> bytes:
        """Return what some subjects are known by together, 16 bytes; the log says first who they are."""
        group = self._groups.get(subjects)
        if group is not None:
            return group
        members = sorted(subjects)
        group = hashlib.blake2b(b"".join(members), digest_size=_ID_BYTES, person=b"flightlog group").digest()
        with self._lock:
            if subjects not in self._groups:
                stream = subjects_stream(group)
                if next(iter(self._log.read(stream)), None) is None:
                    event = NewEvent(self._ids.new(), SUBJECTS_GROUPED, {"subjects": members}, self._clock.now())
                    self._log.enqueue([Append(stream, [event])])
                self._groups[subjects], self._members[group] = group, subjects
        return group

    def members(self, group: bytes) -> Subjects:
        """Return the subjects of a group; nobody if the log does not say, as in a part of one."""
        found = self._members.get(group)
        if found is None:
            event = next(iter(self._log.read(subjects_stream(group))), None)
            if event is None:
                return NOBODY
            found = self._members[group] = frozenset(event.data["subjects"])
        return found

    # --- encryption ---------------------------------------------------------------------------------

    def close(self, subjects: Subjects, content: bytes) -> bytes:
        """Return content that only the keys of all these subjects open; those that have none yet get one."""
        nonce = os.urandom(_NONCE_BYTES)
        closed: bytes = _cipher(self._joined(subjects, make=True)).encrypt(nonce, content, None)
        return nonce + closed

    def open(self, group: bytes, content: bytes) -> bytes:
        """Return the content that was closed.

        Raises:
            Closed: a key is gone, or is another one by now.
        """
        from cryptography.exceptions import InvalidTag

        members = self.members(group)
        if not members:
            raise KeyMissing("this part of the log does not say whose personal data it is")
        nonce, rest = content[:_NONCE_BYTES], content[_NONCE_BYTES:]
        try:
            opened: bytes = _cipher(self._joined(members, make=False)).decrypt(nonce, rest, None)
        except (InvalidTag, ValueError):
            raise Erased from None
        return opened

    def close_text(self, subjects: Subjects, text: str) -> str:
        """Return a text encrypted, as a text that says whose it is."""
        closed = self.group(subjects) + self.close(subjects, text.encode("utf-8", "surrogatepass"))
        return f"<personal:{base64.urlsafe_b64encode(closed).decode()}>"

    def revealed(self, text: str, safe: Callable[[str], str] = str) -> str:
        """Return a text with whatever is encrypted in it as it was, or ``<erased>``.

        Args:
            text: the text.
            safe: makes what comes to light fit to be shown.
        """
        return _TEXT.sub(lambda found: safe(self._opened(found)), text) if "<personal:" in text else text

    def revealed_in(self, value: Any) -> Any:
        """Return a document with all texts in it revealed."""
        if isinstance(value, str):
            return self.revealed(value)
        if isinstance(value, dict):
            return {name: self.revealed_in(item) for name, item in value.items()}
        return [self.revealed_in(item) for item in value] if isinstance(value, (list, tuple)) else value

    def _opened(self, found: re.Match[str]) -> str:
        if not found[2]:
            return HIDDEN
        try:
            closed = base64.urlsafe_b64decode(found[1])
            return self.open(closed[:_ID_BYTES], closed[_ID_BYTES:]).decode("utf-8", "surrogatepass")
        except Erased:
            return ERASED
        except (ValueError, LogError, Closed):
            return HIDDEN

    def digest_key(self, subjects: Subjects) -> bytes:
        """Return the key for digests of what belongs to subjects: once it is erased, nobody can try a guess."""
        return self._joined(subjects, make=True, purpose=self._key) if subjects else self._key

    def _joined(self, subjects: Subjects, *, make: bool, purpose: bytes = b"") -> bytes:
        keys = b"".join(self._key_of(subject, make=make) for subject in sorted(subjects))
        return hashlib.blake2b(keys, digest_size=_KEY_BYTES, key=purpose, person=b"flightlog person").digest()

    # --- keys ---------------------------------------------------------------------------------------

    def path(self, subject: bytes) -> Path | None:
        """Return the file of a subject's key; None for a log in memory."""
        return None if self._folder is None else self._folder / f"{subject.hex()}.key"

    def has(self, subject: bytes) -> bool:
        """Tell whether a subject has a key."""
        path = self.path(subject)
        return subject in _in_memory.get(self._log, {}) if path is None else path.exists()

    def _key_of(self, subject: bytes, *, make: bool) -> bytes:
        path = self.path(subject)
        if path is None:
            kept = _in_memory.setdefault(self._log, {})
            if not make and subject not in kept:
                raise self._why_missing(subject)
            return kept.setdefault(subject, os.urandom(_KEY_BYTES))
        key = self._read(subject, path)
        if key is None and make:
            try:
                write_key(path, os.urandom(_KEY_BYTES))
                _sync(path.parent)
            except OSError as error:
                raise LogKeyError(f"The key of a subject cannot be written to {path}: {error.strerror}.") from None
            key = self._read(subject, path)
        if key is None:
            raise self._why_missing(subject)
        return key

    def _why_missing(self, subject: bytes) -> Closed:
        if next(iter(self._log.read(subject_stream(subject))), None) is not None:
            return Erased()
        where = "in memory" if self._folder is None else f"in {self._folder}"
        return KeyMissing(f"the key of somebody whose personal data it holds is not {where}")

    def _read(self, subject: bytes, path: Path) -> bytes | None:
        """Return the key in a file, or None; looked at each time, as another process may have erased it."""
        try:
            about = path.stat()
            seen = (about.st_ino, about.st_mtime_ns, about.st_size)
            known = self._cached.get(subject)
            if known is not None and known[0] == seen:
                return known[1]
            key = path.read_bytes()
        except FileNotFoundError:
            self._cached.pop(subject, None)
            return None
        except OSError as error:
            raise LogKeyError(f"The key of a subject at {path} cannot be read: {error.strerror}.") from None
        if len(key) != _KEY_BYTES:
            raise LogKeyError(f"The key of a subject at {path} is damaged: it has {len(key)} bytes, not {_KEY_BYTES}.")
        self._cached[subject] = seen, key
        return key

    def destroy(self, subject: bytes) -> bool:
        """Destroy a subject's key; tell whether there was one.

        Raises:
            LogKeyError: it cannot be destroyed.
        """
        path = self.path(subject)
        self._cached.pop(subject, None)
        if path is None:
            return _in_memory.get(self._log, {}).pop(subject, None) is not None
        try:
            # Nobody is to read a key that is half overwritten: it is out of the way first.
            with suppress(FileNotFoundError):
                path.rename(path.with_name(f"{path.name}.{os.urandom(4).hex()}.erased"))
            leftovers = list(path.parent.glob(f"{path.name}.*.erased"))  # one of an attempt that was cut short, too
            for leftover in leftovers:
                _overwrite(leftover)
                leftover.unlink(missing_ok=True)
            if leftovers:
                _sync(path.parent)
        except OSError as error:
            raise LogKeyError(f"The key at {path} cannot be destroyed: {error.strerror}.") from None
        return bool(leftovers)


def vault_of(log: "Log", settings: "Settings", key: bytes = b"") -> Vault:
    """Return the vault of a log."""
    return Vault(log, keys_folder(log, settings), key)


def guarded(vault: Vault, data: Mapping[str, Any], subjects: Subjects) -> dict[str, Any]:
    """Return the payload of an event of a run that belongs to subjects, with its texts encrypted."""
    told = {**data, "personal": vault.group(subjects)}
    for name in ("message", "shown", "problem", "input", "input_schema"):
        _close(vault, subjects, told, name)
    for name, inner in (("error", ("message", "traceback")), ("cache", ("uncached", "miss"))):
        if told.get(name) is not None:
            told[name] = dict(told[name])
            for text in inner:
                _close(vault, subjects, told[name], text)
    if "cache" in told:
        told["cache"] = told["cache"] | {part: HIDDEN for part in ("key",) if part in told["cache"]}
        told["cache"].pop("parts", None)
    result = told.get("result")
    if result and "not_recorded" in result:
        told["result"] = dict(result)
        _close(vault, subjects, told["result"], "not_recorded")
    return told


def _close(vault: Vault, subjects: Subjects, told: dict[str, Any], name: str) -> None:
    text = told.get(name)
    if isinstance(text, str) and text and _TEXT.fullmatch(text) is None:
        told[name] = vault.close_text(subjects, text)


def hidden(text: str) -> str:
    """Return a text with ``<personal>`` for whatever is encrypted in it."""
    return _TEXT.sub(HIDDEN, text) if "<personal:" in text else text


def outward(text: str) -> str:
    """Return a text as it may leave the log: without secrets, and with ``<personal>`` for what is encrypted."""
    return hidden(MASKER.mask(text))


def groups_in(value: Any) -> Iterator[bytes]:
    """Yield the groups of subjects that a payload speaks of."""
    if isinstance(value, str):
        for closed, _ in _TEXT.findall(value) if "<personal:" in value else ():
            with suppress(ValueError):
                yield base64.urlsafe_b64decode(closed)[:_ID_BYTES]
    elif isinstance(value, Mapping):
        personal = value.get("personal")
        if isinstance(personal, bytes) and len(personal) == _ID_BYTES:
            yield personal
        yield from _groups_in_all(value.values())
    elif isinstance(value, (list, tuple)):
        yield from _groups_in_all(value)


def _groups_in_all(values: Iterable[Any]) -> Iterator[bytes]:
    for value in values:
        if isinstance(value, (str, Mapping, list, tuple)):
            yield from groups_in(value)


def _cipher(key: bytes) -> Any:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    return AESGCM(key)


def _overwrite(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(bytes(_KEY_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


__all__ = [
    "ERASED",
    "HIDDEN",
    "NOBODY",
    "Closed",
    "Erased",
    "KeyMissing",
    "Subjects",
    "Vault",
    "groups_in",
    "guarded",
    "hidden",
    "keys_folder",
    "outward",
    "subject_stream",
    "vault_of",
]
