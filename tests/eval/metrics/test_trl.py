"""Token accuracy, entropy and loss equal what TRL's SFTTrainer logs on the same batches."""

from pathlib import Path

import pytest

from eval.metrics.perplexity import answer_tokens, trl
from eval.models.hf import open_model
from eval.models.loglikelihood import answer_likelihood
from eval.sample import EvalSample
from tests.eval.models.tiny import write_model

ROWS = [("问：" + "x" * i, "答案" * (1 + i % 4) + "。") for i in range(20)]


def test_accuracy_entropy_and_loss_are_those_of_trl(tmp_path: Path) -> None:
    pytest.importorskip("trl")
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    write_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    tokenizer.pad_token = tokenizer.eos_token
    rows = Dataset.from_list([{"prompt": prompt, "completion": answer} for prompt, answer in ROWS])
    config = SFTConfig(
        output_dir=str(tmp_path / "out"), report_to=[], use_cpu=True, bf16=False, dataloader_num_workers=0,
        per_device_eval_batch_size=8, max_length=None, disable_tqdm=True,
    )  # fmt: skip
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(tmp_path), args=config, train_dataset=rows,
        eval_dataset=rows, processing_class=tokenizer,
    )  # fmt: skip
    theirs = trainer.evaluate()

    samples = []
    for i, found in sorted(answer_likelihood(open_model(str(tmp_path)), ROWS), key=lambda each: each[0]):
        assert not isinstance(found, Exception)
        named = zip(("answer", "all"), found, strict=True)
        measured = {f"{of}_{name}": value for of, each in named for name, value in each._asdict().items()}
        samples.append(EvalSample(task="t", id=str(i), prediction="", reference="", measured=measured))
    ours = {
        m.name: float(m.combine(m.statistics.sum(axis=0))) for m in [*trl(samples), *answer_tokens(samples)]
    }
    assert ours["trl-token-accuracy"] == pytest.approx(theirs["eval_mean_token_accuracy"], abs=1e-6)
    assert ours["trl-entropy"] == pytest.approx(theirs["eval_entropy"], rel=1e-5)
    assert ours["trl-eval-loss"] == pytest.approx(theirs["eval_loss"], rel=1e-5)
    # The last batch is smaller: a mean of batches is not the mean of tokens.
    assert ours["answer-entropy"] != pytest.approx(theirs["eval_entropy"], rel=1e-5)
