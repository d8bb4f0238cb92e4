"""Is our GPT coqui's at full size too? The same random weights, prompts and draws; codes and latents compared.

    python -m benchmarks.parity --model DIR [--codes 100]

No speed is measured: this is the proof of tests/test_parity.py at the size that serves.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.common import commit
from tests.oracle import coqui_model
from tests.test_parity import GREEDY, SAMPLED, TEXTS, our_gpt, ours, reference


@dataclass(frozen=True)
class Row:
    draws: str
    codes: int
    equal_codes: int
    latent_difference: float


def main() -> None:
    args = parse_args()
    model = coqui_model(args.model)
    with torch.no_grad():
        model.gpt.mel_head.bias[model.args.gpt_stop_audio_token] = -1e4
    model.gpt.max_gen_mel_tokens = args.codes
    gpt = our_gpt(model)
    rows = []
    for draws, how in (("sampled", SAMPLED), ("greedy", GREEDY)):
        codes, latents = reference(model, TEXTS[0], how)
        our_codes, our_latents = ours(gpt, model, TEXTS[0], how, count=args.codes)
        equal = sum(one == other for one, other in zip(codes, our_codes, strict=True))
        rows.append(Row(draws, len(codes), equal, float((latents - our_latents).abs().max())))
        print(f"{draws:>8}  {equal:>4} of {len(codes)} codes equal  latents within {rows[-1].latent_difference:.1e}")
    told = [asdict(row) for row in rows]
    print(json.dumps({"benchmark": "parity", "commit": commit(), "weights": "RANDOM weights", "rows": told}))
    sys.exit(any(row.equal_codes < row.codes or row.latent_difference > 5e-5 for row in rows))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="made by `python -m tests.tiny_xtts DIR --full`")
    parser.add_argument("--codes", type=int, default=100)
    return parser.parse_args()


if __name__ == "__main__":
    main()
