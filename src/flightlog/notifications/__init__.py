"""Notifications: rules, incidents, deliveries. Nobody lives here yet; the room is kept for them."""
