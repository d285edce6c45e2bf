"""Trained tokens per second: packed chats, padded and length-grouped batches, and TRL's packing.

    python -m benchmarks.sft [--quick] [--chats PATH ...]

Each variant trains on the same chats once, and so on the same tokens (checked): a small LLaMA with random
weights, fp32 on a CPU (bf16 on a GPU), forward, backward and AdamW. Variants alternate in one process, in a
different order each round, after one unmeasured step each; medians count.

`packed`   as `python -m sft`: rows of LENGTH tokens, our attention and loss
`padded`   shuffled, batches of SAMPLES chats padded to the longest; transformers' attention and loss
`grouped`  the same, with batches from transformers' LengthGroupedSampler over all chats
`trl`      SFTTrainer with packing=True, rows of LENGTH tokens

Only labels count as tokens; `…_fill` is the share of positions that hold a chat. Without --chats the chats
are synthetic.
"""

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.peer import require
from benchmarks.result import print_result

LENGTH, SAMPLES = 2048, 8
WAYS = ("packed", "padded", "grouped", "trl")
Batch = dict[str, torch.Tensor]


class Chats(NamedTuple):
    """The chats that every variant trains on: a subset of a prepared ChatSet."""

    prepared: Any
    chosen: Any
    tokenizer: Any
    base: str
    device: torch.device
    dtype: torch.dtype


class Found(NamedTuple):
    """One pass over the chats: trained tokens, share of positions filled, seconds."""

    tokens: int
    fill: float
    seconds: float


