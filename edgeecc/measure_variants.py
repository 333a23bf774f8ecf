"""Measure single variants of a network on this device, as they are asked for: what a board of a fleet does.

Needs no torch: it works from the folder with spec.json and dense.onnx that a calibration leaves.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator

from edgeecc.bench import Bench, check_measurable, open_bench
from edgeecc.config import CalibrateConfig, Design, MeasureProtocol
from edgeecc.cost.design import Sampling
from edgeecc.crew import row_of
from edgeecc.errors import ConfigError
from edgeecc.fleet.wire import greeting, read_task, row_object
from edgeecc.graph.onnx_slice import SlicePlan, load_model
from edgeecc.graph.spec import NetworkSpec, Widths
from edgeecc.run_folder import read_spec_file


@dataclass(frozen=True)
class Station:
    """A network on a device, ready to be measured at any widths."""

    spec: NetworkSpec
    bench: Bench
    device: str
    protocol: MeasureProtocol

    @staticmethod
    @contextmanager
    def open(graph: Path, device: str, seed: int, protocol: MeasureProtocol) -> Iterator[Station]:
        """Open the station of a folder, and let its device go in the end.

        Args:
            graph: folder with spec.json and dense.onnx.
            device: device name.
            seed: of simulated noise.
            protocol: how each variant is measured.
        Raises: ConfigError for an unknown device, or when the network has nothing to prune; ArtifactError when the
            folder holds no traced network; RuntimeUnavailableError when the device is not this machine's.
        """
        check_measurable(device)
        seed = CalibrateConfig(seed=seed).seed
        spec = read_spec_file(graph / "spec.json")
        if not spec.prunable:
            raise ConfigError(f"{spec.network} has no prunable group; edgeecc inspect says why")
        plan = SlicePlan.build(load_model(graph / "dense.onnx"), spec)
        with open_bench(plan, device, seed) as bench:
            yield Station(spec, bench, device, protocol)

    def sample(self, number: int, seed: int, design: Design) -> Widths:
        """Return the widths that a calibration draws as its sample of that number."""
        heldout = CalibrateConfig().heldout
        return Sampling(self.spec, seed=seed, design=design, heldout=heldout).widths(number)

    def measure(self, number: int, widths: Widths) -> Dict[str, object]:
        """Measure one variant; simulated noise depends on its number alone.

        Returns: what `edgeecc measure --json` prints.
        """
        found = self.bench.measure(number, widths, self.protocol)
        return row_object(row_of(number, self.spec, widths, found), found.meter)

    def serve(self, lines: Iterable[str]) -> Iterator[Dict[str, object]]:
        """Greet, then measure each variant that a line asks for, as soon as it is asked.

        Raises: ConfigError for a line that is no variant of this network.
        """
        yield greeting(self.device, self.spec)
        for line in lines:
            if line.strip():
                yield self.measure(*read_task(line, self.spec))
