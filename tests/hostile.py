"""Job inputs that no reasonable worker takes, each with the error codes that fit.

All of them survive JSON as Python speaks it (NaN and lone surrogates included), so they can travel to a real worker.
Only what the name says is wrong: the rest of each job is as in `good_jobs`.
"""

import base64
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from tests import hostile_values as values
from tests.hostile_cache import bad_cache
from tests.hostile_files import bad_sound, good_clip, not_audio
from tests.hostile_people import NO_PERSONA, NO_USER, ROW_IDS, Wrong, bad_people
from tests.hostile_tenants import bad_keys_of_tenants, bad_tenants
from tests.hostile_values import NOT_TEXT, NULL, SURROGATE, Codes, Values, codes
from tests.hostile_voices import bad_voices

Row = tuple[str, Values, Codes]
"""What is wrong, the fields that say so (MISSING takes one away), the codes that fit."""

MISSING = object()

INVALID = codes("invalid_input")
NO_KEY = codes("unauthorized", "invalid_input")
NO_VOICE = codes("voice_not_found", "invalid_input")
NO_LANGUAGE = codes("language_unsupported", "invalid_input")
NO_CONSENT = codes("consent_required", "invalid_input")
LATER = codes("not_supported", "invalid_input")
NO_FETCH = codes("reference_blocked", "reference_unreachable", "invalid_input")
NO_CLIP = codes("reference_not_audio", "reference_too_short", "invalid_input")
TOO_MANY = codes("reference_too_long", "reference_too_large", "reference_not_audio", "invalid_input")


@dataclass(frozen=True, slots=True)
class Hostile:
    name: str
    input: object
    codes: Codes


def hostile_jobs(*, tenant_key: str = "tts_live_hostile") -> list[Hostile]:
    """tenant_key: valid and of every scope but admin; its tenant has attested no consent"""
    good = good_jobs(tenant_key=tenant_key)
    speak = good["synthesize"]
    jobs = [Hostile(f"input: {name}", value, NO_KEY) for name, value in _not_jobs(speak)]
    for rows in (_bad_keys(tenant_key), _bad_types(), _bad_values(), _bad_texts(), _strangers(), _bad_references()):
        jobs += _jobs(speak, rows)
    jobs += _jobs(good["voices.create"], _bad_voices())
    jobs += _jobs({"tenant_key": tenant_key}, _bad_others())
    jobs += _jobs({"tenant_key": tenant_key}, _bad_areas(bad_people()))
    jobs += _jobs({"tenant_key": tenant_key}, _bad_areas(bad_cache()))
    jobs += _jobs({"tenant_key": tenant_key}, _bad_areas(bad_voices()))
    jobs += _jobs({"tenant_key": tenant_key}, _bad_areas(bad_tenants()))
    jobs += _jobs({"tenant_key": tenant_key}, bad_keys_of_tenants())
    return jobs


def good_jobs(*, tenant_key: str) -> dict[str, Values]:
    """What the hostile ones are made of, by action: nothing is wrong with these."""
    return {
        "synthesize": {"tenant_key": tenant_key, "text": "Hello there."},
        "voices.create": {"action": "voices.create", "tenant_key": tenant_key, "name": "Nova"} | _sent(good_clip()),
        "voices.list": {"action": "voices.list", "tenant_key": tenant_key},
        "health": {"action": "health"},
    }


def _jobs(base: Values, rows: Iterable[Row]) -> Iterator[Hostile]:
    for name, fields, fitting in rows:
        merged = {field: value for field, value in (base | fields).items() if value is not MISSING}
        yield Hostile(f"{base.get('action', 'job')}: {name}", merged, fitting)


def _not_jobs(job: Values) -> Iterator[tuple[str, object]]:
    yield from (NULL | values.TRUTHS | values.LISTS).items()
    yield from {"an empty object": {}, "zero": 0, "a float": 1.5, "NaN": math.nan}.items()
    yield from {"a text": "Hello there.", "json text": '{"text": "Hello there."}', "empty text": ""}.items()
    yield from {"a list of jobs": [job], "a job in a job": {"input": job}, "a job by name": {"job": job}}.items()


