"""What files say reaches options as text and tables as it stands."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from edgeecc.artifacts import figure, load_json, number
from edgeecc.cli.config_file import file_defaults
from edgeecc.cli.main import cli
from edgeecc.cli.output import print_table
from edgeecc.errors import ArtifactError

pytestmark = pytest.mark.device


def defaults(tmp_path: Path, text: str) -> dict:
    (tmp_path / "edgeecc.toml").write_text(text)
    return file_defaults(tmp_path / "edgeecc.toml", cli)


def test_values_are_given_as_the_command_line_gives_them(tmp_path: Path) -> None:
    found = defaults(
        tmp_path, "[calibrate]\nsamples = 50\ntolerance = 0.1\nnetwork = 'lenet5'\njson = true\n"
    )
    assert found == {
        "calibrate": {"samples": "50", "tolerance": "0.1", "network": "lenet5", "as_json": True}
    }
    context = cli.commands["calibrate"].make_context(
        "calibrate", [], default_map=found["calibrate"]
    )
    assert (context.params["samples"], context.params["tolerance"]) == (50, 0.1)
    several = defaults(tmp_path, "[prune]\nbudget = ['60%', 5]\ndata = 'digits'\n")
    assert several["prune"]["budget"] == ["60%", "5"]


@pytest.mark.parametrize("value", ["5", "0.5", "1979-05-27", "9" * 200])
def test_a_number_where_a_path_should_be_is_taken_as_its_text(tmp_path: Path, value: str) -> None:
    found = defaults(tmp_path, f"[calibrate]\nworkspace = {value}\nnetwork = 'a'\n")
    context = cli.commands["calibrate"].make_context(
        "calibrate", [], default_map=found["calibrate"]
    )
    assert context.params["workspace"] == Path(value)


@pytest.mark.parametrize("value", ["{a = 1}", "[[1]]", "[{a = 1}]"])
def test_a_table_is_no_value(tmp_path: Path, value: str) -> None:
    with pytest.raises(click.UsageError, match="sets 'samples' to a table; give a value"):
        defaults(tmp_path, f"[calibrate]\nsamples = {value}\n")


def test_long_names_are_told_in_short(tmp_path: Path) -> None:
    with pytest.raises(click.UsageError) as caught:
        defaults(tmp_path, f"[calibrate]\n{'x' * 5000} = 1\n")
    assert len(caught.value.message) < 2000
    assert caught.value.message.endswith("see edgeecc calibrate --help")


@pytest.mark.parametrize("name", ["[/]", "[red]stem", ":smile:", "[bold", "a[0]"])
def test_brackets_in_names_are_no_markup(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_table("layers", ("layer", "MACs"), [(name, "1")])
    assert name in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"a": ' + "9" * 41 + "}", "a number of 41 digits"),
        ('{"a": -' + "9" * 100_000 + "}", "a number of 100001 digits"),
        ('{"a": 1e999}', "larger than any number here"),
        ('{"a": ' + "[" * 100_000 + "]}", "damaged"),
    ],
)
def test_numbers_and_nesting_in_json_are_bounded(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(ArtifactError, match=said):
        load_json(tmp_path / "a.json")


@pytest.mark.parametrize(
    "value", [True, None, "1", float("nan"), float("-inf"), 10**400, -(10**309), [1]]
)
def test_what_is_no_figure_is_none(value: object) -> None:
    assert figure(value) is None
    with pytest.raises(ArtifactError, match=r"x in file must be a finite number"):
        number(value, "x", "file")


def test_figures_of_every_size_are_figures() -> None:
    for value in (0, -1, 10**308, 1.7976931348623157e308, 5e-324):
        assert figure(value) == number(value, "x", "file") == float(value)
