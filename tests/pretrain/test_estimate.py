"""`python -m pretrain estimate`: the table, the starred stage, the time and where the speed comes from."""

from tests.conftest import warm

SMALL = ["model.path=null", "model.architecture={model_type: llama, hidden_size: 64, intermediate_size: 96,"
         " num_hidden_layers: 4, num_attention_heads: 2}"]  # fmt: skip


def test_the_table_and_the_time_of_a_run() -> None:
    speed = ["--gpus", "4", "--tokens", "3.6e6", "--tokens-per-s", "100"]
    done = warm(
        "pretrain", "estimate", *speed, *SMALL, "deepspeed.zero_stage=2", "training.micro_batch_size=1"
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.lstrip("* ")[:2] in ("1 ", "2 ", "3 ")]
    assert [row.startswith("*") for row in rows] == [False, True, False], done.stdout
    assert "100 tokens/s and GPU (as given)" in done.stdout
    assert "2.5 hours, 10.0 GPU-hours" in done.stdout


def test_a_card_that_is_not_known_is_refused() -> None:
    done = warm("pretrain", "estimate", "--card", "Abacus", "--tokens", "1e9", *SMALL)
    assert done.returncode == 2
    assert "H200" in done.stderr
