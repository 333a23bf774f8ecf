"""Runtimes that run a network so that it can be measured or checked."""
