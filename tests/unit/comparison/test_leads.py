"""Leads of the best method: against numpy, seed by seed, and only where a method is shown to be best."""

from __future__ import annotations

from typing import List, Optional

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgeecc.comparison.figures import Row, summaries
from edgeecc.comparison.leads import leads
from edgeecc.comparison.text import lead_table

pytestmark = pytest.mark.device

SCORES = st.integers(0, 1000).map(lambda value: value / 1000)


def rows(method: str, scores: List[Optional[float]], budget: str = "50%") -> List[Row]:
    return [
        Row(method, budget, seed, "failed" if score is None else "finished", accuracy=score)
        for seed, score in enumerate(scores)
    ]


@given(st.lists(st.tuples(SCORES, SCORES, SCORES), min_size=2, max_size=6))
def test_leads_are_the_differences_seed_by_seed(scores: List[tuple]) -> None:
    table = np.array(scores)
    means = table.mean(axis=0)
    assume(len(set(means)) == 3)
    names = ("a", "b", "c")
    found = leads([row for name, own in zip(names, table.T) for row in rows(name, own.tolist())])
    best = int(means.argmax())
    assert [one.method for one in found] == [name for name in names if name != names[best]]
    for one in found:
        assert one.best == names[best]
        behind = table[:, best] - table[:, names.index(one.method)]
        assert one.lead.mean == pytest.approx(behind.mean(), abs=1e-12)
        assert one.error == pytest.approx(behind.std(ddof=1) / len(table) ** 0.5, abs=1e-9)
        assert one.ahead == (behind > 0.0).sum()


@pytest.mark.parametrize(
    "others", [[], rows("b", [0.9, 0.8]), rows("b", [0.1, None]), rows("b", [None, None])]
)
def test_nobody_leads_where_nobody_is_best(others: List[Row]) -> None:
    assert leads([*rows("a", [0.8, 0.9]), *others]) == []
    assert lead_table([], []) == []


def test_the_table_names_the_best_and_what_is_not_known() -> None:
    found = [
        *rows("a", [0.80, 0.90]), *rows("b", [0.79, 0.91]), *rows("c", [0.70, 0.81]),
        *rows("a", [0.6], "20%"), *rows("b", [0.5], "20%"), *rows("c", [0.7], "20%"),
        *rows("a", [0.3], "10%"), *rows("b", [None], "10%"), *rows("c", [0.2], "10%"),
    ]  # fmt: skip
    found[0] = rows("a", [0.82])[0]
    assert lead_table(summaries(found), leads(found)) == [
        ("behind the best, points", "50%", "20%", "10%"),
        ("a", "best", "10.00 (1 of 1)", "-"),
        ("b", "1.00 ± 2.00 (1 of 2)", "20.00 (1 of 1)", "-"),
        ("c", "10.50 ± 1.50 (2 of 2)", "best", "-"),
    ]
