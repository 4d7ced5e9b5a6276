"""How fast this machine is, by PyTorch and by our own kernels; what `machine_rates` keeps for those who plan.

`python -m chatsmith.measure` measures, keeps and prints. What is planned as a bound must hold for whatever computes, so
every rate is there twice where the native kernels serve: they read memory and multiply faster than PyTorch does.
"""

from __future__ import annotations

from chatsmith import machine
from chatsmith.kernels.infer import build
from chatsmith.kernels.infer.session import read_rate
from chatsmith.machine_rates import NATIVE, Kept, Rates, keep, to_text
from chatsmith.train.speed import kernel_rate

_CPU = ("float32", "bfloat16")
_GPU = (*_CPU, "float16")


def measure(found: machine.Machine) -> Rates:
    """Measure the processor and the first GPU: about six seconds."""
    devices = {"cpu": _CPU} | ({"cuda": _GPU} if found.gpus else {})
    flops = {
        f"{device} {kind}": machine.measure_gemm(kind, device=device) for device in devices for kind in devices[device]
    }
    flops |= {f"cpu {kind}{NATIVE}": rate for kind in _CPU if (rate := kernel_rate(kind)) is not None}
    reading = {device: machine.measure_bandwidth(device=device) for device in devices}
    if build.library() is not None:
        reading[f"cpu{NATIVE}"] = read_rate(threads=machine.usable_cores())
    return Rates(flops, reading)


def measure_and_keep(found: machine.Machine | None = None) -> Kept:
    """Measure this machine now, and write it down for those who plan."""
    found = found or machine.describe(gpus=True)
    return keep(measure(found), found.gpus)


if __name__ == "__main__":
    print(to_text(measure_and_keep()))
