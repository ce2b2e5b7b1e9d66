"""The places that can keep a log."""
