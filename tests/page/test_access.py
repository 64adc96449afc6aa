"""The page for everyone: keyboard, screen reader, phone, dark rooms; and nobody else hears of the visit."""

import io
import re
from typing import Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, FilePayload, Page, expect

from tests.page.conftest import PICTURES, Service

PICTURE = PICTURES / "japanese-met-59669.jpg"
BROKEN: FilePayload = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff no picture"}


def answer(page: Page, state: str = "accepted") -> None:
    page.set_input_files("#file", PICTURE)
    expect(page.locator(f".card[data-state={state}]")).to_be_visible()


def tab_to(page: Page, name: str) -> None:
    """Press Tab until the button `name` has the focus."""
    button = page.get_by_role("button", name=name)
    for _ in range(30):
        page.keyboard.press("Tab")
        if button.evaluate("e => e === document.activeElement"):
            return
    pytest.fail(f"Tab never reached {name!r}")


def test_the_chooser_opens_by_keyboard(page: Page) -> None:
    with page.expect_file_chooser() as chooser:
        tab_to(page, "Choose a picture")
        page.keyboard.press("Enter")
    chooser.value.set_files(PICTURE)
    expect(page.locator(".card[data-state=accepted]")).to_be_visible()


def test_a_sample_is_tried_and_removed_by_keyboard(page: Page) -> None:
    tab_to(page, "Old Plum")
    page.keyboard.press("Enter")
    expect(page.locator(".card[data-state=accepted]")).to_be_visible()
    tab_to(page, "Remove Old Plum")
    page.keyboard.press("Space")
    expect(page.locator(".card")).to_have_count(0)


def test_removing_a_card_leaves_the_focus_on_the_page(page: Page) -> None:
    answer(page)
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_role("button", name="Choose a picture")).to_be_focused()


def test_removing_one_of_several_cards_leaves_the_focus_on_the_next(page: Page) -> None:
    page.set_input_files("#file", sorted(PICTURES.glob("*.jpg"))[:3])
    expect(page.locator(".card[data-state=accepted]")).to_have_count(3)
    for _ in range(2):
        page.locator(".remove").nth(1).click()
        expect(page.locator(".remove").last).to_be_focused()
    expect(page.locator(".remove")).to_have_count(1)


def test_the_focus_can_be_seen(page: Page) -> None:
    tab_to(page, "Choose a picture")
    expect(page.locator("#choose")).to_have_css("outline-style", "solid")


def test_the_tab_order_is_the_reading_order(page: Page) -> None:
    answer(page)
    orders = page.evaluate("[...document.querySelectorAll('button, a[href]')].map(e => e.tabIndex)")
    assert set(orders) == {0}


def test_an_answer_is_announced_in_one_sentence(page: Page) -> None:
    answer(page)
    said = re.compile(rf"{PICTURE.name}: Resembles objects catalogued as French, probability 71\s%\.")
    expect(page.get_by_role("status")).to_have_text(said)


def test_a_problem_is_announced(page: Page) -> None:
    page.set_input_files("#file", BROKEN)
    expect(page.get_by_role("status")).to_contain_text("broken.jpg: no answer.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("state", ["empty", "accepted", "abstained", "out_of_distribution", "failed"])
def test_axe_finds_nothing(browser: Browser, service: Service, state: str, scheme: Literal["light", "dark"]) -> None:
    context = browser.new_context(base_url=service.url, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.goto("/")
    if state == "failed":
        page.set_input_files("#file", BROKEN)
        expect(page.locator(".card[data-state=failed]")).to_be_visible()
    elif state != "empty":
        service.decision = state
        answer(page, state)
    results = Axe().run(page)
    context.close()
    assert results.violations_count == 0, results.generate_report()


@pytest.mark.parametrize("width", [320, 360, 414])
def test_a_phone_needs_no_sideways_scrolling(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 700})
    answer(page)
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_words_on_buttons_keep_to_one_line_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 700})
    answer(page)
    boxes = [button.bounding_box() for button in page.locator(".card .actions button:visible").all()]
    assert len(boxes) == 3
    assert all(box and box["height"] < 40 for box in boxes)


def test_an_answer_scrolls_into_sight_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    answer(page)
    expect(page.locator(".verdict")).to_be_in_viewport()


def test_darkness_is_followed(browser: Browser, service: Service) -> None:
    context = browser.new_context(base_url=service.url, color_scheme="dark")
    page = context.new_page()
    page.goto("/")
    red, green, blue = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)")
    context.close()
    assert max(red, green, blue) < 60


def test_ink_without_a_ground_is_seen_in_the_dark_as_the_model_sees_it(browser: Browser, service: Service) -> None:
    context = browser.new_context(base_url=service.url, color_scheme="dark")
    page = context.new_page()
    page.goto("/")
    ink = io.BytesIO()
    Image.new("RGBA", (300, 300)).save(ink, "PNG")
    page.set_input_files("#file", {"name": "ink.png", "mimeType": "image/png", "buffer": ink.getvalue()})
    expect(page.locator(".card[data-state=accepted]")).to_be_visible()
    seen = Image.open(io.BytesIO(page.locator(".shown").screenshot())).convert("RGB")
    context.close()
    assert seen.getpixel((150, 150)) == (255, 255, 255)


def test_nothing_moves_for_those_who_asked_for_calm(page: Page) -> None:
    answer(page)
    assert page.evaluate("document.getAnimations().length") == 0


def test_no_other_host_is_asked(context: BrowserContext, service: Service) -> None:
    asked: list[str] = []
    page = context.new_page()
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/")
    page.get_by_role("button", name="Old Plum").click()
    expect(page.locator(".card[data-state=accepted]")).to_be_visible()
    here = urlsplit(service.url).netloc
    assert {urlsplit(url).netloc for url in asked if not url.startswith("blob:")} == {here}


def test_the_console_stays_silent(context: BrowserContext) -> None:
    said: list[str] = []
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.goto("/")
    answer(page)
    page.get_by_role("button", name="Remove").click()
    assert said == []
