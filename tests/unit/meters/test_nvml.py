"""GPU boards through NVIDIA's bindings, over a library whose boards, time and faults are scripted."""

from __future__ import annotations

import math
import sys
from contextlib import contextmanager
from typing import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeecc.errors import EdgeeccError, MeterError, RuntimeUnavailableError
from edgeecc.meters.nvml import Gpu, NvmlEnergyMeter, NvmlSensors, held_back, open_gpu
from edgeecc.meters.nvml_check import cross_check, judge
from edgeecc.meters.nvml_driver import Nvml
from edgeecc.meters.nvml_names import GpuIdentity, find_gpu, first_visible
from edgeecc.meters.sampled import FRESH_PERIODS, SampledMeter
from tests.fake_nvml import (
    COUNTER,
    DRIVER_NOT_LOADED,
    FIELDS,
    INVALID,
    LOST,
    MISMATCH,
    NO_PERMISSION,
    UNSUPPORTED,
    USAGE,
    FakeBoard,
    FakeClock,
    FakeNvml,
    installed,
)

pytestmark = pytest.mark.device

MIG = "MIG-c7384736-a75d-5afc-978f-d2f1294409fd"
PASCAL = {"model": "NVIDIA GeForce GTX 1080 Ti", "capability": (6, 1)}


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def opened(library: FakeNvml, name: object = None) -> Iterator[Gpu]:
    clock = library.clock
    with installed(library), open_gpu(name, clock=clock, pause=clock.pause) as gpu:
        yield gpu


def fails(library: FakeNvml, name: object = None) -> str:
    """Return what opening a GPU is refused with, which is one line."""
    with pytest.raises(EdgeeccError) as caught, opened(library, name):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without_counter(**board: object) -> FakeNvml:
    library = FakeNvml(FakeBoard(**{**PASCAL, **board}))
    library.faults[COUNTER] = UNSUPPORTED
    return library


def has_gpu() -> bool:
    """Return whether a real GPU can be reached."""
    try:
        with Nvml() as nvml:
            return bool(nvml.gpus())
    except EdgeeccError:
        return False


@pytest.mark.gpu
@pytest.mark.skipif(not has_gpu(), reason="no GPU")
def test_a_real_board() -> None:
    with open_gpu(0) as gpu:
        assert gpu.meter is not None
        assert gpu.sensors.conditions().clocks_hz["gpu"] > 0.0
        if gpu.counter is not None and gpu.power is not None:
            assert 0.5 < cross_check(gpu.counter, gpu.power, 5.0).ratio < 2.0


# Opening: what is measured, and how.


def test_a_board_with_a_counter_is_measured_by_it() -> None:
    library = FakeNvml(FakeBoard())
    with opened(library) as gpu:
        assert gpu.meter is gpu.counter
        assert gpu.meter.name == "nvml: NVIDIA A40, GPU board 0, energy counter"
        assert (gpu.meter.period_s, gpu.meter.step_w, gpu.meter.blind_s()) == (0.1, 0.0, 0.0)
        assert gpu.power.name == "nvml: NVIDIA A40, GPU board 0, sampled power"
        assert gpu.missing == ()
        assert gpu.meter.clock_s() == library.clock.now
        assert library.started == 1
    assert library.started == 0


def test_a_board_without_one_is_sampled() -> None:
    library = without_counter()
    with opened(library) as gpu:
        assert gpu.counter is None
        assert isinstance(gpu.meter, SampledMeter)
        assert (gpu.meter.period_s, gpu.meter.step_w) == (0.1, 0.0)
        first = gpu.meter.read_j()
        library.clock.pause(0.7)
        assert gpu.meter.read_j() - first == pytest.approx(250.0 * 0.7)
        (why,) = gpu.missing
        assert "energy counter" in why
        assert "does not tell it" in why
    assert library.started == 0


@pytest.mark.parametrize(
    ("count", "seen"), [(0, "reads 0 J"), (123_456, "stands still at 123.456")]
)
def test_a_counter_that_does_not_count_is_passed_over(count: int, seen: str) -> None:
    with opened(FakeNvml(FakeBoard(energy_mj=lambda now: count))) as gpu:
        assert isinstance(gpu.meter, SampledMeter)
        assert seen in gpu.missing[0]


