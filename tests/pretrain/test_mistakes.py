"""Mistakes of a user and accidents of a machine: one clear message, exit code 2, nothing lost, no
traceback."""

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.conftest import TinyRuns, losses, warm


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """The command ended as a user's mistake should, and its message has all of `words`."""
    assert done.returncode == 2, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "error: " in done.stderr
    for word in words:
        assert word in done.stderr, f"{word!r} is not in: {done.stderr}"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("optimizer.learnig_rate=1e-5", ["optimizer.learnig_rate", "did you mean `optimizer.learning_rate`"]),
        ("training.precision=fp8", ["training.precision", "fp8", "'auto', 'bf16' or 'fp32'"]),
        ("optimizer.learning_rate=-1", ["optimizer.learning_rate", "-1", "greater than 0"]),
        ("training.global_batch_size=5", ["global_batch_size=5", "micro_batch_size=2"]),
        ("deepspeed.json_file=/nowhere.json", ["/nowhere.json", "no such file"]),
        ("model.path=/nowhere", ["/nowhere"]),
        ("run_dir=runs/[first]", ["run_dir=runs/[first]", "cannot find checkpoints"]),
        ("learning_rate", ["`learning_rate` is not of the form key.path=value"]),
    ],
)
def test_a_wrong_setting_is_named(tiny: TinyRuns, override: str, words: list[str]) -> None:
    refused(warm("pretrain", *tiny.overrides("wrong-setting", override)), *words)


def test_deepspeeds_own_clipping_is_refused_for_the_gradients_would_be_clipped_twice(
    tiny: TinyRuns, tmp_path: Path
) -> None:
    file = tmp_path / "own.json"
    file.write_text('{"gradient_clipping": 0.5}')
    done = warm("pretrain", *tiny.overrides("clipped", f"deepspeed.json_file={file}"))
    refused(done, "gradient_clipping", "training.max_gradient_norm")


@pytest.mark.parametrize(
    "stage", [1, pytest.param(0, marks=pytest.mark.slow), pytest.param(3, marks=pytest.mark.slow)]
)
def test_gradients_that_are_not_finite_are_skipped_and_end_the_run_within_the_limit(
    tiny: TinyRuns, tmp_path: Path, stage: int
) -> None:
    shutil.copytree(tiny.folder / "prepared" / "base", tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][0] = float("inf")
    save_file(weights, file, metadata={"format": "pt"})
    settings = [
        f"model.path={tmp_path / 'base'}",
        f"deepspeed.zero_stage={stage}",
        "training.max_skipped_steps=2",
    ]
    name = f"infinite-{stage}"
    done = warm("pretrain", *tiny.overrides(name, *settings, "training.validate_every_steps=null"))
    refused(done, "3 steps in a row", "not finite", "optimizer.learning_rate")
    assert "step 2: gradients are not finite; step skipped (2 in a row)" in done.stdout


def test_bf16_without_fp32_masters_is_refused(tiny: TinyRuns) -> None:
    settings = ["training.precision=bf16", "deepspeed.zero_stage=0"]
    refused(
        warm("pretrain", *tiny.overrides("no-masters", *settings)), "zero_stage=1", "training.precision=fp32"
    )


def test_all_wrong_settings_are_named_at_once(tiny: TinyRuns) -> None:
    wrong = ["training.steps=0", "schedule.kind=cosin", "sequence_lenght=64"]
    refused(
        warm("pretrain", *tiny.overrides("wrong", *wrong)),
        "3 errors",
        "training.steps",
        "schedule.kind",
        "sequence_length",
    )


def test_a_corpus_that_is_not_made_yet(tiny: TinyRuns, tmp_path: Path) -> None:
    done = warm("pretrain", *tiny.overrides("no-corpus", f"data.output_dir={tmp_path / 'absent'}"))
    refused(done, str(tmp_path / "absent"), "--prepare")


def test_a_source_that_does_not_exist(tiny: TinyRuns, tmp_path: Path) -> None:
    settings = ["data.sources=[/no/such/patents]", f"data.output_dir={tmp_path / 'corpus'}"]
    refused(warm("pretrain", "--prepare", *tiny.overrides("no-source", *settings)), "/no/such/patents")
    assert not (tmp_path / "corpus" / "ingest").exists()


def test_other_sources_do_not_overwrite_a_corpus(tiny: TinyRuns) -> None:
    done = warm("pretrain", "--prepare", *tiny.overrides("other", "data.synthetic.inventions=41"))
    refused(done, "synthetic.inventions", "40", "41", "data.output_dir=")


def test_an_unreadable_file_is_counted_and_named_and_the_rest_is_read(tiny: TinyRuns, tmp_path: Path) -> None:
    records = tiny.folder / "corpus" / "synthetic" / "records.jsonl"
    source = tmp_path / "source"
    source.mkdir()
    shutil.copy(records, source / "good.jsonl")
    (source / "broken.xml").write_text("<?xml version='1.0'?><us-patent-grant><unclosed>")
    (source / "latin.txt").write_bytes("Müller".encode("latin-1") * 40)
    done = warm(
        "data",
        "run",
        f"output_dir={tmp_path / 'corpus'}",
        f"sources=[{source}]",
        "tokenizer.vocabulary_size=1400",
    )
    assert done.returncode == 0, done.stderr
    rejected = [
        json.loads(line) for line in (tmp_path / "corpus/ingest/rejected.jsonl").read_text().splitlines()
    ]
    assert {Path(line["source"].split("#")[0]).name for line in rejected} == {"broken.xml", "latin.txt"}
    counts = json.loads((tmp_path / "corpus/ingest/manifest.json").read_text())["counts"]
    assert counts["documents"] == len(records.read_text().splitlines()) + 2
    assert counts["rejected"]["total"] == 2
    assert "rejected: 1 malformed-xml" in done.stdout


