"""Engines on disk."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Dict

import pytest

from edgeecc.errors import ArtifactError, ConfigError
from edgeecc.runtimes.build_options import BuildOptions
from edgeecc.runtimes.engine import BuildReport, Engine
from edgeecc.runtimes.engine_cache import MANIFEST, EngineCache, origin
from tests.conv_graph import images

pytestmark = pytest.mark.device

REPORT = BuildReport("tensorrt 8.6.1", "fp16", "flag", 1.5, 100, 7, ("a note",))


def engine(letter: str, size: int = 100) -> Engine:
    return Engine(letter.encode() * size, replace(REPORT, engine_bytes=size))


def made_of(graph: str) -> Dict[str, object]:
    return {"graph_sha256": graph, "device": "Orin"}


@pytest.fixture
def cache(tmp_path: Path) -> EngineCache:
    return EngineCache(tmp_path / "engines", 250)


def age(path: Path, seconds: int) -> None:
    status = path.stat()
    os.utime(path, (status.st_atime, status.st_mtime - seconds))


def test_what_is_saved_comes_back_with_a_manifest(cache: EngineCache) -> None:
    assert cache.load(made_of("a")) is None
    path = cache.save(made_of("a"), engine("a"))
    assert cache.load(made_of("a")) == replace(engine("a"), cached=True)
    assert cache.load(made_of("b")) is None
    assert path.parent.stat().st_mode & 0o777 == 0o700
    elsewhere = EngineCache(path.parent, 250, "jetson-tx2 L4T 32.7.4")
    assert elsewhere.load(made_of("a")) is None
    manifest = json.loads(path.with_suffix(".json").read_text())
    assert manifest["schema"] == MANIFEST
    assert manifest["device"] == "Orin"
    assert manifest["report"]["notes"] == ["a note"]


def changed(what: str, options: BuildOptions) -> Any:
    trt, cuda, graph = (
        SimpleNamespace(name="tensorrt 8.6.1"),
        SimpleNamespace(device="Orin", version="12.6"),
        b"g",
    )
    if what == "graph":
        graph = b"h"
    elif what == "tensorrt":
        trt.name = "tensorrt 10.3.0"
    elif what in ("device", "version"):
        setattr(cuda, what, "other")
    return origin(trt, cuda, graph, options)  # type: ignore[arg-type]


def test_everything_that_decides_an_engine_is_in_its_origin() -> None:
    plain = BuildOptions("int8", calibration=images(1))
    origins = [changed(what, plain) for what in ("", "graph", "tensorrt", "device", "version")]
    origins += [
        changed("", other)
        for other in (
            replace(plain, precision="fp16"), replace(plain, level=1), replace(plain, workspace_bytes=9),
            replace(plain, tf32=False), replace(plain, sparse=True), replace(plain, calibration=images(1, seed=5)),
        )
    ]  # fmt: skip
    assert len({json.dumps(item, sort_keys=True) for item in origins}) == 11


@pytest.mark.parametrize(
    "damage", ["engine", "manifest", "no manifest", "schema", "no report", "odd report"]
)
def test_a_damaged_engine_is_removed(cache: EngineCache, damage: str) -> None:
    path = cache.save(made_of("a"), engine("a"))
    manifest = path.with_suffix(".json")
    if damage == "engine":
        path.write_bytes(b"a" * 99)
    elif damage == "no manifest":
        manifest.unlink()
    elif damage.endswith("report"):
        told = json.loads(manifest.read_text())
        told["report"] = None if damage == "no report" else {**told["report"], "build_s": "long"}
        manifest.write_text(json.dumps(told))
    else:
        manifest.write_text("{" if damage == "manifest" else '{"schema": "other"}')
    assert cache.load(made_of("a")) is None
    assert not path.exists()
    assert not manifest.exists()
    cache.save(made_of("a"), engine("a"))
    assert cache.load(made_of("a")) is not None


def test_a_file_of_another_user_is_no_engine(
    cache: EngineCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cache.save(made_of("a"), engine("a"))
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert cache.load(made_of("a")) is None
    assert path.exists(), "it is not ours to remove"


def test_the_least_recently_used_goes_first(cache: EngineCache) -> None:
    first = cache.save(made_of("a"), engine("a"))
    second = cache.save(made_of("b"), engine("b"))
    age(first, 100)
    age(second, 50)
    cache.load(made_of("a"))  # used now
    third = cache.save(made_of("c"), engine("c"))
    assert [path.exists() for path in (first, second, third)] == [True, False, True]
    assert not second.with_suffix(".json").exists()


def test_an_engine_larger_than_the_bound_stays_alone(cache: EngineCache) -> None:
    small = cache.save(made_of("a"), engine("a"))
    large = cache.save(made_of("b"), engine("b", 1000))
    assert large.exists()
    assert not small.exists()


def test_only_its_own_files_are_touched(cache: EngineCache, tmp_path: Path) -> None:
    folder = tmp_path / "engines"
    folder.mkdir()
    mine = folder / "mine.engine"
    mine.write_bytes(b"m" * 1000)
    outside = tmp_path / "outside"
    outside.write_bytes(b"o" * 1000)
    (folder / f"{'0' * 64}.engine").symlink_to(outside)
    for letter in "abcd":
        cache.save(made_of(letter), engine(letter))
    assert mine.exists()
    assert outside.read_bytes() == b"o" * 1000
    assert (folder / f"{'0' * 64}.engine").is_symlink()


def test_a_link_is_no_engine_and_is_replaced_not_followed(
    cache: EngineCache, tmp_path: Path
) -> None:
    path = cache.save(made_of("a"), engine("a"))
    outside = tmp_path / "outside"
    path.rename(outside)
    path.symlink_to(outside)
    assert cache.load(made_of("a")) is None
    cache.save(made_of("a"), engine("A"))
    assert not path.is_symlink()
    assert outside.read_bytes() == b"a" * 100


def test_faults_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="0 bytes holds nothing"):
        EngineCache(tmp_path, 0)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write"):
        EngineCache(tmp_path / "file", 1).save(made_of("a"), engine("a"))
