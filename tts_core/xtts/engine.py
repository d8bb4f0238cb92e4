"""XTTS-v2 as a SpeechEngine: whatever is asked for at the same time shares the device's steps."""

import asyncio
import re
import unicodedata
from collections.abc import AsyncGenerator, Callable
from collections.abc import Sequence as Many
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import numpy as np
import torch

from tts_core.errors import Cancelled, EngineLost, ReferenceTooShort, StartupError, VoiceNotFound
from tts_core.speech import Identity
from tts_core.text.limits import xtts_char_limit
from tts_core.types import (
    Audience,
    AudioChunk,
    BuiltinVoice,
    FloatArray,
    Language,
    Manner,
    Quality,
    ReferenceClip,
    Speaker,
    Utterance,
)
from tts_core.xtts.device_thread import DeviceThread
from tts_core.xtts.gpt import PREFIX_POSITIONS, Gpt
from tts_core.xtts.guard import CodeWatch, badness, code_budget
from tts_core.xtts.loop import LOST, EngineLoop, Told
from tts_core.xtts.memory import MAX_WINDOWS, choose_device, slots_for
from tts_core.xtts.model import OpenModel, Voice, open_model
from tts_core.xtts.precision import choose_precision
from tts_core.xtts.reading import Reader, Reading
from tts_core.xtts.runner import Runner
from tts_core.xtts.scheduler import Scheduler
from tts_core.xtts.sequence import Sequence
from tts_core.xtts.voice_encoder import MIN_CHUNK_S

ENGINE_REVISION = 3
"""Counted up whenever this package makes the same model sound different."""

RESERVED_CODES = 6
"""Positions of the model that coqui leaves unused: 602 codes of 608 (28 s). Source: its `max_gen_mel_tokens`."""

GRAPHS_AT_START = 4
"""Recorded before the first job: one row, short texts. The others follow while nobody speaks."""

WARM_UP_CODES = 4
"""A prefill, decode steps that find their kernels chosen, a window: each more takes 30 ms of a CPU's start."""

MAX_RETRIES = 2
"""Of an utterance whose codes look wrong; each costs as much again."""

RETRY_SEED_STEP = 0x9E3779B1
"""Far from the seeds that callers choose next to each other."""

MAX_WAITING = 256
"""Utterances that may wait for a slot: about a minute's work of one GPU."""


