"""The scheduler's rules, one by one, with a device that is a list of numbers."""

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_core.errors import Overloaded
from tts_core.xtts.scheduler import Decode, Prefill, Scheduler, Step, Vocode
from tts_core.xtts.sequence import Sequence

if TYPE_CHECKING:
    from tts_core.xtts.voice_encoder import Voice

STOP = 1025

UNHEARD = cast("Voice", None)
"""What a voice is like is nothing to a scheduler."""


def utterance(codes: int = 40, *, tenant: str = "a", due_s: float = math.inf) -> Sequence:
    """Ends by its budget after so many codes."""
    return Sequence(tenant=tenant, text_ids=[], voice=UNHEARD, max_codes=codes, stop_code=STOP, due_s=due_s)


class Device:
    """Runs steps with one in flight ahead of the commit, as the engine does; every code is 7 unless `stops` says."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.scheduler = scheduler
        self.log: list[Step] = []
        self.stops: dict[int, int] = {}
        self._flying: Step | None = None

    def step(self, now_s: float = 0.0) -> Step | None:
        launched = self.scheduler.next_step(now_s=now_s)
        if launched is not None:
            self.log.append(launched)
        if isinstance(self._flying, Prefill | Decode):
            self.scheduler.commit(self._flying, self._codes(self._flying))
        self._flying = launched
        self.check_slots()
        return launched

    def check_slots(self) -> None:
        """Every slot is free or held by exactly one live sequence."""
        held = [sequence.slot for sequence in self.scheduler._live if sequence.slot is not None]
        assert sorted(held + self.scheduler.free_slots) == list(range(self.scheduler._slots))

    def run(self, limit: int = 10_000) -> None:
        for _ in range(limit):
            if self.step() is None and self.scheduler.idle:
                return
        raise AssertionError("the scheduler never becomes idle")

    def _codes(self, step: Prefill | Decode) -> list[int]:
        return [STOP if self.stops.get(id(s)) == len(s.codes) + 1 else 7 for s in step.sequences]

    def decodes(self) -> list[Decode]:
        return [step for step in self.log if isinstance(step, Decode)]

    def windows(self, sequence: Sequence) -> Iterator[tuple[int, bool]]:
        """Where each stops, and whether it is the last; they begin where the one before has stopped."""
        for step in self.log:
            if isinstance(step, Vocode):
                yield from ((w.stop, w.last) for w in step.windows if w.sequence is sequence)


def device(*sequences: Sequence, slots: int = 32, max_waiting: int = 100) -> Device:
    made = Device(Scheduler(slots=slots, max_waiting=max_waiting))
    for sequence in sequences:
        made.scheduler.add(sequence)
    return made


def test_twenty_utterances_of_forty_codes_take_at_most_sixty_decode_steps() -> None:
    made = device(*(utterance(40) for _ in range(20)))
    made.run()
    assert len(made.decodes()) <= 60


def test_every_code_is_vocoded_once_in_order_and_the_last_window_says_so() -> None:
    sequence = utterance(101)
    made = device(sequence)
    made.run()
    assert list(made.windows(sequence)) == [(60, False), (101, True)]


def test_the_first_window_of_a_stream_is_small_and_comes_at_once() -> None:
    sequence = utterance(100, due_s=0.0)
    made = device(sequence)
    made.run()
    assert next(made.windows(sequence)) == (8, False)
    first = next(n for n, step in enumerate(made.log) if isinstance(step, Vocode))
    assert first <= 10  # prefill, eight codes, one step in flight


def test_a_stop_code_ends_the_sequence_and_what_was_drawn_behind_it_is_dropped() -> None:
    sequence = utterance(100, due_s=0.0)
    made = device(sequence)
    made.stops[id(sequence)] = 13
    made.run()
    assert (len(sequence.codes), sequence.codes[-1], sequence.ending) == (13, STOP, "stop")
    assert list(made.windows(sequence)) == [(8, False), (13, True)]


def test_a_budget_is_never_exceeded_on_the_device_either() -> None:
    sequence = utterance(10)
    made = device(sequence)
    made.run()
    assert sequence.launched == len(sequence.codes) == 10


def test_freed_slot_is_reused_before_others_finish() -> None:
    short, long, late = utterance(5), utterance(200), utterance(5)
    made = device(short, long, slots=2)
    for _ in range(8):
        made.step()
    assert short.ending is not None
    made.scheduler.add(late)
    made.step()
    assert (late.slot, long.ending) == (0, None)


def test_the_prefill_of_a_newcomer_does_not_wait_for_those_who_decode() -> None:
    made = device(utterance(200))
    for _ in range(20):
        made.step()
    made.scheduler.add(late := utterance(5))
    assert made.step() == Prefill((late,))


def test_prefills_do_not_follow_each_other_while_others_decode() -> None:
    made = device(*(utterance(50) for _ in range(24)))
    made.run()
    kinds = [type(step) for step in made.log]
    assert (Prefill, Prefill) not in set(itertools.pairwise(kinds))


def test_a_streams_first_chunk_overtakes_the_tenth_sentence_of_a_book() -> None:
    book = [utterance(50, tenant="reader") for _ in range(10)]
    made = device(*book, slots=4)
    for _ in range(5):
        made.step()
    made.scheduler.add(stream := utterance(50, tenant="caller", due_s=0.0))
    made.run()
    order = [s for step in made.log if isinstance(step, Prefill) for s in step.sequences]
    assert order.index(stream) == 3  # at once, in the slot that books may not take


def test_one_tenants_book_does_not_starve_anothers_sentence() -> None:
    made = device(*(utterance(20, tenant="reader") for _ in range(50)), slots=8)
    for _ in range(3):
        made.step()
    made.scheduler.add(sentence := utterance(20, tenant="other"))
    made.run()
    order = [s for step in made.log if isinstance(step, Prefill) for s in step.sequences]
    assert order.index(sentence) <= 12


def test_a_whole_job_is_heard_beside_streams_that_never_pause() -> None:
    short = utterance(30, tenant="b")
    made = device(utterance(400, due_s=0.0), utterance(400, due_s=0.0), short)
    while not short.is_vocoded:
        assert made.step() is not None
    assert len(made.decodes()) < 30 + 20


def test_many_streams_of_one_tenant_do_not_starve_anothers_book() -> None:
    made = device(*(utterance(20, tenant="caller", due_s=0.0) for _ in range(50)), slots=8)
    for _ in range(3):
        made.step()
    made.scheduler.add(page := utterance(20, tenant="reader"))
    made.run()
    order = [s for step in made.log if isinstance(step, Prefill) for s in step.sequences]
    assert order.index(page) <= 20


def test_the_listener_that_runs_dry_first_is_served_first() -> None:
    late, soon = utterance(20, due_s=9.0), utterance(20, due_s=1.0)
    made = device(late, soon, slots=1)
    made.run()
    order = [s for step in made.log if isinstance(step, Prefill) for s in step.sequences]
    assert order == [soon, late]


def test_audio_already_delivered_gives_others_precedence() -> None:
    ahead, dry = utterance(100, due_s=1.0), utterance(100, due_s=2.0)
    made = device(ahead, dry)
    for _ in range(8):
        made.step()
    ahead.due_s += 5.0
    made.run()
    first = next(step for step in made.log if isinstance(step, Vocode))
    assert [window.sequence for window in first.windows] == [dry, ahead]


def test_a_full_waiting_room_is_overloaded_and_says_when_to_come_back() -> None:
    made = device(*(utterance() for _ in range(3)), max_waiting=3)
    with pytest.raises(Overloaded, match="2 s"):
        made.scheduler.add(utterance())


@pytest.mark.parametrize("steps", [0, 1, 2, 5, 12, 30])
def test_cancelling_at_any_state_frees_the_slot_within_a_step(steps: int) -> None:
    made = device(sequence := utterance(25), slots=1)
    for _ in range(steps):
        made.step()
    made.scheduler.cancel(sequence)
    made.check_slots()
    made.scheduler.add(after := utterance(5))
    assert made.step() == Prefill((after,))
    made.run()
    assert after.ending == "budget"
    assert sequence.slot is None


def test_a_take_put_aside_at_its_end_can_be_heard_after_all_and_takes_no_slot() -> None:
    made = device(take := utterance(25), slots=1)
    while take.ending is None:
        made.step()
    made.scheduler.cancel(take)
    assert made.step() is None
    assert made.scheduler.idle
    made.scheduler.add(other := utterance(5))
    made.step()
    made.scheduler.add(take)
    made.run()
    assert [s for step in made.log if isinstance(step, Prefill) for s in step.sequences] == [take, other]
    assert list(made.windows(take)) == [(25, True)]
    assert list(made.windows(other)) == [(5, True)]


plans = st.lists(
    st.tuples(st.integers(1, 120), st.sampled_from("abc"), st.sampled_from([math.inf, 0.0, 5.0]), st.integers(0, 30)),
    max_size=25,
)


@settings(max_examples=150, deadline=None)
@given(plans, st.integers(1, 6), st.data())
def test_whatever_comes_and_goes_all_codes_of_all_others_are_spoken_once(
    plan: list[tuple[int, str, float, int]], slots: int, data: st.DataObject
) -> None:
    made = device(slots=slots)
    pending = sorted(((at, utterance(n, tenant=t, due_s=due)) for n, t, due, at in plan), key=lambda item: item[0])
    everyone = [sequence for _, sequence in pending]
    cancelled: set[Sequence] = set()
    for now in range(31):
        while pending and pending[0][0] == now:
            made.scheduler.add(pending.pop(0)[1])
        made.step(float(now))
        if everyone and data.draw(st.integers(0, 9)) == 0 and not pending:
            cancelled.add(unwanted := data.draw(st.sampled_from(everyone)))
            made.scheduler.cancel(unwanted)
    made.run()
    for sequence in everyone:
        if sequence.ending == "cancelled" or (sequence in cancelled and not sequence.is_vocoded):
            continue
        stops, lasts = zip(*made.windows(sequence), strict=True)
        assert len(sequence.codes) == sequence.max_codes == sequence.launched
        assert list(stops) == sorted(set(stops))
        assert stops[-1] == len(sequence.codes)
        assert lasts == (*[False] * (len(lasts) - 1), True)
