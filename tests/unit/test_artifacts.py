from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc import artifacts
from edgeecc.errors import ArtifactError

pytestmark = pytest.mark.device
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(
    body=st.dictionaries(
        st.text().filter(lambda key: key not in ("schema", "made_by")), JSON, max_size=5
    )
)
def test_json_reads_back(tmp_path_factory: pytest.TempPathFactory, body: dict) -> None:
    path = tmp_path_factory.mktemp("json") / "a.json"
    artifacts.write_json(path, "edgeecc/x/1", body)
    document = artifacts.read_json(path, "edgeecc/x/1")
    assert {key: document[key] for key in body} == body


def test_tensors_read_back(tmp_path: Path) -> None:
    tensors = {
        "scalar": np.array(7, dtype=np.int64),
        "strided": np.arange(24, dtype=np.float32).reshape(4, 6)[:, ::2],
        "flags": np.array([True, False]),
    }
    artifacts.write_tensors(tmp_path / "a.safetensors", tensors, {"status": "done"})
    found, metadata = artifacts.read_tensors(tmp_path / "a.safetensors")
    assert metadata == {"status": "done"}
    for name, value in tensors.items():
        assert found[name].shape == value.shape
        np.testing.assert_array_equal(found[name], value)


def test_another_schema_is_named(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "a.json", "edgeecc/profile/0", {})
    with pytest.raises(
        ArtifactError, match="schema 'edgeecc/profile/0', expected 'edgeecc/profile/1'"
    ):
        artifacts.read_json(tmp_path / "a.json", "edgeecc/profile/1")


@pytest.mark.parametrize(
    "text", ["", "[1]", "{", '{"a": NaN}', '{"a": 1e999}x', "[" * 100_000, "\xff"]
)
def test_damaged_json_is_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ArtifactError) as caught:
        artifacts.load_json(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"nothing\.json"):
        artifacts.load_json(tmp_path / "nothing.json")
    with pytest.raises(ArtifactError, match="no such file"):
        artifacts.read_tensors(tmp_path / "nothing.safetensors")


def test_truncated_tensors_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifacts.write_tensors(path, {"x": np.zeros(1000)}, {})
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ArtifactError, match="damaged"):
        artifacts.read_tensors(path)


def test_any_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    artifacts.write_tensors(path, {"x": np.arange(4.0), "y": np.zeros((2, 3), "f4")}, {"done": "3"})
    whole = path.read_bytes()
    assert artifacts.read_tensors(path)[1] == {"done": "3"}
    for place in range(8 * len(whole)):
        data = bytearray(whole)
        data[place // 8] ^= 1 << place % 8
        path.write_bytes(bytes(data))
        with pytest.raises(ArtifactError, match="is damaged: .*make it again"):
            artifacts.read_tensors(path)


def test_tensors_without_a_checksum_are_not_ours(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"x": np.ones(3)}, tmp_path / "a.safetensors", {"of": "another program"})
    with pytest.raises(ArtifactError, match="is damaged: it has no checksum; make it again or"):
        artifacts.read_tensors(tmp_path / "a.safetensors")


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    artifacts.write_json(path, "edgeecc/x/1", {"value": 1})

    def fail() -> None:
        with artifacts.atomic_path(path) as temporary:
            temporary.write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(ArtifactError, match="No space left on device; free space"):
        fail()
    assert artifacts.read_json(path, "edgeecc/x/1")["value"] == 1
    assert os.listdir(tmp_path) == ["a.json"]


def test_nan_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        artifacts.write_json(tmp_path / "a.json", "edgeecc/x/1", {"value": float("nan")})
    assert not (tmp_path / "a.json").exists()


def test_provenance_names_versions_and_no_paths() -> None:
    made_by = artifacts.provenance()
    assert {"edgeecc", "python", "numpy", "made_at"} <= set(made_by)
    assert "/" not in json.dumps(made_by)


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), [1]])
def test_what_is_no_number_is_refused(value: object) -> None:
    with pytest.raises(ArtifactError, match="speed in here must be a finite number"):
        artifacts.number(value, "speed", "here")


def test_a_folder_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    who = rf" \(number {os.getpid()}\)" if Path("/proc/locks").exists() else ""
    again = pytest.raises(ArtifactError, match=f"in use by another process({who})?; wait")
    with artifacts.exclusive(tmp_path, "wait"), again:
        artifacts.exclusive(tmp_path, "wait").__enter__()
    with artifacts.exclusive(tmp_path, "wait"):
        assert (tmp_path / ".lock").exists()
