"""Which language a text is spoken in."""

from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_core.errors import LanguageUnsupported
from tts_core.text import choose_language
from tts_core.types import Language

SENTENCES: dict[Language, tuple[str, str]] = {
    "en": ("The weather is lovely today, so we went for a walk.", "Thank you very much for your help."),
    "es": ("Hoy hace muy buen tiempo y vamos a pasear por el parque.", "Muchas gracias por tu ayuda."),
    "fr": ("Il fait très beau aujourd'hui, alors nous allons au parc.", "Merci beaucoup pour votre aide."),
    "de": ("Heute ist das Wetter schön, deshalb gehen wir spazieren.", "Vielen Dank für deine Hilfe."),
    "it": ("Oggi il tempo è molto bello e andiamo a fare una passeggiata.", "Grazie mille per il tuo aiuto."),
    "pt": ("Hoje o tempo está muito bom e vamos passear no parque.", "Muito obrigado pela sua ajuda."),
    "pl": ("Dzisiaj jest piękna pogoda, więc idziemy na spacer.", "Dziękuję bardzo za pomoc."),
    "tr": ("Bugün hava çok güzel, bu yüzden yürüyüşe çıkıyoruz.", "Yardımınız için çok teşekkür ederim."),
    "ru": ("Сегодня прекрасная погода, и мы идём гулять.", "Большое спасибо за помощь."),
    "nl": ("Het is vandaag mooi weer, dus we gaan wandelen in het park.", "Hartelijk dank voor je hulp."),
    "cs": ("Dnes je krásné počasí, takže jdeme na procházku.", "Děkuji vám za pomoc."),
    "ar": ("الطقس جميل اليوم، لذلك سنذهب في نزهة.", "شكرا جزيلا على مساعدتك."),
    "zh": ("今天天气很好，我们去公园散步吧。", "非常感谢你的帮助。"),
    "hu": ("Ma nagyon szép idő van, ezért sétálni megyünk.", "Köszönöm szépen a segítséget."),
    "ko": ("오늘은 날씨가 좋아서 산책을 갑니다.", "도와주셔서 감사합니다."),
    "ja": ("今日は天気がいいので、公園を散歩します。", "手伝ってくれてありがとう。"),
    "hi": ("आज मौसम बहुत अच्छा है, इसलिए हम टहलने जा रहे हैं।", "आपकी मदद के लिए धन्यवाद।"),
}


@pytest.mark.parametrize("language", get_args(Language))
def test_each_language_is_recognised(language: Language) -> None:
    assert [choose_language("auto", sentence) for sentence in SENTENCES[language]] == [language, language]


@pytest.mark.parametrize("language", get_args(Language))
def test_each_language_is_accepted_by_name_whatever_the_text(language: Language) -> None:
    assert choose_language(language, "人 text текст") == language


@pytest.mark.parametrize(
    ("requested", "language"),
    [
        ("zh-cn", "zh"),
        ("zh-CN", "zh"),
        ("zh_cn", "zh"),
        ("zh-Hant-TW", "zh"),
        ("en-US", "en"),
        ("pt-BR", "pt"),
        ("es-419", "es"),
        ("DE", "de"),
    ],
)
def test_regional_names_mean_their_language(requested: str, language: Language) -> None:
    assert choose_language(requested, "") == language


@pytest.mark.parametrize(
    "requested", ["", "sv", "sv-SE", "english", "enx", "en-", "-en", "en US", "zh-", "und", "auto-x", "en\n"]
)
def test_other_names_are_refused_with_the_accepted_ones(requested: str) -> None:
    with pytest.raises(LanguageUnsupported, match=r"auto or one of en, es, .*, hi") as refusal:
        choose_language(requested, "Hello")
    assert repr(requested) in str(refusal.value)


def test_a_huge_name_is_not_repeated_in_full() -> None:
    with pytest.raises(LanguageUnsupported) as refusal:
        choose_language("x" * 10_000, "Hello")
    assert len(str(refusal.value)) < 300


def test_auto_is_understood_in_any_case() -> None:
    assert choose_language("AUTO", "Сегодня") == "ru"


@pytest.mark.parametrize("text", ["", "   ", "123", "?!", "😀", "OK", "Hi", "\x00", "\ud800", "שלום", "Γειά"])
def test_english_where_nothing_tells(text: str) -> None:
    assert choose_language("auto", text) == "en"


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("日本語", "zh"),
        ("日本語の", "ja"),
        ("カメラ", "ja"),
        ("네", "ko"),
        ("私はPythonとJavaScriptが好きです", "ja"),
        ("The Japanese word すし means sushi in English.", "en"),
        ("我们用 Python 写程序。", "zh"),
        ("Я использую Python каждый день", "ru"),
        ("鮮の每日是一个很受欢迎的品牌，我们每天早上都喝它的牛奶。", "zh"),
        ("HEUTE IST DAS WETTER SCHÖN", "de"),
        ("हाँ", "hi"),
        ("نعم", "ar"),
    ],
)
def test_the_script_decides_where_it_can(text: str, language: Language) -> None:
    assert choose_language("auto", text) == language


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200))
def test_any_text_gets_one_of_the_languages(text: str) -> None:
    assert choose_language("auto", text) in get_args(Language)
