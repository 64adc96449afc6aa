"""Whence, its peers and the bare engines on one machine: everything runs, one at a time is asked, in turns.

Idle systems cost no CPU: LitServe, which takes 0.13 of a core while nobody asks it, is suspended then. Each round asks
all of them within minutes, so a busy minute of the machine hits all alike.
"""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from serving.server import cpu
from serving.server.config import LEAST_ROWS
from tests.bench import pictures, stages, systems
from tests.bench.load import Outcome, closed_loop, open_loop
from tests.bench.processes import cost
from tests.bench.systems import Ceiling, System

CONCURRENCY = (1, 8, 32)
SETTLE_S = 90.0  # longest wait for a system to work off what its callers gave up
IDLE = 0.25  # of a core: LitServe takes 0.13 when nobody waits any more
OVERLOAD = 5  # times what the system reached at the last concurrency
BATCH = 8  # rows under way at once in the engine under load: serving/batching.config

Cells = dict[str, list[dict[str, Any]]]  # "8 callers" -> one summary for each round


def compare(names: Sequence[str], models: Path, log_dir: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Everything that was measured, by system."""
    log_dir.mkdir(parents=True, exist_ok=True)
    chosen = [_system(name, models) for name in names]
    ceilings = [systems.ceiling(system.name.removeprefix("whence-"), models) for system in chosen if system.metrics]
    everything: list[System | Ceiling] = [*ceilings, *chosen]
    with ExitStack() as cleaning:
        for each in everything:
            cleaning.callback(each.stop)
            say(f"starting {each.name}")
            each.start(log_dir)
        memory = {system.name: {"idle": _memory(system)} for system in chosen}
        for system in chosen:
            system.rest()
        cells: dict[str, Cells] = {each.name: {} for each in everything}
        for number in range(rounds):
            for ceiling in ceilings:
                _ask_engine(ceiling, cells[ceiling.name], seconds)
            for system in chosen:
                say(f"round {number + 1} of {rounds}: {system.name}")
                system.resume()
                _ask_system(system, cells[system.name], seconds)
                system.rest()
        for system in chosen:
            memory[system.name]["after load"] = _memory(system)
        return {
            each.name: {
                "start_s": getattr(each, "start_s", None),
                "memory_mib": memory.get(each.name),
                "rounds": cells[each.name],
                "median": {cell: _medians(summaries) for cell, summaries in cells[each.name].items()},
            }
            for each in everything
        }


def say(text: str) -> None:
    """Progress, with the time."""
    print(time.strftime("%H:%M:%S"), text, flush=True)


def _system(name: str, models: Path) -> System:
    if name.startswith("whence-"):
        return systems.whence(name.removeprefix("whence-"), models)
    return {"mosec": systems.mosec, "litserve": systems.litserve}[name](models)


def _ask_engine(ceiling: Ceiling, cells: Cells, seconds: float) -> None:
    cores = cpu.available_cores()
    for rows, runs in ((1, 1), (BATCH, 1), (max(LEAST_ROWS, BATCH // cores), cores)):
        rps = ceiling.rate(rows, runs, seconds / 2)
        name = f"batch {rows}" + (f", {runs} at a time" if runs > 1 else "")
        cells.setdefault(name, []).append({"rps": round(rps, 2), "ms": round(1000 * rows * runs / rps, 1)})


def _ask_system(system: System, cells: Cells, seconds: float) -> None:
    bodies = [system.body(picture) for picture in pictures.real()]
    rate = 0.0
    for callers in CONCURRENCY:
        summary = _watched(system, lambda n=callers: closed_loop(system.url, bodies, callers=n, seconds=seconds))
        rate = summary["rps"]
        cells.setdefault(f"{callers} callers", []).append(summary)
    summary = _watched(system, lambda: open_loop(system.url, bodies, rate=OVERLOAD * rate, seconds=seconds))
    cells.setdefault(f"{OVERLOAD} times capacity", []).append(summary)
    _settle(system)


def _settle(system: System) -> None:
    """Wait until it is idle: LitServe computes for callers who have left, on the cores that the next one needs."""
    until = time.monotonic() + SETTLE_S
    while time.monotonic() < until:
        before = sum(_costs(system).values())
        time.sleep(1)
        if sum(_costs(system).values()) - before < IDLE:
            return
    say(f"{system.name} is still busy after {SETTLE_S:g} s")


def _watched(system: System, load: Any) -> dict[str, Any]:
    """What a load brought, with what it cost each process and how long each stage took."""
    before, stages_before = _costs(system), stages.read(system.metrics)
    outcome: Outcome = load()
    costs, stages_after = _costs(system), stages.read(system.metrics)
    asked = outcome.asked or 1  # in the warm-up too, which costs CPU as well
    return outcome.summary() | {
        "cpu_ms": {name: round(1000 * (costs[name] - before[name]) / asked, 1) for name in costs},
        "stages_ms": stages.means(stages_before, stages_after),
    }


def _costs(system: System) -> dict[str, float]:
    return {name: cost(process.pid).cpu_s for name, process in system.running.items()}


def _memory(system: System) -> dict[str, float]:
    return {name: cost(process.pid).pss_mib for name, process in system.running.items()}


def _medians(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Median of each number over the rounds, and how far the rates lay apart, as a share of their median."""
    result: dict[str, Any] = {}
    for name in summaries[0].keys() - {"answers", "cpu_ms", "stages_ms"}:
        values = [summary[name] for summary in summaries if summary[name] is not None]
        result[name] = round(median(values), 2) if values else None
    rates = [summary["rps"] for summary in summaries]
    result["spread"] = round((max(rates) - min(rates)) / max(median(rates), 0.01), 3)
    return result
