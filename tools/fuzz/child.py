"""The process of one target: nothing of edgeecc is imported before atheris looks on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Sequence

from tools.fuzz.engine import with_atheris, with_hypothesis


def main(arguments: Sequence[str]) -> int:
    """Fuzz one target for a time."""
    parser = argparse.ArgumentParser(prog="tools.fuzz.child")
    parser.add_argument("target")
    parser.add_argument("engine", choices=("atheris", "hypothesis"))
    parser.add_argument("seconds", type=float)
    parser.add_argument("out", type=Path)
    parser.add_argument("seed", type=int)
    options = parser.parse_args(arguments)
    run = with_hypothesis if options.engine == "hypothesis" else with_atheris
    run(options.target, options.seconds, options.out, options.seed)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
