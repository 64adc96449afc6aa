"""Who trains and who validates: three validation parts like the three kinds of pictures that a user may bring.

A source is a site, or a book with all of its volumes: these are one look, and stand on one side.

Deterministic: a group's place in the queue is a hash of its name and the seed, so adding pictures moves few others.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from training.records import ARTIST, OTHER, RANDOM, SHOWN, SOURCE, TOO_CLOSE, TRAIN, VALIDATION, Record

# Perceptual hashes of 64 bits: this close means the same work. The same limits as the data's own cleaning used.
PHASH_NEAR: Final = 6
PHASH_LOOSE: Final = 10
DHASH_LOOSE: Final = 8
LARGEST_SOURCE: Final = 0.08  # of all pictures; a larger source (WikiArt) is never held out whole


def perceptual_hashes(pixels: NDArray[np.uint8]) -> tuple[int, int]:
    """64-bit pHash (low frequencies of a cosine transform) and dHash (differences of neighbours) of [224, 224, 3]."""
    grey = pixels.astype(np.float32).mean(-1)
    small = grey.reshape(32, 7, 32, 7).mean((1, 3))  # [32, 32]
    low = (_COSINES @ small @ _COSINES.T).ravel()[1:]  # without the mean brightness; [63]
    eight = grey.reshape(8, 28, 224).mean(1)[:, np.linspace(0, 223, 9).astype(int)]  # [8, 9]
    return _bits(low > np.median(low)), _bits((eight[:, 1:] > eight[:, :-1]).ravel())


_COSINES: Final = np.cos(np.pi / 32 * (np.arange(32) + 0.5) * np.arange(8)[:, None])  # [8, 32]


def _bits(values: NDArray[np.bool_]) -> int:
    return int("".join("01"[int(value)] for value in values), 2)


def near_duplicates(hashes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Pairs of positions, i < j, whose pictures are perceptually the same."""
    p, d = (np.array([pair[k] for pair in hashes], np.uint64) for k in (0, 1))
    pairs: list[tuple[int, int]] = []
    for i in range(len(p) - 1):
        far_p, far_d = np.bitwise_count(p[i + 1 :] ^ p[i]), np.bitwise_count(d[i + 1 :] ^ d[i])
        near = (far_p <= PHASH_NEAR) & (far_d <= 2 * DHASH_LOOSE) | (far_p <= PHASH_LOOSE) & (far_d <= DHASH_LOOSE)
        pairs += [(i, i + 1 + int(j)) for j in np.flatnonzero(near)]
    return pairs


