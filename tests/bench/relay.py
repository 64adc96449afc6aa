"""A wire between the gateway and a model server that can be cut, that swallows what it is given, or that drips."""

import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

PIECE = 64 * 1024  # bytes
DRIP_S = 1.0  # between two bytes


@dataclass
class Relay:
    """Forwards connections to `port`. `mode` is pass, swallow (nothing comes out again) or drip (a byte a second back).

    Connections keep the mode in which they were made; `cut` ends them all.
    """

    port: int
    mode: str = "pass"
    _open: set[socket.socket] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def switch(self, mode: str) -> None:
        """Another mode, for everybody: who is connected has to connect again."""
        self.mode = mode
        self.cut()

    def cut(self) -> None:
        """End all connections."""
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """No more connections."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.port), timeout=5)
                server.settimeout(None)
            except OSError:  # the server is dead
                client.close()
                continue
            self._open |= {client, server}
            for source, target, back in ((client, server, False), (server, client, True)):
                threading.Thread(target=self._forward, args=(source, target, self.mode, back), daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket, mode: str, back: bool) -> None:
        with suppress(OSError):
            if mode != "pass" and back:
                target.sendall(source.recv(PIECE))  # the handshake, or the client would try again and again
            while data := source.recv(1 if mode == "drip" and back else PIECE):
                if mode == "swallow":
                    continue
                target.sendall(data)
                if mode == "drip" and back:
                    time.sleep(DRIP_S)
        for each in (source, target):  # when one direction ends so does the other
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        with suppress(OSError):
            source.close()
        self._open.discard(source)
