"""The models of this server: watches their folders, loads and unloads versions, finds the one that a request means.

All decisions are made on one thread, `watch`; loading and warmup happen on another, so that neither holds up requests.
A version that is no longer wanted goes only when one that is wanted is there, so a broken new one never takes the good
old one down.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus
from tensorflow_serving.apis.model_pb2 import ModelSpec

from serving import memory
from serving.server import storage
from serving.server.config import Batching, LoadPolicy, ModelConfig
from serving.server.engine import Engine
from serving.server.errors import InvalidArgument, NotFound, ServingError, Unavailable
from serving.server.logs import event
from serving.server.metrics import Metrics
from serving.server.versions import AVAILABLE, END, LOADING, START, Failure, Version
from serving.server.warmup import warm_up

REMEMBERED = 16  # versions that are gone but still shown in the status
WARMUP_REST = 3.0  # beside a serving version a warmup takes a quarter of the time, so that those served hardly notice


class Models:
    """Everything that is served.

    Args:
        configs: The models, each name once.
        engine: Loads the version directories.
        policy: Polling and retries.
        batching: How they will be run.
        metrics: Told of loads and states.
        on_change: Called after every change of a state, from any thread.
    """

    def __init__(
        self,
        configs: Sequence[ModelConfig],
        engine: Engine,
        *,
        policy: LoadPolicy,
        batching: Batching,
        metrics: Metrics,
        on_change: Callable[[], None],
    ) -> None:
        self._configs = {config.name: config for config in configs}
        self._versions: dict[str, dict[int, Version]] = {config.name: {} for config in configs}
        self._present: dict[str, dict[int, Path]] = {config.name: {} for config in configs}  # when last looked
        self._wanted: dict[str, set[int]] = {config.name: set() for config in configs}
        self._complained: dict[str, str] = {}
        self._engine, self._policy, self._batching = engine, policy, batching
        self._metrics, self._on_change = metrics, on_change
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._loader = ThreadPoolExecutor(policy.threads, thread_name_prefix="load")
        self._watcher = threading.Thread(target=self._watch, name="watch", daemon=True)

    def start(self) -> None:
        """Begins to watch the folders."""
        self._watcher.start()

    def close(self) -> None:
        """Stops watching and unloads what nobody uses."""
        self._closed = True
        self._wake.set()
        self._watcher.join()  # it only looks at folders
        for version in self._all():
            if version.state == AVAILABLE:
                version.retire(version.unload)
        self._loader.shutdown(wait=False, cancel_futures=True)

    @property
    def names(self) -> list[str]:
        """The models' names."""
        return list(self._configs)

    def is_ready(self, name: str) -> bool:
        """True while at least one version of the model is AVAILABLE."""
        return any(version.state == AVAILABLE for version in self._of(name))

    @contextmanager
    def using(self, spec: ModelSpec) -> Iterator[Version]:
        """The version that a request means, kept loaded until the block ends.

        Raises:
            InvalidArgument: No name, or a label that is not configured.
            NotFound: No such model, or that version is not loaded.
            Unavailable: It is being loaded.
        """
        version = self._find(spec)
        try:
            yield version
        finally:
            version.release()

    def statuses(self, spec: ModelSpec) -> list[ModelVersionStatus]:
        """The state of one version or of all, newest first.

        Raises:
            InvalidArgument: No name, or a label that is not configured.
            NotFound: No such model, or no such version of it.
        """
        number = self._number(spec)
        versions = [version for version in self._of(spec.name) if number in (None, version.number)]
        if not versions and number is not None:
            raise NotFound(f"could not find version {number} of model {spec.name!r}")
        if not versions:
            raise NotFound(f"could not find any versions of model {spec.name!r}")
        return [_status(version) for version in sorted(versions, key=lambda version: -version.number)]

    def _find(self, spec: ModelSpec) -> Version:
        number = self._number(spec)
        while True:
            versions = sorted(self._of(spec.name), key=lambda version: -version.number)
            asked = [version for version in versions if number in (None, version.number)]
            for version in asked:
                if version.try_acquire():
                    return version
            # A newer version may have taken the place of the one before it between our two looks.
            if not any(
                version.state == AVAILABLE for version in self._of(spec.name) if number in (None, version.number)
            ):
                break
        what = f"model {spec.name!r}" if number is None else f"version {number} of model {spec.name!r}"
        if any(version.state in (START, LOADING) for version in asked):
            raise Unavailable(f"{what} is still loading")
        there = ", ".join(str(version.number) for version in versions if version.state == AVAILABLE) or "none"
        raise NotFound(f"servable not found: {what} is not loaded; available versions: {there}")

    def _number(self, spec: ModelSpec) -> int | None:
        if not spec.name:
            raise InvalidArgument("model_spec has no name")
        config = self._configs.get(spec.name)
        if config is None:
            raise NotFound(f"servable not found: no model {spec.name!r} here, only: {', '.join(self._configs)}")
        if spec.HasField("version"):
            return int(spec.version.value)
        if not spec.version_label:
            return None
        if spec.version_label not in config.labels:
            known = ", ".join(sorted(config.labels)) or "none"
            raise InvalidArgument(
                f"unrecognized version label {spec.version_label!r}; labels of {spec.name!r}: {known}"
            )
        return config.labels[spec.version_label]

    def _of(self, name: str) -> list[Version]:
        with self._lock:
            return list(self._versions[name].values())

    def _all(self) -> list[Version]:
        return [version for name in self._configs for version in self._of(name)]

    def _watch(self) -> None:
        """Decides anew when it is time to look at the disk, when a load has ended, and when one may be tried again."""
        look_at, is_first = time.monotonic(), True
        while not self._closed:
            now = time.monotonic()
            is_time = now >= look_at
            if is_time:
                look_at = now + (self._policy.poll_s or 1.0)
            wake_at = look_at
            for config in self._configs.values():
                if is_time and (is_first or self._policy.poll_s):
                    self._look(config)
                self._want(config)
                wake_at = min(wake_at, self._retry(config, compare=is_time))
                self._retire(config)
            is_first = False
            self._wake.wait(max(0.0, wake_at - time.monotonic()))
            self._wake.clear()

    def _look(self, config: ModelConfig) -> None:
        """Lists the versions on the disk; a folder that cannot be read changes nothing."""
        present = storage.versions(config.base_path)
        if present is None:
            self._complain(config, "cannot read the model's folder, expected version directories in it")
            return
        self._present[config.name] = present
        if missing := config.policy.specific - set(present):
            self._complain(config, f"no directory for version {', '.join(map(str, sorted(missing)))}")
        elif not present:
            self._complain(config, "no version to serve in the model's folder")
        else:
            self._complained.pop(config.name, None)

    def _want(self, config: ModelConfig) -> None:
        """Chooses from the versions that are there, knowing which are broken, and loads what is chosen."""
        present, versions = self._present[config.name], self._versions[config.name]
        broken = {number for number, version in versions.items() if version.failure is not None}
        # Where the newest version is broken the one before it is wanted too, also after a restart.
        wanted = config.policy.choose(set(present)) | config.policy.choose(set(present) - broken)
        self._wanted[config.name] = wanted
        for number in sorted(wanted, reverse=True):
            version = versions.get(number)
            if version is None:
                version = Version(config.name, number, present[number], self._changed)
                with self._lock:
                    versions[number] = version
                self._loader.submit(self._load, version)
            elif version.state == END and version.failure is None:  # it is wanted again
                version.waiting()
                self._loader.submit(self._load, version)

    def _complain(self, config: ModelConfig, text: str) -> None:
        if self._complained.get(config.name) != text:
            self._complained[config.name] = text
            event(logging.WARNING, text, model=config.name, path=config.base_path)

    def _retry(self, config: ModelConfig, *, compare: bool) -> float:
        """Loads a failed version again, when its time has come or when its files have changed since.

        Args:
            config: The model.
            compare: Whether to look at the files. Not after each failure: a copy that grows would be loaded on end.

        Returns:
            When the next one's time comes, on time.monotonic's clock.
        """
        next_at = math.inf
        for version in self._of(config.name):
            failure = version.failure
            if failure is None or version.state != END or version.number not in self._wanted[config.name]:
                continue
            if compare and storage.fingerprint(version.path) != failure.fingerprint:
                version.tries = 0
            elif failure.retry_at is None:
                continue
            elif time.monotonic() < failure.retry_at:
                next_at = min(next_at, failure.retry_at)
                continue
            version.waiting()
            self._loader.submit(self._load, version)
        return next_at

    def _retire(self, config: ModelConfig) -> None:
        """Lets go of versions that are not wanted, once a wanted one is there."""
        wanted = self._wanted[config.name]
        versions = self._of(config.name)
        if wanted and not any(version.number in wanted and version.state == AVAILABLE for version in versions):
            return
        for version in versions:
            if version.number not in wanted and version.state == AVAILABLE:
                version.retire(partial(self._unload, version))
        ended = sorted(version.number for version in versions if version.state == END and version.number not in wanted)
        for number in ended[:-REMEMBERED]:
            with self._lock:
                del self._versions[config.name][number]
            self._metrics.forgotten(config.name, number, ModelVersionStatus.State.Name(END))

    def _load(self, version: Version) -> None:
        version.loading()
        start = time.monotonic()
        before = storage.fingerprint(version.path)
        try:
            servable = self._engine.load(version.path)
            loaded = time.monotonic()
            try:
                is_serving = any(other.state == AVAILABLE for other in self._all())
                warmed = warm_up(version.path, servable, self._batching, rest=WARMUP_REST if is_serving else 0.0)
            except BaseException:
                servable.close()
                raise
        except Exception as error:
            self._metrics.loaded(str(version.path), "fail")
            text = str(error).split("\n", 1)[0] or type(error).__name__
            left = self._policy.retries - version.tries + 1
            retry_at = time.monotonic() + self._policy.retry_s if left > 0 else None
            version.failed(Failure(text, before, retry_at))
            foreseen = isinstance(error, (OSError, ValueError, ServingError))
            event(
                logging.ERROR, "cannot load version", traceback=not foreseen,
                model=version.model, version=version.number, error=text, retries_left=max(0, left),
            )  # fmt: skip
            self._wake.set()
            return
        memory.trim()  # what was needed to load only
        now = time.monotonic()
        self._metrics.loaded(str(version.path), "success")
        self._metrics.warmed_up(str(version.path), "success", now - loaded)
        version.loaded(servable)
        event(
            logging.INFO, "version available", model=version.model, version=version.number,
            load_s=f"{loaded - start:.2f}", warmup_s=f"{now - loaded:.2f}", warmup_requests=warmed,
        )  # fmt: skip
        self._wake.set()

    def _unload(self, version: Version) -> None:
        def unload() -> None:
            version.unload()
            memory.trim()
            event(logging.INFO, "version unloaded", model=version.model, version=version.number)

        self._loader.submit(unload)

    def _changed(self, version: Version, previous: int | None) -> None:
        before = None if previous is None else ModelVersionStatus.State.Name(previous)
        self._metrics.entered(version.model, version.number, ModelVersionStatus.State.Name(version.state), before)
        self._on_change()


def _status(version: Version) -> ModelVersionStatus:
    status = ModelVersionStatus(version=version.number, state=version.state)
    status.status.SetInParent()
    if version.failure is not None:
        status.status.error_code = 2  # UNKNOWN in tensorflow.error.Code, as TensorFlow Serving reports a failed load
        status.status.error_message = version.failure.text
    return status
