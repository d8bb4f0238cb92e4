"""How often does XTTS-v2 go wrong with its real weights, and does the guard help? It was not run on real weights here.

    python -m benchmarks.real_weights --model DIR --reference CLIP [--texts FILE] [--guard on|off|both]

Each text is spoken with the voice of the clip. Guard off is the first take, guard on the best of up to three, as
`tts_core.xtts.guard` judges them by their codes. What each setting gave is then judged by other means:

defects     share of utterances with words missing or extra, as a recogniser hears them. The default recogniser knows
            only the words of the text, in English: it notices words left out or said twice, and no babble. Give a
            better one with --asr module:function, called as (samples, sample_rate_hz, text), returns the words.
similarity  cosine of the speaker embeddings of output and reference, by the model's own speaker encoder. The vocoder
            is conditioned on that very embedding, so compare runs with it, not systems.
verdicts    of the guard on what was kept. With the guard off they say what it would have found.

A take is spoken to its stop code or budget even where the guard would have cut it. Needs COQUI_TOS_AGREED=1.
"""

import argparse
import asyncio
import importlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from collections.abc import Sequence as Many
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast, get_args
from unittest.mock import patch

import numpy as np

from tests.listening import word_errors
from tts_core.audio.measure import measure
from tts_core.audio.reference import ReferenceReader
from tts_core.errors import ReferenceTooShort, TTSError
from tts_core.settings import Settings
from tts_core.types import Audience, FloatArray, Language, Manner, ReferenceClip, Sampling, Speaker, Utterance
from tts_core.xtts import weights
from tts_core.xtts.engine import XttsEngine
from tts_core.xtts.guard import BY_WEIGHT, CodeWatch, Verdict, badness
from tts_core.xtts.reading import read
from tts_core.xtts.sequence import Sequence

Recogniser = Callable[[FloatArray, int, str], Many[str]]

MAX_TAKES = 3
MAX_CLIP_BYTES = 100_000_000

TEXTS = (
    "Hi!",
    "Good morning.",
    "Are you coming?",
    "The train to the north leaves in ten minutes.",
    "She said that the door was open, and then she laughed.",
    "Every morning, the old keeper climbs the stairs and opens the heavy door.",
    "From there she can see the fishing boats, returning home before the storm.",
    "He asked, will you stay for dinner, and nobody in the room said a word.",
    "It was late, very late, and the last of the guests had gone home long ago.",
    "When the rain stopped at last, the children ran down to the river, where the water was brown and fast, "
    "and threw sticks from the bridge until their mother called them back.",
)
"""Short ones first, where XTTS is known to babble."""


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """One way a text was spoken: mono samples, and what the guard said of its codes; `codes` without the stop code."""

    samples: FloatArray
    verdict: Verdict
    codes: int


@dataclass(frozen=True, slots=True)
class Heard:
    """What is reported of one utterance; None where it could not be judged."""

    text: str
    verdict: Verdict
    retries: int
    missing: int | None
    extra: int | None
    similarity: float | None


@dataclass(frozen=True, slots=True)
class Row:
    """One setting of the guard, over all texts and seeds.

    defect_rate  share of the utterances that could be judged; None if none could
    """

    guard: str
    utterances: int
    judged: int
    defect_rate: float | None
    missing_words: int
    extra_words: int
    similarity: float | None
    retries: int
    verdicts: dict[Verdict, float]


class Speech:
    """The engine with one voice and one language; one utterance at a time, for the codes are tapped."""

    def __init__(self, engine: XttsEngine, *, speaker: Speaker, language: Language) -> None:
        self._engine = engine
        self._speaker = speaker
        self._language = language

    async def takes(self, text: str, *, seed: int, at_most: int) -> list[Take]:
        """Until the guard has nothing to say, or `at_most`; the first has the seed itself."""
        takes: list[Take] = []
        while len(takes) < at_most and not (takes and takes[-1].verdict == "ok"):
            takes.append(await self._take(text, seed=seed + 1_000_000 * len(takes)))
        return takes

    async def similarity(self, samples: FloatArray, reference: Speaker) -> float | None:
        """Cosine, -1..1; None if the samples are too short to tell."""
        rate_hz = self._engine.sample_rate_hz
        if len(samples) == 0:
            return None
        report = measure(samples, sample_rate_hz=rate_hz, clipped_ratio=0.0)
        try:
            spoken = await self._engine.clone([ReferenceClip(samples, rate_hz, report)])
        except ReferenceTooShort:
            return None
        a, b = (who.conditioning["speaker_embedding"] for who in (spoken, reference))
        return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))

    def chars(self, text: str) -> int:
        """As the engine reads it. The engine is idle between two takes, so its tokenizer may be used."""
        return read(self._engine.model.tokenizer, text, self._language).chars

    async def _take(self, text: str, *, seed: int) -> Take:
        utterance = Utterance(text, start=0, end=len(text))
        manner = Manner(self._speaker, self._language, sampling=Sampling(seed=seed))
        with tapped() as codes:
            speaking = self._engine.speak(utterance, manner, Audience())
            chunks = [chunk.samples async for chunk in speaking]
        samples = np.concatenate(chunks) if chunks else np.zeros(0, np.float32)
        verdict, count = judged(codes, chars=self.chars(text), stop_code=_stop_code(self._engine))
        return Take(samples, verdict, count)


