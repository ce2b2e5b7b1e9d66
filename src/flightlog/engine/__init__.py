"""Flows and tasks: pure decisions, runners, results, and one bridge where sync meets async."""
