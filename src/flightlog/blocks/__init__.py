"""Blocks, under the names that users know: ``from flightlog.blocks import Block, Secret``."""

from flightlog.engine import runtime as runtime  # it has the log that blocks are kept in
from flightlog.plugins.block_documents import SecretDict
from flightlog.plugins.blocks import Block, register_block_types
from flightlog.plugins.system_blocks import JSON, DateTime, Secret, String

__all__ = ["Block", "DateTime", "JSON", "Secret", "SecretDict", "String", "register_block_types"]
