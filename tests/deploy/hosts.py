"""Several hosts on this machine: network namespaces joined by a switch that leads nowhere else.

`/etc/netns/NAME/hosts` is what a host sees as /etc/hosts: it stands in for the cluster's DNS, and may be rewritten.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest

PREFIX: Final = "whence"
NETWORK: Final = "10.77.0"
ETC: Final = Path("/etc/netns")


@dataclass
class Lan:
    """The switch and the hosts on it."""

    hosts: dict[str, str] = field(default_factory=dict)  # name: address

    def add(self, name: str) -> str:
        """A new host; its address."""
        space, address = f"{PREFIX}-{name}", f"{NETWORK}.{10 + len(self.hosts)}"
        _ip("netns", "add", space)
        self.hosts[name] = address
        inner, outer = "eth0", f"wh-{name}"[:15]
        _ip("link", "add", outer, "netns", f"{PREFIX}-switch", "type", "veth", "peer", "name", inner, "netns", space)
        _ip("-n", f"{PREFIX}-switch", "link", "set", outer, "master", "bridge", "up")
        _ip("-n", space, "addr", "add", f"{address}/24", "dev", inner)
        _ip("-n", space, "link", "set", inner, "up")
        _ip("-n", space, "link", "set", "lo", "up")
        (ETC / space).mkdir(parents=True, exist_ok=True)
        (ETC / space / "hosts").write_text("127.0.0.1 localhost\n")
        return address

    def cut(self, name: str, *, whole: bool = False) -> None:
        """Pull a host's cable, or put it in again."""
        state = "up" if whole else "down"
        _ip("-n", f"{PREFIX}-switch", "link", "set", f"wh-{name}"[:15], state)

    def name(self, reader: str, name: str, *addresses: str) -> None:
        """What `name` means on the host `reader` from now on."""
        lines = ["127.0.0.1 localhost", *(f"{address} {name}" for address in addresses)]
        # In place: a running program's /etc/hosts is this very file.
        (ETC / f"{PREFIX}-{reader}" / "hosts").write_text("\n".join(lines) + "\n")


def on(host: str, words: Sequence[str | Path]) -> list[str]:
    """The command that runs `words` on a host."""
    return ["ip", "netns", "exec", f"{PREFIX}-{host}", *(str(word) for word in words)]


@contextmanager
def lan() -> Iterator[Lan]:
    """A switch for the time of the block. Skips where namespaces cannot be made."""
    if os.geteuid() != 0 or not shutil.which("ip"):
        pytest.skip("several hosts on one machine take root and iproute2")
    _clear()
    try:
        _ip("netns", "add", f"{PREFIX}-switch")
        _ip("-n", f"{PREFIX}-switch", "link", "add", "bridge", "type", "bridge")
    except AssertionError as error:
        _clear()
        pytest.skip(f"no network namespaces or bridges here: {error}")
    _ip("-n", f"{PREFIX}-switch", "link", "set", "bridge", "up")
    try:
        yield Lan()
    finally:
        _clear()


def _clear() -> None:
    """Take away what this module made, in an earlier run too."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=False).stdout
    for line in listed.splitlines():
        space = line.split()[0]
        if space.startswith(f"{PREFIX}-"):
            subprocess.run(["ip", "netns", "delete", space], check=False)
            shutil.rmtree(ETC / space, ignore_errors=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"ip {' '.join(words)}: {done.stderr.strip()}"
