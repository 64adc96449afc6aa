"""What this process may use of the machine: cores inside its cgroup, and whether bfloat16 is quick here."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

AMX_BF16: Final = "amx_bf16"
AVX512_BF16: Final = "avx512_bf16"
# Together the sign of Intel's cores since Sapphire Rapids. They are made for AMX, and where a hypervisor hides it their
# AVX512_BF16 takes four times as long as a float32 multiply-add for twice the products (measured: VGG16 0.65 times as
# quick). Cooper Lake, which has no AMX, has no VBMI2 either.
MADE_FOR_AMX: Final = frozenset({"GenuineIntel", "avx512_vbmi2"})


def available_cores(root: Path = Path("/")) -> int:
    """Whole cores that this process may use: the smaller of its CPU affinity and its cgroup's quota, at least 1.

    A quota of 1.5 counts as one core: two threads would use it up early in each period, and then both stand still.

    Args:
        root: Where `proc` and `sys` are mounted; tests put their own there.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min([allowed, *(int(quota) for quota in _quotas(root))]))


def bfloat16_is_quick(root: Path = Path("/")) -> bool:
    """True where oneDNN computes bfloat16 more quickly than float32: AMX, or AVX512_BF16 of a core made without AMX."""
    features = _features(root)
    return AMX_BF16 in features or (AVX512_BF16 in features and not features >= MADE_FOR_AMX)


def multiplies_tiles(root: Path = Path("/")) -> bool:
    """True with AMX, which computes bfloat16 several times as fast as AVX512_BF16."""
    return AMX_BF16 in _features(root)


def _features(root: Path) -> set[str]:
    try:
        return set((root / "proc/cpuinfo").read_text().split())
    except OSError:  # not Linux
        return set()


def _quotas(root: Path) -> Iterator[float]:
    """Cores allowed by each cgroup from ours up to the root, in version 2 or 1 of cgroups."""
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            mount, read = root / "sys/fs/cgroup", _quota_v2
        elif "cpu" in controllers.split(","):
            mount, read = root / "sys/fs/cgroup/cpu", _quota_v1
        else:
            continue
        # In a container the path may be the host's and missing below our mount: then the mount itself is our group.
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            if (quota := read(folder)) is not None:
                yield quota
            if folder == mount:
                break


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        return None
    return None if quota == "max" else int(quota) / int(period)


def _quota_v1(folder: Path) -> float | None:
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return None if quota <= 0 else quota / period
