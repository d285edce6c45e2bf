"""A delta that is the model itself under another name is refused, or says so where that is allowed."""

from pathlib import Path

import numpy as np
import pytest

from tests.delta.models import Arrays, bits, delta, random_model, save, tuned

NORM, INV_FREQ = "model.norm.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"


def of_type(model: Arrays, dtype: str, *parts: str) -> Arrays:
    """Random weights of another type in the tensors whose names have one of `parts`; in all without."""
    rng = np.random.default_rng(3)
    other = {
        name: (dtype, bits(np.asarray(rng.standard_normal(values.shape)), dtype))
        for name, (_, values) in model.items()
        if any(part in name for part in parts or [""])
    }
    return model | other


BASE = random_model("F16")
MOSTLY_WHOLE: dict[str, tuple[Arrays, Arrays, str]] = {
    "another type": (BASE, of_type(BASE, "F32"), "6 of 6 tensors would be stored whole (a share of 100%)"),
    "another type of the layers": (BASE, of_type(BASE, "BF16", "layers"), "3 of 6"),
    "more rows than before": (random_model("F16", 8), tuned(random_model("F16", 8), 400_000), "in new rows"),
    "other names": (BASE, {f"x.{name}": value for name, value in BASE.items()}, "6 of 6"),
    "most tensors, few bytes": (BASE, of_type(BASE, "F32", "norm", "q_proj", "lm_head"), "4 of 6"),
    "buffers do not dilute it": (
        BASE | {f"{n}.{INV_FREQ}": BASE[NORM] for n in range(20)},
        of_type(BASE, "F32") | {f"{n}.{INV_FREQ}": BASE[NORM] for n in range(20)},
        "6 of 6",
    ),
}  # fmt: skip
MOSTLY_DIFFERENCES: dict[str, tuple[Arrays, Arrays]] = {
    "tuned": (BASE, tuned(BASE)),
    "some rows": (BASE, tuned(BASE, 53)),
    "unchanged": (BASE, BASE),
    "one tensor of another type": (BASE, of_type(BASE, "F32", "lm_head")),
    "buffers of one's own": (BASE, BASE | {f"{n}.{INV_FREQ}": BASE[NORM] for n in range(20)}),
}


@pytest.mark.parametrize("case", MOSTLY_WHOLE)
def test_a_model_stored_whole_needs_a_word(tmp_path: Path, case: str) -> None:
    base, target, named = MOSTLY_WHOLE[case]
    folders = [
        "--base", save(tmp_path / "base", base), "--target", save(tmp_path / "target", target),
        "--delta", tmp_path / "delta",
    ]  # fmt: skip
    code, said = delta("make", *folders)
    assert code == 2
    assert named in said
    assert "--allow-whole" in said
    assert not (tmp_path / "delta").exists()
    assert delta("make", *folders, "--dry-run")[0] == 2
    code, said = delta("make", *folders, "--allow-whole")
    assert code == 0
    assert "warning: a share of" in said
    assert "**Warning**: a share of" in (tmp_path / "delta/README.md").read_text()
    assert "warning: a share of" in delta("info", tmp_path / "delta")[1]


@pytest.mark.parametrize("case", MOSTLY_DIFFERENCES)
def test_a_difference_needs_none(tmp_path: Path, case: str) -> None:
    base, target = MOSTLY_DIFFERENCES[case]
    folders = ["--base", save(tmp_path / "base", base), "--target", save(tmp_path / "target", target)]
    code, said = delta("make", *folders, "--delta", tmp_path / "delta")
    assert code == 0
    assert "warning" not in said.lower()


def test_so_does_an_additive_delta_of_embeddings(tmp_path: Path) -> None:
    small = {name: value for name, value in random_model("F16", 4000).items() if "up_proj" not in name}
    folders = [
        "--base",
        save(tmp_path / "base", small),
        "--target",
        save(tmp_path / "target", tuned(small, 4000)),
    ]
    rule = ["make", "--rule", "patent-llama", *folders, "--delta", tmp_path / "delta"]
    code, said = delta(*rule)
    assert code == 2
    assert "--allow-whole" in said
    code, said = delta(*rule, "--allow-whole")
    assert code == 0
    assert "warning: 2 of 5 tensors would be stored whole" in said
    assert delta("make", "--rule", "fastchat", *rule[3:])[0] == 2  # there already
