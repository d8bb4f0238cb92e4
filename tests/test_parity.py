"""Our GPT, sampler and vocoder against coqui-tts itself, on the same seeded random weights and the same draws."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor
from TTS.tts.models.xtts import Xtts

from tests.oracle import coqui_model
from tests.tiny_xtts import build
from tts_core.types import Sampling
from tts_core.xtts.gpt import Gpt, GptSizes, prompt_positions
from tts_core.xtts.hifigan import HOP, Generator
from tts_core.xtts.precision import EXACT, Precision, choose_precision
from tts_core.xtts.sampler import SamplingRows, draw, exponential_noise, scores_of
from tts_core.xtts.vocoder import Piece, Vocoder, settled_outputs, stretched

Score = Callable[..., Tensor]

CODES = 100
TEXTS = ([5, 9, 20, 31, 7, 7, 8, 40], [3, 4, 100, 200, 9], [11] * 30)
SAMPLED: dict[str, Any] = {"temperature": 0.75, "top_k": 50, "top_p": 0.85, "repetition_penalty": 5.0}
GREEDY = SAMPLED | {"top_k": 1, "repetition_penalty": 10.0}


@pytest.fixture(scope="module")
def coqui(tmp_path_factory: pytest.TempPathFactory) -> Xtts:
    """The reference, kept from stopping so that a hundred codes can be compared."""
    folder = tmp_path_factory.mktemp("tiny")
    build(folder)
    model = coqui_model(folder)
    with torch.no_grad():
        model.gpt.mel_head.bias[model.args.gpt_stop_audio_token] = -1e4
    model.gpt.max_gen_mel_tokens = CODES
    return model


def our_gpt(model: Xtts, precision: Precision = EXACT, *, slots: int = 4) -> Gpt:
    tensors = {name: value.detach() for name, value in model.gpt.state_dict().items()}
    weights = {
        name: value.T.contiguous() if name.startswith("gpt.h.") and value.ndim == 2 else value
        for name, value in tensors.items()
    }
    args = model.args
    sizes = GptSizes(
        layers=args.gpt_layers,
        width=args.gpt_n_model_channels,
        heads=args.gpt_n_heads,
        max_codes=weights["mel_pos_embedding.emb.weight"].shape[0],
        max_text=weights["text_pos_embedding.emb.weight"].shape[0],
        codes=args.gpt_num_audio_tokens,
        start_code=args.gpt_start_audio_token,
        stop_code=args.gpt_stop_audio_token,
        start_text=model.gpt.start_text_token,
        stop_text=model.gpt.stop_text_token,
    )
    return Gpt(weights, sizes, slots=slots, precision=precision)


def voice(model: Xtts) -> Tensor:
    """gpt_latents [32, width]"""
    return torch.randn(32, model.args.gpt_n_model_channels, generator=torch.Generator().manual_seed(3))


def reference(model: Xtts, text: Sequence[int], how: dict[str, Any]) -> tuple[list[int], Tensor]:
    """Codes and latents as coqui streams them; torch's global generator makes its draws."""
    torch.manual_seed(0)
    fake = model.gpt.compute_embeddings(voice(model)[None], torch.tensor([list(text)]))
    steps = model.gpt.get_generator(
        fake, do_sample=True, output_hidden_states=True, return_dict_in_generate=True, **how
    )
    codes, latents = zip(*((int(code), row[0]) for code, row in steps), strict=True)
    return list(codes), torch.stack(latents)


