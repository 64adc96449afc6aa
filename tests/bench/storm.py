"""Load, faults and hostile input at once, for an hour: does every answer stay what the README says, and memory flat?

A real gateway asks a model server that does something else wrong every few seconds (tests.bench.faults), while clients
of all kinds come at a modest rate (tests.bench.traffic). What nobody promised is a violation, kept with its reason.
"""

import os
import random
import re
import signal
import subprocess
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import httpx

from tests.bench.faults import ALL, NONE, Fault, Rig
from tests.bench.processes import cost
from tests.bench.traffic import GONE, SILENT, Kind, Reply, Sender, Stock, kinds
from tests.system import ROOT, free_ports

RATE = 10.0  # requests a second, on average
THREADS = 64
BUDGET_S = 6.0  # of a request: WHENCE_REQUEST_TIMEOUT_S
GRACE_S = 4.0  # beyond it an answer counts as late; the machine may be busy with other things
FAULT_S, PAUSE_S = (3.0, 7.0), (2.0, 4.0)  # how long each fault, and the good time after it
REST_S = 20.0  # how long circuit breakers may stay open after a fault: breaker.LONGEST_REST_S and a probe
SAMPLE_S = 2.0
MIB_AN_HOUR = 10.0  # what counts as flat
SETTINGS = {
    "WHENCE_HOST": "127.0.0.1", "WHENCE_REQUEST_TIMEOUT_S": f"{BUDGET_S:g}", "WHENCE_HEAD_TIMEOUT_S": "3",
    "WHENCE_DRAIN_S": "0", "WHENCE_FEEDBACK_PER_MINUTE": "100",
}  # fmt: skip


@dataclass
class Seen:
    """What came back, and what should not have."""

    answers: Counter[tuple[str, str, int]] = field(default_factory=Counter)  # fault, kind, status
    minute: Counter[str] = field(default_factory=Counter)
    violations: list[dict[str, Any]] = field(default_factory=list)
    late: list[dict[str, Any]] = field(default_factory=list)
    slowest_s: dict[str, float] = field(default_factory=dict)  # by kind
    timed_out: float = float("-inf")  # time.monotonic() of the last 504
    lock: threading.Lock = field(default_factory=threading.Lock)


