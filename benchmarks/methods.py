"""ECC beside every peer at equal batches, distillation, fine-tuning and tuning: accuracy, mean and spread over seeds.

One case a call. Dense networks are made first, where they are not there yet; then `edgeecc compare` searches the
learning rate of every method with the same number of trials, on a seed of its own and judged on training images of
their own, and runs methods x budgets x seeds. The dense network of the trials is trained without these images: of a
network that knows them, low rates would keep what it knows (public weights have seen them all). What has finished is
never run again: it is kept in benchmarks/results, with the dense networks, so that a table may come together over days
and machines; what has run with other settings is kept apart.

Energy is a tenth fixed and nine tenths in proportion to each layer's multiply-accumulates, dense = 1 J: a model, not a
measurement.

    python benchmarks/methods.py --case fashion --out runs/methods
    python benchmarks/methods.py --case cifar-mobilenet --data ../shared/data --out runs/methods
    python benchmarks/methods.py --case fashion --methods halp --set halp.course=reducible --out runs/methods
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple, get_args

import kept
import nets
import torch
from torch import nn

from edgeecc.artifacts import write_tensors
from edgeecc.compare import compare
from edgeecc.comparison.rates import (
    Rates,
    RateSearch,
    Trial,
    chosen_rates,
    nearest,
    next_rate,
    scores_of,
    spread_over,
)
from edgeecc.comparison.request import CompareRequest, settings_by_method
from edgeecc.config import ComputeConfig, Precision, PruneConfig, TrainConfig
from edgeecc.cost.exact import mac_cost
from edgeecc.cost.product import ProductModel
from edgeecc.cost.profile import Profile
from edgeecc.data.sources import load
from edgeecc.data.splits import held_apart
from edgeecc.graph.spec import NetworkSpec
from edgeecc.networks.resnet_cifar import CifarResNet
from edgeecc.networks.weights import load_into, load_state
from edgeecc.progress import Progress
from edgeecc.run_request import PruneRequest, task_of, tensors_of
from edgeecc.solvers.table import METHODS
from edgeecc.sources import open_network, trace_source
from edgeecc.training.compute import compute_of
from edgeecc.training.dense import initialise_, train_dense_
from edgeecc.units import Metric, parse_budget

RESULTS = Path(__file__).resolve().parent / "results"
#: Seed of the trials, which is not compared.
TRIALS = 3
#: File of the cost model, beside the dense networks.
LAW = "law.json"
METER = "a model: a tenth fixed, nine tenths by MACs, dense = 1 J"


@dataclass(frozen=True)
class Case:
    """One table.

    Args:
        network: as `--network` names it.
        data: as `--data` names it; {data} is the folder of the data.
        shape: of an image.
        budgets: shares of the dense energy.
        methods: to compare.
        steps, finetune_steps: of every run.
        batch: images a step.
        rates: learning rates that are tried for every method.
        refine: trials more for every method and budget, near the best of these.
        search: budgets of the trials; those that no compared budget takes its rate from are left out.
        searched_in: the case whose trials choose the rates, where this one has none of its own.
        passes, dense_lr: of the dense training.
        start: makes the network that dense training starts from; None starts from random weights.
        one_dense: whether all seeds share a dense network.
        val_apart: validation images that judge the trials and score no cell, where the dense network may have seen all
            training images.
    """

    network: str
    data: str
    shape: Tuple[int, ...]
    budgets: Tuple[str, ...]
    steps: int
    finetune_steps: int
    rates: Tuple[float, ...]
    search: Tuple[str, ...]
    passes: int
    dense_lr: float
    batch: int = 128
    methods: Tuple[str, ...] = tuple(METHODS)
    start: Optional[Callable[[Path], nn.Module]] = None
    one_dense: bool = True
    searched_in: Optional[str] = None
    refine: int = 0
    val_apart: int = 0


def _public(depth: int) -> Callable[[Path], nn.Module]:
    def start(data: Path) -> nn.Module:
        model = CifarResNet(depth)
        load_into(model, load_state(data / f"weights/cifar10_resnet{depth}_akamaster.pt"))
        return nets.resnet_with_shortcuts(depth, model)

    return start


_CIFAR = Case(
    network="nets:cifar_mobilenet_v2", data="cifar10:{data}/cifar10", shape=(3, 32, 32),
    budgets=("50%", "30%", "15%"), steps=300, finetune_steps=480, rates=(3e-3, 1e-2, 3e-2, 1e-1),
    search=("50%", "30%", "15%"), refine=2, passes=15, dense_lr=4e-3,
)  # fmt: skip
_RESNET = replace(
    _CIFAR, steps=150, finetune_steps=240, rates=(1e-3, 3e-3, 1e-2, 3e-2), passes=2, dense_lr=1e-3, val_apart=5000,
)  # fmt: skip
CASES: Dict[str, Case] = {
    "fashion": Case(
        network="fashion_mobilenet", data="fashion-mnist", shape=(1, 28, 28), budgets=("50%", "34%", "20%", "12%"),
        steps=600, finetune_steps=469, rates=(1e-2, 2e-2, 4e-2, 8e-2, 1.6e-1), search=("50%", "20%", "12%"), passes=12,
        dense_lr=4e-3, one_dense=False,
    ),
    "cifar-mobilenet": _CIFAR,
    "cifar-resnet20": replace(_RESNET, network="nets:resnet20", start=_public(20)),
    "cifar-resnet56": replace(
        _RESNET, network="nets:resnet56", start=_public(56), searched_in="cifar-resnet20"
    ),
    "camvid-erfnet": Case(
        network="nets:narrow_erfnet", data="camvid:{data}/camvid", shape=(3, 360, 480),
        budgets=("60%", "35%"), steps=150, finetune_steps=250, rates=(5e-4, 1e-3, 2e-3, 4e-3, 8e-3), search=("35%",),
        passes=25, dense_lr=2e-3, batch=4, methods=("ecc", "uniform", "netadapt"),
    ),
}  # fmt: skip


def energy_profile(spec: NetworkSpec) -> Profile:
    """Return the energy of the comparisons as a profile."""
    macs = mac_cost(spec)
    model = ProductModel(
        Metric.ENERGY, METER, groups=macs.groups, terms=macs.terms, constant=0.1,
        coefficients=0.9 * macs.coefficients / macs.coefficients.sum(),
    )  # fmt: skip
    return Profile(
        network=spec.network, device="law", fingerprint=spec.fingerprint(), model=model, form="bilinear", fit="given",
        meter=METER, heldout=None, samples={},
    )  # fmt: skip


def train_dense(case: Case, data: Path, seed: int, path: Path, compute: ComputeConfig) -> None:
    """Make the dense network of a seed, where it is not there yet; where trials start from it, without their images."""
    if path.is_file():
        return
    model, source = open_network(case.network, case.shape, None)
    if case.start is None:
        initialise_(model, seed)
    else:
        model.load_state_dict(case.start(data).state_dict())
    bundle = load(case.data.format(data=data), input_shape=source.input_shape, seed=seed)
    train = bundle.train
    if case.one_dense or seed == TRIALS:
        train = held_apart(train, RateSearch(case.rates).judged_of(len(train)), TRIALS)[0]
    steps = case.passes * (len(train) // case.batch)

    def tell(step: int, of: int) -> None:
        if step % 100 == 0 or step == of:
            print(f"\rdense, seed {seed}: step {step} of {of}", end="", file=sys.stderr)

    train_dense_(
        model, train, steps=steps, batch_size=case.batch, lr=case.dense_lr, seed=seed,
        task=task_of(bundle).fitted(train), compute=compute_of(compute), on_step=tell,
    )  # fmt: skip
    write_tensors(path, tensors_of(model), {"network": source.reference})


def request_of(
    case: Case, data: Path, out: Path, seeds: Sequence[int], precision: Precision = "fp32"
) -> PruneRequest:
    """Make the dense networks and the cost model of a case, and return the pruning run that its cells vary."""
    compute = ComputeConfig(precision=precision)
    weights = out / ("dense.safetensors" if case.one_dense else "dense-{seed}.safetensors")
    for seed in [0] if case.one_dense else seeds:
        train_dense(case, data, seed, Path(str(weights).format(seed=seed)), compute)
    model, source = open_network(case.network, case.shape, None)
    energy_profile(trace_source(model, source).spec).save(out / LAW)
    return PruneRequest(
        weights=weights,
        budget=parse_budget(case.budgets[0], Metric.ENERGY),
        data=case.data.format(data=data),
        network=case.network,
        input_shape=case.shape,
        profile=out / LAW,
        pruning=PruneConfig(
            steps=case.steps, finetune_steps=case.finetune_steps, val_apart=case.val_apart
        ),
        training=TrainConfig(batch_size=case.batch),
        compute=compute,
    )


def shares(budgets: Sequence[str]) -> Dict[str, float]:
    """Return budgets as shares of the dense energy, by their texts."""
    return {text: parse_budget(text, Metric.ENERGY).value for text in budgets}


def search_of(case: Case, budgets: Sequence[str]) -> RateSearch:
    """Return the search that chooses the rates of budgets."""
    searched = shares(case.search)
    taken = {nearest(searched, share) for share in shares(budgets).values()}
    return RateSearch(
        case.rates,
        tuple(parse_budget(text, Metric.ENERGY) for text in case.search if text in taken),
        TRIALS,
        refine=case.refine,
    )


def found_rates(name: str, folder: Path, methods: Sequence[str], budgets: Sequence[str]) -> Rates:
    """Return the rates that the trials of a case, kept in a folder of cases, choose for budgets, by method.

    Raises: SystemExit where some of these trials are missing.
    """
    search = search_of(CASES[name], budgets)
    known = {(each.method, each.budget, each.lr): each for each in kept.trials(folder / name)}
    found: List[Trial] = []

    def take(method: str, budget: str, rate: Optional[float]) -> None:
        if rate is None:
            return
        if (method, budget, rate) not in known:
            raise SystemExit(
                f"{method} at {budget} has no trial of {rate:g}; run --case {name} first"
            )
        found.append(known[method, budget, rate])

    for method, budget in product(methods, (budget.text for budget in search.budgets)):
        for rate in search.rates:
            take(method, budget, rate)
        for _ in range(search.refine):
            take(method, budget, next_rate(scores_of(found, method, budget)))
    chosen = chosen_rates(found)
    return spread_over(chosen, shares(CASES[name].search), shares(budgets))


def main() -> None:
    """Make the dense networks, compare, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--case", choices=sorted(CASES), required=True)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder of the shared data")
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--budgets", nargs="+")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="METHOD.NAME=VALUE", help="other than the defaults"
    )
    parser.add_argument("--kept", type=Path, default=RESULTS, help="folder of what has finished")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        default="fp32",
        help="of forward passes in training",
    )
    args = parser.parse_args()
    case = CASES[args.case]
    out = args.out / args.case
    kept.restore_dense(args.kept / args.case, out)
    template = request_of(case, args.data, out, [*args.seeds, TRIALS], args.precision)
    kept.keep_dense(out, args.kept / args.case)
    varied = Path("with", ",".join(sorted(args.set))) if args.set else Path()
    results, folder = args.kept / args.case / varied, out / varied / "comparison"
    kept.restore(results, folder, case.data.format(data=args.data))
    methods = tuple(args.methods or case.methods)
    budgets = tuple(args.budgets or case.budgets)
    search: Optional[RateSearch] = None
    found: Rates = {}
    if case.searched_in is None:
        search = search_of(case, budgets)
    else:
        found = found_rates(case.searched_in, args.kept, methods, budgets)
    request = CompareRequest(
        template,
        methods=methods,
        budgets=tuple(parse_budget(text, Metric.ENERGY) for text in budgets),
        seeds=tuple(args.seeds),
        rates={(name, text): rate for name, own in found.items() for text, rate in own.items()},
        settings=settings_by_method(args.set),
        search=search,
        out=folder,
        jobs=args.jobs,
    )

    last = -1

    def tell(progress: Progress) -> None:
        nonlocal last
        if progress.done != last:
            last = progress.done
            print(f"{last}/{progress.total} {progress.note}", file=sys.stderr)
            kept.keep(folder, results, case.data)

    compare(request, tell)
    kept.keep(folder, results, case.data)
    print((folder / "table.md").read_text())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
