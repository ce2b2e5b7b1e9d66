"""Storages for results, under the names that users know: ``from flightlog.filesystems import LocalFileSystem``."""

from flightlog.engine.storages import ResultStorage
from flightlog.plugins.file_systems import LocalFileSystem, RemoteFileSystem

__all__ = ["LocalFileSystem", "RemoteFileSystem", "ResultStorage"]
