"""The guard on made-up codes: no real weights were heard, so these prove the rules, not the thresholds."""

import random
from collections.abc import Iterable, Sequence
from itertools import cycle, islice, pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_core.xtts.guard import (
    BY_WEIGHT,
    CODES_PER_S,
    LOOP_COPIES,
    LOOP_EQUAL,
    LOOP_MIN_S,
    MAX_HELD_CODES,
    MAX_HELD_S,
    MODEL_MAX_CODES,
    STOP_CODE,
    CodeWatch,
    Verdict,
    badness,
    code_budget,
)

SEEDS = st.integers(0, 2**32)
SILENCE = (5, 6, 7, 8)
PAUSE_CODES = round(0.8 * CODES_PER_S)


def speech(count: int, rng: random.Random, *, codes: int = 1024) -> list[int]:
    """Independent codes, out of so many different ones."""
    return rng.choices(range(codes), k=count)


def pause(count: int, rng: random.Random) -> list[int]:
    """Silence as it mostly is: one code, sometimes two, for `count` codes."""
    return rng.choices(rng.sample(SILENCE, 2), weights=(4, 1), k=count)


def loop(phrase: Sequence[int]) -> list[int]:
    """A phrase repeated for as long as it takes to be a loop."""
    count = max(LOOP_COPIES * len(phrase), LOOP_MIN_S * CODES_PER_S + 1)
    return list(islice(cycle(phrase), int(count)))


def mumbled(codes: list[int], rng: random.Random, *, period: int) -> list[int]:
    """Some codes are others, but no more than a loop may have: each wrong one is unlike two, before it and after it."""
    followers = len(codes) - period
    wrong = int((1 - LOOP_EQUAL) * followers) // 2
    mumbled = list(codes)
    for position in rng.sample(range(len(codes)), wrong):
        mumbled[position] = rng.randrange(100, 1024)
    return mumbled


def usual_chars(codes: Sequence[int]) -> int:
    """Length of a text that such an utterance would be quite right for."""
    return round(len(codes) / CODES_PER_S * 15)


def verdict_on(codes: Sequence[int], *, chars: int | None = None, stopped: bool = True) -> Verdict:
    watch = CodeWatch(chars=usual_chars(codes) if chars is None else chars)
    read_all(watch, codes)
    return watch.ended(stopped=stopped)


def read_all(watch: CodeWatch, codes: Iterable[int]) -> list[Verdict | None]:
    return [watch.read(code) for code in codes]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, count=st.integers(1, 550), different=st.integers(8, 1024))
def test_codes_in_no_order_are_speech(seed: int, count: int, different: int) -> None:
    codes = speech(count, random.Random(seed), codes=different)
    watch = CodeWatch(chars=usual_chars(codes))
    assert set(read_all(watch, codes)) == {None}
    assert watch.ended(stopped=True) == "ok"
    assert watch.codes == count


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, count=st.integers(20, 550))
def test_codes_that_wander_are_speech(seed: int, count: int) -> None:
    rng, code, codes = random.Random(seed), 500, []
    for _ in range(count):
        code = min(1023, max(0, code + rng.randint(-3, 3)))
        codes.append(code)
    assert verdict_on(codes) == "ok"


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, words=st.lists(st.integers(6, 40), min_size=1, max_size=8))
def test_speech_may_pause_for_0_8_s_between_words(seed: int, words: list[int]) -> None:
    rng = random.Random(seed)
    codes = [code for word in words for code in (*speech(word, rng), *pause(PAUSE_CODES, rng))]
    assert verdict_on(codes) == "ok"


@pytest.mark.parametrize("copies", [2, 3])
@pytest.mark.parametrize("word_codes", [3, 7, 10, 12, 25, 40, 60])
def test_a_phrase_may_be_said_three_times(word_codes: int, copies: int) -> None:
    rng = random.Random(word_codes)
    codes = speech(40, rng) + speech(word_codes, rng) * copies + speech(40, rng)
    assert verdict_on(codes) == "ok"


def test_a_short_word_may_be_said_for_a_second() -> None:
    assert verdict_on([1, 2, 3, 4] * 5 + speech(40, random.Random(0))) == "ok"


@settings(max_examples=100, deadline=None)
@given(
    seed=SEEDS,
    phrase=st.lists(st.integers(0, 1023), min_size=3, max_size=60, unique=True),
    before=st.integers(0, 150),
    is_mumbled=st.booleans(),
)
def test_a_phrase_said_again_and_again_is_a_loop(seed: int, phrase: list[int], before: int, is_mumbled: bool) -> None:
    rng = random.Random(seed)
    said = mumbled(loop(phrase), rng, period=len(phrase)) if is_mumbled else loop(phrase)
    codes = speech(before, rng) + said
    assert verdict_on(codes) == "loop"
    assert verdict_on([*codes, *speech(100, rng)]) == "loop"


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, phrase=st.lists(st.integers(0, 5), min_size=2, max_size=60))
def test_a_phrase_of_few_sounds_said_again_and_again_does_not_pass(seed: int, phrase: list[int]) -> None:
    codes = speech(30, random.Random(seed)) + loop(phrase)
    assert verdict_on(codes) in {"loop", "stall"}


