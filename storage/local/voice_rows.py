"""How saved voices are read, in the local store: what a tenant sees of them, in the terms of the port."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storage.local.database import Connection, Row
from tts_core.errors import VoiceNotFound
from tts_core.store import Clip, VoiceQuery, VoiceRow, VoiceTraits, VoiceVersion

_SEEN = """
    select
        voices.*, versions.number, versions.request_id, versions.consent, versions.clips,
        versions.created_at as version_created_at,
        (
            select json_group_array(number)
            from (select number from voice_versions where voice_id = voices.id order by number)
        ) as numbers,
        (
            select json_group_array(grantee_id) from (
                select grantee_id from voice_grants
                where voice_id = voices.id and voices.tenant_id = :tenant_id order by created_at, grantee_id
            )
        ) as shared_with
    from voices join voice_versions as versions on versions.voice_id = voices.id and versions.number =
        coalesce(:version, (select max(number) from voice_versions where voice_id = voices.id))
"""


@dataclass(frozen=True, slots=True)
class Own:
    """Which voice of which tenant is written to, and when."""

    tenant_id: str
    voice_id: str
    now: str

    def read(self, tx: Connection) -> VoiceRow:
        """raises VoiceNotFound"""
        return own_voice(tx, self.tenant_id, self.voice_id)


def get_voice(tx: Connection, tenant_id: str, voice_id: str, *, version: int | None = None) -> VoiceRow:
    """raises VoiceNotFound"""
    row = tx.execute(
        f"""
        {_SEEN}
        where voices.id = :voice_id and (
            voices.tenant_id = :tenant_id
            or exists (select 1 from voice_grants where voice_id = voices.id and grantee_id = :tenant_id)
        )
        """,  # noqa: S608
        {"tenant_id": tenant_id, "voice_id": voice_id, "version": version},
    ).fetchone()
    if row is None:
        raise unknown(voice_id)
    return _voice(row)


def own_voice(tx: Connection, tenant_id: str, voice_id: str) -> VoiceRow:
    """raises VoiceNotFound for one that was only shared, too"""
    voice = get_voice(tx, tenant_id, voice_id)
    if voice.tenant_id != tenant_id:
        raise unknown(voice_id)
    return voice


def unknown(voice_id: str) -> VoiceNotFound:
    return VoiceNotFound(f"no voice {voice_id!r}")


def list_voices(tx: Connection, tenant_id: str, query: VoiceQuery) -> Sequence[VoiceRow]:
    after_at, after_id = query.after or (None, None)
    rows = tx.execute(
        f"""
        {_SEEN}
        where voices.id in (
                select id from voices where tenant_id = :tenant_id
                union all select voice_id from voice_grants where grantee_id = :tenant_id and :include_shared
            )
            and (:user_id is null or (voices.user_id = :user_id and voices.tenant_id = :tenant_id))
            and (:language is null or voices.language = :language)
            and (:tag is null or :tag in (select value from json_each(voices.tags)))
            and (:voice_ids is null or voices.id in (select value from json_each(:voice_ids)))
            and (:after_at is null or (voices.created_at, voices.id) < (:after_at, :after_id))
        order by voices.created_at desc, voices.id desc limit :limit
        """,  # noqa: S608
        {
            "tenant_id": tenant_id,
            "version": None,
            "include_shared": query.include_shared,
            "user_id": query.user_id,
            "language": query.language,
            "tag": query.tag,
            "voice_ids": None if query.voice_ids is None else json.dumps(query.voice_ids),
            "after_at": after_at,
            "after_id": after_id,
            "limit": query.limit,
        },
    )
    return tuple(map(_voice, rows))


def _voice(row: Row) -> VoiceRow:
    return VoiceRow(
        id=row["id"],
        tenant_id=row["tenant_id"],
        traits=VoiceTraits(
            name=row["name"],
            description=row["description"],
            language=row["language"],
            gender=row["gender"],
            accent=row["accent"],
            tags=tuple(json.loads(row["tags"])),
            user_id=row["user_id"],
        ),
        version=VoiceVersion(
            number=row["number"],
            request_id=row["request_id"],
            consent=row["consent"],
            clips=tuple(_clip(clip) for clip in json.loads(row["clips"])),
            created_at=row["version_created_at"],
        ),
        versions=tuple(json.loads(row["numbers"])),
        shared_with=tuple(json.loads(row["shared_with"])),
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _clip(clip: dict[str, Any]) -> Clip:
    return Clip(**clip)
