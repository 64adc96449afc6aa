"""A name server for one name, whose addresses a test may change: `python -m tests.deploy.nameserver FILE ADDRESS`.

FILE has the addresses, one a line, and is read for each question. DNS over UDP as RFC 1035 has it, and only IPv4.
"""

import socket
import struct
import sys
from pathlib import Path
from typing import Final

NAME: Final = "serving.whence.test"
_A: Final = 1
_NO_SUCH_NAME: Final = 3


def answer(question: bytes, addresses: list[str]) -> bytes:
    """The reply to one question: an A record for each address, to live for no time at all."""
    end = question.index(b"\0", 12) + 5  # the name, its type and its class
    labels, at = [], 12
    while question[at]:
        labels.append(question[at + 1 : at + 1 + question[at]].decode("ascii", "replace"))
        at += 1 + question[at]
    (kind,) = struct.unpack_from(">H", question, end - 4)
    known = ".".join(labels).lower() == NAME
    records = [
        b"\xc0\x0c" + struct.pack(">HHIH", _A, 1, 0, 4) + socket.inet_aton(each)
        for each in addresses
        if known and kind == _A
    ]
    flags = 0x8180 if known else 0x8180 | _NO_SUCH_NAME
    return question[:2] + struct.pack(">HHHHH", flags, 1, len(records), 0, 0) + question[12:end] + b"".join(records)


def main(file: str, address: str) -> None:
    """Answer until the end."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((address, 53))
        print("ready", flush=True)
        while True:
            question, asker = sock.recvfrom(512)
            sock.sendto(answer(question, Path(file).read_text().split()), asker)


if __name__ == "__main__":
    main(*sys.argv[1:])
