"""Small random models as safetensors folders, for the tests of delta."""

import contextlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from delta import __main__ as command

NUMPY = {
    "F16": np.uint16,
    "BF16": np.uint16,
    "F32": np.uint32,
    "U8": np.uint8,
    "I64": np.int64,
    "F64": np.uint64,
}
Arrays = dict[str, tuple[str, np.ndarray[Any, Any]]]
"""Name to dtype and bit patterns."""


def bits(values: np.ndarray[Any, Any], dtype: str) -> np.ndarray[Any, Any]:
    """The bit patterns of float32 values in `dtype`; bf16 is rounded to nearest even."""
    values = values.astype(np.float32)
    if dtype == "F16":
        return values.astype(np.float16).view(np.uint16)
    patterns = values.view(np.uint32)
    if dtype == "BF16":
        return ((patterns + 0x7FFF + ((patterns >> 16) & 1)) >> 16).astype(np.uint16)
    return patterns


def random_model(dtype: str = "BF16", vocabulary: int = 40, seed: int = 0, tied: bool = False) -> Arrays:
    """One tensor of each kind in a LLaMA; one is longer than a chunk."""
    rng = np.random.default_rng(seed)
    shapes = {
        "model.embed_tokens.weight": (vocabulary, 16),
        "model.layers.0.self_attn.q_proj.weight": (16, 16),
        "model.layers.0.mlp.up_proj.weight": (1501, 700),
        "model.layers.0.input_layernorm.weight": (16,),
        "model.norm.weight": (16,),
        **({} if tied else {"lm_head.weight": (vocabulary, 16)}),
    }
    return {name: (dtype, bits(0.02 * rng.standard_normal(shape), dtype)) for name, shape in shapes.items()}


def tuned(base: Arrays, vocabulary: int = 40, seed: int = 1) -> Arrays:
    """The same model as if trained further: all but one norm changed, rows added to the vocabulary."""
    rng = np.random.default_rng(seed)
    result: Arrays = {}
    for name, (dtype, values) in base.items():
        new = values.copy()
        if name != "model.norm.weight":
            new += rng.integers(0, 3, new.shape).astype(new.dtype)
        if "embed" in name or "lm_head" in name:
            more = bits(rng.standard_normal((vocabulary - len(new), 16)), dtype)
            new = np.concatenate([new, more])
        result[name] = (dtype, new)
    return result


def save(folder: Path, arrays: Arrays, shards: int = 1, metadata: bool = True) -> Path:
    """Write a model's folder in the layout of transformers."""
    folder.mkdir(parents=True)
    names = list(arrays)
    shards = min(shards, max(1, len(names)))  # a file without tensors is in no index
    parts = [names[at::shards] for at in range(shards)]
    files = ["model.safetensors"]
    if shards > 1:
        files = [f"model-{at:05d}-of-{shards:05d}.safetensors" for at in range(1, shards + 1)]
        weight_map = {name: file for file, part in zip(files, parts, strict=True) for name in part}
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for file, part in zip(files, parts, strict=True):
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}} if metadata else {}
        position = 0
        for name in part:
            dtype, values = arrays[name]
            end = position + values.nbytes
            header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [position, end]}
            position = end
        raw = json.dumps(header).encode()
        raw += b" " * (-len(raw) % 8)
        data = b"".join(arrays[name][1].tobytes() for name in part)
        (folder / file).write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    (folder / "config.json").write_text('{"model_type": "llama"}\n')
    (folder / "tokenizer_config.json").write_text('{"pad_token": "夭"}', "utf-8")
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "generation_config.json").write_text("{}")
    return folder


def delta(*arguments: object) -> tuple[int, str]:
    """Run `python -m delta ARGUMENTS` in this process; its exit code and output."""
    output = io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stderr(output),
        contextlib.redirect_stdout(output),
        pytest.raises(SystemExit) as end,
    ):
        patch.setattr(sys, "argv", ["delta", *map(str, arguments)])
        command.main()
    return int(str(end.value.code)), output.getvalue()


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