@contextmanager
def tapped() -> Iterator[list[int]]:
    """The codes of what is spoken meanwhile, as they come. The one place that knows how the engine reads them."""
    codes: list[int] = []
    read_code = Sequence.read

    def heard(sequence: Sequence, code: int) -> None:
        if sequence.ending is None:
            codes.append(code)
        read_code(sequence, code)

    with patch.object(Sequence, "read", heard):
        yield codes


def judged(codes: Many[int], *, chars: int, stop_code: int) -> tuple[Verdict, int]:
    """What the guard says of them, and how many they are.

    raises  RuntimeError if no code was seen: then the engine draws them in another way than `tapped` knows
    """
    if not codes:
        raise RuntimeError("no codes were seen: `tapped` does not know this engine")
    watch = CodeWatch(chars=chars)
    for code in codes:
        watch.read(code)
    return watch.ended(stopped=codes[-1] == stop_code), watch.codes


def kept(takes: Many[Take], *, chars: int) -> Take:
    return min(takes, key=lambda take: badness(take.verdict, codes=take.codes, chars=chars))


class Judge:
    """Listens to what was kept."""

    def __init__(self, speech: Speech, *, reference: Speaker, rate_hz: int, recogniser: Recogniser | None) -> None:
        self._speech = speech
        self._reference = reference
        self._rate_hz = rate_hz
        self._recogniser = recogniser

    async def listen(self, text: str, take: Take, *, retries: int) -> Heard:
        missing, extra = self._word_faults(text, take.samples)
        similarity = await self._speech.similarity(take.samples, self._reference)
        return Heard(text, take.verdict, retries, missing, extra, similarity)

    def _word_faults(self, text: str, samples: FloatArray) -> tuple[int, int] | tuple[None, None]:
        if self._recogniser is None:
            return None, None
        try:
            errors = word_errors(self._recogniser(samples, self._rate_hz, text), text)
        except KeyError:  # the default recogniser does not know a word of the text
            return None, None
        return len(errors.dropped), len(errors.added)


async def compare(
    speech: Speech, judge: Judge, texts: Many[str], *, seeds: int, guards: Many[str]
) -> dict[str, list[Heard]]:
    """What was heard with each setting of the guard; both judge the same takes, so they differ by the guard alone."""
    heard: dict[str, list[Heard]] = {guard: [] for guard in guards}
    for text in texts:
        for seed in range(seeds):
            takes = await speech.takes(text, seed=seed, at_most=MAX_TAKES if "on" in heard else 1)
            if "off" in heard:
                heard["off"].append(await judge.listen(text, takes[0], retries=0))
            if "on" in heard:
                best = kept(takes, chars=speech.chars(text))
                heard["on"].append(await judge.listen(text, best, retries=len(takes) - 1))
    return heard


def row(guard: str, heard: Many[Heard]) -> Row:
    judged_ones = [one for one in heard if one.missing is not None and one.extra is not None]
    defects = [one for one in judged_ones if one.missing or one.extra]
    similarities = [one.similarity for one in heard if one.similarity is not None]
    verdicts = Counter(one.verdict for one in heard)
    return Row(
        guard=guard,
        utterances=len(heard),
        judged=len(judged_ones),
        defect_rate=len(defects) / len(judged_ones) if judged_ones else None,
        missing_words=sum(one.missing or 0 for one in judged_ones),
        extra_words=sum(one.extra or 0 for one in judged_ones),
        similarity=float(np.mean(similarities)) if similarities else None,
        retries=sum(one.retries for one in heard),
        verdicts={verdict: verdicts[verdict] / len(heard) for verdict in BY_WEIGHT},
    )


