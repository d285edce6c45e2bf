"""The frozen work: short runs of every command that makes weights, tokens, a delta or scores.

Only commands and files are used here, so that it does not matter which module does what.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import run, warm
from tests.frozen import inputs

RUN = [
    "training.steps=10", "training.global_batch_size=4", "training.micro_batch_size=2",
    "training.validate_every_steps=5", "training.save_every_steps=5", "optimizer.learning_rate=2e-3",
    "logging.every_steps=1", "logging.tensorboard=false", "deepspeed.zero_stage=1",
]  # fmt: skip
CORPUS = ["synthetic.inventions=24", "pack.validation_share=0.1", "pack.parts=[title, abstract]",
          "engine.workers=1"]  # fmt: skip
ARCHITECTURE = (
    "model.architecture={model_type: llama, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2,"
    " num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 256}"
)
HEAVY = ("pretrain", "sft", "data run", "data chats", "eval run")
"""Commands that load the libraries; others start sooner without them."""
NUMBERS = ("step", "tokens", "loss", "learning_rate", "gradient_norm", "validation_loss")


@dataclass(frozen=True)
class Work:
    """Commands on the inputs in `folder`, each with its results in a folder of its own beside them."""

    folder: Path

    def do(self, *arguments: str | Path, processes: int = 1) -> str:
        """A command's output; fails with the command's own words where it fails."""
        words = [str(each) for each in arguments]
        if words[0] == "tests.frozen.at":
            words = words[2:]
        heavy = words[0] in HEAVY or " ".join(words[:2]) in HEAVY
        done = warm(*arguments, processes=processes) if heavy else run(*arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def corpus(self, name: str, *more: str) -> Path:
        """A packed corpus of made-up patents, by the fixed tokenizer unless `more` says otherwise."""
        tokenizer = [f"tokenizer.path={self.folder / 'tokenizer'}", "tokenizer.vocabulary_size=null"]
        self.do("data", "run", *CORPUS, *(more or tokenizer), f"output_dir={self.folder / name}")
        return self.folder / name

    def pretrain(self, name: str, *more: str, processes: int = 1) -> Path:
        """A run from random weights on a corpus by the fixed tokenizer."""
        arguments = [
            *RUN, *(f"data.{each}" for each in CORPUS), "sequence_length=128", "validation_tokens=2000",
            ARCHITECTURE, f"data.output_dir={self.folder / 'corpus'}", f"run_dir={self.folder / name}",
            f"data.tokenizer.path={self.folder / 'tokenizer'}", "data.tokenizer.vocabulary_size=null",
            "schedule.kind=cosine", "schedule.final_share=0.1", "schedule.warmup_share=0.05", *more,
        ]  # fmt: skip
        self.do("pretrain", "--prepare", *arguments)
        self.do("pretrain", *arguments, processes=processes)
        return self.folder / name

    def sft(self, name: str, *more: str, processes: int = 1) -> Path:
        """Instruction tuning of the base."""
        arguments = [
            *RUN, "stages=[]", "data.template=patent-llama", "data.max_tokens=128",
            "data.validation_share=0.1", "data.engine.workers=1", f"model.path={self.folder / 'base'}",
            f"data.output_dir={self.folder / 'chats'}", f"run_dir={self.folder / name}",
            f"data.sources=[{{name: chats, path: {self.folder / 'chats.jsonl'}}}]", *more,
        ]  # fmt: skip
        self.do("sft", "--prepare", *arguments)
        self.do("sft", *arguments, processes=processes)
        return self.folder / name

    def dpo(self, name: str, *more: str) -> Path:
        """Preference tuning of the base."""
        self.do(
            "sft", "dpo", *RUN, "data.template=patent-llama", "data.max_tokens=64",
            "data.validation_share=0.2", f"data.paths=[{self.folder / 'pairs.jsonl'}]",
            f"model.path={self.folder / 'base'}", f"run_dir={self.folder / name}", *more,
        )  # fmt: skip
        return self.folder / name

    def evaluate(self, name: str, model: Path, *more: str | Path) -> Path:
        """Answers and scores of a model on all tasks."""
        place, output = self.folder / "questions", self.folder / name
        tasks = ",".join(str(place / f"{task}.yaml") for task in inputs.TASKS)
        self.do("eval", "run", "--model", model, "--tasks", tasks, "--data", place, "--output", output, *more)
        return output


LORA = ("model.adapter={r: 4, alpha: 8, dropout: 0.1}",)


def metrics(run: Path) -> list[dict[str, Any]]:
    """What a run's metrics.jsonl says of the training itself, a line a step. Without step 0, the base's
    validation, which older runs do not have."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    lines = [line for line in lines if line["step"]]
    return [{name: line[name] for name in NUMBERS if name in line} for line in lines]


def norms(model: Path) -> dict[str, float]:
    """The 2-norm of every tensor of a model or an adapter."""
    from safetensors.torch import load_file

    return {
        name: float(tensor.double().norm())
        for file in sorted(model.glob("*.safetensors"))
        for name, tensor in sorted(load_file(file).items())
    }
