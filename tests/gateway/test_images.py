"""serving.images: every rule of the pixels. In the gateway's environment, since the gateway relies on it."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms

from serving import images

GOLDEN = Path(__file__).parent / "golden"
Array = NDArray[np.uint8]


def scene(width: int = 400, height: int = 300) -> Image.Image:
    """Smooth colours with an asymmetric dark bar, so that a flip, a turn or swapped channels show."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    red = 255 * x / width
    green = 255 * y / height
    blue = 127 + 120 * np.sin(x / 40) * np.cos(y / 30)
    array = np.stack([red, green, blue], axis=-1).clip(0, 255).astype(np.uint8)
    array[: height // 3, : width // 8] = (10, 20, 30)
    return Image.fromarray(array)


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def difference(one: Array, other: Array) -> float:
    return float(np.abs(one.astype(int) - other.astype(int)).mean())


@pytest.fixture(scope="module")
def expected() -> Array:
    return images.decode(encode(scene(), "PNG"))


def test_decode_gives_rgb_uint8_of_the_models_size(expected: Array) -> None:
    assert expected.shape == (224, 224, 3)
    assert expected.dtype == np.uint8


@pytest.mark.parametrize("name", ["scene.png", "scene.jpg", "large.jpg", "cmyk.jpg", "palette.gif", "alpha.png"])
def test_decode_equals_the_golden_array(name: str) -> None:
    golden = np.load(GOLDEN / "pixels.npz")[name]
    assert np.abs(images.decode((GOLDEN / name).read_bytes()).astype(int) - golden.astype(int)).max() <= 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {"quality": 95}),
        ("JPEG", {"quality": 95, "progressive": True}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {"quality": 95}),
        ("AVIF", {"quality": 95}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"big_tiff": True}),
        ("GIF", {}),
    ],
)
def test_decode_reads_every_accepted_format(kind: str, options: dict[str, object], expected: Array) -> None:
    data = encode(scene(), kind, **options)
    assert images.sniff(data) == kind
    assert difference(images.decode(data), expected) < (6 if kind == "GIF" else 4)  # 256 colours


@pytest.mark.parametrize("kind", ["BMP", "ICO", "PPM", "PDF", "JPEG2000"])
def test_decode_refuses_other_formats_by_their_bytes(kind: str) -> None:
    with pytest.raises(images.UnsupportedFormat, match="accepted format"):
        images.decode(encode(scene(), kind))


