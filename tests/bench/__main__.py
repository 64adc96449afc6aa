"""Speed, measured: `python -m tests.bench COMMAND`, or `make bench`. Loopback only; nothing here passes or fails."""

import argparse
import json
import os
from pathlib import Path

from tests.bench import compare, gateway_cost, report, soak, swap
from tests.system import ROOT

RESULTS = ROOT / "runs/bench"  # ignored by git


def main() -> None:
    """One command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where results and logs go (default %(default)s)")
    parser.add_argument(
        "--models", type=Path, default=ROOT / "models", help="what `training export` wrote (%(default)s)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add = commands.add_parser("compare", help="Whence, its peers and the bare engines, interleaved")
    add.add_argument(
        "--systems", nargs="+", default=["whence-bfloat16", "whence-int8", "mosec", "litserve"], metavar="NAME"
    )
    add.add_argument("--rounds", type=int, default=5)
    add.add_argument("--seconds", type=float, default=8.0, help="of each load in each round (default %(default)s)")
    add.set_defaults(run=_compare)
    add = commands.add_parser("gateway", help="CPU of the gateway per upload, its memory and its start")
    add.add_argument("--uploads", type=int, default=200, help="of each kind (default %(default)s)")
    add.set_defaults(
        run=lambda options: _write(
            options, "gateway", gateway_cost.measure(options.models, options.out, options.uploads)
        )
    )
    add = commands.add_parser("soak", help="the same load for a long time: does memory grow?")
    add.add_argument("--minutes", type=float, default=30.0)
    add.add_argument("--precision", default="bfloat16")
    add.set_defaults(
        run=lambda options: _write(
            options, "soak", soak.soak(options.precision, options.models, options.out, options.minutes)
        )
    )
    add = commands.add_parser("swap", help="a new version appears under load: what happens to p99?")
    add.add_argument("--precision", default="bfloat16")
    add.set_defaults(
        run=lambda options: _write(options, "swap", swap.swap(options.precision, options.models, options.out))
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    options.run(options)


def _compare(options: argparse.Namespace) -> None:
    load_before = os.getloadavg()[0]
    systems = compare.compare(
        options.systems, options.models, options.out, rounds=options.rounds, seconds=options.seconds
    )
    result = {
        "machine": {
            "cpu": _cpu(),
            "cores": len(os.sched_getaffinity(0)),
            "load_before": round(load_before, 2),
            "load_after": round(os.getloadavg()[0], 2),
        },
        "rounds": options.rounds,
        "seconds": options.seconds,
        "systems": systems,
    }
    _write(options, "compare", result)
    table = report.markdown(result)
    (options.out / "compare.md").write_text(table)
    report.plot(result, options.out / "compare.png")
    print(table)


def _write(options: argparse.Namespace, name: str, result: object) -> None:
    path = options.out / f"{name}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{json.dumps(result, indent=1) if name != 'compare' else ''}\n{path}")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    flags = next((line for line in lines if line.startswith("flags")), "")
    return ", ".join(
        [model, *(flag for flag in ("avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8") if flag in flags)]
    )


if __name__ == "__main__":
    main()
