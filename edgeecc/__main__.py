"""`python -m edgeecc`, which torchrun starts too."""

from __future__ import annotations

from edgeecc.cli.main import main

if __name__ == "__main__":
    main()
