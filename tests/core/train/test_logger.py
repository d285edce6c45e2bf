"""What a run leaves behind for people and programs: metrics, text, TensorBoard events, the curve."""

import json
from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from core.config.schema import LoggingConfig
from core.train.logger import Log, draw_loss, read_metrics
from core.train.run_dir import summary


def numbers(step: int, **more: float) -> dict[str, float]:
    """A step's numbers as the training loop gives them."""
    return {"step": step, "tokens": 1000 * step, "loss": 4 / step, "learning_rate": 1e-4} | more


def log_steps(folder: Path, first: int, last: int, *, close: bool = True, tensorboard: bool = False) -> None:
    """A run that goes on after step `first` - 1 and ends after step `last`; a killed one is never closed."""
    log = Log(folder, LoggingConfig(tensorboard=tensorboard), {}, active=True)
    log.start(first - 1, 10)
    for step in range(first, last + 1):
        log.metrics(numbers(step))
        log.advance()
    if close:
        log.close("done")


def steps(folder: Path) -> list[float]:
    return [line["step"] for line in read_metrics(folder)]


def test_the_base_models_validation_is_kept_by_a_resume_and_replaced_by_a_new_start(tmp_path: Path) -> None:
    for first, losses in ((1, [7.5]), (1, [7.25]), (3, [7.25])):
        log = Log(tmp_path, LoggingConfig(tensorboard=False), {}, active=True)
        log.start(first - 1, 4)
        if first == 1:
            log.metrics({"step": 0, "tokens": 0, "validation_loss": losses[0]})
        for step in (first, first + 1):
            log.metrics(numbers(step, validation_loss=3.0, validation_bits_per_byte=1.5))
        log.close(summary(tmp_path))
        base = [line["validation_loss"] for line in read_metrics(tmp_path) if line["step"] == 0]
        assert base == losses
    assert steps(tmp_path) == [0, 1, 2, 3, 4]
    last = (tmp_path / "log.txt").read_text().splitlines()[-1]
    assert last.endswith("base model (step 0): loss 7.250 → step 4: loss 3.000, 1.500 bits per byte")


def test_long_work_reports_its_progress_and_short_work_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter(range(0, 10_000, 25))
    log = Log(tmp_path, LoggingConfig(tensorboard=False), {}, active=True)
    assert list(log.track(range(8), "validation")) == list(range(8))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("core.train.logger.time.monotonic", lambda: next(seconds))
    assert list(log.track(range(8), "validation")) == list(range(8))
    assert capsys.readouterr().out.splitlines() == [
        "validation: 2 of 8, about 3.8 minutes left",
        "validation: 5 of 8, about 1.5 minutes left",
    ]


def test_every_step_is_one_json_object_a_line(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 3)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [numbers(1), numbers(2), numbers(3)]


def test_what_a_step_gave_is_on_the_disk_before_the_next_one(tmp_path: Path) -> None:
    log = Log(tmp_path, LoggingConfig(tensorboard=False), {}, active=True)
    log.start(0, 10)
    log.line("beginning")
    log.metrics(numbers(1))
    assert steps(tmp_path) == [1]
    assert "beginning" in (tmp_path / "log.txt").read_text()
    log.close("done")


def test_steps_that_are_done_again_stand_once(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 7, close=False)
    log_steps(tmp_path, 5, 6)
    assert steps(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_a_run_from_the_beginning_drops_all_that_stood_there(tmp_path: Path) -> None:
    log_steps(tmp_path, 1, 7)
    log_steps(tmp_path, 1, 2)
    assert steps(tmp_path) == [1, 2]


@pytest.mark.parametrize("rest", ['{"step": 4', '{"step": 4, "tokens": 4000, "loss": 1.0}', "\x00" * 20, "x"])
def test_a_last_line_that_a_kill_cut_short_is_left_out_and_not_continued(tmp_path: Path, rest: str) -> None:
    log_steps(tmp_path, 1, 3, close=False)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write(rest)
    assert steps(tmp_path) == [1, 2, 3]
    log_steps(tmp_path, 4, 5)
    assert steps(tmp_path) == [1, 2, 3, 4, 5]


def test_a_run_that_has_not_begun_has_no_metrics(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    log = Log(tmp_path, LoggingConfig(tensorboard=False), {}, active=True)
    log.close("stopped before the first step")
    assert not (tmp_path / "loss.png").exists()


def test_lines_are_shown_and_kept_with_their_time_over_all_parts_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_steps(tmp_path, 1, 2)
    log = Log(tmp_path, LoggingConfig(tensorboard=False), {}, active=True)
    log.line("损失 4.0")
    log.close("the end")
    assert capsys.readouterr().out == "done\n损失 4.0\nthe end\n"
    kept = (tmp_path / "log.txt").read_text("utf-8").splitlines()
    assert [line[20:] for line in kept] == ["done", "损失 4.0", "the end"]


def test_the_other_processes_of_a_run_write_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = Log(tmp_path / "run", LoggingConfig(), {}, active=False)
    log.start(0, 10)
    log.line("hello")
    log.metrics(numbers(1))
    log.advance()
    log.close("done")
    assert not (tmp_path / "run").exists()
    assert capsys.readouterr().out == ""


def test_the_curve_shows_training_in_one_colour_and_validation_in_another(tmp_path: Path) -> None:
    def colours(name: str) -> np.ndarray:
        image = (imread(tmp_path / name)[..., :3] * 255).round().astype(int)
        assert image.shape[0] >= 300
        assert image.shape[1] >= 500
        return np.unique(image.reshape(-1, 3), axis=0)

    blue, red = [122, 156, 198], [192, 57, 43]
    metrics = [numbers(step) for step in range(1, 20)]
    draw_loss(metrics, tmp_path / "training.png")
    draw_loss([line | {"validation_loss": 1.5} for line in metrics], tmp_path / "both.png")
    assert blue in colours("training.png").tolist()
    assert red not in colours("training.png").tolist()
    assert blue in colours("both.png").tolist()
    assert red in colours("both.png").tolist()


def test_a_loss_that_was_not_finite_does_not_stop_the_curve(tmp_path: Path) -> None:
    log = Log(tmp_path, LoggingConfig(tensorboard=False), {}, active=True)
    log.start(0, 3)
    for step, loss in enumerate((3.0, float("nan"), float("inf")), 1):
        log.metrics(numbers(step, loss=loss))
    log.close("done")
    assert imread(tmp_path / "loss.png").std() > 0


def test_tensorboard_shows_the_same_numbers(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log_steps(tmp_path, 1, 5, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == ["learning_rate", "loss", "tokens"]
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [
        (step, pytest.approx(4 / step)) for step in range(1, 6)
    ]
