"""Saved voices, in the local store: each function is one transaction's work on its connection."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict, fields

from storage.local.area import LocalArea
from storage.local.database import Connection, Row
from storage.local.schema import Migration
from tts_core.errors import VoiceNotFound
from tts_core.store import VoiceRow

MIGRATIONS: tuple[Migration, ...] = (
    (
        "0002_voices",
        (
            """
            create table voices (
                id text not null,
                tenant_id text not null references tenants (id),
                name text not null,
                description text not null,
                language text,
                consent text not null,
                clip_paths text not null check (json_type(clip_paths) = 'array'),
                report text not null,
                created_at text not null,
                primary key (tenant_id, id)
            ) strict
            """,
        ),
    ),
)


class LocalVoices(LocalArea):
    """`tts_core.store.Voices`"""

    async def put_voice(self, voice: VoiceRow) -> None:
        await self._database.write(lambda tx: put_voice(tx, voice))

    async def get_voice(self, tenant_id: str, voice_id: str) -> VoiceRow:
        return await self._database.read(lambda tx: get_voice(tx, tenant_id, voice_id))

    async def list_voices(self, tenant_id: str) -> Sequence[VoiceRow]:
        return await self._database.read(lambda tx: list_voices(tx, tenant_id))

    async def delete_voice(self, tenant_id: str, voice_id: str) -> None:
        # The row goes first: a clip without a voice wastes space, a voice without its clip fails its next listener.
        voice = await self._database.write(lambda tx: delete_voice(tx, tenant_id, voice_id))
        for path in voice.clip_paths:
            await asyncio.to_thread(self._objects.delete, path)


def put_voice(tx: Connection, voice: VoiceRow) -> None:
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


def get_voice(tx: Connection, tenant_id: str, voice_id: str) -> VoiceRow:
    row = tx.execute("select * from voices where tenant_id = ? and id = ?", (tenant_id, voice_id)).fetchone()
    if row is None:
        raise VoiceNotFound(f"no voice {voice_id!r}")
    return _voice(row)


def list_voices(tx: Connection, tenant_id: str) -> Sequence[VoiceRow]:
    """Newest first."""
    rows = tx.execute("select * from voices where tenant_id = ? order by created_at desc, id", (tenant_id,))
    return tuple(map(_voice, rows))


def delete_voice(tx: Connection, tenant_id: str, voice_id: str) -> VoiceRow:
    """The row that is gone. raises VoiceNotFound"""
    voice = get_voice(tx, tenant_id, voice_id)
    tx.execute("delete from voices where tenant_id = ? and id = ?", (tenant_id, voice_id))
    return voice


def _voice(row: Row) -> VoiceRow:
    columns = {field.name: row[field.name] for field in fields(VoiceRow)}
    return VoiceRow(**columns | {"clip_paths": tuple(json.loads(row["clip_paths"]))})
