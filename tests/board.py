"""A board for tests: `edgeecc measure`, with the faults that its first argument asks for, as a JSON object.

scale: factor on what is measured. delay_s: a variant takes so long. pids: folder in which it leaves its number and
its parent's. slow_after: variants after which it throttles, until it is started again. mute_after, noise_after:
variants after which it says nothing, or nonsense. unbuildable: numbers of variants of which it can build no engine.
off: while this file is there it does not start.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Dict

#: What a throttled board measures, relative.
THROTTLED = 1.6


def misbehave(options: Dict[str, Any]) -> None:
    """Have every measurement of this process go as the options say."""
    from edgeecc.measure_variants import Station
    from edgeecc.runtimes.engine import EngineBuildError

    plain, done = Station.measure, 0

    def measure(station: Any, number: int, widths: Any) -> Dict[str, object]:
        nonlocal done
        if number in options.get("unbuildable", ()):
            raise EngineBuildError(f"no kernel for variant {number}")
        found = plain(station, number, widths)
        hot = done >= options.get("slow_after", 1 << 60)
        pace = THROTTLED if hot else 1.0
        scale = pace * options.get("scale", 1.0)
        for key in ("value", "standard_error", "spread", "latency_s"):
            found[key] = found[key] and found[key] * scale
        time.sleep(pace * options.get("delay_s", 0.0))
        if done >= options.get("mute_after", 1 << 60):
            time.sleep(1000.0)
        if done >= options.get("noise_after", 1 << 60):
            found["value"] = "a lot"
        done += 1
        return found

    Station.measure = measure


if __name__ == "__main__":
    asked = json.loads(sys.argv.pop(1))
    if "pids" in asked:
        Path(asked["pids"], str(os.getpid())).write_text(str(os.getppid()))
    if "off" in asked and Path(asked["off"]).exists():
        sys.exit("the board is off")
    from edgeecc.cli.main import main

    misbehave(asked)
    main()