def ours(
    gpt: Gpt,
    model: Xtts,
    text: Sequence[int],
    how: dict[str, Any],
    *,
    score: Score = scores_of,
    count: int = CODES,
) -> tuple[list[int], Tensor]:
    """The same with our parts, fed the draws that torch.multinomial makes of the same generator."""
    torch.manual_seed(0)
    slot, rows = 2, 3
    latents, logits = gpt.prefill([text], [gpt.prefix(voice(model))], [slot])
    seen = torch.zeros(1, gpt.sizes.codes, dtype=torch.bool)
    seen[0, [1, gpt.sizes.start_code]] = True
    last, counts = torch.zeros(rows, dtype=torch.int64), torch.zeros(rows, dtype=torch.int64)
    lengths = torch.full((rows,), 32 + len(text) + 3)
    sampling = SamplingRows.of([Sampling(**how)], torch.device("cpu"))
    codes, drawn = [], []
    for place in range(count):
        scores = score(logits[-1:], seen=seen, sampling=sampling)
        codes.append(int(draw(scores, torch.empty_like(scores).exponential_())))
        drawn.append(latents[-1])
        seen[0, codes[-1]] = True
        last[slot], counts[slot] = codes[-1], place + 1
        latents, logits = gpt.decode(last, counts=counts, lengths=lengths, span=256)
        lengths += 1
    return codes, torch.stack(drawn)


@pytest.mark.parametrize("how", [SAMPLED, GREEDY], ids=["sampled", "greedy"])
@pytest.mark.parametrize("text", TEXTS, ids=len)
def test_a_hundred_codes_are_coquis_and_so_are_their_latents(coqui: Xtts, text: list[int], how: dict[str, Any]) -> None:
    codes, latents = reference(coqui, text, how)
    our_codes, our_latents = ours(our_gpt(coqui), coqui, text, how)
    assert len(codes) == CODES
    assert our_codes == codes
    torch.testing.assert_close(our_latents, latents, atol=5e-5, rtol=0)


def temperature_last(logits: Tensor, *, seen: Tensor, sampling: SamplingRows) -> Tensor:
    """Penalty and temperature are both factors of a score, so their order cannot show; that of top-p does."""
    neutral = sampling._replace(temperature=torch.ones(1))
    return scores_of(logits, seen=seen, sampling=neutral) / sampling.temperature[:, None]


def no_penalty(logits: Tensor, *, seen: Tensor, sampling: SamplingRows) -> Tensor:
    return scores_of(logits, seen=torch.zeros_like(seen), sampling=sampling)


@pytest.mark.parametrize("score", [temperature_last, no_penalty])
def test_a_sampler_with_another_rule_is_noticed(coqui: Xtts, score: Score) -> None:
    codes, _ = reference(coqui, TEXTS[0], SAMPLED)
    assert ours(our_gpt(coqui), coqui, TEXTS[0], SAMPLED, score=score)[0] != codes


def test_prompts_filled_together_are_those_filled_alone(coqui: Xtts) -> None:
    together, alone = our_gpt(coqui), our_gpt(coqui)
    prefix = together.prefix(voice(coqui))
    latents, logits = together.prefill(TEXTS, [prefix] * 3, [2, 0, 1])
    for number, (text, slot) in enumerate(zip(TEXTS, [2, 0, 1], strict=True)):
        one_latents, one_logits = alone.prefill([text], [prefix], [slot])
        torch.testing.assert_close(latents[number], one_latents[0], atol=5e-5, rtol=0)
        torch.testing.assert_close(logits[number], one_logits[0], atol=5e-5, rtol=0)


def test_in_8_bits_no_neighbour_changes_a_bit(coqui: Xtts) -> None:
    """Rounding to 8 bits makes 1 % of the last bit that padding a prompt would change."""
    precision = choose_precision("fast", torch.device("cpu"))
    together, alone = our_gpt(coqui, precision), our_gpt(coqui, precision)
    prefix, codes = together.prefix(voice(coqui)), torch.tensor([7, 8, 9])
    counts, lengths = torch.zeros(3, dtype=torch.int64), torch.tensor([prompt_positions(text) for text in TEXTS])
    filled = together.prefill(TEXTS, [prefix] * 3, [0, 1, 2])
    decoded = together.decode(codes, counts=counts, lengths=lengths, span=512)
    for row, text in enumerate(TEXTS):
        own = slice(row, row + 1)
        one_filled = alone.prefill([text], [prefix], [0])
        one_decoded = alone.decode(codes[own], counts=counts[own], lengths=lengths[own], span=96)
        for ours, one in zip((*filled, *decoded), (*one_filled, *one_decoded), strict=True):
            torch.testing.assert_close(ours[own], one, atol=0.0 if precision.name == "int8" else 5e-5, rtol=0)


