"""Files that a browser cannot draw: the service gives the picture, so that card, map, report and list have one."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, Request, expect

from tests.page.conftest import PICTURES, Service, serving_objects


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving_objects(tmp_path, ()) as service:
        yield service


def scan() -> bytes:
    """A TIFF of 900 x 1,200 pixels as people see it, red on the left and blue on the right, stored lying."""
    pixels = np.zeros((1200, 900, 3), np.uint8)
    pixels[:, :600, 0], pixels[:, 600:, 2] = 255, 255
    file = io.BytesIO()
    lying = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    lying.save(file, "TIFF", compression="tiff_lzw", tiffinfo={0x0112: 6})
    return file.getvalue()


def send(page: Page, name: str, content: bytes) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/tiff", "buffer": content})


@pytest.fixture
def answered(page: Page) -> Page:
    send(page, "scan.tif", scan())
    expect(page.locator(".verdict")).to_have_text("red")
    expect(page.locator(".kept")).to_have_count(1)
    return page


COLOURS = """image => {
    const brush = new OffscreenCanvas(90, 120).getContext("2d");
    brush.drawImage(image, 0, 0, 90, 120);
    return [20, 75].map((x) => [...brush.getImageData(x, 60, 1, 1).data]);
}"""


def shows_the_scan(image: Locator) -> None:
    """Upright, in its own shape, red on the left and blue on the right."""
    expect(image).to_have_js_property("naturalHeight", 640)
    expect(image).to_have_js_property("naturalWidth", 480)
    left, right = image.evaluate(COLOURS)
    assert left[0] > 240
    assert left[2] < 15
    assert right[0] < 15
    assert right[2] > 240


def test_the_card_shows_a_tiff_upright(answered: Page) -> None:
    shown = answered.get_by_role("img", name="Your picture scan.tif")
    expect(shown).to_be_visible()
    shows_the_scan(shown)
    expect(answered.get_by_text("The browser cannot show this picture.").first).to_be_hidden()


def test_the_map_lies_on_it(answered: Page) -> None:
    answered.get_by_role("button", name="Where did it look?").click()
    expect(answered.locator(".heat")).to_be_visible()
    assert answered.locator(".heat").bounding_box() == answered.locator(".shown").bounding_box()
    darkness = "e => [40, 200].map((x) => e.getContext('2d').getImageData(x, 112, 1, 1).data[3])"
    assert answered.locator(".heat").evaluate(darkness) == [0, 255]


def test_the_report_has_picture_and_map(answered: Page) -> None:
    answered.emulate_media(media="print")
    for image in answered.locator(".report img").all():
        expect(image).to_be_visible()
        shows_the_scan(image)
    expect(answered.locator(".report-heat")).to_be_visible()
    expect(answered.get_by_text("The browser cannot show this picture.").last).to_be_hidden()


def test_it_survives_a_reload_with_map_and_report(answered: Page) -> None:
    answered.reload()
    shows_the_scan(answered.locator(".kept img"))
    answered.get_by_role("button", name="Open again").click()
    shows_the_scan(answered.locator(".card .shown"))
    answered.get_by_role("button", name="Where did it look?").click()
    expect(answered.locator(".heat")).to_be_visible()
    shows_the_scan(answered.locator(".report-picture"))


def test_a_webp_that_the_browser_draws_lying_is_shown_upright(page: Page) -> None:
    pixels = np.zeros((1200, 900, 3), np.uint8)
    pixels[:, :450, 0], pixels[:, 450:, 2] = 255, 255
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90).save(file, "WEBP", lossless=True, exif=exif)
    send(page, "scan.webp", file.getvalue())
    expect(page.locator(".kept")).to_have_count(1)
    shows_the_scan(page.locator(".card .shown"))


def test_the_picture_is_kept_once(answered: Page) -> None:
    kept = answered.evaluate("async () => (await (await import('/page/history.js')).kept())[0].answer")
    assert "preview" not in {*kept, *kept["explanation"]}


def test_it_is_asked_for_by_the_same_call_and_only_when_the_browser_cannot_draw(answered: Page) -> None:
    asked: list[Request] = []
    answered.on("request", lambda request: asked.append(request) if request.method == "POST" else None)
    send(answered, "again.tif", scan())
    expect(answered.locator(".kept")).to_have_count(2)
    answered.set_input_files("#file", PICTURES / "japanese-met-59669.jpg")
    expect(answered.locator(".kept")).to_have_count(3)
    assert ["preview" in request.url for request in asked] == [True, False]


def test_a_model_that_explains_nothing_leaves_the_picture(page: Page, service: Service) -> None:
    explaining = service.server.behaviour
    service.server.behaviour = service.answer
    service.explains = False
    send(page, "scan.tif", scan())
    expect(page.locator(".verdict")).to_have_text("French")
    shows_the_scan(page.locator(".card .shown"))
    service.server.behaviour = explaining
