"""The numbers of training: against transformers, across processes and ZeRO stages."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core.config.loader import load
from core.distributed.process_group import World
from core.train.loop import Batches
from core.train.lr_schedule import rate
from data.packing.indexed_dataset import Documents
from data.packing.packed_dataset import Blocks
from pretrain.config import PretrainConfig
from tests.conftest import ROOT, TinyRuns, losses, run, warm
from tests.pretrain.folders import weights


@pytest.fixture(scope="module")
def reference(tiny: TinyRuns) -> list[dict[str, Any]]:
    """Ten steps of one process."""
    return tiny.train("reference", "deepspeed.zero_stage=1")


def test_the_loss_at_step_0_is_what_transformers_computes_on_the_same_batch(
    tiny: TinyRuns, tmp_path: Path
) -> None:
    """Document by document, each alone: what leaks from one to another inside a block would show.

    The weights are large, so that attention matters; with those of a new model a leak would hide in the
    rounding.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config, blocks = _config_and_blocks(tiny)
    model = AutoModelForCausalLM.from_pretrained(config.model.path)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(8 if "proj" in name else 1)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(config.model.path).save_pretrained(tmp_path)
    batch = 12  # some blocks of it hold several documents
    settings = ["training.steps=1", f"training.global_batch_size={batch}"]
    first_loss = tiny.train("step-0", f"model.path={tmp_path}", *settings)[0]["loss"]

    order = _order(config, blocks)
    nll, tokens, pieces = 0.0, 0, 0
    for position in range(batch):
        block = blocks[order[position]]
        for first, last in _documents_of(block):
            ids = torch.from_numpy(block["input_ids"][first:last])
            labels = torch.from_numpy(block["labels"][first:last])
            whole = torch.cat([ids, labels[-1:]])[
                None
            ]  # a document by itself, labels shifted by transformers
            trained = int((labels >= 0).sum())
            if trained:
                with torch.no_grad():
                    nll += float(model(input_ids=whole, labels=whole).loss) * trained
                tokens += trained
                pieces += 1
    assert pieces > batch, "blocks were to hold several documents"
    assert first_loss == pytest.approx(nll / tokens, abs=1e-5)


