"""A sentence with a number in each language."""

from tts_core.types import Language

SENTENCES: dict[Language, str] = {
    "en": "We met 23 people.",
    "es": "Vimos a 23 personas.",
    "fr": "Nous avons vu 23 personnes.",
    "de": "Wir sahen 23 Leute.",
    "it": "Abbiamo visto 23 persone.",
    "pt": "Vimos 23 pessoas.",
    "pl": "Widzieliśmy 23 osoby.",
    "tr": "23 kişi gördük.",
    "ru": "Мы видели 23 человека.",
    "nl": "We zagen 23 mensen.",
    "cs": "Viděli jsme 23 lidí.",
    "ar": "رأينا 23 شخصا.",
    "zh": "我们看到了23个人。",
    "hu": "23 embert láttunk.",
    "ko": "우리는 23명을 보았다.",
    "ja": "私たちは23人に会いました。",
    "hi": "हमने 23 लोगों को देखा।",
}
