"""podman with images and containers of its own, in a folder that is gone afterwards."""

import ast
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

CONTAINERS_CONF = """
[containers]
default_ulimits = ["nofile=1024:4096", "nproc=4096:4096"]
netns = "host"
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
"""For a machine without systemd on which nobody may raise limits, as one that runs a CI often is."""

STORAGE_CONF = """
[storage]
driver = "overlay"
graphroot = "{folder}/images"
runroot = "{folder}/run"
"""

PIP_SETTINGS = ("cert", "index-url", "proxy", "trusted-host")
"""Of the machine's own, what a build needs to reach the same package index."""


class Refused(Exception):
    """podman's exit status was not 0; its last words are the message."""


@dataclass(frozen=True)
class Podman:
    folder: Path

    async def __call__(self, *command: str) -> str:
        """What it printed. raises Refused"""
        ours = {name: str(self.folder / f"{name}.conf") for name in ("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF")}
        process = await asyncio.create_subprocess_exec(
            "podman",
            *command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=os.environ | ours | {"TMPDIR": str(self.folder)},
        )
        output, errors = (raw.decode(errors="replace") for raw in await process.communicate())
        if process.returncode != 0:
            raise Refused(f"podman {command[0]}: exit status {process.returncode}\n{(output + errors)[-3_000:]}")
        return output.strip()

    async def build(self, context: Path, *options: str) -> None:
        """Build the Dockerfile of a folder; pip in it finds packages where it finds them on this machine."""
        await self("build", "--format=docker", *self._pip(), *options, str(context))

    def _pip(self) -> list[str]:
        listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True)
        pairs = (line.split("=", 1) for line in listed.stdout.splitlines())
        found = {name.rpartition(".")[2]: ast.literal_eval(value) for name, value in pairs}
        settings = {name: found[name] for name in PIP_SETTINGS if name in found}
        config = self.folder / "pip.conf"
        config.write_text("\n".join(["[global]", *(f"{name} = {value}" for name, value in settings.items())]) + "\n")
        mounts = [f"{config}:/etc/pip.conf", *(f"{path}:{path}" for path in [settings.get("cert")] if path)]
        return [f"--volume={mount}:ro" for mount in mounts]


@asynccontextmanager
async def own_podman() -> AsyncIterator[Podman]:
    folder = Path(tempfile.mkdtemp(prefix="podman-"))
    (folder / "CONTAINERS_CONF.conf").write_text(CONTAINERS_CONF)
    (folder / "CONTAINERS_STORAGE_CONF.conf").write_text(STORAGE_CONF.format(folder=folder))
    podman = Podman(folder)
    try:
        yield podman
    finally:
        try:
            await podman("rm", "--all", "--force", "--time=0")
            await podman("rmi", "--all", "--force")
        finally:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Also where something is still mounted below, as podman's storage is upon itself."""
    mounted = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for place in sorted((each for each in mounted if each.startswith(f"{folder}/")), reverse=True):
        subprocess.run(["umount", place], check=True)
    shutil.rmtree(folder)
