"""XTTS-v2 as a SpeechEngine: whatever is asked for at the same time shares the device's steps."""

import asyncio
import re
import unicodedata
from collections.abc import AsyncGenerator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from tts_core.errors import ReferenceTooShort, VoiceNotFound
from tts_core.text.limits import xtts_char_limit
from tts_core.types import (
    Audience,
    AudioChunk,
    BuiltinVoice,
    Language,
    Manner,
    ReferenceClip,
    Speaker,
    Utterance,
)
from tts_core.xtts.gpt import Gpt
from tts_core.xtts.guard import code_budget
from tts_core.xtts.loop import EngineLoop, Listener
from tts_core.xtts.memory import choose_device, precision_for, slots_for
from tts_core.xtts.model import Voice, load_model
from tts_core.xtts.reading import read
from tts_core.xtts.runner import Runner, Spoken
from tts_core.xtts.scheduler import Scheduler
from tts_core.xtts.vocoder import Vocoder

ENGINE_REVISION = 2
"""Counted up whenever this package makes the same model sound different."""

RESERVED_CODES = 6
"""Positions of the model that coqui leaves unused: 602 codes of 608 (28 s). Source: its `max_gen_mel_tokens`."""

MIN_CLIP_S = 0.33
"""The conditioning encoder's shortest chunk. Source: coqui `get_gpt_cond_latents`."""

MAX_WAITING = 256
"""Utterances that may wait for a slot: about a minute's work of one GPU."""


class XttsEngine:
    """The SpeechEngine behind XTTS_ENGINE=xtts."""

    name = "xtts"

    def __init__(self, folder: Path, *, device: str, slots: int | None = None) -> None:
        """Loads the model.

        slots   utterances decoded together; None: what the device's free memory holds
        model, gpt   for tests and benchmarks; while the engine is open only its thread may use them
        raises  StartupError if the folder does not hold a model that fits its config.json
        """
        chosen = choose_device(device)
        model = load_model(folder, device=chosen, precision=precision_for(chosen))
        self.model = model
        self.revision = f"xtts-{ENGINE_REVISION}-{model.fingerprint}"
        self.sample_rate_hz = model.sample_rate_hz
        self._voices = tuple(BuiltinVoice(id=_slug(name), name=name) for name in model.speakers)
        self._builtin = {_slug(name): voice for name, voice in model.speakers.items()}
        count = slots or slots_for(model.sizes, chosen, precision_for(chosen))
        self.gpt = Gpt(model.gpt, model.sizes, slots=count)
        runner = Runner(self.gpt, Vocoder(model.vocoder), slots=count)
        self._loop = EngineLoop(Scheduler(slots=count, max_waiting=MAX_WAITING), runner, rate_hz=self.sample_rate_hz)
        # Milliseconds, and not thread-safe in every language: the device's thread must not wait for it.
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="xtts-reader")
        self._loop.start()

    def voices(self) -> Sequence[BuiltinVoice]:
        return self._voices

    def max_chars(self, language: Language) -> int:
        return xtts_char_limit(language)

    async def clone(self, clips: Sequence[ReferenceClip]) -> Speaker:
        """raises ReferenceTooShort if a clip has less than a third of a second"""
        if any(len(clip.samples) < MIN_CLIP_S * clip.sample_rate_hz for clip in clips):
            raise ReferenceTooShort(f"each reference clip must be at least {MIN_CLIP_S} s long")
        voice = await asyncio.wrap_future(self._loop.call(lambda: self.model.voices.encode(clips)))
        return Speaker(
            conditioning={
                "gpt_latents": voice.gpt_latents.numpy(),
                "speaker_embedding": voice.speaker_embedding.numpy(),
            }
        )

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        """raises TextTooLong if the model has no place for the text, Overloaded, Cancelled once the engine is closed"""
        sequence = await self._sequence(utterance, manner, audience)
        listener = Listener()
        self._loop.submit(sequence, listener)
        try:
            while (item := await listener.inbox.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield AudioChunk(samples=item)
        finally:
            self._loop.leave(sequence)

    async def close(self) -> None:
        await asyncio.to_thread(self._loop.close)
        self._reader.shutdown()

    async def _sequence(self, utterance: Utterance, manner: Manner, audience: Audience) -> Spoken:
        voice, sizes = self._voice_of(manner.speaker), self.model.sizes
        self._loop.refuse_if_closed()
        loop = asyncio.get_running_loop()
        reading = await loop.run_in_executor(self._reader, read, self.model.tokenizer, utterance.text, manner.language)
        return Spoken(
            tenant=audience.tenant,
            max_codes=min(code_budget(reading.chars), sizes.max_codes - RESERVED_CODES),
            stop_code=sizes.stop_code,
            due_s=audience.due_s,
            text_ids=tuple(reading.text_ids),
            voice=voice,
            sampling=manner.sampling,
            speed=manner.speed,
        )

    def _voice_of(self, speaker: Speaker) -> Voice:
        if speaker.builtin is None:
            arrays = speaker.conditioning
            return Voice(torch.tensor(arrays["gpt_latents"]), torch.tensor(arrays["speaker_embedding"]))
        if speaker.builtin not in self._builtin:
            raise VoiceNotFound(f"XTTS has no built-in voice {speaker.builtin!r}")
        return self._builtin[speaker.builtin]


def _slug(name: str) -> str:
    """`Camilla Holmström` -> `camilla-holmstrom`"""
    ascii_name = unicodedata.normalize("NFKD", name.lower().replace("ı", "i")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")