def main() -> None:
    """Prepare, measure all variants in turn, print speeds and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sft", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    parser.add_argument("--quick", action="store_true", help="one round with fewer chats")
    parser.add_argument("--chats", nargs="+", type=Path, help="files of chats; default: synthetic ones")
    arguments = parser.parse_args()
    require("trl")
    rounds, number = (1, 48) if arguments.quick else (3, 192)
    ways: dict[str, Callable[[Chats], Found]] = {
        "packed": measure_packed, "padded": measure_padded, "trl": measure_trl,
        "grouped": partial(measure_padded, grouped=True),
    }  # fmt: skip
    found: dict[str, list[Found]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        chats = prepare(Path(scratch), arguments.chats, number)
        for turn in range(rounds):
            for way in WAYS[turn % 4 :] + WAYS[: turn % 4]:
                each = ways[way](chats)
                found[way].append(each)
                speed = f"{each.tokens / each.seconds:8,.0f} trained tokens/s"
                print(
                    f"round {turn + 1}: {way:8}{speed}, {each.seconds:.1f} s, {each.fill:.0%} full",
                    flush=True,
                )
    assert len({each.tokens for all_of in found.values() for each in all_of}) == 1, (
        "variants trained on different tokens"
    )
    middle = {way: statistics.median(each.tokens / each.seconds for each in found[way]) for way in WAYS}
    results = {f"{way}_trained_tokens_per_s": value for way, value in middle.items()}
    results |= {f"{way}_fill": found[way][0].fill for way in WAYS}
    results["chats"], results["trained_tokens"] = len(chats.chosen), found["packed"][0].tokens
    for way, name in (("padded", "padded"), ("grouped", "length_grouped"), ("trl", "trl_packed")):
        results[f"packed_vs_{name}_ratio"] = middle["packed"] / middle[way]
    print_result("sft", ("torch", "transformers", "trl"), results)


def prepare(folder: Path, files: list[Path] | None, number: int) -> Chats:
    """The tokenised chats, their tokenizer (4,000 tokens, trained on them) and a base with random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from core.model.loading import load_tokenizer
    from data.chat.config import ChatDataConfig
    from data.chat.prepare import prepare as tokenise
    from data.packing.indexed_dataset import Documents

    if not files:
        made_up(folder / "chats.jsonl")
        files = [folder / "chats.jsonl"]
    train_tokenizer(folder / "tokenizer", files)
    settings = {"template": "chatml", "max_tokens": LENGTH, "validation_share": 0.0, "error_budget": None}
    settings |= {"output_dir": str(folder / "data"), "sources": [{"path": str(path)} for path in files]}
    chats = tokenise(ChatDataConfig.model_validate(settings), folder / "tokenizer")
    torch.manual_seed(0)
    shape = LlamaConfig(
        hidden_size=128, intermediate_size=352, num_hidden_layers=6, num_attention_heads=4, vocab_size=4096,
        max_position_embeddings=LENGTH, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(shape).save_pretrained(folder / "base")
    chosen = choose(Documents(chats.split("train")).lengths.tolist(), number)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Chats(chats, chosen, load_tokenizer(str(chats.tokenizer)), str(folder / "base"), device,
                 torch.bfloat16 if device.type == "cuda" else torch.float32)  # fmt: skip


def choose(lengths: list[int], number: int) -> Any:
    """`number` chats, in batches from an epoch over all of them: lengths in a small set would group worse."""
    from transformers.trainer_pt_utils import LengthGroupedSampler

    generator = torch.Generator().manual_seed(0)
    order = np.array(list(LengthGroupedSampler(SAMPLES, lengths=lengths, generator=generator)))
    batches = order[: len(order) // SAMPLES * SAMPLES].reshape(-1, SAMPLES)
    return batches[np.random.default_rng(0).permutation(len(batches))[: number // SAMPLES]].flatten()


def train_tokenizer(folder: Path, files: list[Path]) -> None:
    """Train a byte-level BPE tokenizer on the records' texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    from data.chat.row_reader import rows
    from data.readers.source_files import list_files

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4000, special_tokens=["<pad>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"],
        show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    found = (row for path in files for file in list_files(path) for _, row in rows(file))
    texts = [json.dumps(row, ensure_ascii=False)[:2000] for row in found if isinstance(row, dict)]
    tokenizer.train_from_iterator(random.Random(0).sample(texts, min(len(texts), 20_000)), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(folder)


def measure_packed(chats: Chats) -> Found:
    """Rows of several chats in random order, one row per step."""
    from core.config.schema import ModelConfig
    from core.model.loading import load_model
    from core.model.loss_head import measure, summed_loss
    from core.train.dataloader import collate

    model = load_model(chats.base, ModelConfig(path=chats.base), chats.dtype).to(chats.device)
    measure(model)
    blocks = chats.prepared.blocks(
        "train", LENGTH, packing="best-fit", padding_id=chats.tokenizer.pad_token_id, chosen=chats.chosen
    )
    order = np.random.default_rng(0).permutation(len(blocks)).tolist()
    return timed(model, (collate([blocks[i]], chats.device) for i in order), blocks.places, summed_loss)


def measure_padded(chats: Chats, *, grouped: bool = False) -> Found:
    """Batches of SAMPLES chats, padded to the longest: in random order, or grouped by length."""
    from transformers import AutoModelForCausalLM

    from core.model.loss_head import full_loss, measures_of

    rows = documents_of(chats)
    if not grouped:
        random.Random(0).shuffle(rows)

    def batches() -> Iterator[Batch]:
        for start in range(0, len(rows), SAMPLES):
            chosen = rows[start : start + SAMPLES]
            shape = len(chosen), max(len(ids) for ids, _ in chosen) - 1
            ids, labels, mask = (np.full(shape, value, np.int64) for value in (0, -100, 0))
            for place, (tokens, trained) in enumerate(chosen):
                n = len(tokens) - 1
                ids[place, :n], mask[place, :n] = tokens[:-1], 1
                labels[place, :n] = np.where(trained[1:], tokens[1:], -100)
            arrays = {"input_ids": ids, "labels": labels, "attention_mask": mask}
            yield {name: torch.from_numpy(array).to(chats.device) for name, array in arrays.items()}

    def loss(model: Any, batch: Batch) -> torch.Tensor:
        inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
        logits = model(**inputs, use_cache=False).logits
        measures_of(logits.detach().flatten(0, 1), batch["labels"].flatten()[:, None])
        return full_loss(logits, batch["labels"])

    model = AutoModelForCausalLM.from_pretrained(chats.base, dtype=chats.dtype).to(chats.device)
    return timed(model, batches(), sum(len(ids) - 1 for ids, _ in rows), loss)


def timed(model: Any, batches: Iterator[Batch], places: int, loss_of: Callable[[Any, Batch], Any]) -> Found:
    """Time one step per batch, after an untimed step on the first batch."""
    from core.model.loss_head import IGNORED

    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=next(model.parameters()).is_cuda)

    def step(batch: Batch) -> int:
        trained = int((batch["labels"] != IGNORED).sum())
        torch.autograd.backward(loss_of(model, batch) / trained)
        optimizer.step()
        optimizer.zero_grad()
        return trained

    first = next(batches)
    step(first)
    tokens = read = 0
    begun = now()
    for batch in chain([first], batches):
        tokens += step(batch)
        read += batch["input_ids"].numel()
    return Found(tokens, places / read, now() - begun)


def measure_trl(chats: Chats) -> Found:
    """TRL's SFTTrainer with its packing, timed from the start of its loop to the end."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    tokens = read = 0
    clock: list[float] = []

    class Counting(SFTTrainer):  # type: ignore[misc]
        def compute_loss(self, model: Any, inputs: Any, *rest: Any, **more: Any) -> Any:
            nonlocal tokens, read
            tokens += int((inputs["labels"] != -100).sum())
            read += inputs["input_ids"].numel()
            return super().compute_loss(model, inputs, *rest, **more)

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            clock.append(now())

        on_train_end = on_train_begin

    found = documents_of(chats)
    rows = [{"input_ids": ids.tolist(), "completion_mask": marks.tolist()} for ids, marks in found]
    model = AutoModelForCausalLM.from_pretrained(chats.base, dtype=chats.dtype).to(chats.device)
    ids = torch.from_numpy(found[0][0][None]).to(chats.device)
    model(input_ids=ids, labels=ids).loss.backward()
    model.zero_grad()
    with tempfile.TemporaryDirectory() as folder:
        settings = SFTConfig(
            folder, num_train_epochs=1, per_device_train_batch_size=1, learning_rate=1e-4, report_to=[],
            packing=True, max_length=LENGTH, save_strategy="no", disable_tqdm=True, completion_only_loss=True,
            use_cpu=chats.device.type == "cpu", bf16=chats.dtype == torch.bfloat16, logging_steps=1000,
            gradient_checkpointing=False, max_grad_norm=0.0, optim="adamw_torch",
        )  # fmt: skip
        Counting(
            model, args=settings, callbacks=[Clock()], train_dataset=Dataset.from_list(rows),
            processing_class=chats.tokenizer,
        ).train()  # fmt: skip
    return Found(tokens, sum(len(ids) for ids, _ in found) / read, clock[1] - clock[0])


def documents_of(chats: Chats) -> list[tuple[Any, Any]]:
    """Token ids and trained-token marks of each chat."""
    from data.packing.indexed_dataset import Documents

    documents, marks = Documents(chats.prepared.split("train")), chats.prepared.trained("train")
    firsts = {int(i): documents.first_token(int(i)) for i in chats.chosen}
    return [
        (documents[i].astype(np.int64), marks[first : first + len(documents[i])])
        for i, first in firsts.items()
    ]


def now() -> float:
    """The time in seconds, after the GPU has finished its queue."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def made_up(file: Path) -> None:
    """3,000 chats of random words with log-normal lengths, as in instruction data."""
    draw = random.Random(0)
    words = ["".join(draw.choices("etaoinshrdlu", k=draw.randint(2, 9))) for _ in range(2000)]
    with file.open("w", encoding="utf-8") as lines:
        for _ in range(3000):
            lengths = [max(3, min(900, int(draw.lognormvariate(0, 1) * median))) for median in (15, 60)]
            question, answer = (" ".join(draw.choices(words, k=length)) for length in lengths)
            lines.write(json.dumps({"instruction": question, "input": "", "output": answer}) + "\n")


if __name__ == "__main__":
    main()
