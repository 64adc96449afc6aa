"""What a visitor does with the page, and what the page then shows."""

import base64
import re
from pathlib import Path

import grpc
import numpy as np
from playwright.sync_api import BrowserContext, FilePayload, Locator, Page, expect

from serving import images
from tests.fakes import fail, pixels_of
from tests.page.conftest import PICTURES, UNSURE, Service

PICTURE = PICTURES / "japanese-met-59669.jpg"


def card(page: Page, state: str = "accepted") -> Locator:
    found = page.locator(f".card[data-state={state}]")
    expect(found.first).to_be_visible()
    return found


def send(page: Page, name: str, content: bytes) -> None:
    page.set_input_files("#file", {"name": name, "mimeType": "image/jpeg", "buffer": content})


def choose(page: Page, *files: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose a picture").click()
    chooser.value.set_files(list(files))


def test_a_chosen_picture_reaches_the_model_unchanged(page: Page, service: Service) -> None:
    choose(page, PICTURE)
    card(page)
    (call,) = service.server.calls
    assert np.array_equal(pixels_of(call.request)[0], images.decode(PICTURE.read_bytes()))


def test_an_accepted_answer_names_the_culture(page: Page) -> None:
    choose(page, PICTURE)
    expect(card(page)).to_contain_text("Resembles objects catalogued as French Probability 71 %")


def test_an_answer_names_model_version_and_request(page: Page) -> None:
    choose(page, PICTURE)
    expect(card(page).locator(".record")).to_have_text(re.compile(r"Model culture, version 7\s+Request [\w-]+"))


def test_the_picture_itself_is_shown(page: Page) -> None:
    choose(page, PICTURE)
    shown = card(page).get_by_role("img", name=PICTURE.name)
    expect(shown).to_have_js_property("naturalWidth", 373)


def test_a_dropped_picture_is_answered(page: Page) -> None:
    carried = page.evaluate_handle(
        """encoded => {
            const bytes = Uint8Array.from(atob(encoded), c => c.charCodeAt(0));
            const carried = new DataTransfer();
            carried.items.add(new File([bytes], "dropped.jpg", { type: "image/jpeg" }));
            return carried;
        }""",
        base64.b64encode(PICTURE.read_bytes()).decode(),
    )
    for event in ("dragenter", "dragover", "drop"):
        page.dispatch_event("#drop", event, {"dataTransfer": carried})
    expect(card(page)).to_contain_text("dropped.jpg")


def test_a_sample_is_answered_and_compared_with_its_catalogue(page: Page) -> None:
    page.get_by_role("button", name="Night-Shining White").click()
    expect(card(page)).to_contain_text("The Met catalogues it as Chinese.")


def test_every_sample_can_be_shown(page: Page) -> None:
    for picture in page.locator(".sample img").all():
        expect(picture).not_to_have_js_property("naturalWidth", 0)


def test_the_bars_tell_all_cultures_and_fill_one_whole(page: Page) -> None:
    choose(page, PICTURE)
    fills = card(page).locator(".bar-fill").all()
    widths = [fill.evaluate("e => e.getBoundingClientRect().width / e.parentElement.clientWidth") for fill in fills]
    assert len(widths) == 8
    assert abs(sum(widths) - 1) < 0.01


def test_several_pictures_get_a_card_each_in_their_order(page: Page) -> None:
    chosen = sorted(PICTURES.glob("*.jpg"))[:4]
    choose(page, *chosen)
    expect(page.locator(".card[data-state=accepted] .caption")).to_have_text([picture.name for picture in chosen])


def test_an_abstained_answer_says_not_sure(page: Page, service: Service) -> None:
    service.decision, service.probabilities = "abstained", UNSURE
    choose(page, PICTURE)
    expect(card(page, "abstained").get_by_role("heading")).to_have_text("Not sure")


def test_an_abstained_answer_tells_what_came_closest_and_from_where_on_it_would_commit_itself(
    page: Page, service: Service
) -> None:
    service.decision, service.probabilities = "abstained", UNSURE
    choose(page, PICTURE)
    said = "Closest to objects catalogued as French: 29 %. This model commits itself from 60 % on."
    expect(card(page, "abstained")).to_contain_text(said)


def test_a_picture_of_another_kind_is_called_like_none(page: Page, service: Service) -> None:
    service.decision = "out_of_distribution"
    choose(page, PICTURE)
    expect(card(page, "out_of_distribution").get_by_role("heading")).to_have_text("Like none of the cultures it knows")


def test_a_broken_picture_is_told_in_words_with_the_request_id(page: Page) -> None:
    send(page, "broken.jpg", PICTURE.read_bytes()[:9000])
    expect(card(page, "failed")).to_contain_text(re.compile(r"The picture is broken.*Request [\w-]+", re.DOTALL))


def test_a_service_that_is_gone_is_told_in_words(page: Page, context: BrowserContext) -> None:
    context.set_offline(True)
    choose(page, PICTURE)
    expect(card(page, "failed").get_by_role("heading")).to_have_text("The service could not be reached")


def test_try_again_sends_the_same_picture_once_more(page: Page, context: BrowserContext) -> None:
    context.set_offline(True)
    choose(page, PICTURE)
    again = card(page, "failed").get_by_role("button", name="Try again")
    context.set_offline(False)
    again.click()
    expect(card(page)).to_contain_text("French")


def test_what_will_never_work_is_not_offered_again(page: Page) -> None:
    send(page, "broken.jpg", PICTURE.read_bytes()[:9000])
    expect(card(page, "failed").get_by_role("button", name="Try again")).to_be_hidden()


def test_a_model_that_is_away_is_told_and_may_be_tried_again(page: Page, service: Service) -> None:
    service.server.script(fail(grpc.StatusCode.UNAVAILABLE))
    choose(page, PICTURE)
    failed = card(page, "failed")
    expect(failed.get_by_role("heading")).to_have_text("The model is not available at the moment")
    failed.get_by_role("button", name="Try again").click()
    expect(card(page)).to_contain_text("French")


def test_a_model_that_explains_nothing_still_answers_and_is_not_asked_to_explain_again(
    page: Page, service: Service
) -> None:
    service.explains = False
    for count in (1, 2):
        choose(page, PICTURE)
        expect(card(page)).to_have_count(count)
    signatures = [call.request.model_spec.signature_name for call in service.server.calls]
    assert signatures == ["explain", "serving_default", "serving_default"]


def test_more_pictures_than_the_page_takes_are_left_and_said_so(page: Page) -> None:
    files = [FilePayload(name=f"{number}.jpg", mimeType="image/jpeg", buffer=b"x") for number in range(53)]
    page.set_input_files("#file", files)
    expect(page.get_by_role("alert")).to_contain_text("Took the first 50 pictures and left 3.")
