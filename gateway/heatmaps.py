"""Where the model looked: one culture's map as a small grey PNG, or laid over the picture in colour. Pillow only."""

import io
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from serving import images

OVERLAY_SIDE: Final = 1024  # pixels, the longest side of an overlay
STRONGEST: Final = 0.6  # opacity of the colour where the map is at its highest
# From cold to hot, as matplotlib's "inferno": its brightness rises evenly, in print and for the colour-blind too.
_COLOURS: Final = ((0, 0, 4), (66, 10, 104), (147, 38, 103), (221, 81, 58), (252, 165, 10), (252, 255, 164))


@dataclass(frozen=True)
class Heatmap:
    """One culture's shares of the evidence, float32 [h, w]."""

    shares: NDArray[np.float32]

    @property
    def lowest(self) -> float:
        """The least share, drawn as 0."""
        return float(self.shares.min())

    @property
    def highest(self) -> float:
        """The greatest share, drawn as 255."""
        return float(self.shares.max())

    def grey(self) -> Image.Image:
        """One pixel for each position, linear from the lowest share (0) to the highest (255)."""
        span = self.highest - self.lowest
        scaled = (self.shares - self.lowest) / span if span > 0 else np.zeros_like(self.shares)
        return Image.fromarray(np.rint(scaled * 255).astype(np.uint8))

    def png(self) -> bytes:
        """`grey` as a file of some hundred bytes."""
        return _png(self.grey())

    def overlay(self, picture: images.Picture, description: str) -> bytes:
        """A PNG of the upright picture under the map's colours. Raises UndecodableImage."""
        shown = picture.fitted(OVERLAY_SIDE)
        grey = self.grey().resize(shown.size, Image.Resampling.BICUBIC)
        colours = grey.convert("P")
        colours.putpalette(_palette())
        opacity = grey.point([round(STRONGEST * value) for value in range(256)])
        shown.paste(colours.convert("RGB"), mask=opacity)
        return _png(shown, description)


def _palette() -> list[int]:
    """256 colours, red green blue one after the other."""
    stops = np.linspace(0, 255, len(_COLOURS))
    channels = [np.interp(np.arange(256), stops, channel) for channel in zip(*_COLOURS, strict=True)]
    return [round(float(value)) for value in np.stack(channels, -1).ravel()]


def _png(image: Image.Image, description: str = "") -> bytes:
    file, text = io.BytesIO(), PngInfo()
    if description:
        text.add_itxt("Description", description)
    image.save(file, "PNG", pnginfo=text)
    return file.getvalue()
