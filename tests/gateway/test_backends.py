"""Several model servers: killed, swallowing calls, added, removed, full; and the budget of second attempts."""

import importlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import grpc
import numpy as np
import pytest

from gateway import backends, breaker, retries
from gateway.backends import resolve
from gateway.client import CHANNEL_OPTIONS, Connection, PredictionClient
from gateway.context import Deadline
from gateway.errors import ModelUnavailable, Problem
from gateway.metrics import Metrics
from gateway.settings import Settings
from tests.fakes import Behaviour, FaultyModelServer, Hang, changed, fail, good, slow

PIXELS = np.zeros((1, 224, 224, 3), np.uint8)
ADDRESSES = ("127.0.0.2", "127.0.0.3", "127.0.0.4")  # one port on each, as pods behind a headless Service have


class Cluster:
    """Model servers behind one name, and a client of that name."""

    def __init__(self, held: ExitStack) -> None:
        self._held = held
        self.names: set[str] = set()  # what DNS says
        self.metrics = Metrics()
        self.servers: list[FaultyModelServer] = []
        settings = Settings(backend="dns:///serving:8500", resolve_s=0.2)
        self.client = PredictionClient(settings, self.metrics, resolve=lambda _: set(self.names))
        held.callback(self.client.close)

    def add(self, **options: Callable[..., object]) -> FaultyModelServer:
        address = ADDRESSES[len(self.servers)]
        port = self.servers[0].port if self.servers else 0
        server = self._held.enter_context(FaultyModelServer(f"{address}:{port}", **options))  # type: ignore[arg-type]
        self.servers.append(server)
        self.names.add(server.address)
        return server

    def ask(self, seconds: float = 10) -> str:
        """`ok`, or the problem's name."""
        try:
            self.client.predict(PIXELS, deadline=Deadline.after(seconds))
        except Problem as problem:
            return problem.slug
        return "ok"

    def ask_often(
        self, count: int, threads: int, seconds: float = 10, every: Callable[[int], object] = int
    ) -> Counter[str]:
        """Outcomes of `count` questions from each of several threads; `every` is told the number of each question."""
        outcomes: Counter[str] = Counter()
        lock = threading.Lock()

        def work() -> None:
            for _ in range(count):
                outcome = self.ask(seconds)
                with lock:
                    outcomes[outcome] += 1
                    every(outcomes.total())

        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return outcomes

    def retries(self, outcome: str) -> float:
        return float(self.metrics.rpc_retries.labels(outcome)._value.get())


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with ExitStack() as held:
        yield Cluster(held)


def wait_until(condition: Callable[[], bool], limit_s: float = 15) -> None:
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_every_server_gets_its_share(cluster: Cluster) -> None:
    first, second = cluster.add(), cluster.add()
    assert cluster.ask_often(20, threads=2) == {"ok": 40}
    assert min(len(first.calls), len(second.calls)) >= 10


def test_a_killed_server_costs_no_request(cluster: Cluster) -> None:
    first, _ = cluster.add(), cluster.add()
    stop = threading.Event()

    def kill(number: int) -> None:
        if number == 50:
            stop.set()

    def wait_and_kill() -> None:
        stop.wait(30)
        first.kill()

    killer = threading.Thread(target=wait_and_kill)
    killer.start()
    assert cluster.ask_often(40, threads=4, every=kill) == {"ok": 160}
    killer.join()


def test_a_restarted_server_gets_requests_again(cluster: Cluster) -> None:
    first, _ = cluster.add(), cluster.add()
    cluster.ask()
    first.kill()
    assert cluster.ask_often(10, threads=2) == {"ok": 20}
    first.start()
    before = len(first.calls)
    wait_until(lambda: cluster.ask() == "ok" and len(first.calls) > before)


def test_a_server_that_goes_away_is_noticed_though_nobody_asks_for_predictions(cluster: Cluster) -> None:
    """Where readiness keeps clients away, theirs are not the failures that tell."""
    server = cluster.add()
    wait_until(lambda: cluster.client.backends.all() != [])
    assert cluster.client.versions(Deadline.after(5)) == {7: "AVAILABLE"}
    server.kill()
    for _ in range(breaker.FAILURES_TO_OPEN):
        with pytest.raises(ModelUnavailable):
            cluster.client.versions(Deadline.after(5))
    assert not cluster.client.well
    assert cluster.metrics.backend_ready._value.get() == 0


