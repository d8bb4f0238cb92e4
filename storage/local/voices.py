"""Saved voices, in the local store: each function is one transaction's work on its connection."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial

from storage.local.area import LocalArea
from storage.local.database import Connection
from storage.local.schema import Migration, utc
from storage.local.voice_purges import delete_voice
from storage.local.voice_rows import Own, get_voice, list_voices
from tts_core.errors import LimitReached
from tts_core.store import (
    MAX_VOICE_GRANTS,
    NewVersion,
    StoredObject,
    VoicePurge,
    VoiceQuery,
    VoiceRow,
    VoiceTraits,
)

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
    (
        "0006_voices",
        (
            "alter table voices rename to voices_before",
            """
            create table voices (
                id text primary key,
                tenant_id text not null references tenants (id) on delete cascade,
                user_id text,
                name text not null,
                description text not null,
                language text,
                gender text,
                accent text,
                tags text not null check (json_type(tags) = 'array'),
                versions_made integer not null,
                created_at text not null,
                updated_at text not null
            ) strict
            """,
            """
            create table voice_versions (
                voice_id text not null references voices (id) on delete cascade,
                tenant_id text not null,
                number integer not null,
                request_id text not null,
                consent text not null,
                clips text not null check (json_type(clips) = 'array'),
                created_at text not null,
                primary key (voice_id, number),
                unique (voice_id, request_id)
            ) strict
            """,
            """
            create table voice_latents (
                voice_id text not null,
                tenant_id text not null,
                number integer not null,
                path text not null,
                size_bytes integer not null,
                primary key (voice_id, number, path),
                foreign key (voice_id, number) references voice_versions (voice_id, number) on delete cascade
            ) strict
            """,
            """
            create table voice_grants (
                voice_id text not null references voices (id) on delete cascade,
                tenant_id text not null,
                grantee_id text not null,
                created_at text not null,
                primary key (voice_id, grantee_id)
            ) strict
            """,
            """
            create table voice_purges (
                tenant_id text not null references tenants (id) on delete cascade,
                request_id text not null,
                purge text not null check (json_type(purge) = 'object'),
                created_at text not null,
                primary key (tenant_id, request_id)
            ) strict
            """,
            """
            insert into voices
            select id, tenant_id, null, name, description, language, null, null, '[]', 1, created_at, created_at
            from voices_before
            """,
            """
            insert into voice_versions
            select id, tenant_id, 1, id, consent, (
                select json_group_array(json_object(
                    'path', value, 'size_bytes', 0, 'content_type', 'application/octet-stream',
                    'report', json_extract(report, '$[' || key || ']')
                )) from json_each(clip_paths)
            ), created_at from voices_before
            """,
            "drop table voices_before",
            "create index voices_of_tenant on voices (tenant_id, created_at, id)",
            "create index voice_grants_to_tenant on voice_grants (grantee_id)",
        ),
    ),
)


class LocalVoices(LocalArea):
    """`tts_core.store.Voices`"""

    async def create_voice(
        self, tenant_id: str, voice_id: str, *, traits: VoiceTraits, version: NewVersion, max_voices: int
    ) -> VoiceRow:
        own = Own(tenant_id, voice_id, now=utc(self._clock()))
        work = partial(create_voice, own=own, traits=traits, version=version, max_voices=max_voices)
        return await self._database.write(work)

    async def update_voice(
        self, tenant_id: str, voice_id: str, *, changes: Mapping[str, object], version: NewVersion | None = None
    ) -> VoiceRow:
        own = Own(tenant_id, voice_id, now=utc(self._clock()))
        return await self._database.write(lambda tx: update_voice(tx, own=own, changes=changes, version=version))

    async def get_voice(self, tenant_id: str, voice_id: str, *, version: int | None = None) -> VoiceRow:
        return await self._database.read(lambda tx: get_voice(tx, tenant_id, voice_id, version=version))

    async def list_voices(self, tenant_id: str, query: VoiceQuery) -> Sequence[VoiceRow]:
        return await self._database.read(lambda tx: list_voices(tx, tenant_id, query))

    async def delete_voice(
        self, tenant_id: str, voice_id: str, *, request_id: str, version: int | None = None
    ) -> VoicePurge:
        own = Own(tenant_id, voice_id, now=utc(self._clock()))
        return await self._database.write(lambda tx: delete_voice(tx, own=own, request_id=request_id, version=version))

    async def share_voice(self, tenant_id: str, voice_id: str, *, with_tenant_id: str) -> VoiceRow:
        own = Own(tenant_id, voice_id, now=utc(self._clock()))
        return await self._database.write(lambda tx: share_voice(tx, own=own, with_tenant_id=with_tenant_id))

    async def unshare_voice(self, tenant_id: str, voice_id: str, *, with_tenant_id: str) -> VoiceRow:
        own = Own(tenant_id, voice_id, now=utc(self._clock()))
        return await self._database.write(lambda tx: unshare_voice(tx, own=own, with_tenant_id=with_tenant_id))

    async def note_latents(self, tenant_id: str, voice_id: str, version: int, *, latents: StoredObject) -> bool:
        own = Own(tenant_id, voice_id, now=utc(self._clock()))
        return await self._database.write(lambda tx: note_latents(tx, own=own, version=version, latents=latents))


def create_voice(tx: Connection, *, own: Own, traits: VoiceTraits, version: NewVersion, max_voices: int) -> VoiceRow:
    if tx.execute("select 1 from voices where id = ?", (own.voice_id,)).fetchone() is not None:
        return own.read(tx)
    (count,) = tx.execute("select count(*) from voices where tenant_id = ?", (own.tenant_id,)).fetchone()
    if count >= max_voices:
        raise LimitReached(f"the tenant has {count} voices, and may have {max_voices}")
    tx.execute(
        """
        insert into voices (
            id, tenant_id, user_id, name, description, language, gender, accent, tags, versions_made,
            created_at, updated_at
        ) values (:id, :tenant_id, :user_id, :name, :description, :language, :gender, :accent, :tags, 0, :now, :now)
        """,
        asdict(traits) | asdict(own) | {"id": own.voice_id, "tags": json.dumps(traits.tags)},
    )
    _add_version(tx, own=own, version=version)
    return own.read(tx)


def update_voice(tx: Connection, *, own: Own, changes: Mapping[str, object], version: NewVersion | None) -> VoiceRow:
    traits = asdict(own.read(tx).traits)
    assert changes.keys() <= traits.keys()
    changed = {**traits, **changes}
    tx.execute(
        """
        update voices set
            name = :name, description = :description, language = :language, gender = :gender, accent = :accent,
            tags = :tags, user_id = :user_id, updated_at = :now
        where id = :voice_id and tenant_id = :tenant_id
        """,
        changed | asdict(own) | {"tags": json.dumps(changed["tags"])},
    )
    if version is not None:
        _add_version(tx, own=own, version=version)
    return own.read(tx)


def _add_version(tx: Connection, *, own: Own, version: NewVersion) -> None:
    made = tx.execute(
        """
        insert into voice_versions (voice_id, tenant_id, number, request_id, consent, clips, created_at)
        select id, tenant_id, versions_made + 1, :request_id, :consent, :clips, :now from voices where id = :voice_id
        on conflict (voice_id, request_id) do nothing
        """,
        {
            "voice_id": own.voice_id,
            "request_id": version.request_id,
            "consent": version.consent,
            "clips": json.dumps([asdict(clip) for clip in version.clips]),
            "now": own.now,
        },
    )
    if made.rowcount:
        tx.execute("update voices set versions_made = versions_made + 1 where id = ?", (own.voice_id,))


def share_voice(tx: Connection, *, own: Own, with_tenant_id: str) -> VoiceRow:
    voice = own.read(tx)
    if with_tenant_id not in voice.shared_with and len(voice.shared_with) >= MAX_VOICE_GRANTS:
        raise LimitReached(f"the voice is shared with {MAX_VOICE_GRANTS} tenants, which is as many as can be")
    tx.execute(
        """
        insert into voice_grants (voice_id, tenant_id, grantee_id, created_at) values (?, ?, ?, ?)
        on conflict do nothing
        """,
        (own.voice_id, own.tenant_id, with_tenant_id, own.now),
    )
    return own.read(tx)


def unshare_voice(tx: Connection, *, own: Own, with_tenant_id: str) -> VoiceRow:
    own.read(tx)
    tx.execute("delete from voice_grants where voice_id = ? and grantee_id = ?", (own.voice_id, with_tenant_id))
    return own.read(tx)


def note_latents(tx: Connection, *, own: Own, version: int, latents: StoredObject) -> bool:
    noted = tx.execute(
        """
        insert into voice_latents (voice_id, tenant_id, number, path, size_bytes)
        select voice_id, tenant_id, number, :path, :size_bytes from voice_versions
        where voice_id = :voice_id and number = :version and tenant_id = :tenant_id
        on conflict (voice_id, number, path) do update set size_bytes = excluded.size_bytes
        """,
        asdict(own) | asdict(latents) | {"version": version},
    )
    return noted.rowcount == 1
