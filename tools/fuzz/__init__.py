"""Fuzz every reader of outside input: coverage-guided with atheris, with hypothesis where there is none."""
