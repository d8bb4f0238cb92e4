"""Every environment variable the worker reads. A name that starts with XTTS_ and is not here is refused."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from tts_core.errors import StartupError

FOREIGN_NAMES = {
    "RUNPOD_WEBHOOK_GET_JOB": "runpod_job_url",
    "COQUI_TOS_AGREED": "coqui_tos_agreed",
    "AUDIO_STORAGE_DIR": "data_dir",
    "SUPABASE_URL": "supabase_url",
    "SUPABASE_SERVICE_ROLE_KEY": "supabase_service_role_key",
    "SUPABASE_SCHEMA": "supabase_schema",
    "SENTRY_DSN": "sentry_dsn",
}
"""Variables that RunPod, coqui-tts, Supabase, Sentry or the systems we replace have named."""

FOREIGN_ONLY = frozenset(FOREIGN_NAMES.values()) - {"data_dir"}
"""Their names are not ours to double: there is no XTTS_SUPABASE_URL."""


def _address(url: str) -> str:
    """raises ValueError where no client could connect to it"""
    parts = urlsplit(url)
    if not (url.isascii() and parts.hostname and parts.port != 0):
        raise ValueError("is no address")
    return url


def _key(key: SecretStr) -> SecretStr:
    """raises ValueError where no header of HTTP could hold it"""
    if not re.fullmatch("[!-~]+", key.get_secret_value()):
        raise ValueError("holds white space or characters that no key has")
    return key


class Settings(BaseModel):
    """Every knob of the worker: read once in `handler.main`, then passed down. Ours start with XTTS_."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    engine: Literal["auto", "xtts", "espeak"] = "auto"
    """`auto`: XTTS where weights are found; eSpeak where none are, except on RunPod."""

    model_path: Path | None = None
    """Folder with model.pth, config.json, vocab.json and speakers_xtts.pth."""

    device: Literal["auto", "cpu", "cuda"] = "auto"

    precision: Literal["auto", "fast", "fp32", "bf16", "int8"] = "auto"
    """`auto`: bf16 on CUDA, fp32 on a CPU. On CPUs that have it, bf16 and int8 are faster and less exact."""

    store: Literal["auto", "local", "supabase"] = "auto"
    """`auto`: Supabase where it is configured; else local, but not on RunPod: there it dies with the worker."""

    data_dir: Path = Path("data")
    """Folder of the local store (AUDIO_STORAGE_DIR does the same)."""

    bootstrap_key_sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    """Of a key that is the operator's: the first one, before any tenant is made. No table ever holds it."""

    cache_memory_bytes: int = Field(default=64_000_000, ge=0)
    """Of cached speech a worker holds in memory."""

    cache_folder_bytes: int = Field(default=1_000_000_000, ge=0)
    """Of cached speech a worker keeps in `data_dir`/cache, above what the store keeps."""

    cache_max_age_days: float | None = Field(default=None, gt=0, le=36_500)
    """Cached speech older than this is spoken anew. None: none is."""

    price_per_audio_hour: float | None = Field(default=None, ge=0, le=1_000_000)
    """What an hour of speech costs you to make, in your currency: `cache.stats` tells what was saved."""

    concurrency: int = Field(default=8, ge=1, le=64)
    """Jobs one worker takes at once."""

    job_deadline_s: float = Field(default=280.0, ge=1, le=604_800)
    """Longest a job may take. Keep it below the endpoint's execution timeout, after which RunPod stops the worker."""

    max_text_chars: int = Field(default=20_000, ge=1, le=50_000)

    max_reference_bytes: int = Field(default=20_000_000, ge=1_000, le=100_000_000)
    """Of one reference clip."""

    max_voices_per_tenant: int = Field(default=1000, ge=1, le=1_000_000)

    fetch_timeout_s: float = Field(default=20.0, gt=0, le=300)
    """Whole time a reference URL may take, redirects and body included."""

    supabase_url: Annotated[str, AfterValidator(_address)] | None = Field(default=None, pattern=r"^https?://[^\s/]+/?$")
    """Of the project: https://<ref>.supabase.co"""

    supabase_service_role_key: Annotated[SecretStr, AfterValidator(_key)] | None = None
    """A secret key (sb_secret_...), or the legacy service_role JWT."""

    supabase_schema: str = Field(default="public", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")
    """The exposed schema that has our tables."""

    sentry_dsn: SecretStr | None = None
    """Where errors are told, scrubbed; needs the extra `sentry`."""

    runpod_job_url: str | None = None
    """Set by RunPod on queue endpoints; its presence is what makes this a worker."""

    coqui_tos_agreed: bool = False
    """The operator has accepted the licence of the XTTS weights (CPML)."""

    @property
    def on_runpod(self) -> bool:
        return self.runpod_job_url is not None

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Self:
        """raises StartupError that names each wrong variable, never its value"""
        ours = {k.removeprefix("XTTS_").lower(): v for k, v in env.items() if k.startswith("XTTS_") and v}
        foreign = {field: env[name] for name, field in FOREIGN_NAMES.items() if env.get(name)}
        ours = {f"xtts_{k}" if k in FOREIGN_ONLY else k: v for k, v in ours.items()}
        try:
            return cls.model_validate(foreign | ours)
        except ValidationError as exc:
            reasons = "; ".join(f"{_variable(str(e['loc'][0]))}: {e['msg']}" for e in exc.errors())
            raise StartupError(f"settings refused: {reasons}") from exc


def _variable(field: str) -> str:
    names = {field: name for name, field in FOREIGN_NAMES.items()}
    return names.get(field, f"XTTS_{field.upper()}")
