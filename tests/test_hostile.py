"""Is the corpus what it says: large, different, deliverable, harmless, and wrong in one thing only?"""

import ipaddress
import json
import socket
from collections import Counter
from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.hostile import Hostile, good_jobs, hostile_jobs
from tests.hostile_values import URLS
from tts_core import jobs
from tts_core.errors import TTSError

KEY = "tts_live_aValidKey1"

HARMLESS_NAMES = {
    "localhost",
    "localhost.",
    "ip6-localhost",
    "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "%31%32%37.0.0.1",
    "x",
}
"""Hosts that are neither numbers nor under .invalid; whoever resolves them stays here."""


@pytest.fixture(scope="module")
def corpus() -> list[Hostile]:
    return hostile_jobs(tenant_key=KEY)


def test_there_are_many_and_no_two_have_a_name_in_common(corpus: list[Hostile]) -> None:
    assert len(corpus) >= 300
    assert [name for name, times in Counter(job.name for job in corpus).items() if times > 1] == []


def test_names_can_be_printed(corpus: list[Hostile]) -> None:
    assert [job.name for job in corpus if not (job.name.isascii() and job.name.isprintable())] == []


def test_every_code_is_one_of_the_tree_and_none_means_a_bug_of_ours(corpus: list[Hostile]) -> None:
    wanted = frozenset[str]().union(*(job.codes for job in corpus))
    assert wanted <= {error.code for error in _tree(TTSError)} - {"internal", "startup_error", "cancelled"}
    assert [job.name for job in corpus if not job.codes] == []


def test_all_of_them_can_travel(corpus: list[Hostile]) -> None:
    for job in corpus:
        text = json.dumps(job.input)
        assert json.dumps(json.loads(text)) == text, job.name
    assert sum(len(json.dumps(job.input)) for job in corpus) < 20_000_000


def test_the_corpus_is_the_same_every_time(corpus: list[Hostile]) -> None:
    again = hostile_jobs(tenant_key=KEY)
    assert [(job.name, job.codes) for job in again] == [(job.name, job.codes) for job in corpus]
    assert json.dumps([job.input for job in again]) == json.dumps([job.input for job in corpus])


def test_only_jobs_about_the_key_lack_the_valid_one(corpus: list[Hostile]) -> None:
    lacking = [job for job in corpus if not (isinstance(job.input, dict) and job.input.get("tenant_key") == KEY)]
    assert [job.name for job in lacking if not job.codes & {"unauthorized"}] == []
    assert len(lacking) < len(corpus) / 5


def test_what_they_are_made_of_is_not_refused() -> None:
    for action, job in good_jobs(tenant_key=KEY).items():
        assert jobs.parse(job).action == action


def test_no_address_leaves_the_machine() -> None:
    assert [host for host in map(_host, URLS) if not (host in HARMLESS_NAMES or _is_reserved(host))] == []


def _tree(error: type[TTSError]) -> Iterator[type[TTSError]]:
    yield error
    for child in error.__subclasses__():
        yield from _tree(child)


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_reserved(host: str) -> bool:
    """Nothing, or under .invalid, or a number that no router passes on, however the resolver reads it."""
    if not host or host.endswith(".invalid"):
        return True
    try:
        found = socket.getaddrinfo(host, 80, flags=socket.AI_NUMERICHOST)
    except (socket.gaierror, UnicodeError):
        return False
    numbers = [ipaddress.ip_address(str(address[0])) for *_, address in found]
    return all(number.is_multicast or not number.is_global for number in numbers)