def test_a_server_that_swallows_calls_costs_at_most_those_it_had(cluster: Cluster) -> None:
    first, _ = cluster.add(), cluster.add()
    first.behaviour = hang = Hang()
    first.status_code = grpc.StatusCode.UNAVAILABLE  # a probe does not get through either
    outcomes = cluster.ask_often(30, threads=4, seconds=2.5)
    hang.let_go.set()
    assert outcomes["timeout"] <= 4
    assert outcomes["ok"] == 120 - outcomes["timeout"]


def test_a_new_server_gets_requests_after_resolve_s(cluster: Cluster) -> None:
    cluster.add()
    cluster.ask()
    added = cluster.add()
    wait_until(lambda: cluster.ask() == "ok" and len(added.calls) > 0, limit_s=5)


def test_a_removed_server_finishes_what_it_has(cluster: Cluster) -> None:
    first, _ = cluster.add(), cluster.add()
    first.behaviour = hang = Hang()
    outcomes: list[str] = []
    waiting = threading.Thread(target=lambda: outcomes.append(cluster.ask()))
    wait_until(lambda: cluster.client.backends.all() != [])
    while not first.calls:
        waiting = threading.Thread(target=lambda: outcomes.append(cluster.ask()))
        waiting.start()
        waiting.join(0.2)
    cluster.names.discard(first.address)
    wait_until(lambda: len(cluster.client.backends.all()) == 1)
    outcomes.clear()
    hang.let_go.set()
    waiting.join()
    assert outcomes == ["ok"]
    assert cluster.ask() == "ok"
    assert len(first.calls) == 1


def test_an_empty_answer_of_dns_changes_nothing(cluster: Cluster) -> None:
    cluster.add()
    cluster.ask()
    cluster.names.clear()
    time.sleep(0.6)
    assert cluster.ask() == "ok"


def test_a_name_that_cannot_be_resolved_keeps_its_servers_while_others_change() -> None:
    names = {"a:1": {"10.0.0.1:1"}, "b:1": {"10.0.0.2:1"}}
    pool = backends.Backends(
        list(names),
        lambda address, host: Connection(address, host, Settings()),
        metrics=Metrics(),
        resolve_s=0.05,
        resolve=lambda target: names[target],
    )
    try:
        names["b:1"], names["a:1"] = set(), {"10.0.0.3:1"}
        wait_until(lambda: {each.address for each in pool.all()} == {"10.0.0.2:1", "10.0.0.3:1"})
    finally:
        pool.close()


def test_a_name_without_servers_is_unavailable_and_later_not(cluster: Cluster) -> None:
    assert cluster.ask() == "model-unavailable"
    cluster.add()
    wait_until(lambda: cluster.ask() == "ok")


def test_a_second_attempt_goes_to_another_server(cluster: Cluster) -> None:
    first, second = cluster.add(), cluster.add()
    first.behaviour = fail(grpc.StatusCode.UNAVAILABLE)
    assert cluster.ask_often(4, threads=1) == {"ok": 4}
    assert cluster.retries("success") == len(first.calls) > 0
    assert len(second.calls) == 4


def test_no_second_attempt_without_another_server(cluster: Cluster) -> None:
    only = cluster.add(behaviour=fail(grpc.StatusCode.UNAVAILABLE))
    assert cluster.ask() == "model-unavailable"
    assert len(only.calls) == 1
    assert cluster.retries("no_backend") == 1


@pytest.mark.parametrize(
    ("code", "details"),
    [
        (grpc.StatusCode.UNAVAILABLE, "The batch scheduling queue to which this task was submitted is full"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ""),
        (grpc.StatusCode.INTERNAL, ""),
        (grpc.StatusCode.DEADLINE_EXCEEDED, ""),
        (grpc.StatusCode.NOT_FOUND, ""),
    ],
)
def test_no_second_attempt_where_it_does_not_help(cluster: Cluster, code: grpc.StatusCode, details: str) -> None:
    first, second = (cluster.add(behaviour=fail(code, details)) for _ in range(2))
    assert cluster.ask() != "ok"
    assert len(first.calls) + len(second.calls) == 1


def test_full_servers_stay_in_the_pool(cluster: Cluster) -> None:
    only = cluster.add(behaviour=fail(grpc.StatusCode.UNAVAILABLE, "the queue is full"))
    cluster.ask_often(10, threads=1)
    assert len(only.calls) == 10


