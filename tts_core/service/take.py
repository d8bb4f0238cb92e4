"""One reading of a text: encoded as it is spoken, recorded and measured, whoever listens to it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from tts_core.audio.encode import Encoder
from tts_core.jobs import JsonObject
from tts_core.service.alignments import Alignments
from tts_core.service.delivery import Recording
from tts_core.synthesizer import Spoken
from tts_core.types import AudioFormat, Manner, Quality, Utterance


@dataclass(frozen=True, slots=True)
class Script:
    """What is about to be spoken.

    text            as it was sent; the plan points into it
    engine_rate_hz  of the samples that are heard
    rate_hz         of the encoded audio
    """

    text: str
    plan: Sequence[Utterance]
    manner: Manner
    engine_rate_hz: int
    format: AudioFormat
    rate_hz: int


class Take:
    """Hears what is spoken, in order; `finish` once at the end, `close` in any case."""

    def __init__(self, script: Script) -> None:
        self.recording = Recording(script.format)
        self.alignments = Alignments(script.text, script.plan, script.engine_rate_hz)
        self.quality = QualityReport()
        self.audio_seconds = 0.0
        self.paid_seconds, self.paid_bytes = 0.0, 0
        self.utterances = len(script.plan)
        self.utterances_done = 0
        self.first_audio_s: float | None = None
        self.finished = False
        self._rate_hz = script.engine_rate_hz
        self._encoder = Encoder(script.format, source_rate_hz=script.engine_rate_hz, sample_rate_hz=script.rate_hz)

    async def hear(self, spoken: Spoken, *, is_paid: bool = False) -> None:
        """Encode, record and measure. is_paid: an earlier attempt was charged for it"""
        self.alignments.follow(spoken)
        self.quality.follow(spoken)
        data = await asyncio.to_thread(self._encoder.write, spoken.samples)
        self.recording.write(data)
        self.audio_seconds += len(spoken.samples) / self._rate_hz
        self.paid_seconds += is_paid * len(spoken.samples) / self._rate_hz
        self.paid_bytes += is_paid * len(data)
        self.utterances_done += spoken.finished
        if self.first_audio_s is None and len(spoken.samples):
            self.first_audio_s = time.monotonic()

    def pay(self) -> None:
        """What was heard until now has been charged to somebody."""
        self.paid_seconds, self.paid_bytes = self.audio_seconds, self.recording.size_bytes

    async def finish(self) -> None:
        """Flush the encoder, and give the recording its final header."""
        self.recording.write(await asyncio.to_thread(self._encoder.finish))
        self.recording.seal()
        self.finished = True

    def close(self) -> None:
        self.recording.close()


class QualityReport:
    """What the engine thought of the utterances of a stream."""

    def __init__(self) -> None:
        self._heard: list[tuple[int, Quality]] = []

    def follow(self, spoken: Spoken) -> None:
        if spoken.quality is not None:
            self._heard.append((spoken.utterance, spoken.quality))

    @property
    def is_good(self) -> bool:
        return all(quality.verdict == "ok" for _, quality in self._heard)

    def told(self) -> JsonObject | None:
        """None from engines that do not judge; the verdict is "ok" where all utterances are."""
        if not self._heard:
            return None
        bad = [{"utterance": index, **asdict(quality)} for index, quality in self._heard if quality.verdict != "ok"]
        retries = sum(quality.retries for _, quality in self._heard)
        return {"verdict": bad[0]["verdict"] if bad else "ok", "retries": retries, "utterances": bad}
