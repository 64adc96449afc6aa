"""API keys, rate limits, other sites, TLS, and that nothing of a picture stays anywhere."""

import io
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import grpc
import httpx
import pytest
from flask import Flask

from gateway import cli, keys
from gateway.keys import Keys, new_key
from gateway.quota import Quota
from gateway.settings import Settings, SettingsError
from tests.fakes import FaultyModelServer, Hang
from tests.gateway.conftest import noise, picture
from tests.gateway.processes import ROOT, Gateway
from tests.listening import listening

KEY, LINE = new_key("catalogue")
OTHER_KEY, OTHER_LINE = new_key("shop")


@pytest.fixture
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"# who may ask\n\n{LINE}\n{OTHER_LINE}\n")
    return path


def ask(app: Flask, path: str = "/v1/predict", **headers: str) -> int:
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return app.test_client().post(path, data=picture(), headers=names).status_code


def test_without_keys_everybody_may_ask(make_app: Callable[..., Flask]) -> None:
    assert ask(make_app()) == 200


@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_a_known_key_may_ask(make_app: Callable[..., Flask], keys_file: Path, scheme: str) -> None:
    app = make_app(api_keys_file=str(keys_file))
    assert ask(app, Authorization=f"{scheme} {KEY}") == 200
    assert ask(app, X_API_Key=OTHER_KEY) == 200


