"""What every result storage must do: inherit from `StorageContract`, give it storages, and run it with pytest."""

import threading
from abc import ABC, abstractmethod
from typing import Any

import pytest

from flightlog.engine.flows import Flow
from flightlog.engine.storages import ResultStorage, storage_of
from flightlog.engine.tasks import Task
from flightlog.testing.engines import memory_engine

_LARGE = bytes(range(256)) * 8192


def _numbers(count: int) -> list[int]:
    """Return numbers."""
    return list(range(count))


class StorageContract(ABC):
    """The contract of a result storage, as tests. Override `storage`, a fixture that returns a new, empty one.

    Attributes:
        secrets: what the storage that the fixture makes knows, and must never show.
        made_of_url: whether a storage that knows the same place can be made of its `url` alone.
    """

    secrets: tuple[str, ...] = ()
    made_of_url = True

    @pytest.fixture
    @abstractmethod
    def storage(self) -> Any:
        """Return a storage with nothing in it."""

    def test_it_can_do_what_a_storage_does(self, storage: ResultStorage) -> None:
        """It has `url`, `write_path` and `read_path`."""
        assert isinstance(storage, ResultStorage)
        assert isinstance(storage.url, str)
        assert storage.url

    @pytest.mark.parametrize("content", [b"", b"\0", b"text\r\n", _LARGE], ids=["nothing", "NUL", "lines", "2 MiB"])
    def test_what_is_written_is_read_back(self, storage: ResultStorage, content: bytes) -> None:
        """Byte for byte."""
        storage.write_path("ab/abcdef", content)
        assert storage.read_path("ab/abcdef") == content

    def test_names_are_apart(self, storage: ResultStorage) -> None:
        """Also those that begin alike, or lie in folders that nobody has made."""
        names = ["a", "a-b", "b/a", "b/c/d/e", "with space", "Ünïcode", "x" * 64]
        for name in names:
            storage.write_path(name, name.encode())
        assert [storage.read_path(name).decode() for name in names] == names

    def test_writing_again_replaces(self, storage: ResultStorage) -> None:
        """The last content counts, also if it is shorter."""
        for content in (b"long content", b"short", b"short"):
            storage.write_path("ab/name", content)
        assert storage.read_path("ab/name") == b"short"

    def test_what_is_not_there_is_a_file_not_found_error(self, storage: ResultStorage) -> None:
        """Whatever the place's own error is: Flightlog tells values that were deleted from a place out of reach."""
        with pytest.raises(FileNotFoundError):
            storage.read_path("ab/nothing")
        storage.write_path("ab/something", b"1")
        with pytest.raises(FileNotFoundError):
            storage.read_path("ab/some")

    def test_another_one_of_its_url_finds_the_values(self, storage: ResultStorage) -> None:
        """The URL is put on record, and is all that a later process has."""
        if not self.made_of_url:
            pytest.skip("it cannot be made of its URL")
        storage.write_path("ab/name", b"kept")
        again = storage_of(storage.url)
        assert again.url == storage.url
        assert again.read_path("ab/name") == b"kept"

    def test_it_shows_no_secrets(self, storage: ResultStorage) -> None:
        """Neither in its URL, which is put on record, nor when it is printed."""
        shown = f"{storage.url} {storage!r} {storage}"
        assert [secret for secret in self.secrets if secret in shown] == []

    def test_many_threads_may_write(self, storage: ResultStorage) -> None:
        """Each its own name, and all the same one: whoever reads that sees one whole content."""
        whole = [bytes([n]) * 100_000 for n in range(8)]

        def write(number: int) -> None:
            storage.write_path(f"own/{number}", whole[number])
            storage.write_path("shared", whole[number])

        threads = [threading.Thread(target=write, args=(number,)) for number in range(len(whole))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert [storage.read_path(f"own/{number}") for number in range(len(whole))] == whole
        assert storage.read_path("shared") in whole

    def test_values_of_runs_are_kept_there(self, storage: ResultStorage) -> None:
        """A flow that names it puts its value there; the event refers to it, and the value comes back."""
        kept = Task(_numbers, name="kept", result_storage=storage, persist_result=True, cache_result_in_memory=False)
        with memory_engine() as engine:
            assert Flow(lambda: kept(1000)[-1], name="contract")() == 999
            (event,) = engine.log.read_all(types=["task_run.completed"])
            reference = event.data["result"]
        assert reference["storage"] == storage.url
        assert storage.read_path(reference["path"])
