"""`whence drift`: what it makes of Prometheus' numbers, and that a real Prometheus understands its questions."""

import json
import math
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest

from gateway.drift import DRIFTED, MOVED, STEADY, Seen, compare, report, stability_index
from tests.system import free_ports

REFERENCE = {
    ("culture", "Greek"): 0.5,
    ("culture", "Italian"): 0.5,
    ("decision", "accepted"): 0.8,
    ("decision", "abstained"): 0.2,
    ("confidence", ""): 0.9,
    ("embedding_distance", ""): 0.5,
    ("centroid_limit", ""): 0.1,
}
SAME = Seen(
    cultures={"Greek": 500, "Italian": 500},
    decisions={"accepted": 800, "abstained": 200},
    confidence=0.9,
    distance=0.5,
    centroid=0.05,
    reference=REFERENCE,
)


def verdicts(seen: Seen) -> dict[str, str]:
    return {line.what: line.verdict for line in compare(seen) if line.verdict}


def test_the_same_pictures_are_steady() -> None:
    assert set(verdicts(SAME).values()) == {STEADY}
    assert report(list(compare(SAME)), SAME, "7d").endswith("No drift.")


@pytest.mark.parametrize(
    ("what", "seen", "verdict"),
    [
        ("mix of cultures", replace(SAME, cultures={"Greek": 700, "Italian": 300}), MOVED),
        ("mix of cultures", replace(SAME, cultures={"Greek": 950, "Italian": 50}), DRIFTED),
        ("mix of cultures", replace(SAME, cultures={"Greek": 500, "Italian": 300, "Etruscan": 200}), DRIFTED),
        ("mix of decisions", replace(SAME, decisions={"accepted": 400, "abstained": 600}), DRIFTED),
        ("mean confidence", replace(SAME, confidence=0.75), DRIFTED),
        ("mean confidence", replace(SAME, confidence=0.83), MOVED),
        ("mean distance of a picture to the centroid", replace(SAME, distance=0.7), DRIFTED),
        ("distance of the running mean", replace(SAME, centroid=0.2), DRIFTED),
    ],
)
def test_a_change_is_told_where_it_is(what: str, seen: Seen, verdict: str) -> None:
    found = verdicts(seen)
    assert found.pop(what) == verdict
    assert set(found.values()) == {STEADY}


def test_a_running_mean_whose_window_is_not_full_is_not_told() -> None:
    assert "distance of the running mean" not in verdicts(replace(SAME, centroid=0))


def test_a_number_that_is_not_there_is_unknown() -> None:
    assert "unknown" in report(list(compare(replace(SAME, distance=math.nan))), SAME, "7d")


def test_too_few_pictures_prove_nothing() -> None:
    few = replace(SAME, decisions={"accepted": 10}, cultures={"Greek": 10})
    assert "Too few pictures" in report(list(compare(few)), few, "7d")


def test_the_stability_index_is_the_trades() -> None:
    assert stability_index({"a": 0.5, "b": 0.5}, {"a": 70, "b": 30}) == pytest.approx(0.1695, abs=1e-4)


