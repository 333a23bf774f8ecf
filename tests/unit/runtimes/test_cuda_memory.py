"""Both packages for CUDA over one fake GPU."""

from __future__ import annotations

import sys
from typing import Any, List

import numpy as np
import pytest

from edgeecc.errors import RuntimeUnavailableError
from edgeecc.runtimes.cuda_memory import Cuda, open_cuda
from tests.fake_cuda import WORK_S, FakeGpu, cuda_python, pycuda_driver

pytestmark = pytest.mark.device

MODULES = {
    "cuda.bindings.runtime": cuda_python,
    "cuda.cudart": lambda gpu: cuda_python(gpu, "cuda.cudart"),
    "pycuda.driver": pycuda_driver,
}


def install(monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu, package: str) -> Any:
    """Let only one package for CUDA be importable."""
    for name in MODULES:
        monkeypatch.setitem(sys.modules, name, None)
    module = MODULES[package](gpu)
    monkeypatch.setitem(sys.modules, package, module)
    return module


@pytest.fixture
def gpu() -> FakeGpu:
    return FakeGpu()


@pytest.fixture(params=list(MODULES))
def package(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu) -> str:
    install(monkeypatch, gpu, request.param)
    return str(request.param)


def refusal(error: pytest.ExceptionInfo[RuntimeUnavailableError]) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 400
    return text


def test_what_is_copied_comes_back(package: str, gpu: FakeGpu) -> None:
    cuda = open_cuda()
    there = np.arange(6, dtype=np.float32).reshape(2, 3)
    address = cuda.malloc(there.nbytes)
    cuda.upload(address, there)
    back = np.zeros_like(there)
    cuda.download(back, address)
    assert not back.any(), "copies are asynchronous"
    cuda.synchronize()
    assert np.array_equal(back, there)
    cuda.free(address)
    cuda.close()
    assert gpu.clean


def test_the_gpu_says_what_it_is(package: str) -> None:
    cuda = open_cuda()
    if package == "pycuda.driver":
        assert (cuda.device, cuda.version) == ("NVIDIA Tegra X2 (sm_62, 2 SMs)", "10.2")
    else:
        assert (cuda.device, cuda.version) == ("Orin (sm_87, 8 SMs)", "12.6")
    assert cuda.stream in (77, 78)
    cuda.close()


def test_events_take_the_devices_time(package: str, gpu: FakeGpu) -> None:
    cuda = open_cuda()
    value = np.zeros(1, np.float32)
    address = cuda.malloc(4)
    first = cuda.mark()
    for _ in range(5):
        cuda.upload(address, value)
    assert cuda.seconds(first, cuda.mark()) == pytest.approx(6 * WORK_S)
    cuda.mark()  # never read
    cuda.free(address)
    cuda.close()
    assert gpu.clean


def copying(cuda: Cuda, address: int, done: List[int]) -> bool:
    cuda.upload(address, np.zeros(1, np.float32))
    done.append(1)
    return True


def test_a_graph_repeats_what_was_captured(monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu) -> None:
    module = install(monkeypatch, gpu, "cuda.bindings.runtime")
    del module.cudaGraphInstantiateWithFlags  # the older name serves as well
    cuda, done, work = open_cuda(), [], []
    graph = cuda.capture(lambda: gpu.put(lambda: work.append(1)) is None and not done.append(1))
    assert graph is not None
    assert not work
    for _ in range(3):
        graph.launch()
    cuda.synchronize()
    assert (len(done), len(work)) == (1, 3)
    graph.close()
    cuda.close()
    assert gpu.clean


