"""What a second process and more pods add: `.venv/test/bin/python -m tests.bench.scale` (Linux, root, iproute2).

Every pod is a host of its own, a network namespace: gateways with one process each, and as many model servers that do
nothing but wait, one picture at a time, as if they computed on cores of their own. So this shows what gateways and the
network between make of more pods, not how fast a model is. All share this machine's cores with the load generator.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, Final

import grpc

from gateway.wire import prediction_pb2 as pb
from tests.bench import pictures
from tests.bench.load import Body, Caller, Outcome, closed_loop
from tests.bench.processes import cost
from tests.deploy.hosts import Lan, lan, on
from tests.deploy.load import until
from tests.deploy.system import Process, gateway_words, process
from tests.fakes import FaultyModelServer, good, pixels_of
from tests.system import ROOT

PODS: Final = (1, 2, 4)
PICTURE_S: Final = 0.04  # what a model server of two cores takes for one, in bfloat16
CALLERS: Final = 16  # of each gateway
START_LIMIT_S: Final = 60.0


def scale(folder: Path, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Pictures a second of 1, 2 and 4 pods of each kind, and of one gateway with one process and with two."""
    with lan() as net, ExitStack() as stack:
        net.add("client")
        running: dict[str, Process] = {}

        def start(name: str, words: list[str | Path], **environ: str) -> None:
            net.add(name)
            running[name] = stack.enter_context(process(on(name, words), folder / f"{name}.log", **environ))

        for number in range(max(PODS)):
            start(f"model{number}", _server_words(PICTURE_S))
            start(f"gateway{number}", gateway_words(), **_ENVIRON)
            _know(net, f"gateway{number}", "model0")
        for name in ("instant0", "instant1"):
            start(name, _server_words(0))
        for workers in (1, 2):
            start(f"workers{workers}", gateway_words(), WHENCE_WORKERS=str(workers), **_ENVIRON)
            _know(net, f"workers{workers}", "instant0", "instant1")
        found: dict[str, list[dict[str, Any]]] = {}
        everybody = [name for name in running if not name.startswith(("model", "instant"))]
        _ask(net, running, everybody, 0.5)  # so that all of them are there, and have answered
        for number in range(rounds):
            print(f"round {number + 1} of {rounds}", file=sys.stderr)
            for pods in PODS:
                names = [f"gateway{each}" for each in range(pods)]
                for name in names:
                    _know(net, name, *(f"model{each}" for each in range(pods)))
                found.setdefault(f"{pods} pods", []).append(_ask(net, running, names, seconds))
            for workers in (1, 2):
                what = f"{workers} processes, model servers that answer at once"
                found.setdefault(what, []).append(_ask(net, running, [f"workers{workers}"], seconds))
    return {what: {name: _middle([each[name] for each in all_]) for name in all_[0]} for what, all_ in found.items()}


_ENVIRON: Final = {"WHENCE_BACKEND": "dns:///serving:8500", "WHENCE_RESOLVE_S": "0.5", "WHENCE_LOG_LEVEL": "warning"}


def _know(net: Lan, gateway: str, *models: str) -> None:
    net.name(gateway, "serving", *(net.hosts[name] for name in models))


def _ask(net: Lan, running: dict[str, Process], names: list[str], seconds: float) -> dict[str, Any]:
    """All of these gateways at once, from the client's host."""
    urls = [f"http://{net.hosts[name]}:8080/v1/predict" for name in names]
    before = sum(cost(running[name].child.pid).cpu_s for name in names)
    words = on("client", [sys.executable, "-m", "tests.bench.scale", "--ask", *urls, "--seconds", str(seconds)])
    done = subprocess.run(words, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    cpu_s = sum(cost(running[name].child.pid).cpu_s for name in names) - before
    return result | {"gateway CPU ms a picture": round(1000 * cpu_s / result.pop("asked"), 2)}


def ask(urls: list[str], seconds: float) -> dict[str, Any]:
    """The load: `CALLERS` for each address, each asking again when it is answered."""
    bodies = [pictures.raw(picture) for picture in pictures.real()]
    for url in urls:
        until(f"{url} answers", partial(_answers, url, bodies[0]), START_LIMIT_S)
    with ThreadPoolExecutor(len(urls)) as pool:
        outcomes = list(pool.map(lambda url: closed_loop(url, bodies, callers=CALLERS, seconds=seconds), urls))
    whole = Outcome(seconds)
    for outcome in outcomes:
        whole.answers += outcome.answers
        whole.good_s += outcome.good_s
    summary = whole.summary()
    return {
        "pictures a second": round(sum(outcome.answers["200"] / outcome.seconds for outcome in outcomes), 1),
        "p50 ms": summary["p50_ms"],
        "p99 ms": summary["p99_ms"],
        "not 200": whole.answers.total() - whole.answers["200"],
        "asked": sum(outcome.asked for outcome in outcomes),
    }


def _answers(url: str, body: Body) -> bool:
    return Caller(url).ask(body) == "200"


def serve(picture_s: float) -> None:
    """A model server that waits so long for each picture, one after the other, until it is killed."""
    turn = threading.Lock()

    def behave(request: pb.PredictRequest, context: grpc.ServicerContext) -> pb.PredictResponse:
        if picture_s:
            with turn:
                time.sleep(picture_s * len(pixels_of(request)))
        return good(request, context)

    server = FaultyModelServer("0.0.0.0:8500", behaviour=behave)  # inside a namespace
    while True:
        time.sleep(0.2)
        server.calls.clear()  # pictures among them


def _server_words(picture_s: float) -> list[str | Path]:
    return [sys.executable, "-m", "tests.bench.scale", "--serve", str(picture_s)]


def _middle(values: list[float]) -> float:
    return round(median(values), 2)


def main() -> None:
    """The measurement, or one of the programs that it starts on its hosts."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.scale", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (default %(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load (default %(default)s)")
    parser.add_argument("--ask", nargs="+", metavar="URL", help=argparse.SUPPRESS)
    parser.add_argument("--serve", type=float, metavar="SECONDS", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
    elif options.ask:
        print(json.dumps(ask(options.ask, options.seconds)))
    else:
        with TemporaryDirectory() as folder:
            print(json.dumps(scale(Path(folder), rounds=options.rounds, seconds=options.seconds), indent=1))


if __name__ == "__main__":
    main()
