"""Make old.tar.xz: results of the code as it was when it was frozen, which later code must still open.

    python -m tests.frozen.make_old [FILE]       tests/frozen/old/old.tar.xz, unless FILE is given

All commands run inside the folder that is packed, so the paths in its files are relative ones, and it can be
opened anywhere. Run it again only where old results are meant to be given up.
"""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.conftest import ROOT
from tests.frozen import inputs

ARCHIVE = Path(__file__).parent / "old" / "old.tar.xz"
SHORT = [
    "training.steps=4", "training.global_batch_size=4", "training.micro_batch_size=2",
    "training.validate_every_steps=2", "training.save_every_steps=4", "training.keep_checkpoints=1",
    "optimizer.learning_rate=2e-3", "logging.every_steps=1", "logging.tensorboard=false",
    "deepspeed.zero_stage=1",
]  # fmt: skip
PRETRAIN = [
    *SHORT, "run_dir=run", "data.output_dir=corpus", "data.synthetic.inventions=12",
    "data.pack.validation_share=0.1", "data.pack.parts=[title, abstract]", "data.engine.workers=1",
    "data.tokenizer.path=tokenizer", "data.tokenizer.vocabulary_size=null", "sequence_length=128",
    "validation_tokens=2000",
    "model.architecture={model_type: llama, hidden_size: 16, intermediate_size: 32, num_hidden_layers: 1,"
    " num_attention_heads: 2, num_key_value_heads: 1, max_position_embeddings: 256}",
]  # fmt: skip
TUNE = [*SHORT, "data.template=patent-llama", "model.path=run/model",
        "model.adapter={r: 2, alpha: 4, dropout: 0.0}"]  # fmt: skip
SFT = [*TUNE, "run_dir=lora", "stages=[]", "data.output_dir=chats", "data.max_tokens=128",
       "data.validation_share=0.1", "data.engine.workers=1",
       "data.sources=[{name: chats, path: chats.jsonl}]"]  # fmt: skip
DPO = [*TUNE, "run_dir=dpo", "data.paths=[pairs.jsonl]", "data.max_tokens=64", "data.validation_share=0.2"]
TASKS = ",".join(f"questions/{name}.yaml" for name in inputs.TASKS)
ASK = ["--tasks", TASKS, "--data", "questions"]
COMMANDS = [
    ["pretrain", "--prepare", "--config", "configs/pretrain/tiny.yaml", *PRETRAIN],
    ["pretrain", "--config", "configs/pretrain/tiny.yaml", *PRETRAIN],
    ["sft", "--prepare", "--config", "configs/sft/tiny.yaml", *SFT],
    ["sft", "--config", "configs/sft/tiny.yaml", *SFT],
    ["sft", "dpo", "--config", "configs/sft/dpo.yaml", *DPO],
    ["delta", "make", "--base", "run/base", "--target", "run/model", "--delta", "difference"],
    ["eval", "run", "--model", "run/base", *ASK, "--output", "answers-base"],
    ["eval", "run", "--model", "run/model", *ASK, "--output", "answers-model"],
]


def main(archive: Path) -> None:
    """Make everything in a folder and pack it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "old"
        inputs.write_all(folder)
        variables = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
        (folder / "configs").symlink_to(ROOT / "configs")
        for command in COMMANDS:
            subprocess.run([sys.executable, "-m", *command], cwd=folder, env=variables, check=True)
        (folder / "configs").unlink()
        shutil.rmtree(folder / "base")
        # Of answers `.lock` is among the outputs that their manifest names; it stays.
        for file in [*folder.glob("**/.*.lock"), *folder.rglob("*.png"), *folder.rglob("report.html")]:
            file.unlink()
        archive.parent.mkdir(exist_ok=True)
        with tarfile.open(archive, "w:xz") as packed:
            packed.add(folder, "old", filter=_anonymous)


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = member.mtime = 0
    member.uname = member.gname = ""
    return member


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ARCHIVE)
