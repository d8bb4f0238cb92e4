"""XTTS-v2 as a SpeechEngine: one thread owns the model, which cannot do two things at once; the rest send it work."""

import asyncio
import queue
import re
import threading
import unicodedata
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TypeVar

import torch

from tts_core.errors import Cancelled, ReferenceTooShort, VoiceNotFound
from tts_core.text.limits import xtts_char_limit
from tts_core.types import AudioChunk, BuiltinVoice, FloatArray, Language, ReferenceClip, Sampling, Speaker, Utterance
from tts_core.xtts import checkpoint, coqui

ENGINE_REVISION = 1
"""Counted up whenever this package makes the same model sound different."""

MIN_CLIP_S = 0.33
"""The conditioning encoder's shortest chunk. Source: coqui `get_gpt_cond_latents`."""

T = TypeVar("T")


class XttsEngine:
    """The SpeechEngine behind XTTS_ENGINE=xtts."""

    name = "xtts"

    def __init__(self, folder: Path, *, device: str) -> None:
        """Loads the model: seconds for the tiny one, a dozen for the real one.

        model   for tests and benchmarks; while the engine is open only its thread may use it
        raises  StartupError if the folder does not hold a model that fits its config.json
        """
        self.model = checkpoint.load(folder, device)
        self.revision = f"xtts-{ENGINE_REVISION}-{checkpoint.fingerprint(folder)}"
        self.sample_rate_hz = int(self.model.args.output_sample_rate)
        speakers = checkpoint.load_speakers(folder)
        self._voices = tuple(BuiltinVoice(id=_slug(name), name=name) for name in speakers)
        self._builtin = {
            voice.id: coqui.Voice(
                gpt_latents=speakers[voice.name]["gpt_cond_latent"].to(self.model.device),
                speaker_embedding=speakers[voice.name]["speaker_embedding"].to(self.model.device),
            )
            for voice in self._voices
        }
        self._closing = threading.Event()
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="xtts", daemon=True)
        self._thread.start()

    def voices(self) -> Sequence[BuiltinVoice]:
        return self._voices

    def max_chars(self, language: Language) -> int:
        return xtts_char_limit(language)

    async def clone(self, clips: Sequence[ReferenceClip]) -> Speaker:
        """raises ReferenceTooShort if a clip has less than a third of a second"""
        if any(len(clip.samples) < MIN_CLIP_S * clip.sample_rate_hz for clip in clips):
            raise ReferenceTooShort(f"each reference clip must be at least {MIN_CLIP_S} s long")
        self._refuse_if_closing()
        future: Future[coqui.Voice] = Future()
        self._inbox.put(lambda: _fulfil(future, lambda: coqui.condition(self.model, clips)))
        voice = await asyncio.wrap_future(future)
        return Speaker(
            conditioning={
                "gpt_latents": voice.gpt_latents[0].cpu().numpy(),
                "speaker_embedding": voice.speaker_embedding[0, :, 0].cpu().numpy(),
            }
        )

    async def speak(
        self, utterance: Utterance, *, speaker: Speaker, language: Language, speed: float, sampling: Sampling
    ) -> AsyncGenerator[AudioChunk]:
        """raises TextTooLong if the model has no place for the text, Cancelled once the engine is closed"""
        self._refuse_if_closing()
        request = coqui.Request(utterance.text, language, self._voice_of(speaker), speed=speed, sampling=sampling)
        listener = _Listener()
        self._inbox.put(lambda: self._serve(request, listener))
        try:
            while (item := await listener.inbox.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield AudioChunk(samples=item)
        finally:
            listener.gone.set()

    async def close(self) -> None:
        self._closing.set()
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join)

    def _voice_of(self, speaker: Speaker) -> coqui.Voice:
        if speaker.builtin is not None:
            if speaker.builtin not in self._builtin:
                raise VoiceNotFound(f"XTTS has no built-in voice {speaker.builtin!r}")
            return self._builtin[speaker.builtin]
        latents = torch.tensor(speaker.conditioning["gpt_latents"], device=self.model.device)
        embedding = torch.tensor(speaker.conditioning["speaker_embedding"], device=self.model.device)
        return coqui.Voice(gpt_latents=latents[None], speaker_embedding=embedding[None, :, None])

    def _refuse_if_closing(self) -> None:
        if self._closing.is_set():
            raise Cancelled("the engine is closed")

    def _run(self) -> None:
        """The thread."""
        while (task := self._inbox.get()) is not None:
            task()

    def _serve(self, request: coqui.Request, listener: "_Listener") -> None:
        """Speak one utterance, on the thread."""
        try:
            for samples in coqui.speak(
                self.model, request, stopped=lambda: listener.gone.is_set() or self._closing.is_set()
            ):
                listener.tell(samples)
            self._refuse_if_closing()
            listener.tell(None)
        except Exception as exc:  # noqa: BLE001 the root of a task on this thread: `speak` raises it again
            listener.tell(exc)


class _Listener:
    """The way of an utterance's audio from the engine's thread to the event loop that asked for it."""

    def __init__(self) -> None:
        self.gone = threading.Event()
        self.inbox: asyncio.Queue[FloatArray | Exception | None] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()

    def tell(self, item: FloatArray | Exception | None) -> None:
        """Samples, the error that ended them, or None at their end; from the thread."""
        try:
            self._loop.call_soon_threadsafe(self.inbox.put_nowait, item)
        except RuntimeError:  # the loop is closed, and whoever listened is gone with it
            self.gone.set()


def _fulfil(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(work())
    except Exception as exc:  # noqa: BLE001 the root of a task on the thread: whoever waits raises it again
        future.set_exception(exc)


def _slug(name: str) -> str:
    """`Camilla Holmström` -> `camilla-holmstrom`"""
    ascii_name = unicodedata.normalize("NFKD", name.lower().replace("ı", "i")).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_name).strip("-")
