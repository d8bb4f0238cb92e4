"""`handler.py batch …`: a file of lines, spoken on this machine. The same flags, folder and manifest as on RunPod."""

import argparse
import asyncio
import os
from collections.abc import Callable, Sequence

from tts_core.batch.command import INTERRUPTED, WRONG, carry_out, checked, note
from tts_core.batch.lines import Line
from tts_core.batch.local import Local
from tts_core.batch.options import add_arguments
from tts_core.errors import TTSError
from tts_core.jobs import Handler
from tts_core.service import Service


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    add_arguments(commands.add_parser("batch", help="speak a file of lines on this machine", allow_abbrev=False))


def run(
    args: argparse.Namespace,
    build: Callable[[], Service],
    make_handler: Callable[[Service], Handler],
    *,
    fill_key: bool,
) -> int:
    """The exit status. fill_key: without TTS_TENANT_KEY, speak as this machine's own tenant"""
    lines = checked(args)
    if isinstance(lines, int):
        return lines
    try:
        service = build()
        return asyncio.run(_speak(args, lines, service, make_handler(service), fill_key=fill_key))
    except TTSError as error:
        note(f"{error.code}: {error}")
        return WRONG
    except KeyboardInterrupt:  # before or after what `carry_out` listens for it
        return INTERRUPTED


async def _speak(
    args: argparse.Namespace, lines: Sequence[Line], service: Service, handler: Handler, *, fill_key: bool
) -> int:
    try:
        key = os.environ.get("TTS_TENANT_KEY") or (await service.store.local_key() if fill_key else "")
        # At a terminal Ctrl-C ends eSpeak's processes too: nothing that is on its way could arrive.
        return await carry_out(args, lines, Local(handler, key), drains=False)
    finally:
        await service.close()
