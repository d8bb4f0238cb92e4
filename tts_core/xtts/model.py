"""An XTTS-v2 model in memory: every tensor checked against config.json, on its device, in its precision."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from TTS.encoder.models.resnet import ResNetSpeakerEncoder
from TTS.tts.layers.xtts.hifigan_decoder import HifiDecoder
from TTS.tts.layers.xtts.tokenizer import VoiceBpeTokenizer

from tts_core.errors import StartupError
from tts_core.xtts import checkpoint
from tts_core.xtts.config import Config, read_config
from tts_core.xtts.gpt import PREFIX_POSITIONS, GptSizes
from tts_core.xtts.voice_encoder import Conditioner, Listening, VoiceEncoder
from tts_core.xtts.voice_encoder import Voice as Voice
from tts_core.xtts.weights import RANDOM_WEIGHTS_MARK

EMBEDDING_WIDTH = 512
"""Of a speaker, in every XTTS."""

SPEAKERS_FILE = "speakers.safetensors"

MAX_NAMES = 20
"""Of tensors in an error: a model of another depth has hundreds."""


@dataclass(frozen=True, slots=True, eq=False)
class XttsModel:
    """Everything that speaking needs.

    gpt             by the official names without the first `gpt.`, matrices [out, in]; on the device, in `precision`
    vocoder         weight norm folded, without its speaker encoder; float32, on the device
    voices          float32, on the device
    speakers        by the names of the file, in its order; on the CPU
    fingerprint     changes with weights, config, vocabulary or speakers; not with precision, nor with conversion
    is_random       the weights speak noise
    """

    sizes: GptSizes
    gpt: Mapping[str, Tensor]
    vocoder: HifiDecoder
    voices: VoiceEncoder
    tokenizer: VoiceBpeTokenizer
    speakers: Mapping[str, Voice]
    sample_rate_hz: int
    fingerprint: str
    is_random: bool


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A model without weights: what a folder's config.json and vocab.json say of it."""

    config: Config
    tokenizer: VoiceBpeTokenizer
    sizes: GptSizes
    vocoder: HifiDecoder
    speaker_encoder: ResNetSpeakerEncoder
    conditioner: Conditioner

    def modules(self) -> dict[str, nn.Module]:
        """By what the official names of their tensors start with."""
        return {
            "hifigan_decoder.waveform_decoder.": self.vocoder.waveform_decoder,
            "hifigan_decoder.speaker_encoder.": self.speaker_encoder,
            "gpt.": self.conditioner,
        }

    def wanted(self, precision: torch.dtype) -> dict[str, Tensor]:
        """Shape and type of each tensor, by official name; the values mean nothing. `precision` is of the GPT."""
        shapes = gpt_shapes(self.sizes, text_ids=self.tokenizer.get_number_tokens())
        tensors = {name: torch.empty(shape, dtype=precision, device="meta") for name, shape in shapes.items()}
        for prefix, module in self.modules().items():
            tensors |= {_official(prefix + name): tensor for name, tensor in module.state_dict().items()}
        return tensors


def load_model(folder: Path, *, device: torch.device, precision: torch.dtype = torch.float32) -> XttsModel:
    """Read a folder that `convert` made, or an official one.

    precision  of the GPT; a converted file of that precision is taken, else one of float32
    raises     StartupError if a file cannot be read, names code, or does not fit config.json, or a weight is not finite
    """
    plan = make_plan(folder)
    saved, digest = _saved(folder, precision)
    speakers = load_speakers(folder, plan.sizes)
    tensors = place(saved, plan.wanted(precision), device)
    _fill(plan, tensors)
    is_random = (folder / RANDOM_WEIGHTS_MARK).is_file()
    return XttsModel(
        sizes=plan.sizes,
        gpt={name.removeprefix("gpt."): tensors[name] for name in gpt_shapes(plan.sizes, text_ids=0)},
        vocoder=plan.vocoder,
        voices=VoiceEncoder(plan.conditioner, plan.speaker_encoder, _listening(plan.config)),
        tokenizer=plan.tokenizer,
        speakers=speakers,
        sample_rate_hz=plan.config.output_sample_rate,
        fingerprint=_fingerprint(folder, digest, speakers) + ("-random-weights" if is_random else ""),
        is_random=is_random,
    )


