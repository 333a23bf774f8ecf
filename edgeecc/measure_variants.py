"""Measure single variants of a network on this device, as they are asked for: what a board of a fleet does.

Needs no torch: it works from the folder with spec.json and dense.onnx that a calibration leaves.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Iterable, Iterator

from edgeecc.bench import Bench, check_measurable, open_bench
from edgeecc.config import CalibrateConfig, Design, MeasureProtocol
from edgeecc.cost.design import Sampling
from edgeecc.cost.samples import Failure
from edgeecc.crew import row_of
from edgeecc.errors import ConfigError
from edgeecc.fleet.wire import failure_object, greeting, read_task, row_object
from edgeecc.graph.onnx_slice import SlicePlan, load_model
from edgeecc.graph.spec import NetworkSpec, Widths
from edgeecc.run_folder import read_spec_file
from edgeecc.runtimes.engine import EngineBuildError


@dataclass(frozen=True)
class Station:
    """A network on a device, ready to be measured at any widths."""

    spec: NetworkSpec
    bench: Bench
    device: str
    protocol: MeasureProtocol

    @staticmethod
    @contextmanager
    def open(
        graph: Path, device: str, seed: int, protocol: MeasureProtocol, *, events: bool = False
    ) -> Iterator[Station]:
        """Open the station of a folder, and let its device go in the end.

        Args:
            graph: folder with spec.json and dense.onnx; where it can be written, it keeps timings of kernels and the
                engine of the dense network, which a board of a fleet is asked for again and again.
            device: device name.
            seed: of simulated noise.
            protocol: how each variant is measured.
            events: times single inferences too, where the device has a clock of its own.
        Raises: ConfigError for an unknown device, or when the network has nothing to prune; ArtifactError when the
            folder holds no traced network; RuntimeUnavailableError when the device is not this machine's.
        """
        check_measurable(device)
        seed = CalibrateConfig(seed=seed).seed
        spec = read_spec_file(graph / "spec.json")
        if not spec.prunable:
            raise ConfigError(f"{spec.network} has no prunable group; edgeecc inspect says why")
        plan = SlicePlan.build(load_model(graph / "dense.onnx"), spec)
        folder = graph if os.access(graph, os.W_OK) else None
        with open_bench(plan, device, seed, folder, events=events) as bench:
            yield Station(spec, bench, device, protocol)

    def sample(self, number: int, seed: int, design: Design) -> Widths:
        """Return the widths that a calibration draws as its sample of that number."""
        heldout = CalibrateConfig().heldout
        return Sampling(self.spec, seed=seed, design=design, heldout=heldout).widths(number)

    def measure(self, number: int, widths: Widths) -> Dict[str, object]:
        """Measure one variant; simulated noise depends on its number alone.

        Returns: what `edgeecc measure --json` prints.
        Raises: EngineBuildError when it cannot be built.
        """
        found = self.bench.measure(number, widths, self.protocol)
        row = row_object(row_of(number, self.spec, widths, found), found.meter)
        return {**row, **found.events_told()}

    def serve(self, lines: Iterable[str]) -> Iterator[Dict[str, object]]:
        """Greet, then measure each variant that a line asks for, as soon as it is asked; say which cannot be built.

        Raises: ConfigError for a line that is no variant of this network.
        """
        yield greeting(self.device, self.spec)
        for line in lines:
            if not line.strip():
                continue
            number, widths = read_task(line, self.spec)
            try:
                yield self.measure(number, widths)
            except EngineBuildError as error:
                yield failure_object(Failure(number, str(error)))
