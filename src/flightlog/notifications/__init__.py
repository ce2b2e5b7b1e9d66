"""Notifications: rules that fold events into incidents, and messages about them that go out and are accounted for."""
