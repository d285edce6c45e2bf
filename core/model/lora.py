"""LoRA and QLoRA: small trained matrices next to frozen weights (arXiv:2106.09685, arXiv:2305.14314), by peft
and bitsandbytes.

base folder ──[bitsandbytes: 4 bits]──▶ frozen ──peft──▶ trained A, B [and embeddings] ──▶ peft's layout

Only what was trained is stored: `adapter_config.json` and `adapter_model.safetensors`.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config.schema import AdapterConfig
from core.errors import UserError

if TYPE_CHECKING:
    import torch

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."
"""What peft puts before the name of a layer of the base."""
WHOLE = r"\.(modules_to_save|original_module)$"
"""What peft adds to the name of a layer that is trained in full, where its embedding was resized."""


def check(config: AdapterConfig | None, zero_stage: int) -> None:
    """UserError for an adapter at ZeRO stage 3."""
    if config is not None and zero_stage == 3:
        kind = "QLoRA: 4-bit weights cannot be partitioned" if config.load_in_4bit else "LoRA"
        raise UserError(
            f"deepspeed.zero_stage=3 is not supported with model.adapter ({kind}). Set"
            " deepspeed.zero_stage=2, which partitions everything that is trained"
            + (
                "."
                if config.load_in_4bit
                else "; model.adapter.load_in_4bit=true makes the frozen weights small."
            )
        )


def quantised(config: AdapterConfig | None, dtype: "torch.dtype") -> dict[str, Any]:
    """Arguments of `from_pretrained` that load frozen weights in 4 bits; empty without QLoRA."""
    if config is None or not config.load_in_4bit:
        return {}
    import torch
    from transformers import BitsAndBytesConfig

    compute = {"auto": dtype, "bf16": torch.bfloat16, "fp32": torch.float32}[config.compute_dtype]
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=config.quant_type,
        bnb_4bit_use_double_quant=config.double_quant,
        bnb_4bit_compute_dtype=compute,
    )
    device = torch.cuda.current_device() if torch.cuda.is_available() else "cpu"
    return {"quantization_config": settings, "device_map": {"": device}}


def attach(model: Any, config: AdapterConfig, base: str, seed: int, *, load: bool = True) -> Any:
    """The model with its adapter, of which only the adapter is trained; UserError for unknown target modules.

    New adapters are initialised from `seed`, the same on all processes. Without `load` an adapter that exists
    is given its layers but not its weights.
    """
    import torch
    from peft import PeftConfig, PeftModel, get_peft_model

    torch.manual_seed(seed)
    for layer in model.modules():
        # On some CPUs bitsandbytes would change the layout of weights at the first validation, for inference.
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            layer.support_avx512bf16_for_cpu = False
    if config.path is not None:
        check_base(Path(config.path), base, model)
        if not load:
            return get_peft_model(model, PeftConfig.from_pretrained(config.path))
        return PeftModel.from_pretrained(model, config.path, is_trainable=True)
    whole = _embeddings(model) if config.embeddings else None
    try:
        wrapped = get_peft_model(model, lora(config, model, whole))
    except ValueError as error:
        if "lora_dropout" in str(error):
            raise UserError(
                f"model.adapter.dropout={config.dropout}: the experts of {base} are adapted as whole tensors,"
                " which allows no dropout. Set model.adapter.dropout=0, or name layers outside the experts in"
                " model.adapter.target_modules, e.g. [q_proj, k_proj, v_proj, o_proj]."
            ) from None
        if "not found" not in str(error) and "No modules" not in str(error):
            raise
        linear = {n.rpartition(".")[2] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
        raise UserError(
            f"model.adapter.target_modules={list(config.target_modules)}: not found in {base}, whose linear"
            f" layers are {', '.join(sorted(linear))}."
        ) from None
    wrapped.peft_config["default"].base_model_name_or_path = base
    if whole and model.config.get_text_config().tie_word_embeddings and not _still_tied(model):
        raise UserError(
            f"model.adapter.embeddings=true: {base} has one weight for the input embedding and the output"
            " layer, which peft would train apart in this architecture. Set model.adapter.embeddings=false."
        )
    return wrapped


def _still_tied(model: Any) -> bool:
    """Whether the trained input embedding is the trained output layer too."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    one, other = ({id(p) for p in end.parameters() if p.requires_grad} for end in ends)
    return bool(one & other)


def lora(config: AdapterConfig, model: Any, whole: list[str] | None) -> Any:
    """peft's configuration; the layers named in `whole` are fully trained."""
    from peft import LoraConfig

    targets = config.target_modules
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        modules_to_save=whole,
        ensure_weight_tying=bool(whole) and model.config.get_text_config().tie_word_embeddings,
    )


def frozen_bytes(model: Any, config: AdapterConfig, wide: int) -> tuple[int, int]:
    """Bytes of the weights of `model` (without adapter) that an adapter leaves frozen, at `wide` bytes each
    or in 4 bits; and bytes of the largest 4-bit matrix when a product unpacks it."""
    import torch

    packed: list[int] = []
    if config.load_in_4bit:
        head = model.get_output_embeddings()  # bitsandbytes leaves it unchanged
        layers = (layer for layer in model.modules() if isinstance(layer, torch.nn.Linear))
        packed = [layer.weight.numel() for layer in layers if layer is not head]
    plain = sum(parameter.numel() for parameter in model.parameters()) - sum(packed)
    four_bit = sum(_four_bit_bytes(elements, config.double_quant) for elements in packed)
    return wide * plain + four_bit, wide * max(packed, default=0)


