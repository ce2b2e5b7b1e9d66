"""Types of blocks, under the names that users know: ``from flightlog.blocks.system import Secret``."""

from flightlog.plugins.system_blocks import JSON, DateTime, Secret, String

__all__ = ["DateTime", "JSON", "Secret", "String"]
