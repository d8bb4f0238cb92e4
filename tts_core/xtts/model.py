"""An XTTS-v2 model in memory: every tensor checked against config.json, on its device, in its precision."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from tts_core.errors import StartupError
from tts_core.xtts import files, hifigan
from tts_core.xtts.config import Config, read_config
from tts_core.xtts.gpt import PREFIX_POSITIONS, GptSizes
from tts_core.xtts.linear import SCALE, prepacked_int8
from tts_core.xtts.precision import EXACT, Precision
from tts_core.xtts.speaker_encoder import EMBEDDING_WIDTH, SpeakerEncoder
from tts_core.xtts.vocoder import Vocoder
from tts_core.xtts.voice_encoder import Conditioner, Listening, VoiceEncoder
from tts_core.xtts.voice_encoder import Voice as Voice
from tts_core.xtts.weights import RANDOM_WEIGHTS_MARK

VOCODER = "hifigan_decoder.waveform_decoder."

SPEAKERS_FILE = "speakers.safetensors"

MAX_NAMES = 20
"""Of tensors in an error: a model of another depth has hundreds."""


@dataclass(frozen=True, slots=True, eq=False)
class XttsModel:
    """Everything that speaking needs.

    gpt             by the official names without the first `gpt.`, matrices [out, in]; on the device
    voices          float32, on the device
    speakers        by the names of the file, in its order; on the CPU
    fingerprint     changes with weights, config, vocabulary or speakers; not with precision, nor with conversion
    is_random       the weights speak noise
    """

    sizes: GptSizes
    gpt: Mapping[str, Tensor]
    vocoder: Vocoder
    voices: VoiceEncoder
    tokenizer: Tokenizer
    speakers: Mapping[str, Voice]
    sample_rate_hz: int
    fingerprint: str
    is_random: bool


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A model without weights: what a folder's config.json and vocab.json say of it."""

    config: Config
    tokenizer: Tokenizer
    sizes: GptSizes
    speaker_encoder: SpeakerEncoder
    conditioner: Conditioner

    def modules(self) -> dict[str, nn.Module]:
        """By what the official names of their tensors start with."""
        return {"hifigan_decoder.speaker_encoder.": self.speaker_encoder, "gpt.": self.conditioner}

    def wanted(self, dtype: torch.dtype, *, int8: bool = False) -> dict[str, Tensor]:
        """Shape and type of each tensor, by official name; the values mean nothing.

        dtype  of the GPT, where int8 does not take its matrices
        """
        tensors = {name: _shaped(shape, dtype) for name, shape in self._gpt_shapes().items()}
        if int8:
            matrices = [name for name in tensors if is_matrix(name)]
            tensors |= {name + SCALE: _shaped(tensors[name].shape[:1], dtype) for name in matrices}
            tensors |= {name: _shaped(tensors[name].shape, torch.int8) for name in matrices}
        tensors |= {VOCODER + name: _shaped(shape, torch.float32) for name, shape in self._vocoder_shapes().items()}
        for prefix, module in self.modules().items():
            tensors |= {_official(prefix + name): tensor for name, tensor in module.state_dict().items()}
        return tensors

    def fill(self, tensors: Mapping[str, Tensor]) -> None:
        """The modules with the tensors of their names."""
        for prefix, module in self.modules().items():
            named = {name: tensors[_official(prefix + name)] for name in module.state_dict()}
            module.load_state_dict(named, strict=True, assign=True)
            module.eval().requires_grad_(False)

    def gpt(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        names = self._gpt_shapes()
        return {
            name.removeprefix("gpt."): tensor for name, tensor in tensors.items() if name.removesuffix(SCALE) in names
        }

    def vocoder(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Vocoder:
        config = self.config
        weights = {name: tensors[VOCODER + name] for name in self._vocoder_shapes()}
        return Vocoder(
            hifigan.Generator(weights, dtype=dtype),
            frames_per_latent=config.gpt_code_stride_len / config.output_hop_length,
            resampling=config.output_sample_rate / config.input_sample_rate,
        )

    def _gpt_shapes(self) -> dict[str, tuple[int, ...]]:
        return gpt_shapes(self.sizes, text_ids=max(self.tokenizer.get_vocab().values()) + 1)

    def _vocoder_shapes(self) -> dict[str, tuple[int, ...]]:
        config = self.config
        return hifigan.generator_shapes(
            latent_width=config.decoder_input_dim,
            embedding_width=config.d_vector_dim,
            conditioned=config.cond_d_vector_in_each_upsampling_layer,
        )


@dataclass(frozen=True, slots=True, eq=False)
class OpenModel:
    """A folder that was looked into: what the model is called is known, and its weights are still to be read.

    saved        tensors by official name, paged in from their file when they are first touched
    digest       of the official file they are or were in
    speakers, fingerprint, is_random    as `XttsModel` has them
    """

    folder: Path
    plan: Plan
    saved: Mapping[str, Tensor]
    digest: str
    is_int8: bool
    precision: Precision
    speakers: Mapping[str, Voice]
    fingerprint: str
    is_random: bool

    @property
    def sample_rate_hz(self) -> int:
        return self.plan.config.output_sample_rate

    def load(self, device: torch.device) -> XttsModel:
        """raises StartupError if the weights do not fit config.json, or one is not finite"""
        plan = self.plan
        tensors = place(self.saved, plan.wanted(self.precision.dtype, int8=self.is_int8), device)
        plan.fill(tensors)
        return XttsModel(
            sizes=plan.sizes,
            gpt=plan.gpt(tensors) | self._packed(),
            vocoder=plan.vocoder(tensors, self.precision.vocoder),
            voices=VoiceEncoder(plan.conditioner, plan.speaker_encoder, _listening(plan.config)),
            tokenizer=plan.tokenizer,
            speakers=self.speakers,
            sample_rate_hz=self.sample_rate_hz,
            fingerprint=self.fingerprint,
            is_random=self.is_random,
        )

    def _packed(self) -> dict[str, Tensor]:
        is_wanted = self.is_int8 and self.precision.linear is prepacked_int8
        return files.open_packed(self.folder, weights_digest=self.digest) if is_wanted else {}


def open_model(folder: Path, *, precision: Precision = EXACT) -> OpenModel:
    """Look into a folder that `checkpoint convert` made, or an official one.

    precision  a converted file of its name is taken, else one of float32
    raises     StartupError if a file cannot be read or names code
    """
    plan = make_plan(folder)
    saved, digest, is_int8 = _saved(folder, precision.name)
    speakers = load_speakers(folder, plan.sizes)
    is_random = (folder / RANDOM_WEIGHTS_MARK).is_file()
    fingerprint = _fingerprint(folder, digest, speakers) + ("-random-weights" if is_random else "")
    return OpenModel(folder, plan, saved, digest, is_int8, precision, speakers, fingerprint, is_random)


def load_model(folder: Path, *, device: torch.device, precision: Precision = EXACT) -> XttsModel:
    """raises StartupError as `open_model` and `OpenModel.load`"""
    return open_model(folder, precision=precision).load(device)


def make_plan(folder: Path) -> Plan:
    """raises StartupError if config.json or vocab.json cannot be read or is not of an XTTS-v2"""
    config, tokenizer = read_config(folder), files.read_tokenizer(folder)
    if config.output_hop_length != hifigan.HOP:
        raise StartupError(f"config.json: output_hop_length is not {hifigan.HOP}, as the vocoder of XTTS-v2 has it")
    with files.NoRandomFill():
        conditioner = Conditioner(width=config.gpt_n_model_channels, heads=config.gpt_n_heads)
        speaker_encoder = SpeakerEncoder()
    return Plan(config, tokenizer, gpt_sizes(config, tokenizer), speaker_encoder, conditioner)


def gpt_sizes(config: Config, tokenizer: Tokenizer) -> GptSizes:
    """The vocabulary decides on the text's tokens, whatever config.json says: so does coqui."""
    ids = tokenizer.get_vocab()
    return GptSizes(
        layers=config.gpt_layers,
        width=config.gpt_n_model_channels,
        heads=config.gpt_n_heads,
        max_codes=config.gpt_max_audio_tokens + 3,  # start, stop, and one that coqui's class reserves
        max_text=config.gpt_max_text_tokens + 2,
        codes=config.gpt_num_audio_tokens,
        start_code=config.gpt_start_audio_token,
        stop_code=config.gpt_stop_audio_token,
        start_text=ids["[START]"],
        stop_text=ids["[STOP]"],
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


def is_matrix(name: str) -> bool:
    """Whether it is one of those that reading takes most of the time of a decode step."""
    return name == "gpt.mel_head.weight" or files.TRANSPOSED.fullmatch(name) is not None


def _shaped(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    return torch.empty(tuple(shape), dtype=dtype, device="meta")


def _official(name: str) -> str:
    """The one tensor whose official name does not start like those of its module's others."""
    return "mel_stats" if name == "gpt.mel_stats" else name


def place(saved: Mapping[str, Tensor], wanted: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Each tensor on the device and in the precision it is wanted in; `saved` is left as it is.

    raises  StartupError that names tensors missing, unexpected, of another shape, or with values that are not finite
    """
    misshapen = [
        f"{name} is {_kind(saved[name])}, not {_kind(tensor)}"
        for name, tensor in wanted.items()
        if name in saved and _kind(saved[name]) != _kind(tensor)
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


def _kind(tensor: Tensor) -> str:
    """`[1024, 4096]`: shape, and whether it is of whole numbers, which no conversion may hide."""
    return f"{[*tensor.shape]}{'' if tensor.is_floating_point() else ' int'}"


def _refuse(faults: Mapping[str, list[str]]) -> None:
    said = [f"{what} {_some(names)}" for what, names in faults.items() if names]
    if said:
        raise StartupError(f"the weights of the XTTS-v2 model {'; '.join(said)}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _not_finite(tensors: Mapping[str, Tensor]) -> Iterator[str]:
    """Reads each value once, makes no copy, and waits for the device once; a NaN is both least and greatest."""
    floats = {name: tensor for name, tensor in tensors.items() if tensor.is_floating_point()}
    extremes = [torch.stack(tensor.aminmax()).float() for tensor in floats.values()]
    finite = torch.stack(extremes).isfinite().all(dim=1).tolist()
    return (name for name, is_finite in zip(floats, finite, strict=True) if not is_finite)


def _saved(folder: Path, precision: str) -> tuple[dict[str, Tensor], str, bool]:
    """Tensors by official name, the digest of the official file they are or were in, and if matrices are in 8 bits."""
    path = files.converted_file(folder, precision)
    if path is None:
        return files.open_official(folder), files.weights_digest(folder), False
    tensors, metadata = files.open_converted(path)
    if "weights_digest" not in metadata:
        raise StartupError(f"{path.name} was not made by this worker's `convert`")
    return tensors, metadata["weights_digest"], path.name == "xtts-int8.safetensors"


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
            for name, tensors in files.load_speakers(folder).items()
        }
    except (AttributeError, LookupError, TypeError) as exc:
        raise StartupError(f"speakers_xtts.pth does not hold voices ({type(exc).__name__})") from exc


def _converted_speakers(path: Path) -> dict[str, Voice]:
    tensors, metadata = files.open_converted(path)
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
