"""Saved voices: each function is one transaction's work on the local store's connection."""

import json
from collections.abc import Sequence
from dataclasses import asdict, fields

from storage.database import Connection, Row
from tts_core.errors import VoiceNotFound
from tts_core.store import VoiceRow


def put(tx: Connection, voice: VoiceRow) -> None:
    """A voice of this id that the tenant already has is written over."""
    tx.execute(
        """
        insert into voices (id, tenant_id, name, description, language, consent, clip_paths, report, created_at)
        values (:id, :tenant_id, :name, :description, :language, :consent, :clip_paths, :report, :created_at)
        on conflict (tenant_id, id) do update set
            name = excluded.name, description = excluded.description, language = excluded.language,
            consent = excluded.consent, clip_paths = excluded.clip_paths, report = excluded.report,
            created_at = excluded.created_at
        """,
        asdict(voice) | {"clip_paths": json.dumps(voice.clip_paths)},
    )


def get(tx: Connection, tenant_id: str, voice_id: str) -> VoiceRow:
    row = tx.execute("select * from voices where tenant_id = ? and id = ?", (tenant_id, voice_id)).fetchone()
    if row is None:
        raise VoiceNotFound(f"no voice {voice_id!r}")
    return _voice(row)


def newest_first(tx: Connection, tenant_id: str) -> Sequence[VoiceRow]:
    rows = tx.execute("select * from voices where tenant_id = ? order by created_at desc, id", (tenant_id,))
    return tuple(map(_voice, rows))


def delete(tx: Connection, tenant_id: str, voice_id: str) -> VoiceRow:
    """The row that is gone. raises VoiceNotFound"""
    voice = get(tx, tenant_id, voice_id)
    tx.execute("delete from voices where tenant_id = ? and id = ?", (tenant_id, voice_id))
    return voice


def _voice(row: Row) -> VoiceRow:
    columns = {field.name: row[field.name] for field in fields(VoiceRow)}
    return VoiceRow(**columns | {"clip_paths": tuple(json.loads(row["clip_paths"]))})
