"""Types of fields, under the names that users know: ``from flightlog.blocks.fields import SecretDict``."""

from flightlog.plugins.block_documents import SecretDict

__all__ = ["SecretDict"]
