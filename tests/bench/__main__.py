"""Speed, measured: `python -m tests.bench COMMAND`, or `make bench`. Loopback only; nothing here passes or fails."""

import argparse
import json
import os
from collections.abc import Callable
from pathlib import Path

from tests.bench import compare, gateway_cost, report, soak, storm, swap, sweep
from tests.system import ROOT

SYSTEMS = ["whence-bfloat16", "whence-int8", "mosec", "litserve"]
RESULTS = ROOT / "runs/bench"  # ignored by git
COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], object]]] = {
    "compare": ("Whence, its peers and the bare engines, interleaved", lambda o: _compare(o)),
    "gateway": (
        "the gateway alone: CPU per upload, memory, start",
        lambda o: gateway_cost.measure(o.models, o.out, o.uploads),
    ),
    "soak": (
        "do memory and open files grow with time?",
        lambda o: soak.soak(o.precision, o.models, o.out, minutes=o.minutes, rate=o.rate),
    ),
    "storm": ("load, faults and hostile input at once", lambda o: storm.storm(o.out, o.minutes)),
    "swap": ("a new version under load", lambda o: swap.swap(o.precision, o.models, o.out)),
    "sweep": (
        "batching parameters and threads",
        lambda o: sweep.sweep(o.precision, o.models, o.out, rounds=o.rounds, seconds=o.seconds),
    ),
}


def main() -> None:
    """One command: its numbers as JSON."""
    text = "\n".join(f"  {name:10}{about}" for name, (about, _) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=f"{__doc__}\n\n{text}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results and logs go (default %(default)s)")
    parser.add_argument(
        "--models", type=Path, default=ROOT / "models", help="what `training export` wrote (%(default)s)"
    )
    parser.add_argument(
        "--systems", nargs="+", default=SYSTEMS, metavar="NAME", help="of compare (default %(default)s)"
    )
    parser.add_argument("--precision", default="bfloat16", help="of soak, swap and sweep (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of compare and sweep (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load in each round (default %(default)s)")
    parser.add_argument("--minutes", type=float, default=30.0, help="of soak and storm (default %(default)s)")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="of soak: requests a second; 0: as many as possible (default)"
    )
    parser.add_argument("--uploads", type=int, default=200, help="of each kind, for gateway (default %(default)s)")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    result = COMMANDS[options.command][1](options)
    (options.out / f"{options.command}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{options.out / options.command}.json")


def _compare(options: argparse.Namespace) -> object:
    load_before = os.getloadavg()[0]
    systems = compare.compare(
        options.systems, options.models, options.out, rounds=options.rounds, seconds=options.seconds
    )
    machine = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
    }
    result = {"machine": machine, "rounds": options.rounds, "seconds": options.seconds, "systems": systems}
    table = report.markdown(result)
    print(table)
    (options.out / "compare.md").write_text(table)
    report.plot(result, options.out / "compare.png")
    return result


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    flags = next((line for line in lines if line.startswith("flags")), "")
    return ", ".join(
        [model, *(flag for flag in ("avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8") if flag in flags)]
    )


if __name__ == "__main__":
    main()
