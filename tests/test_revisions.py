"""Cached takes are found under the revisions of what made them: whoever changes how something sounds changes those."""

import hashlib

import numpy as np

from tests.sentences import SENTENCES
from tts_core.audio import encode
from tts_core.audio.encode import CODECS, Encoder
from tts_core.text import REVISION, plan, xtts_char_limit
from tts_core.types import AudioFormat

PLANS = {"1": "af29b94faf6db6b64995c2975366e0ed842c839954a1e2b24d424d6172fdcbcd"}
ENCODINGS = {"1": "82949d2336d58eeda94db1672c6d8be9f7e4ea49610768f66265171ff09ac207"}
"""What each revision makes of the same input. Another result under the same revision: give it a new one."""

TEXT = "Hi! {0} {0} “{0}” – (Dr. A. B. Smith, 3.5 %): {0}\n\n{0} Yes; no... {0}\t\0{0}?!  ½ 1,234,567 {0}"
EXACT: tuple[AudioFormat, ...] = ("wav", "pcm", "ulaw", "alaw")
"""Formats whose bytes do not hang on the version of a codec."""


def test_a_plan_that_changes_has_a_new_revision() -> None:
    plans = [
        plan(TEXT.format(sentence), language=language, max_chars=xtts_char_limit(language))
        for language, sentence in SENTENCES.items()
    ]
    assert hashlib.sha256(repr(plans).encode()).hexdigest() == PLANS[REVISION]


def test_an_encoding_that_changes_has_a_new_revision() -> None:
    samples = np.sin(np.arange(2_400, dtype=np.float32) / 7) * np.linspace(0, 1.2, 2_400, dtype=np.float32)
    heard = hashlib.sha256(repr(sorted(CODECS.items())).encode())
    for format in EXACT:
        encoder = Encoder(format, source_rate_hz=24_000, sample_rate_hz=24_000)
        heard.update(encoder.write(samples) + encoder.finish())
    assert heard.hexdigest() == ENCODINGS[encode.REVISION]
