"""What was measured as Markdown, and as a picture."""

from pathlib import Path
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
    lines += ["", "| ratio | value |", "|---|---|"]
    lines += [f"| {name} | {value:.2f} |" for name, value in ratios(systems).items()]
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


def ratios(systems: dict[str, Any]) -> dict[str, float]:
    """What the bars in the issue are about."""
    rates = {name: system["median"].get("32 callers", {}).get("rps", 0.0) for name, system in systems.items()}
    peers = {name: rate for name, rate in rates.items() if not name.startswith(("whence-", "engine-"))}
    found = {}
    for precision in PRECISIONS:
        ours, engine = systems.get(f"whence-{precision}"), systems.get(f"engine-{precision}")
        if not ours or not engine:
            continue
        median, bare = ours["median"], engine["median"]
        limit = max(cell["rps"] for cell in bare.values())  # the engine at its best
        found[f"{precision}: 32 callers over HTTP / engine alone"] = rates[f"whence-{precision}"] / limit
        found[f"{precision}: p99 / p50 at 32 callers"] = median["32 callers"]["p99_ms"] / median["32 callers"]["p50_ms"]
        found[f"{precision}: one caller, ms above the engine's own"] = (
            median["1 callers"]["p50_ms"] - bare["batch 1"]["ms"]
        )
        found[f"{precision}: answers 200 at 5 times capacity / at 32 callers"] = (
            median["5 times capacity"]["rps"] / rates[f"whence-{precision}"]
        )
        if peers:
            best = max(peers, key=lambda name: peers[name])
            found[f"{precision}: 32 callers / best peer ({best})"] = rates[f"whence-{precision}"] / max(
                peers[best], 0.01
            )
    return found


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
