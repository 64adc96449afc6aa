"""`python -m training index`: the objects of a manifest, embedded by the released model, as the gateway searches them.

    OUT/<model version>/            the index (serving/index.py); it appears whole, and takes the place of an older one
    OUT/.embedded-<release>.jsonl   what has been embedded: a killed run, or a longer manifest, goes on from it

A manifest is a CSV whose column `file` names a picture beside it: what `collect` writes, for example. Of each object
the columns title, artist, date, culture, source (or source_repo), object_id, url and licence go into the index; no
picture does.
"""

import argparse
import base64
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving import index
from serving.contract import EMBEDDING, MODEL_NAME
from serving.images import ImageError, decode
from training import durable
from training.manifest import Row, read_manifest

CHUNK: Final = 64  # pictures decoded ahead of the model; the most work that a kill can lose

Embed = Callable[[NDArray[np.uint8]], NDArray[np.float32]]  # uint8 [N, 224, 224, 3] -> float32 [N, D]


class Embedded:
    """Embeddings by the SHA-256 of the picture's file, kept in a ledger."""

    def __init__(self, ledger: durable.Ledger) -> None:
        self._ledger = ledger
        self._known: dict[str, NDArray[np.float32]] = {}
        for line in ledger.lines:
            self._learn(line)

    def __contains__(self, picture: str) -> bool:
        return picture in self._known

    def __getitem__(self, picture: str) -> NDArray[np.float32]:
        return self._known[picture]

    def add(self, pictures: Sequence[str], embeddings: NDArray[np.float32]) -> None:
        """Remember them for good."""
        packed = base64.b64encode(embeddings.astype("<f4").tobytes()).decode()
        line = {"pictures": list(pictures), "embeddings": packed}
        self._ledger.append(line)
        self._learn(line)

    def _learn(self, line: dict[str, Any]) -> None:
        values = np.frombuffer(base64.b64decode(line["embeddings"]), "<f4").reshape(len(line["pictures"]), -1)
        self._known.update(zip(line["pictures"], values, strict=True))


def embed_rows(
    rows: Sequence[Row], embed: Embed, embedded: Embedded, *, quiet: bool = False
) -> Iterator[tuple[Row, str]]:
    """Each row with its picture's SHA-256 once it is embedded. Unreadable pictures are told and left out."""
    from tqdm import tqdm  # `export` runs where it is not installed

    with ThreadPoolExecutor() as pool, tqdm(total=len(rows), unit="picture", disable=True if quiet else None) as bar:
        for at in range(0, len(rows), CHUNK):
            chunk = rows[at : at + CHUNK]
            read = list(pool.map(lambda row: _read(row.picture, embedded), chunk))
            new = {made[0]: made[1] for made in read if not isinstance(made, str) and made[1] is not None}
            if new:
                embedded.add(list(new), embed(np.stack(list(new.values()))))
            for row, made in zip(chunk, read, strict=True):
                if isinstance(made, str):
                    tqdm.write(f"left out: {row.picture}: {made}")
                else:
                    yield row, made[0]
            bar.update(len(chunk))


def _read(picture: Path, embedded: Embedded) -> tuple[str, NDArray[np.uint8] | None] | str:
    """The file's SHA-256 and, unless it is embedded already, its pixels; or why there are none."""
    try:
        data = picture.read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        return digest, None if digest in embedded else decode(data)
    except (ImageError, OSError) as error:
        return str(error)


def publish(found: Sequence[tuple[Row, str]], embedded: Embedded, target: Path, **facts: Any) -> index.Facts:
    """Write the index to `target`; an older one there goes when the new one is complete."""
    if not found:
        raise ValueError("no picture of the manifest could be read")
    embeddings = np.stack([embedded[picture] for _, picture in found])  # [N, D]
    with tempfile.TemporaryDirectory(prefix=".index-", dir=target.parent) as scratch:
        new, old = Path(scratch, "new"), Path(scratch, "old")
        new.mkdir()
        made = index.write(new, [row.object for row, _ in found], embeddings, **facts)
        index.Index(new)  # what cannot be opened is not published
        if target.exists():
            target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    return made


def add_command(commands: "argparse._SubParsersAction[argparse.ArgumentParser]", release: Path) -> None:
    """Register `index`."""
    parser = commands.add_parser(
        "index",
        help="embed the objects of a manifest for `explain=neighbours`",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--manifest", type=Path, required=True, metavar="CSV", help="table of pictures and objects")
    add("--out", type=Path, required=True, metavar="FOLDER", help="where indexes live, a folder for each model version")
    add("--source", default="", help="the museum or collection, where the manifest does not say")
    add("--about", default="", help="what kind of collection this is, in a sentence for people")
    add("--release", type=Path, default=release, help="folder with model.safetensors (default: %(default)s)")
    add("--quiet", action="store_true", help="no progress bar")
    parser.set_defaults(run=_run)


def build(
    manifest: Path, out: Path, release: Path, *, source: str = "", about: str = "", quiet: bool = False
) -> index.Facts:
    """Embed the objects of a manifest by a release and write the index to OUT/<model version>."""
    from training.answers import ReleasedModel  # imports TensorFlow, which takes seconds

    rows = list(read_manifest(manifest, source=source))
    model = ReleasedModel(release, [EMBEDDING])
    version = model.release.version
    with durable.locked(out), durable.Ledger(out / f".embedded-{model.sha256[:12]}.jsonl") as ledger:
        embedded = Embedded(ledger)
        found = list(embed_rows(rows, lambda images: model.ask(images)[EMBEDDING], embedded, quiet=quiet))
        return publish(
            found,
            embedded,
            out / str(version),
            model_name=MODEL_NAME,
            model_version=version,
            release_sha256=model.sha256,
            about=about,
        )


def _run(options: argparse.Namespace) -> None:
    made = build(
        options.manifest,
        options.out,
        options.release,
        source=options.source,
        about=options.about,
        quiet=options.quiet,
    )
    print(f"{options.out / str(made.model_version)}: {made.objects:,} objects, version {made.version}")
