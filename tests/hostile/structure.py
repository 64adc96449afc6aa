"""Pictures taken apart, changed and put together again, so that the damage gets past the first check of a plugin.

A file is a list of pieces: JPEG segments, PNG chunks, RIFF chunks of WebP, boxes of AVIF, blocks of GIF, entries of a
TIFF directory. Lengths and checksums are made right again (mostly), what is inside is not.
"""

import random
import struct
import zlib

from serving.images import sniff

Pieces = list[bytes]
NUMBERS = (0, 1, 2, 3, 7, 8, 16, 255, 256, 4095, 16383, 32767, 65535, 100_000, 2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1)


def restructured(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """`data` with its pieces changed, moved, repeated, left out, or mixed with those of another of the same format."""
    kind = sniff(data)
    if kind == "TIFF":
        return _tiff(data, dice)
    pieces, head = _apart(data, kind)
    for _ in range(dice.choice([1, 1, 2, 3, 6])):
        if not pieces:
            break
        at = dice.randrange(len(pieces))
        match dice.randrange(7):
            case 0 | 1:
                pieces[at] = _scratched(pieces[at], dice)
            case 2:
                pieces[at : at + 1] = [pieces[at]] * dice.choice([0, 2, 3, 10, 300])
            case 3:
                pieces.insert(dice.randrange(len(pieces) + 1), pieces.pop(at))
            case 4:
                pieces[at] = pieces[at][: dice.randrange(len(pieces[at]) + 1)]
            case 5:
                pieces[at] += dice.randbytes(dice.choice([1, 8, 200]))
            case 6:
                same = [each for each in others if sniff(each) == kind]
                if same and (spare := _apart(dice.choice(same), kind)[0]):
                    pieces.insert(at, dice.choice(spare))
    return _together(pieces, head, kind, dice)


def _scratched(piece: bytes, dice: random.Random) -> bytes:
    """A piece with some of its numbers changed; the first bytes matter most."""
    changed = bytearray(piece)
    for _ in range(dice.choice([1, 1, 2, 4])):
        if not changed:
            break
        at = dice.randrange(min(len(changed), dice.choice([8, 32, 10**9])))
        size = dice.choice([1, 2, 4])
        number = dice.choice(NUMBERS) & (256**size - 1)
        changed[at : at + size] = number.to_bytes(size, dice.choice(["big", "little"]))
    return bytes(changed)


def _apart(data: bytes, kind: str | None) -> tuple[Pieces, bytes]:
    """The pieces, each beginning with its type, and what comes before them."""
    match kind:
        case "PNG":
            return _chunks(data[8:], ">", before=True), data[:8]
        case "WEBP":
            return _chunks(data[12:], "<", before=False), data[:12]
        case "JPEG":
            return _segments(data), data[:2]
        case "AVIF":
            return _boxes(data), b""
        case "GIF":
            return _blocks(data), data[:13]
    return [data], b""


def _together(pieces: Pieces, head: bytes, kind: str | None, dice: random.Random) -> bytes:
    def length(number: int) -> int:
        return number if dice.random() < 0.97 else dice.choice(NUMBERS)

    match kind:
        case "PNG":
            chunks = (
                struct.pack(">I", length(max(0, len(each) - 4))) + each + struct.pack(">I", zlib.crc32(each))
                for each in pieces
            )
            return head + b"".join(chunks)
        case "WEBP":
            body = b"".join(
                each[:4] + struct.pack("<I", length(max(0, len(each) - 4))) + each[4:] + b"\0" * (len(each) % 2)
                for each in pieces
            )
            return head[:4] + struct.pack("<I", length(len(body) + 4)) + b"WEBP" + body
        case "AVIF":
            return b"".join(struct.pack(">I", length(len(each) + 4)) + each for each in pieces)
    return head + b"".join(pieces)


def _chunks(data: bytes, order: str, *, before: bool) -> Pieces:
    """Type and content of chunks whose length stands before their type (PNG) or after it (RIFF)."""
    pieces, at = [], 0
    while at + 8 <= len(data):
        kind_at, length_at = (at + 4, at) if before else (at, at + 4)
        (size,) = struct.unpack_from(f"{order}I", data, length_at)
        pieces.append(data[kind_at : kind_at + 4] + data[at + 8 : at + 8 + size])
        at += 8 + size + (4 if before else size % 2)
    return pieces


def _segments(data: bytes) -> Pieces:
    """JPEG markers with what belongs to them; a scan's pixels are with its marker."""
    pieces, at = [], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        size = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        end = at + size
        if data[at + 1] == 0xDA:
            while end + 1 < len(data) and not (data[end] == 0xFF and data[end + 1] not in (0, *range(0xD0, 0xD8))):
                end += 1
        pieces.append(data[at:end])
        at = end
    return [*pieces, data[at:]]


def _boxes(data: bytes) -> Pieces:
    """Type and content of ISO boxes, the outermost ones; `meta` in one piece."""
    pieces, at = [], 0
    while at + 8 <= len(data):
        size = max(8, int.from_bytes(data[at : at + 4], "big"))
        pieces.append(data[at + 4 : at + size])
        at += size
    return pieces


def _blocks(data: bytes) -> Pieces:
    """Palette, extensions and frames of a GIF."""
    at = 13 + (3 * (2 << (data[10] & 7)) if data[10] & 0x80 else 0)
    pieces = [data[13:at]]
    while at < len(data):
        start = at
        if data[at] == 0x21:
            at += 2
        elif data[at] == 0x2C:
            flags = data[at + 9] if at + 9 < len(data) else 0
            at += 11 + (3 * (2 << (flags & 7)) if flags & 0x80 else 0)
        else:
            pieces.append(data[at:])
            break
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
        pieces.append(data[start:at])
    return pieces


def _tiff(data: bytes, dice: random.Random) -> bytes:
    """Entries of the first directory changed in place: other tags, types, counts and values."""
    order = "<" if data[:2] == b"II" else ">"
    changed = bytearray(data)
    if data[2:4] not in (b"*\0", b"\0*") or len(data) < 8:  # BigTIFF
        return _scratched(data, dice)
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    if at + 2 > len(data):
        return data
    (count,) = struct.unpack_from(f"{order}H", data, at)
    for _ in range(dice.choice([1, 1, 2, 3])):
        entry = at + 2 + 12 * dice.randrange(max(1, count))
        if entry + 12 > len(changed):
            continue
        match dice.randrange(5):
            case 0:
                struct.pack_into(f"{order}I", changed, entry + 8, dice.choice([*NUMBERS, len(data), len(data) - 4]))
            case 1:
                struct.pack_into(f"{order}I", changed, entry + 4, dice.choice(NUMBERS))
            case 2:
                struct.pack_into(f"{order}H", changed, entry + 2, dice.randrange(20))
            case 3:
                tags = (256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325, 338, 339,
                        347, 513, 514, 529, 530, 532, 700, 34675, 34665)  # fmt: skip
                struct.pack_into(f"{order}H", changed, entry, dice.choice(tags))
            case 4:
                struct.pack_into(f"{order}HH", changed, entry + 8, dice.choice([1, 2, 3, 5, 6, 7, 8, 32773, 50000]), 0)
    return bytes(changed)
