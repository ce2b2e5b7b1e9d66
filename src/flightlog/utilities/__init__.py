"""Names that users of Prefect import from here: ``from flightlog.utilities.annotations import quote``.

Nothing of our own belongs here.
"""
