"""The image, built and run where there is no Docker. `make test-image` gives it what it needs.

hadolint reads the Dockerfile. podman builds it on a Debian that was made here (Python 3.11: a stand-in for the pinned
base image) and with eSpeak alone, which spares the gigabytes of torch. Then the image has to be what it should be, to
refuse weights whose licence nobody accepted, to tell its health, and, with its own CMD and hardly any rights, to do
jobs of the fake platform. The exit status is 1 if any of this fails. Whatever was started or made has gone by then.
"""

import asyncio
import base64
import hashlib
import io
import json
import secrets
import shutil
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import soundfile
from aiohttp import web

from tests.fake_platform import FakePlatform
from tests.podman import Podman, Refused, own_podman

ROOT = Path(__file__).parent.parent
BASE = ROOT / "build" / "base.tar"
IMAGE = "localhost/xtts-worker"
BUILD = (f"--build-arg=BASE_IMAGE={IMAGE}-base", "--build-arg=EXTRAS=espeak")
TIMEOUT_S = 60

SHIPPED = {"__pycache__", "data", "handler.py", "out", "samples", "storage", "test_input.json", "tts_core"}
"""Of this folder, and nothing else of it."""

HARDENED = (
    "--read-only",
    "--tmpfs=/tmp",
    "--cap-drop=all",
    "--security-opt=no-new-privileges",
    "--memory=1g",
    "--pids-limit=128",
)


async def linted(podman: Podman) -> None:
    program = Path(sys.executable).parent / "hadolint"
    process = await asyncio.create_subprocess_exec(program, "--no-color", ROOT / "Dockerfile")
    assert await process.wait() == 0


async def built(podman: Podman) -> None:
    await podman("import", "--quiet", str(BASE), f"{IMAGE}-base")
    await podman.build(ROOT, *BUILD, f"--tag={IMAGE}")


async def what_it_is(podman: Podman) -> None:
    config = (await _inspected(podman))["Config"]
    assert (config["User"], config["Cmd"]) == ("10001:10001", ["python", "-u", "handler.py"])
    ours = [line for line in config["Env"] if line.startswith(("XTTS_", "SUPABASE_", "COQUI_"))]
    assert ours == [], "settings are the operator's"
    assert set((await _ran(podman, "ls", "-A", "/app")).split()) == SHIPPED
    assert await _ran(podman, "ls", "-A", "/models") == "", "no weights unless they were asked for"
    writable = await _ran(podman, "find", "/app", "/opt/venv", "/models", "-writable", "-not", "-type", "l")
    assert set(writable.split()) == {"/app/data", "/app/out"}


async def licence(podman: Podman) -> None:
    """Weights without consent, or consent without weights: neither builds."""
    context = podman.folder / "context"
    shutil.copytree(ROOT / "tts_core", context / "tts_core")
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "constraints.txt"):
        shutil.copy2(ROOT / name, context)
    with pytest.raises(Refused, match="needs both"):
        await podman.build(context, *BUILD, "--target=baked", "--build-arg=COQUI_TOS_AGREED=1")
    (context / "weights").mkdir()
    (context / "weights" / "config.json").write_text("{}")
    with pytest.raises(Refused, match="needs both"):
        await podman.build(context, *BUILD, "--target=baked")


async def health(podman: Podman) -> None:
    """Of a worker behind HTTP: 200 is healthy, and neither 204 nor silence is."""
    kind, *command = (await _inspected(podman))["Healthcheck"]["Test"]
    assert kind == "CMD"
    for status, healthy in ((200, True), (204, False), (None, False)):
        async with _http_server(status) as port:
            try:
                await _ran(podman, *command, options=[f"--env=PORT={port}"])
            except Refused:
                assert not healthy, f"{status} is unhealthy"
            else:
                assert healthy, f"{status} is healthy"


async def jobs(podman: Podman) -> None:
    """Those of .runpod/tests.json, and speech for a tenant that the holder of the bootstrap key makes."""
    listing = json.loads((ROOT / ".runpod" / "tests.json").read_text())
    key = secrets.token_hex(32)
    env = {each["key"]: each["value"] for each in listing["config"]["env"]} | {
        "XTTS_BOOTSTRAP_KEY_SHA256": hashlib.sha256(key.encode()).hexdigest(),
        "XTTS_DATA_DIR": "/tmp/data",
    }
    async with FakePlatform() as platform, _worker(podman, platform.env() | env) as name:
        for test in listing["tests"]:
            await _answer(platform, test["input"])
        made = await _answer(platform, {"action": "tenants.create", "tenant_key": key, "name": "Acme"})
        text = {"text": "The image can speak.", "language": "en"}
        result = await _answer(platform, {"tenant_key": made["tenant_key"], **text})
        samples, rate = soundfile.read(io.BytesIO(base64.b64decode(result["audio_base64"])))
        assert len(samples) > rate / 2
        assert abs(samples).max() > 0.05
        await podman("healthcheck", "run", name)
        await podman("stop", f"--time={TIMEOUT_S}", name)
        assert await podman("inspect", "--format={{.State.ExitCode}}", name) == "0"
        assert platform.ledger.faults == []


@asynccontextmanager
async def _worker(podman: Podman, env: dict[str, str]) -> AsyncIterator[str]:
    """The image's own CMD. Nothing but what it says tells why it failed, so that is added."""
    variables = [f"--env={name}={value}" for name, value in env.items()]
    await podman("run", "--detach", "--name=worker", "--health-interval=disable", *HARDENED, *variables, IMAGE)
    try:
        yield "worker"
    except BaseException as exc:
        exc.add_note(await podman("logs", "--tail=50", "worker"))
        raise
    finally:
        await podman("rm", "--force", "--time=0", "worker")


async def _answer(platform: FakePlatform, job: dict[str, Any]) -> dict[str, Any]:
    result = await platform.result(platform.submit(job), timeout_s=TIMEOUT_S)
    assert result.error is None, result.error
    answer: dict[str, Any] = result.output[-1]
    return answer


@asynccontextmanager
async def _http_server(status: int | None) -> AsyncIterator[int]:
    """A port that answers /ping with this status; without one, nobody is there any more."""

    async def ping(request: web.Request) -> web.Response:
        return web.Response(status=status or 500)

    app = web.Application()
    app.router.add_get("/ping", ping)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    if status is None:
        await runner.cleanup()
    yield port
    await runner.cleanup()


async def _inspected(podman: Podman) -> dict[str, Any]:
    (image,) = json.loads(await podman("image", "inspect", IMAGE))
    assert isinstance(image, dict)
    return image


async def _ran(podman: Podman, *command: str, options: list[str] | None = None) -> str:
    return await podman("run", "--rm", "--health-interval=disable", *(options or []), IMAGE, *command)


STEPS: dict[str, Callable[[Podman], Awaitable[None]]] = {
    "hadolint": linted,
    "build": built,
    "what it is": what_it_is,
    "licence": licence,
    "health": health,
    "jobs": jobs,
}


async def main() -> None:
    """Every step; the first that fails ends it with its traceback, since the later ones need the earlier."""
    async with own_podman() as podman:
        for name, step in STEPS.items():
            started_s = time.monotonic()
            await step(podman)
            sys.stdout.write(f"{name}: ok ({time.monotonic() - started_s:.0f} s)\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
