"""What a search remembered, read back: where it does not fit, that is told in one line with what to remove."""

from __future__ import annotations

import contextlib
from typing import Iterator

from edgeecc.errors import ArtifactError, brief


@contextlib.contextmanager
def understood() -> Iterator[None]:
    """Read a remembered state inside the context.

    Raises: ArtifactError where it is damaged, or of another network or version.
    """
    try:
        yield
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"what the search remembers is damaged or of another network or version: {brief(error)}; remove "
            "search.safetensors of the run folder to search again"
        ) from error
