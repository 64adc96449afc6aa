"""`python -m training collect`: from the museum's catalogue to a folder of pictures that `prepare` reads.

OUT/images/<Label>/met_<id>.jpg   the pictures, as they came
OUT/metadata.csv                  one row a picture, written whole at the end of every run
OUT/objects.jsonl                 the ledger: a line for each object asked for, from which a killed run goes on
OUT/cultures.csv, rules.txt       what the rules made of each of the museum's culture strings, and the rules
OUT/report.json                   what was dropped, how often, and why
"""

import argparse
import csv
import io
import json
import signal
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from training import catalogue as met_catalogue
from training.catalogue import Catalogue, in_order, read_catalogue
from training.cultures import LABELS, table
from training.records import RULES

if TYPE_CHECKING:  # the rest is imported by the command itself: `export` runs where none of it is installed
    from training.harvest import Shelf
    from training.met import Record
    from training.web import Web

MAX_CSV_BYTES: Final = 2_000_000_000  # it was 317 MB in 2025


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Register `collect`."""
    parser = commands.add_parser("collect", help="fetch labelled pictures from the Met's Open Access collection",
                                 description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add(
        "--objects-csv",
        default=met_catalogue.OBJECTS_CSV,
        metavar="PATH|URL",
        help="MetObjects.csv (default: the museum's, 300 MB)",
    )
    add("--out", type=Path, help="folder to fill; a run into the same folder goes on where the last one stopped")
    add(
        "--contact", help="your e-mail address or page, sent as part of the User-Agent so that the museum can reach you"
    )
    add("--per-culture", type=int, default=3000, metavar="N", help="pictures of each culture (default: %(default)s)")
    add(
        "--cultures", nargs="+", choices=LABELS, default=LABELS, metavar="LABEL", help="only these (default: all eight)"
    )
    add("--nationality", action="store_true", help="where the museum gives no culture, as for most paintings and "
        "prints, take the nationality of the makers")  # fmt: skip
    add("--originals", action="store_true", help="full pictures (several MB) rather than those of about 100 KB")
    add("--api", default=met_catalogue.API, help="address of the collection API (default: %(default)s)")
    add("--rate", type=float, default=8.0, help="requests a second, for all threads (default: %(default)s; the "
        "museum allows 80, its firewall less)")  # fmt: skip
    add("--workers", type=int, default=8, help="threads (default: %(default)s)")
    add(
        "--attempts",
        type=int,
        default=6,
        help="for each request, with waits that double from --backoff (default: %(default)s)",
    )
    add("--backoff", type=float, default=1.0, metavar="SECONDS", help="default: %(default)s")
    add("--longest-wait", type=float, default=300.0, metavar="SECONDS", help="a Retry-After beyond it ends the run "
        "(default: %(default)s)")  # fmt: skip
    add("--timeout", type=float, default=30.0, metavar="SECONDS", help="without a byte (default: %(default)s)")
    add("--seed", type=int, default=0, help="of the order in which objects are taken (default: %(default)s)")
    add("--dry-run", action="store_true", help="read the catalogue, show what the rules make of it, fetch no picture")
    add("--print-rules", action="store_true", help="show the rules from culture strings to labels, and end")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """The command. Raises ValueError on bad options, Unfinished when something is left to do."""
    if options.print_rules:
        print(table())
        return
    if options.out is None or not options.contact:
        raise ValueError("collect needs --out, and --contact: an address where the museum can reach you")
    if min(options.rate, options.per_culture, options.workers, options.attempts) <= 0:
        raise ValueError("--rate, --per-culture, --workers and --attempts must be more than nothing")
    from training import durable
    from training.harvest import Shelf
    from training.web import Patience, Web

    patience = Patience(options.attempts, options.backoff, options.longest_wait, options.timeout)
    with (
        durable.locked(options.out),
        Web(user_agent=f"whence-collect/1 (+{options.contact})", rate=options.rate, patience=patience) as web,
    ):
        durable.sweep(options.out)
        catalogue = read_catalogue(_catalogue_file(options, web), nationality=options.nationality)
        ordered = in_order(catalogue.candidates, options.seed)
        shelves = [Shelf(label, ordered[label], options.per_culture) for label in options.cultures]
        strings = ((rows, written, verdict.label or "", verdict.rule)
                   for (written, verdict), rows in catalogue.strings.most_common())  # fmt: skip
        _write_csv(options.out / "cultures.csv", ("rows", "culture", "label", "rule"), strings)
        durable.write(options.out / RULES, f"{table()}\n".encode())
        if options.dry_run:
            print(_summary(_report(options, catalogue, shelves, [], [])))
        else:
            _fill(options, web, catalogue, shelves)


def _fill(options: argparse.Namespace, web: "Web", catalogue: Catalogue, shelves: "list[Shelf]") -> None:
    """Ask the museum, and write down what there is, however the asking ends."""
    from training import durable, met
    from training.harvest import Outcomes, Unfinished, harvest, pictures

    museum = met.Museum(web, options.api, options.originals, options.nationality)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends a run as Ctrl-C does
    with durable.Ledger(options.out / "objects.jsonl") as ledger:
        outcomes = Outcomes(ledger, options.out)
        try:
            harvest(museum, shelves, outcomes, options.out, workers=options.workers)
        except KeyboardInterrupt:
            raise Unfinished("interrupted; the same command goes on from here") from None
        finally:
            rows = pictures(shelves, outcomes)
            cells = ([row.get(column, "") for column in met.COLUMNS] for row in rows)
            _write_csv(options.out / "metadata.csv", met.COLUMNS, cells)
            report = _report(options, catalogue, shelves, rows, outcomes.all())
            durable.write(
                options.out / "report.json", json.dumps(report, indent=1, ensure_ascii=False).encode() + b"\n"
            )
            print(_summary(report))
            signal.signal(signal.SIGTERM, before)


def _catalogue_file(options: argparse.Namespace, web: "Web") -> Path:
    """The CSV as a file: a URL is fetched once into the folder, so that every run goes by the same catalogue."""
    if "://" not in options.objects_csv:
        return Path(options.objects_csv)
    path: Path = options.out / "MetObjects.csv"
    if not path.exists():
        print(f"fetching {options.objects_csv} into {path}; delete it to get a newer one")
        web.download(options.objects_csv, path, max_bytes=MAX_CSV_BYTES)
    return path


def _report(
    options: argparse.Namespace,
    catalogue: Catalogue,
    shelves: "list[Shelf]",
    rows: list[dict[str, str]],
    records: "Iterable[Record]",
) -> dict[str, Any]:
    """What report.json holds: of every row and every object, whether it is in, and if not, why."""
    outcomes = Counter((record.outcome, record.reason) for record in records)
    per_label = Counter(row["culture"] for row in rows)
    return {
        "settings": {
            "objects_csv": str(options.objects_csv), "api": options.api, "per_culture": options.per_culture,
            "seed": options.seed, "nationality": options.nationality, "originals": options.originals,
        },
        "catalogue": {"rows": catalogue.rows, "candidates": len(catalogue.candidates),
                      "dropped": dict(catalogue.dropped.most_common())},
        "cultures": {shelf.label: {"candidates": len(shelf.queue), "pictures": per_label[shelf.label]}
                     for shelf in shelves},
        "objects": {outcome: {reason: objects for (kind, reason), objects in outcomes.most_common() if kind == outcome}
                    for outcome in ("dropped", "failed", "absent")},
    }  # fmt: skip


def _summary(report: dict[str, Any]) -> str:
    """The report for people."""
    catalogue = report["catalogue"]
    lines = [f"{catalogue['rows']:,} rows in the catalogue, {catalogue['candidates']:,} objects of a known culture"]
    lines += [f"  {rows:>9,}  dropped: {reason}" for reason, rows in catalogue["dropped"].items()]
    lines.append("culture     candidates  pictures")
    lines += [
        f"  {label:<9} {counts['candidates']:>10,} {counts['pictures']:>9,}"
        for label, counts in report["cultures"].items()
    ]
    lines += [f"  {objects:>9,}  objects {outcome}: {reason}" for outcome in ("dropped", "failed", "absent")
              for reason, objects in report["objects"][outcome].items()]  # fmt: skip
    return "\n".join(lines)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    from training import durable

    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(header)
    writer.writerows(rows)
    durable.write(path, text.getvalue().encode())
