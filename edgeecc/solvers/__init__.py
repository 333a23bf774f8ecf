"""Pruning methods, all behind the Solver protocol."""
