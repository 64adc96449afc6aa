"""What is uploaded: the pictures of tests/images, and two sizes made of one of them."""

import io
from pathlib import Path

from PIL import Image

from tests.bench.load import Body

IMAGES = Path(__file__).parents[1] / "images"
BOUNDARY = "whence-bench"


def real() -> list[bytes]:
    """The fourteen pictures as they are: 38 to 458 kB, 120 kB on average."""
    return [path.read_bytes() for path in sorted(IMAGES.glob("*.jpg"))]


def upload_300_kb() -> bytes:
    """A photograph of 300 kB, 1200 x 900 pixels, at the JPEG quality that comes closest."""
    picture = Image.open(IMAGES / "french-met-437654.jpg").resize((1200, 900), Image.Resampling.BICUBIC)
    return min((_jpeg(picture, quality) for quality in range(70, 100, 2)), key=lambda data: abs(len(data) - 300_000))


def large() -> bytes:
    """2000 x 1500 pixels, as a phone makes them."""
    picture = Image.open(IMAGES / "french-met-437654.jpg").resize((2000, 1500), Image.Resampling.BICUBIC)
    return _jpeg(picture, 85)


def raw(picture: bytes) -> Body:
    """The picture is the body."""
    return Body(picture, "image/jpeg")


def multipart(picture: bytes) -> Body:
    """The picture is a form's file, as a browser or `curl -F` sends it."""
    head = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return Body(
        head.encode() + picture + f"\r\n--{BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={BOUNDARY}"
    )


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()
