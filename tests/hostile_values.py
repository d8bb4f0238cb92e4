"""The tables behind `hostile`: wrong values by what they are wrong for, and the codes that fit where it differs.

Nothing here leaves the machine: every address is loopback, private, reserved or under `.invalid`.
"""

import math
from collections.abc import Callable

Codes = frozenset[str]
Values = dict[str, object]

MAX_TEXT_CHARS = 20_000
MAX_NESTING = 900
"""From about 970 on runpod 1.12 loses a job while it parses the answer of job-take, before any handler sees it."""

SURROGATE = "\ud800"
LONG = "x" * 10_000


def codes(*names: str) -> Codes:
    return frozenset(names)


def words(text: str) -> list[str]:
    return text.split()


def nested(depth: int, wrap: Callable[[object], object]) -> object:
    value: object = "core"
    for _ in range(depth):
        value = wrap(value)
    return value


ODD_NUMBERS: Values = {
    "NaN": math.nan,
    "infinity": math.inf,
    "minus infinity": -math.inf,
    "1e308": 1e308,
    "minus 1e308": -1e308,
    "a 400-digit integer": 10**400,
    "minus one": -1,
    "minus zero point one": -0.1,
    "two to the 63rd": 2**63,
}
OBJECTS: Values = {"an object": {}, "an object with keys": {"$ne": None}}
DEEP_LIST = nested(MAX_NESTING, lambda value: [value])
LISTS: Values = {"an empty list": [], "a list": ["a"], "a deep list": DEEP_LIST}
TRUTHS: Values = {"true": True, "false": False}
NULL: Values = {"null": None}

NOT_TEXT = TRUTHS | OBJECTS | LISTS | {"an integer": 1, "a float": 1.5, "NaN": math.nan}
NOT_NUMBER = TRUTHS | OBJECTS | LISTS | ODD_NUMBERS | {"a digit in quotes": "1", "empty": "", "NaN in quotes": "NaN"}
NOT_BOOL = OBJECTS | LISTS | NULL | {"one": 1, "zero": 0, "a word": "true", "empty": "", "0.0": 0.0, "NaN": math.nan}
NOT_OBJECT = TRUTHS | LISTS | NULL | {"an integer": 1, "a text": "a", "json text": "{}", "NaN": math.nan}
NOT_CLIPS = (
    TRUTHS | OBJECTS | {"an integer": 1, "[1]": [1], "[null]": [None], "[[]]": [[]], "[{}]": [{}], "[true]": [True]}
)

TEXTS = ("text", "language", "voice_id", "output", "format", "cache", "persona_id", "user_id", "idempotency_key")
NULLABLE = ("sample_rate", "voice_id", "persona_id", "user_id", "idempotency_key")
NUMBERS = ("speed", "temperature", "top_k", "top_p", "repetition_penalty", "seed", "sample_rate")
BOOLS = ("streaming", "ssml", "include_alignments", "progress")

OUT_OF_RANGE: dict[str, tuple[object, ...]] = {
    "speed": (0, 0.01, 100, 5e-324),
    "temperature": (1000, 1e6),
    "top_k": (1.5, 50.5, 10**9, "50"),
    "top_p": (1.01, 2, 85),
    "repetition_penalty": (0, 1e6),
    "seed": (0.5, 2**64, 10**100),
    "sample_rate": (0, 1, 100, 24_000.5, 10**6, 2**31),
    "output": ("", "file", "s3", "base64", "../x"),
    "cache": ("", "on", "always", SURROGATE),
    "format": ("", "exe", "mp4", "wav\0", "../wav", "mp3;id", "pcm_s16le", "raw:24000", SURROGATE, LONG),
}
UNFIT_RATES = (("opus", 22_050), ("opus", 44_100), ("opus", 11_025), ("mp3", 24_001), ("mp3", 96_000), ("aac", 24_001))

LANGUAGES = (
    "",
    "xx",
    "sv",
    "uk",
    "vi",
    "english",
    "e",
    "en\n",
    "en\0",
    "*",
    "../en",
    "en;ru",
    "klingon",
    SURROGATE,
    LONG,
)

