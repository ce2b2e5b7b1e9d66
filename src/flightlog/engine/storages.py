"""Where values of runs are kept besides the log: folders, and whatever fsspec reaches.

A storage gets bytes and a name. A value that is there is written before the event that refers to it, and the event
carries its SHA-256, so what is read is known to be what was written.
"""

import re
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

_SLUG: Final = re.compile("(local|remote)-file-system/[a-z0-9-]+")


@runtime_checkable
class ResultStorage(Protocol):
    """What a place for values has to be able to do. Your own class may be one."""

    @property
    def url(self) -> str:
        """What tells the place; it is put on record, so it holds no secret."""
        ...

    def write_path(self, path: str, content: bytes) -> None:
        """Store some content under a name; what was there is replaced. It is durable when this returns."""
        ...

    def read_path(self, path: str) -> bytes:
        """Return what is stored under a name; `FileNotFoundError` if nothing is."""
        ...


class SavedStorage:
    """A storage that is saved as a block: loaded when a value goes there, since a flow is declared before that.

    Args:
        slug: its type and name, such as ``local-file-system/results``.
    """

    def __init__(self, slug: str) -> None:
        self._slug = slug
        self._loaded: ResultStorage | None = None

    @property
    def url(self) -> str:
        """What tells the place; the slug until it is loaded."""
        return self._slug if self._loaded is None else self._loaded.url

    def _load(self) -> ResultStorage:
        if self._loaded is None:
            from flightlog.plugins.blocks import Block

            found: Any = Block.load(self._slug)
            self._loaded = found
        return self._loaded

    def write_path(self, path: str, content: bytes) -> None:
        """Store some content there."""
        self._load().write_path(path, content)

    def read_path(self, path: str) -> bytes:
        """Return what is stored there."""
        return self._load().read_path(path)

    def __repr__(self) -> str:
        return f"SavedStorage({self._slug!r})"


def storage_of(given: Any) -> ResultStorage:
    """Return a storage from an instance, from a folder, from a URL, or from the slug of a saved one.

    Raises:
        TypeError: it is none of these.
        ValueError: a plug-in has it that cannot be used.
    """
    if isinstance(given, (Path, str)):
        return _file_system(given)
    if isinstance(given, ResultStorage):
        return given
    raise TypeError(
        f"A result storage is a folder, a URL, or an object with url, write_path and read_path; "
        f"not {type(given).__name__}."
    )


def _file_system(place: Path | str) -> ResultStorage:
    # Blocks are pydantic models, whose import is not for those who keep values in the log.
    from flightlog.plugins.file_systems import LocalFileSystem

    if isinstance(place, str) and _SLUG.fullmatch(place):
        return SavedStorage(place)
    if isinstance(place, Path) or "://" not in place:
        return LocalFileSystem(place)
    if not place.startswith("file://"):
        return _remote(place)
    from urllib.parse import unquote, urlsplit

    return LocalFileSystem(unquote(urlsplit(place).path))


def _remote(url: str) -> ResultStorage:
    """Return the storage of a URL: a plug-in's where one brings that scheme, else fsspec's."""
    from flightlog.plugins.file_systems import RemoteFileSystem
    from flightlog.plugins.host import current_host

    host, scheme = current_host(), url.partition("://")[0]
    make = host.find("register_result_storages", scheme)
    if make is None:
        if why := host.why_not("register_result_storages", scheme):
            raise ValueError(f"There is no result storage for {scheme}://.{why}")
        return RemoteFileSystem(url)
    made = make(url)
    if not isinstance(made, ResultStorage):
        raise TypeError(f"What a plug-in makes of {scheme}:// is no result storage.")
    return made


__all__ = ["ResultStorage", "storage_of"]
