"""The rules from the museum's culture strings to our labels."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.cultures import LABELS, NAMES, OTHERS, RULES, Rule, is_copy, label_of, label_of_nationalities, table

# Strings as the museum writes them; None is dropped, by the rule named beside it.
GOLDEN = """
British                                     British   named plainly
English                                     British   named plainly
Scottish                                    British   named plainly
British or Scottish                         British   named plainly
British, London                             British   named with a place
British, Staffordshire                      British   named with a place
British, Scottish                           British   named with a place
British (possibly Chelsea)                  British   named with a place
British, Worcester, decorated in London     British   named with a place
British, 18th century                       British   named with a place
British or Irish                            None      two cultures
American or British                         None      two cultures
British (American market)                   None      made for another market
British, for Indian market                  None      made for another market
After British original                      None      copy or imitation
probably British                            None      doubtful culture
Anglo-Irish                                 None      merged cultures
China                                       Chinese   named plainly
Chinese                                     Chinese   named plainly
  chinese                                   Chinese   named plainly
North China                                 Chinese   named plainly
Northwest China                             Chinese   named plainly
China (Jingdezhen)                          Chinese   named with a place
China or Japan                              None      two cultures
China (Turkestan)                           None      two cultures
China (?)                                   None      doubtful culture
North China and south-central Inner Mongolia  None    two cultures
Chinese, for European market                None      made for another market
Chinese, for American market                None      made for another market
Chinese, for British or American market     None      made for another market
Chinese with French mounts                  None      two cultures
Chinese with Dutch decoration               None      two cultures
Chinese or Korean                           None      two cultures
Sino-Tibetan                                None      merged cultures
Tibet                                       None      another culture
Japan                                       Japanese  named plainly
Japanese                                    Japanese  named plainly
Japanese (Arita)                            Japanese  named with a place
Japan (Ryūkyū Islands)                      None      two cultures
Japanese, Imari style                       None      copy or imitation
Japanese, for export                        None      made for another market
French                                      French    named plainly
North French                                French    named plainly
French, Paris                               French    named with a place
French (Breton)                             French    named with a place
French, Paris or its vicinity               French    named with a place
French, probably Lyon                       French    named with a place
French, after 1750                          French    named with a place
French, Nantes or Rouen                     French    named with a place
French, possibly Flemish                    None      two cultures
French or South Netherlandish               None      two cultures
French or Italian                           None      two cultures
French, after Italian original              None      copy or imitation
Franco-Flemish                              None      merged cultures
possibly French                             None      doubtful culture
French?                                     None      doubtful culture
French (probably)                           None      doubtful culture
Colonial American                           None      another culture
German                                      German    named plainly
South German                                German    named plainly
German, Meissen                             German    named with a place
German, Nuremberg                           German    named with a place
German or Austrian                          None      two cultures
Southern German or Swiss                    None      two cultures
German, probably Bohemian                   None      two cultures
Meissen with German mounts                  None      only a part is named
Austrian, Vienna                            None      another culture
Swiss                                       None      another culture
Frankish                                    None      another culture
hilt, German; blade, Italian                None      parts of different cultures
hilt, French, Paris; blade, German, Solingen  None    parts of different cultures
lock, German; stock, Italian, Brescia       None      parts of different cultures
case, French; movement, British, London     None      parts of different cultures
German; blade, Spanish, Toledo              None      parts of different cultures
Italian hilt; Spanish blade                 None      parts of different cultures
hilt, Italian; blade, probably Italian      None      parts of different cultures
hilt, Italian, Milan; blade, Italian        Italian   every part of one culture
sword hilt, Spanish; blade, Spanish, Toledo  Spanish  every part of one culture
Blade, German                               None      only a part is named
blade, possibly German                      None      only a part is named
Italian (Venice); Innsbruck                 None      parts of different cultures
Greek                                       Greek     named plainly
East Greek                                  Greek     named plainly
Greek Islands                               Greek     named plainly
Greek, Attic                                Greek     named with a place
Greek, South Italian, Apulian               Greek     named with a place
Greek, South Italian                        Greek     named plainly
Greek, Boeotian (or Attic)                  Greek     named with a place
East Greek, Rhodian (?)                     Greek     named with a place
Greek, Cypriot                              None      two cultures
Greek, Ptolemaic                            None      two cultures
Greek or Roman                              None      two cultures
Greco-Roman                                 None      merged cultures
Etrusco-Corinthian                          None      merged cultures
Roman                                       None      another culture
Roman, Cypriot                              None      another culture
Etruscan                                    None      another culture
South Italian (Daunian)                     None      another culture
Minoan                                      None      another culture
Helladic, Mycenaean                         None      another culture
Byzantine                                   None      another culture
Italian                                     Italian   named plainly
Northern Italian                            Italian   named plainly
Italian, Florence                           Italian   named with a place
Italian, probably Naples                    Italian   named with a place
Italian (supposedly Faenza or Florence)     Italian   named with a place
Italian, Montelupo?                         Italian   named with a place
Italian (Venice)                            Italian   named with a place
Italian or Spanish                          None      two cultures
German and Italian                          None      two cultures
Eastern Mediterranean or Italian            None      two cultures
Italian (?)                                 None      doubtful culture
Italian peninsula                           None      not a name we know
Italian or Sicilian                         None      not a name we know
Venice                                      None      not a name we know
Urbino with Gubbio luster                   None      not a name we know
Spanish                                     Spanish   named plainly
Spanish, Valencia                           Spanish   named with a place
Spanish or Italian                          None      two cultures
Spain or North Africa                       None      two cultures
Spanish Colonial                            None      two cultures
Hispano-Moresque                            None      merged cultures
Spanish, copy of Flemish original           None      copy or imitation
probably Manises                            None      doubtful culture
Native American (Hopi)                      None      another culture
European                                    None      another culture
German, possibly Bohemia                    None      two cultures
German, possibly Netherlands                None      two cultures
German or Poland                            None      two cultures
German, Brunswick (possibly Denmark)        None      two cultures
French, possibly Flanders                   None      two cultures
French, Lorraine or Low Countries           None      two cultures
French, Burgundy                            French    named with a place
French, Normandy                            French    named with a place
Italian, possibly Hungary                   None      two cultures
Italian, possibly Dalmatia                  None      two cultures
Italian, Rome                               Italian   named with a place
Italian, Lombardy                           Italian   named with a place
Spanish, possibly Morocco                   None      two cultures
Spanish, possibly Philippines               None      two cultures
British, possibly America                   None      two cultures
British, for United States                  None      made for another market
Greek, Asia Minor                           Greek     named with a place
Chinese, for Sweden                         None      made for another market
Chinese, for Holland                        None      made for another market
Chinese, for the Netherlands                None      made for another market
Chinese, for South America                  None      made for another market
Chinese, made for Portugal                  None      made for another market
Chinese (trade)                             None      made for another market
Chinese, Canton trade                       None      made for another market
sword, Italian; scabbard, Italian           Italian   every part of one culture
sword, Japanese; scabbard, Japanese, Edo    Japanese  every part of one culture
cup, German, Augsburg; cover, German        German    every part of one culture
sword, Italian; scabbard, Spanish           None      parts of different cultures
helmet, Italian, Milan; gorget, Italian     Italian   every part of one culture
helmet, Spanish                             None      only a part is named
unknown                                     None      no culture given
"""
CASES = [
    (text.strip(), None if label == "None" else label, rule)
    for text, label, rule in (
        re.split(rf"\s+({'|'.join(LABELS)}|None)\s+(?=[a-z ]+$)", line) for line in GOLDEN[1:-1].split("\n")
    )
]

label_names = st.sampled_from([(label, name) for label, names in NAMES.items() for name in names])
other_names = st.sampled_from([name for names in OTHERS.values() for name in names])
towns = st.sampled_from(
    ["Paris", "Florence", "Toledo", "Kyoto", "Attic", "London, Bow", "17th century", "Sèvres (soft paste)"]
)


@pytest.mark.parametrize(("culture", "label", "rule"), CASES, ids=[case[0] for case in CASES])
def test_culture_string_has_the_label_and_the_rule_that_we_expect(culture: str, label: str | None, rule: str) -> None:
    verdict = label_of(culture)
    assert (verdict.label, verdict.rule) == (label, rule)


def test_golden_table_is_read_whole() -> None:
    assert len(CASES) >= 150
    assert {label for _, label, _ in CASES} == {*LABELS, None}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_rule_decides_its_own_examples(rule: Rule) -> None:
    verdicts = [label_of(example) for example in rule.examples]
    assert {verdict.rule for verdict in verdicts} == {rule.name}
    assert all((verdict.label is not None) == rule.keeps for verdict in verdicts)


def test_table_shows_every_label_rule_and_example() -> None:
    text = table()
    assert all(label in text for label in LABELS)
    assert all(rule.name in text and all(repr(example) in text for example in rule.examples) for rule in RULES)


@pytest.mark.parametrize(
    ("nationalities", "label"),
    [
        ("French", "French"),
        ("French|French", "French"),
        ("French|Italian", None),
        ("French|", None),
        ("", None),
        ("Dutch", None),
    ],
)
def test_makers_must_agree_on_their_nationality(nationalities: str, label: str | None) -> None:
    assert label_of_nationalities(nationalities).label == label


@pytest.mark.parametrize(
    ("makers", "copied"),
    [("Artist", False), ("", False), ("After", True), ("Artist|After", True), ("Copy after", True), ("Style of", True),
     ("Workshop of", False), ("Manner of", True)],
)  # fmt: skip
def test_copies_are_told_by_prefix_or_role(makers: str, copied: bool) -> None:
    assert is_copy(makers) == copied


@given(st.text())
def test_any_text_gets_a_verdict_of_a_known_rule(text: str) -> None:
    verdict = label_of(text)
    keeps = {rule.name: rule.keeps for rule in RULES}
    assert keeps[verdict.rule] == (verdict.label is not None)
    assert verdict.label is None or verdict.label in LABELS


@given(label_names, towns)
def test_place_after_a_culture_does_not_change_the_label(named: tuple[str, str], town: str) -> None:
    label, name = named
    assert label_of(name).label == label_of(f"{name}, {town}").label == label_of(f"{name} ({town})").label == label


@given(
    label_names,
    st.sampled_from(["probably {}", "possibly {}, Lyon", "{} (?)", "{}?", "{} ?", "perhaps {}", "{}, possibly"]),
)
def test_doubt_about_a_culture_drops_it(named: tuple[str, str], doubt: str) -> None:
    assert label_of(doubt.format(named[1])).label is None


@given(
    label_names,
    label_names,
    st.sampled_from(["{} or {}", "{} and {}", "{}/{}", "{}, possibly {}", "{} with {} mounts", "{}; {}"]),
)
def test_two_labels_are_never_one(one: tuple[str, str], two: tuple[str, str], joined: str) -> None:
    label = label_of(joined.format(one[1], two[1])).label
    assert label in (None, one[0])
    assert label is None or one[0] == two[0]


@given(label_names, other_names, st.sampled_from(["{} or {}", "{}, {}", "{} ({})", "{} and {}", "{}; blade, {}"]))
def test_strange_culture_beside_a_label_drops_it(named: tuple[str, str], other: str, joined: str) -> None:
    greek_ware = named[0] == "Greek" and other == "South Italian" and joined == "{}, {}"
    assert greek_ware or label_of(joined.format(named[1], other)).label is None


@given(
    label_names,
    st.sampled_from([str.upper, str.lower, lambda text: f"  {text} ", lambda text: text.replace(" ", "  ")]),
)
def test_case_and_blanks_do_not_matter(named: tuple[str, str], written: Callable[[str], str]) -> None:
    assert label_of(written(named[1])) == label_of(named[1])