def _four_bit_bytes(elements: int, double_quant: bool) -> int:
    """Bytes of a matrix in bitsandbytes' format: half a byte per element, a scale per 64 elements (fp32, or
    one byte with an fp32 scale per 256 scales), and tables."""
    scales, table = -(-elements // 64), 16 * 4
    if double_quant:
        return -(-elements // 2) + table + scales + 4 * -(-scales // 256) + 256 * 4 + 4
    return -(-elements // 2) + table + 4 * scales


def check_base(adapter: Path, base: str, model: Any) -> None:
    """UserError if `adapter` is not in peft's layout, or its matrices do not fit the model in `base`."""
    import torch

    layers = dict(model.named_modules())
    for name, shape in _shapes(adapter).items():
        path, _, kind = name.removeprefix(PREFIX).rpartition(".")
        path = re.sub(WHOLE, "", path)
        place = re.sub(r"\.lora_\w+$", "", path)
        layer = layers.get(place.replace(".base_layer", ""))
        sizes: Any = (getattr(layer, "in_features", None), getattr(layer, "out_features", None))
        inputs, outputs = ({size} for size in sizes)
        if layer is not None and sizes == (None, None):  # experts and their router
            inputs = outputs = {
                size for weight in layer.parameters(recurse=False) for size in weight.shape[-2:]
            }
        fits = layer is not None
        if name.endswith(".lora_A.weight"):
            fits = shape[1] in inputs
        elif name.endswith(".lora_B.weight"):
            fits = shape[0] in outputs
        elif path == place and isinstance(weight := getattr(layer, kind, None), torch.Tensor):
            sizes = tuple(weight.shape)  # trained in full
            fits = shape == sizes
        if not fits:
            found = f"which has {sizes} there" if layer is not None else "which has no such layer"
            raise UserError(
                f"{adapter}: {name} {shape} does not fit {base}, {found}. {_made_for(adapter, base)}"
            )


def _made_for(adapter: Path, base: str) -> str:
    """What to do about an adapter that does not fit `base`."""
    named = json.loads((adapter / CONFIG).read_text("utf-8")).get("base_model_name_or_path")
    if not named or Path(named).resolve() == Path(base).resolve():
        return (
            "The adapter names this base, so it was made for other weights or a longer vocabulary. Use the"
            " base as it was then, or one that is extended as the adapter's was."
        )
    return f"The adapter was made for another base, {named}. Use that one."


def extend_rows(adapter: Path, model: Any) -> None:
    """Give `model` as many embedding rows as the adapter's own embeddings have, if it replaces all of them:
    an adapter made with a longer vocabulary (as Chinese-LLaMA's) brings every row."""
    shapes, ends = _shapes(adapter), (model.get_input_embeddings(), model.get_output_embeddings())
    names = {id(module): name for name, module in model.named_modules()}
    given = {re.sub(WHOLE, "", name.removesuffix(".weight")): shape[0] for name, shape in shapes.items()}
    rows = [given.get(f"{PREFIX}{names.get(id(end))}", 0) for end in ends]
    if ends[1] is None or ends[0].weight is ends[1].weight:
        rows = [max(rows)]
    if min(rows) == max(rows) > ends[0].weight.shape[0]:
        model.resize_token_embeddings(rows[0], mean_resizing=False)


def _shapes(adapter: Path) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of an adapter; UserError if the folder is not in peft's layout."""
    from safetensors import SafetensorError, safe_open

    try:
        json.loads((adapter / CONFIG).read_text("utf-8"))
        with safe_open(adapter / WEIGHTS, "pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, ValueError, SafetensorError) as error:
        raise UserError(f"{adapter}: not an adapter in peft's layout: {error}.") from None


def freeze_all_but_embeddings(model: Any) -> None:
    """Train only the input embedding and the output layer from now on."""
    model.requires_grad_(False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.requires_grad_(True)


def is_adapted(model: Any) -> bool:
    """Whether only an adapter of `model` is trained."""
    return hasattr(model, "peft_config")


def write(model: Any, weights: Mapping[str, "torch.Tensor"], folder: Path) -> None:
    """Write the trained `weights` (keyed by name in the model) and peft's configuration to `folder`.

    A tied weight, which `weights` has once, is stored under each of its names, as peft does.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    first = {id(parameter): name for name, parameter in model.named_parameters()}
    every = model.named_parameters(remove_duplicate=False)
    named = {name: weights[first[id(each)]] for name, each in every if first[id(each)] in weights}
    stored = get_peft_model_state_dict(model, state_dict=named, save_embedding_layers=False)
    file = folder / WEIGHTS
    save_file({name: weight.clone() for name, weight in stored.items()}, file, metadata={"format": "pt"})
    file.chmod(0o644)
    settings = model.peft_config["default"]
    trained, settings.inference_mode = settings.inference_mode, True
    settings.save_pretrained(str(folder))
    settings.inference_mode = trained


def _embeddings(model: Any) -> list[str]:
    """The names of the input embedding and the output layer, e.g. embed_tokens and lm_head."""
    wanted = [model.get_input_embeddings(), model.get_output_embeddings()]
    names = {id(module): name.rpartition(".")[2] for name, module in model.named_modules()}
    tied = model.config.get_text_config().tie_word_embeddings
    return [names[id(module)] for module in wanted[: 1 if tied else 2]]
