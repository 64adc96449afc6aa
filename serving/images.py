"""Bytes of a picture in, the model's pixels out: the one place where pixels are made, for training and gateway alike.

    picture = load(data)          # format by magic bytes, size checked, nothing decoded yet
    picture.pixels()              # uint8 [224, 224, 3], sRGB, upright

The filter and the order of the steps move probabilities more than int8 weights do: golden arrays in the tests pin them.
"""

import ctypes
import io
import os
import struct
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms, TiffImagePlugin, _imaging

from serving.contract import IMAGE_SIZE

MAX_PIXELS: Final = 50_000_000  # pixels; as RGB about 200 MB in Pillow, four bytes each
MAX_SIDE: Final = 100_000  # pixels; each row takes some bytes more, and a picture can be all rows
MAX_SCANNED: Final = 1_000_000_000  # pixels times scans of a JPEG: about two seconds of work
MAX_SPARE_TILE: Final = 4_000_000  # pixels of a TIFF's tile, however small the picture
MAX_READS: Final = 100_000  # of the file, by Pillow; a picture of 20 MB in the smallest usual pieces takes some 10,000
MAX_KEPT_PROFILE: Final = 64 * 1024  # bytes of an ICC profile; those of cameras and screens have some hundreds to 4,000
DRAFT_SIDE: Final = 2 * IMAGE_SIZE  # pixels; JPEGs are decoded at 1/2, 1/4 or 1/8 scale, but never below this
FORMATS: Final = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "GIF")
MEDIA_TYPES: Final = tuple(f"image/{name.lower()}" for name in FORMATS)

