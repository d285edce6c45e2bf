"""Is a base trained right? Tried out before training on a tiny random model of its class.

    configuration ──core/model/tiny.py──▶ a tiny model ──each document alone, transformers' attention──▶ loss
                                               └──as the run computes it, documents in one row──▶ the same?

A model that attention inside documents does not suit (soft-capped scores, attention sinks, ALiBi, recurrent
layers) keeps its own, with one document a row. A model that sees the future is refused.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from core.errors import UserError
from core.model import lora, loss_head, tiny, varlen_attention
from core.model.labels import IGNORED

if TYPE_CHECKING:
    from core.config.schema import AdapterConfig

TOLERANCE = 1e-4
"""Relative difference of losses in fp32 that counts as none."""
ROWS = ((21, 1, 18, 24), (40, 24))
"""Lengths of the documents in the rows of the trial."""
OWN_TOKEN = "own_token"
"""Name of `_own_token` among transformers' attention implementations."""
_known: dict[tuple[str, str, str, bool], "Way"] = {}
"""What has been tried out in this process."""
OWN = ("sdpa", "eager")
"""Attention of transformers that a model falls back to, the faster first."""
UNTRIED = "a tiny model of this configuration could not be built and tried out"


class Way(NamedTuple):
    """How a base is trained."""

    attention: str
    """The attention implementation to load it with."""
    apart: bool
    """Whether each document has a row of its own."""
    plain_head: bool
    """Whether its logits are the output layer's, unchanged, so that core/model/loss_head.py may compute the
    loss."""
    positions: int | None
    """The longest document that it has positions for; None if positions are not learnt."""
    why: str
    """Why it is another attention than asked for; empty if it is not."""


def prove(config: Any, asked: str, *, trust: bool = False) -> Way:
    """How a model of this configuration is trained if `asked` for this attention; UserError if it sees the
    future, if the attention changes its loss, or if it cannot be tried out (unless asked for eager, which
    needs no proof). The same configuration is tried once per process."""
    key = (str(type(config)), config.to_json_string(use_diff=False), asked, trust)
    if key not in _known:
        with aside():
            _known[key] = _prove(config, asked, trust)
    return _known[key]


def _prove(config: Any, asked: str, trust: bool) -> Way:
    family = config.model_type
    try:
        trial = Trial(config, trust)
        expected = trial.alone()
    except Exception as error:  # of any library
        why = f"{UNTRIED} ({_line(error)})"
        if asked == "eager":
            return Way("eager", True, False, None, why)
        raise UserError(
            f"{family}: {why}. model.attention=eager trains it as transformers computes it, one document a"
            " row, without this proof."
        ) from None
    if not trial.causal:
        raise UserError(
            f"{family}: this model sees the tokens that it should predict: it is no causal language"
            " model. Use another base."
        )
    tried, apart, why = _attention(trial, family, asked, expected)
    plain = trial.problem(tried, apart, expected, head="chunked") is None
    positions = config.get_text_config().max_position_embeddings if trial.ends() else None
    return Way(asked if asked.startswith("flash") else tried, apart, plain, positions, why)


def _attention(trial: "Trial", family: str, asked: str, expected: torch.Tensor) -> tuple[str, bool, str]:
    """The attention that passed, whether a document has its own row, and why it is not as asked for."""
    ours = asked == varlen_attention.NAME
    packed = trial.problem(varlen_attention.NAME, False, expected)
    flash = asked not in (varlen_attention.NAME, *OWN)
    if packed is None and (ours or flash):  # flash-attention has no kernel for a CPU, but the same boundaries
        return varlen_attention.NAME, False, ""
    problems = {asked: packed} if flash else {}
    for own in OWN if ours else () if flash else (asked,):
        problems[own] = trial.problem(own, True, expected)
        if problems[own] is None:
            return own, True, "" if packed is None or not ours else packed
    advice = "Use another base." if ours else "Set model.attention=documents."
    listed = "; ".join(f"{own}: {problem}" for own, problem in problems.items())
    raise UserError(f"model.attention={asked}: {family} would not be trained right ({listed}). {advice}")