def make_plan(folder: Path) -> Plan:
    """raises StartupError if config.json or vocab.json cannot be read or is not of an XTTS-v2"""
    config, tokenizer = read_config(folder), checkpoint.read_tokenizer(folder)
    with checkpoint.NoRandomFill():  # not on `meta`: the speaker encoder computes a table on the way
        conditioner = Conditioner(width=config.gpt_n_model_channels, heads=config.gpt_n_heads)
        vocoder = HifiDecoder(
            input_sample_rate=config.input_sample_rate,
            output_sample_rate=config.output_sample_rate,
            output_hop_length=config.output_hop_length,
            ar_mel_length_compression=config.gpt_code_stride_len,
            decoder_input_dim=config.decoder_input_dim,
            d_vector_dim=config.d_vector_dim,
            cond_d_vector_in_each_upsampling_layer=config.cond_d_vector_in_each_upsampling_layer,
        )
    speaker_encoder = vocoder.speaker_encoder
    del vocoder.speaker_encoder
    for part in vocoder.modules():
        if parametrize.is_parametrized(part, "weight"):
            parametrize.remove_parametrizations(part, "weight")
    return Plan(config, tokenizer, gpt_sizes(config, tokenizer), vocoder, speaker_encoder, conditioner)


def gpt_sizes(config: Config, tokenizer: VoiceBpeTokenizer) -> GptSizes:
    """The vocabulary decides on the text's tokens, whatever config.json says: so does coqui."""
    return GptSizes(
        layers=config.gpt_layers,
        width=config.gpt_n_model_channels,
        heads=config.gpt_n_heads,
        max_codes=config.gpt_max_audio_tokens + 3,  # start, stop, and one that coqui's class reserves
        max_text=config.gpt_max_text_tokens + 2,
        codes=config.gpt_num_audio_tokens,
        start_code=config.gpt_start_audio_token,
        stop_code=config.gpt_stop_audio_token,
        start_text=tokenizer.tokenizer.token_to_id("[START]"),
        stop_text=tokenizer.tokenizer.token_to_id("[STOP]"),
    )


def gpt_shapes(sizes: GptSizes, *, text_ids: int) -> dict[str, tuple[int, ...]]:
    """Of the decoder's tensors, by official name."""
    width = sizes.width
    shapes = {
        "gpt.text_embedding.weight": (text_ids, width),
        "gpt.text_pos_embedding.emb.weight": (sizes.max_text, width),
        "gpt.mel_embedding.weight": (sizes.codes, width),
        "gpt.mel_pos_embedding.emb.weight": (sizes.max_codes, width),
        **_pair("gpt.gpt.ln_f", width),
        **_pair("gpt.final_norm", width),
        **_pair("gpt.mel_head", sizes.codes, width),
    }
    for layer in (f"gpt.gpt.h.{number}." for number in range(sizes.layers)):
        shapes |= _pair(layer + "ln_1", width) | _pair(layer + "ln_2", width)
        shapes |= _pair(layer + "attn.c_attn", 3 * width, width) | _pair(layer + "attn.c_proj", width, width)
        shapes |= _pair(layer + "mlp.c_fc", 4 * width, width) | _pair(layer + "mlp.c_proj", width, 4 * width)
    return shapes


