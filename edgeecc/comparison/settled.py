"""What a comparison settled when it began, kept in its folder: its price, and where its rates are searched for.

profile.json   the cost model of all cells, where they are not counted
search.json    seed and budgets of the search of learning rates

The same command later, or one with more methods, budgets or seeds, goes on with these, so that neither a calibration
in between nor a longer list of seeds or budgets makes other cells of those that are there (ours).
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import Optional, Sequence, Tuple

from edgeecc.artifacts import write_json
from edgeecc.comparison.cells import json_ready
from edgeecc.comparison.rates import RateSearch
from edgeecc.cost.profile import Profile
from edgeecc.device_names import parse_device
from edgeecc.errors import ArtifactError, ConfigError, EdgeeccError, UnitError, cause_of
from edgeecc.report.fields import Fields
from edgeecc.run_request import PruneRequest
from edgeecc.units import Budget, Metric, parse_budget

PROFILE_FILE = "profile.json"
SEARCH_FILE = "search.json"
SEARCH_SCHEMA = "edgeecc/search/1"


def priced_as_before(template: PruneRequest, out: Path) -> PruneRequest:
    """Return the template with the comparison's own cost model, where it has one and no other is named.

    Raises: ArtifactError when its profile.json is damaged.
    """
    path = out / PROFILE_FILE
    if template.profiles or not path.is_file():
        return template
    kept = Profile.load(path)
    named = all(_is_same_device(device, kept.device) for device in template.devices)
    priced = kept.metric is template.budgets[0].metric
    return replace(template, profile=path) if named and priced else template


def keep_price(profile: Optional[Profile], out: Path) -> Optional[Path]:
    """Keep the cost model with the comparison; return its file, None where costs are counted.

    Raises: ArtifactError when the comparison has another one: two prices in one table compare nothing.
    """
    if profile is None:
        return None
    path = out / PROFILE_FILE
    if not path.is_file():
        profile.save(path)
    elif _law(Profile.load(path)) != _law(profile):
        raise ArtifactError(
            f"{path} prices this comparison, and what is asked for now predicts otherwise; leave out --profile and "
            "--device to go on with it, or give another --out"
        )
    return path


def keep_search(
    search: RateSearch, budgets: Sequence[Budget], seeds: Sequence[int], out: Path
) -> RateSearch:
    """Return a search with its seed and budgets settled: as asked, else as the comparison began, else as usual.

    Raises: ConfigError when the seed of the trials is one of those compared; ArtifactError when another seed is asked
        for than the trials have, or search.json is damaged.
    """
    path = out / SEARCH_FILE
    kept_seed, kept_budgets = _read_search(path) if path.is_file() else (None, ())
    if kept_seed is not None and search.seed not in (None, kept_seed):
        raise ArtifactError(
            f"the trials of {out} have seed {kept_seed}, not {search.seed}; leave --search-seed out, or give another "
            "--out"
        )
    if kept_seed in seeds:
        raise ConfigError(
            f"seed {kept_seed} chose the rates of this comparison, so it cannot be compared; leave it out of --seeds"
        )
    seed = search.seed_of(seeds) if kept_seed is None else kept_seed
    at = search.budgets or kept_budgets or search.budgets_of(budgets)
    told = [{"text": budget.text, "metric": budget.metric.value} for budget in at]
    write_json(path, SEARCH_SCHEMA, {"seed": seed, "budgets": told})
    return replace(search, seed=seed, budgets=at)


def _read_search(path: Path) -> Tuple[int, Tuple[Budget, ...]]:
    """Return the seed and the budgets of a search."""
    document = Fields.read(path, SEARCH_SCHEMA)
    try:
        budgets = tuple(
            parse_budget(each.text("text"), Metric(each.text("metric")))
            for each in document.objects("budgets")
        )
        return int(document.number("seed")), budgets
    except (ValueError, UnitError, ArtifactError) as error:
        cause = cause_of(error) if isinstance(error, EdgeeccError) else error
        raise ArtifactError(
            f"{path} is damaged: {cause}; remove it, and give --search-seed and --search-budget of its trials"
        ) from error


def _is_same_device(one: str, other: str) -> bool:
    with contextlib.suppress(ConfigError):
        return parse_device(one).text == parse_device(other).text
    return one == other


def _law(profile: Profile) -> object:
    """Return what of a profile prices: of whom, by what, and how much is held off a budget."""
    told = profile.to_json()
    names = ("fingerprint", "device", "model", "heldout_error", "ratios")
    return json_ready({name: told[name] for name in names})
