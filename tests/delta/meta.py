"""Random LLaMA weights in Meta's layout, and Meta's formulas for their logits."""

import base64
import json
from pathlib import Path
from typing import Any

import torch

DIM, LAYERS, HEADS, VOCABULARY, INNER = 32, 2, 4, 300, 64
HEAD = DIM // HEADS
Weights = dict[str, torch.Tensor]


def meta_weights(kv: int, dtype: torch.dtype, vocabulary: int = VOCABULARY, tied: bool = False) -> Weights:
    """Complete weights, named as in `consolidated.00.pth`."""
    torch.manual_seed(0)
    shapes: dict[str, tuple[int, ...]] = {
        "tok_embeddings.weight": (vocabulary, DIM),
        "norm.weight": (DIM,),
        "output.weight": (vocabulary, DIM),
    }
    for n in range(LAYERS):
        shapes |= {f"layers.{n}.attention.{w}.weight": (DIM, DIM) for w in ("wq", "wo")}
        shapes |= {f"layers.{n}.attention.{w}.weight": (kv * HEAD, DIM) for w in ("wk", "wv")}
        shapes |= {f"layers.{n}.feed_forward.{w}.weight": (INNER, DIM) for w in ("w1", "w3")}
        shapes |= {f"layers.{n}.feed_forward.w2.weight": (DIM, INNER)}
        shapes |= {f"layers.{n}.{w}.weight": (DIM,) for w in ("attention_norm", "ffn_norm")}
    weights = {name: (torch.randn(shape) * 0.3).to(dtype) for name, shape in shapes.items()}
    if tied:
        weights["output.weight"] = weights["tok_embeddings.weight"].clone()
    return weights


def save_meta(folder: Path, weights: Weights, parts: int, **params: Any) -> Path:
    """Split the weights into `parts` files; LLaMA 3 splits the rows of the embedding, the others its
    columns."""
    folder.mkdir()
    third = weights["tok_embeddings.weight"].shape[0] >= 128_000
    for number in range(parts):
        cut = {}
        for name, value in weights.items():
            columns = ".wo." in name or ".w2." in name or (name.startswith("tok") and not third)
            of_parts = value.chunk(parts, dim=int(columns)) if value.dim() > 1 else [value] * parts
            cut[name] = of_parts[number].clone()
        torch.save({**cut, "rope.freqs": torch.ones(4)}, folder / f"consolidated.{number:02}.pth")
    shape = {"dim": DIM, "n_layers": LAYERS, "n_heads": HEADS, "multiple_of": INNER, "vocab_size": -1}
    (folder / "params.json").write_text(json.dumps({**shape, "norm_eps": 1e-5, **params}))
    if third:
        save_ranks(folder / "tokenizer.model")
    else:
        save_pieces(folder / "tokenizer.model")
    return folder


def save_ranks(file: Path) -> None:
    """A byte-level vocabulary with a few merges, in LLaMA 3's format."""
    tokens = [bytes([n]) for n in range(256)] + [b"th", b"the", b" the", b"cl", b"aim", b"claim"]
    lines = [f"{base64.b64encode(token).decode()} {rank}\n" for rank, token in enumerate(tokens)]
    file.write_text("".join(lines))


def save_pieces(file: Path) -> None:
    """A small SentencePiece model with byte fallback, as in LLaMA 1 and 2."""
    import io

    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a claim of the patent, wherein the claim is novel"] * 20), model_writer=made,
        vocab_size=290, model_type="bpe", byte_fallback=True, minloglevel=2,
    )  # fmt: skip
    file.write_bytes(made.getvalue())


def frequencies(theta: float, scale: float | None) -> torch.Tensor:
    """The rotation angle of each pair per position; LLaMA 3.1 and later scale the low frequencies."""
    turns = theta ** (-torch.arange(0, HEAD, 2) / HEAD)
    if scale is None:
        return turns
    length = 2 * torch.pi / turns
    smooth = ((8192 / length - 1) / (4 - 1)).clamp(0, 1)
    return (1 - smooth) * turns / scale + smooth * turns


def meta_logits(w: Weights, tokens: torch.Tensor, kv: int, theta: float, scale: float | None) -> torch.Tensor:
    """LLaMA as defined by its paper and Meta's release, with adjacent rotary pairs."""
    w = {name: value.float() for name, value in w.items()}

    def norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight

    length = len(tokens)
    angles = torch.outer(torch.arange(length), frequencies(theta, scale))
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]

    def rotate(x: torch.Tensor) -> torch.Tensor:
        pairs = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
        return torch.view_as_real(pairs * turn).flatten(-2)

    x = w["tok_embeddings.weight"][tokens]
    for n in range(LAYERS):
        a = {k: w[f"layers.{n}.attention.w{k}.weight"] for k in "qkvo"}
        h = norm(x, w[f"layers.{n}.attention_norm.weight"])
        q = rotate((h @ a["q"].T).view(length, HEADS, HEAD))
        k = rotate((h @ a["k"].T).view(length, kv, HEAD)).repeat_interleave(HEADS // kv, 1)
        v = (h @ a["v"].T).view(length, kv, HEAD).repeat_interleave(HEADS // kv, 1)
        scores = torch.einsum("ihd,jhd->hij", q, k) / HEAD**0.5
        scores = scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1)
        x = x + torch.einsum("hij,jhd->ihd", scores, v).flatten(1) @ a["o"].T
        f = {k: w[f"layers.{n}.feed_forward.w{k}.weight"] for k in "123"}
        h = norm(x, w[f"layers.{n}.ffn_norm.weight"])
        x = x + (torch.nn.functional.silu(h @ f["1"].T) * (h @ f["3"].T)) @ f["2"].T
    return norm(x, w["norm.weight"]) @ w["output.weight"].T
