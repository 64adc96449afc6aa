"""Where the model looked and what it resembles, from a servable whose maps are the picture's own colour channels."""

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from serving.index import ArtObject
from tests.page.conftest import Service, serving_objects

OBJECTS = (
    ArtObject(title="Red vase", artist="Rosa", culture="red", source="The Museum", url="https://example.org/1"),
    ArtObject(title="Green vase", culture="green", url="javascript:alert(1)"),
    ArtObject(title="Blue <b>vase</b>", culture="blue"),
)


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving_objects(tmp_path, OBJECTS) as service:
        yield service


@pytest.fixture
def answered(page: Page) -> Page:
    """The page with an answer for a picture that is red on the left and blue on the right."""
    pixels = np.zeros((224, 224, 3), np.uint8)
    pixels[:, :144, 0], pixels[:, 144:, 2] = 255, 255
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    page.set_input_files("#file", {"name": "halves.png", "mimeType": "image/png", "buffer": file.getvalue()})
    expect(page.locator(".verdict")).to_have_text("red")
    return page


def look(page: Page) -> None:
    page.get_by_role("button", name="Where did it look?").click()
    expect(page.locator(".heat")).to_be_visible()


def darkness(page: Page, x: int) -> int:
    """0 to 255, in the middle of the map, `x` of its 224 pixels from the left."""
    alpha: int = page.locator(".heat").evaluate(f"e => e.getContext('2d').getImageData({x}, 112, 1, 1).data[3]")
    return alpha


def test_answer_and_evidence_come_by_one_call(answered: Page, service: Service) -> None:
    look(answered)
    assert [call.request.model_spec.signature_name for call in service.server.calls] == ["explain"]


def test_light_falls_where_the_picture_spoke_for_the_culture(answered: Page) -> None:
    look(answered)
    assert [darkness(answered, 40), darkness(answered, 200)] == [0, 255]


def test_another_culture_may_be_chosen(answered: Page) -> None:
    look(answered)
    answered.get_by_label("Where it looked for").select_option("blue")
    expect(answered.locator(".evidence-words")).to_contain_text("spoke for blue")
    assert [darkness(answered, 40), darkness(answered, 200)] == [255, 0]


def test_the_darkness_lies_exactly_on_the_picture(answered: Page) -> None:
    look(answered)
    assert answered.locator(".heat").bounding_box() == answered.locator(".shown").bounding_box()


def test_the_darkness_can_be_taken_away(answered: Page) -> None:
    look(answered)
    answered.get_by_label("Dim the rest").fill("0")
    expect(answered.locator(".heat")).to_have_css("opacity", "0")


def test_the_focus_goes_on_to_the_choice_of_cultures(answered: Page) -> None:
    answered.get_by_role("button", name="Where did it look?").press("Enter")
    expect(answered.get_by_label("Where it looked for")).to_be_focused()


def test_no_map_is_asked_for_after_the_answer(answered: Page, service: Service) -> None:
    look(answered)
    for culture in ("blue", "red", "blue"):
        answered.get_by_label("Where it looked for").select_option(culture)
        expect(answered.locator(".evidence-words")).to_contain_text(f"spoke for {culture}")
    assert len(service.server.calls) == 1


def test_the_objects_it_resembles_are_listed_nearest_first(answered: Page) -> None:
    expect(answered.locator(".neighbour-list > li")).to_contain_text(["Red vase", "Blue <b>vase</b>", "Green vase"])


def test_only_addresses_of_the_web_become_links(answered: Page) -> None:
    links = answered.locator(".neighbour-list a")
    expect(links).to_have_count(1)
    expect(links).to_have_attribute("href", "https://example.org/1")


def test_an_answer_opened_again_has_the_maps_of_all_cultures(answered: Page, service: Service) -> None:
    answered.get_by_role("button", name="Remove").click()
    answered.get_by_role("button", name="Open again").click()
    look(answered)
    answered.get_by_label("Where it looked for").select_option("blue")
    expect(answered.locator(".evidence-words")).to_contain_text("spoke for blue")
    assert [darkness(answered, 40), darkness(answered, 200)] == [255, 0]
    assert len(service.server.calls) == 1


def test_axe_finds_nothing_in_the_evidence(answered: Page) -> None:
    look(answered)
    results = Axe().run(answered)
    assert results.violations_count == 0, results.generate_report()


def test_evidence_needs_no_sideways_scrolling_on_a_phone(answered: Page) -> None:
    answered.set_viewport_size({"width": 320, "height": 700})
    look(answered)
    assert answered.evaluate("document.documentElement.scrollWidth") == 320