def test_a_driver_without_the_function_is_passed_over_too() -> None:
    library = FakeNvml(FakeBoard(**PASCAL))
    library.missing.add(COUNTER)
    with opened(library) as gpu:
        assert isinstance(gpu.meter, SampledMeter)
        assert "update the driver" in gpu.missing[0]


def test_a_board_that_tells_nothing_has_no_meter_and_says_why() -> None:
    library = without_counter(model="Orin (nvgpu)", bus="", capability=(8, 7))
    library.faults.update({USAGE: UNSUPPORTED, FIELDS: UNSUPPORTED})
    with opened(library) as gpu:
        assert gpu.meter is None
        assert gpu.counter is None
        assert gpu.power is None
        assert len(gpu.missing) == 2
        assert gpu.board.identity.pci_bus_id == ""


def test_bad_power_costs_only_the_check_where_there_is_a_counter() -> None:
    board = FakeBoard(instant=lambda now: (0, 1, 0))
    with opened(FakeNvml(board)) as gpu:
        assert gpu.meter is gpu.counter
        assert gpu.power is None
        assert "reads 0 W" in gpu.missing[0]
    library = FakeNvml(board)
    library.faults[COUNTER] = UNSUPPORTED
    assert "reads 0 W, which no board that is on draws" in fails(library)


# Faults of library, driver and board: one line, and what to do.


def test_no_bindings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(RuntimeUnavailableError, match=r"pip install 'edgeecc\[nvml\]'"):
        Nvml()


def test_no_library() -> None:
    with installed(None), pytest.raises(RuntimeUnavailableError, match="libnvidia-ml.so.1 is not"):
        Nvml()


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (DRIVER_NOT_LOADED, "driver is not loaded; load or install it"),
        (MISMATCH, "differ in version, as after an update; restart the machine"),
        (NO_PERMISSION, "no permission; join the group"),
        (999, r"NVML says 'Unknown Error' \(error 999\); see whether nvidia-smi works"),
        (4242, r"NVML says 'Something else went wrong' \(error 4242\)"),
    ],
)
def test_a_library_that_does_not_start(code: int, advice: str) -> None:
    library = FakeNvml(FakeBoard())
    library.faults["nvmlInitWithFlags"] = code
    with installed(library), pytest.raises(RuntimeUnavailableError, match=f"^NVML: .*{advice}"):
        Nvml()


def test_a_code_that_even_the_library_cannot_explain() -> None:
    library = FakeNvml(FakeBoard())
    library.faults["nvmlInitWithFlags"] = 4242
    library.missing.add("nvmlErrorString")
    with installed(library), pytest.raises(RuntimeUnavailableError, match="error 4242"):
        Nvml()


def test_no_gpu_at_all_and_none_that_can_be_reached() -> None:
    assert "nvidia-smi -L lists any" in fails(FakeNvml())
    library = FakeNvml(FakeBoard())
    library.faults["nvmlDeviceGetHandleByIndex_v2"] = NO_PERMISSION
    assert "no GPU to measure: GPU 0: no permission" in fails(library)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (LOST, "fell off the bus; look for Xid in dmesg"),
        (NO_PERMISSION, "--gpus all"),
        (16, "nvidia-smi --gpu-reset"),
        (17, "/dev/nvidia"),
        (10, "try again"),
        (1, "open the GPU again"),
    ],
)
@pytest.mark.parametrize("function", [COUNTER, "nvmlDeviceGetMigMode", "nvmlDeviceGetClockInfo"])
def test_a_board_that_fails_to_answer_is_no_board_without(
    function: str, code: int, advice: str
) -> None:
    library = FakeNvml(FakeBoard())
    library.faults[function] = code
    assert advice in fails(library)
    assert library.started == 0


def test_a_lost_gpu_does_not_hide_the_others_and_is_told_when_asked_for() -> None:
    library = two_boards()
    lost = library._by_index

    def by_index(index, result):
        return LOST if index.value == 0 else lost(index, result)

    library._functions["nvmlDeviceGetHandleByIndex_v2"] = by_index
    with opened(library) as gpu:
        assert gpu.board.identity.index == 1
    assert "GPU 0: the GPU is lost" in fails(library, 0)


def test_a_failing_shutdown_is_not_told() -> None:
    library = FakeNvml(FakeBoard())
    with opened(library):
        library.faults["nvmlShutdown"] = LOST
    assert library.calls[-1] == "nvmlShutdown"


