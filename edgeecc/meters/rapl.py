"""Energy of the host's processor: the RAPL counters in /sys/class/powercap, of Intel and AMD.

Added up are the packages, and the memory ("dram") where it has a counter. A package contains its cores and its graphics
(subzones "core" and "uncore") and is itself within "psys", the platform; those are never added. Memory is drawn as a
subzone of its package but is counted apart from it (Intel SDM, volume 3, 14.9, and
community.intel.com/t5/Software-Tuning-Performance/-/m-p/1143474).

The hardware counts 32 bits and starts again at zero. The kernel gives the highest count as max_energy_range_uj (262 kJ
where a unit is 61 uJ), so one lap is that and one unit more. Between two readings at most one lap can be told: at P
watts of one domain they must follow within max_energy_range_uj / P, which is 22 minutes at 200 W and 131 s at the
2000 W up to which a reading is believed. A window of a measurement is far shorter. A counter that is set back otherwise
(suspend, a driver loaded anew) looks like a lap; it is caught as an impossible power unless that much time had passed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Callable, List, Optional, Sequence

from edgeecc.errors import MeterError
from edgeecc.meters.sysfs import optional_text, read_int

#: Seconds between updates of the counters: about a millisecond (Intel SDM, volume 3, 14.9).
PERIOD_S = 1e-3
#: No domain draws more (ours; the largest packages are allowed 500 W).
MOST_W = 2000.0
#: The counter's bits (ENERGY_STATUS_MASK in the kernel's drivers/powercap/intel_rapl_common.c).
_COUNTS = 2**32
_ZONE = re.compile(r"intel-rapl:[0-9]+(:[0-9]+)*\Z")
_COUNTED = re.compile(r"package-[0-9]+(-die-[0-9]+)?\Z|dram\Z")
_REMEDY = (
    "since 2020 only root may (CVE-2020-8694): sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj allows it "
    "until the next start"
)


@dataclass(frozen=True)
class Domain:
    """A counter of energy.

    Args:
        name: such as "package-0".
        file: its count, microjoules.
        lap_uj: microjoules in one lap.
    """

    name: str
    file: Path
    lap_uj: int

    def read_uj(self) -> int:
        """Return its count.

        Raises: MeterError when it cannot be read, or is outside of a lap.
        """
        count = read_int(self.file, _REMEDY)
        if not 0 <= count < self.lap_uj:
            raise MeterError(
                f"{self.file} reads {count} uJ, outside of its range of {self.lap_uj} uJ; check the kernel's intel_rapl"
            )
        return count


def find_domains(root: Path = Path("/")) -> List[Domain]:
    """Return the counters to add up, by zone; none where there is no RAPL.

    Raises: MeterError when the range of one cannot be read.
    """
    found = []
    for zone in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        name = optional_text(zone / "name")
        if not _ZONE.match(zone.name) or not _COUNTED.match(name):
            continue
        highest = read_int(zone / "max_energy_range_uj", _REMEDY)
        if highest <= 0:
            raise MeterError(
                f"{zone / 'max_energy_range_uj'} reads {highest} uJ, which is no range; check the kernel's intel_rapl"
            )
        package = optional_text(zone.parent / zone.name.rpartition(":")[0] / "name")
        found.append(
            Domain(
                name=f"{name} of {package}" if name == "dram" and package else name,
                file=zone / "energy_uj",
                lap_uj=highest + max(1, round(highest / (_COUNTS - 1))),
            )
        )
    return found


class RaplMeter:
    """A meter over RAPL domains: a cumulative count that does not wrap.

    Args:
        domains: as `find_domains` returns them.
        clock: monotonic seconds.
    Raises: MeterError when there is no domain, or one cannot be read.
    """

    period_s, step_w = PERIOD_S, 0.0

    def __init__(
        self, domains: Sequence[Domain], clock: Callable[[], float] = perf_counter
    ) -> None:
        if not domains:
            raise MeterError(
                "no RAPL counter is here: /sys/class/powercap has no package; it takes an Intel or AMD processor, no "
                "virtual machine, and the module intel_rapl_msr; in Docker, --security-opt systempaths=unconfined"
            )
        self.name = f"rapl {' + '.join(domain.name for domain in domains)}"
        self._domains, self._clock = tuple(domains), clock
        self._last_uj = [domain.read_uj() for domain in self._domains]
        self._last_s = clock()
        self._total_uj = 0

    def clock_s(self) -> float:
        """Return monotonic seconds."""
        return self._clock()

    def read_j(self) -> Optional[float]:
        """Return joules since the meter was made.

        Raises: MeterError when a domain cannot be read or was set back.
        """
        counts = [domain.read_uj() for domain in self._domains]
        now = self._clock()
        passed_s = now - self._last_s
        passed_uj = [
            (count - last) % domain.lap_uj
            for domain, last, count in zip(self._domains, self._last_uj, counts)
        ]
        for domain, passed in zip(self._domains, passed_uj):
            if passed > 1e6 * MOST_W * (passed_s + PERIOD_S):
                raise MeterError(
                    f"{domain.name} counted {1e-6 * passed:.4g} J in {passed_s:.3g} s, which no processor draws: its "
                    "counter was set back; measure again"
                )
        self._total_uj += sum(passed_uj)
        self._last_uj, self._last_s = counts, now
        return 1e-6 * self._total_uj

    def blind_s(self) -> float:
        """Return 0: a counter misses nothing."""
        return 0.0
