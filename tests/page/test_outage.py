"""The service is away, full, slow or broken: said in plain words, nothing is lost, and all can be tried again."""

import io
import json
import re
from pathlib import Path

import grpc
import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Locator, Page, Route, expect

from tests.fakes import Hang, fail
from tests.page.conftest import PICTURES, Service, serving_objects

PICTURE = PICTURES / "japanese-met-59669.jpg"
PREDICT = re.compile("/v1/predict")


def failed(page: Page, title: str) -> Locator:
    card = page.locator(".card[data-state=failed]")
    expect(card.get_by_role("heading")).to_have_text(title)
    return card


def answered_after_another_try(page: Page) -> None:
    page.get_by_role("button", name="Try again", exact=False).click()
    expect(page.locator(".card[data-state=accepted]")).to_contain_text("French")
    expect(page.locator(".card")).to_have_count(1)


@pytest.mark.parametrize(
    ("code", "title", "detail"),
    [
        (grpc.StatusCode.UNAVAILABLE, "The model is not available at the moment", "It may just be starting again."),
        (grpc.StatusCode.NOT_FOUND, "The model is not available at the moment", "It may just be starting again."),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "The answer took too long", "The service is very busy"),
    ],
)
def test_a_model_that_gives_no_answer_is_told_in_plain_words(
    page: Page, service: Service, code: grpc.StatusCode, title: str, detail: str
) -> None:
    service.server.behaviour = fail(code)
    page.set_input_files("#file", PICTURE)
    expect(failed(page, title)).to_contain_text(re.compile(rf"{detail}.*Nothing is lost: try again", re.DOTALL))
    service.server.behaviour = service.answer
    answered_after_another_try(page)


def test_a_model_that_hangs_is_told_and_may_be_tried_again(page: Page, service: Service) -> None:
    hang = Hang()
    service.server.behaviour = hang
    page.route(PREDICT, lambda route: route.continue_(headers={**route.request.headers, "X-Request-Timeout": "0.5"}))
    page.set_input_files("#file", PICTURE)
    failed(page, "The answer took too long")
    hang.let_go.set()
    service.server.behaviour = service.answer
    page.unroute(PREDICT)
    answered_after_another_try(page)


def problem(kind: str, status: int, title: str) -> dict[str, object]:
    return {"type": f"/problems/{kind}", "title": title, "status": status, "detail": title, "request_id": "abc"}


@pytest.mark.parametrize(
    ("status", "document", "title", "detail"),
    [
        (429, problem("over-quota", 429, "Too many"), "Too many requests in a short time", "try again in 20 seconds."),
        (503, problem("overloaded", 503, "Too many"), "Too many requests at the moment", "try again in 20 seconds."),
        (503, None, "The service is not available at the moment", "(HTTP status 503). Nothing is lost: try again"),
        (502, None, "The service is not available at the moment", "(HTTP status 502). Nothing is lost: try again"),
        (200, None, "The service gave no answer", "HTTP status 200. Nothing is lost: try again"),
    ],
)
def test_what_is_said_by_a_status_is_told_in_plain_words(
    page: Page, service: Service, status: int, document: dict[str, object] | None, title: str, detail: str
) -> None:
    body = json.dumps(document) if document else "<html>nginx</html>"
    page.route(PREDICT, lambda route: route.fulfill(status=status, body=body, headers={"Retry-After": "20"}), times=1)
    page.set_input_files("#file", PICTURE)
    expect(failed(page, title)).to_contain_text(detail)
    answered_after_another_try(page)
    assert service.server.calls[-1].request.model_spec.signature_name == "explain"  # no evidence lost for the rest


def test_a_connection_that_breaks_is_told_and_may_be_tried_again(page: Page) -> None:
    page.route(PREDICT, lambda route: route.abort("connectionreset"), times=1)
    page.set_input_files("#file", PICTURE)
    expect(failed(page, "The service could not be reached")).to_contain_text("Nothing is lost: try again in a moment.")
    answered_after_another_try(page)


def test_a_slow_answer_is_waited_for(page: Page) -> None:
    held: list[Route] = []
    page.route(PREDICT, lambda route: held.append(route), times=1)
    page.set_input_files("#file", PICTURE)
    expect(page.locator(".card[aria-busy=true] .verdict")).to_have_text("Looking…")
    page.wait_for_timeout(300)
    held[0].continue_()
    expect(page.locator(".card[data-state=accepted]")).to_contain_text("French")


