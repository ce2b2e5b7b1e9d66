"""File systems as blocks: folders, and whatever fsspec reaches. Values of runs may be kept in them."""

import os
import re
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, Field, field_validator

from flightlog.awaiting import as_asked
from flightlog.errors import SettingsError
from flightlog.plugins.block_documents import SecretDict
from flightlog.plugins.blocks import Block

_WITHOUT_FOLDERS = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss"})
"""Object stores: there "making a folder" would make a bucket that somebody has misspelt."""
_SECRET_IN_URL = re.compile(r"//[^/@]*@")


class LocalFileSystem(Block):
    """A folder.

    Args:
        basepath: the folder; it is made when it is needed. The working directory by default.

    Example:
        from flightlog.filesystems import LocalFileSystem

        LocalFileSystem("/data/results").save("results")
    """

    model_config = ConfigDict(frozen=True)

    _block_type_name = "Local File System"
    _block_schema_capabilities = ("read-path", "write-path")

    basepath: Path = Field(default_factory=Path, description="The folder.")

    def __init__(self, basepath: str | Path = "", **given: Any) -> None:
        super().__init__(**{"basepath": basepath, **given})

    @field_validator("basepath")
    @classmethod
    def _whole(cls, basepath: Path) -> Path:
        return basepath.expanduser().absolute()

    @property
    def url(self) -> str:
        """What tells the place."""
        return self.basepath.as_uri()

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
        return as_asked(None)

    def read_path(self, path: str) -> bytes:
        """Return what is stored under a name."""
        return as_asked(self._place(path).read_bytes())

    def __repr__(self) -> str:
        return f"LocalFileSystem({str(self.basepath)!r})"


class RemoteFileSystem(Block):
    """Any place that fsspec reaches, such as ``s3://bucket/folder``. Needs ``pip install flightlog[storage]``.

    Args:
        basepath: its URL.
        settings: what fsspec's file system is given: credentials, end points. They are not put on record.

    Example:
        from flightlog.filesystems import RemoteFileSystem

        RemoteFileSystem("s3://bucket/folder", {"key": "AKIA4711", "secret": "..."}).save("results")
    """

    _block_type_name = "Remote File System"
    _block_schema_capabilities = ("read-path", "write-path")

    basepath: str = Field(description="Its URL, such as `s3://bucket/folder`.")
    settings: SecretDict = Field(default_factory=lambda: SecretDict({}), description="What fsspec is given.")

    def __init__(self, basepath: str, settings: dict[str, Any] | SecretDict | None = None, **given: Any) -> None:
        super().__init__(**{"basepath": basepath, "settings": settings or {}, **given})

    @field_validator("basepath")
    @classmethod
    def _without_slash(cls, basepath: str) -> str:
        return basepath.rstrip("/")

    @property
    def url(self) -> str:
        """What tells the place, without any password in it: it is put on record."""
        return _SECRET_IN_URL.sub("//", self.basepath)

    def _file_system(self) -> Any:
        try:
            fsspec = import_module("fsspec")
        except ImportError:
            raise SettingsError(
                f"Results at {self.url} need fsspec, which is not installed: pip install 'flightlog[storage]'."
            ) from None
        protocol = self.basepath.partition("://")[0]
        try:
            return fsspec.filesystem(protocol, **self.settings.get_secret_value())
        except (ImportError, ValueError) as error:
            raise SettingsError(f"Results cannot be kept at {self.url}: {error}.") from None

    def write_path(self, path: str, content: bytes) -> None:
        """Store some content under a name."""
        system, place = self._file_system(), f"{self.basepath}/{path}"
        if self.basepath.partition("://")[0] not in _WITHOUT_FOLDERS:
            system.makedirs(place.rpartition("/")[0], exist_ok=True)
        system.pipe_file(place, content)
        return as_asked(None)

    def read_path(self, path: str) -> bytes:
        """Return what is stored under a name, as it is there now."""
        system = self._file_system()
        system.invalidate_cache()
        return as_asked(bytes(system.cat_file(f"{self.basepath}/{path}")))

    def __repr__(self) -> str:
        return f"RemoteFileSystem({self.url!r})"

    __str__ = __repr__


__all__ = ["LocalFileSystem", "RemoteFileSystem"]