def _bad_keys(key: str) -> Iterator[Row]:
    near = [key + "\n", "\n" + key, key + "\0", " " + key, key * 2, key[:-1], key.swapcase(), key + "\u200b"]
    near += [key + SURROGATE, "Bearer " + key]
    yield "tenant_key: missing", {"tenant_key": MISSING}, NO_KEY
    for value in (*near, *values.KEYS):
        yield f"tenant_key: {_told(value.replace(key, '<key>'))}", {"tenant_key": value}, NO_KEY
    yield from _named("tenant_key", NOT_TEXT | NULL | {"the key in a list": [key]}, NO_KEY)
    for action in ("voices.get", "voices.delete", "usage.summary"):
        fields: Values = {"action": action, "text": MISSING, "tenant_key": MISSING}
        fields |= {"voice_id": "nova"} if action in ("voices.get", "voices.delete") else {}
        yield f"{action} without a key", fields, NO_KEY
        yield f"{action} with a wrong key", fields | {"tenant_key": "tts_live_wrong"}, NO_KEY


def _bad_types() -> Iterator[Row]:
    for field in values.TEXTS:
        wrong = NOT_TEXT if field in values.NULLABLE else NOT_TEXT | NULL
        yield from _named(field, wrong, INVALID)
    for field in values.NUMBERS:
        wrong = values.NOT_NUMBER if field in values.NULLABLE else values.NOT_NUMBER | NULL
        yield from _named(field, wrong, INVALID)
    for field in values.BOOLS:
        yield from _named(field, values.NOT_BOOL, INVALID)
    yield from _named("metadata", values.NOT_OBJECT | values.METADATA, INVALID)
    for field in ("reference_audio_url", "reference_audio_base64"):
        yield from _named(field, values.NOT_CLIPS, INVALID, consent="I agree.")


def _bad_values() -> Iterator[Row]:
    for field, wrong in values.OUT_OF_RANGE.items():
        yield from _each(field, wrong, INVALID)
    for format, rate_hz in values.UNFIT_RATES:
        yield f"{format} at {rate_hz} Hz", {"format": format, "sample_rate": rate_hz}, INVALID
    yield from _each("language", values.LANGUAGES, NO_LANGUAGE)
    yield from _each("voice_id", values.VOICE_IDS, NO_VOICE)
    yield from _each("idempotency_key", values.IDEMPOTENCY_KEYS, INVALID)
    yield from _each("user_id", ROW_IDS, NO_USER)
    yield from _each("persona_id", ROW_IDS, NO_PERSONA)


def _bad_texts() -> Iterator[Row]:
    yield "text: missing", {"text": MISSING}, codes("invalid_input", "text_empty")
    for name, (text, fitting) in values.BAD_TEXTS.items():
        yield f"text: {name}", {"text": text}, fitting


def _strangers() -> Iterator[Row]:
    yield from _each("action", values.ACTIONS, LATER)
    yield from _named("action", NOT_TEXT | NULL, INVALID)
    for field in values.UNKNOWN_FIELDS:
        yield f"unknown field {_told(field)}", {field: "x"}, INVALID
    yield "unknown field, 900 deep", {"x": values.DEEP_LIST}, INVALID
    yield "1,000 unknown fields", {f"x{n}": n for n in range(1000)}, INVALID
    for field, value in values.OF_A_LATER_VERSION.items():
        yield f"{field} of a later version", {field: value}, LATER


def _bad_references() -> Iterator[Row]:
    yield from _each("reference_audio_url", values.URLS, NO_FETCH, consent="I agree.")
    yield from _named("reference_audio_url", values.URL_LISTS, NO_FETCH, consent="I agree.")
    yield from _named("reference_audio_base64", values.NOT_BASE64, NO_CLIP, consent="I agree.")
    yield from _bad_clips([*not_audio()], [*bad_sound()])
    good, bad = _base64(good_clip()), _base64(b"This is not audio.")
    lists: Values = {"1,000 clips": [bad] * 1000, "64 clips": [good] * 64, "one bad clip of two": [good, bad]}
    yield from _named("reference_audio_base64", lists, TOO_MANY, consent="I agree.")
    yield from _contradictions()


def _bad_clips(files: Iterable[str], sounds: Iterable[str]) -> Iterator[Row]:
    for name in files:
        yield f"clip: {name}", _sent(not_audio()[name]), NO_CLIP
    for name in sounds:
        data, faults = bad_sound()[name]
        yield f"clip: {name}", _sent(data), codes(*(f"reference_{fault}" for fault in faults))


