"""TensorRT of the tests: the calls of five releases, each without what that release lacks, on the fake GPU.

`SURFACE` lists what we may touch of each class and in which releases the bindings have it (python/src of the public
sources at 8.2.1, 8.6.1, 10.3 and 11.1, and the wheels of TensorRT for RTX 1.7.1). Anything else raises AttributeError,
as the real classes do. Engines run their graph by ONNX Runtime, so results are real.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import json
import sys
import types
import warnings
from typing import Any, Dict, List, Tuple

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgeecc.pattern import Pattern
from tests.fake_cuda import FakeGpu, cuda_python, pycuda_driver

RELEASES = ("8.2", "8.6", "10", "11", "rtx")
VERSIONS = {"8.2": "8.2.1.8", "8.6": "8.6.1", "10": "10.3.0", "11": "11.1.0", "rtx": "1.7.1.116"}
#: Releases whose flags choose the precision.
WEAK = ("8.2", "8.6", "10")
_INDEXED = ("8.2", "8.6")
_NAMED = ("8.6", "10", "11", "rtx")

SURFACE: Dict[str, Dict[str, Tuple[str, ...]]] = {
    "Builder": {
        "create_network": RELEASES, "create_builder_config": RELEASES, "build_serialized_network": RELEASES,
        "platform_has_fast_fp16": WEAK, "platform_has_fast_int8": WEAK,
    },
    "IBuilderConfig": {
        "max_workspace_size": _INDEXED, "set_memory_pool_limit": _NAMED, "builder_optimization_level": _NAMED,
        "profiling_verbosity": RELEASES, "set_flag": RELEASES, "clear_flag": RELEASES, "int8_calibrator": WEAK,
        "create_timing_cache": RELEASES, "set_timing_cache": RELEASES, "get_timing_cache": RELEASES,
    },
    "INetworkDefinition": {"num_layers": RELEASES},
    "ITimingCache": {"serialize": RELEASES},
    "OnnxParser": {"parse": RELEASES, "num_errors": RELEASES, "get_error": RELEASES},
    "ParserError": {
        "node": RELEASES, "desc": RELEASES, "node_name": ("10", "11", "rtx"), "node_operator": ("10", "11", "rtx"),
    },
    "Runtime": {"deserialize_cuda_engine": RELEASES},
    "ICudaEngine": {
        "num_layers": RELEASES, "create_execution_context": RELEASES, "create_engine_inspector": RELEASES,
        "num_bindings": _INDEXED, "get_binding_name": _INDEXED, "binding_is_input": _INDEXED,
        "get_binding_dtype": _INDEXED, "get_binding_shape": _INDEXED,
        "num_io_tensors": _NAMED, "get_tensor_name": _NAMED, "get_tensor_mode": _NAMED, "get_tensor_dtype": _NAMED,
        "get_tensor_shape": _NAMED,
    },
    "IExecutionContext": {
        "execute_async_v2": _INDEXED, "execute_async_v3": _NAMED, "set_tensor_address": _NAMED,
        "is_stream_capturable": ("rtx",),
    },
    "EngineInspector": {"get_engine_information": RELEASES},
    "IRuntimeConfig": {"create_runtime_cache": ("rtx",)},
    "IInt8EntropyCalibrator2": {"get_batch": WEAK, "get_batch_size": WEAK},
    "BuilderFlag": {
        "FP16": WEAK, "INT8": WEAK, "TF32": RELEASES, "SPARSE_WEIGHTS": RELEASES, "REQUIRE_USER_ALLOCATION": ("rtx",),
    },
    "NetworkDefinitionCreationFlag": {"EXPLICIT_BATCH": WEAK, "STRONGLY_TYPED": ("10", "11", "rtx")},
    "MemoryPoolType": {"WORKSPACE": _NAMED},
    "ProfilingVerbosity": {"LAYER_NAMES_ONLY": RELEASES, "DETAILED": RELEASES},
    "LayerInformationFormat": {"JSON": RELEASES},
    "TensorIOMode": {"INPUT": _NAMED, "OUTPUT": _NAMED},
    "DataType": {name: RELEASES for name in ("FLOAT", "HALF", "INT8", "INT32", "BOOL")},
}  # fmt: skip
#: Classes that a release lacks as a whole.
_ABSENT = {
    "IRuntimeConfig": WEAK,
    "IInt8EntropyCalibrator2": ("11", "rtx"),
    "MemoryPoolType": ("8.2",),
    "TensorIOMode": ("8.2",),
}
#: What sparse kernels take.
PATTERN = Pattern(2, 4)
_NUMBERS = {"EXPLICIT_BATCH": 0, "STRONGLY_TYPED": 1}
_MAGIC = b"FAKE ENGINE "
_DTYPES = {"float32": "FLOAT", "float16": "HALF", "int8": "INT8", "int32": "INT32", "bool": "BOOL"}


def fake_tensorrt(release: str, gpu: FakeGpu) -> Any:
    """Return the bindings of a release.

    Their `calls` records every call as (class, method, arguments); `faults` holds what shall fail: "start", "build",
    "context", "enqueue", "capture", "inspector", "slow int8", "mute on sparsity".
    """
    module: Any = types.ModuleType("tensorrt_rtx" if release == "rtx" else "tensorrt")
    module.__version__, module.release, module.gpu = VERSIONS[release], release, gpu
    module.calls, module.faults = [], set()
    for title, members in SURFACE.items():
        if release in _ABSENT.get(title, ()):
            continue
        allowed = {name for name, releases in members.items() if release in releases}
        if title in _CLASSES:
            setattr(module, title, _native(_CLASSES[title], allowed, module))
        else:
            numbered = {
                name: _NUMBERS.get(name, index) for index, name in enumerate(sorted(allowed))
            }
            setattr(module, title, enum.IntEnum(title, numbered))
            getattr(module, title).__str__ = lambda member: f"{type(member).__name__}.{member.name}"
    module.ILogger = _Logger
    return module


def builds(module: Any) -> int:
    """Return how many engines were built."""
    return sum(name == "build_serialized_network" for _, name, _ in module.calls)


def said_of_sparsity(graph: bytes, release: str) -> List[str]:
    """Return what a release says of sparse kernels: eligible is who has a 2:4 pattern, chosen all of them but one."""
    stored = {
        one.name: numpy_helper.to_array(one)
        for one in onnx.load_from_string(graph).graph.initializer
    }
    eligible = [
        name
        for name, value in stored.items()
        if value.ndim == 4
        and PATTERN.applies(value.shape, groups=1, transposed=False)
        and PATTERN.holds(value)
    ]
    chosen = eligible[1:]
    if release.startswith("8"):
        return [
            f"(Sparsity) Layers eligible for sparse math: {', '.join(eligible)}",
            f"(Sparsity) TRT inference plan picked sparse implementation for layers: {', '.join(chosen)}",
        ]
    return [
        f"(Sparsity) Found {len(eligible)} layer(s) eligible to use sparse tactics",
        f"(Sparsity) Chose {len(chosen)} layer(s) using sparse tactics",
    ]


class _Severity(enum.IntEnum):
    ERROR = 1
    INFO = 3

    def __str__(self) -> str:
        return f"Severity.{self.name}"


class _Logger:
    Severity = _Severity
    _ready = False

    def __init__(self) -> None:
        self._ready = True


def _native(template: type, allowed: Any, module: Any) -> type:
    """Return a class like the template with no public names but the allowed, bound to one module."""
    body: Dict[str, Any] = {"_trt": module}
    for name, value in vars(template).items():
        if name in ("__dict__", "__weakref__"):
            continue
        if name.startswith("_"):
            body[name] = value
        elif name in allowed:
            body[name] = _recorded(template.__name__, name, value, module)
    missing = {name for name in allowed if name not in body}
    assert not missing, f"{template.__name__} of the fake lacks {missing}"

    def refuse(self: Any, name: str, value: object) -> None:
        if not name.startswith("_") and name not in allowed:
            raise AttributeError(f"{template.__name__} of {module.__version__} has no {name}")
        if not name.startswith("_"):
            module.calls.append((template.__name__, name, (value,)))
        object.__setattr__(self, name, value)

    body["__setattr__"] = refuse
    return type(template.__name__, (), body)


def _recorded(title: str, name: str, value: Any, module: Any) -> Any:
    if not isinstance(value, types.FunctionType):
        return value

    @functools.wraps(value)
    def call(*arguments: Any) -> Any:
        module.calls.append((title, name, arguments[1:]))
        return value(*arguments)

    return call


def _error(logger: Any, text: str) -> None:
    assert logger._ready, "TensorRT crashes on a logger whose base was not initialised"
    logger.log(_Severity.ERROR, text)


class _Builder:
    platform_has_fast_fp16 = True

    def __init__(self, logger: Any) -> None:
        if "start" in self._trt.faults:
            _error(logger, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        logger.log(_Severity.INFO, "the builder starts")
        self._logger = logger

    @property
    def platform_has_fast_int8(self) -> bool:
        return "slow int8" not in self._trt.faults

    def create_network(self, flags: int = 0) -> Any:
        network = self._trt.INetworkDefinition()
        network._flags = flags
        return network

    def create_builder_config(self) -> Any:
        config = self._trt.IBuilderConfig()
        config._flags, config._workspace, config._cache = {"TF32"}, None, None
        return config

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        fault = self._fault(network, config)
        if fault:
            _error(self._logger, fault)
            _error(self._logger, "Engine could not be created")
            return None
        if "SPARSE_WEIGHTS" in config._flags and "mute on sparsity" not in self._trt.faults:
            for line in said_of_sparsity(network._graph, self._trt.release):
                self._logger.log(_Severity.INFO, line)
        if config._cache is not None:
            config._cache._data += (
                b"timed:" + hashlib.sha256(network._graph).hexdigest()[:8].encode()
            )
        head = {
            "release": self._trt.release,
            "detailed": config.profiling_verbosity == self._trt.ProfilingVerbosity.DETAILED,
            "capturable": self._trt.release != "rtx" or "REQUIRE_USER_ALLOCATION" in config._flags,
        }
        body = json.dumps(head).encode() + b"\n" + network._graph
        return _MAGIC + hashlib.sha256(body).digest() + body

    def _fault(self, network: Any, config: Any) -> str:
        if "build" in self._trt.faults:
            return "Could not find any implementation for node {Conv_0}; out of memory"
        if self._trt.release == "8.2" and not getattr(config, "max_workspace_size", 0):
            return "Internal error: plugin node requires workspace, but workspace is 0"
        quantised = b"QuantizeLinear" in network._graph
        if "INT8" in config._flags and not quantised:
            if config.int8_calibrator is None:
                return "Calibration failure occurred with no scaling factors detected"
            return self._calibrate(config.int8_calibrator, network)
        if "INT8" not in config._flags and quantised and self._trt.release in WEAK:
            return "Int8 is not enabled, but the network has Q/DQ layers"
        return ""

    def _calibrate(self, calibrator: Any, network: Any) -> str:
        assert calibrator._ready
        assert calibrator.read_calibration_cache() is None
        assert calibrator.get_batch_size() == 1
        seen = self._trt.__dict__.setdefault("calibrated_with", [])
        names = [item.name for item in onnx.load_from_string(network._graph).graph.input]
        while True:
            addresses = calibrator.get_batch(names)
            if not addresses:
                break
            seen.append(bytes(self._trt.gpu.blocks[addresses[0]]))
        calibrator.write_calibration_cache(memoryview(b"ranges"))
        return "" if seen else "Calibration failure occurred with no batches"


class _BuilderConfig:
    max_workspace_size = 0
    builder_optimization_level = 3
    profiling_verbosity = 0
    int8_calibrator = None

    def set_flag(self, flag: Any) -> None:
        self._flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self._flags.discard(flag.name)

    def set_memory_pool_limit(self, pool: Any, size: int) -> None:
        self._workspace = size

    def create_timing_cache(self, data: bytes) -> Any:
        if data and not data.startswith(b"timings "):
            return None
        cache = self._trt.ITimingCache()
        cache._data = data or b"timings " + self._trt.__version__.encode() + b" "
        return cache

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if self._trt.release == "rtx":
            warnings.warn(
                "timing cache operations do nothing here", DeprecationWarning, stacklevel=2
            )
        if self._trt.__version__.encode() not in cache._data or "timings" in self._trt.faults:
            return ignore_mismatch
        self._cache = cache
        return True

    def get_timing_cache(self) -> Any:
        return self._cache


class _TimingCache:
    def serialize(self) -> bytes:
        return self._data


class _Network:
    num_layers = 0
    _graph = b""

    def _set(self, graph: bytes, layers: int) -> None:
        self._graph = graph
        object.__setattr__(self, "num_layers", layers)


class _Parser:
    num_errors = 0

    def __init__(self, network: Any, logger: Any) -> None:
        self._network, self._logger, self._errors = network, logger, []

    def parse(self, data: bytes) -> bool:
        explicit = self._network._flags & 1 or self._trt.release in ("10", "11", "rtx")
        if not explicit:
            self._fail(-1, "", "", "This version of the ONNX parser only supports explicit batch")
            return False
        model = onnx.load_from_string(data)
        for index, node in enumerate(model.graph.node):
            if not onnx.defs.has(node.op_type):
                self._fail(index, node.name, node.op_type, "No importer registered for op")
        self._network._set(data, len(model.graph.node))
        return not self._errors

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def _fail(self, index: int, name: str, kind: str, text: str) -> None:
        error = self._trt.ParserError()
        error._values = (index, name, kind, text)
        self._errors.append(error)
        object.__setattr__(self, "num_errors", len(self._errors))
        _error(self._logger, f"ModelImporter.cpp:773: While parsing node number {index}: {text}")


class _ParserError:
    def node(self) -> int:
        return self._values[0]

    def node_name(self) -> str:
        return self._values[1]

    def node_operator(self) -> str:
        return self._values[2]

    def desc(self) -> str:
        return self._values[3]


class _Runtime:
    def __init__(self, logger: Any) -> None:
        if "start" in self._trt.faults:
            _error(logger, "CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        body = data[len(_MAGIC) + 32 :]
        if data[: len(_MAGIC) + 32] != _MAGIC + hashlib.sha256(body).digest():
            _error(self._logger, "Serialization assertion header.magicTag failed")
            return None
        head, _, graph = body.partition(b"\n")
        if json.loads(head)["release"] != self._trt.release:
            _error(self._logger, "The engine plan file was built by another release")
            return None
        engine = self._trt.ICudaEngine()
        engine._set(json.loads(head), graph, self._logger)
        return engine


class _Engine:
    num_layers = num_bindings = num_io_tensors = 0

    def _set(self, head: Dict[str, Any], graph: bytes, logger: Any) -> None:
        import onnxruntime

        self._head, self._logger = head, logger
        self._session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        model = onnx.load_from_string(graph)
        self._model = model
        # the engine's own order: outputs first, which is not the graph's
        self._tensors = [(item, False) for item in reversed(model.graph.output)]
        self._tensors += [(item, True) for item in reversed(model.graph.input)]
        for name in {"num_bindings", "num_io_tensors"} & set(dir(type(self))):
            object.__setattr__(self, name, len(self._tensors))
        object.__setattr__(self, "num_layers", len(model.graph.node))

    def create_execution_context(self) -> Any:
        if "context" in self._trt.faults:
            _error(self._logger, "Requested amount of GPU memory (9 bytes) could not be allocated")
            return None
        context = self._trt.IExecutionContext()
        context._engine, context._addresses = self, {}
        return context

    def create_engine_inspector(self) -> Any:
        if "inspector" in self._trt.faults:
            raise RuntimeError("no inspector")
        inspector = self._trt.EngineInspector()
        inspector._engine = self
        return inspector

    def get_binding_name(self, index: int) -> str:
        return self._tensors[index][0].name

    def binding_is_input(self, index: int) -> bool:
        return self._tensors[index][1]

    def get_binding_shape(self, index: int) -> Tuple[int, ...]:
        sizes = self._tensors[index][0].type.tensor_type.shape.dim
        return tuple(size.dim_value or -1 for size in sizes)

    def get_binding_dtype(self, index: int) -> Any:
        kind = self._tensors[index][0].type.tensor_type.elem_type
        name = np.dtype(helper.tensor_dtype_to_np_dtype(kind)).name
        return getattr(self._trt.DataType, _DTYPES[name]) if name in _DTYPES else f"DataType.{name}"

    def get_tensor_name(self, index: int) -> str:
        return self._tensors[index][0].name

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._trt.TensorIOMode
        return modes.INPUT if self._tensors[self._index(name)][1] else modes.OUTPUT

    def get_tensor_shape(self, name: str) -> Tuple[int, ...]:
        return _Engine.get_binding_shape(self, self._index(name))

    def get_tensor_dtype(self, name: str) -> Any:
        return _Engine.get_binding_dtype(self, self._index(name))

    def _index(self, name: str) -> int:
        return next(i for i, (item, _) in enumerate(self._tensors) if item.name == name)


class _Context:
    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        return self._execute(stream_handle)

    def execute_async_v2(self, bindings: List[int], stream_handle: int) -> bool:
        self._addresses = {
            item.name: bindings[i] for i, (item, _) in enumerate(self._engine._tensors)
        }
        return self._execute(stream_handle)

    def is_stream_capturable(self, stream: int) -> bool:
        return self._engine._head["capturable"]

    def _execute(self, stream: int) -> bool:
        faults, gpu = self._trt.faults, self._trt.gpu
        if "enqueue" in faults or ("capture" in faults and gpu.captured is not None):
            _error(self._engine._logger, "Cask error in execute: 719 (unspecified launch failure)")
            return False
        gpu.put(self._infer)
        return True

    def _infer(self) -> None:
        engine, blocks = self._engine, self._trt.gpu.blocks
        feed = {}
        for item in engine._model.graph.input:
            shape, kind = (
                _Engine.get_tensor_shape(engine, item.name),
                item.type.tensor_type.elem_type,
            )
            dtype = helper.tensor_dtype_to_np_dtype(kind)
            feed[item.name] = np.frombuffer(blocks[self._addresses[item.name]], dtype).reshape(
                shape
            )
        names = [item.name for item in engine._model.graph.output]
        for name, value in zip(names, engine._session.run(names, feed)):
            blocks[self._addresses[name]][:] = value.tobytes()


class _Inspector:
    def get_engine_information(self, wanted: Any) -> str:
        engine = self._engine
        names = [node.name or node.output[0] for node in engine._model.graph.node]
        if not engine._head["detailed"]:
            return json.dumps({"Layers": names, "Bindings": []})
        old = self._trt.release in WEAK
        kind = (
            {"Format/Datatype": "Row major linear FP32"}
            if old
            else {"Format": "Linear", "DataType": "Float"}
        )
        layers = [
            {
                "Name": name,
                "LayerType": "Convolution",
                "Outputs": [{"Name": "t", "Dimensions": [1, 4], **kind}],
            }
            for name in names
        ]
        return json.dumps({"Layers": layers, "Bindings" if old else "I/O Tensors": []})


class _RuntimeConfig:
    def create_runtime_cache(self) -> None: ...


class _Calibrator:
    _ready = False

    def __init__(self) -> None:
        self._ready = True

    def get_batch(self, names: List[str]) -> None: ...

    def get_batch_size(self) -> None: ...


_CLASSES: Dict[str, type] = {
    "Builder": _Builder, "IBuilderConfig": _BuilderConfig, "INetworkDefinition": _Network,
    "ITimingCache": _TimingCache, "OnnxParser": _Parser, "ParserError": _ParserError, "Runtime": _Runtime,
    "ICudaEngine": _Engine, "IExecutionContext": _Context, "EngineInspector": _Inspector,
    "IRuntimeConfig": _RuntimeConfig, "IInt8EntropyCalibrator2": _Calibrator,
}  # fmt: skip


def install(
    monkeypatch: pytest.MonkeyPatch, release: str, package: str = "cuda"
) -> Tuple[Any, FakeGpu]:
    """Let a fake TensorRT and one package for CUDA be importable."""
    gpu = FakeGpu()
    trt = fake_tensorrt(release, gpu)
    for name in (
        "tensorrt",
        "tensorrt_rtx",
        "cuda.bindings.runtime",
        "cuda.cudart",
        "pycuda.driver",
    ):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, trt.__name__, trt)
    if package == "cuda":
        monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda_python(gpu))
    else:
        monkeypatch.setitem(sys.modules, "pycuda.driver", pycuda_driver(gpu))
    return trt, gpu
