"""The flags that both ways of running a batch take."""

import argparse
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar, get_args

from tts_core.batch.lines import Line, plan
from tts_core.batch.reading import BadInput, Kind, Problem, read, value_of
from tts_core.jobs import JsonObject
from tts_core.types import AudioFormat

N = TypeVar("N", int, float)

MIN_TTL_S, MAX_TTL_S = 10, 7 * 24 * 3600
"""What RunPod takes as a job's time to live."""

MAX_PARALLEL = 200
"""As many /run requests at once as RunPod takes of an endpoint."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", type=Path, metavar="INPUT", help=".txt: a line a job; .csv; .jsonl")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the audio and the manifest")
    parser.add_argument("--input-format", choices=("txt", "csv", "jsonl"), help="default: by the ending of INPUT")
    parser.add_argument("--paragraphs", action="store_true", help="txt: a job is a paragraph, up to an empty line")
    defaults = parser.add_argument_group("for every line that does not say otherwise")
    defaults.add_argument("--voice", metavar="ID")
    defaults.add_argument("--language", metavar="TAG")
    defaults.add_argument("--format", choices=get_args(AudioFormat))
    defaults.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="any field of a job")
    parser.add_argument("--parallel", type=number(int, 1, MAX_PARALLEL), default=8, metavar="N", help="lines at once")
    parser.add_argument("--attempts", type=number(int, 1, 100), default=5, metavar="N", help="at a line, in this run")
    parser.add_argument(
        "--backoff", type=number(float, 0, 60), default=1.0, metavar="S", help="before the second attempt; then doubled"
    )
    price = parser.add_mutually_exclusive_group()
    price.add_argument("--price-per-second", type=number(float, 0), metavar="USD", help="of a worker, to tell the cost")
    price.add_argument("--price-per-hour", type=number(float, 0), metavar="USD")
    parser.add_argument("--check", action="store_true", help="check INPUT, speak nothing")
    remote = parser.add_argument_group("on RunPod")
    remote.add_argument("--endpoint", metavar="ID", help="default: RUNPOD_ENDPOINT_ID")
    remote.add_argument("--stream", action="store_true", help="read each line while it is spoken")
    timeout_s = number(float, MIN_TTL_S, MAX_TTL_S)
    remote.add_argument("--job-timeout", type=timeout_s, default=3600.0, metavar="S", help="from queued to spoken")


def number(kind: Callable[[str], N], least: float, most: float = math.inf) -> Callable[[str], N]:
    """A type for argparse."""

    def parse(text: str) -> N:
        value = kind(text)
        if not least <= value <= most or value == math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not from {least:g} to {most:g}")
        return value

    return parse


def lines_of(args: argparse.Namespace) -> Sequence[Line]:
    """raises  BadInput with everything that is wrong, OSError"""
    base = args.input.parent
    return plan(read(args.input, _kind(args)), _defaults(args), base=base)


def price_per_s(args: argparse.Namespace) -> float | None:
    if args.price_per_hour is not None:
        return float(args.price_per_hour) / 3600
    return None if args.price_per_second is None else float(args.price_per_second)


def _kind(args: argparse.Namespace) -> Kind:
    kind = args.input_format or args.input.suffix.removeprefix(".").lower()
    match kind:
        case "txt":
            return "paragraphs" if args.paragraphs else "txt"
        case "csv" | "jsonl" if not args.paragraphs:
            return "csv" if kind == "csv" else "jsonl"
        case "csv" | "jsonl":
            raise BadInput(Problem(0, "--paragraphs is for txt"))
    raise BadInput(Problem(0, f"{args.input.name!r} is none of .txt, .csv, .jsonl: say --input-format"))


def _defaults(args: argparse.Namespace) -> JsonObject:
    named = {"voice_id": args.voice, "language": args.language, "format": args.format}
    fields: JsonObject = {name: value for name, value in named.items() if value is not None}
    if args.stream:
        fields["streaming"] = True
    for given in args.set:
        if not (match := re.fullmatch(r"(\w+)=(.*)", given, re.DOTALL)):
            raise BadInput(Problem(0, f"--set {given!r}: must be FIELD=VALUE"))
        fields[match[1]] = value_of(match[1], match[2])
    return fields
