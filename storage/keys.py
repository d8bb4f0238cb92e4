"""Keys: `tts_live_<8 public characters>_<secret>`. They are stored as sha256 only, and never logged.

A slow hash protects secrets that people choose. These have 256 random bits: sha256 is enough, and can be looked up.
"""

import hashlib
import re
import secrets
import string

_ALPHABET = string.digits + string.ascii_letters
_SECRET_CHARS = 43  # of 62 letters and digits: 256.03 bits
_SHAPE = re.compile(rf"tts_live_[0-9A-Za-z]{{8}}_[0-9A-Za-z]{{{_SECRET_CHARS}}}")


def new_key() -> str:
    return f"tts_live_{_random(8)}_{_random(_SECRET_CHARS)}"


def is_key(text: str) -> bool:
    """Whether `text` has the shape of a key that `new_key` made."""
    return _SHAPE.fullmatch(text) is not None


def shown_prefix(key: str) -> str:
    """What may be shown of a key: all but its secret."""
    return key.rpartition("_")[0]


def digest(key: str) -> bytes:
    """sha256 of whatever a caller sent as key, lone surrogates (which JSON can spell) included."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _ in range(length))
