"""From a comparison to its cells: the same data, held-out images, batches and steps for every method."""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

import numpy as np

from edgeecc.artifacts import file_sha256
from edgeecc.budgets import price_budgets
from edgeecc.comparison.budget_names import plain
from edgeecc.comparison.cells import Cell, json_ready
from edgeecc.comparison.rates import (
    Rates,
    RateSearch,
    Trial,
    next_rate,
    scores_of,
    spread_over,
)
from edgeecc.comparison.request import CompareRequest
from edgeecc.comparison.settled import priced_as_before
from edgeecc.config import EccConfig, TaskName, TrainConfig
from edgeecc.data.sources import digest_of
from edgeecc.data.splits import held_apart
from edgeecc.ecc_forms import refuse_unread
from edgeecc.peer_config import with_settings
from edgeecc.pricing import Price
from edgeecc.run_request import PruneRequest, settled, step_counts, task_of, usual_held_out
from edgeecc.solvers.table import method
from edgeecc.sources import NetworkSource, load_images, open_network, trace_source
from edgeecc.units import Budget


@dataclass(frozen=True)
class Ground:
    """What all cells stand on, found by opening the network and the data once.

    Args:
        source: the network.
        task: of the data set.
        price: of its widths.
        dense_cost: SI.
        training: with batch size and rate filled in.
        steps, finetune_steps: batches of each cell.
        images: training images.
        held_out: of these, taken out of every training.
        out: folder of the comparison.
        data_sha256: of the data set, see `digest_of`.
        thin_cost, half_cost: of networks of single units and of half the dense widths, SI: with the dense cost they
            tell cost models apart.
    """

    source: NetworkSource
    task: TaskName
    price: Price
    dense_cost: float
    training: TrainConfig
    steps: int
    finetune_steps: int
    images: int
    held_out: int
    out: Path
    data_sha256: str
    thin_cost: float
    half_cost: float


def survey(request: CompareRequest) -> Ground:
    """Open the network with the first seed's weights, the data and the price, and settle what was left open.

    Raises: any EdgeeccError of these: what every cell would fail by is refused at once.
    """
    template = request.template
    model, source = open_network(
        template.network, template.input_shape, request.weights_of(request.seeds[0]),
        paper_groups=template.paper_groups, normalisation=template.normalisation,
    )  # fmt: skip
    data = load_images(source, template.data, template.training.seed)
    data.check_fits(model, source.example(), task_of(data))
    if template.pruning.val_apart:
        held_apart(data.val, template.pruning.val_apart, 0, what="validation")  # refuses too many
    traced = trace_source(model, source)
    out = request.out or template.workspace / "runs" / f"compare-{source.folder}"
    first = replace(template, budget=request.budgets[0])
    (priced,) = price_budgets(priced_as_before(first, out), traced, source)
    widths = traced.spec.vector(traced.spec.dense_widths())
    training = settled(template.training, source.input_shape, data.task)
    steps, finetune_steps = step_counts(template.pruning, training, len(data.train))
    held_out = template.pruning.held_out
    return Ground(
        source=source,
        task=data.task,
        price=priced.price,
        dense_cost=priced.dense_cost,
        training=training,
        steps=steps,
        finetune_steps=finetune_steps,
        images=len(data.train),
        held_out=usual_held_out(len(data.train)) if held_out is None else held_out,
        out=out,
        data_sha256=digest_of(data),
        thin_cost=priced.price.cost.predict(np.ones_like(widths)),
        half_cost=priced.price.cost.predict(0.5 * widths),
    )


