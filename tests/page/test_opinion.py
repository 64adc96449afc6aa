"""What the appraiser believes: said on the page, kept by the service, shown on card and report."""

import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from gateway.feedback.entries import Entry
from gateway.feedback.stores import SqliteStore
from tests.page.conftest import Service, serving_objects

NOTE = "signed <b>on the back</b>"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "feedback.sqlite3"


@pytest.fixture
def service(tmp_path: Path, database: Path) -> Iterator[Service]:
    with serving_objects(tmp_path, (), feedback_database=f"sqlite:///{database}") as service:
        yield service


@pytest.fixture
def answered(page: Page) -> Page:
    """The page with one answer, which is kept."""
    file = io.BytesIO()
    Image.new("RGB", (300, 400), "red").save(file, "PNG")
    page.set_input_files("#file", {"name": "vase.png", "mimeType": "image/png", "buffer": file.getvalue()})
    expect(page.locator(".kept")).to_have_count(1)
    return page


def kept(database: Path) -> list[Entry]:
    with closing(SqliteStore(database)) as store:
        return [each.entry for each in store.all()]


def say(page: Page, culture: str = "Dutch", note: str = NOTE) -> None:
    page.get_by_text("Do you know where it comes from?").click()
    expect(page.locator(".opinion-kept")).to_contain_text("Once sent, it cannot be taken back.")
    page.get_by_label("Culture", exact=True).fill(culture)
    page.get_by_label("Why?").fill(note)
    page.get_by_role("button", name="Tell the service").click()


def test_what_is_said_is_kept_by_the_service_without_the_picture(answered: Page, database: Path) -> None:
    say(answered)
    expect(answered.locator(".opinion-words")).to_contain_text(f"Judged to be Dutch: “{NOTE}”. Told to the service on")
    [entry] = kept(database)
    assert (entry.culture, entry.note, len(entry.picture_sha256)) == ("Dutch", NOTE, 64)
    assert entry.request_id in answered.locator(".record").inner_text()


def test_what_was_said_is_on_the_report_and_survives_a_reload(answered: Page) -> None:
    said = answered.locator(".report-said")
    expect(said).to_have_text("")
    say(answered)
    expect(said).to_contain_text(f"Judged to be Dutch: “{NOTE}”.")
    answered.reload()
    answered.get_by_role("button", name="Open again").click()
    for place in (said, answered.locator(".opinion-words")):
        expect(place).to_contain_text(f"Judged to be Dutch: “{NOTE}”.")


def test_another_judgement_is_kept_beside_the_first(answered: Page, database: Path) -> None:
    say(answered)
    expect(answered.locator(".opinion-words")).to_contain_text("Dutch")
    answered.get_by_label("Culture", exact=True).fill("Flemish")
    answered.get_by_role("button", name="Tell the service").click()
    expect(answered.locator(".opinion-words")).to_contain_text("Flemish")
    assert [entry.culture for entry in kept(database)] == ["Dutch", "Flemish"]


def test_sent_again_because_no_answer_came_it_is_kept_once(answered: Page, database: Path) -> None:
    def lost(route: object) -> None:
        route.fetch()  # type: ignore[attr-defined]
        route.abort()  # type: ignore[attr-defined]

    answered.route("**/v1/feedback", lost, times=1)
    say(answered)
    expect(answered.locator(".opinion-words")).to_contain_text("Not kept. The service could not be reached")
    answered.get_by_role("button", name="Tell the service").click()
    expect(answered.locator(".opinion-words")).to_contain_text("Judged to be Dutch")
    assert len(kept(database)) == 1


def test_what_the_service_does_not_take_is_told_in_words(answered: Page, database: Path) -> None:
    say(answered, culture="<Dutch>")
    expect(answered.locator(".opinion-words")).to_contain_text("Culture is not a name of at most 64 letters")
    assert kept(database) == []


@pytest.mark.parametrize(("text", "cards"), [("signed", 1), ("", 2)])
def test_text_pasted_with_a_picture_of_it_is_text(answered: Page, text: str, cards: int) -> None:
    answered.get_by_text("Do you know where it comes from?").click()
    answered.get_by_label("Why?").evaluate(
        """(field, text) => {
            const carried = new DataTransfer();
            if (text) carried.setData("text/plain", text);
            carried.items.add(new File(["GIF89a"], "image.gif", { type: "image/gif" }));
            field.dispatchEvent(new ClipboardEvent("paste", { clipboardData: carried, bubbles: true }));
        }""",
        text,
    )
    expect(answered.locator(".card")).to_have_count(cards)


# WCAG 2.2, 1.4.11: what tells where a field is has 3:1; axe-core does not look at it.
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_edge_of_a_field_can_be_seen(answered: Page, scheme: Literal["light", "dark"]) -> None:
    answered.emulate_media(color_scheme=scheme)
    colours = "e => [getComputedStyle(e).borderTopColor, getComputedStyle(e).backgroundColor]"
    for field in (".opinion-culture", ".evidence-culture"):
        edge, ground = map(luminance, answered.locator(field).evaluate(colours))
        assert (max(edge, ground) + 0.05) / (min(edge, ground) + 0.05) >= 3


def luminance(colour: str) -> float:
    """WCAG's relative luminance of rgb(r, g, b)."""
    parts = [int(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_axe_finds_nothing_in_the_form(answered: Page) -> None:
    say(answered)
    expect(answered.locator(".opinion-words")).to_contain_text("Judged")
    results = Axe().run(answered)
    assert results.violations_count == 0, results.generate_report()


def test_the_form_needs_no_sideways_scrolling_on_a_phone(answered: Page) -> None:
    answered.set_viewport_size({"width": 320, "height": 700})
    say(answered, note="long" * 400)
    expect(answered.locator(".opinion-words")).to_contain_text("Judged")
    assert answered.evaluate("document.documentElement.scrollWidth") == 320


def test_a_service_that_keeps_nothing_is_not_offered_a_judgement(tmp_path: Path, page: Page) -> None:
    (tmp_path / "none").mkdir()
    with serving_objects(tmp_path / "none", ()) as service:
        page.goto(service.url)
        page.get_by_role("button", name="Old Plum").click()
        expect(page.locator(".card[data-state=accepted], .card[data-state=abstained]")).to_be_visible()
        expect(page.locator(".opinion")).to_be_hidden()