class XttsEngine:
    """The SpeechEngine behind XTTS_ENGINE=xtts."""

    name = "xtts"
    is_ready = True
    fault = None

    def __init__(
        self,
        folder: Path,
        *,
        device: str,
        precision: str = "auto",
        slots: int | None = None,
        guarded: bool | None = None,
        announce: Callable[[Identity], None] = lambda _: None,
    ) -> None:
        """Loads the model and speaks with it, unheard.

        announce     is told what the engine will be, before the weights are read
        slots        utterances decoded together; None: what the device's free memory holds
        guarded      bad takes are spoken anew; None: unless the weights are random, which speak nothing else
        model, gpt   for tests and benchmarks; while the engine is open only its thread may use them
        raises       StartupError if the folder does not hold a model that fits its config.json, fits into the memory,
                     and speaks
        """
        chosen = choose_device(device)
        self.precision = choose_precision(precision, chosen)
        self._device = DeviceThread()
        try:
            self._device.call(lambda: self._load(folder, chosen, slots=slots, announce=announce)).result()
            self._guarded = not self.model.is_random if guarded is None else guarded
            self._warm_up()
        except (MemoryError, RuntimeError) as exc:
            if not _is_lack_of_memory(exc):
                raise
            raise StartupError("the model does not fit into the memory of this device") from exc

    def _load(
        self, folder: Path, device: torch.device, *, slots: int | None, announce: Callable[[Identity], None]
    ) -> None:
        """On the device's thread."""
        opened = open_model(folder, precision=self.precision)
        identity = _identity(opened)
        self.revision, self.sample_rate_hz, self._voices = identity.revision, identity.sample_rate_hz, identity.voices
        announce(identity)
        self.model = model = opened.load(device)
        self._reader = Reader(model.tokenizer)
        self._builtin = {_slug(name): voice for name, voice in model.speakers.items()}
        slots = slots or slots_for(model.sizes, device, self.precision.cache)
        self.gpt = Gpt(model.gpt, model.sizes, slots=slots, precision=self.precision)
        runner = Runner(self.gpt, model.vocoder, slots=slots)
        scheduler = Scheduler(slots=slots, max_waiting=MAX_WAITING, max_windows=MAX_WINDOWS[device.type])
        self._loop = EngineLoop(self._device, scheduler, runner, rate_hz=self.sample_rate_hz)
        for _ in range(GRAPHS_AT_START):
            runner.record_next()

    async def known(self) -> None:
        """It was, before there was one."""

    async def lost(self) -> None:
        await asyncio.shield(asyncio.wrap_future(self._loop.lost))

    def voices(self) -> Many[BuiltinVoice]:
        return self._voices

    def max_chars(self, language: Language) -> int:
        return xtts_char_limit(language)

    async def clone(self, clips: Many[ReferenceClip]) -> Speaker:
        """raises ReferenceTooShort if a clip has less than a third of a second"""
        if any(len(clip.samples) < MIN_CHUNK_S * clip.sample_rate_hz for clip in clips):
            raise ReferenceTooShort(f"each reference clip must be at least {MIN_CHUNK_S} s long")
        self._refuse_if_closed()
        voice = await asyncio.wrap_future(self._loop.call(lambda: self.model.voices.encode(clips)))
        return Speaker(
            conditioning={
                "gpt_latents": voice.gpt_latents.numpy(),
                "speaker_embedding": voice.speaker_embedding.numpy(),
            }
        )

    async def speak(self, utterance: Utterance, manner: Manner, audience: Audience) -> AsyncGenerator[AudioChunk]:
        """See SpeechEngine.

        raises  TextTooLong if the model has no place even for a part of the text, Cancelled once the engine is closed,
                EngineLost once its device is
        """
        voice = self._voice_of(manner.speaker)
        self._refuse_if_closed()
        for reading in await self._reader.read_parts(utterance.text, manner.language):
            ask = partial(self._take, reading, voice, manner, audience)
            async with aclosing(self._speak_reading(ask, chars=reading.chars)) as chunks:
                async for chunk in chunks:
                    yield chunk

    async def _speak_reading(self, ask: Callable[..., Sequence], *, chars: int) -> AsyncGenerator[AudioChunk]:
        """Takes until nothing is wrong with one, or some of it has been heard; where all are bad, the best of them."""
        takes: list[Sequence] = []
        while not takes or takes[-1].is_rejected:
            takes.append(ask(retry=len(takes)) if len(takes) <= MAX_RETRIES else _best(takes, chars=chars))
            async for samples in self._heard(takes[-1]):
                yield AudioChunk(samples)
        if takes[-1].watch is not None:
            quality = Quality(takes[-1].verdict, retries=min(len(takes) - 1, MAX_RETRIES))
            yield AudioChunk(np.zeros(0, np.float32), quality=quality)

    async def _heard(self, take: Sequence) -> AsyncGenerator[FloatArray]:
        loop, inbox = asyncio.get_running_loop(), asyncio.Queue[Told]()

        def tell(told: Told) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(inbox.put_nowait, told)

        self._loop.submit(take, tell)
        try:
            while (told := await inbox.get()) is not None:
                if isinstance(told, Exception):
                    raise told
                yield told
        finally:
            self._loop.leave(take)

    async def close(self) -> None:
        await asyncio.to_thread(self._device.close)
        self._reader.close()

    def _refuse_if_closed(self) -> None:
        if self._loop.lost.done():
            raise EngineLost(LOST)
        if self._device.is_closed:
            raise Cancelled("the engine is closed")

    def _take(self, reading: Reading, voice: Voice, manner: Manner, audience: Audience, *, retry: int) -> Sequence:
        sizes, seed = self.model.sizes, manner.sampling.seed
        return Sequence(
            tenant=audience.tenant,
            text_ids=reading.text_ids,
            voice=voice,
            max_codes=min(code_budget(reading.chars), sizes.max_codes - RESERVED_CODES),
            stop_code=sizes.stop_code,
            sampling=replace(manner.sampling, seed=(seed + retry * RETRY_SEED_STEP) % 2**32),
            speed=manner.speed,
            due_s=audience.due_s,
            watch=CodeWatch(chars=reading.chars) if self._guarded else None,
        )

    def _warm_up(self) -> None:
        """Speak, unheard, before anybody else does. raises StartupError if what comes out is not finite"""
        silent = Voice(torch.zeros(PREFIX_POSITIONS, self.model.sizes.width), torch.ones(512) / 512**0.5)
        voice = next(iter(self.model.speakers.values()), silent)
        reading = self._reader.read("This is a test.", "en")
        take = self._take(reading, voice, Manner(Speaker(), "en"), Audience(), retry=0)
        heard = SimpleQueue[Told]()
        self._loop.submit(replace(take, max_codes=WARM_UP_CODES, watch=None), heard.put)
        self._device.send(self._loop.run)
        while (told := heard.get()) is not None:
            if isinstance(told, ArithmeticError):
                raise StartupError("the model makes audio that is not finite on this device, in this precision")
            if isinstance(told, Exception):
                raise told

    def _voice_of(self, speaker: Speaker) -> Voice:
        if speaker.builtin is None:
            arrays = speaker.conditioning
            return Voice(torch.tensor(arrays["gpt_latents"]), torch.tensor(arrays["speaker_embedding"]))
        if speaker.builtin not in self._builtin:
            raise VoiceNotFound(f"XTTS has no built-in voice {speaker.builtin!r}")
        return self._builtin[speaker.builtin]


def _identity(opened: OpenModel) -> Identity:
    return Identity(
        name=XttsEngine.name,
        revision=f"xtts-{ENGINE_REVISION}-{opened.precision}-{opened.fingerprint}",
        sample_rate_hz=opened.sample_rate_hz,
        voices=tuple(BuiltinVoice(id=_slug(name), name=name) for name in opened.speakers),
        max_chars=xtts_char_limit,
    )


def _is_lack_of_memory(exc: Exception) -> bool:
    """torch has a type of its own for a GPU's only."""
    return isinstance(exc, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(exc)


def _best(takes: Many[Sequence], *, chars: int) -> Sequence:
    return min(takes, key=lambda take: badness(take.verdict, codes=len(take.codes), chars=chars))


def _slug(name: str) -> str:
    """`Camilla Holmström` -> `camilla-holmstrom`"""
    ascii_name = unicodedata.normalize("NFKD", name.lower().replace("ı", "i")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")
