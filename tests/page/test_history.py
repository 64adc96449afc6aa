"""Answers that the browser keeps: they survive, they stay where they are, and they can be forgotten."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, BrowserContext, Page, Playwright, expect

from tests.page.conftest import CHROMIUM, FLAGS, PICTURES, UNSURE, Service

PICTURE = PICTURES / "japanese-met-59669.jpg"
HOSTILE = "\u202e<img src=x onerror=\"document.title='taken'\">&lt;b&gt;'.jpg"


def answer(page: Page, *, name: str = PICTURE.name, kept: int = 1) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": PICTURE.read_bytes()})
    expect(page.locator(".kept")).to_have_count(kept)


def open_again(page: Page, name: str = PICTURE.name) -> None:
    page.get_by_role("button", name=f"Open again: French, 71 % {name}").click()
    expect(page.locator(".card[data-state=accepted]")).to_be_visible()


def test_an_answer_survives_a_reload(page: Page) -> None:
    answer(page)
    page.reload()
    told = re.compile(rf"French, 71\s%\s+{re.escape(PICTURE.name)}\s+\d+ \w+ \d{{4}} at \d\d:\d\d")
    expect(page.locator(".kept-open")).to_contain_text(told)


def test_a_small_copy_of_the_picture_survives_a_reload(page: Page) -> None:
    answer(page)
    page.reload()
    expect(page.locator(".kept img")).to_have_js_property("naturalWidth", 373)


def test_the_decision_is_listed_in_words(page: Page, service: Service) -> None:
    service.decision, service.probabilities = "abstained", UNSURE
    answer(page)
    expect(page.locator(".kept-answer")).to_have_text("Not sure: closest to French, 29 %")


def test_the_page_says_that_nothing_leaves_the_browser(page: Page) -> None:
    answer(page)
    expect(page.get_by_role("region", name="Earlier answers")).to_contain_text(
        "Nothing of this list leaves this browser"
    )


def test_without_answers_there_is_no_list(page: Page) -> None:
    expect(page.locator("#history")).to_be_hidden()


def test_a_problem_is_not_kept(page: Page) -> None:
    page.set_input_files("#file", {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8\xff no"})
    expect(page.locator(".card[data-state=failed]")).to_be_visible()
    answer(page)


def test_an_answer_opened_again_is_the_whole_card(page: Page) -> None:
    answer(page)
    before = page.locator(".card .label").inner_text()
    page.reload()
    open_again(page)
    assert page.locator(".card .label").inner_text() == before.replace("\n\nWhere", ", kept in this browser\n\nWhere")


def test_where_it_looked_can_be_seen_again(page: Page) -> None:
    answer(page)
    page.reload()
    open_again(page)
    page.get_by_role("button", name="Where did it look?").click()
    expect(page.locator(".card .heat")).to_be_visible()


def test_keeping_and_opening_asks_nobody(page: Page, service: Service) -> None:
    answer(page)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(f"{request.method} {request.url.removeprefix(service.url)}"))
    page.reload()
    page.wait_for_load_state("networkidle")
    assert not [call for call in asked if re.match(r"POST|GET /v1", call)]
    asked.clear()
    open_again(page)
    page.get_by_role("button", name="Where did it look?").click()
    page.get_by_role("button", name="Forget").first.click()
    expect(page.locator(".kept")).to_have_count(0)
    assert [call for call in asked if "blob:" not in call and "data:" not in call] == []
    assert len(service.server.calls) == 1


def test_an_answer_on_the_page_is_not_put_up_twice(page: Page) -> None:
    answer(page)
    open_again(page)
    expect(page.locator(".card")).to_have_count(1)


def test_removing_a_card_keeps_the_answer(page: Page) -> None:
    answer(page)
    page.get_by_role("button", name="Remove").click()
    open_again(page)


def test_the_newest_comes_first_and_the_rest_is_shown_when_asked_for(page: Page) -> None:
    for number in range(8):
        answer(page, name=f"{number}.jpg", kept=min(number + 1, 6))
        # From six on their number does not tell that this one is kept.
        expect(page.locator(".kept-name").first).to_have_text(f"{number}.jpg")
    expect(page.locator(".kept-name")).to_have_text([f"{number}.jpg" for number in (7, 6, 5, 4, 3, 2)])
    page.get_by_role("button", name="Show all 8").click()
    expect(page.locator(".kept-name")).to_have_count(8)
    expect(page.get_by_role("button", name="Open again: French, 71 % 1.jpg")).to_be_focused()


KEPT = """async ({count, bytes}) => {
    const history = await import("/page/history.js");
    const preview = new Blob([new Uint8Array(bytes)]);
    const answer = { culture: "French", probability: 0.7, decision: "accepted" };
    for (let at = 0; at < count; at++) await history.keep({ at, name: `${at}`, answer, preview });
    return (await history.kept()).map(({ at }) => at);
}"""


def test_the_oldest_of_too_many_are_dropped(page: Page) -> None:
    assert page.evaluate(KEPT, {"count": 63, "bytes": 9}) == list(range(62, 2, -1))


def test_the_oldest_of_too_large_ones_are_dropped(page: Page) -> None:
    kept = page.evaluate(KEPT, {"count": 14, "bytes": 1024 * 1024})
    assert kept == list(range(13, 2, -1))  # eleven and what is said beside them; twelve would be above 12 MiB


def test_a_forgotten_answer_stays_forgotten(page: Page) -> None:
    answer(page, name="first.jpg")
    answer(page, name="second.jpg", kept=2)
    page.get_by_role("button", name="Forget second.jpg").click()
    expect(page.locator(".kept")).to_have_count(1)
    page.reload()
    expect(page.locator(".kept-name")).to_have_text(["first.jpg"])


def test_forgetting_leaves_the_focus_on_the_next_one(page: Page) -> None:
    answer(page, name="first.jpg")
    answer(page, name="second.jpg", kept=2)
    page.get_by_role("button", name="Forget second.jpg").press("Enter")
    expect(page.get_by_role("button", name="Forget first.jpg")).to_be_focused()


def test_all_are_forgotten_after_a_yes(page: Page) -> None:
    answer(page)
    page.on("dialog", lambda dialog: dialog.accept())
    page.get_by_role("button", name="Forget all").click()
    expect(page.locator("#history")).to_be_hidden()
    page.reload()
    expect(page.locator(".kept")).to_have_count(0)


def test_none_is_forgotten_after_a_no(page: Page) -> None:
    answer(page)
    page.on("dialog", lambda dialog: dialog.dismiss())
    page.get_by_role("button", name="Forget all").click()
    expect(page.locator(".kept")).to_have_count(1)


def test_another_tab_learns_of_it(page: Page, context: BrowserContext) -> None:
    answer(page)
    other = context.new_page()
    other.goto("/")
    other.get_by_role("button", name="Forget").first.click()
    expect(other.locator(".kept")).to_have_count(0)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")  # headless pages are never in the background
    expect(page.locator(".kept")).to_have_count(0)


def test_a_hostile_name_is_nothing_but_text(page: Page) -> None:
    answer(page, name=HOSTILE)
    page.reload()
    expect(page.locator(".kept-name")).to_have_text(HOSTILE)
    open_again(page, HOSTILE)
    expect(page.locator(".caption")).to_have_text(HOSTILE)
    assert page.title() != "taken"


def test_a_long_name_needs_no_sideways_scrolling_on_a_phone(page: Page) -> None:
    page.set_viewport_size({"width": 320, "height": 700})
    answer(page, name=f"{'long' * 60}.jpg")
    assert page.evaluate("document.documentElement.scrollWidth") == 320


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_the_list(browser: Browser, service: Service, scheme: Literal["light", "dark"]) -> None:
    context = browser.new_context(base_url=service.url, color_scheme=scheme, reduced_motion="reduce")
    page = context.new_page()
    page.goto("/")
    answer(page)
    results = Axe().run(page)
    context.close()
    assert results.violations_count == 0, results.generate_report()


@pytest.fixture
def full(page: Page, context: BrowserContext, service: Service) -> Page:
    """The page in a browser that has no room left."""
    devtools = context.new_cdp_session(page)
    devtools.send("Storage.overrideQuotaForOrigin", {"origin": service.url, "quotaSize": 1})
    return page


@pytest.fixture
def forbidding(playwright: Playwright, service: Service, tmp_path: Path) -> Iterator[Page]:
    """The page in a browser that lets no site keep anything."""
    (tmp_path / "Default").mkdir()
    (tmp_path / "Default/Preferences").write_text('{"profile": {"default_content_setting_values": {"cookies": 2}}}')
    context = playwright.chromium.launch_persistent_context(tmp_path, executable_path=CHROMIUM, args=FLAGS)
    page = context.new_page()
    page.goto(service.url)
    yield page
    context.close()


@pytest.mark.parametrize("refusing", ["full", "forbidding"])
def test_a_browser_that_keeps_nothing_still_shows_answers_and_says_so(
    refusing: str, request: pytest.FixtureRequest
) -> None:
    page: Page = request.getfixturevalue(refusing)
    for count in (1, 2):
        page.set_input_files("#file", PICTURE)
        expect(page.locator(".card[data-state=accepted]")).to_have_count(count)
    expect(page.get_by_text("This browser keeps nothing for the page")).to_have_count(1)
    expect(page.locator(".kept")).to_have_count(0)