# Which GPU.


def two_boards(**second: object) -> FakeNvml:
    other = {"model": "NVIDIA H200", "uuid": "GPU-89aa", "bus": "00000000:07:00.0"}
    return FakeNvml(FakeBoard(), FakeBoard(**{**other, "capability": (9, 0), **second}))


@pytest.mark.parametrize(
    ("name", "index", "called"),
    [
        (1, 1, "1"),
        ("1", 1, "1"),
        ("GPU-8932", 0, "GPU-8932"),
        ("GPU-89AA", 1, "GPU-89AA"),
        ("0000:07:00.0", 1, "0000:07:00.0"),
        ("3b:00.0", 0, "3b:00.0"),
        ("00000000:3B:00", 0, "00000000:3B:00"),
    ],
)
def test_a_gpu_goes_by_index_uuid_and_bus_id(name: object, index: int, called: str) -> None:
    with opened(two_boards(), name) as gpu:
        assert gpu.board.identity.index == index
        assert gpu.meter.name.endswith(f"GPU board {called}, energy counter")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (2, "no GPU goes by 2; name one of 0: NVIDIA A40 GPU-8932f937"),
        (-1, "no GPU goes by -1"),
        ("GPU-89", "several GPUs go by 'GPU-89'"),
        ("GPU-77", "no GPU goes by"),
        ("0000:99:00.0", "no GPU goes by"),
        ("A40", "'A40' names no GPU; give NVML's index"),
        ("", "'' names no GPU"),
        ("9" * 5000, "names no GPU"),
        (MIG, "not found; nvidia-smi -L"),
    ],
)
def test_names_of_no_gpu_or_of_several_are_refused(name: object, said: str) -> None:
    assert said in fails(two_boards(), name)


def test_a_mig_instance_is_measured_as_its_whole_board_and_says_so() -> None:
    with opened(two_boards(mig=1, instances=[MIG]), MIG) as gpu:
        assert gpu.board.identity.model == "NVIDIA H200"
        assert gpu.meter.name == (
            f"nvml: NVIDIA H200, GPU board {MIG}, all its MIG instances, energy counter"
        )
    with opened(two_boards(mig=1), 1) as gpu:
        assert "GPU board 1, all its MIG instances" in gpu.meter.name
    with opened(two_boards(mig=0), 1) as gpu:
        assert "MIG" not in gpu.meter.name


def test_without_a_name_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-89aa,GPU-8932f937")
    with opened(two_boards()) as gpu:
        assert gpu.board.identity.index == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert "2 GPUs are here, and CUDA counts them otherwise" in fails(two_boards())


ONE = [GpuIdentity(0, "GPU-a", "0:01:00.0", "one")]
THREE = [
    GpuIdentity(0, "GPU-a", "00000000:81:00.0", "one"),
    GpuIdentity(1, "GPU-b", "00000000:03:00.0", "two"),
    GpuIdentity(3, "GPU-c", "00000000:1A:00.0", "three"),
]


