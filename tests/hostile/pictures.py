"""Pictures made to do harm: odd ones of every format to begin with, ways to damage them, files that cost much time."""

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

MB = 1_000_000
PNG_HEAD = b"\x89PNG\r\n\x1a\n"


def saved(image: Image.Image, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def seeds() -> list[bytes]:
    """Small pictures in every format, with what plugins stumble over: profiles, EXIF, palettes, many frames."""
    values = np.random.default_rng(1).integers(0, 256, (40, 60, 3), np.uint8)
    rgb = Image.fromarray(values)
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "x" * 50
    extras = {"exif": exif, "icc_profile": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()}
    grey16 = Image.fromarray(values[..., 0].astype(np.uint16) * 200)
    frames = {"save_all": True, "append_images": [rgb.rotate(90)] * 4}
    floats = Image.fromarray(values[..., 0].astype(np.float32) / 255)
    return [
        saved(rgb, "JPEG", **extras), saved(rgb, "JPEG", progressive=True), saved(rgb.convert("CMYK"), "JPEG"),
        saved(rgb, "MPO", save_all=True, append_images=[rgb]),
        saved(rgb, "PNG", **extras), saved(rgb.convert("P"), "PNG", transparency=3), saved(grey16, "PNG"),
        saved(rgb, "PNG", **frames), interlaced(),
        saved(rgb, "WEBP", **extras), saved(rgb, "WEBP", lossless=True), saved(rgb, "WEBP", **frames),
        saved(rgb.convert("RGBA"), "WEBP"),
        saved(rgb, "AVIF", **extras), saved(rgb.convert("RGBA"), "AVIF"), saved(rgb, "AVIF", **frames),
        saved(rgb, "TIFF", icc_profile=extras["icc_profile"]), saved(rgb, "TIFF", big_tiff=True),
        saved(rgb, "TIFF", compression="tiff_lzw"), saved(rgb, "TIFF", compression="jpeg"),
        saved(rgb.convert("1"), "TIFF", compression="group4"), saved(rgb.convert("LAB"), "TIFF"),
        saved(floats, "TIFF", compression="tiff_deflate"), saved(rgb.convert("CMYK"), "TIFF", compression="packbits"),
        saved(rgb.convert("P"), "TIFF"), planes(), tiles(),
        saved(rgb, "GIF"), saved(rgb, "GIF", transparency=1, **frames),
    ]  # fmt: skip


def mutated(data: bytes, dice: random.Random, others: list[bytes]) -> bytes:
    """`data` with some harm done to it."""
    changed = bytearray(data)
    for _ in range(dice.choice([1, 1, 2, 4, 16, 64])):
        at = dice.randrange(max(1, min(len(changed), dice.choice([64, 512, 10**9]))))
        match dice.randrange(6):
            case 0:
                changed[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                number = dice.choice([0, 1, 0x7FFFFFFF, 0xFFFFFFFF, 0x80000000, 65536, 30000])
                changed[at : at + 4] = struct.pack(dice.choice("<>") + "I", number)
            case 2:
                changed[at : at + 2] = struct.pack(dice.choice("<>") + "H", dice.choice([0, 1, 0xFFFF, 0x8000]))
            case 3:
                del changed[at : at + dice.randrange(1, 200)]
            case 4:
                other = dice.choice(others)
                start = dice.randrange(len(other))
                changed[at:at] = other[start : start + dice.randrange(200)]
            case 5:
                del changed[at + 8 :]
    return bytes(changed)


def interlaced() -> bytes:
    """A PNG of eight by eight pixels of 16 bits in seven passes (Adam7), which Pillow reads but does not write."""
    passes = ((1, 1), (1, 1), (2, 1), (2, 2), (4, 2), (4, 4), (8, 4))  # columns, rows
    rows = b"".join((b"\0" + b"\x80\x10" * 3 * columns) * count for columns, count in passes)
    return PNG_HEAD + _ihdr(8, 8, 16, 2, interlace=1) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND")


def planes() -> bytes:
    """A TIFF whose red, green and blue lie one after the other."""
    at = tiff_end(10)
    entries = [(256, 4, 1, 16), (257, 4, 1, 16), (258, 3, 3, at), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 3, at + 8),
               (277, 3, 1, 3), (278, 4, 1, 16), (279, 4, 3, at + 20), (284, 3, 1, 2)]  # fmt: skip
    tables = struct.pack("<3H2x", 8, 8, 8) + struct.pack("<3I", *(at + 32 + 256 * n for n in range(3)))
    return tiff(entries) + tables + struct.pack("<3I", 256, 256, 256) + bytes(range(256)) * 3


def tiles(side: int = 32, tile: int = 16, count: int = 4) -> bytes:
    """A grey TIFF in deflated tiles, all of them the same one."""
    at, data = tiff_end(10), zlib.compress(b"\x80" * min(tile * tile, 10**8))
    entries = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1),
               (322, 4, 1, tile), (323, 4, 1, tile), (324, 4, count, at), (325, 4, count, at + 4 * count)]  # fmt: skip
    if count == 1:  # the value itself stands in the entry
        entries[8:] = [(324, 4, 1, at), (325, 4, 1, len(data))]
        return tiff(entries) + data
    return tiff(entries) + struct.pack("<I", at + 8 * count) * count + struct.pack("<I", len(data)) * count + data


def tiff(entries: list[tuple[int, int, int, int]]) -> bytes:
    """Head and directory of a TIFF: tag, type, count and value of each entry."""
    packed = (
        struct.pack("<HHIHxx" if (kind, count) == (3, 1) else "<HHII", tag, kind, count, value)
        for tag, kind, count, value in entries
    )
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(packed) + b"\0" * 4