def test_the_trajectory_is_that_of_transformers_trainer(tiny: TinyRuns, tmp_path: Path) -> None:
    """20 steps in fp32 with accumulation, clipping, weight decay and a schedule, on the same packed
    blocks."""
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    settings = ["training.steps=20", "training.micro_batch_size=1", "training.validate_every_steps=null"]
    ours = tiny.train("trajectory", *settings)

    config, blocks = _config_and_blocks(tiny, *settings)
    model = AutoModelForCausalLM.from_pretrained(config.model.path)
    model.config.use_cache = False

    class InOrder(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
        order = _order(config, blocks)

        def __len__(self) -> int:
            return 20 * config.training.global_batch_size

        def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
            block = {name: torch.from_numpy(value) for name, value in blocks[self.order[position]].items()}
            return {**block, "shift_labels": block["labels"]}

    class Sequential(Trainer):
        def _get_train_sampler(self, *_: object) -> Any:
            return torch.utils.data.SequentialSampler(self.train_dataset)

    arguments = TrainingArguments(
        output_dir=str(tmp_path), max_steps=20, per_device_train_batch_size=1, use_cpu=True,
        gradient_accumulation_steps=config.training.global_batch_size, logging_steps=1, report_to=[],
        weight_decay=config.optimizer.weight_decay, max_grad_norm=config.training.max_gradient_norm,
        save_strategy="no", remove_unused_columns=False, disable_tqdm=True,
    )  # fmt: skip
    optimizer = torch.optim.AdamW(
        Sequential.get_optimizer_grouped_parameters(model, config.optimizer.weight_decay)
        if hasattr(Sequential, "get_optimizer_grouped_parameters")
        else _groups(model, config.optimizer.weight_decay),
        lr=config.optimizer.learning_rate, betas=config.optimizer.betas, eps=config.optimizer.epsilon,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(config.schedule, step, 20))
    trainer = Sequential(model, arguments, train_dataset=InOrder(), optimizers=(optimizer, schedule))
    trainer.train()

    theirs = [line for line in trainer.state.log_history if "loss" in line]
    assert len(theirs) == len(ours) == 20
    np.testing.assert_allclose(losses(ours), losses(theirs), rtol=1e-5)
    np.testing.assert_allclose(
        [m["gradient_norm"] for m in ours], [m["grad_norm"] for m in theirs], rtol=1e-4
    )


@pytest.mark.parametrize(
    "stage", [2, 3, pytest.param(0, marks=pytest.mark.slow), pytest.param(1, marks=pytest.mark.slow)]
)
def test_two_processes_give_the_losses_of_one(
    tiny: TinyRuns, reference: list[dict[str, Any]], stage: int
) -> None:
    found = tiny.train(f"zero-{stage}", f"deepspeed.zero_stage={stage}", processes=2)
    np.testing.assert_allclose(losses(found), losses(reference), rtol=1e-4)
    for column in ("gradient_norm", "learning_rate", "tokens"):
        np.testing.assert_allclose(
            [m[column] for m in found], [m[column] for m in reference], rtol=1e-3, err_msg=column
        )
    assert found[-1]["validation_loss"] == pytest.approx(reference[-1]["validation_loss"], rel=1e-4)
    both = [weights(tiny.folder / name / "model") for name in (f"zero-{stage}", "reference")]
    torch.testing.assert_close(*both, rtol=0, atol=2e-4)


@pytest.mark.parametrize("stage", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_gradients_reduced_during_the_backward_pass_are_those_reduced_after_it(
    tiny: TinyRuns, stage: int, tmp_path: Path
) -> None:
    """To the bit, over several micro-batches and many small buckets. A CPU has no streams: what is compared
    is the second bucket, and that the two take turns."""
    found = []
    for overlap in (True, False):
        given = {"zero_optimization": {"reduce_bucket_size": 4096, "overlap_comm": overlap}}
        (tmp_path / "own.json").write_text(json.dumps(given))
        name = f"overlap-{stage}-{overlap}"
        settings = [f"deepspeed.zero_stage={stage}", "training.micro_batch_size=1", "training.steps=4"]
        json_file = f"deepspeed.json_file={tmp_path / 'own.json'}"
        found.append(tiny.train(name, *settings, json_file, processes=2))
    for column in ("loss", "gradient_norm", "validation_loss"):
        both = ([line.get(column) for line in lines] for lines in found)
        assert next(both) == next(both), column


@pytest.mark.parametrize("split", [1, pytest.param(4, marks=pytest.mark.slow)])
def test_any_micro_batch_size_gives_the_same_losses(
    tiny: TinyRuns, reference: list[dict[str, Any]], split: int
) -> None:
    found = tiny.train(f"micro-{split}", f"training.micro_batch_size={split}", "deepspeed.zero_stage=0")
    np.testing.assert_allclose(losses(found), losses(reference), rtol=1e-4)


@pytest.mark.slow
def test_two_hosts_of_a_hostfile_give_the_losses_of_one_process(
    tiny: TinyRuns, reference: list[dict[str, Any]], tmp_path: Path
) -> None:
    """Two agents on this machine; `localhost` is started without ssh."""
    (tmp_path / "hosts").write_text("localhost slots=1\nlocalhost slots=1  # the same machine\n")
    settings = tiny.overrides("two-hosts", "deepspeed.zero_stage=2")
    done = run("core.launch", "--hostfile", tmp_path / "hosts", "-m", "pretrain", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    np.testing.assert_allclose(losses(tiny.metrics("two-hosts")), losses(reference), rtol=1e-4)


def test_a_finished_run_does_nothing_and_says_so(tiny: TinyRuns, reference: list[dict[str, Any]]) -> None:
    model = tiny.folder / "reference" / "model" / "model.safetensors"
    written = model.stat().st_mtime_ns
    done = warm("pretrain", *tiny.overrides("reference", "deepspeed.zero_stage=1"))
    assert done.returncode == 0, done.stderr
    assert "nothing left to do" in done.stdout
    assert model.stat().st_mtime_ns == written
    assert losses(tiny.metrics("reference")) == losses(reference)


@pytest.mark.parametrize("layout", ["sharded safetensors", pytest.param("bin", marks=pytest.mark.slow)])
def test_training_goes_on_from_a_base_that_transformers_saved(
    tiny: TinyRuns, layout: str, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    config, _ = _config_and_blocks(tiny)
    model = AutoModelForCausalLM.from_pretrained(config.model.path)
    if layout == "bin":
        model.config.save_pretrained(tmp_path)
        torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    else:
        model.save_pretrained(tmp_path, max_shard_size="40KB")
        assert len(list(tmp_path.glob("*.safetensors"))) > 1
    AutoTokenizer.from_pretrained(config.model.path).save_pretrained(tmp_path)
    name = f"continued-{layout.split(maxsplit=1)[0]}"
    found = tiny.train(name, f"model.path={tmp_path}", "training.steps=3", "deepspeed.zero_stage=3")
    plain = tiny.train(f"{name}-plain", "training.steps=3", "deepspeed.zero_stage=0")
    np.testing.assert_allclose(losses(found), losses(plain), rtol=1e-5)
    exported = AutoModelForCausalLM.from_pretrained(tiny.folder / name / "model")
    assert not torch.equal(exported.model.embed_tokens.weight, model.model.embed_tokens.weight), (
        "it was trained"
    )
    assert len(AutoTokenizer.from_pretrained(tiny.folder / name / "model")) == 1400


def test_the_export_computes_the_validation_loss_that_training_reported(
    tiny: TinyRuns, reference: list[dict[str, Any]]
) -> None:
    """The exported folder is the trained model, whole: transformers finds the same loss on the held-out
    text."""
    from transformers import AutoModelForCausalLM

    from data.packing.packed_dataset import choose_documents

    config, _ = _config_and_blocks(tiny)
    documents = Documents(Path(config.data.output_dir) / "pack" / "validation")
    model = AutoModelForCausalLM.from_pretrained(tiny.folder / "reference" / "model")
    nll, tokens = 0.0, 0
    chosen = choose_documents(documents, config.validation_tokens, config.data.pack.seed)
    blocks = Blocks(documents, config.sequence_length, packing="best-fit", padding_id=2, chosen=chosen)
    for i in range(len(blocks)):
        block = {name: torch.from_numpy(value)[None] for name, value in blocks[i].items()}
        with torch.no_grad():
            logits = model(
                input_ids=block["input_ids"], position_ids=block["position_ids"], use_cache=False
            ).logits
        trained = block["labels"] != -100
        nll -= float(
            logits.log_softmax(-1).gather(-1, block["labels"].clamp(0)[..., None])[..., 0][trained].sum()
        )
        tokens += int(trained.sum())
    assert reference[-1]["validation_loss"] == pytest.approx(nll / tokens, rel=1e-5)


def _config_and_blocks(tiny: TinyRuns, *more: str) -> tuple[PretrainConfig, Blocks]:
    config = load(PretrainConfig, ROOT / "configs/pretrain/tiny.yaml", tiny.overrides("reference", *more))
    documents = Documents(Path(config.data.output_dir) / "pack" / "train")
    return config, Blocks(documents, config.sequence_length, packing=config.packing, padding_id=2)


def _order(config: PretrainConfig, blocks: Blocks) -> list[int]:
    world = World(0, 1, 0, torch.device("cpu"))
    positions = 20 * config.training.global_batch_size
    batches = Batches(blocks, config.training, positions, world)
    return [batches.index(position) for position in range(positions)]


def _documents_of(block: dict[str, np.ndarray]) -> list[tuple[int, int]]:
    starts = np.flatnonzero(block["position_ids"] == 0).tolist()
    return list(zip(starts, [*starts[1:], len(block["position_ids"])], strict=True))


def _groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """transformers' own split: no decay on norms and biases."""
    parameters = list(model.named_parameters())
    plain = [p for name, p in parameters if "norm" in name or name.endswith("bias")]
    rest = [p for name, p in parameters if not ("norm" in name or name.endswith("bias"))]
    return [{"params": rest, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
