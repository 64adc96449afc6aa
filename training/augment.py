"""What may happen to a picture before the model sees it in training. Pillow and numpy only.

The model always sees squashed pictures, so a crop is squashed too: aspect ratio must not tell one class from another.
Colour must not either: every class loses its colours equally often, as many of our pictures are black-and-white plates.
A view has fewer pixels than a picture, as its crop has less of the scene: what is painted keeps its size, and half the
work is saved. The head reads statistics over positions, which do not mind how many there are.
"""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter


@dataclass(frozen=True)
class Augmentation:
    """How often and how much. Probabilities are per picture."""

    side: int = 160  # pixels of a view; a multiple of 16
    least_area: float = 0.35  # of the picture that a crop keeps, at least
    greatest_area: float = 0.8  # and at most; side / 224 squared, 0.51, keeps the scale
    greatest_stretch: float = 1.35  # of the crop's aspect ratio, either way
    rotation: float = 4.0  # degrees, either way, in 40 % of the pictures
    grey: float = 0.3  # probability of losing all colour
    light: float = 0.25  # relative change of brightness, contrast and saturation
    white_balance: float = 0.12  # relative change of each channel: lamps, scanners, yellowed paper
    blur: float = 0.25  # probability of a Gaussian blur of up to 1.5 pixels, or of a detour over fewer pixels
    jpeg: float = 0.4  # probability of one more JPEG of quality 30 to 85
    flip: float = 0.0  # probability of a mirror image: breaks writing


def augment(picture: Image.Image, settings: Augmentation, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One random view of an upright RGB picture of any size: uint8 [side, side, 3]."""
    if rng.random() < 0.4:
        angle = rng.uniform(-1, 1) * settings.rotation
        picture = picture.rotate(angle, Image.Resampling.BILINEAR, fillcolor=_edge(picture))
    box = _crop(picture.size, settings, rng)
    view = picture.resize((settings.side, settings.side), Image.Resampling.BILINEAR, box=box)
    if rng.random() < settings.flip:
        view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    view = _light(view, settings, rng)
    if rng.random() < settings.grey:
        view = view.convert("L").convert("RGB")
    return np.asarray(_reproduce(view, settings, rng))


def _crop(size: tuple[int, int], settings: Augmentation, rng: np.random.Generator) -> tuple[float, float, float, float]:
    width, height = size
    area = rng.uniform(settings.least_area, settings.greatest_area)
    stretch = np.exp(rng.uniform(-1, 1) * np.log(settings.greatest_stretch) / 2)
    w, h = min(1.0, np.sqrt(area) * stretch) * width, min(1.0, np.sqrt(area) / stretch) * height
    left, top = rng.uniform(0, width - w), rng.uniform(0, height - h)
    return left, top, left + w, top + h


def _light(view: Image.Image, settings: Augmentation, rng: np.random.Generator) -> Image.Image:
    for change in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        view = change(view).enhance(1 + rng.uniform(-1, 1) * settings.light)
    gains = 1 + rng.uniform(-1, 1, 3) * settings.white_balance
    return Image.fromarray((np.asarray(view) * gains).clip(0, 255).astype(np.uint8))


def _reproduce(view: Image.Image, settings: Augmentation, rng: np.random.Generator) -> Image.Image:
    """What cameras, scanners and web sites do: less sharpness, and JPEG once more."""
    if rng.random() < settings.blur:
        if rng.random() < 0.5:
            view = view.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.5)))
        else:
            small = int(settings.side * rng.uniform(0.5, 0.9))
            view = view.resize((small, small), Image.Resampling.BILINEAR).resize(view.size, Image.Resampling.BICUBIC)
    if rng.random() < settings.jpeg:
        data = io.BytesIO()
        view.save(data, "JPEG", quality=int(rng.integers(30, 86)))
        view = Image.open(data).convert("RGB")
    return view


def _edge(picture: Image.Image) -> tuple[int, int, int]:
    """The mean colour of the border, which rotation lets in at the corners."""
    values = np.asarray(picture)
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    red, green, blue = border.mean(0).astype(int)
    return int(red), int(green), int(blue)
