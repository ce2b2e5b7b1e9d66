"""The types of blocks that come with Flightlog."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from pydantic import Field, SecretStr

from flightlog.plugins.blocks import Block, register_block_types


class Secret(Block):
    """A secret string, such as a password or an API key.

    Example:
        from flightlog.blocks import Secret

        Secret(value="sk-4711").save("api-key")
        Secret.load("api-key").get()
    """

    value: SecretStr = Field(description="The secret.")

    def get(self) -> str:
        """Return the secret."""
        return self.value.get_secret_value()


class JSON(Block):
    """Any value of JSON."""

    value: Any = Field(description="The value.")


class String(Block):
    """A string."""

    value: str = Field(description="The string.")


class DateTime(Block):
    """A moment."""

    _block_type_name = "Date Time"

    value: datetime = Field(description="The moment, in ISO 8601.")


def _file_systems() -> Iterable[type[Block]]:
    from flightlog.plugins.file_systems import LocalFileSystem, RemoteFileSystem

    return [LocalFileSystem, RemoteFileSystem]


register_block_types(_file_systems)

__all__ = ["JSON", "DateTime", "Secret", "String"]
