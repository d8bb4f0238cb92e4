"""Japanese for eSpeak, which reads kana but calls every kanji a "Chinese letter"."""

import re
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tts_core.errors import StartupError
from tts_core.espeak_words import SpokenText

JAPANESE = re.compile(r"[\u3005-\u3007\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff]+")
"""What pykakasi is given; around emoji and line breaks it repeats words."""

KANJI = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")

PARTICLES = {"は": "わ", "へ": "え"}
"""Written one way and spoken another."""

READINGS = {"今日は": "きょう わ"}
"""Where pykakasi errs: as the first word of a sentence this is "today", not the greeting."""


def reader_version() -> str:
    """raises StartupError if pykakasi is not installed"""
    try:
        return version("pykakasi")
    except PackageNotFoundError as exc:
        raise StartupError("the eSpeak engine needs the package 'pykakasi': install .[espeak]") from exc


class KanaReader:
    """Turns kanji into kana. The dictionary takes 120 MB and half a second, so the first Japanese text loads it.

    Belongs to one thread.
    """

    def __init__(self) -> None:
        self._kakasi: Any = None

    def read(self, text: str) -> SpokenText:
        """The text as words of kana between spaces, each with the place of the word it came from."""
        spoken, origin, done = "", [], 0
        for run in JAPANESE.finditer(text):
            spoken += text[done : run.start()]
            origin += range(done, run.start())
            done = run.start()
            for written, kana in self._words(run.group()):
                spoken += kana + " "
                origin += [done] * (len(kana) + 1)
                done += len(written)
        return SpokenText(spoken + text[done:], text, [*origin, *range(done, len(text))])

    def _words(self, run: str) -> list[tuple[str, str]]:
        """The words of a run and how each is spoken; the run as one word if the reader loses a part of it."""
        self._kakasi = self._kakasi or _load()
        words = [(str(word["orig"]), str(word["hira"])) for word in self._kakasi.convert(run)]
        if "".join(written for written, _ in words) != run:
            return [(run, run)]
        return [(written, _spoken(written, kana)) for written, kana in words]


def _spoken(written: str, kana: str) -> str:
    if written in READINGS:
        return READINGS[written]
    if written in PARTICLES:
        return PARTICLES[written]
    if len(written) > 1 and written.endswith("は") and KANJI.match(written[-2]):
        return kana[:-1] + " わ"
    return kana or written


def _load() -> Any:
    import pykakasi

    return pykakasi.kakasi()
