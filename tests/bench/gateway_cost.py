"""What the gateway itself costs: CPU per upload, memory, start. The model behind it computes, but is not counted."""

from pathlib import Path
from typing import Any

from tests.bench import pictures, systems
from tests.bench.load import Caller
from tests.bench.processes import cost, tree


def measure(models: Path, log_dir: Path, uploads: int) -> dict[str, Any]:
    """One caller, one upload after the other; an upload's cost is the process's CPU time over all of its kind."""
    system = systems.whence("int8" if (models / "culture-int8").is_dir() else "float32", models)
    small, upload, large = pictures.real()[0], pictures.upload_300_kb(), pictures.large()
    kinds = {
        f"raw {len(small) // 1000} kB": pictures.raw(small),
        f"raw {len(upload) // 1000} kB": pictures.raw(upload),
        f"multipart {len(upload) // 1000} kB": pictures.multipart(upload),
        f"raw 2000x1500, {len(large) // 1000} kB": pictures.raw(large),
    }
    system.start(log_dir)
    try:
        gateway, caller = system.running["gateway"].pid, Caller(system.url)
        result: dict[str, Any] = {"mib idle": _memory(gateway), "cpu_ms": {}, "answers": {}}
        for kind, body in kinds.items():
            for _ in range(10):
                caller.ask(body)
            before = cost(gateway).cpu_s
            answers = [caller.ask(body) for _ in range(uploads)]
            result["cpu_ms"][kind] = round(1000 * (cost(gateway).cpu_s - before) / uploads, 2)
            result["answers"][kind] = {answer: answers.count(answer) for answer in set(answers)}
        return result | {"mib after": _memory(gateway), "gateway_start_s": _start_s(system, log_dir)}
    finally:
        system.stop()


def _memory(gateway: int) -> dict[str, float]:
    """The process that answers by itself, and the whole tree with shared pages counted once."""
    worker = tree(gateway)[-1]
    return {"worker RSS": cost(worker).rss_mib, "all PSS": cost(gateway).pss_mib}


def _start_s(system: systems.System, log_dir: Path) -> float:
    """The gateway alone, its model server being there."""
    server = system.running.pop("server")
    system.stop()
    system.running["server"] = server
    again = systems.System("gateway-again", system.url, {"gateway": system.commands["gateway"]}, environ=system.environ)
    again.start(log_dir)
    again.stop()
    return again.start_s
