"""Official XTTS-v2 files into files that are mapped into memory as they are: no pickle, no folding, no copies.

python -m tts_core.xtts.checkpoint convert SRC DST [--precision fp32 bf16 fp16 int8]
"""

import argparse
import json
import secrets
import shutil
import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tts_core.errors import StartupError
from tts_core.xtts import files, model, weights
from tts_core.xtts.linear import LAYOUT, PACKED, SCALE, has_fast_int8, packed_bytes, quantized


def convert(source: Path, target: Path, *, precisions: Collection[str] = ("fp32",)) -> None:
    """Write `target`: complete, or not at all. Nothing in `source` changes.

    precisions  of `files.PRECISIONS`: of the GPT, one file each; everything else is float32
    raises      StartupError if the source is no official model, or the target exists and is not empty
    """
    if missing := [name for name in weights.REQUIRED_FILES if not (source / name).is_file()]:
        raise StartupError(f"{source} lacks {', '.join(missing)}")
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise StartupError(f"{target} exists already")
    if target.resolve().is_relative_to(source.resolve()):
        raise StartupError(f"{target} is in the folder of the official model, which is never written to")
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = target.resolve().with_name(f".{target.name}-{secrets.token_hex(4)}")
    draft.mkdir()
    try:
        _write(source, draft, precisions)
        draft.rename(target.resolve())
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _write(source: Path, draft: Path, precisions: Collection[str]) -> None:
    for name in ("config.json", "vocab.json"):
        shutil.copyfile(source / name, draft / name)
    if (source / weights.RANDOM_WEIGHTS_MARK).is_file():
        (draft / weights.RANDOM_WEIGHTS_MARK).touch()
    plan = model.make_plan(source)
    for name in precisions:
        tensors = model.place(files.open_official(source), plan.wanted(files.PRECISIONS[name]), torch.device("cpu"))
        origin = {"weights_digest": files.weights_digest(source)}
        if name == "int8":
            tensors = _quantized(tensors)
            if has_fast_int8():
                packed = _packed(tensors)
                _save(packed, draft / files.PACKED_FILE, files.packed_metadata(packed, **origin))
        _save(tensors, draft / f"xtts-{name}.safetensors", origin)
    if speakers := model.load_speakers(source, plan.sizes):
        columns = {
            "gpt_latents": torch.stack([voice.gpt_latents for voice in speakers.values()]),
            "speaker_embeddings": torch.stack([voice.speaker_embedding for voice in speakers.values()]),
        }
        _save(columns, draft / model.SPEAKERS_FILE, {"names": json.dumps(list(speakers))})


def _quantized(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    small = dict(tensors)
    for name in filter(model.is_matrix, tensors):
        small[name], small[name + SCALE] = quantized(tensors[name])
    return small


def _packed(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """By the names under which the GPT has its matrices."""
    packed = {}
    for name in filter(model.is_matrix, tensors):
        ours = name.removeprefix("gpt.")
        packed[ours + PACKED], packed[ours + LAYOUT] = packed_bytes(tensors[name])
    return packed


def _save(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    save_file(tensors, path, metadata)
    # The library lets nobody but the owner read it; a worker is often another user.
    path.chmod((path.parent / "config.json").stat().st_mode)


def main(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    command = parser.add_subparsers(required=True).add_parser("convert")
    command.add_argument("source", type=Path, help="folder with config.json, model.pth, vocab.json, speakers_xtts.pth")
    command.add_argument("target", type=Path, help="folder to make")
    command.add_argument("--precision", nargs="+", choices=files.PRECISIONS, default=["fp32"])
    args = parser.parse_args(argv)
    try:
        convert(args.source, args.target, precisions=args.precision)
    except StartupError as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
