"""Small bases with chat tokens, chats that a tiny model can learn, and runs of `python -m sft` on them."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import ROOT, run

CHAT_TOKENS = [
    "<pad>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
]
TINY = [
    "data.template=patent-llama",
    "data.max_tokens=128",
    "data.validation_share=0.1",
    "data.engine.workers=1",
    "training.steps=40",
    "training.global_batch_size=2",
    "training.micro_batch_size=2",
    "training.validate_every_steps=20",
    "training.save_every_steps=null",
    "optimizer.learning_rate=5e-3",
    "logging.every_steps=1",
    "logging.tensorboard=false",
    "deepspeed.zero_stage=1",
    "stages=[]",
]
"""Overrides of configs/sft/tiny.yaml that make a run a matter of seconds."""


@dataclass(frozen=True)
class Bases:
    """Models with random weights by family, of one tokenizer."""

    folder: Path

    def path(self, kind: str = "llama") -> str:
        """A model of the family, made when it is first asked for."""
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        target = self.folder / kind
        if not target.exists():
            tokenizer = AutoTokenizer.from_pretrained(self.folder / "tokenizer")
            heads = {} if kind == "gpt_neox" else {"num_key_value_heads": 1}
            config = AutoConfig.for_model(
                kind, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
                **heads, vocab_size=-(-len(tokenizer) // 64) * 64, max_position_embeddings=4096,
                bos_token_id=1, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
            torch.manual_seed(0)
            AutoModelForCausalLM.from_config(config).save_pretrained(target)
            tokenizer.save_pretrained(target)
        return str(target)

    def taught(self, kind: str, template: str) -> str:
        """One that knows the template and the answers, but not which of them belongs to which question."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from data.chat.chat_template import encode, install

        target = self.folder / f"{kind}-{template}"
        if target.exists():
            return str(target)
        tokenizer = AutoTokenizer.from_pretrained(self.path(kind))
        model = AutoModelForCausalLM.from_pretrained(self.path(kind))
        install(tokenizer, template)
        draw, optimizer = random.Random(0), torch.optim.AdamW(model.parameters(), lr=3e-3)
        for _ in range(120):
            chats = [(chat["instruction"], draw.choice(CHATS)["output"]) for chat in draw.sample(CHATS, 8)]
            told = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in chats]
            rows = [torch.from_numpy(encode(tokenizer, messages).ids).long() for messages in told]
            ids = torch.nn.utils.rnn.pad_sequence(
                rows, batch_first=True, padding_value=tokenizer.pad_token_id
            )
            labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
            mask = (ids != tokenizer.pad_token_id).long()
            torch.autograd.backward(model(input_ids=ids, attention_mask=mask, labels=labels).loss)
            optimizer.step()
            optimizer.zero_grad()
        model.save_pretrained(target)
        AutoTokenizer.from_pretrained(self.path(kind)).save_pretrained(target)
        return str(target)


def make_bases(folder: Path) -> Bases:
    """A byte-level tokenizer with the tokens of all templates."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<unk>", "<s>", "</s>", *CHAT_TOKENS], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator([line["output"] for line in CHATS], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )
    fast.save_pretrained(folder / "tokenizer")
    return Bases(folder)


CHATS = [
    {"instruction": f"{ask} {code}{number}", "input": "", "output": f"{code} is {text}."}
    for code, text in {"A": "food", "B": "transport", "C": "chemistry", "G": "physics", "H": "power"}.items()
    for ask in ("class", "field", "what is", "explain")
    for number in range(10)
]


@pytest.fixture(scope="session")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """Bases by family, and `chats.jsonl` beside them."""
    folder = tmp_path_factory.mktemp("bases")
    (folder / "chats.jsonl").write_text("".join(json.dumps(chat) + "\n" for chat in CHATS))
    return make_bases(folder)


def overrides(bases: Bases, folder: Path, *more: str, kind: str = "llama") -> list[str]:
    """The command-line overrides of a run in `folder`."""
    return [
        *TINY, f"run_dir={folder / 'run'}", f"model.path={bases.path(kind)}",
        f"data.output_dir={folder / 'chats'}",
        f"data.sources=[{{path: {bases.folder / 'chats.jsonl'}}}]", *more,
    ]  # fmt: skip


def train(bases: Bases, folder: Path, *more: str, kind: str = "llama") -> list[dict[str, Any]]:
    """Prepare and train; the run's metrics."""
    arguments = overrides(bases, folder, *more, kind=kind)
    for part in (["--prepare"], []):
        done = run("sft", *part, "--config", str(ROOT / "configs/sft/tiny.yaml"), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return metrics(folder / "run")


def metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's metrics.jsonl, without that of the base model's validation (step 0)."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [numbers for line in lines if (numbers := json.loads(line))["step"] > 0]


def answer(folder: str | Path, question: str, adapter: Path | None = None, *, length: int = 40) -> str:
    """What the model says to a question, greedily, special tokens included."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(adapter or folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    if adapter:
        model = PeftModel.from_pretrained(model, str(adapter))
    messages = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )["input_ids"]
    written = model.generate(
        input_ids=ids, max_new_tokens=length, do_sample=False, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return str(tokenizer.decode(written[0, ids.shape[1] :]))
