"""A local Hugging Face model and its greedy generation (likelihoods are in eval/models/loglikelihood.py).

    texts ──tokens──▶ sorted, longest first ──batches of a token budget──▶ model ──▶ answers as they finish

A batch that does not fit in memory halves the token budget and is retried. Inputs longer than the context are
truncated on the left, which is counted and reported.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch
from jinja2.exceptions import TemplateError

from core.config.schema import AdapterConfig, ModelConfig
from core.errors import UserError
from core.model import lora, varlen_attention
from core.model.loading import load_model, load_tokenizer, weight_files
from core.provenance import manifest
from core.provenance.manifest import hash_files
from core.train.logger import quiet_libraries
from eval.models.greedy import greedy
from eval.models.prefixes import Prefix, groups, proven
from eval.tasks.prompt import continued, messages
from eval.tasks.task import Request

T = TypeVar("T")


@dataclass
class Local:
    """A loaded model. `batch_tokens` is halved when memory runs out; `truncated` counts truncated texts."""

    path: str
    model: Any
    tokenizer: Any
    context: int
    batch_tokens: int
    chat: bool = False
    """Put prompts into the tokenizer's chat template as a user message."""
    truncated: int = 0
    shares: bool | None = None
    """Whether prompts with the same beginning share its cache; None until it is asked."""
    prefix: Prefix = field(init=False)

    def __post_init__(self) -> None:
        self.prefix = Prefix(self.model)

    def render(self, prompt: str) -> str:
        """The model input for a prompt."""
        if not self.chat:
            return prompt
        chat = messages(prompt)
        try:
            return str(self.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
        except TemplateError as error:
            raise UserError(
                f"{self.path}: the chat template does not accept the messages "
                f"{[each['role'] for each in chat]}: {error}. Change `system` or `shots_as` in the task file."
            ) from None


def open_model(
    path: str,
    batch_tokens: int = 16_384,
    *,
    chat: bool = False,
    four_bit: bool = False,
    dtype: str | None = None,
    context: int | None = None,
) -> Local:
    """Load the model and tokenizer of a folder in `dtype` (`bfloat16`, …): by default bf16 on a GPU,
    otherwise fp32 on the CPU.

    The folder may contain a LoRA adapter: it is applied to its base without merging. `four_bit` loads the
    weights in 4-bit (NF4), and `dtype` is that of matrix products.
    """
    quiet_libraries()
    base = adapter_base(path)
    tokenizer = load_tokenizer(path if base is None or _has_tokenizer(path) else base)
    if chat and not tokenizer.chat_template:
        raise UserError(f"{path}: the tokenizer has no chat template. Remove --chat.")
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    precision = getattr(torch, dtype or default_dtype())
    if four_bit:
        model = _four_bits(base or path, precision)
    else:
        model = load_model(base or path, ModelConfig(path=base or path), precision, device)
    if model.config._attn_implementation == varlen_attention.NAME:
        model.set_attn_implementation("sdpa")  # padded batches need a mask
    if base is not None:
        model = _with_adapter(model, base, path)
    if not four_bit:
        model = model.to(device)
    longest = model.config.get_text_config().max_position_embeddings
    return Local(path, model.eval(), tokenizer, min(context or longest, longest), batch_tokens, chat)


def default_dtype() -> str:
    """The name of the data type that models are loaded in if none is asked for."""
    return "bfloat16" if torch.cuda.is_available() else "float32"


def adapter_base(path: str) -> str | None:
    """The base model of the adapter in a folder; None if there is no adapter."""
    file = Path(path) / "adapter_config.json"
    if not file.is_file():
        return None
    try:
        base = str(json.loads(file.read_text("utf-8"))["base_model_name_or_path"])
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{file}: base_model_name_or_path is missing or invalid ({error!r}).") from None
    if not weight_files(base):
        raise UserError(f"{file}: base_model_name_or_path is {base}, which has no weights. Correct the path.")
    return base


def inputs(path: str) -> dict[str, str]:
    """The files of a model (and of an adapter's base) and their hashes."""
    hashes: dict[str, str] = {}
    base = adapter_base(path)
    if not Path(path).is_dir():
        raise UserError(f"{path}: no such folder")
    if not weight_files(path):
        raise UserError(f"{path}: no weights found. Pass a model folder, or an endpoint with --endpoint.")
    for folder in filter(None, (base, path)):
        files = sorted(Path(folder).glob("*"))
        others = [file for file in files if file.suffix in (".json", ".model", ".jinja", ".txt")]
        hashes |= weight_files(folder) | hash_files(file for file in others if file.name != manifest.NAME)
    return hashes


def identity(
    hashes: dict[str, str],
    *,
    chat: bool = False,
    four_bit: bool = False,
    dtype: str | None = None,
    context: int | None = None,
) -> dict[str, Any]:
    """What an answer depends on: the `hashes` of weights, configuration, tokenizer and template (not their
    paths), and the settings."""
    dtype = " ".join(filter(None, ("nf4", dtype))) if four_bit else dtype or default_dtype()
    files = sorted([Path(file).name, digest] for file, digest in hashes.items())
    return {"backend": "transformers", "dtype": dtype, "chat": chat, "context": context, "files": files}


def encode(local: Local, text: str, special: bool = True) -> list[int]:
    """Tokens of a text. Special tokens are not added to a chat, whose template contains them."""
    return list(local.tokenizer(text, add_special_tokens=special and not local.chat)["input_ids"])


def generate(local: Local, requests: Sequence[Request]) -> Iterator[tuple[int, str | Exception]]:
    """Yield index and greedy continuation of each request, up to a string of `stop`."""
    tokens = []
    for request in requests:
        limit = local.context - request.max_new_tokens
        if limit < 1:
            raise UserError(
                f"task {request.sample.task}: max_new_tokens={request.max_new_tokens} leaves no space for a "
                f"prompt in a context of {local.context} tokens. Lower max_new_tokens."
            )
        text = local.render(request.prompt)
        ids = encode(local, text if local.chat else continued(text))
        local.truncated += len(ids) > limit
        tokens.append(ids[-limit:])
    sizes = [len(ids) + request.max_new_tokens for ids, request in zip(tokens, requests, strict=True)]

    ends = _end_tokens(local)

    def answer(batch: list[int], shared: int) -> list[str]:
        ids, mask, cache = batched([tokens[i] for i in batch], local, shared, left=True)
        # A stop string spans at most as many tokens as it has bytes, plus one if it starts within a token.
        tails = [max((len(stop.encode()) + 1 for stop in requests[i].stop), default=0) for i in batch]

        def ended(row: int, generated: list[int]) -> bool:
            if generated[-1] in ends or not tails[row]:
                return generated[-1] in ends
            tail = local.tokenizer.decode(generated[-tails[row] :], skip_special_tokens=True)
            return any(stop in tail for stop in requests[batch[row]].stop)

        limits = [requests[i].max_new_tokens for i in batch]
        texts = []
        for i, generated in zip(batch, greedy(local.model, ids, mask, limits, ended, cache), strict=True):
            text = local.tokenizer.decode(generated, skip_special_tokens=True)
            text = text.removeprefix(" ") if local.chat else text  # the template puts one before each answer
            texts.append(min((text.split(stop)[0] for stop in requests[i].stop), key=len, default=text))
        return texts

    yield from in_batches(local, sizes, answer, sharing(local, [ids[:-1] for ids in tokens]))


def sharing(local: Local, beginnings: Sequence[Sequence[int]]) -> list[tuple[int, list[int]]]:
    """The groups of rows that share a cache, by the parts of the rows that may be shared; a row's next token
    is always computed with the row."""
    found = groups(beginnings)
    if local.shares is None and any(length for length, _ in found):
        local.shares = proven(local.model.config, local.model.config._attn_implementation)
    return found if local.shares else [(0, list(range(len(beginnings))))]


def in_batches(
    local: Local,
    sizes: Sequence[int],
    answer: Callable[[list[int], int], list[T]],
    groups: Sequence[tuple[int, list[int]]],
) -> Iterator[tuple[int, T | Exception]]:
    """Call `answer` with batches of indices, longest first, whose padded size is at most `batch_tokens`, and
    the number of first tokens that they share; one by one where it raises FloatingPointError, which only some
    of them may cause."""
    for shared, indices in groups:
        left = sorted(indices, key=lambda i: (-sizes[i], i))
        alone = 0  # that many of the first must be tried one by one
        while left:
            n = 1 if alone else max(1, local.batch_tokens // sizes[left[0]])
            batch = left[:n]
            try:
                with torch.inference_mode():
                    answers = answer(batch, shared)
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                if len(batch) == 1:
                    too_long = f"{sizes[batch[0]]} tokens do not fit in memory. Lower --context. ({error})"
                    yield batch[0], MemoryError(too_long)
                    left = left[1:]
                else:
                    local.batch_tokens = len(batch) * sizes[batch[0]] // 2
                continue
            except FloatingPointError as error:
                if len(batch) == 1:
                    yield batch[0], error
                    left, alone = left[1:], max(0, alone - 1)
                else:
                    alone = len(batch)
                continue
            yield from zip(batch, answers, strict=True)
            left, alone = left[n:], max(0, alone - n)


def batched(
    rows: Sequence[list[int]], local: Local, shared: int, left: bool
) -> tuple[torch.Tensor, torch.Tensor, Any]:
    """Padded ids after the first `shared` tokens (rows x longest), the mask of all tokens, and the cache of
    the shared ones, None if there are none."""
    ids, mask = pad([row[shared:] for row in rows], local, left)
    if not shared:
        return ids, mask, None
    cache = local.prefix.copies(rows[0][:shared], len(rows))
    return ids, torch.cat([mask.new_ones(len(rows), shared), mask], -1), cache


def pad(rows: Sequence[list[int]], local: Local, left: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Padded ids and their mask, both (rows x longest)."""
    longest = max(map(len, rows))
    ids = torch.full((len(rows), longest), _padding(local))
    mask = torch.zeros_like(ids)
    for i, row in enumerate(rows):
        columns = slice(longest - len(row), longest) if left else slice(0, len(row))
        ids[i, columns] = torch.tensor(row)
        mask[i, columns] = 1
    return ids.to(local.model.device), mask.to(local.model.device)


def _padding(local: Local) -> int:
    tokenizer = local.tokenizer
    return int(tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id)


def _end_tokens(local: Local) -> set[int]:
    """Tokens that end an answer: the tokenizer's, and those of the model's generation config."""
    named = getattr(local.model.generation_config, "eos_token_id", None)
    ends = {local.tokenizer.eos_token_id, *(named if isinstance(named, list) else [named])}
    return {int(token) for token in ends if token is not None}


def _has_tokenizer(path: str) -> bool:
    return any((Path(path) / name).is_file() for name in ("tokenizer.json", "tokenizer.model"))


def _with_adapter(model: Any, base: str, path: str) -> Any:
    from peft import PeftModel

    lora.check_base(Path(path), base, model)
    try:
        return PeftModel.from_pretrained(model, path)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise UserError(f"{path}: cannot load the adapter: {error}") from None


def _four_bits(path: str, dtype: torch.dtype) -> Any:
    """Weights in NF4 with double quantisation, matrix products in `dtype` (arXiv:2305.14314)."""
    from transformers import AutoModelForCausalLM

    settings = lora.quantised(AdapterConfig(load_in_4bit=True), dtype)
    try:
        return AutoModelForCausalLM.from_pretrained(path, dtype=dtype, trust_remote_code=False, **settings)
    except (OSError, ValueError, ImportError, RuntimeError) as error:
        raise UserError(f"{path}: cannot load the model in 4-bit: {error}") from None