def drift(url: str, *options: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "gateway.cli", "drift", "--prometheus", url, *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_no_prometheus_is_told_in_a_sentence() -> None:
    run = drift(f"http://127.0.0.1:{free_ports(1)[0]}")
    assert run.returncode == 2
    assert run.stderr.startswith("whence: http://127.0.0.1")
    assert "Traceback" not in run.stderr


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Something that says `answer` to whoever connects, whatever they want; gives its address."""
    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as pool:

        def serve() -> None:
            with suppress(OSError):  # when it is closed
                while True:
                    connection, _ = server.accept()
                    with connection:
                        connection.recv(65536)
                        connection.sendall(answer)

        pool.submit(serve)
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}"
        finally:
            server.shutdown(socket.SHUT_RDWR)


def prometheus_says(result: object) -> bytes:
    return b"HTTP/1.0 200 OK\r\n\r\n" + json.dumps({"status": "success", "data": {"result": result}}).encode()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not answer as Prometheus does"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{", "does not answer as Prometheus does"),
        (b"HTTP/1.0 200 OK\r\n\r\n<html>a login page</html>", "does not answer as Prometheus does"),
        (b"HTTP/1.0 401 Unauthorized\r\n\r\n", "does not answer as Prometheus does: HTTP Error 401"),
        (b"", "does not answer as Prometheus does"),
        (prometheus_says([{"metric": {}, "value": [1]}]), "does not answer as Prometheus does"),
        (prometheus_says([{"metric": "up", "value": [1, "2"]}]), "does not answer as Prometheus does"),
        (prometheus_says([]), "Prometheus knows no whence_reference"),
        (prometheus_says([{"metric": {}, "value": [1, "0"]}]), "no picture was answered in the last 7d"),
        (prometheus_says([{"metric": {}, "value": [1, "900"]}]), "have no number in common"),
    ],
)
def test_what_is_no_report_is_told_in_a_sentence(answer: bytes, said: str) -> None:
    with answering(answer) as url:
        run = drift(url)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("whence: ")
    assert said in run.stderr
    assert "Traceback" not in run.stderr


def test_without_a_limit_the_running_mean_is_not_judged() -> None:
    reference = {key: number for key, number in REFERENCE.items() if key[0] != "centroid_limit"}
    assert "distance of the running mean" not in verdicts(replace(SAME, reference=reference))


def history(greek: int) -> str:
    """Two hours of one gateway, a sample each minute: 10 pictures a minute, `greek` of them Greek, the rest Italian."""
    now = int(time.time()) // 60 * 60
    series: dict[str, Callable[[int], float]] = {
        'whence_predictions_total{culture="Greek",decision="accepted"}': lambda i: greek * i,
        'whence_predictions_total{culture="Italian",decision="accepted"}': lambda i: (10 - greek) * i,
        "whence_confidence_sum": lambda i: 9 * i,
        "whence_confidence_count": lambda i: 10 * i,
        "whence_embedding_distance_sum": lambda i: 0.5 * i,
        "whence_embedding_distance_count": lambda i: i,
        "whence_embedding_centroid_distance": lambda i: 0.05,
        'whence_reference{kind="culture",value="Greek"}': lambda i: 0.5,
        'whence_reference{kind="culture",value="Italian"}': lambda i: 0.5,
        'whence_reference{kind="decision",value="accepted"}': lambda i: 1,
        'whence_reference{kind="confidence",value=""}': lambda i: 0.9,
        'whence_reference{kind="embedding_distance",value=""}': lambda i: 0.5,
        'whence_reference{kind="centroid_limit",value=""}': lambda i: 0.1,
    }
    lines = [f"{name} {value(i)} {now - 60 * (120 - i)}" for name, value in series.items() for i in range(121)]
    return "\n".join([*lines, "# EOF", ""])


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """Starts a real Prometheus on a history; its address."""
    if not shutil.which("prometheus") or not shutil.which("promtool"):
        pytest.skip("Prometheus is not installed (apt-get install prometheus)")
    running: list[subprocess.Popen[bytes]] = []

    def start(text: str) -> str:
        (tmp_path / "history").write_text(text)
        (tmp_path / "prometheus.yml").write_text("{}")
        command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", f"{tmp_path}/history", f"{tmp_path}/data"]
        subprocess.run(command, check=True, capture_output=True)
        (port,) = free_ports(1)
        running.append(
            subprocess.Popen(
                ["prometheus", f"--config.file={tmp_path}/prometheus.yml", f"--storage.tsdb.path={tmp_path}/data",
                 f"--web.listen-address=127.0.0.1:{port}"],
                stderr=subprocess.DEVNULL,
            )
        )  # fmt: skip
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                with urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=5):
                    return f"http://127.0.0.1:{port}"
            except OSError:
                time.sleep(0.1)
        raise AssertionError("Prometheus did not start")

    yield start
    for process in running:
        process.terminate()
        process.wait()


def test_a_real_prometheus_with_the_same_pictures_tells_no_drift(prometheus: Callable[[str], str]) -> None:
    run = drift(prometheus(history(greek=5)), "--window", "1h")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "No drift." in run.stdout


def test_a_real_prometheus_with_other_pictures_tells_drift(prometheus: Callable[[str], str]) -> None:
    run = drift(prometheus(history(greek=10)), "--window", "1h", "--json")
    assert run.returncode == 1, run.stdout + run.stderr
    found = json.loads(run.stdout)
    assert found["pictures"] == pytest.approx(600, rel=0.05)
    assert [line["what"] for line in found["lines"] if line["verdict"] == DRIFTED] == ["mix of cultures"]
