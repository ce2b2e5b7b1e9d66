"""Plug-ins: hooks, discovery, isolation. Nobody lives here yet; the room is kept for them."""