def by_token(config: Any, *, trust: bool = False) -> bool:
    """Whether a model of this configuration treats each token by itself outside attention, so that parts of
    its rows can be computed by several processes (core/model/sequence_parallel.py)."""
    with aside():
        try:
            return Trial(config, trust).by_token()
        except Exception:  # of any library: then it is not known
            return False


def try_adapter(config: Any, adapter: "AdapterConfig", base: str, *, trust: bool = False) -> None:
    """UserError if a new adapter does not suit a model of this configuration; `base` is its name."""
    if adapter.path is not None:
        return
    with aside():
        try:
            model = Trial(config, trust).model
        except Exception:  # as in `_prove`, which comes first
            return
        lora.attach(model, adapter, base, 0)


class Trial:
    """A tiny model of a configuration, and what its loss should be."""

    def __init__(self, config: Any, trust: bool) -> None:
        """Build the model of a configuration made tiny; raises whatever transformers does."""
        self.config, self.trust = type(config)(**tiny.fields(config.to_dict())), trust
        self.config.name_or_path = config.name_or_path  # where a model's own code is
        generator = torch.Generator().manual_seed(0)
        top = self.config.get_text_config().vocab_size
        ids, labels = (torch.randint(3, top, (len(ROWS), sum(ROWS[0])), generator=generator) for _ in "ab")
        positions = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in ROWS])
        self.batch = {"input_ids": ids, "labels": labels, "position_ids": positions}
        self.batch["boundaries"] = varlen_attention.boundaries(positions)
        self.model = self.build("eager")
        with torch.no_grad():
            for parameter in self.model.parameters():
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(0.3 * noise if parameter.dim() > 1 else parameter + 0.1 * noise)
        self.causal = True

    def build(self, attention: str) -> Any:
        """The model with this attention and random weights."""
        from transformers import AutoModelForCausalLM

        varlen_attention.register()
        more = {"trust_remote_code": True} if self.trust else {}
        return AutoModelForCausalLM.from_config(
            self.config, attn_implementation=attention, dtype=torch.float32, **more
        ).train()

    def alone(self) -> torch.Tensor:
        """The loss of each document, by itself, with the model's own attention (documents,); notes whether
        the model is causal."""
        losses = []
        ids, labels = self.batch["input_ids"].flatten(), self.batch["labels"].flatten()
        for first, last in pairwise(self.batch["boundaries"].tolist()):
            found: list[torch.Tensor] = []
            with _embedded(self.model, found):
                logits = self.model(input_ids=ids[None, first:last], use_cache=False).logits
            losses.append(loss_head.full_loss(logits, labels[None, first:last]).detach())
            half = (last - first) // 2
            if half:
                start = loss_head.full_loss(logits[:, :half], labels[None, first : first + half])
                self.causal &= _gradient(start, found[0])[half:].abs().max().item() == 0
        return torch.stack(losses)

    def problem(self, attention: str, apart: bool, expected: torch.Tensor, head: str = "full") -> str | None:
        """Why a model with this attention, `apart` or not, is not trained right; None if it is."""
        try:
            model = self.build(attention)
            model.load_state_dict(self.model.state_dict(), strict=False)
            loss_head.install(model, head)
            if apart:
                varlen_attention.keep_apart(model)
            return self._compare(model, expected, apart)
        except Exception as error:  # of any library: the attention does not suit the model
            return _line(error)

    def _compare(self, model: Any, expected: torch.Tensor, apart: bool) -> str | None:
        all_labels = self.batch["labels"]
        for number, (first, last) in enumerate(pairwise(self.batch["boundaries"].tolist())):
            labels = torch.full_like(all_labels, IGNORED).flatten()
            labels[first:last] = all_labels.flatten()[first:last]
            found: list[torch.Tensor] = []
            with _embedded(model, found):
                loss = loss_head.summed_loss(model, self.batch | {"labels": labels.view_as(all_labels)})
            if not apart:
                gradient = _gradient(loss, found[0])
                gradient[first:last] = 0
                if gradient.abs().max() > 0:
                    return "documents in a row see each other"
            off = ((loss - expected[number]).abs() / expected[number]).item()
            if not off <= TOLERANCE:
                return f"its loss is {off:.2%} off"
        whole = loss_head.summed_loss(model, self.batch)
        off = ((whole - expected.sum()).abs() / expected.sum()).item()
        return None if off <= TOLERANCE else f"its loss is {off:.2%} off"

    def by_token(self) -> bool:
        """Whether the halves of the rows, each by itself, have the logits of the rows where attention does
        not look at other tokens."""
        from transformers import AttentionInterface

        AttentionInterface.register(OWN_TOKEN, _own_token)
        model = self.build(OWN_TOKEN)
        model.load_state_dict(self.model.state_dict(), strict=False)

        def logits(ids: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
            given: dict[str, Any] = {"position_ids": positions, "use_cache": False, "sequence_group": None}
            found: torch.Tensor = model(input_ids=ids, **given).logits
            return found

        rows = [self.batch[name] for name in ("input_ids", "position_ids")]
        with torch.no_grad():
            halves = [logits(*half) for half in zip(*(row.chunk(2, 1) for row in rows), strict=True)]
            return torch.allclose(torch.cat(halves, 1), logits(*rows), rtol=TOLERANCE, atol=TOLERANCE)

    def ends(self) -> bool:
        """Whether a document longer than the configuration's positions is an error, as with learnt ones."""
        if getattr(self.config.get_text_config(), "max_position_embeddings", None) != tiny.POSITIONS:
            return False
        ids = self.batch["input_ids"].flatten()[None, : tiny.POSITIONS + 8]
        try:
            with torch.no_grad():
                self.model(input_ids=ids, use_cache=False)
        except (IndexError, RuntimeError, ValueError):
            return True
        return False


def _own_token(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: Any,
    sequence_group: None,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """In the place of attention: from each token's own query, key and value (B, H, L, D) only. A model that
    does not pass the group on fails."""
    del module, sequence_group
    values = value.repeat_interleave(query.shape[1] // value.shape[1], 1)
    return (values + query.mean((1, 3), True) + key.mean((1, 3), True)).transpose(1, 2).contiguous(), None


def _gradient(loss: torch.Tensor, embedded: torch.Tensor) -> torch.Tensor:
    """Of a loss, with respect to the embedding of each token: (tokens, H)."""
    found: torch.Tensor = torch.autograd.grad(loss, embedded, retain_graph=True)[0]
    return found.flatten(0, -2).clone()


@contextmanager
def _embedded(model: Any, found: list[torch.Tensor]) -> Iterator[None]:
    """Within, the outputs of the model's input embedding are added to `found`."""
    hook: Callable[..., None] = lambda _module, _inputs, out: found.append(out)  # noqa: E731
    handle = model.get_input_embeddings().register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def aside() -> Iterator[None]:
    """Within, nothing random or said by libraries reaches the run, and tensors are made whole, on the CPU."""
    from transformers.integrations import deepspeed

    before, partitioned = logging.root.manager.disable, deepspeed._hf_deepspeed_config_weak_ref
    deepspeed.unset_hf_deepspeed_config()  # ZeRO 3 would build the tiny model without its weights
    with (
        torch.random.fork_rng(devices=[]),
        torch.device("cpu"),
        warnings.catch_warnings(),
        torch.enable_grad(),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        torch.manual_seed(0)
        try:
            yield
        finally:
            logging.disable(before)
            deepspeed._hf_deepspeed_config_weak_ref = partitioned


def _line(error: Exception) -> str:
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}"[:160]