def clusters(count: int, pairs: Sequence[tuple[int, int]]) -> list[int]:
    """A number for each of `count` pictures, the same for those that a chain of pairs connects."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    for i, j in pairs:
        parent[max(root(i), root(j))] = min(root(i), root(j))
    return [root(i) for i in range(count)]


def split(
    records: Sequence[Record],
    labels: Sequence[str],
    *,
    seed: int,
    shares: dict[str, float],
    never_shown: Sequence[str] = (),
) -> list[Record]:
    """The records with their `part` set.

    `shares`: how much of each class SOURCE, ARTIST and RANDOM should get, and SHOWN of the other cultures' artists and
    works; nothing of the cultures `never_shown`.
    """
    parts, large = [TRAIN if record.culture in labels else OTHER for record in records], _large(records)
    first: dict[int, str] = {}  # file of each cluster: a name that does not depend on the order of the records
    for record in records:
        first[record.cluster] = min(record.file, first.get(record.cluster, record.file))

    def work(record: Record) -> str:
        return record.work if record.accession else first[record.cluster]

    keys: tuple[tuple[str, Callable[[Record], str]], ...] = (
        (SOURCE, lambda r: _source(r, large)),
        (ARTIST, lambda r: r.artist),
        (RANDOM, work),
    )
    for part, key in keys:
        _hold_out(records, parts, part, key, shares[part], seed)
    for i, record in enumerate(records):
        place = hashlib.sha256(f"{seed} {SHOWN} {record.artist or work(record)}".encode()).digest()
        if parts[i] == OTHER and record.culture not in never_shown and place[0] < 256 * shares[SHOWN]:
            parts[i] = SHOWN
    return _drop_too_close([replace(record, part=part) for record, part in zip(records, parts, strict=True)])


def folds(records: Sequence[Record], labels: Sequence[str], *, part: str, count: int) -> list[list[Record]]:
    """The records `count` times, each time with other whole groups in `part` and all others in TRAIN; each group once.

    In RANDOM these are works, in ARTIST artists (objects or books where none is named), in SOURCE books and sites; what
    `split` never holds out as a source is always trained on. The folds have about as many pictures of each class. Empty
    where there are fewer groups than folds.
    """
    parts, large = [TRAIN if record.culture in labels else record.part for record in records], _large(records)
    groups: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        name = {RANDOM: record.work, ARTIST: replace(record, part=ARTIST).group, SOURCE: _source(record, large)}[part]
        if parts[i] == TRAIN and name:
            groups[name].append(i)
    if len(groups) < count:
        return []
    fold = np.full(len(records), -1)
    held = np.zeros((count, len(labels)))
    for name in sorted(groups, key=lambda name: (-len(groups[name]), hashlib.sha256(name.encode()).digest())):
        classes = np.bincount([labels.index(records[i].culture) for i in groups[name]], minlength=len(labels))
        chosen = min(range(count), key=lambda k: (held[k] @ classes, held[k].sum()))  # has the fewest of these yet
        held[chosen] += classes
        fold[groups[name]] = chosen
    return [
        _drop_too_close([replace(r, part=part if fold[i] == k else parts[i]) for i, r in enumerate(records)])
        for k in range(count)
    ]


def _source(record: Record, large: set[str]) -> str:
    """The book or site that is held out with a picture; empty where none is."""
    return "" if record.book in large or record.accession else record.book


def _large(records: Sequence[Record]) -> set[str]:
    """Sources that are never held out whole."""
    return {book for book, n in Counter(r.book for r in records).items() if n > LARGEST_SOURCE * len(records)}


def _hold_out(
    records: Sequence[Record], parts: list[str], part: str, key: Callable[[Record], str], share: float, seed: int
) -> None:
    """Move whole groups from TRAIN to `part` until each class has its share; never more than twice the share."""
    groups: dict[str, list[int]] = defaultdict(list)
    for i, record in enumerate(records):
        if parts[i] == TRAIN and key(record):
            groups[key(record)].append(i)
    sizes = Counter(record.culture for record in records)
    held: Counter[str] = Counter()
    for name in sorted(groups, key=lambda name: hashlib.sha256(f"{seed} {part} {name}".encode()).digest()):
        classes = Counter(records[i].culture for i in groups[name])
        main = min(classes, key=lambda culture: (-classes[culture], culture))
        wanted = held[main] < share * sizes[main]
        if wanted and all(held[c] + n <= 2 * share * sizes[c] + 1 for c, n in classes.items()):
            held.update(classes)
            for i in groups[name]:
                parts[i] = part


def _drop_too_close(records: list[Record]) -> list[Record]:
    """Training pictures of a validation picture's object, or near-duplicates of it, serve nobody.

    Nor is shown what is close to a picture that tries what was learnt.
    """

    def apart(source: str, target: str, parts: Sequence[str], among: list[Record]) -> list[Record]:
        held = {key for record in among if record.part in parts for key in (record.cluster, record.work)}
        return [replace(r, part=target) if r.part == source and held & {r.cluster, r.work} else r for r in among]

    return apart(SHOWN, OTHER, (*VALIDATION, OTHER), apart(TRAIN, TOO_CLOSE, VALIDATION, records))


def digest(records: Sequence[Record]) -> str:
    """A name for the split: the same files in the same parts have the same."""
    return hashlib.sha256("\n".join(sorted(f"{r.part} {r.culture} {r.file}" for r in records)).encode()).hexdigest()


def leak_report(records: Sequence[Record], labels: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """How well the label is guessed without looking at the picture: from the file's geometry, and from its source.

    Per validation part, beside the accuracy of always naming the most frequent class. A model that scores little more
    than `geometry` may have learnt how the files were made. `source` is what recognising the site or the book would
    tell, whichever the volume; `known_source` the share of pictures from one that training knows: 0 in the part SOURCE.
    """
    from sklearn.tree import DecisionTreeClassifier

    def geometry(chosen: Sequence[Record]) -> NDArray[np.float64]:
        return np.array([[r.width, r.height, r.width / r.height, r.bytes / (r.width * r.height)] for r in chosen])

    known = [r for r in records if r.part == TRAIN]
    tree = DecisionTreeClassifier(max_depth=8, random_state=seed).fit(geometry(known), [r.culture for r in known])
    usual = Counter(r.culture for r in known).most_common(1)[0][0]
    by_source: dict[str, Counter[str]] = defaultdict(Counter)
    for record in known:
        by_source[record.book][record.culture] += 1
    books = {book for book in by_source if book}
    report: dict[str, Any] = {}
    for part in VALIDATION:
        chosen = [r for r in records if r.part == part]
        if chosen:
            truth = np.array([r.culture for r in chosen])
            guesses = np.array([(by_source[r.book] or Counter([usual])).most_common(1)[0][0] for r in chosen])
            report[part] = {
                "pictures": len(chosen),
                "classes": {label: int((truth == label).sum()) for label in labels},
                "majority": float((truth == usual).mean()),
                "geometry": float((tree.predict(geometry(chosen)) == truth).mean()),
                "source": float((guesses == truth).mean()),
                "known_source": float(np.mean([r.book in books for r in chosen])),
            }
    return report