def tiff_end(count: int) -> int:
    """Where the data after a directory of `count` entries begin."""
    return 8 + 2 + 12 * count + 4


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _ihdr(width: int, height: int, bits: int, colour: int, *, interlace: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlace))


_PNG, _JPEG, _GIF = (saved(Image.new("RGB", (50, 50), "red"), format) for format in ("PNG", "JPEG", "GIF"))
_GIF_HEAD = 13 + (3 * (2 << (_GIF[10] & 7)) if _GIF[10] & 0x80 else 0)


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over all pixels and a few bytes."""
    data = saved(Image.new("L", (side, side), 200), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def jpeg_in_tiff(side: int, count: int) -> bytes:
    """A TIFF whose only strip is a JPEG of many scans."""
    jpeg = scans(side, count)
    entries = [(256, 4, 1, side), (257, 4, 1, side), (258, 3, 1, 8), (259, 3, 1, 7), (262, 3, 1, 1),
               (273, 4, 1, tiff_end(9)), (277, 3, 1, 1), (278, 4, 1, side), (279, 4, 1, len(jpeg))]  # fmt: skip
    return tiff(entries) + jpeg


def strips(count: int) -> bytes:
    """A TIFF of 50 x 50,000 pixels with as many strips as it likes."""
    entries = [(256, 4, 1, 50), (257, 4, 1, 50_000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
               (273, 4, count, 200), (277, 3, 1, 1), (278, 4, 1, 1), (279, 4, count, 200)]  # fmt: skip
    return tiff(entries) + b"\0" * 4 * count


# Files of some megabytes that would keep Pillow busy for many seconds (found with a timer, not invented).
BUSY: dict[str, Callable[[], bytes]] = {
    "PNG of tiny chunks": lambda: _PNG[:33] + chunk(b"prIv") * 400_000 + _PNG[33:],
    "PNG of tiny texts": lambda: _PNG[:33] + chunk(b"tEXt", b"a\0b") * 400_000 + _PNG[33:],
    "PNG of packed texts": lambda: (
        _PNG[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 900_000)) * 5000 + _PNG[33:]
    ),
    "PNG of empty data": lambda: _PNG[:33] + chunk(b"IDAT") * 400_000 + _PNG[33:],
    "JPEG of tiny segments": lambda: _JPEG[:2] + b"\xff\xef\0\2" * 1_000_000 + _JPEG[2:],
    "JPEG of fill bytes": lambda: _JPEG[:2] + b"\xff" * 5 * MB + _JPEG[2:],
    "JPEG of nothing": lambda: b"\xff\xd8\xff" + b"\0" * 5 * MB,
    "JPEG of scans": lambda: scans(4000, 5000),
    "GIF of tiny extensions": lambda: _GIF[:_GIF_HEAD] + b"\x21\xfe\x01a\0" * MB + _GIF[_GIF_HEAD:],
    "GIF of unknown bytes": lambda: _GIF[:_GIF_HEAD] + b"\x01" * 5 * MB + _GIF[_GIF_HEAD:],
    "TIFF of strips": lambda: strips(500_000),
    "TIFF of JPEG scans": lambda: jpeg_in_tiff(4000, 95),
}

# Small files that take much memory: all refused, or decoded in less than a picture may take.
HUNGRY: dict[str, Callable[[], bytes]] = {
    "TIFF of 32-bit floats": lambda: saved(Image.new("F", (7000, 7000)), "TIFF", compression="tiff_deflate"),
    "TIFF of one large tile": lambda: tiles(side=100, tile=20_000, count=1),
    "TIFF of many tiles": lambda: tiles(side=7000, tile=16, count=438 * 438),
    "PNG of rows": lambda: PNG_HEAD + _ihdr(1, 50_000_000, 8, 2) + chunk(b"IDAT", zlib.compress(b"\0" * 200 * MB, 1)),
    "PNG of texts": lambda: _PNG[:33] + chunk(b"zTXt", b"a\0\0" + zlib.compress(b"x" * 900_000)) * 70 + _PNG[33:],
    "PNG of a packed profile": lambda: (
        _PNG[:33] + chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 500 * MB, 1)) + _PNG[33:]
    ),
    "WebP of a large canvas": lambda: saved(Image.new("RGB", (16_383, 1525)), "WEBP", lossless=True, method=0),
    "GIF of a large frame": lambda: saved(Image.new("P", (7000, 7000)), "GIF"),
}


def endless_profile(steps: int) -> bytes:
    """An ICC profile (ICC.1:2022) whose D2B0 is a chain of as many matrices as it likes, all of them the same one."""
    matrix = b"matf\0\0\0\0" + struct.pack(">HH12f", 3, 3, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0.0001, 0, 0)
    chain = b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, steps)
    chain += struct.pack(">II", len(chain) + 8 * steps, len(matrix)) * steps + matrix
    white = b"XYZ \0\0\0\0" + struct.pack(">3I", 63190, 65536, 54061)
    at = 128 + 4 + 2 * 12
    tags = struct.pack(">I4sII4sII", 2, b"wtpt", at, len(white), b"D2B0", at + len(white), len(chain))
    size = at + len(white) + len(chain)
    head = struct.pack(">I4sI4s4s4s12x4s28x3I", size, b"test", 0x04300000, b"mntr", b"RGB ", b"XYZ ", b"acsp", 63190,
                       65536, 54061)  # fmt: skip
    return head.ljust(128, b"\0") + tags + white + chain