@pytest.mark.parametrize(
    ("visible", "by_bus", "gpus", "first"),
    [
        (None, False, ONE, 0),
        ("0", False, ONE, 0),
        ("GPU-b", False, THREE, "GPU-b"),
        (f"{MIG},1", False, THREE, MIG),
        (None, True, THREE, 1),
        ("1,0", True, THREE, 3),
        (" 2 ", True, THREE, 0),
    ],
)
def test_the_first_gpu_of_cuda(visible: object, by_bus: bool, gpus: list, first: object) -> None:
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    environ.update({"CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if by_bus else {})
    assert first_visible(environ, gpus) == first


@pytest.mark.parametrize("visible", ["", "-1", "1", "none", "9" * 5000])
def test_an_environment_that_hides_every_gpu(visible: str) -> None:
    with pytest.raises(RuntimeUnavailableError, match="leaves CUDA no GPU; unset it"):
        first_visible({"CUDA_VISIBLE_DEVICES": visible}, ONE)


@pytest.mark.parametrize("order", [None, "FASTEST_FIRST"])
def test_an_order_that_cannot_be_known_is_refused(order: object) -> None:
    with pytest.raises(MeterError, match="set CUDA_DEVICE_ORDER=PCI_BUS_ID"):
        first_visible({"CUDA_DEVICE_ORDER": order} if order else {}, THREE)


@given(st.lists(st.integers(0, 0xFF), min_size=1, max_size=8, unique=True))
def test_bus_order_is_by_number_however_nvml_counts(buses: list) -> None:
    gpus = [
        GpuIdentity(index, f"GPU-{index}", f"00000000:{bus:02X}:00.0", "any")
        for index, bus in enumerate(buses)
    ]
    for place, bus in enumerate(sorted(buses)):
        environ = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": str(place)}
        assert first_visible(environ, gpus) == buses.index(bus)
        assert find_gpu(f"0000:{bus:02x}:00.0", gpus).index == buses.index(bus)


# The energy counter.


@given(st.floats(5.0, 900.0), st.floats(1.0, 60.0), st.floats(0.0, 0.1))
def test_constant_power_is_counted_but_for_a_tick(watts: float, seconds: float, off: float) -> None:
    library = FakeNvml(FakeBoard(watts=watts))
    with opened(library) as gpu:
        library.clock.pause(off)
        first = gpu.meter.read_j()
        library.clock.pause(seconds)
        assert gpu.meter.read_j() - first == pytest.approx(watts * seconds, abs=0.1001 * watts)


def broken(counts: Callable[[int, float], int]) -> str:
    """Return what is said of a counter that goes other ways from its start and the seconds since."""
    board = FakeBoard()
    library = FakeNvml(board)
    with opened(library) as gpu:
        gpu.meter.read_j()
        start, since = board.count_mj(library.clock.now), library.clock.now
        board.energy_mj = lambda now: counts(start, now - since)
        library.clock.pause(2.0)
        with pytest.raises(MeterError) as caught:
            gpu.meter.read_j()
    return str(caught.value)


def test_a_counter_that_does_not_count_energy_is_never_believed() -> None:
    assert "stood still for 2 s: it does not count" in broken(lambda start, passed: start)
    assert "reads 0 J: it does not count" in broken(lambda start, passed: 0)
    assert "fell by 2.5e+05 J: the driver was loaded anew" in broken(lambda start, passed: 1000)
    assert "jumped by" in broken(lambda start, passed: 2**64 - 1)
    assert "which no board draws" in broken(lambda start, passed: start + int(3e7))


def test_a_counter_may_rest_between_ticks_but_not_for_long() -> None:
    board, clock = FakeBoard(energy_mj=lambda now: 5000), FakeClock()
    with installed(FakeNvml(board, clock=clock)), Nvml() as nvml:
        meter = NvmlEnergyMeter(nvml.board(0), clock)
        for _ in range(10):
            assert meter.read_j() == 5.0
            clock.pause(0.099)
        board.energy_mj = lambda now: 5001
        assert meter.read_j() == 5.001
        clock.pause(0.9)
        assert meter.read_j() == 5.001
        clock.pause(0.2)
        with pytest.raises(MeterError, match="stood still"):
            meter.read_j()


@pytest.mark.parametrize(
    ("code", "said"), [(LOST, "the GPU is lost"), (NO_PERMISSION, "no permission"), (3, "tell")]
)
def test_a_counter_that_vanishes_in_a_window(code: int, said: str) -> None:
    library = FakeNvml(FakeBoard())
    with opened(library) as gpu:
        gpu.meter.read_j()
        library.faults[COUNTER] = code
        with pytest.raises(MeterError, match=said):
            gpu.meter.read_j()


def test_a_clock_that_runs_back() -> None:
    library = FakeNvml(FakeBoard())
    with opened(library) as gpu:
        gpu.meter.read_j()
        library.clock.pause(-3.0)
        with pytest.raises(MeterError, match="the clock ran back by 3 s"):
            gpu.meter.read_j()


# Sampled power.


@pytest.mark.parametrize(
    ("capability", "function"),
    [((6, 1), USAGE), ((7, 5), USAGE), ((8, 0), USAGE), ((8, 6), FIELDS), ((9, 0), FIELDS)],
)
def test_watts_now_are_asked_for_where_the_usage_is_a_mean(
    capability: tuple, function: str
) -> None:
    library = FakeNvml(FakeBoard(capability=capability))
    with opened(library) as gpu:
        library.calls.clear()
        assert gpu.power.read_w() == pytest.approx(250.0)
        assert library.calls == [function]
        assert gpu.power.period_s == 0.1


@pytest.mark.parametrize("code", [INVALID, UNSUPPORTED])
def test_a_driver_without_the_field_gives_the_mean_and_longer_windows(code: int) -> None:
    library = FakeNvml(FakeBoard(instant=lambda now: (code, 0, math.nan)))
    with opened(library) as gpu:
        assert gpu.power.read_w() == pytest.approx(250.0)
        assert gpu.power.period_s == 1.0
        assert gpu.power.name.endswith("sampled one-second power")


def test_a_board_of_unknown_kind_is_asked_for_the_field() -> None:
    library = FakeNvml(FakeBoard(**PASCAL))
    library.faults["nvmlDeviceGetCudaComputeCapability"] = UNSUPPORTED
    with opened(library) as gpu:
        library.calls.clear()
        gpu.power.read_w()
        assert library.calls == [FIELDS]


@pytest.mark.parametrize("kind", range(6))
def test_a_field_is_read_by_its_type(kind: int) -> None:
    with opened(FakeNvml(FakeBoard(instant=lambda now: (0, kind, 65_000.0)))) as gpu:
        assert gpu.power.read_w() == pytest.approx(65.0)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((0, 0, math.nan), "reads nan W"),
        ((0, 0, math.inf), "reads inf W"),
        ((0, 5, -4000.0), "reads -4 W"),
        ((0, 1, 0.0), "reads 0 W"),
        ((0, 1, 2.0**32 - 1), "reads 4.295e.06 W, which no board that is on draws"),
        ((0, 99, 1.0), "unknown type 99; pip install -U nvidia-ml-py"),
        ((LOST, 1, 250_000.0), "the instant power of .*: the GPU is lost"),
        ((UNSUPPORTED, 1, 250_000.0), "does not tell it"),
    ],
)
def test_a_power_that_is_none_ends_the_integral(answer: tuple, said: str) -> None:
    board = FakeBoard()
    library = FakeNvml(board)
    library.faults[COUNTER] = UNSUPPORTED
    with opened(library) as gpu:
        first = gpu.meter.read_j()
        assert first is not None
        board.instant = lambda now: answer
        library.clock.pause(FRESH_PERIODS * gpu.meter.period_s + 0.01)
        with pytest.raises(MeterError, match=said):
            gpu.meter.read_j()


