"""From a string of the museum's Culture field to one of our labels, with the rule that decided.

    label_of("Italian, probably Florence")      # Verdict("Italian", "named with a place")
    label_of("hilt, German; blade, Italian")    # Verdict(None, "parts of different cultures")

The museum writes this field by hand: "British, London", "China (?)", "Chinese, for European market". We keep an object
only where the string leaves one culture; every other one is dropped and counted under its rule.
"""

import re
import textwrap
import unicodedata
from dataclasses import dataclass
from typing import Final


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


# Names that stand for a label. What the museum catalogues as English or Scottish is British.
NAMES: Final = {
    "British": ("British", "Britain", "Great Britain", "English", "England", "Scottish", "Scotland", "Welsh", "Wales"),
    "Chinese": ("Chinese", "China"),
    "French": ("French", "France"),
    "German": ("German", "Germany"),
    "Greek": ("Greek", "Greece", "Greek Islands"),
    "Italian": ("Italian", "Italy"),
    "Japanese": ("Japanese", "Japan"),
    "Spanish": ("Spanish", "Spain"),
}
LABELS: Final = tuple(NAMES)

# "Northern Italian" is Italian. The one exception, "South Italian", stands among OTHERS.
DIRECTIONS: Final = _names("""
    North, Northern, Northeast, Northwest, South, Southern, Southeast, Southwest, East, Eastern, West, Western,
    Central, Upper, Lower
""")

# Cultures that are none of ours, and their countries; beside one of ours they make it doubtful. Rome, Burgundy,
# Lombardy and Normandy are not among them: an older people left them its name, but "Italian, Rome" is Italian.
OTHERS: Final = {
    "ancient neighbours of Greeks and Italians: the museum keeps them apart, and so do we": _names("""
        Roman, Etruscan, Etruria, Italic, Faliscan, Villanovan, South Italian, Daunian, Cypriot, Cyprus, Cycladic,
        Minoan, Mycenaean, Helladic, Ptolemaic, Phoenician, Phoenicia, Punic, Carthage, Lydian, Lydia, Phrygian,
        Phrygia, Scythian, Scythia, Thracian, Thrace, Achaemenid, Persian, Persia, Assyrian, Assyria, Babylonian,
        Babylonia, Babylon, Parthian, Parthia, Sasanian, Egyptian, Egypt, Coptic, Nubian, Nubia
    """),
    "peoples and empires older than our countries, or larger": _names("""
        Byzantine, Byzantium, Frankish, Merovingian, Carolingian, Langobardic, Lombardic, Ostrogothic, Visigothic,
        Burgundian, Vandal, Avar, Celtic, Gallic, Gaul, Iberian, Iberia, Viking, Norse, Norman, Jewish, Islamic,
        Ottoman, Nasrid, Moorish, Mudéjar, Mudejar, Moresque, Colonial, Colonies, European, Europe, Asian, East Asia,
        South Asia, Southeast Asia, Mediterranean
    """),
    "Europe": _names("""
        Austrian, Austria, Belgian, Belgium, Bohemian, Bohemia, Czech, Czechoslovakia, Czechoslovakian, Moravian,
        Moravia, Danish, Denmark, Dutch, Holland, Netherlandish, Netherlands, Low Countries, Flemish, Flanders, Mosan,
        Finnish, Finland, Hungarian, Hungary, Irish, Ireland, Norwegian, Norway, Polish, Poland, Portuguese, Portugal,
        Romanian, Romania, Russian, Russia, Scandinavian, Scandinavia, Serbian, Serbia, Silesian, Silesia, Swedish,
        Sweden, Swiss, Switzerland, Balkan, Balkans, Bulgarian, Bulgaria, Croatian, Croatia, Dalmatian, Dalmatia,
        Albanian, Albania, Slovenian, Slovenia, Slovak, Slovakia, Baltic, Ukrainian, Ukraine, Turkish, Turkey, Maltese,
        Malta
    """),
    "Asia, Africa and the Americas": _names("""
        Korean, Korea, Ryukyu, Ryūkyū, Ainu, Mongolia, Mongolian, Manchu, Manchuria, Tibet, Tibetan, Xinjiang,
        Turkestan, Central Asia, Central Asian, Nepal, Nepalese, India, Indian, Indies, Mughal, Gandhara, Sri Lanka,
        Sri Lankan, Ceylon, Vietnam, Vietnamese, Thailand, Thai, Siam, Siamese, Cambodia, Cambodian, Indonesia,
        Indonesian, Javanese, Java, Philippine, Philippines, Filipino, Iranian, Iran, Iraqi, Iraq, Syrian, Syria,
        Arabian, Arabia, Armenian, Armenia, Caucasian, Caucasus, Tatar, Taiwan, Taiwanese, African, Africa,
        North African, North Africa, Moroccan, Morocco, Tunisian, Tunisia, Ethiopian, Ethiopia, American, America,
        United States, Native American, Canadian, Canada, Mexican, Mexico, Guatemalan, Guatemala, Peruvian, Peru,
        Brazilian, Brazil, Bolivian, Bolivia, Ecuadorian, Ecuador, Caribbean
    """),
}