@pytest.mark.parametrize(
    "fault", ["cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiateWithFlags"]
)
def test_where_a_capture_fails_there_is_no_graph(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu, fault: str
) -> None:
    install(monkeypatch, gpu, "cuda.bindings.runtime")
    cuda = open_cuda()
    gpu.faults.add(fault)
    assert cuda.capture(lambda: True) is None
    gpu.faults.clear()
    assert cuda.capture(lambda: False) is None
    cuda.synchronize()  # the stream is usable again
    with pytest.raises(ZeroDivisionError):
        cuda.capture(lambda: 1 / 0 > 0)
    assert gpu.captured is None
    cuda.close()
    assert gpu.clean


def test_pycuda_captures_nothing(monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu) -> None:
    install(monkeypatch, gpu, "pycuda.driver")
    cuda = open_cuda()
    assert cuda.capture(lambda: True) is None
    cuda.close()


def test_a_full_gpu_is_told(package: str) -> None:
    cuda = open_cuda()
    with pytest.raises(
        RuntimeUnavailableError, match="no room for 2147483648 bytes on the GPU"
    ) as error:
        cuda.malloc(2**31)
    assert "close what else uses the GPU" in refusal(error)
    cuda.close()


FAULTS = {
    "cuda.bindings.runtime": ("cudaStreamSynchronize", "cudaMemcpyAsync"),
    "cuda.cudart": ("cudaStreamSynchronize", "cudaMemcpyAsync"),
    "pycuda.driver": ("cuStreamSynchronize", "cuMemcpyHtoDAsync"),
}


def test_a_failing_gpu_is_told(package: str, gpu: FakeGpu) -> None:
    cuda = open_cuda()
    address = cuda.malloc(4)
    gpu.faults.update(FAULTS[package])
    with pytest.raises(RuntimeUnavailableError, match="the GPU failed: .*[lL]aunch") as error:
        cuda.synchronize()
    refusal(error)
    with pytest.raises(RuntimeUnavailableError, match="cannot copy"):
        cuda.upload(address, np.zeros(1, np.float32))


def test_without_a_gpu_the_message_says_so(package: str, gpu: FakeGpu) -> None:
    gpu.count = 0
    with pytest.raises(RuntimeUnavailableError, match="no CUDA GPU can be used") as error:
        open_cuda()
    assert "runtime nvidia" in refusal(error)


@pytest.mark.parametrize("device", [1, -1])
def test_a_gpu_that_is_not_here_is_told(package: str, device: int) -> None:
    with pytest.raises(RuntimeUnavailableError, match=f"GPU {device} is not here: CUDA sees 1"):
        open_cuda(device)


def test_a_stream_that_cannot_be_opened_leaves_no_context(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu
) -> None:
    install(monkeypatch, gpu, "pycuda.driver")
    gpu.faults.add("cuStreamCreate")
    with pytest.raises(RuntimeUnavailableError, match="cannot open a stream"):
        open_cuda()
    assert gpu.clean


def test_without_a_package_the_message_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*MODULES, "pycuda"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(
        RuntimeUnavailableError, match="neither cuda-python nor pycuda can be imported"
    ) as error:
        open_cuda()
    assert "pip install cuda-python" in refusal(error)


def test_a_package_without_its_driver_is_told(
    monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu
) -> None:
    module = install(monkeypatch, gpu, "cuda.bindings.runtime")

    def missing() -> None:
        raise RuntimeError('Failed to dlopen "libcuda.so.1"')

    module.cudaGetDeviceCount = missing
    with pytest.raises(
        RuntimeUnavailableError, match="Failed to dlopen.*is the NVIDIA driver installed"
    ) as error:
        open_cuda()
    refusal(error)


def test_packages_that_fail_to_load_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    reasons = {
        "cuda.bindings.runtime": RuntimeError("no libcudart"),
        "cuda.cudart": ImportError("no such module"),
        "pycuda.driver": ImportError("libcuda.so.1: cannot open shared object file"),
    }

    def fail(name: str) -> None:
        raise reasons[name]

    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(
        RuntimeUnavailableError, match="no libcudart; libcuda.so.1: cannot open"
    ) as error:
        open_cuda()
    refusal(error)