@given(st.floats(5.0, 900.0), st.lists(st.floats(0.001, 0.5), min_size=1, max_size=20))
def test_constant_power_is_integrated_under_any_jitter(watts: float, steps: list) -> None:
    library = without_counter(watts=watts)
    with opened(library) as gpu:
        first = gpu.meter.read_j()
        for step in steps:
            library.clock.pause(step)
            last = gpu.meter.read_j()
        assert last - first == pytest.approx(watts * sum(steps), rel=1e-3)


# Conditions.


def test_conditions_in_si_units() -> None:
    with opened(FakeNvml(FakeBoard(events=0x1 | 0x40))) as gpu:
        assert gpu.sensors.conditions().to_json() == {
            "clocks_hz": {"gpu": 1.74e9, "memory": 7.251e9},
            "temperatures_c": {"gpu": 61.0},
            "mode": "300 W",
            "held_back": ["thermal"],
            "alerts": [],
        }


def test_bindings_that_know_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("pynvml.nvmlDeviceGetCurrentClocksEventReasons")
    monkeypatch.delattr("pynvml.nvmlDeviceGetTemperatureV", raising=False)
    with opened(FakeNvml(FakeBoard(events=0x80))) as gpu:
        assert gpu.sensors.conditions().held_back == ("power brake",)
        assert gpu.sensors.conditions().temperatures_c == {"gpu": 61.0}


def test_drivers_and_boards_that_know_less() -> None:
    library = FakeNvml(FakeBoard(events=0x80, clocks_mhz={1: 900}))
    library.missing |= {"nvmlDeviceGetCurrentClocksEventReasons", "nvmlDeviceGetTemperatureV"}
    library.faults["nvmlDeviceGetEnforcedPowerLimit"] = UNSUPPORTED
    with opened(library) as gpu:
        found = gpu.sensors.conditions()
    assert found.clocks_hz == {"gpu": 9e8}
    assert found.temperatures_c == {"gpu": 61.0}
    assert found.mode == ""
    assert found.held_back == ("power brake",)
    library.faults["nvmlDeviceGetTemperature"] = UNSUPPORTED
    library.faults["nvmlDeviceGetCurrentClocksThrottleReasons"] = UNSUPPORTED
    with opened(library) as gpu:
        found = gpu.sensors.conditions()
    assert found.temperatures_c == {}
    assert found.held_back == ()