# "hilt, German; blade, Italian": words for a part of an object, or for the rest of it, before or after the culture.
PARTS: Final = _names("""
    armor, backplate, barrel, base, binding, blade, border, bowl, breastplate, case, clock, cover, crossbow,
    cuirass, cup, dagger, decoration, dial, dish, embroidery, enamel, fabric, figure, flask, frame, gauntlet, gem,
    glass, gorget, grip, ground, guard, gun, handle, head, helmet, hilt, ivory, jar, knife, lace, lid, lock,
    mechanism, medallion, mount, mounting, movement, ornament, painting, pedestal, pistol, plaque, pommel,
    porcelain, rapier, saber, saucer, scabbard, setting, shaft, sheath, shield, stand, stock, sword, textile, tray,
    vase, velvet, watch
""")

# "Franco-Flemish": what stands before the hyphen of a compound.
PREFIXES: Final = _names("""
    Afro, Anglo, Austro, Celto, Cypro, Etrusco, Franco, Gallo, Germano, Graeco, Greco, Hispano, Ibero, Indo, Italo,
    Judeo, Luso, Romano, Sino, Syro, Turco
""")


@dataclass(frozen=True)
class Rule:
    """One line of the table: its name, what it looks for, and strings of the museum that it decides."""

    name: str
    keeps: bool
    says: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """The label, or None where the object is dropped, and the name of the rule that decided."""

    label: str | None
    rule: str


EMPTY = Rule("no culture given", False, "empty or unknown", ("", "unknown"))
MARKET = Rule("made for another market", False, "export ware: one culture's hands, another's taste",
              ("Chinese, for European market", "British (American market)", "Japanese, for export",
               "Chinese, for Sweden", "Chinese (trade)"))  # fmt: skip
COPY = Rule("copy or imitation", False, "after, copy, imitation, style, replica, forgery",
            ("British, after German original", "Italian style", "French, copy of Spanish original"))  # fmt: skip
MERGED = Rule("merged cultures", False, "compounds of two cultures",
              ("Franco-Flemish", "Hispano-Moresque", "Anglo-Saxon", "Etrusco-Corinthian"))  # fmt: skip
DOUBT = Rule("doubtful culture", False, "probably, perhaps, '?' and so on at its name",
             ("probably French", "Italian (?)", "China?", "possibly Spanish"))  # fmt: skip
TWO = Rule("two cultures", False, "more than one in one statement, however they are joined",
           ("China or Japan", "Chinese with French mounts", "German, probably Bohemian"))  # fmt: skip
PARTS_DIFFER = Rule("parts of different cultures", False, "statements divided by ';' that do not agree",
                    ("hilt, German; blade, Italian", "Japanese; mounts, French"))  # fmt: skip