class Weather:
    """Which fault is in force, and which were when."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._dice, self._stop = rig, random.Random(1), threading.Event()
        self.past: list[tuple[float, Fault]] = []  # with the time of its end
        self.now = NONE
        self.thread = threading.Thread(target=self._change, daemon=True)

    def during(self, begin: float) -> list[Fault]:
        """The faults that may have touched a request that began at `begin` and ended now."""
        current = self.now
        found = [current] if current is not NONE else []
        for ended, fault in reversed(self.past[-20:]):
            if ended >= begin - (REST_S if fault.rests else 0.5):
                found.append(fault)
        return found

    def stop(self) -> None:
        self._stop.set()
        self.thread.join()

    def _change(self) -> None:
        while not self._stop.is_set():
            for fault in self._dice.sample(ALL, len(ALL)):
                self.now = fault
                with fault.on(self._rig):
                    self._stop.wait(self._dice.uniform(*FAULT_S))
                self.past.append((time.monotonic(), fault))
                self.now = NONE
                if self._stop.wait(self._dice.uniform(*PAUSE_S)):
                    return


def storm(out: Path, minutes: float) -> dict[str, Any]:
    """What happened: a row for each minute, answers by fault and kind, violations, and whether everything was flat."""
    (port,) = free_ports(1)
    rig = Rig()
    url = f"http://127.0.0.1:{port}"
    gateway = _start(out, port, rig.relay.address)
    seen, weather = Seen(), Weather(rig)
    every = kinds(Stock())
    rows: list[dict[str, Any]] = []
    try:
        with httpx.Client(base_url=url, timeout=10) as client:
            _until_ready(client, gateway)
            worker = _worker(gateway.pid)
            stop = threading.Event()
            weather.thread.start()
            callers = [
                threading.Thread(target=_call, args=(Sender(port, n), every, weather, seen, stop), daemon=True)
                for n in range(THREADS)
            ]
            for each in callers:
                each.start()
            end = time.monotonic() + 60 * minutes
            while time.monotonic() < end:
                rows.append(_minute(client, worker, gateway.pid, seen, min(60.0, end - time.monotonic())))
                print(rows[-1], *seen.violations[-3:], sep="\n    ", flush=True)
            stop.set()
            for each in callers:
                each.join()
            weather.stop()
            after = _after(client, worker)
        gateway.send_signal(signal.SIGTERM)
        status = gateway.wait(60)
    finally:
        gateway.kill()
        rig.relay.close()
        rig.server.kill()
    result = _result(rows, seen, after | {"exit_status": status})
    _plot(result, out / "storm.png")
    return result


def _start(out: Path, port: int, backend: str) -> "subprocess.Popen[bytes]":
    database = out / "storm.sqlite3"
    database.unlink(missing_ok=True)
    environ = {name: value for name, value in os.environ.items() if not name.startswith("WHENCE_")} | SETTINGS
    environ |= {
        "PYTHONPATH": str(ROOT), "WHENCE_PORT": str(port), "WHENCE_BACKEND": backend,
        "WHENCE_FEEDBACK_DATABASE": f"sqlite:///{database.absolute()}",
    }  # fmt: skip
    command = [str(ROOT / ".venv/gateway/bin/python"), "-m", "gunicorn", "-c", "gateway/gunicorn.conf.py"]
    with (out / "storm-gateway.log").open("wb") as log:
        return subprocess.Popen([*command, "gateway:create_app()"], cwd=ROOT, env=environ, stdout=log, stderr=log)


def _until_ready(client: httpx.Client, gateway: "subprocess.Popen[bytes]", limit_s: float = 60) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end and gateway.poll() is None:
        try:
            if client.get("/readyz").status_code == 200:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError("the gateway did not become ready; see storm-gateway.log")


def _call(sender: Sender, every: list[Kind], weather: Weather, seen: Seen, stop: threading.Event) -> None:
    """One client of many: a request now and then."""
    weights = [kind.weight for kind in every]
    while not stop.wait(sender.dice.expovariate(RATE / THREADS)):
        (kind,) = sender.dice.choices(every, weights)
        begin = time.monotonic()
        reply = kind.send(sender)
        took_s = time.monotonic() - begin
        faults = weather.during(begin)
        reason = _reason(kind, reply, took_s, faults, begin - seen.timed_out)
        with seen.lock:
            if reply.status == 504:
                seen.timed_out = time.monotonic()
            current = faults[0].name if faults else NONE.name
            seen.answers[current, kind.name, reply.status] += 1
            seen.minute[str(reply.status)] += 1
            if kind.model:
                seen.slowest_s[kind.name] = max(took_s, seen.slowest_s.get(kind.name, 0.0))
            record = {
                "kind": kind.name, "status": reply.status, "problem": reply.problem, "why": reason,
                "took_s": round(took_s, 2), "faults": [each.name for each in faults], "load": os.getloadavg()[0],
            }  # fmt: skip
            if reason:
                seen.violations.append(record)
            if reply.status != GONE and took_s > (kind.deadline_s or BUDGET_S) + GRACE_S:
                seen.late.append(record)


def _reason(kind: Kind, reply: Reply, took_s: float, faults: list[Fault], since_timeout_s: float) -> str:
    """What is wrong with an answer, if anything is."""
    if reply.status == SILENT:
        return "no answer"
    if reply.flaw:
        return f"the error's body {reply.flaw}"
    if reply.problem == "overloaded":
        return ""
    if reply.problem == "timeout" and took_s >= (kind.deadline_s or BUDGET_S):
        return ""  # it is true, whatever took the time
    allowed = set(kind.statuses)
    if kind.model:
        allowed |= set().union(*(fault.statuses for fault in faults))
        if since_timeout_s < REST_S:  # a timeout opens circuit breakers as a fault does
            allowed.add(503)
    return "" if reply.status in allowed else "this status is not for this"


def _minute(client: httpx.Client, worker: int, master: int, seen: Seen, seconds: float) -> dict[str, Any]:
    """A minute's row: the least, middle and greatest of what was sampled, and what was answered."""
    samples: list[tuple[float, int, int, float]] = []
    before, begin, health_s = cost(master).cpu_s, time.monotonic(), 0.0
    with seen.lock:
        seen.minute.clear()
    while time.monotonic() - begin < seconds:
        time.sleep(min(SAMPLE_S, seconds))
        asked = time.monotonic()
        status = client.get("/healthz").status_code
        health_s = max(health_s, time.monotonic() - asked)
        if status != 200:
            seen.violations.append({"kind": "/healthz", "status": status})
        samples.append((*_held(worker), _in_flight(client)))
    took_s = time.monotonic() - begin
    rss, descriptors, threads, in_flight = zip(*samples, strict=True)
    with seen.lock:
        answers = dict(sorted(seen.minute.items()))
    return {
        "rss_mib": [min(rss), median(rss), max(rss)],
        "descriptors": [min(descriptors), max(descriptors)],
        "threads": [min(threads), max(threads)],
        "in_flight": [min(in_flight), max(in_flight)],
        "cpu_share": round((cost(master).cpu_s - before) / took_s, 3),
        "slowest_healthz_s": round(health_s, 3),
        "answers": answers,
        "violations": len(seen.violations),
        "late": len(seen.late),
        "load": os.getloadavg()[0],
    }


