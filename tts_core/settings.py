"""Every environment variable the worker reads. A name that starts with XTTS_ and is not here is refused."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tts_core.errors import StartupError

FOREIGN_NAMES = {
    "RUNPOD_WEBHOOK_GET_JOB": "runpod_job_url",
    "COQUI_TOS_AGREED": "coqui_tos_agreed",
    "AUDIO_STORAGE_DIR": "data_dir",
}
"""Variables that RunPod, coqui-tts or the systems we replace have named."""


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

    store: Literal["auto", "local"] = "auto"
    """`auto` is refused on RunPod: there the local store dies with the worker, so it must be asked for."""

    data_dir: Path = Path("data")
    """Folder of the local store (AUDIO_STORAGE_DIR does the same)."""

    concurrency: int = Field(default=8, ge=1, le=64)
    """Jobs one worker takes at once."""

    max_text_chars: int = Field(default=20_000, ge=1, le=50_000)

    max_reference_bytes: int = Field(default=20_000_000, ge=1_000, le=100_000_000)
    """Of one reference clip."""

    fetch_timeout_s: float = Field(default=20.0, gt=0, le=300)
    """Whole time a reference URL may take, redirects and body included."""

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
        # Their names are RunPod's and coqui's: a second one of ours would be a second way to set them.
        ours = {f"xtts_{k}" if k in ("runpod_job_url", "coqui_tos_agreed") else k: v for k, v in ours.items()}
        try:
            return cls.model_validate(foreign | ours)
        except ValidationError as exc:
            reasons = "; ".join(f"{_variable(str(e['loc'][0]))}: {e['msg']}" for e in exc.errors())
            raise StartupError(f"settings refused: {reasons}") from exc


def _variable(field: str) -> str:
    names = {field: name for name, field in FOREIGN_NAMES.items()}
    return names.get(field, f"XTTS_{field.upper()}")
