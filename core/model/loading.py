"""Loads base models and tokenizers from folders in transformers' format.

A run that starts from random weights first writes them to a folder (`create_base`) and loads that. So loading
is the same in every run and at every ZeRO stage, and the base is kept for deltas and comparisons.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from core.config.schema import ModelConfig
from core.errors import UserError
from core.model import activation_checkpointing, lora, loss_head, proof, varlen_attention
from core.model import weight_files as weights
from core.model.location import check_location
from core.provenance import manifest

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def load_tokenizer(path: str) -> "PreTrainedTokenizerBase":
    """The tokenizer of a folder (or hub id); it must have an end-of-sequence token.

    A tokenizer's own code is never run: what makes a corpus must be reproducible from its files.
    """
    from transformers import AutoTokenizer

    check_location(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        if "trust_remote_code" in str(error):
            raise UserError(
                f"{path}: the tokenizer has its own code, which is not run. Convert it to a tokenizer.json."
            ) from None
        raise UserError(f"{path}: the tokenizer cannot be loaded: {first_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"{path}: the tokenizer has no end-of-sequence token, which every document must end with."
        )
    loaded: PreTrainedTokenizerBase = tokenizer
    return loaded


def create_base(config: ModelConfig, tokenizer: "PreTrainedTokenizerBase", folder: Path) -> bool:
    """Write a model with random weights and the tokenizer to `folder`; False if it already exists.

    `vocab_size` is the tokenizer's, rounded up to a multiple of 64, unless the architecture sets it.
    """
    from transformers import AutoModelForCausalLM

    assert config.architecture is not None
    settings = {"architecture": config.architecture, "seed": config.seed, "tokenizer_size": len(tokenizer)}
    advice = "Set another run_dir, or remove that folder to start from new random weights."
    if manifest.up_to_date(folder, config=settings, inputs={}, advice=advice):
        return False
    keys = {"vocab_size": -(-len(tokenizer) // 64) * 64} | config.architecture
    keys |= {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    described = architecture(keys)
    try:
        torch.manual_seed(config.seed)
        model = AutoModelForCausalLM.from_config(described)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"model.architecture: transformers cannot build this model: {first_line(error)}"
        ) from None
    with manifest.build(folder, step="base", config=settings, inputs={}) as built:
        model.save_pretrained(built.path)
        tokenizer.save_pretrained(built.path)
        built.counts["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    return True


def architecture(keys: Mapping[str, Any]) -> Any:
    """The configuration with these keys; UserError if transformers has none."""
    from transformers import AutoConfig

    try:
        return AutoConfig.for_model(**keys)
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"model.architecture: transformers cannot build this model: {first_line(error)}"
        ) from None


def load_config(path: str, *, trust: bool = False) -> Any:
    """The configuration of a folder (or hub id); with `trust`, the model's own code is run."""
    from transformers import AutoConfig

    check_location(path)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust)
    except (OSError, ValueError, KeyError) as error:
        _refuse_code(path, error)
        raise UserError(f"{path}: the model configuration cannot be read: {first_line(error)}") from None


def _refuse_code(path: str, error: Exception) -> None:
    """UserError if transformers needs the model's own code, which it was not allowed to run."""
    if "trust_remote_code" in str(error):
        raise UserError(
            f"{path}: this model has code of its own, which is run in training only, if you trust it: read"
            " its .py files, then set model.trust_remote_code=true."
        ) from None


def remarks(described: Any, config: ModelConfig, longest: int, *, begun: bool = False) -> Iterator[str]:
    """What to know about training a model of this configuration, whose documents have up to `longest` tokens;
    UserError if it cannot be trained, or was not made for that many, unless the run has `begun` with them."""
    way = proof.prove(described, config.attention, trust=config.trust_remote_code)
    if way.why:
        slower = f", slower than {config.attention}" if way.attention != config.attention else ""
        yield (
            f"{described.model_type}: trained with its own attention, {way.attention}, one document"
            f" a row{slower}: {way.why}."
        )
    text = described.get_text_config()
    positions = getattr(text, "max_position_embeddings", None)
    if way.positions is not None and longest > way.positions:
        raise UserError(
            f"{config.path or 'model.architecture'}: the model has {way.positions:,} learnt positions, but"
            f" samples have {longest:,} tokens. Set their length (sequence_length or data.max_tokens) to"
            f" {way.positions}."
        )
    if isinstance(positions, int) and 0 < positions < longest:
        if getattr(text, "rope_parameters", None) and not begun:
            named = config.path or "model.architecture"
            way_out = (
                f"python -m pretrain lengthen --base {config.path} --output DIR --rope yarn"
                f" --max-position-embeddings {longest}\nand set model.path=DIR;"
                if config.path
                else f"set model.architecture.max_position_embeddings={longest};"
            )
            raise UserError(
                f"{named}: the model was made for {positions:,} tokens (max_position_embeddings), but samples"
                f" have {longest:,}. To stretch its positions:\n{way_out} or set the length of samples"
                f" (sequence_length or data.max_tokens) to {positions}."
            )
        yield (
            f"samples have {longest:,} tokens, more than the {positions:,} positions that the model was made"
            " for (max_position_embeddings): it learns the later ones from these data alone."
        )


