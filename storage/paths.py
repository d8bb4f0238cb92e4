"""Paths of objects: `bucket/tenant_id/name`, in every body; a name may have folders of its own."""

import re

BUCKETS = ("audio", "voices", "tts-cache")

_SEGMENT = r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}"
MAX_FOLDERS = 4
_PATH = re.compile(rf"({'|'.join(BUCKETS)})/{_SEGMENT}(/{_SEGMENT}){{1,{MAX_FOLDERS + 1}}}")


def checked(path: str) -> str:
    """The path, which no trick of spelling leads out of its tenant's folder. raises ValueError"""
    if _PATH.fullmatch(path) is None:
        raise ValueError(f"not a path of an object (bucket/tenant_id/name): {path!r}")
    return path


def checked_tenant(tenant_id: str) -> str:
    """The id, which is one segment of a path. raises ValueError"""
    if re.fullmatch(_SEGMENT, tenant_id) is None:
        raise ValueError(f"not the id of a tenant: {tenant_id!r}")
    return tenant_id