@pytest.mark.parametrize("period", [3, 11, 30, 60])
def test_a_loop_is_noticed_within_a_copy_of_where_it_is_one(period: int) -> None:
    rng = random.Random(period)
    codes = speech(50, rng) + list(range(period)) * 40
    noticed = read_all(CodeWatch(chars=300), codes).index("loop") - 50 + 1
    assert max(3 * period, 28) < noticed <= max(LOOP_COPIES * period, 33)


def test_a_phrase_too_long_to_be_told_from_text_is_no_loop() -> None:
    assert verdict_on(list(range(61)) * 6) == "ok"


def test_a_likeness_of_two_thirds_is_no_loop() -> None:
    rng = random.Random(0)
    codes = [rng.randrange(100, 1024) if i % 3 == 2 else i % 10 for i in range(400)]
    assert verdict_on(codes) == "ok"


@pytest.mark.parametrize("held", [[7], [7, 8], [7, 7, 7, 8], [7, 8, 8]])
@pytest.mark.parametrize("before", [0, 1, 40])
def test_a_sound_held_too_long_is_a_stall(held: list[int], before: int) -> None:
    codes = speech(before, random.Random(1)) + list(islice(cycle(held), 2 * MAX_HELD_CODES))
    told = read_all(CodeWatch(chars=300), codes)
    # One code alone makes two with the code before it.
    noticed = told.index("stall") - before + (before > 0 and len(held) == 1)
    assert noticed == MAX_HELD_CODES
    assert MAX_HELD_CODES / CODES_PER_S <= MAX_HELD_S < (MAX_HELD_CODES + 1) / CODES_PER_S


def test_two_pauses_are_not_one() -> None:
    for word in ([1, 2, 3, 4], [9, 9, 1, 5, 6]):
        assert verdict_on([7] * PAUSE_CODES + word + [7] * PAUSE_CODES) == "ok"


def test_a_third_code_ends_a_hold_but_the_sound_before_it_counts_on() -> None:
    watch = CodeWatch(chars=400)
    assert set(read_all(watch, [1] * 10 + [2] * 12 + [3])) == {None}
    # the run is now twelve 2 and one 3
    assert set(read_all(watch, [2, 3, 3, 2] * 3)) == {None}
    assert watch.read(3) == "stall"


@settings(max_examples=40, deadline=None)
@given(chars=st.integers(0, 250), seed=SEEDS)
def test_a_runaway_is_one_at_its_budget(chars: int, seed: int) -> None:
    watch, codes = CodeWatch(chars=chars), speech(code_budget(chars), random.Random(seed))
    assert set(read_all(watch, codes[:-1])) <= {None}
    assert watch.read(codes[-1]) == "budget"
    assert watch.ended(stopped=True) == watch.ended(stopped=False) == "budget"


def test_an_utterance_that_stops_just_before_its_budget_is_speech() -> None:
    codes = speech(code_budget(30) - 1, random.Random(0))
    assert verdict_on([*codes, STOP_CODE], chars=30) == "ok"
    assert verdict_on(codes, chars=30, stopped=False) == "budget"


@pytest.mark.parametrize(("chars", "codes"), [(0, 40), (3, 50), (30, 147), (156, 599), (157, 602), (400, 602)])
def test_the_budget_grows_with_the_text_up_to_what_the_model_can(chars: int, codes: int) -> None:
    assert code_budget(chars) == codes <= MODEL_MAX_CODES


def test_the_end_comes_long_before_the_text_could_be_said() -> None:
    rng = random.Random(0)
    usual = round(120 / 15 * CODES_PER_S)
    assert verdict_on([STOP_CODE], chars=3) == "short"
    assert verdict_on(speech(usual // 4, rng), chars=120) == "short"
    assert verdict_on(speech(usual // 2, rng), chars=120) == "ok"
    assert verdict_on([], chars=0) == "ok"


def test_a_fault_stays_the_verdict() -> None:
    watch = CodeWatch(chars=40)
    read_all(watch, [7] * 30)
    after = read_all(watch, [*range(10)] * 60)
    assert set(after) == {"stall"}
    assert watch.read(STOP_CODE) == watch.ended(stopped=True) == "stall"


@settings(max_examples=40, deadline=None)
@given(codes=st.lists(st.sampled_from([1, 2, 3, 4, STOP_CODE]), max_size=200), chars=st.integers(0, 60))
def test_once_something_is_wrong_it_stays_wrong_in_the_same_way(codes: list[int], chars: int) -> None:
    watch = CodeWatch(chars=chars)
    told = read_all(watch, codes)
    faults = [verdict for verdict in told if verdict is not None]
    assert len(set(faults)) <= 1
    assert told[len(told) - len(faults) :] == faults
    if faults:
        assert watch.ended(stopped=True) == watch.ended(stopped=False) == faults[0]
    assert told == read_all(CodeWatch(chars=chars), codes)
    assert watch.codes == sum(code != STOP_CODE for code in codes)


def test_the_lighter_fault_is_better_whatever_its_length() -> None:
    lengths = zip(BY_WEIGHT, (500, 200, 300, 86, 86), strict=True)
    for lighter, heavier in pairwise(badness(verdict, codes=codes, chars=60) for verdict, codes in lengths):
        assert lighter < heavier


def test_of_two_faults_alike_the_usual_length_is_better() -> None:
    usual, long, short = (badness("loop", codes=codes, chars=60) for codes in (90, 200, 40))
    assert usual < short < long