PART_ONLY = Rule("only a part is named", False, "the culture of a blade says nothing of its hilt",
                 ("blade, Spanish, Toledo", "Italian hilt"))  # fmt: skip
OTHER = Rule("another culture", False, "a culture that is none of our labels; Roman and Etruscan are not Italian",
             ("Roman", "Etruscan", "Cypriot", "Austrian, Vienna", "South Italian"))  # fmt: skip
UNKNOWN = Rule("not a name we know", False, "nothing of the above: a place alone, a word we have no rule for",
               ("Manises", "Upper Rhenish", "Italian peninsula"))  # fmt: skip
SPLIT = Rule("every part of one culture", True, "statements divided by ';' that agree",
             ("hilt, Italian, Milan; blade, Italian", "German; blade, German, Solingen",
              "sword, Italian; scabbard, Italian"))  # fmt: skip
PLACE = Rule("named with a place", True, "the culture, then what names no other; a doubt about the town is no matter",
             ("Italian, Florence", "British, London", "Italian, probably Naples", "Greek, South Italian, Apulian",
              "China (Jingdezhen)"))  # fmt: skip
PLAIN = Rule("named plainly", True, "the culture and nothing else, perhaps with a direction",
             ("French", "Japan", "Northern Italian", "British or Scottish", "East Greek"))  # fmt: skip

# In the order in which they are asked.
RULES: Final = (EMPTY, MARKET, COPY, MERGED, PARTS_DIFFER, OTHER, PART_ONLY, DOUBT, TWO, UNKNOWN, SPLIT, PLACE, PLAIN)

_OTHERS: Final = [name for names in OTHERS.values() for name in names]
_LABEL_OF: Final = {name.lower(): label for label, names in NAMES.items() for name in names}


def _any(words: tuple[str, ...] | dict[str, str]) -> str:
    return "|".join(sorted((re.escape(word.lower()) for word in words), key=len, reverse=True))  # longest first


_MENTION: Final = re.compile(rf"\b({_any((*_LABEL_OF, *_OTHERS))})\b")
_HEAD: Final = re.compile(rf"(?:(?:{_any(DIRECTIONS)}) )?({_any(_LABEL_OF)})")
_MARKET: Final = re.compile(
    rf"\b(market|export|trade)\b|\bfor (?:the )?(?:(?:{_any(DIRECTIONS)}) )?(?:{_any((*_LABEL_OF, *_OTHERS))})\b"
)
_COPY: Final = re.compile(
    r"\bafter\b(?! (?:ca\.? )?\d)"
    r"|\b(style|manner|imitat\w+|cop(?:y|ies)|copied|replica|reproduction|forgery|fake|revival|original)\b"
)
_MERGED: Final = re.compile(
    rf"\b(?:{_any(PREFIXES)})[-–]\w+|\b(?:{_any(_LABEL_OF)})[-–](?:{_any((*_LABEL_OF, *_OTHERS))})\b"
)
_DOUBT: Final = re.compile(
    r"\b(probably|possibly|perhaps|presumably|supposedly|likely|attributed to|said to be|maybe)\b|\?"
)
_PART: Final = re.compile(rf"\b(?:{_any(PARTS)})s?\b")
_PART_FIRST: Final = re.compile(rf"^(?:\w+ )?(?:{_any(PARTS)})s?\b(?: and (?:{_any(PARTS)})s?\b)?[,:]? *")
_PART_LAST: Final = re.compile(rf" (?:{_any(PARTS)})s?$")
_HEAD_END: Final = re.compile(r"[,(:]| with | and vicinity")


