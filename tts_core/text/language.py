"""Which of the seventeen languages a text is in."""

import re
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, cast, get_args

from tts_core.errors import LanguageUnsupported
from tts_core.types import Language

if TYPE_CHECKING:
    from py3langid.langid import LanguageIdentifier

_LANGUAGES: tuple[Language, ...] = get_args(Language)

_LATIN_LANGUAGES: tuple[Language, ...] = ("en", "es", "fr", "de", "it", "pt", "pl", "tr", "nl", "cs", "hu")

_TAG = re.compile(r"(?P<base>[a-z]{2})(?:-[a-z0-9]{1,8})*")
"""A language tag (BCP 47) in lower case; what follows the language does not change the voice."""

_SAMPLE_CHARS = 2_000
"""Looked at: more would cost time and change nothing."""

_LEAST_CONFIDENCE = 0.25
"""Below this py3langid is guessing among eleven ("Hello": it 0.19, "Hola": all 0.09), so the default is as good."""

_DEFAULT: Language = "en"

_IDEOGRAM_WEIGHT = 3
"""A Chinese, Japanese or Korean character says about what three letters do; source: the limits of XTTS, 82 to 250."""

_KANA_SHARE = 0.05
"""Of kana and ideograms together: Japanese has far more than this, Chinese with a brand's `no` in it has less."""

_SCRIPTS: Mapping[str, re.Pattern[str]] = MappingProxyType(
    {
        "latin": re.compile(r"[A-Za-z\u00aa\u00ba\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u024f\u1e00-\u1eff\uff21-\uff5a]"),
        "ru": re.compile(r"[\u0400-\u052f]"),
        "ar": re.compile(r"[\u0620-\u064a\u066e-\u06d3\u0750-\u077f\ufb50-\ufdff\ufe70-\ufefc]"),
        "hi": re.compile(r"[\u0900-\u0963\u0966-\u097f]"),
        "ko": re.compile(r"[\u1100-\u11ff\u3130-\u318f\uac00-\ud7a3]"),
        "kana": re.compile(r"[\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f]"),
        "han": re.compile(r"[\u3005\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"),
    }
)
"""Scripts by the only language among the seventeen that uses them, where there is one."""


def choose_language(requested: str, text: str) -> Language:
    """The language to speak `text` in.

    requested  "auto", one of the seventeen, or one with a region or script behind it: `zh-CN`, `zh_cn`, `pt-BR`
    raises     LanguageUnsupported for anything else
    """
    tag = requested.lower().replace("_", "-")
    if tag == "auto":
        return _detect(text[:_SAMPLE_CHARS])
    match = _TAG.fullmatch(tag)
    if match is None or match["base"] not in _LANGUAGES:
        accepted = ", ".join(_LANGUAGES)
        raise LanguageUnsupported(f"language {requested[:40]!r} is not spoken here: use auto or one of {accepted}")
    return cast(Language, match["base"])


def _detect(sample: str) -> Language:
    """By script where that decides; English where nothing does."""
    counts = {script: len(letters.findall(sample)) for script, letters in _SCRIPTS.items()}
    kana, han = counts.pop("kana"), counts.pop("han")
    east_asian = "ja" if kana > _KANA_SHARE * (kana + han) else "zh"
    weights = counts | {"ko": counts["ko"] * _IDEOGRAM_WEIGHT, east_asian: (kana + han) * _IDEOGRAM_WEIGHT}
    winner = max(weights, key=lambda script: weights[script])
    if not weights[winner]:
        return _DEFAULT
    return _detect_latin(sample) if winner == "latin" else cast(Language, winner)


def _detect_latin(sample: str) -> Language:
    language, confidence = _identifier().classify(sample)
    return cast(Language, language) if confidence >= _LEAST_CONFIDENCE else _DEFAULT


@cache
def _identifier() -> "LanguageIdentifier":
    """Loaded at first use: it takes 0.7 s and 130 MB."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(_LATIN_LANGUAGES)
    return identifier
