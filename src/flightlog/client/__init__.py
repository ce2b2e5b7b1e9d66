"""Names that users of Prefect annotate their hooks with; there is no server, and so no client, yet."""
