"""gunicorn's settings for the gateway, each with its reason.

Run: gunicorn -c gateway/gunicorn.conf.py 'gateway:create_app()'
"""

import os
import re
import shutil
import ssl
import tempfile
from pathlib import Path
from typing import Any

from gateway.logs import config as log_config
from gateway.settings import Settings

_settings = Settings.from_environ()

_host = f"[{_settings.host}]" if re.fullmatch("[^][]*:[^][]*", _settings.host) else _settings.host  # IPv6
bind = f"{_host}:{_settings.port}"
# A request waits for the model most of its life: threads, not processes.
worker_class = "gateway.worker.Worker"
workers = _settings.workers
threads = _settings.threads
# Connections beyond the threads wait in the worker, at hardly any cost; beyond this many, idle ones are closed.
worker_connections = _settings.threads + 2000
backlog = 1024
keepalive = 15  # seconds; longer than most clients think between two pictures
# A gthread worker reports from its main loop: this finds a stuck process, not a slow request.
timeout = 30
graceful_timeout = _settings.graceful_timeout_s
if _settings.tls_cert_file:
    certfile, keyfile = _settings.tls_cert_file, _settings.tls_key_file
    if _settings.tls_client_ca_file:
        ca_certs, cert_reqs = _settings.tls_client_ca_file, ssl.CERT_REQUIRED
preload_app = False  # gRPC does not survive a fork
control_socket_disable = True  # wants to write to the home directory
_memory = Path("/dev/shm")  # noqa: S108 - the heartbeat's file must not wait for a disk
worker_tmp_dir = str(_memory) if _memory.is_dir() else None
limit_request_line = 4094
limit_request_fields = 64
limit_request_field_size = 8190
forwarded_allow_ips = ""  # nothing here asks who the client is
logconfig_dict = log_config(_settings.log_level)
accesslog = None  # gateway.requests writes one line for each request
logger_class = "gateway.worker.QuietLogger"

if workers > 1:
    # prometheus_client keeps one file for each process here, and must find the variable when a worker imports it.
    _shared = tempfile.mkdtemp(prefix="whence-metrics-", dir=worker_tmp_dir)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = _shared

    def child_exit(server: Any, worker: Any) -> None:
        """Take a dead worker out of the gauges; its counters stay, or they would go backwards."""
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(worker.pid)  # type: ignore[no-untyped-call]

    def on_exit(server: Any) -> None:
        """Clean up."""
        shutil.rmtree(_shared, ignore_errors=True)
