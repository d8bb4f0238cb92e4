"""`python -m tts_core.batch INPUT --endpoint ID --out DIR`: a file of lines, spoken by a RunPod endpoint."""

import argparse
import asyncio
import os
import sys
from collections.abc import Mapping, Sequence

from tts_core.batch.command import INTERRUPTED, WRONG, carry_out, checked, note
from tts_core.batch.endpoint import Endpoint
from tts_core.batch.lines import Line
from tts_core.batch.options import add_arguments
from tts_core.batch.remote import Remote
from tts_core.batch.retry import Policy

API = "https://api.runpod.ai/v2"


def main(argv: Sequence[str], env: Mapping[str, str]) -> int:
    if "--local" in argv:
        # The package's docstring says why: this never returns.
        rest = [arg for arg in argv if arg != "--local"]
        os.execv(sys.executable, [sys.executable, "-m", "handler", "batch", *rest])  # noqa: S606
    parser = make_parser(env)
    args = parser.parse_args(argv)
    needed = {"--endpoint": args.endpoint} | {name: env.get(name) for name in ("RUNPOD_API_KEY", "TTS_TENANT_KEY")}
    missing = [name for name, value in needed.items() if not value]
    if missing and not args.check:
        parser.error(f"{' and '.join(missing)} must be set, or --local given")
    if not _is_sendable(env.get("RUNPOD_API_KEY", "")):
        parser.error("RUNPOD_API_KEY holds white space or characters that no key has")
    lines = checked(args)
    if isinstance(lines, int):
        return lines
    try:
        return asyncio.run(speak(args, lines, env))
    except KeyboardInterrupt:  # before or after what `carry_out` listens for it
        return INTERRUPTED


def _is_sendable(key: str) -> bool:
    """Whether a header of HTTP can hold it."""
    return key.isascii() and key.isprintable() and " " not in key


async def speak(args: argparse.Namespace, lines: Sequence[Line], env: Mapping[str, str]) -> int:
    """The exit status."""
    # RunPod's own SDK takes the API's address from this variable, too.
    address = f"{env.get('RUNPOD_ENDPOINT_BASE_URL') or API}/{args.endpoint}"
    policy = Policy(first_wait_s=args.backoff)
    try:
        unopened = Endpoint(address, env["RUNPOD_API_KEY"], parallel=args.parallel, policy=policy)
    except ValueError as error:
        note(f"RUNPOD_ENDPOINT_BASE_URL is no address: {error}")
        return WRONG
    async with unopened as endpoint:
        site = Remote(endpoint, env["TTS_TENANT_KEY"], args.job_timeout, args.parallel, args.stream)
        return await carry_out(args, lines, site, drains=True)


def make_parser(env: Mapping[str, str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tts_core.batch",
        description="Speaks a file of lines. Keys come from RUNPOD_API_KEY and TTS_TENANT_KEY.",
        allow_abbrev=False,
    )
    add_arguments(parser)
    parser.add_argument("--local", action="store_true", help="speak on this machine, without RunPod")
    parser.set_defaults(endpoint=env.get("RUNPOD_ENDPOINT_ID"))
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