def test_a_large_picture_has_longer_to_arrive_over_a_slow_line(page: Page, tmp_path: Path) -> None:
    photograph = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)).save(photograph, "PNG")
    with serving_objects(tmp_path, (), request_timeout_s=1) as service:
        page.goto(service.url)
        line = page.context.new_cdp_session(page)
        rates = {"downloadThroughput": 10_000_000, "uploadThroughput": 1_000_000, "latency": 0, "offline": False}
        line.send("Network.emulateNetworkConditions", rates)
        buffer = photograph.getvalue()  # 2.4 MB
        page.set_input_files("#file", {"name": "photograph.png", "mimeType": "image/png", "buffer": buffer})
        expect(page.locator(".card:is([data-state=abstained], [data-state=failed])")).to_contain_text("Not sure")


def test_all_that_failed_are_tried_again_at_once_in_their_order(page: Page) -> None:
    page.route(PREDICT, lambda route: route.fulfill(status=503), times=4)
    chosen = sorted(PICTURES.glob("*.jpg"))[:4]
    page.set_input_files("#file", chosen)
    expect(page.locator(".card[data-state=failed]")).to_have_count(4)
    results = Axe().run(page)
    assert results.violations_count == 0, results.generate_report()
    button = page.get_by_role("button", name="Try all again")
    button.press("Enter")
    expect(page.locator(".card[data-state=accepted] .caption")).to_have_text([picture.name for picture in chosen])
    expect(button).to_be_hidden()


def test_a_picture_too_large_is_told_with_what_can_be_done(page: Page) -> None:
    told = problem("too-large", 413, "The upload is too large") | {"detail": "a picture has more than 9 bytes"}
    page.route(PREDICT, lambda route: route.fulfill(status=413, body=json.dumps(told)))
    page.set_input_files("#file", PICTURE)
    words = "A picture has more than 9 bytes. A smaller copy will do, for example as JPEG"
    expect(failed(page, "The upload is too large")).to_contain_text(words)


def test_one_that_failed_is_tried_again_by_its_own_button(page: Page, service: Service) -> None:
    service.server.behaviour = fail(grpc.StatusCode.UNAVAILABLE)
    page.set_input_files("#file", PICTURE)
    failed(page, "The model is not available at the moment")
    expect(page.get_by_role("button", name="Try all again")).to_be_hidden()
    page.get_by_role("button", name="Try again").press("Enter")
    expect(page.locator(".verdict")).to_be_focused()


def test_a_file_that_is_gone_is_told_so(page: Page, tmp_path: Path) -> None:
    gone = tmp_path / "gone.jpg"
    gone.write_bytes(PICTURE.read_bytes())
    page.route(PREDICT, lambda route: route.abort("connectionrefused"), times=1)
    page.set_input_files("#file", gone)
    card = failed(page, "The service could not be reached")
    gone.unlink()
    card.get_by_role("button", name="Try again").click()
    expect(failed(page, "The file cannot be read")).to_contain_text("moved, changed or deleted since it was chosen")
    expect(card.get_by_role("button", name="Try again")).to_be_hidden()


@pytest.mark.parametrize(
    ("content", "title", "detail"),
    [
        (b"", "The file is empty", "Perhaps it was not saved or copied completely."),
        (b"%PDF-1.7 and more", "Not a picture that the service reads", "goes by what is in the file, not by its name."),
        (PICTURE.read_bytes()[:9000], "The picture is broken", "the rest is damaged or missing."),
    ],
)
def test_a_file_that_is_no_picture_is_told_once_in_plain_words(
    page: Page, content: bytes, title: str, detail: str
) -> None:
    page.set_input_files("#file", {"name": "scan.jpg", "mimeType": "image/jpeg", "buffer": content})
    card = failed(page, title)
    expect(card).to_contain_text(detail)
    expect(card.get_by_text("The browser cannot show this picture.")).to_be_hidden()
    expect(card.get_by_role("button", name="Try again")).to_be_hidden()
    sentences = re.findall(r"[^.\n]{12,}", card.inner_text())
    assert len(sentences) == len({sentence.strip().lower() for sentence in sentences})
