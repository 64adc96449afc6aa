"""Pictures made to do harm: odd ones of every format to begin with, ways to damage them, files that cost much time."""

import io
import random
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

MB = 1_000_000


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
    return [
        saved(rgb, "JPEG", **extras), saved(rgb, "JPEG", progressive=True), saved(rgb.convert("CMYK"), "JPEG"),
        saved(rgb, "PNG", **extras), saved(rgb.convert("P"), "PNG", transparency=3), saved(grey16, "PNG"),
        saved(rgb, "WEBP", **extras), saved(rgb, "WEBP", lossless=True), saved(rgb, "WEBP", **frames),
        saved(rgb, "AVIF", **extras), saved(rgb, "TIFF", icc_profile=extras["icc_profile"]),
        saved(rgb, "TIFF", compression="tiff_lzw"), saved(rgb, "TIFF", compression="jpeg"),
        saved(rgb.convert("1"), "TIFF", compression="group4"), saved(rgb.convert("LAB"), "TIFF"),
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


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


_PNG, _JPEG, _GIF = (saved(Image.new("RGB", (50, 50), "red"), format) for format in ("PNG", "JPEG", "GIF"))
_GIF_HEAD = 13 + (3 * (2 << (_GIF[10] & 7)) if _GIF[10] & 0x80 else 0)


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated: each costs a pass over all pixels and a few bytes."""
    data = saved(Image.new("L", (side, side), 200), "JPEG", progressive=True)
    last = data.rfind(b"\xff\xda")
    return data[:last] + data[last:-2] * count + data[-2:]


def strips(count: int) -> bytes:
    """A TIFF of 50 x 50,000 pixels with as many strips as it likes."""
    numbers = [(256, 1, 50), (257, 1, 50_000), (258, 1, 8), (259, 1, 1), (262, 1, 1), (273, count, 200), (277, 1, 1),
               (278, 1, 1), (279, count, 200)]  # fmt: skip
    tags = b"".join(struct.pack("<HHII", tag, 4, number, value) for tag, number, value in numbers)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(numbers)) + tags + b"\0" * (4 + 4 * count)


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
}
