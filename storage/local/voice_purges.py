"""How saved voices are deleted, in the local store; by the request that asked for it, so that it is answered again."""

import json
from dataclasses import asdict

from storage.local.database import Connection
from storage.local.voice_rows import Own, unknown
from tts_core.errors import InvalidInput
from tts_core.store import StoredObject, VoicePurge, VoiceRow


def delete_voice(tx: Connection, *, own: Own, request_id: str, version: int | None) -> VoicePurge:
    done = tx.execute(
        "select purge from voice_purges where tenant_id = ? and request_id = ?", (own.tenant_id, request_id)
    ).fetchone()
    if done is not None:
        return _purge(done["purge"])
    voice = own.read(tx)
    purge = _purged(tx, voice, version=version)
    if version is None:
        tx.execute("delete from voices where id = ? and tenant_id = ?", (own.voice_id, own.tenant_id))
    else:
        tx.execute("delete from voice_versions where voice_id = ? and number = ?", (own.voice_id, version))
    tx.execute(
        "insert into voice_purges (tenant_id, request_id, purge, created_at) values (?, ?, ?, ?)",
        (own.tenant_id, request_id, json.dumps(asdict(purge)), own.now),
    )
    return purge


def _purged(tx: Connection, voice: VoiceRow, *, version: int | None) -> VoicePurge:
    """raises VoiceNotFound, InvalidInput"""
    if version is not None and version not in voice.versions:
        raise unknown(voice.id)
    if version is not None and len(voice.versions) == 1:
        raise InvalidInput("voice_id: this is the only version of the voice: delete the voice instead")
    numbers = voice.versions if version is None else (version,)
    clips = tx.execute(
        """
        select value ->> 'path' as path, value ->> 'size_bytes' as size_bytes
        from voice_versions, json_each(clips)
        where voice_id = :voice_id and number in (select value from json_each(:numbers)) order by number, key
        """,
        {"voice_id": voice.id, "numbers": json.dumps(numbers)},
    ).fetchall()
    latents = tx.execute(
        """
        select path, size_bytes from voice_latents
        where voice_id = :voice_id and number in (select value from json_each(:numbers)) order by number, path
        """,
        {"voice_id": voice.id, "numbers": json.dumps(numbers)},
    ).fetchall()
    return VoicePurge(
        voice_id=voice.id,
        rows=len(numbers) + len(latents) + (1 + len(voice.shared_with) if version is None else 0),
        objects=tuple(StoredObject(row["path"], row["size_bytes"]) for row in [*clips, *latents]),
        tenant_ids=(voice.tenant_id, *voice.shared_with),
    )


def _purge(kept: str) -> VoicePurge:
    purge = json.loads(kept)
    objects = tuple(StoredObject(**stored) for stored in purge["objects"])
    return VoicePurge(**purge | {"objects": objects, "tenant_ids": tuple(purge["tenant_ids"])})
