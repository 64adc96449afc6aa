"""What a tree of processes costs: CPU seconds and memory, read from /proc."""

import os
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """Of a process and its children."""

    cpu_s: float
    pss_mib: float  # proportional set size: shared pages are counted once, not once per process
    rss_mib: float
    open_files: int


def cost(pid: int) -> Cost:
    """What the tree under `pid` has used so far, and holds now."""
    pids = tree(pid)
    return Cost(
        cpu_s=sum(map(_cpu_s, pids)),
        pss_mib=round(sum(_memory_mib(each, "smaps_rollup", "Pss:") for each in pids), 1),
        rss_mib=round(sum(_memory_mib(each, "status", "VmRSS:") for each in pids), 1),
        open_files=sum(map(_open_files, pids)),
    )


def tree(pid: int) -> list[int]:
    """A process and everything under it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty for a process that has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS if fields else 0.0


def _open_files(pid: int) -> int:
    try:
        return len(list(Path(f"/proc/{pid}/fd").iterdir()))
    except OSError:
        return 0


def _memory_mib(pid: int, file: str, key: str) -> float:
    try:
        lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(key)), 0.0)
