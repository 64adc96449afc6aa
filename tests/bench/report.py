"""What was measured as Markdown, and as a picture."""

from pathlib import Path
from statistics import median
from typing import Any

PRECISIONS = ("float32", "bfloat16", "int8")


def markdown(result: dict[str, Any]) -> str:
    """A table of medians, one row for each system and load; the spread is (greatest - least) / median of the rate."""
    systems, lines = result["systems"], [_machine(result), ""]
    lines += [
        "| system | load | pictures/s | spread | p50 ms | p99 ms | p99/p50 | 503 p99 ms | other answers |",
        "|" + "---|" * 9,
    ]
    for name, system in systems.items():
        for load, medians in system["median"].items():
            lines.append(_row(name, load, medians, system["rounds"][load]))
    lines += ["", "| ratio, taken in each round | median | least | greatest |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {median(each):.2f} | {min(each):.2f} | {max(each):.2f} |" for name, each in ratios(systems).items()
    ]
    lines += ["", "| system | first answer after s | PSS MiB idle | PSS MiB after load |", "|---|---|---|---|"]
    for name, system in systems.items():
        if system["memory_mib"]:
            idle, after = (_joined(system["memory_mib"][when]) for when in ("idle", "after load"))
            lines.append(f"| {name} | {system['start_s']} | {idle} | {after} |")
    lines += [
        "",
        "Mean milliseconds of each stage with 32 callers, and CPU milliseconds of each process per answer:",
        "",
    ]
    for name, system in systems.items():
        if "32 callers" in system["rounds"]:
            last = system["rounds"]["32 callers"][-1]
            lines.append(f"- {name}: CPU {_joined(last['cpu_ms'])}; {_joined(last['stages_ms'])}")
    return "\n".join(lines) + "\n"


def ratios(systems: dict[str, Any]) -> dict[str, list[float]]:
    """What the bars in the issue are about, once for each round: its parts were measured within minutes."""

    def numbers(system: str, load: str, number: str) -> list[float]:
        return [each[number] for each in systems[system]["rounds"][load]]

    peers = [name for name in systems if not name.startswith(("whence-", "engine-"))]
    found = {}
    for precision in PRECISIONS:
        ours, engine = f"whence-{precision}", f"engine-{precision}"
        if ours not in systems or engine not in systems:
            continue
        batches = [load for load in systems[engine]["rounds"] if load != "batch 1"]
        same, *_ = batches  # as many rows as are under way at once in the server
        rate, p50, p99 = (numbers(ours, "32 callers", number) for number in ("rps", "p50_ms", "p99_ms"))
        bare = numbers(engine, same, "rps")
        best = [max(rates) for rates in zip(*(numbers(engine, load, "rps") for load in batches), strict=True)]
        found[f"{precision}: 32 callers over HTTP / engine alone, {same}"] = _divided(rate, bare)
        found[f"{precision}: 32 callers over HTTP / engine alone at its best"] = _divided(rate, best)
        found[f"{precision}: p99 / p50 at 32 callers"] = _divided(p99, p50)
        alone = zip(numbers(ours, "1 callers", "p50_ms"), numbers(engine, "batch 1", "ms"), strict=True)
        found[f"{precision}: one caller, ms above the engine's own"] = [whole - own for whole, own in alone]
        overloaded = numbers(ours, "5 times capacity", "rps")
        found[f"{precision}: answers 200 at 5 times capacity / at 32 callers"] = _divided(overloaded, rate)
        for peer in peers:
            found[f"{precision}: 32 callers / {peer}"] = _divided(rate, numbers(peer, "32 callers", "rps"))
    return found


def _divided(upper: list[float], lower: list[float]) -> list[float]:
    return [above / max(below, 0.01) for above, below in zip(upper, lower, strict=True)]


def plot(result: dict[str, Any], path: Path) -> None:
    """Pictures per second and p99 over the number of callers."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (rates, tails) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, system in result["systems"].items():
        loads = {int(load.split()[0]): cell for load, cell in system["median"].items() if load.endswith("callers")}
        if loads:
            (line,) = rates.plot(list(loads), [cell["rps"] for cell in loads.values()], marker="o", label=name)
            tails.plot(
                list(loads),
                [cell["p99_ms"] or float("nan") for cell in loads.values()],
                marker="o",
                color=line.get_color(),
            )
        else:
            limit = max(cell["rps"] for cell in system["median"].values())
            rates.axhline(limit, linestyle=":", linewidth=1, color="grey")
            rates.annotate(name, (1, limit), fontsize=7, color="grey")
    for axes, title in ((rates, "pictures per second (dotted: the engine alone)"), (tails, "p99, ms")):
        axes.set(title=title, xlabel="callers", xscale="log", xticks=[1, 8, 32], xticklabels=["1", "8", "32"])
        axes.grid(alpha=0.3)
    tails.set_yscale("log")
    rates.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def _machine(result: dict[str, Any]) -> str:
    machine = result["machine"]
    return (
        f"{result['rounds']} interleaved rounds of {result['seconds']:g} s per load on {machine['cores']} cores "
        f"({machine['cpu']}), load average before {machine['load_before']}, after {machine['load_after']}; medians."
    )


def _row(name: str, load: str, medians: dict[str, Any], rounds: list[dict[str, Any]]) -> str:
    p50, p99 = medians.get("p50_ms", medians.get("ms")), medians.get("p99_ms")
    others: dict[str, int] = {}
    for summary in rounds:
        for answer, count in summary.get("answers", {}).items():
            if answer != "200":
                others[answer] = others.get(answer, 0) + count
    tail = f"{p99 / p50:.2f}" if p50 and p99 else ""
    cells = [
        name, load, f"{medians['rps']:.1f}", f"{medians['spread']:.0%}", p50 or "", p99 or "", tail,
        medians.get("refused_p99_ms") or "", _joined(others),
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def _joined(numbers: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value:g}" for name, value in numbers.items())
