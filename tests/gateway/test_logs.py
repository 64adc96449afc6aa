"""What is logged, and what is not."""

import logging.config
import struct
from contextlib import suppress

import pytest
from PIL import Image

from gateway import logs
from serving import images
from tests.hostile.pictures import saved


def test_an_absurd_tiff_is_no_line_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Its sender is told; Pillow would tell it at level error besides, once for each such picture."""
    logging.config.dictConfig(logs.config("debug"))
    samples = struct.pack("<HHI", 277, 3, 1)  # SamplesPerPixel, SHORT, one of them
    absurd = saved(Image.new("RGB", (8, 8)), "TIFF").replace(samples + b"\x03", samples + b"\xff")
    with suppress(images.ImageError):
        images.decode(absurd)
    assert "samples" not in capsys.readouterr().out
