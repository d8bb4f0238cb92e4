"""One gapless stream from many utterances: order, pauses, times, bounds, faults."""

import asyncio
import math
from contextlib import aclosing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted_engine import RATE_HZ, ScriptedEngine, tone
from tts_core.synthesizer import MAX_UNREAD_S, WINDOW_UTTERANCES, Spoken, Synthesizer
from tts_core.types import FloatArray, Manner, Speaker, Utterance

MANNER = Manner(Speaker("nova"), "en")


def utterances(*texts: str, pause_s: float = 0.0) -> list[Utterance]:
    return [Utterance(text, 0, len(text), pause_s) for text in texts]


async def heard(engine: ScriptedEngine, plan: list[Utterance]) -> list[Spoken]:
    return [spoken async for spoken in Synthesizer(engine).speak(plan, MANNER)]


def joined(stream: list[Spoken]) -> FloatArray:
    return np.concatenate([spoken.samples for spoken in stream])


@given(st.lists(st.tuples(st.text("abc", min_size=1, max_size=5), st.sampled_from([0.0, 0.05, 0.3])), max_size=12))
def test_the_stream_is_the_utterances_in_order_with_their_pauses(spec: list[tuple[str, float]]) -> None:
    plan = [Utterance(text, 0, len(text), pause_s) for text, pause_s in spec]

    async def run() -> list[Spoken]:
        return await heard(ScriptedEngine(), plan)

    stream = asyncio.run(run())
    silence = [np.zeros(round(u.pause_s * RATE_HZ), np.float32) for u in plan]
    parts = [part for u, pause in zip(plan, silence, strict=True) for part in (tone(u.text), pause)]
    np.testing.assert_array_equal(joined(stream) if stream else np.zeros(0), np.concatenate([*parts, np.zeros(0)]))
    assert [spoken.utterance for spoken in stream if spoken.finished] == list(range(len(plan)))


async def test_words_are_timed_from_the_start_of_the_stream() -> None:
    stream = await heard(ScriptedEngine(), utterances("ab", "c", pause_s=0.5))
    assert [word.start_s for spoken in stream for word in spoken.words] == pytest.approx([0.0, 0.1, 0.7])


async def test_later_utterances_are_in_the_engine_while_the_first_is_read() -> None:
    engine = ScriptedEngine()
    async with aclosing(Synthesizer(engine).speak(utterances("#", *"abcdefgh"), MANNER)) as stream:
        reading = asyncio.ensure_future(anext(stream))
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(engine.started) == WINDOW_UTTERANCES
        engine.gate.set()
        assert (await reading).utterance == 0


async def test_a_reader_that_stops_holds_the_engine_back() -> None:
    engine = ScriptedEngine()
    long = "a" * 1000  # 100 s each
    async with aclosing(Synthesizer(engine).speak(utterances(long, long, long), MANNER)) as stream:
        await anext(stream)
        for _ in range(5000):
            await asyncio.sleep(0)
        assert engine.chunks_made * 100 / RATE_HZ <= MAX_UNREAD_S + WINDOW_UTTERANCES


async def test_utterances_that_fill_the_bound_do_not_starve_the_one_being_read() -> None:
    engine = ScriptedEngine()
    plan = utterances("#a", "b" * 400, "c" * 400, "d" * 400)
    async with aclosing(Synthesizer(engine).speak(plan, MANNER)) as stream:
        reading = asyncio.ensure_future(anext(stream))
        for _ in range(2000):
            await asyncio.sleep(0)
        engine.gate.set()
        rest = [await reading, *[spoken async for spoken in stream]]
    np.testing.assert_array_equal(joined(rest), tone("#a" + "b" * 400 + "c" * 400 + "d" * 400))


async def test_an_engine_error_comes_where_its_utterance_would_have_been() -> None:
    engine, before = ScriptedEngine(), []
    with pytest.raises(RuntimeError, match="broke"):
        async for spoken in Synthesizer(engine).speak(utterances("ab", "c!d", "e"), MANNER):
            before.append(spoken)
    np.testing.assert_array_equal(joined(before), tone("abc"))
    assert engine.active == 0


async def test_closing_the_stream_stops_the_engine() -> None:
    engine = ScriptedEngine()
    async with aclosing(Synthesizer(engine).speak(utterances("ab#c", "d#", "e#"), MANNER)) as stream:
        await anext(stream)
        assert engine.active > 0
    assert engine.active == 0


async def test_whoever_listens_along_says_when_silence_would_fall() -> None:
    engine = ScriptedEngine()
    plan = utterances("a" * 30, "b" * 15, "c", pause_s=0.5)
    async for _ in Synthesizer(engine).speak(plan, MANNER, tenant="acme", streamed=True):
        pass
    first, second, third = (audience.due_s for audience in engine.audiences)
    assert (second - first, third - second) == pytest.approx((2.5, 1.5))
    assert {audience.tenant for audience in engine.audiences} == {"acme"}


async def test_whole_jobs_can_wait() -> None:
    engine = ScriptedEngine()
    await heard(engine, utterances("a", "b"))
    assert [audience.due_s for audience in engine.audiences] == [math.inf, math.inf]