def test_a_tokenizer_larger_than_the_embedding(tiny: TinyRuns, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    base = tiny.folder / "prepared" / "base"
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(1280)
    model.save_pretrained(tmp_path)
    done = warm("pretrain", *tiny.overrides("large-tokenizer", f"model.path={tmp_path}"))
    refused(done, "1399", "1280 rows", str(tmp_path))


def test_a_base_with_another_tokenizer_than_the_corpus(tiny: TinyRuns, tmp_path: Path) -> None:
    """Ids within the embedding but with other meanings would train without a complaint, on noise."""
    shutil.copytree(tiny.folder / "prepared" / "base", tmp_path / "base")
    file = tmp_path / "base" / "tokenizer.json"
    tokenizer = json.loads(file.read_text("utf-8"))
    vocabulary = tokenizer["model"]["vocab"]
    first, second = list(vocabulary)[600:602]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(tokenizer), "utf-8")
    done = warm("pretrain", *tiny.overrides("other-tokenizer", f"model.path={tmp_path / 'base'}"))
    refused(done, "another tokenizer", "data.tokenizer.path=")


def test_a_base_with_a_truncated_or_missing_weight(tiny: TinyRuns, tmp_path: Path) -> None:
    shutil.copytree(tiny.folder / "prepared" / "base", tmp_path / "base")
    file = tmp_path / "base" / "model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1000])
    refused(
        warm("pretrain", *tiny.overrides("cut-base", f"model.path={tmp_path / 'base'}")),
        str(tmp_path / "base"),
    )
    file.write_bytes(whole)
    weights = load_file(file)
    weights.pop("model.layers.1.mlp.up_proj.weight")
    save_file(weights, file, metadata={"format": "pt"})
    done = warm("pretrain", *tiny.overrides("cut-base", f"model.path={tmp_path / 'base'}"))
    refused(done, "model.layers.1.mlp.up_proj.weight", "missing")


def _truncate(checkpoint: Path) -> None:
    file = max((checkpoint / "state").glob("*optim_states.pt"), key=lambda path: path.stat().st_size)
    file.write_bytes(file.read_bytes()[:-100])


def _flip_a_bit(checkpoint: Path) -> None:
    file = max((checkpoint / "state").glob("*optim_states.pt"), key=lambda path: path.stat().st_size)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))


def _remove_a_file(checkpoint: Path) -> None:
    next((checkpoint / "state").glob("*model_states.pt")).unlink()


@pytest.mark.parametrize(
    ("damage", "processes"),
    [
        (_flip_a_bit, 2),
        pytest.param(_truncate, 1, marks=pytest.mark.slow),
        pytest.param(_remove_a_file, 2, marks=pytest.mark.slow),
    ],
)
def test_a_damaged_checkpoint_is_never_trained_on_from(
    tiny: TinyRuns, damage: Callable[[Path], None], processes: int
) -> None:
    name = f"damaged{damage.__name__}"
    settings = ["deepspeed.zero_stage=1", "training.steps=6", "training.save_every_steps=2"]
    whole = tiny.train(name, *settings, processes=processes)
    checkpoints = sorted((tiny.folder / name / "checkpoints").glob("step-*"))
    assert [path.name for path in checkpoints] == ["step-00000004", "step-00000006"], (
        "the newest two are kept"
    )

    damage(checkpoints[1])
    done = warm("pretrain", *tiny.overrides(name, *settings), processes=processes)
    assert done.returncode == 0, done.stderr
    assert "not used" in done.stdout
    assert "resumed from" in done.stdout
    assert "step-00000004" in done.stdout
    assert losses(tiny.metrics(name)) == losses(whole)

    for checkpoint in (tiny.folder / name / "checkpoints").glob("step-*"):
        damage(checkpoint)
    done = warm("pretrain", *tiny.overrides(name, *settings), processes=processes)
    refused(done, "step-00000006", "Restore the files, or remove")


def test_another_model_or_data_in_a_run_that_has_checkpoints(tiny: TinyRuns) -> None:
    tiny.train("fixed", "training.steps=2", "training.save_every_steps=1")
    refused(
        warm("pretrain", *tiny.overrides("fixed", "sequence_length=64")),
        "sequence_length",
        "128",
        "64",
        "run_dir",
    )
    refused(warm("pretrain", *tiny.overrides("fixed", "resume=never")), "resume=never")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 3 MiB; needs the right to mount one."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small file system here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_during_a_checkpoint_keeps_the_last_one(tiny: TinyRuns, small_disk: Path) -> None:
    settings = [f"run_dir={small_disk / 'run'}", "training.save_every_steps=1", "training.keep_checkpoints=9"]
    done = warm("pretrain", *tiny.overrides("full-disk", *settings))
    refused(done, "disk is full")
    assert "saved" in done.stdout, "the disk was to hold one checkpoint at least"
    latest = (small_disk / "run" / "checkpoints" / "latest").read_text().strip()
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    done = warm("pretrain", *tiny.overrides("full-disk", *settings))
    assert done.returncode == 0, done.stderr
    assert f"resumed from {small_disk / 'run' / 'checkpoints' / latest}" in done.stdout


def test_two_runs_in_one_folder(tiny: TinyRuns) -> None:
    import fcntl

    folder = tiny.folder / "claimed"
    folder.mkdir()
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused(warm("pretrain", *tiny.overrides("claimed")), "another run is using this folder")
