"""The contact sheet: one HTML file of small pictures with their answers, to be looked through or printed."""

import base64
import html
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from gateway.cli.results import worded
from gateway.cli.sources import Picture
from serving import images

THUMBNAIL: Final = 240  # pixels, longer side
QUALITY: Final = 75
_TITLES: Final = {"abstained": "Not sure", "out_of_distribution": "Does not know"}
_HEAD: Final = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Whence: contact sheet</title>
<style>
:root { color-scheme: light dark; --muted: light-dark(#655d52, #aca292); --line: light-dark(#ddd5c8, #3a342c);
  --accent: light-dark(#7d2a1e, #e59a7f) }
body { margin: 2rem auto; max-width: 76rem; padding-inline: 1.2rem; background: light-dark(#f7f4ee, #171411);
  color: light-dark(#211d18, #efe8dc); font: 0.9rem/1.45 system-ui, sans-serif }
h1, h2 { margin: 0; font-weight: 400; font-family: "Iowan Old Style", "Palatino Linotype", Palatino, P052, serif }
h1 { font-size: 2.2rem } h2 { font-size: 1.25rem; line-height: 1.2 }
main { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 2rem 1.5rem;
  margin-top: 1.5rem }
article { break-inside: avoid; min-width: 0; border-top: 1px solid var(--line); padding-top: 0.8rem }
.hang { display: grid; place-items: end start; height: 12rem; margin-bottom: 0.6rem; color: var(--muted) }
img { max-width: 100%; max-height: 12rem; display: block }
p { margin: 0.15rem 0 0; overflow-wrap: anywhere } .small { color: var(--muted); font-size: 0.8rem }
.accepted h2 { color: var(--accent) }
</style>
<h1>Whence</h1>
"""


def write(path: Path, records: Iterable[Mapping[str, str]], pictures: Iterable[Picture]) -> None:
    """Write the sheet of `records` (the output file's), with the pictures they tell of."""
    by_path = {picture.path: picture for picture in pictures}
    with path.open("w", encoding="utf-8", errors="replace") as sheet:
        sheet.write(f"{_HEAD}<main>\n")
        for record in records:
            sheet.write(_article(record, by_path.get(record["path"])))
        sheet.write("</main>\n</html>\n")


def _article(record: Mapping[str, str], picture: Picture | None) -> str:
    decision = record["decision"]
    if record["problem"]:
        decision, title, said = "problem", "No answer", record["problem"]
    else:
        title = _TITLES.get(decision, record["culture"])
        said = worded(record["culture"], float(record["probability"]), decision)
    row = {name.lower(): value for name, value in picture.row.items()} if picture else {}
    credit = ", ".join(row[name] for name in ("artist", "title", "date") if row.get(name))
    lines = [f'<p class="small">{html.escape(text)}</p>' for text in (credit, record["path"]) if text]
    return (
        f'<article class="{html.escape(decision)}"><div class="hang">{_thumbnail(picture)}</div>'
        f"<h2>{html.escape(title)}</h2><p>{html.escape(said[:1].upper() + said[1:])}</p>{''.join(lines)}</article>\n"
    )


def _thumbnail(picture: Picture | None) -> str:
    """The picture within the page itself, so that the sheet can be sent to somebody."""
    if picture is None:
        return "not part of this run"
    try:
        small = images.load(picture.file.read_bytes()).fitted(THUMBNAIL)
    except (OSError, ValueError, images.ImageError):  # ValueError: a catalogue may hold any text as path
        return "cannot be shown"
    data = io.BytesIO()
    small.save(data, "JPEG", quality=QUALITY)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'
