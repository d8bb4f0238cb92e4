"""Files of this machine in what is asked and answered here: a clip by its name, audio by its `file:` address."""

import base64
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tts_core.errors import InvalidInput


def with_files(body: Any, base: Path) -> Any:
    """`"reference_audio_base64": "@clip.wav"` is the content of that file, as curl has it.

    base    folder that relative names start from
    raises  InvalidInput if a file cannot be read
    """
    given = body.get("reference_audio_base64") if isinstance(body, dict) else None
    if given is None:
        return body
    clips = [_content(clip, base) for clip in (given if isinstance(given, list) else [given])]
    return body | {"reference_audio_base64": clips}


def file_at(url: str) -> Path | None:
    """What the address of a local store's object names; None for any other address."""
    address = urlsplit(url)
    return Path(url2pathname(address.path)) if address.scheme == "file" else None


def _content(clip: object, base: Path) -> object:
    if not isinstance(clip, str) or not clip.startswith("@"):
        return clip
    try:
        return base64.b64encode((base / clip[1:]).read_bytes()).decode()
    except (OSError, ValueError) as exc:  # the latter of a name with a zero byte in it
        raise InvalidInput(f"reference_audio_base64: {exc}") from exc