BAD_TEXTS: dict[str, tuple[str, Codes]] = {
    "empty": ("", codes("text_empty")),
    "a space": (" ", codes("text_empty")),
    "white space": (" \t\r\n\v\f ", codes("text_empty")),
    "no-break and em spaces": ("\u00a0\u2003\u3000\u2028", codes("text_empty", "text_unspeakable")),
    "zero-width spaces": ("\u200b\u200c\u200d\ufeff", codes("text_empty", "text_unspeakable")),
    "a NUL": ("\0", codes("text_empty", "text_unspeakable", "invalid_input")),
    "many NULs": ("\0" * 1000, codes("text_empty", "text_unspeakable", "invalid_input")),
    "control characters": ("\x01\x07\x1b\x7f", codes("text_empty", "text_unspeakable", "invalid_input")),
    "direction marks": ("\u202e\u2066\u200f", codes("text_empty", "text_unspeakable")),
    "dots": ("...", codes("text_unspeakable")),
    "a question": ("?!?!", codes("text_unspeakable")),
    "brackets and quotes": ("()[]{}\"'«»", codes("text_unspeakable")),
    "dashes": ("- – — ―", codes("text_unspeakable")),
    "chinese marks": ("。、，！？", codes("text_unspeakable")),
    "spanish marks": ("¿¡", codes("text_unspeakable")),
    "an emoji": ("\U0001f600", codes("text_unspeakable")),
    "an emoji family": ("\U0001f468\u200d\U0001f469\u200d\U0001f467", codes("text_unspeakable")),
    "a flag": ("\U0001f1e9\U0001f1ea", codes("text_unspeakable")),
    "marks without a letter": ("\u0301\u0308" * 20, codes("text_unspeakable")),
    "box drawings": ("│┌─┐│", codes("text_unspeakable")),
    "private use": ("\ue000\uf8ff", codes("text_unspeakable", "invalid_input")),
    "noncharacters": ("\uffff\ufffe", codes("text_unspeakable", "invalid_input")),
    "a lone surrogate": (SURROGATE, codes("text_unspeakable", "invalid_input")),
    "a lone surrogate in a sentence": (f"Hello {SURROGATE} there.", codes("text_unspeakable", "invalid_input")),
    "half an emoji": ("Hello \udc00.", codes("text_unspeakable", "invalid_input")),
    "one letter too many": ("a" * (MAX_TEXT_CHARS + 1), codes("text_too_long")),
    "words too many": ("word " * 5000 + "end", codes("text_too_long")),
    "a megabyte": ("Hello there. " * 80_000, codes("text_too_long")),
    "chinese too long": ("\u4f60" * (MAX_TEXT_CHARS + 1), codes("text_too_long")),
    "emoji too long": ("\U0001f600" * (MAX_TEXT_CHARS + 1), codes("text_too_long", "text_unspeakable")),
    "line ends too long": ("\n" * (MAX_TEXT_CHARS + 1), codes("text_too_long", "text_empty")),
    "one letter with too many marks": ("a" + "\u0301" * MAX_TEXT_CHARS, codes("text_too_long")),
}

VOICE_IDS = (
    *words("nobody * % null __proto__ constructor . .. ../../etc/passwd ..\\..\\windows %2e%2e%2f /etc/passwd"),
    *words("C:\\voices voices/another-tenant/clip nova\0.wav file:///etc/passwd http://127.0.0.1/ $(id) `id`"),
    *words("{{7*7}} ${jndi:ldap://127.0.0.1/} <script> n\u043eva \u202eavon 00000000-0000-0000-0000-000000000000"),
    *("", " ", "\0", "\n", "' OR '1'='1", "'; DROP TABLE voices; --", SURROGATE, LONG),
)

IDEMPOTENCY_KEYS = ("", LONG, "a\nb", "a\0b", "\x1b[2J", "a\x7f", SURROGATE)

ACTIONS = (
    *words("speak voices voices. .list voices.destroy Voices.List __init__ __class__ ../health *"),
    *("", "synthesize ", "synthesize\0", "voices.create;voices.delete", SURROGATE, LONG),
)

UNKNOWN_FIELDS = (
    *words("txt Text tenantKey speaker_wav input webhook s3Config openai_input job_id __proto__ __class__ __dict__"),
    *words("constructor prototype toString model_config $where a.b t\u0435xt %s%n {0.__class__} ../x \u202e"),
    *("", " ", "text ", "\0", "\n", "\x1b[31m", SURROGATE, f"a{SURROGATE}b", LONG),
)