def check_vocabulary(path: str, tokenizer: "PreTrainedTokenizerBase", *, trust: bool = False) -> None:
    """UserError if the corpus's tokenizer differs from the model's, or has ids beyond its embedding."""
    rows = load_config(path, trust=trust).get_text_config().vocab_size
    vocabulary = tokenizer.get_vocab()
    own = own_tokenizer(path)
    if own is not None and own.get_vocab() != vocabulary:
        raise UserError(
            f"the corpus was tokenised with another tokenizer ({len(tokenizer):,} tokens) than that of {path}"
            f" ({len(own):,} tokens). Set data.tokenizer.path={path}."
        )
    largest = max(vocabulary.values())
    if largest >= rows:
        raise UserError(
            f"the tokenizer has ids up to {largest}, but the embedding of {path} has {rows} rows. Use the"
            " model's tokenizer, or extend the model's vocabulary first."
        )


def own_tokenizer(path: str) -> "PreTrainedTokenizerBase | None":
    """The tokenizer in a model's folder; None if it has none, or there is no folder."""
    files = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
    return load_tokenizer(path) if any((Path(path) / name).is_file() for name in files) else None


def load_model(path: str, config: ModelConfig, dtype: torch.dtype, device: torch.device | None = None) -> Any:
    """The model in `path`, ready for training, in `dtype`; UserError if it cannot be loaded.

    On a GPU as `device`, the host maps the files, which processes share, and holds one weight at a time: a
    whole model in another dtype than its files' would be a copy for each process. ZeRO 3 places it itself.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.integrations import is_deepspeed_zero3_enabled

    varlen_attention.register()
    described = load_config(path, trust=config.trust_remote_code)
    way = proof.prove(described, config.attention, trust=config.trust_remote_code)
    placed = device is not None and device.type != "cpu" and not is_deepspeed_zero3_enabled()
    arguments = {"device_map": {"": device}} if placed else {}
    arguments |= lora.quantised(config.adapter, dtype)
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, attn_implementation=way.attention, output_loading_info=True,
            trust_remote_code=config.trust_remote_code, **arguments,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, ImportError, SafetensorError, json.JSONDecodeError) as error:
        _refuse_code(path, error)
        raise UserError(f"{path}: the model cannot be loaded: {first_line(error)}") from None
    except RuntimeError as error:
        raise UserError(
            f"{path}: the weights are damaged or do not fit config.json: {first_line(error)}"
        ) from None
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"{path}: the model is incomplete: {len(missing)} weights are missing, e.g. {missing[0]}."
        )
    if config.adapter is not None:
        model = lora.attach(model, config.adapter, path, config.seed)
    elif config.trained == "embeddings":
        lora.freeze_all_but_embeddings(model)
    activation_checkpointing.prepare(model, config)
    loss_head.install(model, config.cross_entropy if way.plain_head else "full")
    if way.apart:
        varlen_attention.keep_apart(model)
    model.config.use_cache = False
    return model


def weight_files(path: str) -> dict[str, str]:
    """The weight files of a folder that are loaded, a model's and an adapter's, and their hashes; empty for a
    hub id. UserError if one of a model's is missing."""
    folder = Path(path)
    found = weights.find_any(folder) if folder.is_dir() else None
    adapters = [folder / name for name in ADAPTER_WEIGHTS if (folder / name).is_file()]
    return manifest.hash_files(sorted([*adapters, *(found.files if found else ())]))


def prompt_as_trained(model: Any, tokenizer: "PreTrainedTokenizerBase") -> None:
    """Write the template's end and padding tokens to the model's settings, so that generation stops where an
    answer ends."""
    for settings in (model.config, model.generation_config):
        if settings is not None:
            settings.eos_token_id, settings.pad_token_id = tokenizer.eos_token_id, tokenizer.pad_token_id


def repair_generation(model: Any) -> str:
    """Change generation settings that transformers would refuse to save; a line that says how, or "".

    Vicuna 1.5 and the first Llama-2-chat have a temperature but no `do_sample`. transformers loads that, and
    refuses to write it once anything in it has changed.
    """
    settings = model.generation_config
    if settings is None or not (before := _refusal(settings)):
        return ""
    changes = []
    if settings.do_sample is None and settings.temperature != 0:
        settings.do_sample = True
        if _refusal(settings) == before:
            settings.do_sample = None
        else:
            changes.append("do_sample=true")
    refusal = _refusal(settings)
    for name in [name for name in settings.to_diff_dict() if f"- `{name}`:" in refusal]:
        changes.append(f"without {name}={getattr(settings, name)}")
        setattr(settings, name, None)
    return f"the base's generation settings contradict themselves; saved with {', '.join(changes)}"


def _refusal(settings: Any) -> str:
    """Why transformers would not save these generation settings; "" if it would."""
    try:
        settings.validate(strict=True)
    except ValueError as error:
        return str(error)
    return ""


def first_line(error: Exception) -> str:
    """The first line of an error that says something."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
