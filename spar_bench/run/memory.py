"""Peak memory of a pass: what tensors hold at once, weights included."""

import os
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.profiler import profile

MIB = 2**20

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise torch's profiler writes to stderr


def peak_mib(run: Callable[[], Tensor], device: torch.device, weights_bytes: int) -> float:
    """Return the peak of what one more pass allocates, and the weights, in MiB.

    On CUDA this is the allocator's own figure, minus what was there before; on the CPU, the
    profiler's record of allocations, summed in order. It excludes other data on the device,
    libraries, the driver, and temporary memory inside kernels.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        run()
        torch.cuda.synchronize(device)
        return (weights_bytes + torch.cuda.max_memory_allocated(device) - before) / MIB
    # Kineto takes seconds to start; the older profiler records the same events.
    with profile(use_kineto=False, profile_memory=True) as profiler:
        run()
    held = peak = 0
    for event in sorted(profiler.function_events, key=lambda event: event.time_range.start):
        held += event.self_cpu_memory_usage
        peak = max(peak, held)
    return (weights_bytes + peak) / MIB
