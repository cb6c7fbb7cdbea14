"""Peak memory of a pass: what tensors hold at once, weights included."""

import os
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile

MIB = 2**20

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # otherwise torch's profiler writes to stderr


def held_bytes(component: object) -> int:
    """Return the bytes of all tensors that an object holds: a module's, and its attributes'.

    Those in its lists, tuples and dicts, and held by objects in them, count too; each once.
    """
    storages, seen, left = dict[int, int](), set[int](), [component]
    while left:
        one = left.pop()
        if id(one) in seen or isinstance(one, type | ModuleType):
            continue
        seen.add(id(one))
        match one:
            case Tensor():
                storage = one.untyped_storage()
                storages[storage.data_ptr()] = storage.nbytes()
            case nn.Module():
                left += [*one.parameters(), *one.buffers(), *vars(one).values()]
            case dict():
                left += one.values()
            case list() | tuple():
                left += one
            case _ if hasattr(one, "__dict__"):
                left += vars(one).values()
    return sum(storages.values())


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
