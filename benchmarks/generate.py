"""Greedy generation: ours, one by one, and lm-evaluation-harness, on one model and the same prompts.

    python -m benchmarks.generate [--quick]

The model is a LLaMA with random weights and a byte-level tokenizer; the prompts are pieces of synthetic
claims, the longest sixteen times as long as the shortest; a few letters are stop strings, so that answers
vary in length, as real ones do. Tokens count up to the end of each answer, per CPU second of the process. One
by one is transformers' `generate` with `stop_strings`; lm-evaluation-harness runs with each batch size, and
the fastest counts. All use torch's number of threads (OMP_NUM_THREADS).
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.peer import require
from benchmarks.planted import synthetic_records
from benchmarks.result import print_result
from core.html_report import text_table
from eval.models.hf import Local, generate, open_model
from eval.sample import EvalSample
from eval.tasks.task import Request

STOPS = ("e", "t", "\n")
NEW_TOKENS = 128
THEIR_BATCHES = (16, 64)


def main() -> None:
    """Make the model and prompts, run all variants in turn, print a table and the JSON line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.generate", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer prompts, one round")
    quick = parser.parse_args().quick
    require("lm_eval")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prompts = write_prompts(folder, 96 if quick else 256)
        local = open_model(str(write_model(folder / "model")))
        counts: list[int] = []
        runs: dict[str, Callable[[], list[str]]] = {
            "ours": lambda: ours(local, prompts),
            "one by one": lambda: one_by_one(local, prompts, counts),
        } | {f"lm-eval, batches of {n}": theirs(local, prompts, n) for n in THEIR_BATCHES}
        seconds: dict[str, float] = {}
        answers: dict[str, list[str]] = {}
        ours(local, prompts[:8])
        for _ in range(1 if quick else 3):
            for name, call in runs.items():
                start = time.process_time()
                answers[name] = call()
                took = time.process_time() - start
                seconds[name] = min(took, seconds.get(name, took))
        useful = sum(counts[: len(prompts)])
        best = min((name for name in runs if name.startswith("lm-eval")), key=seconds.__getitem__)
        same = sum(a == b for a, b in zip(answers["ours"], answers["one by one"], strict=True))
        header = ["", "CPU s", "tokens per CPU s", "same answers as one by one"]
        rows = [
            [name, f"{s:.2f}", f"{useful / s:.0f}",
             sum(a == b for a, b in zip(answers[name], answers["one by one"], strict=True))]
            for name, s in seconds.items()
        ]  # fmt: skip
        print(text_table(header, rows))
        results = {
            "tokens_per_cpu_s": useful / seconds["ours"],
            "vs_one_by_one_ratio": seconds["one by one"] / seconds["ours"],
            "vs_lm_eval_ratio": seconds[best] / seconds["ours"],
            "identical_outputs_share": same / len(prompts),
            "score_2000_samples_s": score_seconds(folder),
        }
    print_result("generate", ("torch", "transformers", "lm-eval", "sacrebleu"), results)


def write_model(folder: Path) -> Path:
    """A LLaMA with 11 million random weights, grouped-query attention and one token per byte."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {t: i for i, t in enumerate(["<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary), hidden_size=512, intermediate_size=1408, num_hidden_layers=4,
        num_attention_heads=8, num_key_value_heads=2, max_position_embeddings=1024, initializer_range=0.05,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_prompts(folder: Path, number: int) -> list[str]:
    """Pieces of claims, 10 to 160 characters long."""
    records = synthetic_records(folder / "records", 40, "en")
    text = " ".join(" ".join(record["claims"] or ()) for record in records)
    generator = random.Random(0)
    lengths = [int(10 * 16 ** generator.random()) for _ in range(number)]
    starts = [generator.randrange(len(text) - length) for length in lengths]
    return [text[start : start + length] for start, length in zip(starts, lengths, strict=True)]


def ours(local: Local, prompts: list[str]) -> list[str]:
    """Answers from eval/models/hf.py, in the order of the prompts."""
    sample = EvalSample(task="t", id="", prediction="", reference="")
    found = dict(generate(local, [Request(prompt, sample, NEW_TOKENS, STOPS) for prompt in prompts]))
    return [str(found[i]) for i in range(len(prompts))]


def one_by_one(local: Local, prompts: list[str], counts: list[int]) -> list[str]:
    """Answers from transformers' `generate`, one prompt per call; appends each token count to `counts`."""
    answers = []
    for prompt in prompts:
        inputs = local.tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
        with torch.inference_mode():
            out = local.model.generate(
                **inputs, max_new_tokens=NEW_TOKENS, do_sample=False, stop_strings=list(STOPS),
                tokenizer=local.tokenizer, pad_token_id=local.tokenizer.pad_token_id,
            )  # fmt: skip
        tokens = out[0, inputs["input_ids"].shape[1] :]
        counts.append(len(tokens))
        text = local.tokenizer.decode(tokens, skip_special_tokens=True)
        answers.append(min((text.split(stop)[0] for stop in STOPS), key=len))
    return answers


def theirs(local: Local, prompts: list[str], batch: int) -> Callable[[], list[str]]:
    """A function that runs lm-evaluation-harness in batches of `batch`."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model: Any = HFLM(pretrained=local.model, tokenizer=local.tokenizer, batch_size=batch)
    settings = {"until": list(STOPS), "max_gen_toks": NEW_TOKENS, "do_sample": False}
    asked = [Instance("generate_until", {}, (prompt, settings), 0) for prompt in prompts]
    return lambda: list(model.generate_until(asked, disable_tqdm=True))


def score_seconds(folder: Path, samples: int = 2000) -> float:
    """Wall seconds of `python -m eval score` on Chinese claims, including the bootstrap."""
    records = synthetic_records(folder / "scored", 200, "zh")
    claims = [claim for record in records for claim in record["claims"] or ()]
    generator = random.Random(0)
    file = folder / "predictions.jsonl"
    with file.open("w", encoding="utf-8") as out:
        for i in range(samples):
            reference = claims[i % len(claims)]
            kept = "".join(character for character in reference if generator.random() > 0.1)
            line = {"task": "claims", "id": str(i), "prediction": kept, "reference": reference}
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
    metrics = ["bleu-zh", "chrf", "rouge-l-char"]
    start = time.perf_counter()
    command = [sys.executable, "-m", "eval", "score", str(file), "--metrics", *metrics]
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