@pytest.mark.parametrize(
    "function",
    [
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetCurrentClocksEventReasons",
    ],
)
def test_a_sensor_that_was_there_and_is_gone(function: str) -> None:
    library = FakeNvml(FakeBoard())
    with installed(library), Nvml() as nvml:
        sensors = NvmlSensors(nvml.board(0))
        library.missing.add("nvmlDeviceGetCurrentClocksThrottleReasons")
        library.faults[function] = UNSUPPORTED
        with pytest.raises(MeterError, match="does not tell it|update the driver"):
            sensors.conditions()


@pytest.mark.parametrize(
    ("events", "words"),
    [
        (0x0, ()),
        (0x20, ("thermal",)),
        (0x40 | 0x08, ("thermal",)),
        (0x80 | 0x08, ("power brake",)),
        (0x08, ("hardware slowdown",)),
        (0x10, ("sync boost",)),
        (0x20 | 0x80 | 0x10, ("thermal", "power brake", "sync boost")),
    ],
)
def test_what_holds_a_gpu_back(events: int, words: tuple) -> None:
    assert held_back(events) == words


#: Idle, clocks that were set, the power limit, the display's clocks, the board's limit, reliability, and bits to come.
HARMLESS = 0x1 | 0x2 | 0x4 | 0x100 | 0x200 | 0x400 | 0x8000_0000_0000_0000


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_what_belongs_to_the_mode_does_not_hold_it_back(events: int, noise: int) -> None:
    assert held_back(events) == held_back(events & ~HARMLESS | noise & HARMLESS)


# Counter against power.


@given(st.floats(20.0, 700.0), st.floats(0.6, 1.6))
def test_counter_and_power_of_one_board(watts: float, ratio: float) -> None:
    board = FakeBoard(watts=watts * ratio, instant=lambda now: (0, 0, 1e3 * watts))
    library = FakeNvml(board)
    with opened(library) as gpu:
        found = cross_check(gpu.counter, gpu.power, 5.0, pause=library.clock.pause)
    assert found.ratio == pytest.approx(ratio, rel=0.01)
    if abs(ratio - 1.0) < 0.09:
        assert found.agrees
    if abs(ratio - 1.0) > 0.11:
        assert not found.agrees


@given(st.floats(1e-3, 1e6), st.floats(1e-3, 1e6), st.floats(0.01, 0.5))
def test_the_verdict_is_the_tolerated_share(counted: float, under: float, share: float) -> None:
    found = judge(counted, under, share)
    assert found.ratio == counted / under
    assert found.agrees == (abs(counted - under) <= share * under) or math.isclose(
        abs(found.ratio - 1.0), share, rel_tol=1e-9
    )
    assert "\n" not in found.verdict


def test_verdicts_in_words() -> None:
    assert judge(101.0, 100.0).verdict == (
        "counter and power agree: 101 J counted, 100 J under the sampled power, ratio 1.010"
    )
    assert "the counter says 50% more than the power, over 10%" in judge(150.0, 100.0).verdict
    assert "the counter says 25% less than the power" in judge(75.0, 100.0).verdict


@pytest.mark.parametrize(
    ("counted", "under"), [(0.0, 1.0), (1.0, 0.0), (-1.0, 1.0), (math.nan, 1.0)]
)
def test_no_energy_is_no_check(counted: float, under: float) -> None:
    with pytest.raises(MeterError, match="no energy; check longer"):
        judge(counted, under)


def test_a_check_whose_counter_stops_or_that_was_kept_from_reading() -> None:
    board = FakeBoard()
    library = FakeNvml(board)
    with opened(library) as gpu:
        with pytest.raises(MeterError, match="went unread for 6 s"):
            cross_check(gpu.counter, gpu.power, 5.0, pause=lambda _: library.clock.pause(2.0))
        held = board.count_mj(library.clock.now)
        board.energy_mj = lambda now: held
        with pytest.raises(MeterError, match="stood still"):
            cross_check(gpu.counter, gpu.power, 5.0, pause=library.clock.pause)