def test_the_command_sends_the_key_of_a_file(make_app: Callable[..., Flask], keys_file: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text(f"{KEY}\n")
    (tmp_path / "vase.jpg").write_bytes(picture())
    with listening(make_app(api_keys_file=str(keys_file))) as url:
        words = ["classify", str(tmp_path / "vase.jpg"), f"--url={url}", "--quiet"]
        assert cli.main(words) == 3  # left over: nothing was answered
        assert cli.main([*words, f"--key-file={tmp_path / 'key'}"]) == 0


@pytest.mark.parametrize(
    "headers",
    [{}, {"X_API_Key": ""}, {"X_API_Key": "wrong"}, {"Authorization": f"Basic {KEY}"}, {"X_API_Key": LINE.split()[1]}],
    ids=["none", "empty", "wrong", "other scheme", "the hash itself"],
)
def test_without_a_known_key_nobody_may_ask(
    make_app: Callable[..., Flask], server: FaultyModelServer, keys_file: Path, headers: dict[str, str]
) -> None:
    app = make_app(api_keys_file=str(keys_file))
    for path in ("/v1/predict", "/v1/predict/", "/predict/", "/predict", "/v2/models/culture/infer"):
        assert ask(app, path, **headers) == 401, path
    assert app.test_client().post("/v1/predict").headers["WWW-Authenticate"].startswith("Bearer")
    assert not server.calls


@pytest.mark.parametrize("path", ["/", "/healthz", "/readyz", "/metrics", "/docs", "/openapi.json"])
def test_probes_and_pages_need_no_key(make_app: Callable[..., Flask], keys_file: Path, path: str) -> None:
    assert make_app(api_keys_file=str(keys_file)).test_client().get(path).status_code == 200


def test_the_log_names_the_owner_and_never_the_key(
    make_app: Callable[..., Flask], keys_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    ask(make_app(api_keys_file=str(keys_file)), X_API_Key=KEY)
    (line,) = (record for record in caplog.records if record.name == "whence.access")
    assert line.fields["client"] == "catalogue"  # type: ignore[attr-defined]
    assert KEY not in caplog.text


def test_keys_change_without_a_restart(keys_file: Path) -> None:
    known = Keys(keys_file)
    new, line = new_key("museum")
    keys_file.write_text(f"{line}\n")
    time.sleep(keys.LOOK_EVERY_S)
    assert known.owner(new) == "museum"
    assert known.owner(KEY) is None


def test_a_file_of_keys_that_became_wrong_changes_nothing(keys_file: Path) -> None:
    known = Keys(keys_file)
    keys_file.write_text("nonsense")
    time.sleep(keys.LOOK_EVERY_S)
    assert known.owner(KEY) == "catalogue"
    keys_file.unlink()
    time.sleep(keys.LOOK_EVERY_S)
    assert known.owner(KEY) == "catalogue"


@pytest.mark.parametrize("text", ["nonsense", f"{LINE}\n{LINE}", "name 1234", "two words " + "0" * 64])
def test_a_wrong_file_of_keys_stops_the_start(make_app: Callable[..., Flask], tmp_path: Path, text: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(SettingsError, match="WHENCE_API_KEYS_FILE"):
        make_app(api_keys_file=str(path))


def test_over_the_limit_is_429_with_headers_that_say_when(make_app: Callable[..., Flask], keys_file: Path) -> None:
    app = make_app(api_keys_file=str(keys_file), rate_limit_per_s=0.01, rate_limit_burst=2)
    http = app.test_client()
    answers = [http.post("/v1/predict", data=picture(), headers={"X-API-Key": KEY}) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert [answer.headers["RateLimit"].split(";")[1] for answer in answers] == ["r=1", "r=0", "r=0"]
    assert answers[0].headers["RateLimit-Policy"] == '"default";q=2;w=200'
    assert 95 <= int(answers[2].headers["Retry-After"]) <= 100
    assert answers[2].get_json()["type"] == "/problems/over-quota"
    assert ask(app, X_API_Key=OTHER_KEY) == 200  # each key has its own
    assert http.get("/readyz").status_code == 200  # probes have none


def test_a_quota_refills() -> None:
    quota = Quota(rate=50, burst=1)
    assert quota.take("a").granted
    assert not quota.take("a").granted
    time.sleep(0.03)
    assert quota.take("a").granted


def test_a_quota_remembers_a_bounded_number_of_clients() -> None:
    quota = Quota(rate=1, burst=1)
    for number in range(10_100):
        quota.take(str(number))
    assert len(quota._buckets) == 10_000


def test_other_sites_may_not_ask_by_default(make_app: Callable[..., Flask]) -> None:
    answer = make_app().test_client().options("/v1/predict", headers={"Origin": "https://a.example"})
    assert not [name for name, _ in answer.headers if name.startswith("Access-Control")]


def test_sites_that_are_named_may_ask(make_app: Callable[..., Flask], keys_file: Path) -> None:
    app = make_app(cors_origins="https://a.example,https://b.example", api_keys_file=str(keys_file))
    http = app.test_client()
    preflight = http.options("/v1/predict", headers={"Origin": "https://a.example"})
    assert preflight.status_code == 200
    assert preflight.headers["Access-Control-Allow-Origin"] == "https://a.example"
    exposed = preflight.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"X-Request-ID", "Retry-After", "Inference-Header-Content-Length"} <= set(exposed)
    assert {"X-API-Key", "Idempotency-Key"} <= set(preflight.headers["Access-Control-Allow-Headers"].split(", "))
    other = http.options("/v1/predict", headers={"Origin": "https://c.example"})
    assert "Access-Control-Allow-Origin" not in other.headers


def authority(folder: Path) -> dict[str, str]:
    """A certificate authority with a certificate for localhost, and one for a client."""

    def run(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-subj", "/CN=ca", "-keyout", "ca.key", "-out", "ca.pem")  # fmt: skip
    for name in ("server", "client"):
        run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
            "-keyout", f"{name}.key", "-out", f"{name}.csr")  # fmt: skip
        (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-days", "2", "-extfile",
            "names", "-out", f"{name}.pem")  # fmt: skip
    return {path.name: str(path) for path in folder.iterdir()}


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return authority(tmp_path_factory.mktemp("tls"))


def test_the_gateway_speaks_tls_and_can_insist_on_a_certificate(
    start: Callable[..., Gateway], pem: dict[str, str]
) -> None:
    gateway = start(
        tls_cert_file=pem["server.pem"], tls_key_file=pem["server.key"], tls_client_ca_file=pem["ca.pem"], tls=pem
    )
    context = ssl.create_default_context(cafile=pem["ca.pem"])
    with httpx.Client(base_url=gateway.url, verify=context) as stranger, pytest.raises(httpx.HTTPError):
        stranger.get("/healthz")
    assert gateway.http.post("/v1/predict", content=noise((300, 300))).status_code == 200


def test_a_client_that_hangs_up_under_tls_frees_its_place(
    start: Callable[..., Gateway], pem: dict[str, str], server: FaultyModelServer
) -> None:
    gateway = start(tls_cert_file=pem["server.pem"], tls_key_file=pem["server.key"], tls=pem)
    server.behaviour = hang = Hang()
    data, context = picture(), ssl.create_default_context(cafile=pem["ca.pem"])
    with (
        socket.create_connection(("127.0.0.1", gateway.port)) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as client,
    ):
        client.sendall(f"POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
        assert hang.waiting.acquire(timeout=10)
        assert not hang.given_up.wait(0.5)
    assert hang.given_up.wait(5)
    hang.let_go.set()


def test_the_health_check_of_the_image_speaks_tls_too(start: Callable[..., Gateway], pem: dict[str, str]) -> None:
    tls = {"tls_cert_file": pem["server.pem"], "tls_key_file": pem["server.key"], "tls_client_ca_file": pem["ca.pem"]}
    gateway = start(**tls, tls=pem)
    environ = {f"WHENCE_{name.upper()}": path for name, path in tls.items()} | {"WHENCE_PORT": str(gateway.port)}
    command = [sys.executable, "-I", str(ROOT / "gateway/healthcheck.py")]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, '{"status": "ready"}\n')


@pytest.mark.parametrize("words", [b"", b"\x16\x03\x01\x02\x00\x01"])  # none, and half a handshake
def test_handshakes_that_stall_hold_no_thread(start: Callable[..., Gateway], pem: dict[str, str], words: bytes) -> None:
    gateway = start(
        tls_cert_file=pem["server.pem"], tls_key_file=pem["server.key"], tls=pem,
        threads=16, max_in_flight=16, head_timeout_s=30,
    )  # fmt: skip
    with ExitStack() as held:
        for _ in range(48):
            client = held.enter_context(socket.create_connection(("127.0.0.1", gateway.port)))
            client.sendall(words)
        assert gateway.http.get("/healthz", timeout=10).status_code == 200


def test_the_gateway_speaks_mutual_tls_to_the_model_server(make_app: Callable[..., Flask], pem: dict[str, str]) -> None:
    read = {name: Path(path).read_bytes() for name, path in pem.items() if name.endswith((".pem", ".key"))}
    credentials = grpc.ssl_server_credentials(
        [(read["server.key"], read["server.pem"])], read["ca.pem"], require_client_auth=True
    )
    with FaultyModelServer(credentials=credentials) as server:
        backend = f"localhost:{server.port}"
        mutual = {"backend_cert_file": pem["client.pem"], "backend_key_file": pem["client.key"]}
        assert ask(make_app(backend=backend, backend_ca_file=pem["ca.pem"], **mutual)) == 200
        assert ask(make_app(backend=backend, backend_ca_file=pem["ca.pem"])) == 503
        assert ask(make_app(backend=backend)) == 503


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"tls_cert_file": "a.pem"}, "only good together"),
        ({"tls_client_ca_file": "a.pem"}, "TLS_CLIENT_CA_FILE is 'a.pem', but without WHENCE_TLS_CERT_FILE"),
        ({"backend_cert_file": "a.pem", "backend_key_file": "a.key"}, "but without WHENCE_BACKEND_CA_FILE"),
        ({"backend_ca_file": "/nowhere/ca.pem"}, "BACKEND_CA_FILE is '/nowhere/ca.pem', expected a readable file"),
    ],
)
def test_tls_files_that_would_protect_nothing_stop_the_start(files: dict[str, str], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        Settings(**files)  # type: ignore[arg-type]


def test_nothing_of_a_picture_touches_disk_or_logs(start: Callable[..., Gateway], tmp_path: Path) -> None:
    """A canary in the picture's bytes and in its name, in every form, good and broken."""
    canary = "canary-5d41402abc4b2a76b9719d911017c592"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    gateway = start(env={"TMPDIR": str(scratch), "HOME": str(scratch)})
    big = noise((1200, 1200), quality=95) + canary.encode()  # werkzeug spools parts above 500 kB to disk
    assert len(big) > 600_000
    opened = set()
    for data in (big, big[:400_000] + canary.encode()):
        for _ in range(3):
            gateway.http.post("/v1/predict", content=data)
            gateway.http.post("/v1/predict", files={"file": (f"{canary}.jpg", io.BytesIO(data))})
            opened |= {os.readlink(fd) for fd in Path(f"/proc/{gateway.workers()[0]}/fd").iterdir() if fd.is_symlink()}
    gateway.http.post("/v1/predict", json={"images": [{"b64": canary}]})
    gateway.http.get(f"/v1/{canary}?key={canary}")
    assert list(scratch.rglob("*")) == []
    assert not [name for name in opened if "/tmp" in name and "(deleted)" in name]
    assert canary not in gateway.log.read_text()
