"""What a model server does wrong, each with the statuses that the README promises for it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np

from tests.bench.relay import Relay
from tests.explaining import explaining
from tests.fakes import LABELS, Behaviour, FaultyModelServer, changed, fail, floats, slow, strings

ANSWERED, BROKEN, AWAY, LATE = frozenset({200}), frozenset({502}), frozenset({503}), frozenset({504})
FULL = ANSWERED | AWAY  # a slow model makes the gateway let fewer in


@dataclass
class Rig:
    """The model server and the wire to it."""

    server: FaultyModelServer = field(default_factory=lambda: FaultyModelServer(behaviour=explaining))
    relay: Relay = field(init=False)

    def __post_init__(self) -> None:
        self.relay = Relay(self.server.port)

    def well(self) -> None:
        """Everything works again."""
        self.server.behaviour, self.server.status_code = explaining, None
        self.server.calls.clear()  # or this process would keep every picture
        if self.relay.mode != "pass":
            self.relay.switch("pass")


@dataclass(frozen=True)
class Fault:
    """Something wrong for some seconds. `rests`: circuit breakers open, so 503 goes on for a while afterwards."""

    name: str
    begin: Callable[[Rig], None]
    statuses: frozenset[int]
    rests: bool = False
    end: Callable[[Rig], None] = Rig.well

    @contextmanager
    def on(self, rig: Rig) -> Iterator[None]:
        """In force for the time of the block."""
        self.begin(rig)
        try:
            yield
        finally:
            self.end(rig)


def _behave(behaviour: Behaviour) -> Callable[[Rig], None]:
    def begin(rig: Rig) -> None:
        rig.server.behaviour = behaviour

    return begin


def _wire(mode: str) -> Callable[[Rig], None]:
    return lambda rig: rig.relay.switch(mode)


def _die(rig: Rig) -> None:
    rig.server.kill()
    rig.relay.cut()


def _rise(rig: Rig) -> None:
    rig.server.start()
    rig.well()


def _row(values: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array([values], np.float32)


_STATUSES: Mapping[str, frozenset[int]] = {
    "UNAVAILABLE": AWAY, "RESOURCE_EXHAUSTED": AWAY, "NOT_FOUND": AWAY | {404}, "CANCELLED": AWAY,
    "DEADLINE_EXCEEDED": LATE | AWAY,
}  # fmt: skip
_LIES: Mapping[str, Behaviour] = {
    "NaN": changed(lambda r: r.outputs["probabilities"].CopyFrom(floats(_row([np.nan, 0.5, 0.5])))),
    "negative": changed(lambda r: r.outputs["probabilities"].CopyFrom(floats(_row([-0.5, 1.0, 0.5])))),
    "sum of two": changed(lambda r: r.outputs["probabilities"].CopyFrom(floats(_row([1.0, 0.5, 0.5])))),
    "shape": changed(lambda r: r.outputs["probabilities"].CopyFrom(floats(np.ones((1, 1, 3), np.float32)))),
    "extra rows": changed(lambda r: r.outputs["probabilities"].CopyFrom(floats(np.full((9, 3), 1 / 3, np.float32)))),
    "dtype": changed(lambda r: r.outputs["probabilities"].CopyFrom(strings("abc", (1, 3)))),
    "short tensor": changed(lambda r: setattr(r.outputs["probabilities"], "tensor_content", b"abc")),
    "labels missing": changed(lambda r: r.outputs.__delitem__("labels")),
    "labels twice": changed(lambda r: r.outputs["labels"].CopyFrom(strings(["a"] * 3, (1, 3)))),
    "more labels": changed(lambda r: r.outputs["labels"].CopyFrom(strings([*LABELS, "x"], (1, 4)))),
    "other model": changed(lambda r: setattr(r.model_spec, "name", "other")),
    "empty": changed(lambda r: r.Clear()),
}


def _float_val(request: object, context: object) -> object:
    response = explaining(request, context)  # type: ignore[arg-type]
    tensor = response.outputs["probabilities"]
    values = np.frombuffer(tensor.tensor_content, "<f4").reshape([dim.size for dim in tensor.tensor_shape.dim])
    tensor.CopyFrom(floats(values, packed=False))
    return response


def _slow(delay_s: float) -> Behaviour:
    wait = slow(delay_s)

    def behave(request: object, context: object) -> object:
        wait(request, context)  # type: ignore[arg-type]
        return explaining(request, context)  # type: ignore[arg-type]

    return behave  # type: ignore[return-value]


NONE = Fault("none", Rig.well, ANSWERED)
ALL: tuple[Fault, ...] = (
    *(
        Fault(
            code.name,
            _behave(fail(code)),
            _STATUSES.get(code.name, BROKEN),
            rests=code.name in ("UNAVAILABLE", "CANCELLED", "DEADLINE_EXCEEDED"),
        )
        for code in grpc.StatusCode
        if code is not grpc.StatusCode.OK
    ),
    *(Fault(f"lie: {name}", _behave(behaviour), BROKEN) for name, behaviour in _LIES.items()),
    Fault("float_val", _behave(_float_val), ANSWERED),  # type: ignore[arg-type]
    Fault("slow by 1 s", _behave(_slow(1)), FULL, rests=True),
    Fault("too slow", _behave(_slow(9)), AWAY | LATE, rests=True),
    Fault("too large", _behave(changed(lambda r: r.outputs["labels"].string_val.append(b"x" * 5_000_000))), AWAY),
    Fault("half-open", _wire("swallow"), AWAY | LATE, rests=True),
    Fault("a byte a second", _wire("drip"), AWAY | LATE, rests=True),
    Fault("connections cut", lambda rig: rig.relay.cut(), FULL, rests=True),
    Fault("killed and restarted", _die, AWAY, rests=True, end=_rise),
)
