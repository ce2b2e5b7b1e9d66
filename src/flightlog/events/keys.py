"""The log's key: it makes digests of inputs unguessable and recorded pickles trustworthy.

The key lives outside the database, in a file of mode 0600 (beside an SQLite file; in FLIGHTLOG_HOME/keys for a log
in PostgreSQL) or in the setting FLIGHTLOG_LOG_KEY. The log keeps the key's fingerprint, so that a wrong one is noticed.
"""

import glob
import hmac
import os
from pathlib import Path
from typing import TYPE_CHECKING

from flightlog.errors import LogKeyError
from flightlog.events.log import Log
from flightlog.events.opening import is_postgres, path_of
from flightlog.ids import id_text
from flightlog.settings import Settings

if TYPE_CHECKING:
    from flightlog.events.notes import SigningKey

_FACT = "key_id"


def key_path(database: Path) -> Path:
    """Return where the key of the log in that file is kept."""
    return database.with_name(database.name + ".key")


def block_key_path(key: Path, key_id: bytes) -> Path:
    """Return where a key of the secrets in blocks is kept: beside the log's own.

    Args:
        key: the file of the log's key.
        key_id: the fingerprint of the key of blocks.
    """
    return key.with_name(f"{key.stem}.{key_id.hex()}.block-key")


def block_key_files(database: Path) -> list[Path]:
    """Return the keys of the secrets in blocks that are beside the file of a log."""
    return sorted(database.parent.glob(f"{glob.escape(database.name)}.*.block-key"))


def key_file(log: Log, settings: Settings) -> Path | None:
    """Return the file of a log's key: beside its file, or in FLIGHTLOG_HOME for one in a server; None in memory."""
    path = path_of(settings.log_url)
    if path is not None:
        return key_path(path)
    return settings.home / "keys" / f"{id_text(log.log_id)}.key" if is_postgres(settings.log_url) else None


def signing_key_file(log: Log, settings: Settings) -> Path | None:
    """Return where the key that signs a log's seals is kept: beside the log's own; None for a log in memory."""
    key = key_file(log, settings)
    return None if key is None else key.with_suffix(".audit-key")


def load_signing_key(log: Log, settings: Settings) -> "SigningKey | None":
    """Return the key that signs a log's seals; None if there is none.

    Raises:
        LogKeyError: it cannot be read.
    """
    from flightlog.events.notes import signing_key

    if settings.audit_key:
        return signing_key(settings.audit_key, "in FLIGHTLOG_AUDIT_KEY")
    path = signing_key_file(log, settings)
    try:
        return None if path is None else signing_key(path.read_text(), f"in {path}")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise LogKeyError(f"The signing key in {path} cannot be read: {error}.") from None


def fingerprint(key: bytes) -> bytes:
    """Return what tells keys apart and says nothing about them, 8 bytes."""
    return hmac.digest(key, b"flightlog key id", "sha256")[:8]


def load_key(log: Log, path: Path | None, given: str | None = None) -> bytes:
    """Return the log's key, 32 bytes; make one for a log that has none yet.

    Args:
        log: the log.
        path: the key's file; None for a log in memory.
        given: the key in hexadecimal, in place of the file.

    Raises:
        LogKeyError: the key is missing, cannot be read, or is another log's.
    """
    kept = log.store.facts().get(_FACT)
    if given:
        key = bytes.fromhex(given)
    elif path is None:
        key = os.urandom(32)
    else:
        key = _read(path, make=kept is None)
    if kept is None:
        kept = log.store.set_fact(_FACT, fingerprint(key))
    if kept != fingerprint(key):
        where = "in FLIGHTLOG_LOG_KEY" if given or path is None else f"at {path}"
        raise LogKeyError(
            f"The key {where} is not the key of the log at {log.store.location}. Put the right one back from a backup."
        )
    return key


def _read(path: Path, *, make: bool) -> bytes:
    """Return the key in a file, made if that is asked for and there is none."""
    if make:
        _make(path)
    try:
        key = path.read_bytes()
    except OSError as error:
        raise LogKeyError(
            f"The log's key at {path} cannot be read ({error.strerror}). Put it back from a backup; without it, "
            "recorded results cannot be trusted. To begin a new log instead, name another FLIGHTLOG_LOG_URL."
        ) from None
    if len(key) != 32:
        raise LogKeyError(f"The log's key at {path} is damaged: it has {len(key)} bytes, not 32.")
    return key


def _make(path: Path) -> None:
    """Write a new key, whole or not at all, unless another process was first."""
    if path.exists():
        return
    try:
        write_key(path, os.urandom(32))
    except OSError as error:
        raise LogKeyError(f"The log's key cannot be written to {path}: {error.strerror}.") from None


def write_key(path: Path, content: bytes) -> None:
    """Write a key to a file of mode 0600, whole or not at all; leave one alone that is there.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.link(draft, path)  # unlike a rename, it does not replace the key of whoever was first
    except FileExistsError:
        pass
    finally:
        draft.unlink(missing_ok=True)
