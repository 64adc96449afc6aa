"""Blueprint: `GET /` and the page's files under `/page/`."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flask import Blueprint, current_app, render_template

_HERE: Final = Path(__file__).parent


@dataclass(frozen=True)
class Sample:
    """A picture to try, with the credit shown beside it; the fields are the columns of `samples.csv`."""

    file: str
    culture: str
    object_id: str
    title: str
    artist: str
    date: str
    url: str
    licence: str


def _samples(table: Path) -> tuple[Sample, ...]:
    with table.open(encoding="utf-8", newline="") as lines:
        return tuple(Sample(**row) for row in csv.DictReader(lines))


SAMPLES: Final = _samples(_HERE / "samples.csv")

page = Blueprint("page", __name__, template_folder="templates", static_folder="static", static_url_path="/page")


@page.get("/")
def show() -> str:
    """The page, ready to take a picture; it asks what people believe where that is kept."""
    return render_template("whence.html", samples=SAMPLES, feedback="feedback" in current_app.extensions)
