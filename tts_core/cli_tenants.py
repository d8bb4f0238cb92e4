"""`handler.py tenants …`: what an operator does with tenants at a shell, on the store that the settings name."""

import argparse
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, get_args

from tts_core.errors import InvalidInput
from tts_core.jobs import JsonObject
from tts_core.jobs.tenants import DEFAULT_SCOPES, MAX_OVERLAP_HOURS
from tts_core.service.tenants import HOUR_S, told_new_key, told_receipt, told_tenant
from tts_core.store import Limits, Period, Scope, Store

Command = Callable[[Store, argparse.Namespace], Awaitable[Sequence[JsonObject]]]


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """`args.tenants` of a parsed line is the Command."""
    tenants = commands.add_parser("tenants", help="make, limit and remove tenants")
    kinds = tenants.add_subparsers(dest="what", required=True)
    create = _add(kinds, "create", run_create, "make a tenant and print its key, once")
    create.add_argument("name")
    create.add_argument(
        "--scope", action="append", choices=get_args(Scope), help=f"default: {' '.join(DEFAULT_SCOPES)}"
    )
    create.add_argument("--requests-per-minute", type=_at_least(int, 1), metavar="N")
    create.add_argument("--requests-per-hour", type=_at_least(int, 1), metavar="N")
    create.add_argument("--quota-minutes", type=_at_least(float, 0), metavar="MINUTES", help="of audio, per period")
    create.add_argument("--quota-period", choices=get_args(Period), default="month")
    _add(kinds, "list", run_list, "one tenant a line")
    rotate = _add(kinds, "rotate", run_rotate, "print a new key, once; the old one ends later")
    rotate.add_argument("tenant_id")
    rotate.add_argument("--prefix", help="of the old key, if the tenant has several that are valid")
    rotate.add_argument("--overlap-hours", type=_at_least(float, 0), default=24.0, help="how long the old one is valid")
    disable = _add(kinds, "disable", run_disable, "refuse every key of a tenant")
    disable.add_argument("tenant_id")
    disable.add_argument("--undo", action="store_true", help="accept them again")
    delete = _add(kinds, "delete", run_delete, "remove a tenant with everything it has, and print a receipt")
    delete.add_argument("tenant_id")
    delete.add_argument("--yes", action="store_true", help="really")


async def run_create(store: Store, args: argparse.Namespace) -> Sequence[JsonObject]:
    if not (args.name.strip() and args.name.isprintable() and len(args.name) <= 200):
        raise InvalidInput("the name must be 1 to 200 printable characters")
    limits = Limits(args.requests_per_minute, args.requests_per_hour, args.quota_minutes, args.quota_period)
    made = told_new_key(await store.create_tenant(args.name, scopes=args.scope or DEFAULT_SCOPES, limits=limits))
    return [{"tenant_id": made["tenant"]["id"]} | made]


async def run_list(store: Store, args: argparse.Namespace) -> Sequence[JsonObject]:
    return [told_tenant(tenant) for tenant in await store.list_tenants()]


async def run_rotate(store: Store, args: argparse.Namespace) -> Sequence[JsonObject]:
    if args.overlap_hours > MAX_OVERLAP_HOURS:
        raise InvalidInput(f"--overlap-hours: at most {MAX_OVERLAP_HOURS}")
    return [told_new_key(await store.rotate_key(args.tenant_id, args.prefix, overlap_s=args.overlap_hours * HOUR_S))]


async def run_disable(store: Store, args: argparse.Namespace) -> Sequence[JsonObject]:
    return [told_tenant(await store.update_tenant(args.tenant_id, {"disabled": not args.undo}))]


async def run_delete(store: Store, args: argparse.Namespace) -> Sequence[JsonObject]:
    if not args.yes:
        name = (await store.get_tenant(args.tenant_id)).name
        raise InvalidInput(f"this removes tenant {name!r} and everything of it for ever: add --yes")
    return [told_receipt(await store.delete_tenant(args.tenant_id))]


def _add(
    kinds: "argparse._SubParsersAction[argparse.ArgumentParser]", name: str, command: Command, words: str
) -> argparse.ArgumentParser:
    parser = kinds.add_parser(name, help=words)
    parser.set_defaults(tenants=command)
    return parser


def _at_least(kind: Callable[[str], Any], least: float) -> Callable[[str], Any]:
    def parse(text: str) -> Any:
        value = kind(text)
        if not least <= value < math.inf:
            raise argparse.ArgumentTypeError(f"must be a number from {least} on")
        return value

    parse.__name__ = kind.__name__  # argparse names it where the text is no number
    return parse
