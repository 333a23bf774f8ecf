"""Weights files from anywhere: what is taken, what is refused, and in which words."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.networks.mobilenet import BASE_WIDTHS, WIDEST, multiplier
from edgeecc.networks.table import build, infer
from edgeecc.networks.weights import load_into, load_state


@pytest.fixture
def model() -> nn.Module:
    return build("lenet5")


def same(left: nn.Module, right: nn.Module) -> bool:
    return all(
        torch.equal(a, b) for a, b in zip(left.state_dict().values(), right.state_dict().values())
    )


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"model": {f"module.{name}": value for name, value in state.items()}},
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_state_dicts_are_found_in_their_wrappings(
    tmp_path: Path, model: nn.Module, wrap: Callable, zipped: bool
) -> None:
    path = tmp_path / "w.pth"
    torch.save(wrap(model.state_dict()), path, _use_new_zipfile_serialization=zipped)
    other = build("lenet5")
    load_into(other, load_state(path))
    assert same(model, other)


@pytest.mark.parametrize("kind", [torch.float32, torch.float16, torch.bfloat16])
def test_safetensors_of_every_float_are_read(
    tmp_path: Path, model: nn.Module, kind: torch.dtype
) -> None:
    path = tmp_path / "w.safetensors"
    save_file({name: value.to(kind) for name, value in model.state_dict().items()}, path)
    other = build("lenet5")
    load_into(other, load_state(path))
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value.to(kind).float())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickled_module_is_refused_with_the_way_out(
    tmp_path: Path, model: nn.Module, zipped: bool
) -> None:
    path = tmp_path / "m.pth"
    torch.save(model, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ArtifactError, match=r"pickles more than tensors.*torch.save\(model.state_dict\(\)"
    ):
        load_state(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_short_is_told(tmp_path: Path, model: nn.Module, zipped: bool) -> None:
    path = tmp_path / "w.pth"
    torch.save(model.state_dict(), path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for size in (0, 5, 100, len(whole) // 2, len(whole) - 20):
        path.write_bytes(whole[:size])
        with pytest.raises(ArtifactError, match="damaged or no weights file"):
            load_state(path)


def test_what_is_no_state_dict_is_told(tmp_path: Path, model: nn.Module) -> None:
    path = tmp_path / "w.pth"
    for content, words in (
        ([1, 2], "holds no state dict"),
        ({}, "holds no state dict"),
        ({"net": model.state_dict()}, "holds 'net', which is no tensor"),
        ({"w": torch.tensor([0.0, float("inf")])}, "w in .* holds NaN or infinity"),
    ):
        torch.save(content, path)
        with pytest.raises(ArtifactError, match=words):
            load_state(path)
    with pytest.raises(ArtifactError, match="no such file"):
        load_state(tmp_path / "absent.pth")
    damaged = tmp_path / "w.safetensors"
    damaged.write_bytes(b"\xff" * 40)
    with pytest.raises(ArtifactError, match="damaged"):
        load_state(damaged)


def test_weights_of_another_network_are_told(model: nn.Module) -> None:
    state = dict(model.state_dict())
    with pytest.raises(ArtifactError, match=r"have fc3.bias \(10,\), the network \(7,\)"):
        load_into(build("lenet5", classes=7), state)
    with pytest.raises(ArtifactError, match=r"have 'extra'.*\(1 names differ"):
        load_into(model, {**state, "extra": torch.zeros(1)})
    del state["fc1.bias"]
    with pytest.raises(ArtifactError, match="lack 'fc1.bias'"):
        load_into(model, state)


@pytest.mark.parametrize("name", sorted(BASE_WIDTHS))
def test_every_width_of_a_family_is_inferred(name: str) -> None:
    for width in [*np.round(np.arange(0.05, 2.0, 0.15), 2).tolist(), 0.333, 3.7]:
        with torch.device("meta"):
            state = build(name, width=width, classes=7).state_dict()
        found, options = infer(state)
        assert (found, options["classes"]) == (name, 7)


def test_a_multiplier_rounds_to_the_widths_or_there_is_none() -> None:
    assert multiplier((32, 64, 1024), (8, 16, 256)) == 0.25
    assert multiplier((32, 64, 1024), (8, 17, 256)) is None
    assert multiplier((32, 64), (8,)) is None
    assert multiplier((10, 20), (1, 1)) == pytest.approx(0.04, abs=0.035)
    assert multiplier((10,), (int(10 * WIDEST) + 9,)) is None


def test_foreign_tensors_are_nobodys() -> None:
    for shapes in (
        {"stem.conv.weight": (8, 3, 3, 3), "fc.weight": (10, 99_999)},
        {"stem.conv.weight": (), "fc.weight": ()},
        {"fc3.weight": ()},
        {"fc3.weight": (0, 84)},
        {"classifier.6.weight": (10,)},
    ):
        assert infer({name: torch.zeros(shape) for name, shape in shapes.items()}) is None
    with pytest.raises(ConfigError, match=r"must lie in \(0, 16\]"):
        build("mobilenet_v1", width=17.0)


def test_a_packed_file_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000, 1000)}, tmp_path / "plain.pth")
    with zipfile.ZipFile(tmp_path / "plain.pth") as plain, zipfile.ZipFile(
        tmp_path / "packed.pth", "w", zipfile.ZIP_DEFLATED
    ) as packed:
        for entry in plain.infolist():
            packed.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / "packed.pth").stat().st_size < 10_000
    with pytest.raises(ArtifactError, match=r"packs its entries, 40\d+ bytes; save it with"):
        load_state(tmp_path / "packed.pth")


def test_views_that_are_larger_than_their_file_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1).expand(10**6, 1000)}, tmp_path / "view.pth")
    with pytest.raises(ArtifactError, match=r"have 4000000000 bytes, the file \d+; save each"):
        load_state(tmp_path / "view.pth")


def test_weights_that_layers_share_are_read(tmp_path: Path) -> None:
    shared = torch.rand(100, 100)
    torch.save({"a": shared, "b": shared, "c": shared.T}, tmp_path / "shared.pth")
    assert torch.equal(load_state(tmp_path / "shared.pth")["c"], shared.T)


@pytest.mark.parametrize(
    "odd",
    [torch.eye(3).to_sparse(), torch.zeros(10**6, 10**6, device="meta")],
    ids=["sparse", "meta"],
)
def test_tensors_of_another_kind_are_refused(tmp_path: Path, odd: torch.Tensor) -> None:
    torch.save({"a": odd}, tmp_path / "odd.pth")
    with pytest.raises(ArtifactError, match=r"a in .*odd.pth is sparse, quantised or without"):
        load_state(tmp_path / "odd.pth")


def test_keys_that_are_no_names_are_told_by_their_kind(tmp_path: Path) -> None:
    torch.save({(1,): torch.zeros(1)}, tmp_path / "odd.pth")
    with pytest.raises(ArtifactError, match="holds 'tuple', which is no tensor"):
        load_state(tmp_path / "odd.pth")
