"""Checks of the repository itself; not installed."""