def lively(model: Xtts, codes: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """Latents [codes, width] and an embedding [512] that the random vocoder does not answer with a constant."""
    generator = torch.Generator().manual_seed(seed)
    latents = torch.randn(codes, model.hifigan_decoder.waveform_decoder.conv_pre.in_channels, generator=generator)
    return 2 * latents, torch.nn.functional.normalize(torch.randn(512, generator=generator), dim=0)


def cuts(codes: int) -> Iterator[tuple[int, bool]]:
    for stop in (*(edge for edge in (8, 20, 40, 90, 150) if edge < codes), codes):
        yield stop, stop == codes


def our_vocoder(model: Xtts, *, dtype: torch.dtype = torch.float32) -> Vocoder:
    weights = {name: tensor.detach() for name, tensor in model.hifigan_decoder.waveform_decoder.state_dict().items()}
    generator = Generator(weights, dtype=dtype)
    return Vocoder(generator, frames_per_latent=4, resampling=24_000 / 22_050)


@pytest.mark.parametrize("speed", [1.0, 1.3])
def test_windows_of_several_utterances_together_equal_coquis_whole(coqui: Xtts, speed: float) -> None:
    decoder = coqui.hifigan_decoder
    vocoder = our_vocoder(coqui)
    speech = [lively(coqui, codes, seed=codes) for codes in (1, 33, 61, 110)]
    waves: list[list[Tensor]] = [[] for _ in speech]
    plans = [list(cuts(len(latents))) for latents, _ in speech]
    for turn in range(max(map(len, plans))):
        pieces, owners = [], []
        for number, (latents, embedding) in enumerate(speech):
            if turn < len(plans[number]):
                stop, last = plans[number][turn]
                done = sum(map(len, waves[number])) // HOP
                pieces.append(Piece(latents[:stop], done, last, embedding, speed))
                owners.append(number)
        for owner, wave in zip(owners, vocoder.decode(pieces), strict=True):
            waves[owner].append(wave)
    for (latents, embedding), parts in zip(speech, waves, strict=True):
        with torch.inference_mode():
            whole = decoder(stretched(latents.T, 1 / speed).T[None], g=embedding[None, :, None])[0, 0]
        assert whole.std() > 0.005
        torch.testing.assert_close(torch.cat(parts), whole, atol=5e-5, rtol=0)


def test_a_vocoder_in_bfloat16_is_as_far_off_as_its_documentation_says(coqui: Xtts) -> None:
    latents, embedding = lively(coqui, 40, seed=1)
    piece = Piece(latents, 0, True, embedding, 1.0)
    exact, rounded = (our_vocoder(coqui, dtype=dtype).decode([piece])[0] for dtype in (torch.float32, torch.bfloat16))
    noise_db = 10 * ((rounded - exact).pow(2).mean() / exact.pow(2).mean()).log10()
    assert rounded.dtype == torch.float32
    assert -60 < noise_db < -36


def test_noise_is_exponential_and_a_function_of_seed_and_position_alone() -> None:
    seeds, places = torch.tensor([0, 1, 2**32 - 1]), torch.tensor([0, 5, 601])
    noise = exponential_noise(seeds, places, codes=1026)
    for row in range(3):
        alone = exponential_noise(seeds[row : row + 1], places[row : row + 1], codes=1026)
        assert torch.equal(alone[0], noise[row])
    many = exponential_noise(torch.arange(2000), torch.arange(2000) % 7, codes=1026).flatten().sort().values
    uniform = 1 - torch.exp(-many.double())
    ideal = torch.linspace(0, 1, len(many), dtype=torch.float64)
    assert (uniform - ideal).abs().max() < 0.002  # Kolmogorov-Smirnov distance of two million draws
    assert many[0] > 0


def test_settled_outputs_are_what_more_input_does_not_change() -> None:
    values = torch.randn(1, 60)
    for scale in (4.0, 24000 / 22050, 0.7, 1.3):
        whole = stretched(values, scale)
        for count in range(1, 60):
            settled = settled_outputs(count, scale)
            torch.testing.assert_close(stretched(values[:, :count], scale)[:, :settled], whole[:, :settled])
