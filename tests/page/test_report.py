"""Reports on paper: one page for each object, whatever the paper, and no more on it than belongs there."""

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from serving.index import ArtObject
from tests.explaining import RELEASE
from tests.page.conftest import Service, serving_objects

LONG_NAME = f"{'a very long name of a file ' * 9}{'x' * 200}.jpg"
OBJECTS = [
    ArtObject(
        title=f"Vase {number}, " + "with a title that goes on and on " * 4,
        artist="Rosa " * 20,
        date="ca. 1650",
        culture="red",
        source="The Museum",
        url=f"https://example.org/{number}/{'path' * 20}",
        licence="CC0 1.0",
    )
    for number in range(12)
]
# Width and height between margins of 12 mm, in CSS pixels of 1/96 inch.
PAPERS = {"A4": (703, 1031), "Letter": (725, 965)}


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with serving_objects(tmp_path, OBJECTS) as service:
        yield service


def answer(page: Page, *names: str, kept: int | None = None) -> None:
    """Cards for pictures that are as red as can be."""
    file = io.BytesIO()
    Image.new("RGB", (300, 400), "red").save(file, "PNG")
    page.set_input_files(
        "#file", [{"name": name, "mimeType": "image/png", "buffer": file.getvalue()} for name in names]
    )
    expect(page.locator(".kept")).to_have_count(kept or len(names))


def pages(page: Page, paper: str) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", page.pdf(format=paper)))


@pytest.fixture
def report(page: Page) -> Locator:
    """A report as it is printed."""
    answer(page, "vase.jpg")
    page.emulate_media(media="print")
    return page.locator(".report")


@pytest.mark.parametrize("paper", PAPERS)
@pytest.mark.parametrize(
    "names", [["vase.jpg"], [LONG_NAME], ["1.jpg", "2.jpg", LONG_NAME]], ids=["one", "long", "three"]
)
def test_each_object_has_one_page(page: Page, paper: str, names: list[str]) -> None:
    answer(page, *names)
    assert pages(page, paper) == len(names)


def test_an_answer_opened_again_has_its_page(page: Page) -> None:
    answer(page, "vase.jpg")
    page.reload()
    page.get_by_role("button", name="Open again").click()
    assert pages(page, "A4") == 1


@pytest.mark.parametrize("paper", PAPERS)
def test_everything_lies_on_the_page(page: Page, paper: str) -> None:
    width, height = PAPERS[paper]
    page.set_viewport_size({"width": width, "height": height})
    answer(page, LONG_NAME)
    page.emulate_media(media="print")
    overflow = "e => [e.scrollHeight - e.clientHeight, e.scrollWidth - e.clientWidth]"
    assert page.locator(".report").evaluate(overflow) == [0, 0]


def test_a_report_tells_answer_and_decision_in_words(report: Locator) -> None:
    expect(report).to_contain_text("Resembles objects catalogued as red")
    expect(report).to_contain_text("Probability over 99 %.")
    expect(report).to_contain_text(
        "Accepted. The likeliest culture reaches the 50 % from which this model commits itself. "
        "Its measure of strangeness is 0.25, within the limit of 3.00."
    )


def test_a_report_shows_the_picture_and_beside_it_where_the_model_looked(report: Locator) -> None:
    for picture in (report.locator(".report-picture"), report.locator(".report-heat")):
        expect(picture).to_be_visible()
    expect(report).to_contain_text("Where it looked: what spoke for red is in full colour.")


def test_the_map_of_a_report_is_the_one_last_looked_at(page: Page) -> None:
    answer(page, "vase.jpg")
    page.get_by_role("button", name="Where did it look?").click()
    page.get_by_label("Where it looked for").select_option("blue")
    expect(page.locator(".report-looked-words")).to_contain_text("spoke for blue")


def test_a_report_lists_objects_with_their_addresses(report: Locator) -> None:
    expect(report.locator(".report-neighbour-list > li").first).to_contain_text("https://example.org/0/path")


def test_a_report_tells_all_that_is_needed_to_give_the_answer_again(report: Locator, service: Service) -> None:
    facts = report.locator(".report-facts")
    for fact in ("vase.jpg", "culture, version 7", RELEASE, "Pillow's bilinear filter"):
        expect(facts).to_contain_text(fact)
    asked = dict(service.server.calls[0].metadata)["x-request-id"]
    expect(facts).to_contain_text(str(asked))


def test_a_report_says_what_it_does_not_mean(report: Locator) -> None:
    expect(report).to_contain_text("no attribution, no date, no value and no judgement of authenticity")


def test_nothing_to_press_is_printed(page: Page, report: Locator) -> None:
    expect(report).to_be_visible()
    for role in ("button", "slider", "combobox", "banner", "contentinfo"):
        expect(page.get_by_role(role)).to_have_count(0)  # type: ignore[arg-type]


def test_on_the_screen_there_is_no_report(page: Page) -> None:
    answer(page, "vase.jpg")
    expect(page.locator(".report")).to_be_hidden()


def test_a_removed_card_leaves_no_report(page: Page) -> None:
    answer(page, "1.jpg", "2.jpg")
    page.get_by_role("button", name="Remove 1.jpg").click()
    expect(page.locator(".report")).to_have_count(1)


def test_one_report_is_printed_by_its_cards_button(page: Page) -> None:
    answer(page, "1.jpg", "2.jpg")
    page.evaluate(
        """() => addEventListener("beforeprint", () => {
            const shown = [...document.querySelectorAll(".report")].filter((report) => !report.hidden);
            window.printed = shown.map((report) => report.querySelector(".report-caption").textContent);
        })"""
    )
    page.get_by_role("button", name="Print report: 2.jpg").click()
    assert page.evaluate("window.printed") == ["2.jpg"]


def test_after_one_report_all_can_be_printed(page: Page) -> None:
    answer(page, "1.jpg", "2.jpg")
    # Without a window nobody closes the print dialog, and Chromium 156 prints nothing else meanwhile.
    page.evaluate(
        "() => { window.print = () => ['before', 'after'].map((w) => dispatchEvent(new Event(`${w}print`))); }"
    )
    page.get_by_role("button", name="Print report: 2.jpg").click()
    assert pages(page, "A4") == 2


def test_all_reports_can_be_printed_when_there_are_several(page: Page) -> None:
    answer(page, "1.jpg")
    button = page.get_by_role("button", name="Print all reports")
    expect(button).to_be_hidden()
    answer(page, "2.jpg", kept=2)
    expect(button).to_be_visible()