def _pair(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _official(name: str) -> str:
    """The one tensor whose official name does not start like those of its module's others."""
    return "mel_stats" if name == "gpt.mel_stats" else name


def place(saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Each tensor on the device and in the precision it is wanted in; `saved` is left as it is.

    raises  StartupError that names tensors missing, unexpected, of another shape, or with values that are not finite
    """
    misshapen = [
        f"{name} is {[*saved[name].shape]}, not {[*tensor.shape]}"
        for name, tensor in wanted.items()
        if name in saved and saved[name].shape != tensor.shape
    ]
    _refuse(
        {
            "lack": [name for name in wanted if name not in saved],
            "have unexpected": [name for name in saved if name not in wanted],
            "do not fit config.json:": misshapen,
        }
    )
    placed = {name: saved[name].to(device, tensor.dtype).contiguous() for name, tensor in wanted.items()}
    _refuse({"are not finite:": list(_not_finite(placed))})
    return placed


def _refuse(faults: Mapping[str, list[str]]) -> None:
    said = [f"{what} {_some(names)}" for what, names in faults.items() if names]
    if said:
        raise StartupError(f"the weights of the XTTS-v2 model {'; '.join(said)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _not_finite(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Reads each value once, makes no copy, and waits for the device once; a NaN is both least and greatest."""
    extremes = [torch.stack(tensor.aminmax()).float() for tensor in tensors.values()]
    finite = torch.stack(extremes).isfinite().all(dim=1).tolist()
    return (name for name, is_finite in zip(tensors, finite, strict=True) if not is_finite)


def _saved(folder: Path, precision: torch.dtype) -> tuple[dict[str, Tensor], str]:
    """Tensors by official name, and the digest of the official file they are or were in."""
    path = checkpoint.converted_file(folder, precision)
    if path is None:
        return checkpoint.open_official(folder), checkpoint.weights_digest(folder)
    tensors, metadata = checkpoint.open_converted(path)
    if "weights_digest" not in metadata:
        raise StartupError(f"{path.name} was not made by this worker's `convert`")
    return tensors, metadata["weights_digest"]


def _fill(plan: Plan, tensors: Mapping[str, Tensor]) -> None:
    for prefix, module in plan.modules().items():
        module.load_state_dict(
            {name: tensors[_official(prefix + name)] for name in module.state_dict()}, strict=True, assign=True
        )
        module.eval().requires_grad_(False)
    plan.vocoder.eval()


def _listening(config: Config) -> Listening:
    return Listening(
        clip_s=config.max_ref_len,
        latents_s=config.gpt_cond_len,
        chunk_s=config.gpt_cond_chunk_len,
        loudness=config.sound_norm_refs,
    )


def load_speakers(folder: Path, sizes: GptSizes) -> dict[str, Voice]:
    """The built-in voices, from either kind of file; none if there is none."""
    path = folder / SPEAKERS_FILE
    voices = _converted_speakers(path) if path.is_file() else _official_speakers(folder)
    for name, voice in voices.items():
        shapes = (tuple(voice.gpt_latents.shape), tuple(voice.speaker_embedding.shape))
        if shapes != ((PREFIX_POSITIONS, sizes.width), (EMBEDDING_WIDTH,)):
            raise StartupError(f"the built-in voice {name!r} does not fit the model: {shapes}")
        if not (voice.gpt_latents.isfinite().all() and voice.speaker_embedding.isfinite().all()):
            raise StartupError(f"the built-in voice {name!r} has values that are not finite")
    return voices


def _official_speakers(folder: Path) -> dict[str, Voice]:
    try:
        return {
            str(name): Voice(
                gpt_latents=tensors["gpt_cond_latent"].detach().float()[0],
                speaker_embedding=tensors["speaker_embedding"].detach().float().flatten(),
            )
            for name, tensors in checkpoint.load_speakers(folder).items()
        }
    except (AttributeError, LookupError, TypeError) as exc:
        raise StartupError(f"speakers_xtts.pth does not hold voices ({type(exc).__name__})") from exc


def _converted_speakers(path: Path) -> dict[str, Voice]:
    tensors, metadata = checkpoint.open_converted(path)
    try:
        columns = zip(json.loads(metadata["names"]), tensors["gpt_latents"], tensors["speaker_embeddings"], strict=True)
        return {name: Voice(latents, embedding) for name, latents, embedding in columns}
    except (KeyError, ValueError, TypeError) as exc:
        raise StartupError(f"{path.name} does not hold voices ({type(exc).__name__})") from exc


def _fingerprint(folder: Path, weights_digest: str, speakers: Mapping[str, Voice]) -> str:
    digest = hashlib.sha256(weights_digest.encode())
    for name in ("config.json", "vocab.json"):
        digest.update(hashlib.sha256((folder / name).read_bytes()).digest())
    for name, voice in speakers.items():
        digest.update(hashlib.sha256(name.encode()).digest())
        for tensor in (voice.gpt_latents, voice.speaker_embedding):
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
