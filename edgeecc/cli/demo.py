"""`edgeecc demo`."""

import click


@click.command()
def demo():
    """X"""
