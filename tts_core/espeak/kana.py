"""Japanese for eSpeak, which reads kana but calls every kanji a "Chinese letter"."""

import re
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tts_core.errors import StartupError
from tts_core.espeak.words import UNKNOWN, SpokenText

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
        known = UNKNOWN.sub(" ", text)
        spoken, origin, done = "", list[int](), 0
        for run in JAPANESE.finditer(known):
            spoken += known[done : run.start()]
            origin += range(done, run.start())
            for start, kana in self._words(run.group()):
                spoken += kana + " "
                origin += [run.start() + start] * (len(kana) + 1)
            done = run.end()
        return SpokenText(spoken + known[done:], text, [*origin, *range(done, len(known))]).divided()

    def _words(self, run: str) -> Iterator[tuple[int, str]]:
        """Start and kana of each word of a run; what the reader loses (rare kanji) stays as it is."""
        self._kakasi = self._kakasi or _load()
        done = 0
        for word in self._kakasi.convert(run):
            start = run.find(word["orig"], done)
            if start > done:
                yield done, run[done:start]
            if start >= 0:
                done = start + len(word["orig"])
                yield start, _spoken(word["orig"], word["hira"])
        if done < len(run):
            yield done, run[done:]


def _spoken(written: str, kana: str) -> str:
    if written in READINGS:
        return READINGS[written]
    if written in PARTICLES:
        return PARTICLES[written]
    if len(written) > 1 and written.endswith("は") and KANJI.match(written[-2]):
        return kana[:-1] + " わ"
    return kana or written


def _load() -> Any:
    return import_module("pykakasi").kakasi()