@pytest.mark.parametrize(
    "data", [b"", b"hello, I am a text", b"\x00" * 1000, b"<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_decode_refuses_what_is_no_picture(data: bytes) -> None:
    with pytest.raises(images.UnsupportedFormat):
        images.decode(data)


@pytest.mark.parametrize("kind", images.FORMATS)
def test_decode_calls_a_truncated_picture_undecodable(kind: str) -> None:
    data = encode(scene(), kind)
    for cut in (16, len(data) // 4, len(data) // 2, len(data) - len(data) // 8):
        with pytest.raises(images.UndecodableImage, match=f"truncated {kind} picture"):
            images.decode(data[:cut])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_turns_pictures_upright(orientation: int, kind: str, expected: Array) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that the orientation undoes
    stored = scene().transpose(Image.Transpose(undo[orientation])) if orientation > 1 else scene()
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(stored, kind, exif=exif, quality=95)
    assert difference(images.decode(data), expected) < (1 if kind in ("PNG", "TIFF") else 4)
    assert images.load(data).upright_size == scene().size


def test_decode_ignores_a_broken_exif_block(expected: Array) -> None:
    data = encode(scene(), "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert difference(images.decode(data), expected) == 0


def test_decode_ignores_a_broken_icc_profile(expected: Array) -> None:
    assert difference(images.decode(encode(scene(), "PNG", icc_profile=b"no profile at all")), expected) == 0


def test_decode_converts_through_the_embedded_profile() -> None:
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = srgb.replace(b"rXYZ", b"?").replace(b"bXYZ", b"rXYZ").replace(b"?", b"bXYZ")  # red means blue
    plain = images.decode(encode(scene(), "PNG"))
    assert difference(images.decode(encode(scene(), "PNG", icc_profile=srgb)), plain) < 1
    assert difference(images.decode(encode(scene(), "PNG", icc_profile=swapped)), plain[..., ::-1]) < 1


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_decode_puts_transparent_pictures_on_white(mode: str) -> None:
    image = Image.new("RGBA", (100, 100), (255, 0, 0, 0))
    image.paste((0, 0, 0, 255), (0, 0, 50, 100))
    pixels = images.decode(encode(image.convert(mode), "PNG"))
    assert pixels[112, 20].tolist() == [0, 0, 0]
    assert pixels[112, 200].tolist() == [255, 255, 255]


def test_decode_honours_a_transparent_colour_key() -> None:
    image = Image.new("RGB", (64, 64), (0, 255, 0))
    assert images.decode(encode(image, "PNG", transparency=(0, 255, 0))).min() == 255


def test_decode_scales_sixteen_bit_grey() -> None:
    grey = np.linspace(0, 65535, 224).astype(np.uint16)[None, :].repeat(224, axis=0)
    pixels = images.decode(encode(Image.fromarray(grey), "PNG"))
    assert pixels[100, 0].tolist() == [0, 0, 0]
    assert pixels[100, 112, 0] == pytest.approx(128, abs=1)
    assert pixels[100, 223].tolist() == [255, 255, 255]


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_decode_scales_floating_point_grey_by_the_range_it_uses(top: float) -> None:
    grey = np.linspace(0, top, 224, dtype=np.float32)[None, :].repeat(224, axis=0)
    assert images.decode(encode(Image.fromarray(grey), "TIFF"))[0, 112, 0] == pytest.approx(128, abs=1)


def test_decode_refuses_floating_point_pictures_with_nan() -> None:
    with pytest.raises(images.UndecodableImage):
        images.decode(encode(Image.fromarray(np.full((32, 32), np.nan, np.float32)), "TIFF"))


def test_decode_takes_cmyk_as_the_colours_it_prints(expected: Array) -> None:
    assert difference(images.decode(encode(scene().convert("CMYK"), "JPEG", quality=95)), expected) < 4


def test_decode_takes_the_first_frame_of_an_animation(expected: Array) -> None:
    other = Image.new("RGB", scene().size, "blue")
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        data = encode(scene(), kind, save_all=True, append_images=[other, other])
        assert difference(images.decode(data), expected) < 6


def test_decode_squashes_the_aspect_ratio() -> None:
    """Neither padding nor cropping: both would tell the shape of the file, which gives classes away."""
    image = Image.new("RGB", (1000, 50), "red")
    image.paste((0, 0, 255), (500, 0, 1000, 50))
    pixels = images.decode(encode(image, "PNG"))
    assert (pixels[:, :100] == (255, 0, 0)).all()
    assert (pixels[:, 124:] == (0, 0, 255)).all()


def test_decode_of_a_large_jpeg_is_close_to_the_full_decode() -> None:
    large = scene(2000, 1500)
    assert difference(images.decode(encode(large, "JPEG", quality=92)), images.decode(encode(large, "PNG"))) < 1.5


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    rows = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + chunk(b"IDAT", rows)
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (10_000, 5_001), (2**31 - 1, 2**31 - 1)])
def test_decode_refuses_too_many_pixels_before_decoding(width: int, height: int) -> None:
    with pytest.raises(images.UnacceptableImage, match="50,000,000"):
        images.decode(png_header(width, height))


def test_decode_takes_the_pixel_limit_from_the_caller() -> None:
    data = encode(scene(100, 100), "PNG")
    images.decode(data, max_pixels=10_000)
    with pytest.raises(images.UnacceptableImage, match="100 x 100 pixels are more than the 9,999 accepted"):
        images.decode(data, max_pixels=9_999)


def test_decode_refuses_a_webp_bomb_by_its_header() -> None:
    data = bytearray(encode(scene(), "WEBP", icc_profile=b"makes it an extended file"))
    assert data[12:16] == b"VP8X"
    data[24:30] = b"\xfe\x3f\x00\xfe\x3f\x00"  # a canvas of 16383 x 16383
    with pytest.raises(images.UnacceptableImage, match="16383 x 16383"):
        images.decode(bytes(data))


def test_load_tells_format_and_size_as_stored() -> None:
    picture = images.load(encode(scene(), "JPEG"))
    assert (picture.format, picture.width, picture.height, picture.megapixels) == ("JPEG", 400, 300, 0.12)


def test_upright_keeps_the_shape_that_is_asked_for() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = images.load(encode(scene(400, 300), "JPEG", exif=exif))
    assert picture.upright((150, 200)).size == (150, 200)
    assert picture.fitted(200).size == (150, 200)
    assert picture.fitted(1000).size == (300, 400)  # never larger than it is
