"""Where sentences end: the sentencex library, and rules for what it gets wrong."""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from sentencex import get_sentence_boundaries

from tts_core.text.clean import CleanText
from tts_core.text.marks import CLOSERS, OPENERS, STOPS, WIDE_CLOSERS, WIDE_COMMAS, WIDE_STOPS
from tts_core.text.pieces import PARAGRAPH_PAUSE_S, SENTENCE_PAUSE_S, Piece, pieces_between
from tts_core.types import Language

_STRETCH_CHARS = 8_000
"""sentencex takes quadratic time on quotes that are never closed (50,000 characters: 0.2 s)."""

_SENTENCE_END = re.compile(f"[{re.escape(STOPS + WIDE_STOPS)}][{re.escape(CLOSERS)}]*$")
_LONGEST_SENTENCE_END = 8
"""Characters looked at for a stop and what closes behind it."""

_SHORT_WORD_END = re.compile(r"(?:^|\s)\S{1,4}\.$")
"""`Dr.`, `Prof.` or `3.` at the end of a line."""

_LIST_ITEM = re.compile(r"(?:[-*+•‣◦–—]|\d{1,3}[.)])[ ]")

_ORDINAL = re.compile(r"\d\. $")
_ORDINAL_LANGUAGES = frozenset({"cs", "de", "hu", "pl", "tr"})
"""They write "3rd of October" with a full stop: `3. Oktober`, `3. října`."""

_INITIAL_LANGUAGES = frozenset({"cs", "de", "es", "fr", "hu", "it", "nl", "pl", "pt", "ru", "tr"})
"""Where sentencex parts `A. Mickiewicz`. In English it does not, and there `plan B. Then` should be parted."""

_ABBREVIATIONS: Mapping[Language, str] = MappingProxyType(
    {
        "en": "approx dr gen mr mrs ms prof st vs",
        "es": "aprox núm pág págs tel",
        "fr": "M MM Me Mgr av dr mlle mme p pr st ste",
        "it": "arch avv geom ing p",
        "pt": "av eng exa p pág",
        "pl": "al dr gen godz hab im inż kpt ks mgr nr płk prof str tj tzn tzw św ul",
        "tr": "M.Ö M.S alb av bn cad doç mah op sn sok uzm yrd örn",
        "ru": "г им т т.е т.к т.н ул",
        "nl": "bijv ca d.w.z dhr drs ir mevr mr o.a",
        "cs": "ing mgr mudr sv tj tzv č",
        "hu": "dr id ifj ill kb pl szt u ún özv",
        "ar": "أ أ.د د م",
        "hi": "कु डॉ पं पू प्रो श्री श्रीमती स्व ई",
        "ja": "dr mr mrs ms prof st",
        "zh": "dr mr mrs ms prof st",
        "ko": "dr mr mrs ms prof st",
    }
)
"""Abbreviations that something always follows, so they end no sentence; lower case stands for `Dr` as well as `dr`."""

_LONGEST_ABBREVIATION = 11
"""Longer than any of the list, so that the end of a longer word is not taken for one."""

_NO_WORD = r"\s\u3040-\u30ff\u4e00-\u9fff" + re.escape(OPENERS + WIDE_CLOSERS + WIDE_STOPS + WIDE_COMMAS)
"""Not part of an abbreviation; Japanese and Chinese put `Dr.` right behind their own letters."""

_LAST_WORD = re.compile(rf"([^{_NO_WORD}]{{1,{_LONGEST_ABBREVIATION}}})\. $")


def sentences(cleaned: CleanText, *, language: Language) -> list[Piece]:
    """The sentences of a text in order; each ends with the pause that follows it. Together they hold all of it."""
    found: list[Piece] = []
    for start, end in _blocks(cleaned):
        block = cleaned.text[start:end]
        cuts = {start + cut: SENTENCE_PAUSE_S for cut in _library_cuts(block, language)}
        cuts |= dict(_line_cuts(cleaned, known=cuts, span=(start, end), language=language))
        safe = {cut: pause_s for cut, pause_s in cuts.items() if cut not in cleaned.inside_clusters}
        found += pieces_between(cleaned.text, span=(start, end), cuts=safe, last_pause_s=PARAGRAPH_PAUSE_S)
    return found


