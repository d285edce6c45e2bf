"""What is refused before a checkpoint is converted for another number of processes."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from core.checkpoint import resume
from core.errors import UserError


def test_a_conversion_that_the_disk_is_too_small_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = tmp_path / "step-1" / "state"
    state.mkdir(parents=True)
    for rank in range(2):
        torch.save(torch.zeros(100_000), state / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt")
    torch.save(torch.zeros(300_000), state / "mp_rank_00_model_states.pt")
    needed = 2 * 2 * 400_000 + 1_200_000  # and some bytes of torch's
    monkeypatch.setattr("core.checkpoint.resume.shutil.disk_usage", lambda _: SimpleNamespace(free=needed))
    with pytest.raises(UserError, match=r"0\.0 GB more are needed .* Free some space"):
        resume.convert(tmp_path / "step-1")
    assert [each.name for each in tmp_path.iterdir()] == ["step-1"]
    monkeypatch.setattr(
        "core.checkpoint.resume.shutil.disk_usage", lambda _: SimpleNamespace(free=needed + 20_000)
    )
    with pytest.raises(UserError, match="could not be converted"):  # these are no files of DeepSpeed's
        resume.convert(tmp_path / "step-1")
