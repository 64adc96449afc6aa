"""Model card and data card: what they say is true of the run and of the pictures, and no more than that."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("keras")

from training import met
from training.__main__ import RELEASE_DIR
from training.cards import BEFORE_PRODUCTION, CHOSEN, MIXED, OF_THE_MET, THEIR_OWN, data_card, made, model_card
from training.checkpoint import Release, load_release
from training.config import TrainConfig, to_values
from training.metrics import GROUPS, PICTURES
from training.records import OTHER, TRAIN, Record
from training.report import KINDS, intervals_text, parts_table, strangers_table

pytestmark = pytest.mark.filterwarnings("default")

WIKIART = "public-domain work (artist d. {}); WikiArt reproduction (dataset distributed for non-commercial research)"
PAINTING = Record("a.jpg", "Spanish", "jalpv1/wiki-art-selected-resized", "sorolla", licence=WIKIART.format(1923),
                  width=224, height=224, part=TRAIN)  # fmt: skip
PLATE = Record("b.jpg", "Greek", "GITenberg/Greek-vases_1", licence="old work; plate (Gutenberg); other | countries",
               width=320, height=200, part=TRAIN)  # fmt: skip
OBJECT = Record("c.jpg", "Greek", met.SOURCE, accession="1.2", licence="CC0", width=300, height=300, part=TRAIN)
SPLIT: dict[str, Any] = {"digest": "0" * 64, "parts": {"train": {"Greek": 1}}, "near_duplicate_clusters": 0}


@pytest.fixture(scope="module")
def released() -> Release:
    return load_release(RELEASE_DIR)


def told_of(release: Release, **facts: Any) -> str:
    return model_card(replace(release, facts=release.facts | facts))


def test_licences_stand_in_the_data_card_as_stated() -> None:
    card = data_card(
        [PAINTING, replace(PAINTING, licence=WIKIART.format(1656)), PLATE, replace(PLATE, licence="")], SPLIT
    )
    whole = WIKIART.replace(" (artist d. {})", "")
    assert f"| wiki-art-selected-resized | {whole} | 2 | Spanish |" in card
    assert r"| Greek-vases_1 | old work; plate (Gutenberg); other \| countries | 1 | Greek |" in card
    assert "| Greek-vases_1 | not stated | 1 | Greek |" in card
    assert "4 pictures of artworks, at most 320 pixels a side" in card


def test_data_card_speaks_only_of_sources_that_there_are() -> None:
    painting, plate, of_museum = (data_card([record], SPLIT) for record in (PAINTING, PLATE, OBJECT))
    assert "224 x 224 throughout" in painting
    assert "hand-written table" in painting
    assert "book" not in painting.split("Known traps")[1]
    assert "book plates" in plate
    assert "hand-written table" not in plate
    assert "Known traps" not in of_museum
    assert "of 1 the source" in of_museum


def test_data_card_counts_the_artists_of_the_labels() -> None:
    stranger = replace(PAINTING, culture="Dutch", part=OTHER)
    many = [replace(PAINTING, culture="French", artist=str(i)) for i in range(40)]
    card = data_card([PAINTING, replace(PAINTING, artist="goya"), stranger, *many], SPLIT)
    assert "Few artists per class (Spanish 2):" in card


def test_data_card_of_a_collected_folder_has_its_rules() -> None:
    assert "\n## Labels\n\n```\nGreek: Attic\n```\n" in data_card([OBJECT], SPLIT | {"rules": "Greek: Attic\n"})
    assert "## Labels" not in data_card([OBJECT], SPLIT)


def test_model_card_speaks_only_of_sources_that_there_are(released: Release) -> None:
    of_museum = told_of(released, sources={met.SOURCE: 9})
    assert OF_THE_MET in of_museum
    assert not any(text in of_museum for text in (MIXED, BEFORE_PRODUCTION, "Medium stands in", "plates of old books"))
    own = told_of(released, sources={"": 9})
    assert THEIR_OWN in own
    assert BEFORE_PRODUCTION in own
    assert MIXED in told_of(released, sources={met.SOURCE: 9, PLATE.source: 1})


def test_model_card_says_what_its_intervals_are(released: Release) -> None:
    by_picture = {"intervals": PICTURES}
    metrics, classes = (
        {name: row | by_picture for name, row in released.facts[key].items()} for key in ("metrics", "per_class")
    )
    assert KINDS[GROUPS] in told_of(released)
    assert "too narrow" not in told_of(released)
    assert "too narrow" in told_of(released, metrics=metrics, per_class=classes)
    assert "| all | 2125 | 245 | 0.470" in "\n".join(parts_table(released.facts["metrics"]))
    assert "too narrow" in intervals_text([{"intervals": GROUPS}, {}])


def test_model_card_says_how_the_network_came_about(released: Release) -> None:
    config = TrainConfig(data=Path("x"), epochs=4, label_smoothing=0, weight_decay=0.4, views=5, consistency=0.3)
    further = replace(config, start=Path("y"), fresh=True, cut=3, epochs=6, kept=0.5, prior=0.35)
    recipe = [{"config": to_values(config), "stage": "seed 0"}, {"config": to_values(further), "stage": "seed 1"}]
    first, second = made(recipe)
    assert "weight_decay 0.4, consistency 0.3 over 4 augmented view(s) of each picture, label_smoothing 0" in first
    assert "then block 5 and the head fine-tuned (learning rate 5e-05, at most 4 epochs" in first
    assert second.startswith("2. Blocks 3 to 5 and the head fine-tuned further")
    assert "0.5 of the way" in second
    assert "0.35 of the logarithms" in second
    card = told_of(released, recipe=recipe, rivals={"first recipe": recipe[:1]})
    assert f"{first}\n{second}\n\n{CHOSEN}" in card
    assert f"`first recipe` was made so:\n\n{first}\n" in card


@pytest.mark.parametrize(
    ("stage", "says", "not_says"),
    [("head", "solved to its optimum", "fine-tuned"), ("seed 1", "then block 5 and the head fine-tuned", "Nothing"),
     ("start", "Nothing new", "fine-tuned further")],
)  # fmt: skip
def test_recipe_tells_what_was_kept_and_not_what_was_tried(stage: str, says: str, not_says: str) -> None:
    (line,) = made([{"config": to_values(TrainConfig(data=Path("x"), epochs=4)), "stage": stage}])
    assert says in line
    assert not_says not in line


def test_photographs_have_a_line_of_their_own() -> None:
    row = {"count": 9, "distance": 0.6, "in colour": 0.55, "energy": 0.5, "called out of distribution": 0.05}
    assert strangers_table({"photographs": row})[-1] == "| photographs | 9 | 0.60 | 0.55 | 0.50 | 5% |"


def test_released_card_is_what_its_facts_say(released: Release) -> None:
    assert (RELEASE_DIR / "README.md").read_text() == model_card(released)


def test_released_cards_claim_no_more_than_is_known() -> None:
    card, data = ((RELEASE_DIR / name).read_text() for name in ("README.md", "DATA.md"))
    for words in ("draws whole groups", "0.331-0.693", "consistency 0.03 over 4 augmented view(s)", "chosen by",
                  "blocks 3 to 5 and the head fine-tuned", "`first recipe` was made so",
                  "photographs (9): 0.62 (0.44), 0% called so", "## Its head in folds",
                  "Egyptian, of which others were shown (141): 0.97 (0.95), 66%"):  # fmt: skip
        assert words in card
    for words in ("non-commercial research", "CC BY-NC-SA-ND", "research use only", "other countries not checked"):
        assert words in data
