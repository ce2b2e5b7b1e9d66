"""Storages for results, under the names that users know: ``from flightlog.filesystems import LocalFileSystem``."""

from flightlog.engine.storages import LocalFileSystem, RemoteFileSystem, ResultStorage

__all__ = ["LocalFileSystem", "RemoteFileSystem", "ResultStorage"]
