"""Facts, and the log that keeps them.

``opening`` gives a `Log`, ``model`` has `NewEvent` and `Event`, ``types`` names our event types, and ``vocabulary``
has a pydantic model for the payload of each.
"""