# libtiff counts the scans of a JPEG inside a TIFF by itself, up to 100.
os.environ.setdefault("LIBTIFF_JPEG_MAX_ALLOWED_SCAN_NUMBER", str(MAX_SCANNED // MAX_PIXELS))

# Pillow warns from 89 million pixels on and refuses from 179 million on; our own, stricter limit is checked below.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Its other warnings repeat what a broken file says: noise, and memory, because Python remembers each of them.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
# libtiff writes its own on standard error by itself: a line for each row of a broken fax, 50,000 for a small picture.
for _setter in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
    with suppress(AttributeError, OSError):  # a Pillow that is built in another way
        getattr(ctypes.CDLL(_imaging.__file__), _setter)(None)

_UPRIGHT: Final = {  # EXIF orientation (CIPA DC-008, table 6) -> what turns the picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SRGB: Final = ImageCms.createProfile("sRGB")
_LAB: Final = ImageCms.createProfile("LAB")


class ImageError(ValueError):
    """A picture that gets no answer. The message may be shown to whoever sent it."""


class UnsupportedFormat(ImageError):
    """The bytes are none of FORMATS."""


class UndecodableImage(ImageError):
    """The bytes begin as a known format, but are broken or end early."""


class UnacceptableImage(ImageError):
    """A readable picture that we refuse: too many pixels, or none."""


@dataclass(frozen=True)
class Picture:
    """An opened, not yet decoded picture. `width` and `height` are pixels before EXIF orientation; a TIFF's after."""

    format: str
    width: int
    height: int
    _opened: Callable[[], Image.Image]

    @cached_property
    def _image(self) -> Image.Image:
        return self._opened()

    @property
    def megapixels(self) -> float:
        """Size in millions of pixels."""
        return self.width * self.height / 1e6

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height in pixels as people see it, after EXIF orientation."""
        return (self.height, self.width) if _orientation(self._image) >= 5 else (self.width, self.height)

    def pixels(self) -> NDArray[np.uint8]:
        """The model's input, uint8 [224, 224, 3], RGB. Squashes the aspect ratio. Raises UndecodableImage."""
        return np.asarray(self.upright((IMAGE_SIZE, IMAGE_SIZE)))

    def fitted(self, side: int) -> Image.Image:
        """As `upright`, in its own proportions, the longest side at most `side` pixels. Raises UndecodableImage."""
        width, height = self.upright_size
        scale = min(1.0, side / max(width, height))
        return self.upright((max(1, round(width * scale)), max(1, round(height * scale))))

    def upright(self, size: tuple[int, int]) -> Image.Image:
        """The picture as people see it, sRGB on white, resized to `size` (width, height). Raises UndecodableImage."""
        try:
            orientation = _orientation(self._image)
            if orientation >= 5:  # width and height change places
                size = size[1], size[0]
            self._image.draft(None, (max(DRAFT_SIDE, size[0]), max(DRAFT_SIDE, size[1])))
            # Resize first, then colours and rotation: the same picture for a small part of the work.
            small = _resizable(self._image).resize(size, Image.Resampling.BILINEAR, reducing_gap=3)
            small.info = self._image.info
            turned = _to_srgb(small)
            return turned.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else turned
        except Exception as error:  # Pillow's plugins raise a dozen kinds of exceptions on broken bytes
            raise UndecodableImage(f"broken or truncated {self.format} picture") from error


def load(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Picture:
    """Open a picture without decoding it.

    Raises UnsupportedFormat, UndecodableImage, or UnacceptableImage when it has more than `max_pixels` pixels or none.
    """
    kind = sniff(data)
    if kind is None:
        raise UnsupportedFormat(f"not a picture in an accepted format ({', '.join(FORMATS)})")
    if kind == "WEBP":  # Pillow's decoder allocates the canvas four times on opening: look at the header, open later
        size = _webp_size(data)
        _check_size(*size, max_pixels // 2)
        return Picture(kind, *size, lambda: _open(data, kind, max_pixels, size))
    image = _open(data, kind, max_pixels)
    _check_size(*image.size, max_pixels // 2 if kind == "AVIF" else max_pixels)  # up to ten bits and four planes
    if kind == "JPEG":
        _check_scans(data, image.width * image.height)
    elif kind == "TIFF":
        _check_tiles(image)
    return Picture(kind, *image.size, lambda: image)


def decode(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The model's input for the bytes of one picture: uint8 [224, 224, 3], RGB. Raises ImageError."""
    return load(data, max_pixels=max_pixels).pixels()


def sniff(data: bytes) -> str | None:
    """The picture's format by its first bytes (never by its name), or None."""
    head = data[:64]
    if head.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and {b"avif", b"avis"} & _brands(head):
        return "AVIF"
    if head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):  # the last two are BigTIFF
        return "TIFF"
    if head[:6] in (b"GIF87a", b"GIF89a"):
        return "GIF"
    return None


def _brands(head: bytes) -> set[bytes]:
    """Major and compatible brands of an ISO base media file (ISO/IEC 14496-12, section 4.3)."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    return {head[8:12], *(head[at : at + 4] for at in range(16, end, 4))}


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height from the first chunk of a WebP file (RFC 9649, section 2)."""
    try:
        match data[12:16]:
            case b"VP8X":
                return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
            case b"VP8L":
                bits = struct.unpack_from("<I", data, 21)[0]
                return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
            case b"VP8 ":
                width, height = struct.unpack_from("<HH", data, 26)
                return width & 0x3FFF, height & 0x3FFF
    except struct.error:
        pass
    raise UndecodableImage("broken or truncated WEBP picture")


def _check_scans(data: bytes, pixels: int) -> None:
    """Refuse a JPEG with so many scans that they alone take seconds: each passes over the whole picture again."""
    if data.count(b"\xda") * pixels <= MAX_SCANNED:  # ten times quicker to count, and there are at least as many
        return
    scans = data.count(b"\xff\xda")  # cannot stand inside compressed pixels
    if scans * pixels > MAX_SCANNED:
        raise UnacceptableImage(f"{scans} scans of {pixels:,} pixels are more than accepted")


def _check_tiles(image: Image.Image) -> None:
    """Refuse a TIFF of tiles that are much larger than the picture: memory is taken for a whole one."""
    tags = getattr(image, "tag_v2", {})
    try:
        width, height = (tags.get(tag, 0) for tag in (TiffImagePlugin.TILEWIDTH, TiffImagePlugin.TILELENGTH))
    except Exception as error:  # as in Picture.upright: only now are these values made of their bytes
        raise UndecodableImage("broken or truncated TIFF picture") from error
    if isinstance(width, int) and isinstance(height, int):
        most = max(MAX_SPARE_TILE, 2 * image.width * image.height)
        if width * height > most:
            raise UnacceptableImage(f"tiles of {width:,} x {height:,} pixels are more than this picture needs")


class _Source(io.BytesIO):
    """The bytes of a picture, to be read a bounded number of times.

    A hostile file has a million tiny pieces, and each takes some steps of Pillow's Python: seconds for a few megabytes.
    """

    _left = MAX_READS

    def read(self, size: int | None = -1, /) -> bytes:
        """As of any file. Raises UndecodableImage, which none of Pillow's plugins takes for the end of the file."""
        piece = super().read(size)
        self._left -= 1 + len(piece) // 16_384  # the same bytes again and again are work too
        if self._left < 0:
            raise UndecodableImage("too many small pieces")
        return piece


def _open(data: bytes, kind: str, max_pixels: int, size: tuple[int, int] | None = None) -> Image.Image:
    """The picture, opened but not decoded, and of `size` if that is known.

    Raises UndecodableImage or UnacceptableImage.
    """
    try:
        image = Image.open(_Source(data), formats=(kind,))
    except Image.DecompressionBombError as error:
        raise UnacceptableImage(f"more than {max_pixels:,} pixels") from error
    except Exception as error:  # as in Picture.upright
        raise UndecodableImage(f"broken or truncated {kind} picture") from error
    if size not in (None, image.size):
        raise UndecodableImage(f"broken or truncated {kind} picture")
    return image


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width < 1 or height < 1:
        raise UnacceptableImage(f"a picture of {width} x {height} pixels has nothing to look at")
    if max(width, height) > MAX_SIDE:
        raise UnacceptableImage(f"a side of {max(width, height):,} pixels is more than the {MAX_SIDE:,} accepted")
    if width * height > max_pixels:
        raise UnacceptableImage(f"{width} x {height} pixels are more than the {max_pixels:,} accepted")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 to 8; 1 (upright) where there is none or the EXIF block is broken.

    Pillow turns a TIFF by itself when it decodes it, and tells its size as turned.
    """
    if image.format == "TIFF":
        return 1
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a broken EXIF block is no reason to refuse a good picture
        return 1
    return value if value in _UPRIGHT else 1


def _resizable(image: Image.Image) -> Image.Image:
    """The same picture in a mode that Pillow can filter: eight bits, no palette, no transparent colour key."""
    if image.mode in ("I", "F", "I;16", "I;16L", "I;16B", "I;16N"):
        return _eight_bits(image)
    if image.mode in ("P", "PA", "La", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image.convert("L") if image.mode == "1" else image


def _eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of more than eight bits scaled to 0..255 by the range they use: 1, 255, 65535, more."""
    # Some rows at a time: numbers of many bits take much memory.
    bands = [(0, top, image.width, min(top + 64, image.height)) for top in range(0, image.height, 64)]
    greys = (np.asarray(image.crop(band)) for band in bands)
    tops = [float(grey.max()) if np.isfinite(grey).all() else np.nan for grey in greys]
    if not np.isfinite(tops).all():
        raise ValueError("not finite")
    scale = next((full for full in (1.0, 255.0, 65535.0) if max(tops) <= full), max(tops))
    if image.mode != "F":
        scale = max(scale, 65535.0)  # Pillow's mode "I" is how 16-bit integers arrive
    eight = Image.new("L", image.size)
    for band in bands:
        values = np.asarray(image.crop(band))
        grey = values.astype(np.float32)
        small = np.rint(grey / 257 if values.dtype == np.uint16 else np.clip(grey / scale, 0, 1) * 255)
        eight.paste(Image.fromarray(small.astype(np.uint8)), band)
    return eight


def _to_srgb(image: Image.Image) -> Image.Image:
    """RGB in sRGB on white; through the embedded ICC profile where it is usable, else by Pillow's plain conversion."""
    if image.mode in ("RGBA", "LA"):
        alpha = image.getchannel("A")
        colours = image.convert("RGB") if image.mode == "RGBA" else image.convert("L")
        colours.info = image.info
        opaque = Image.new("RGB", image.size, "white")
        opaque.paste(_to_srgb(colours), mask=alpha)
        return opaque
    icc = None if image.mode == "LAB" else image.info.get("icc_profile")
    if not icc and image.mode != "LAB":
        return image.convert("RGB")
    try:
        make = _known_transform if len(icc or b"") <= MAX_KEPT_PROFILE else _transform
        return make(icc, image.mode).apply(image)
    except (OSError, TypeError, ValueError):
        # A broken profile, or one of another colour space than the picture's: plain colours are better than none.
        return image.convert("RGB")


def _transform(icc: bytes | None, mode: str) -> ImageCms.ImageCmsTransform:
    """From a profile (None: LAB) to sRGB. Raises OSError, TypeError or ValueError."""
    profile = ImageCms.ImageCmsProfile(io.BytesIO(_without_chains(icc)) if icc else _LAB)
    return ImageCms.ImageCmsTransform(profile, ImageCms.ImageCmsProfile(_SRGB), mode, "RGB")


def _without_chains(icc: bytes) -> bytes:
    """The profile without its tags D2B and B2D (ICC.1:2022, section 9.2), which are optional: A2B says the same.

    Each is a chain of steps as long as it likes, and is computed at 36,000 points: a minute for a file of 2 kB.
    """
    profile = bytearray(icc)
    end = 132 + 12 * min(int.from_bytes(icc[128:132], "big"), 100)  # the most that littlecms reads
    for at in range(132, end, 12):
        if icc[at : at + 3] in (b"D2B", b"B2D"):
            profile[at : at + 1] = b"x"  # a tag of nobody's
    return bytes(profile)


# Most pictures bear one of a handful of profiles. To make a transform takes longer than to use it; threads share it.
_known_transform = lru_cache(maxsize=16)(_transform)