def _after(client: httpx.Client, worker: int, limit_s: float = 30) -> dict[str, Any]:
    """When all clients are gone: how much is still held."""
    end = time.monotonic() + limit_s
    while (held := _in_flight(client)) > 0 and time.monotonic() < end:
        time.sleep(0.2)
    time.sleep(16)  # gunicorn's keepalive
    rss, descriptors, threads = _held(worker)
    return {"in_flight": held, "rss_mib": rss, "descriptors": descriptors, "threads": threads}


def _worker(master: int) -> int:
    children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
    return int(children[0])


def _held(pid: int) -> tuple[float, int, int]:
    """Memory in MiB, file descriptors, threads."""
    status = Path(f"/proc/{pid}/status").read_text()
    rss, threads = (int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("VmRSS", "Threads"))  # type: ignore[index]
    return round(rss / 1024, 1), len(os.listdir(f"/proc/{pid}/fd")), threads


def _in_flight(client: httpx.Client) -> float:
    found = re.search(r"^whence_inflight_requests (\S+)", client.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else float("nan")


def _result(rows: list[dict[str, Any]], seen: Seen, after: dict[str, Any]) -> dict[str, Any]:
    """Everything, with the judgement."""
    settled = rows[len(rows) // 6 :]  # the first ten minutes of an hour fill caches and pools
    slopes = {
        "rss_mib": _slope([row["rss_mib"][0] for row in settled]),
        "descriptors": _slope([row["descriptors"][0] for row in settled]),
        "threads": _slope([row["threads"][1] for row in settled]),
    }
    judgement = {
        "every answer is as documented": not seen.violations,
        "every answer is in time": not seen.late,
        "memory is flat": abs(slopes["rss_mib"]) < MIB_AN_HOUR,
        "file descriptors are flat": abs(slopes["descriptors"]) < 10,
        "nothing is in flight at the end": after["in_flight"] == 0,
        "the gateway stops with status 0": after["exit_status"] == 0,
    }
    by_kind: dict[str, Counter[str]] = {}
    by_fault: dict[str, Counter[str]] = {}
    for (fault, kind, status), count in seen.answers.items():
        by_kind.setdefault(kind, Counter())[str(status)] += count
        by_fault.setdefault(fault, Counter())[str(status)] += count
    return {
        "judgement": judgement,
        "answers": sum(seen.answers.values()),
        "slope_an_hour": slopes,
        "after": after,
        "slowest_s": {kind: round(seconds, 2) for kind, seconds in sorted(seen.slowest_s.items())},
        "by_kind": by_kind,
        "by_fault": by_fault,
        "violations": seen.violations[:200],
        "late": seen.late[:200],
        "minutes": rows,
    }


def _slope(values: list[float]) -> float:
    """Change in an hour, by least squares over values a minute apart."""
    if len(values) < 3:
        return 0.0
    middle, mean = (len(values) - 1) / 2, sum(values) / len(values)
    spread = sum((at - middle) ** 2 for at in range(len(values)))
    return round(60 * sum((at - middle) * (value - mean) for at, value in enumerate(values)) / spread, 2)


def _plot(result: dict[str, Any], path: Path) -> None:
    """Memory, descriptors and threads, and answers, over the minutes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = result["minutes"]
    figure, (memory, held, answers) = pyplot.subplots(3, 1, figsize=(9, 8), sharex=True, layout="constrained")
    for at, label in enumerate(("least", "median", "greatest")):
        memory.plot([row["rss_mib"][at] for row in rows], label=label)
    memory.set(title=f"gateway, RSS in MiB ({result['slope_an_hour']['rss_mib']:+} an hour)", ylim=(0, None))
    held.plot([row["descriptors"][0] for row in rows], label="file descriptors, least")
    held.plot([row["threads"][1] for row in rows], label="threads, most")
    held.plot([row["in_flight"][1] for row in rows], label="in flight, most")
    held.set(ylim=(0, None))
    names = {"0": "closed", "-1": "client left", "-2": "silent"}
    statuses = sorted({status for row in rows for status in row["answers"]}, key=int)
    counts = [[row["answers"].get(status, 0) for row in rows] for status in statuses]
    answers.stackplot(range(len(rows)), counts, labels=[names.get(status, status) for status in statuses])
    answers.set(title=f"answers a minute, {len(result['violations'])} of {result['answers']} undocumented")
    answers.set_xlabel("minutes")
    for axes in (memory, held, answers):
        axes.legend(fontsize=7, loc="upper left", ncols=4)
        axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)