METADATA: Values = {
    "900 objects deep": nested(MAX_NESTING, lambda value: {"a": value}),
    "900 lists deep": {"a": nested(MAX_NESTING - 1, lambda value: [value])},
    "a megabyte of text": {"a": "x" * 1_000_000},
    "200,000 items": {"a": [0] * 200_000},
    "50,000 keys": {f"k{n}": n for n in range(50_000)},
    "a long key": {"k" * 100_000: 1},
    "NaN": {"a": math.nan},
    "infinity": {"a": [{"b": math.inf}]},
    "a lone surrogate": {"a": SURROGATE},
    "a lone surrogate as key": {SURROGATE: 1},
    "a lone surrogate deep inside": {"a": [{"b": [f"x{SURROGATE}"]}]},
}

HOSTS = (
    *words("127.0.0.1 127.0.0.1:1 127.1 0.0.0.0 0 2130706433 0x7f000001 0x7f.1 0177.0.0.1 017700000001"),
    *words("10.0.0.1 10.255.255.255 172.16.0.1 192.168.0.1 100.64.0.1 169.254.169.254/latest/meta-data/ 2852039166/x"),
    *words("169.254.170.2 192.0.2.1 198.18.0.1 224.0.0.1 240.0.0.1 255.255.255.255"),
    *words("localhost LOCALHOST localhost. ip6-localhost [::1] [::] [fe80::1] [fc00::1] [ff02::1]"),
    *words("[::ffff:127.0.0.1] [::ffff:a9fe:a9fe] [2001:db8::1] user:secret@127.0.0.1 host.invalid@127.0.0.1"),
    *words("127.0.0.1#@host.invalid 127.0.0.1?@host.invalid 127.0.0.1\\@host.invalid %31%32%37.0.0.1"),
    *words("①②⑦.⓪.⓪.① 127。0。0。1 ⓛⓞⓒⓐⓛⓗⓞⓢⓣ 127.0.0.1:0 127.0.0.1:99999 127.0.0.1:-1 127.0.0.1:port"),
    *words("host.invalid user:secret@host.invalid a..invalid xn--.invalid \U0001f600.invalid [::1 [x]"),
    *(f"{'a' * 300}.invalid", f"{SURROGATE}.invalid", f"127.0.0.1/{'a' * 100_000}"),
    *("127.0.0.1/\r\nX-Injected: 1", "127.0.0.1/\0"),
)
URLS = (
    *(f"http://{host}" for host in HOSTS),
    *words("clip.wav /etc/passwd \\\\127.0.0.1\\share\\a.wav //127.0.0.1/a.wav http: http:// http:///a.wav"),
    *words("http://:80/a.wav http:/127.0.0.1 http:127.0.0.1 https://127.0.0.1/ HTTP://[::1]/ file:///etc/passwd"),
    *words("file://127.0.0.1/etc/passwd ftp://127.0.0.1/a.wav gopher://127.0.0.1:6379/_INFO javascript:alert(1)"),
    *words("data:audio/wav;base64,UklGRg== dict://127.0.0.1:11211/stat ldap://127.0.0.1/ concat:/etc/passwd pipe:0"),
    *words("tcp://127.0.0.1:1 rtmp://127.0.0.1/a rtsp://127.0.0.1/a s3://127.0.0.1/a"),
    *words("subfile,,start,0,end,9,,:/etc/passwd"),
    *("", " ", "not a url", "h\nttp://127.0.0.1/", " http://127.0.0.1/", SURROGATE, LONG),
)

NOT_BASE64: Values = {
    "marks": "!!!!",
    "bad padding": "AAA",
    "padding alone": "====",
    "padding inside": "AA==AA==",
    "empty": "",
    "a space": " ",
    "wide letters": "ＡＡＡＡ",
    "a lone surrogate": SURROGATE,
    "a NUL": "AAAA\0",
    "a path": "/etc/passwd",
    "a url": "http://127.0.0.1/a.wav",
    "a data url of nothing": "data:audio/wav;base64,",
    "100,000 letters": "A" * 100_000,
    "[empty]": [""],
}

URL_LISTS: Values = {
    "two urls": ["http://127.0.0.1/a", "http://[::1]/b"],
    "1,000 urls": ["http://127.0.0.1/a"] * 1000,
    "a url and an integer": ["http://127.0.0.1/a", 1],
}

KEYS = (
    *words("tts_live_ tts_live_wrong null undefined * % ../../keys \u0661\u0662"),
    *("", " ", "\0", "' OR '1'='1", "'; DROP TABLE api_keys; --", "0" * 64, LONG),
)

BAD_STATEMENTS: Values = {"empty": "", "a space": " ", "long": "x" * 100_000, "a surrogate": SURROGATE}

OF_A_LATER_VERSION: Values = {"ssml": True}
