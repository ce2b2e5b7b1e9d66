"""The base of blocks, under the name that users know: ``from flightlog.blocks.core import Block``."""

from flightlog.plugins.blocks import Block

__all__ = ["Block"]
