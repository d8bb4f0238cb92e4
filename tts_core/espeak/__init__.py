"""The embedded engine: eSpeak NG, for machines without XTTS weights and for tests that listen.

engine   the SpeechEngine; library and child: eSpeak in a process of its own for every utterance
words    what of a text eSpeak is given, and when its words sound; kana: kanji as it can read them
clone    pitch and pace of a voice, from clips
"""

from tts_core.espeak.engine import EspeakEngine

__all__ = ["EspeakEngine"]