def _contradictions() -> Iterator[Row]:
    clip = _sent(good_clip())
    url: Values = {"reference_audio_url": "http://127.0.0.1/a.wav", "consent": "I agree."}
    yield "a clip without consent", clip | {"consent": MISSING}, codes("consent_required")
    yield "a clip with null as consent", clip | {"consent": None}, codes("consent_required")
    yield "a url without consent", url | {"consent": MISSING}, NO_CONSENT | NO_FETCH
    yield "a clip and a blocked url", clip | url, NO_FETCH
    yield "a clip and a voice", clip | {"voice_id": "nobody"}, NO_VOICE
    yield "a url and a voice", url | {"voice_id": "nobody"}, NO_VOICE | NO_FETCH
    for name, value in (NOT_TEXT | values.BAD_STATEMENTS).items():
        yield f"consent: {name}", clip | {"consent": value}, NO_CONSENT


def _bad_voices() -> Iterator[Row]:
    yield "no consent", {"consent": MISSING}, codes("consent_required")
    yield "no clip", {"reference_audio_base64": MISSING}, codes("invalid_input", "reference_too_short")
    yield "no name", {"name": MISSING}, INVALID
    yield from _named("name", NOT_TEXT | NULL | {"empty": "", "long": values.LONG, "a surrogate": SURROGATE}, INVALID)
    yield from _named("description", NOT_TEXT | {"long": "x" * 100_000, "a surrogate": SURROGATE}, INVALID)
    yield from _each("language", values.LANGUAGES, NO_LANGUAGE)
    for field in ("text", "speed", "tenant_id", "__proto__", SURROGATE):
        yield f"unknown field {_told(field)}", {field: "x"}, INVALID
    files = ("an SDP file", "an HLS playlist", "an ffconcat list", "random bytes", "a zip")
    yield from _bad_clips(files, ("silence", "white noise", "clipped speech", "an hour of silence as flac"))
    url = "http://169.254.169.254/latest/meta-data/"
    yield "a blocked url", {"reference_audio_base64": MISSING, "reference_audio_url": url}, NO_FETCH


def _bad_others() -> Iterator[Row]:
    for action in ("voices.get", "voices.delete"):
        rows = [*_named("voice_id", NOT_TEXT | NULL, INVALID), *_each("voice_id", values.VOICE_IDS, NO_VOICE)]
        for name, fields, fitting in [("voice_id: missing", {}, INVALID), *rows]:
            yield f"{action}, {name}", {"action": action} | fields, fitting
    for action in ("usage.summary", "health"):
        for field in ("text", "limit ", "__proto__", SURROGATE):
            yield f"{action}, unknown field {_told(field)}", {"action": action, field: "x"}, INVALID
    yield "usage.summary, another tenant's", {"action": "usage.summary", "tenant_id": "x"}, codes("forbidden")


def _bad_areas(actions: Mapping[str, tuple[Values, Wrong]]) -> Iterator[Row]:
    """None of what these jobs name is there, so none of what is asked with it is done."""
    for action, (fields, bad) in actions.items():
        for field, (wrong, fitting) in bad.items():
            rows = _named(field, wrong, fitting) if isinstance(wrong, Mapping) else _each(field, wrong, fitting)
            for name, given, codes_of_it in rows:
                yield f"{action}, {name}", {"action": action} | fields | given, codes_of_it
        for field in ("text", "tenant_id", "__proto__", SURROGATE):
            if field not in fields and field not in bad:
                yield f"{action}, unknown field {_told(field)}", {"action": action} | fields | {field: "x"}, INVALID
        yield f"{action} without a key", {"action": action, "tenant_key": MISSING} | fields, NO_KEY
        if fields:
            yield f"{action} without anything", {"action": action}, INVALID


def _named(field: str, table: Mapping[str, object], fitting: Codes, **also: object) -> Iterator[Row]:
    for name, value in table.items():
        yield f"{field}: {name}", {field: value} | also, fitting


def _each(field: str, wrong: Iterable[object], fitting: Codes, **also: object) -> Iterator[Row]:
    for value in wrong:
        yield f"{field}: {_told(value)}", {field: value} | also, fitting


def _sent(data: bytes) -> Values:
    return {"reference_audio_base64": _base64(data), "consent": "I agree."}


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _told(value: object) -> str:
    """Short, printable, ASCII, and unlike what tables call their values."""
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"
