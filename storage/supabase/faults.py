"""What went wrong, from what a Supabase project said about it."""

import json
import re

from tts_core.errors import InvalidInput, StartupError, StoreUnavailable, TTSError

_UNAVAILABLE = re.compile(r"5\d\d|408|429|PGRST00\d|08.{3}|53.{3}|57P0\d|57014|40001|40P01|55P03")
"""Gateways and PostgREST without an answer; a Postgres that is gone, full, slow, or has undone a transaction."""

_KEY_REFUSED = re.compile(r"401|403|PGRST30\d|42501")
_NOT_OURS = re.compile(r"404|PGRST106|PGRST20[25]|3F000|42P01|42883")
_ELSEWHERE = re.compile(r"3\d\d")
_UNSTORABLE = re.compile(r"22P05|22021")
"""Postgres keeps no NUL in a text."""


def fault_of(code: str, *, message: str = "", detail: str = "", hint: str = "") -> TTSError | None:
    """The error to tell, or None where the mistake is our own: a broken constraint, a malformed request.

    code     SQLSTATE, PostgREST's own code, or an HTTP status where a gateway spoke
    message  of an error of ours (XT4xx): its code; `detail` is what the caller is told, and `hint`, where there is
             one, the further fields of the error as a JSON object
    """
    if code.startswith("XT"):
        return _errors(TTSError)[message](detail, **json.loads(hint or "{}"))
    if _UNAVAILABLE.fullmatch(code):
        return StoreUnavailable("the store did not answer")
    if _KEY_REFUSED.fullmatch(code):
        return StartupError(
            "Supabase refuses this to SUPABASE_SERVICE_ROLE_KEY: it must be a secret (service role) key, "
            "and every migration pushed"
        )
    if _NOT_OURS.fullmatch(code):
        return StartupError("the Supabase project lacks our tables or functions: run `supabase db push`")
    if _ELSEWHERE.fullmatch(code):
        return StartupError("SUPABASE_URL leads elsewhere: it must be the project's own address")
    if _UNSTORABLE.fullmatch(code):
        return InvalidInput("a text holds a character that cannot be stored")
    return None


def _errors(base: type[TTSError]) -> dict[str, type[TTSError]]:
    """Every error by its code; one that is a base of others has the code of its own base."""
    below = {code: kind for child in base.__subclasses__() for code, kind in _errors(child).items()}
    return below | {base.code: base}
