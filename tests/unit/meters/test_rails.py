"""Which rails are added up, on the layouts of the boards, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Callable, Sequence, Tuple

import pytest

from edgeecc.errors import MeterError
from edgeecc.meters.ina3221 import Rail, RailSource, find_rails
from edgeecc.meters.rails import LAYOUTS, choose_rails
from tests import sysfs_trees as trees

pytestmark = pytest.mark.device

XAVIER = ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V")
ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
TX2_PARTS = ("VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_SYS_CPU", "VDD_SYS_DDR", "VDD_4V0_WIFI")


def rails_of(labels: Sequence[str]) -> Tuple[Rail, ...]:
    return tuple(
        Rail(label, f"1-004{number}", (), 1.0, 0.1, 0.01, 2) for number, label in enumerate(labels)
    )


@pytest.mark.parametrize(
    ("build", "wanted", "labels"),
    [
        (trees.tx2_r32, "gpu", ("VDD_SYS_GPU",)),
        (trees.tx2_r32, "input", ("VDD_IN",)),
        (trees.tx2_r32, "sum", TX2_PARTS),
        (trees.agx_xavier_r35, "gpu", ("GPU",)),
        (trees.agx_xavier_r35, "input", XAVIER),
        (trees.agx_xavier_r35, "sum", XAVIER),
        (trees.orin_nano_r36, "gpu", ("VDD_CPU_GPU_CV",)),
        (trees.orin_nano_r36, "input", ("VDD_IN",)),
        (trees.orin_nano_r36, "sum", ("VDD_CPU_GPU_CV", "VDD_SOC")),
        (trees.agx_orin_r36, "gpu", ("VDD_GPU_SOC",)),
        (trees.agx_orin_r36, "input", ORIN),
        (trees.agx_orin_r36, "sum", ORIN),
        (trees.tx2_r32, "VDD_SYS_SOC", ("VDD_SYS_SOC",)),
        (trees.tx2_r32, " VDD_SYS_GPU + VDD_SYS_DDR ", ("VDD_SYS_GPU", "VDD_SYS_DDR")),
    ],
)
def test_rails_are_chosen_by_what_they_are(
    tmp_path: Path, build: Callable[[Path], None], wanted: str, labels: Tuple[str, ...]
) -> None:
    build(tmp_path)
    chosen = choose_rails(find_rails(tmp_path), wanted)
    assert tuple(rail.label for rail in chosen) == labels
    assert RailSource(chosen).name == f"ina3221 {' + '.join(labels)}"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.boards)
def test_every_layout_answers_to_its_own_labels(layout) -> None:
    rails = rails_of(sorted({layout.gpu, *layout.module, *layout.parts}))
    for wanted, labels in (
        ("gpu", (layout.gpu,)),
        ("input", layout.module),
        ("sum", layout.parts),
    ):
        assert tuple(rail.label for rail in choose_rails(rails, wanted)) == labels


def test_a_sum_with_a_rail_missing_is_refused_not_made_smaller() -> None:
    rails = rails_of(["VDD_SYS_GPU", "VDD_SYS_SOC", "VDD_4V0_WIFI"])
    assert choose_rails(rails, "gpu")[0].label == "VDD_SYS_GPU"
    for wanted in ("sum", "input"):
        with pytest.raises(MeterError, match="VDD_4V0_WIFI, VDD_SYS_GPU, VDD_SYS_SOC"):
            choose_rails(rails, wanted)


def test_an_unknown_board_must_name_its_rails() -> None:
    with pytest.raises(MeterError, match="'gpu' is not known of this board, .* name them: A, B"):
        choose_rails(rails_of(["B", "A"]), "gpu")
    assert choose_rails(rails_of(["B", "A"]), "B")[0].label == "B"


@pytest.mark.parametrize("wanted", ["VDD_NONE", "vdd_in", "VDD_SOC + ", ""])
def test_an_unknown_label_lists_those_that_are_there(wanted: str) -> None:
    with pytest.raises(MeterError, match="no power rail is called .* there are VDD_IN, VDD_SOC"):
        choose_rails(rails_of(["VDD_SOC", "VDD_IN"]), wanted)


def test_no_rails_at_all_say_what_is_needed() -> None:
    with pytest.raises(MeterError, match="no power rail is here: .* load its driver"):
        choose_rails([], "gpu")


def test_a_label_that_is_there_twice_is_refused_only_when_it_is_wanted() -> None:
    rails = rails_of(["VDD_IN", "VDD_SOC", "VDD_SOC"])
    assert choose_rails(rails, "VDD_IN")[0].label == "VDD_IN"
    with pytest.raises(MeterError, match="several power rails are called VDD_SOC .*1-0041, 1-0042"):
        choose_rails(rails, "VDD_SOC")


def test_a_rail_named_twice_is_refused() -> None:
    with pytest.raises(MeterError, match="named twice in 'VDD_IN\\+VDD_IN'"):
        choose_rails(rails_of(["VDD_IN"]), "VDD_IN+VDD_IN")


def test_an_input_and_a_rail_behind_it_are_refused() -> None:
    with pytest.raises(MeterError, match="VDD_IN contains VDD_SYS_GPU, which .* count twice"):
        choose_rails(rails_of(["VDD_IN", "VDD_SYS_GPU"]), "VDD_SYS_GPU+VDD_IN")


def test_a_label_with_a_plus_in_it_is_found() -> None:
    assert choose_rails(rails_of(["CPU+GPU"]), "CPU+GPU")[0].label == "CPU+GPU"