def _blocks(cleaned: CleanText) -> Iterator[tuple[int, int]]:
    """What stands between blank lines; sentencex sees one at a time, so an unclosed quote spoils no more than that."""
    start = 0
    for position, kind in cleaned.breaks.items():
        if kind == "paragraph":
            yield start, position - 1
            start = position
    if start < len(cleaned.text):
        yield start, len(cleaned.text)


def _library_cuts(block: str, language: Language) -> list[int]:
    return [end for end in _library_ends(block, language) if _is_real_end(block, end, language)]


def _library_ends(block: str, language: Language) -> Iterator[int]:
    """Where sentencex ends sentences, told a stretch at a time; the last, perhaps cut, is told again with the next."""
    start = 0
    while start < len(block):
        stretch = block[start : start + _STRETCH_CHARS]
        ends = [int(boundary["end_index"]) for boundary in get_sentence_boundaries(language, stretch)]
        inner = [end for end in ends if 0 < end < len(stretch)]
        yield from (start + end for end in inner)
        is_last = start + len(stretch) == len(block)
        start += inner[-1] if inner and not is_last else len(stretch)


def _is_real_end(block: str, end: int, language: Language) -> bool:
    """Whether a sentence may end here: never inside a word, before a closing mark, or behind an abbreviation."""
    if block[end - 1] != " ":
        return _ends_wide(block, end)
    if block[end] in WIDE_CLOSERS:
        return False
    return not (_ends_with_abbreviation(block, end, language) or _is_ordinal(block, end, language))


def _ends_wide(block: str, end: int) -> bool:
    inside_number = block[end - 1] == "．" and block[end].isdecimal()
    if inside_number or block[end] in WIDE_CLOSERS or block[end] == " ":
        return False
    return block[max(0, end - _LONGEST_SENTENCE_END) : end].rstrip(WIDE_CLOSERS)[-1:] in tuple(WIDE_STOPS)


def _ends_with_abbreviation(block: str, end: int, language: Language) -> bool:
    word = _LAST_WORD.search(block[max(0, end - _LONGEST_ABBREVIATION - 2) : end])
    if word is None:
        return False
    stem, known = word[1], _ABBREVIATIONS.get(language, "").split()
    return stem in known or stem[0].lower() + stem[1:] in known or _is_letter(stem, block[end], language)


def _is_letter(stem: str, follower: str, language: Language) -> bool:
    """`A. Mickiewicz`, or one of several: `т. е. это`."""
    if len(stem) > 1 or not stem.isalpha() or language not in _INITIAL_LANGUAGES:
        return False
    return follower.islower() or (stem.isupper() and follower.isupper())


def _is_ordinal(block: str, end: int, language: Language) -> bool:
    numbered = language in _ORDINAL_LANGUAGES and _ORDINAL.search(block, max(0, end - 3), end)
    return bool(numbered) and block[end].islower()


def _line_cuts(
    cleaned: CleanText, *, known: Mapping[int, float], span: tuple[int, int], language: Language
) -> Iterator[tuple[int, float]]:
    """Line ends at which a sentence ends: a paragraph. Before a list item: a sentence. Others are soft wraps."""
    for position in cleaned.breaks_within(*span):
        if position in known or _line_ends_sentence(cleaned.text, position, language):
            yield position, PARAGRAPH_PAUSE_S
        elif _LIST_ITEM.match(cleaned.text, position):
            yield position, SENTENCE_PAUSE_S


def _line_ends_sentence(text: str, position: int, language: Language) -> bool:
    """For line ends where sentencex saw no end: it knows abbreviations, yet looks at nothing inside quotes."""
    line_end = text[max(0, position - 1 - _LONGEST_SENTENCE_END) : position - 1]
    if _SHORT_WORD_END.search(line_end):
        return False
    return bool(_SENTENCE_END.search(line_end)) and _is_real_end(text, position, language)