@pytest.mark.parametrize(
    "useless", [fail(grpc.StatusCode.RESOURCE_EXHAUSTED), changed(lambda reply: reply.outputs.clear())]
)
def test_a_server_that_answers_at_once_but_uselessly_does_not_draw_the_requests(
    cluster: Cluster, useless: Behaviour
) -> None:
    """It is never busy, so it would be asked first."""
    quick = cluster.add(behaviour=useless)
    cluster.add(behaviour=slow(0.05))
    outcomes = cluster.ask_often(20, threads=8)
    assert outcomes["ok"] >= 130, f"{len(quick.calls)} of 160 asked the useless one"


def test_second_attempts_add_at_most_a_tenth(cluster: Cluster) -> None:
    servers = [cluster.add() for _ in range(2)]
    count = 300
    for server in servers:  # every second call fails: never enough in a row to open a breaker
        server.script(*[good, fail(grpc.StatusCode.UNAVAILABLE, "flapping")] * count)
    cluster.ask_often(count, threads=1)
    assert sum(len(server.calls) for server in servers) <= count * (1 + retries.SHARE) + retries.START
    assert cluster.retries("no_budget") > 0


def test_a_failing_server_is_left_alone_until_a_probe_finds_it_well(cluster: Cluster) -> None:
    only = cluster.add(behaviour=fail(grpc.StatusCode.UNAVAILABLE))
    only.status_code = grpc.StatusCode.UNAVAILABLE
    cluster.ask_often(20, threads=1)
    assert len(only.calls) == breaker.FAILURES_TO_OPEN
    assert cluster.metrics.backend_ready._value.get() == 0
    only.status_code, only.behaviour = None, good
    wait_until(lambda: cluster.ask() == "ok")
    assert cluster.metrics.breaker_transitions.labels("closed")._value.get() == 1
    assert cluster.metrics.backend_ready._value.get() == 1


def test_requests_with_hardly_any_time_do_not_condemn_a_server(cluster: Cluster) -> None:
    only = cluster.add()
    only.behaviour = hang = Hang()
    outcomes = cluster.ask_often(6, threads=1, seconds=0.1)
    hang.let_go.set()
    assert outcomes == {"timeout": 6}
    assert cluster.client.backends.all()[0].breaker.closed


def test_the_rest_of_a_breaker_doubles_until_a_request_succeeds() -> None:
    tested = breaker.Breaker()
    for _ in range(breaker.FAILURES_TO_OPEN):
        tested.failure()
    assert not tested.closed
    assert not tested.wants_probe  # it rests first
    assert tested.probed(True)
    assert tested._rest_s == 2 * breaker.FIRST_REST_S
    tested.success()
    assert tested._rest_s == breaker.FIRST_REST_S


def test_a_server_that_was_away_for_long_is_found_soon_after_its_return() -> None:
    """Each gateway has a breaker of its own: until the last one closes, a part of the requests gets 503."""
    tested = breaker.Breaker()
    for _ in range(breaker.FAILURES_TO_OPEN):
        tested.failure()
    for _ in range(10):
        tested.probed(False)
    assert tested._rest_s == breaker.LONGEST_ABSENCE_S
    for _ in range(10):
        tested.probed(True)
    assert tested._rest_s == breaker.LONGEST_REST_S
    tested.probed(False)
    assert tested._rest_s == breaker.LONGEST_REST_S


def test_localhost_is_one_server() -> None:
    assert resolve("localhost:8500") == {"127.0.0.1:8500"}
    assert resolve("dns:///127.0.0.1:8500") == {"127.0.0.1:8500"}
    assert resolve("[::1]:8500") == {"[::1]:8500"}


def test_an_unknown_name_has_no_servers() -> None:
    assert resolve("no-such-host.invalid:8500") == set()


def test_grpc_knows_every_channel_option() -> None:
    """gRPC ignores names that it does not know."""
    binary = Path(importlib.import_module("grpc._cython.cygrpc").__file__ or "").read_bytes()
    assert [name for name, _ in CHANNEL_OPTIONS if name.encode() not in binary] == []


def test_a_client_that_was_closed_opens_again(cluster: Cluster) -> None:
    cluster.add()
    assert cluster.ask() == "ok"
    cluster.client.close()
    assert cluster.ask() == "ok"


def test_the_pool_is_made_with_its_first_use(cluster: Cluster) -> None:
    assert not any(thread.name == "backends" for thread in threading.enumerate())
    with pytest.raises(ModelUnavailable):
        cluster.client.versions(Deadline.after(1))
    assert any(thread.name == "backends" for thread in threading.enumerate())
    assert backends.PROBE_EVERY_S < 1