def show(rows: Many[Row]) -> None:
    print(
        f"{'guard':<6}{'spoken':>7}{'judged':>7}{'defects':>9}{'missing':>8}{'extra':>6}{'simil.':>8}{'retries':>8}  ",
        end="",
    )
    print("".join(f"{verdict:>8}" for verdict in BY_WEIGHT))
    for each in rows:
        defects = "-" if each.defect_rate is None else f"{each.defect_rate:.1%}"
        similarity = "-" if each.similarity is None else f"{each.similarity:.3f}"
        counts = f"{each.missing_words:>8}{each.extra_words:>6}{similarity:>8}{each.retries:>8}  "
        shares = "".join(f"{each.verdicts[verdict]:>8.1%}" for verdict in BY_WEIGHT)
        print(f"{each.guard:<6}{each.utterances:>7}{each.judged:>7}{defects:>9}{counts}{shares}")


def recogniser_named(name: str | None, *, language: Language) -> Recogniser | None:
    """None if no words are to be judged: no recogniser was named and the default knows only English.

    raises  SystemExit if there is none of that name
    """
    if name is None and language != "en":
        return None
    module, _, function = (name or "tests.listening:heard_words").partition(":")
    try:
        return cast(Recogniser, getattr(importlib.import_module(module), function))
    except (ImportError, AttributeError) as exc:
        raise SystemExit(f"--asr {name} is no module:function: {exc}") from exc


def texts_of(path: Path | None) -> Many[str]:
    """raises SystemExit if the file says nothing"""
    if path is None:
        return TEXTS
    texts = [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
    if not texts:
        raise SystemExit(f"{path} has no texts")
    return texts


def refuse_random(folder: Path) -> None:
    """raises SystemExit"""
    if (folder / weights.RANDOM_WEIGHTS_MARK).is_file():
        raise SystemExit(
            f"{folder} holds random weights, which speak noise: nothing said about their speech would mean anything. "
            "Give the folder of the real XTTS-v2 model."
        )


@asynccontextmanager
async def opened(folder: Path, *, device: str) -> AsyncIterator[XttsEngine]:
    engine = XttsEngine(folder, device=device)
    try:
        yield engine
    finally:
        await engine.close()


async def read_clip(path: Path) -> ReferenceClip:
    """As the worker reads it. raises ReferenceRefused"""
    reader = ReferenceReader(max_bytes=MAX_CLIP_BYTES, children=1)
    try:
        return await reader.read(path.read_bytes())  # noqa: ASYNC240 nobody else is on this loop
    finally:
        await reader.close()


async def measured(engine: XttsEngine, args: argparse.Namespace) -> dict[str, list[Heard]]:
    reference = await engine.clone([await read_clip(args.reference)])
    speech = Speech(engine, speaker=reference, language=args.language)
    recogniser = recogniser_named(args.asr, language=args.language)
    judge = Judge(speech, reference=reference, rate_hz=engine.sample_rate_hz, recogniser=recogniser)
    guards = ("off", "on") if args.guard == "both" else (args.guard,)
    return await compare(speech, judge, texts_of(args.texts), seeds=args.seeds, guards=guards)


async def run(args: argparse.Namespace) -> None:
    async with opened(args.model, device=args.device) as engine:
        heard = await measured(engine, args)
        rows = [row(guard, ones) for guard, ones in heard.items()]
        show(rows)
        result = {
            "revision": engine.revision,
            "rows": [asdict(each) for each in rows],
            "utterances": {guard: [asdict(one) for one in ones] for guard, ones in heard.items()},
        }
        print(json.dumps(result))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, required=True, help="folder with model.pth, config.json and vocab.json")
    parser.add_argument("--reference", type=Path, required=True, help="clip of the voice")
    parser.add_argument("--texts", type=Path, help="one utterance per line; default: ten English ones")
    parser.add_argument("--guard", choices=("on", "off", "both"), default="both")
    parser.add_argument("--asr", help="module:function, see above; default: tests.listening:heard_words for English")
    parser.add_argument("--language", choices=get_args(Language), default="en")
    parser.add_argument("--seeds", type=int, default=5, help="times each text is spoken")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    return args


def main() -> None:
    args = parse_args()
    refuse_random(args.model)
    try:
        weights.require_licence(args.model, agreed=Settings.from_env(os.environ).coqui_tos_agreed)
        asyncio.run(run(args))
    except TTSError as exc:
        raise SystemExit(str(exc)) from exc


def _stop_code(engine: XttsEngine) -> int:
    return engine.model.sizes.stop_code


if __name__ == "__main__":
    main()