class Planner:
    """Makes cells.

    Args:
        request: the comparison.
        ground: what they stand on.
        profile: file of the cost model, the same for all; None where it is counted.
    """

    def __init__(self, request: CompareRequest, ground: Ground, profile: Optional[Path]) -> None:
        self._request, self._ground, self._profile = request, ground, profile
        self._digest = functools.lru_cache(maxsize=None)(file_sha256)

    def cells(self, folder: Path, rates: Rates) -> List[Cell]:
        """Return the cells of methods that have a rate, seed by seed, so that all methods come on evenly."""
        asked = self._request
        return [
            self.cell(
                folder / f"{name}-{plain(budget)}-{seed}",
                name,
                budget,
                seed=seed,
                rate=rates[name][budget.text],
            )
            for seed in asked.seeds
            for budget in asked.budgets
            for name in asked.methods
            if name in rates
        ]

    def trials(self, folder: Path, search: RateSearch) -> List[Tuple[Cell, float]]:
        """Return the first trials of the search: every rate of its list for every method."""
        return [
            (self._trial(folder, search, name, budget, rate), rate)
            for budget in search.budgets_of(self._request.budgets)
            for rate in search.rates
            for name in self._request.methods
        ]

    def further(
        self, folder: Path, search: RateSearch, trials: Sequence[Trial]
    ) -> List[Tuple[Cell, float]]:
        """Return a trial more for every method and budget where one is left to make, by what trials came to."""
        return [
            (self._trial(folder, search, name, budget, rate), rate)
            for budget in search.budgets_of(self._request.budgets)
            for name in self._request.methods
            for rate in [next_rate(scores_of(trials, name, budget.text))]
            if rate is not None
        ]

    def _trial(
        self, folder: Path, search: RateSearch, name: str, budget: Budget, rate: float
    ) -> Cell:
        return self.cell(
            folder / f"{name}-{plain(budget)}-{rate!r}",
            name,
            budget,
            seed=search.seed_of(self._request.seeds),
            rate=rate,
            judged=self.judged(search),
        )

    def judged(self, search: RateSearch) -> int:
        """Return how many training images judge a trial: none where validation images do."""
        if self._request.template.pruning.val_apart:
            return 0
        return search.judged_of(self._ground.images)

    def rates(self) -> Rates:
        """Return the learning rates where none are searched for."""
        asked, usual = self._request, self._ground.training.learning_rate
        return {
            name: {budget.text: asked.rate_of(name, budget, usual) for budget in asked.budgets}
            for name in asked.methods
        }

    def searched(self, chosen: Rates, search: RateSearch) -> Rates:
        """Return the learning rates of all budgets, from those that a search chose at its own."""
        searched, asked = (
            {budget.text: budget.resolve(self._ground.dense_cost) for budget in budgets}
            for budgets in (search.budgets_of(self._request.budgets), self._request.budgets)
        )
        return spread_over(chosen, searched, asked)

    def cell(  # keyword-only, one each
        self, run: Path, name: str, budget: Budget, *, seed: int, rate: float, judged: int = 0
    ) -> Cell:  # fmt: skip
        """Return one cell; of a trial with the images that it is judged on.

        Raises: ArtifactError when its weights cannot be read; ConfigError for settings that its method lacks or leaves
            unread.
        """
        template = self._request.template
        made = with_settings(method(name).settings(), self._request.settings.get(name, ()))
        if isinstance(made, EccConfig):
            refuse_unread(made)
        request = replace(
            template,
            weights=self._request.weights_of(seed),
            budget=budget,
            profile=() if self._profile is None else self._profile,
            run=run,
            force=False,
            pruning=replace(
                template.pruning, method=name, held_out=self._ground.held_out, judged=judged
            ),
            training=replace(self._ground.training, seed=seed, lr=rate),
            ecc=made if isinstance(made, EccConfig) else template.ecc,
            settings=None if isinstance(made, EccConfig) else made,
        )  # fmt: skip
        return Cell(request, self._asked(request))

    def _asked(self, request: PruneRequest) -> Dict[str, object]:
        """Return everything that the result depends on; accelerator and layout compute the same up to rounding."""
        ground = self._ground
        pruning = asdict(request.pruning)
        for name in ("method", "checkpoint_s"):
            del pruning[name]
        if not request.pruning.val_apart:  # cells of earlier versions have none
            del pruning["val_apart"]
        pruning.update(steps=ground.steps, finetune_steps=ground.finetune_steps)
        asked = {
            "method": request.pruning.method,
            "budget": request.budgets[0].text,
            "metric": request.budgets[0].metric.value,
            "weights_sha256": self._digest(request.weights),
            "data": request.data,
            "data_sha256": ground.data_sha256,
            "source": ground.source.to_json(),
            "settings": asdict(request.method_settings()),  # type: ignore[call-overload]  # a dataclass, as the table says
            "pruning": pruning,
            "training": asdict(request.training),
            "precision": request.compute.precision,
            "price": {
                "meter": ground.price.cost.meter,
                "device": ground.price.device,
                "margin": ground.price.margin,
                "dense_cost": ground.dense_cost,
                "half_cost": ground.half_cost,
                "thin_cost": ground.thin_cost,
            },
        }
        return json_ready(asked)
