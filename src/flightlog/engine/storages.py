"""Where values of runs are kept besides the log: folders, and whatever fsspec reaches.

A storage gets bytes and a name. A value that is there is written before the event that refers to it, and the event
carries its SHA-256, so what is read is known to be what was written.
"""

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from flightlog.errors import SettingsError

_WITHOUT_FOLDERS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss"})
"""Object stores: there "making a folder" would make a bucket that somebody has misspelt."""
_SECRET_IN_URL = re.compile(r"//[^/@]*@")


@runtime_checkable
class ResultStorage(Protocol):
    """What a place for values has to be able to do. Your own class may be one.

    Attributes:
        url: what tells the place; it is put on record, so it holds no secret.
    """

    url: str

    def write_path(self, path: str, content: bytes) -> None:
        """Store some content under a name; what was there is replaced. It is durable when this returns."""
        ...

    def read_path(self, path: str) -> bytes:
        """Return what is stored under a name; `FileNotFoundError` if nothing is."""
        ...


class LocalFileSystem:
    """A folder.

    Args:
        basepath: the folder; it is made when it is needed.
    """

    def __init__(self, basepath: str | Path) -> None:
        self.basepath = Path(basepath).expanduser().absolute()
        self.url = self.basepath.as_uri()

    def _place(self, path: str) -> Path:
        place = (self.basepath / path).resolve()
        if not place.is_relative_to(self.basepath.resolve()):
            raise ValueError(f"{path!r} lies outside the folder {self.basepath}.")
        return place

    def write_path(self, path: str, content: bytes) -> None:
        """Store some content; whoever reads at the same time sees the old or the new, never a part."""
        place = self._place(path)
        place.parent.mkdir(parents=True, exist_ok=True)
        partial = place.with_name(f".{place.name}.{os.getpid()}.{os.urandom(4).hex()}")
        try:
            with partial.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(place)
        finally:
            partial.unlink(missing_ok=True)

    def read_path(self, path: str) -> bytes:
        """Return what is stored under a name."""
        return self._place(path).read_bytes()

    def __repr__(self) -> str:
        return f"LocalFileSystem({str(self.basepath)!r})"


class RemoteFileSystem:
    """Any place that fsspec reaches, such as ``s3://bucket/folder``. Needs ``pip install flightlog[storage]``.

    Args:
        basepath: its URL.
        settings: what fsspec's file system is given: credentials, end points. They are not put on record.
    """

    def __init__(self, basepath: str, settings: dict[str, Any] | None = None) -> None:
        self.basepath = basepath.rstrip("/")
        self.settings = settings or {}
        self.url = _SECRET_IN_URL.sub("//", self.basepath)

    def _file_system(self) -> Any:
        try:
            fsspec = import_module("fsspec")
        except ImportError:
            raise SettingsError(
                f"Results at {self.url} need fsspec, which is not installed: pip install 'flightlog[storage]'."
            ) from None
        protocol = self.basepath.partition("://")[0]
        try:
            return fsspec.filesystem(protocol, **self.settings)
        except (ImportError, ValueError) as error:
            raise SettingsError(f"Results cannot be kept at {self.url}: {error}.") from None

    def write_path(self, path: str, content: bytes) -> None:
        """Store some content under a name."""
        system, place = self._file_system(), f"{self.basepath}/{path}"
        if self.basepath.partition("://")[0] not in _WITHOUT_FOLDERS:
            system.makedirs(place.rpartition("/")[0], exist_ok=True)
        system.pipe_file(place, content)

    def read_path(self, path: str) -> bytes:
        """Return what is stored under a name, as it is there now."""
        system = self._file_system()
        system.invalidate_cache()
        return bytes(system.cat_file(f"{self.basepath}/{path}"))

    def __repr__(self) -> str:
        return f"RemoteFileSystem({self.url!r})"


def storage_of(given: Any) -> ResultStorage:
    """Return a storage from an instance, from a folder, or from a URL.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(given, Path):
        return LocalFileSystem(given)
    if isinstance(given, str):
        if given.startswith("file://"):
            from urllib.parse import unquote, urlsplit

            return LocalFileSystem(unquote(urlsplit(given).path))
        return _remote(given) if "://" in given else LocalFileSystem(given)
    if isinstance(given, ResultStorage):
        return given
    raise TypeError(
        f"A result storage is a folder, a URL, or an object with url, write_path and read_path; "
        f"not {type(given).__name__}."
    )


def _remote(url: str) -> ResultStorage:
    """Return the storage of a URL: a plug-in's where one brings that scheme, else fsspec's."""
    from flightlog.plugins.host import current_host

    make = current_host().find("register_result_storages", url.partition("://")[0])
    if make is None:
        return RemoteFileSystem(url)
    made = make(url)
    if not isinstance(made, ResultStorage):
        raise TypeError(f"What a plug-in makes of {url.partition('://')[0]}:// is no result storage.")
    return made


__all__ = ["LocalFileSystem", "RemoteFileSystem", "ResultStorage", "storage_of"]