def label_of(culture: str) -> Verdict:
    """The label for a string of the museum's Culture field, or None, and the rule that decided."""
    text = (
        " ".join(unicodedata.normalize("NFC", culture).lower().replace("( ?)", "?").replace("(?)", "?").split())
        .replace(" ?", "?")
        .strip(" ;,.")
    )
    if text in ("", "unknown", "undetermined", "n/a"):
        return Verdict(None, EMPTY.name)
    for pattern, rule in ((_MARKET, MARKET), (_COPY, COPY), (_MERGED, MERGED)):
        if pattern.search(text):
            return Verdict(None, rule.name)
    statements = [part.strip() for part in text.split(";") if part.strip()]
    if len(statements) == 1:
        return _statement(statements[0])
    verdicts = [_statement(_without_part(statement)) for statement in statements]
    labels = {verdict.label for verdict in verdicts}
    if len(labels) == 1:
        label = labels.pop()
        return Verdict(label, SPLIT.name) if label else verdicts[0]
    return Verdict(None, PARTS_DIFFER.name)


def label_of_nationalities(nationalities: str) -> Verdict:
    """The same for the field Artist Nationality, where "|" divides the makers: all of them must agree."""
    verdicts = [label_of(nationality) for nationality in nationalities.split("|")]
    unlabelled = [verdict for verdict in verdicts if verdict.label is None]
    if unlabelled:
        return unlabelled[0]
    return verdicts[0] if len({verdict.label for verdict in verdicts}) == 1 else Verdict(None, TWO.name)


def is_copy(makers: str) -> bool:
    """Whether Artist Prefix or Artist Role ("After", "Copy after", "Style of") says that the maker did not make it."""
    return any(_COPY.search(role.strip().lower()) for role in makers.split("|"))


def table() -> str:
    """The names and the rules as text, for people: `collect` leaves it beside the pictures, `prepare` in split.json."""
    lines = ["Names of each label (with a direction before them or not):"]
    lines += [f"  {label:<9} {', '.join(names)}" for label, names in NAMES.items()]
    for group, names in OTHERS.items():
        lines += ["", f"None of ours: {group}:", *_wrapped(names)]
    lines += ["", "Parts of an object, and the rest of it:", *_wrapped(PARTS), ""]
    lines.append("Rules, in the order in which they are asked:")
    for rule in RULES:
        lines.append(f"  {'keep' if rule.keeps else 'drop'}  {rule.name}: {rule.says}")
        lines += [f"          {example!r:<42} -> {label_of(example).label or 'dropped'}" for example in rule.examples]
    return "\n".join(lines)


def _statement(text: str) -> Verdict:
    """The verdict on a string without ';', in lower case."""
    text = re.sub(
        r"^((?:east )?greek), south italian\b", r"\1", text
    )  # Greeks in southern Italy: the museum calls them Greek
    end = _HEAD_END.search(text)
    head, rest = (text[: end.start()].strip(), text[end.start() :]) if end else (text, "")
    mentioned = {_LABEL_OF.get(name, name) for name in _MENTION.findall(text)}
    ours = mentioned & set(LABELS)
    if mentioned and not ours:
        return Verdict(None, OTHER.name)
    if len(mentioned) < 2 and _without_part(text) != text:
        return Verdict(None, PART_ONLY.name)
    if _DOUBT.search(head) or (rest and not re.search(r"\w", _DOUBT.sub("", rest))):
        return Verdict(None, DOUBT.name)
    if len(mentioned) > 1:
        return Verdict(None, TWO.name)
    if not ours or not all(_HEAD.fullmatch(name) for name in re.split(r" or | and |/", head)):
        return Verdict(None, UNKNOWN.name)
    return Verdict(ours.pop(), PLACE.name if rest else PLAIN.name)


def _without_part(text: str) -> str:
    """The statement without the part that it speaks of: "blade, Spanish" and "Spanish blade" are both "Spanish"."""
    first = _PART_FIRST.match(text)
    if first and not _MENTION.search(first[0]):
        return text[first.end() :]
    return _PART_LAST.sub("", text)


def _wrapped(names: tuple[str, ...]) -> list[str]:
    return textwrap.wrap(", ".join(names), 110, initial_indent="  ", subsequent_indent="  ")
