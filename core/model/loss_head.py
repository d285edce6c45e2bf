"""The summed token loss of a micro-batch, computed in the output layer: the logits are never held whole.

With a vocabulary of 128k, 8,192 positions make 4 GiB of fp32 logits, and their gradient as much again. A
`LossHead` in place of the output layer takes some hundred positions at a time: it computes their logits and
loss and, in the same pass, the gradients of the hidden states and of its weight (as Liger-Kernel does,
arXiv:2410.10989). It does so in its own forward pass, where ZeRO 3 has gathered its weight. On a GPU Liger's
kernel is used if the installed version sums the weight's gradient in fp32, as is done here. (It counts the
labels on the host, so that each micro-batch waits for the device.)
"""

import importlib.util
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch.nn.functional import cross_entropy, linear

from core.errors import UserError
from core.model import labels, varlen_attention

if TYPE_CHECKING:
    from core.distributed.deepspeed_backend import Engine
    from core.distributed.process_group import World

IGNORED = labels.IGNORED
"""Label of a position that is not trained on (transformers' convention)."""

CHUNK = {"cpu": 1024, "cuda": 2048}
"""Maximum number of positions whose logits are held at a time. With few, summing the weight's gradient takes
longer than the products."""
CHUNK_ELEMENTS = {"cpu": 2**25, "cuda": 2**26}
"""Maximum number of logits held at a time: 128 MiB in fp32; 256 MiB on a GPU, where the sum takes a larger
share of the time. Vocabularies above 32k reach it."""

Batch = dict[str, torch.Tensor]
Measures = list[torch.Tensor]
"""For each micro-batch: trained tokens, correct predictions and summed entropy (nats), (3,) float64."""
TokenLoss = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor, Measures | None], torch.Tensor
]
"""Summed loss of hidden states, weight, bias and labels; appends to measures."""
Computed = Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor], torch.Tensor]
"""What an output layer gives for hidden states, weight, bias and labels in place of logits."""

_measures: WeakKeyDictionary[torch.nn.Module, Measures] = WeakKeyDictionary()
"""What `measure` has recorded for each output layer, whatever its class."""


class LossHead(torch.nn.Linear):
    """An output layer that, within `computing`, returns what is asked for instead of logits.

    It replaces `head` and has the same parameters, so names in the state dict, weight tying, gradients and
    ZeRO 3's bookkeeping are unchanged.
    """

    def __init__(self, head: torch.nn.Linear, loss: TokenLoss) -> None:
        torch.nn.Module.__init__(self)  # Linear's own would allocate a second weight
        self.in_features, self.out_features = head.in_features, head.out_features
        self.weight = head.weight
        self.register_parameter("bias", head.bias)
        self.train(head.training)
        self.loss = loss
        self._computed: Computed | None = None
        self._batch: Batch = {}

    @contextmanager
    def computing(self, computed: Computed, batch: Batch) -> Iterator[None]:
        """Within, `forward` returns what is `computed` for the batch's `labels` (B, L). `learnt` (N,), if it
        is there, are the positions, counted row by row, that are trained on; the others, such as those of
        questions, need no logits."""
        self._computed, self._batch = computed, batch
        try:
            yield
        finally:
            self._computed, self._batch = None, {}

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Logits (B, L, V) of hidden states (B, L, H), or what is computed from them."""
        if self._computed is None:
            return linear(input, self.weight, self.bias)
        hidden = learnt(input.flatten(0, -2), self._batch)
        labels = learnt(self._batch["labels"].flatten(), self._batch)
        return self._computed(hidden, self.weight, self.bias, labels)


def install(model: Any, kind: str) -> None:
    """Replace the model's output layer by a `LossHead`, if it is a plain linear layer; `kind` as in
    `model.cross_entropy`, and full for a model that changes the logits afterwards. UserError if it is
    liger and Liger-Kernel cannot be used."""
    head = output_layer(model)
    chosen = choose(kind, liger_problem()) if kind in ("auto", "liger") else kind
    if chosen == "full" or type(head) is not torch.nn.Linear:
        return
    new = LossHead(head, liger_loss if chosen == "liger" else chunked_loss)
    outer = model.get_output_embeddings()
    if outer is head:
        model.set_output_embeddings(new)
    else:  # peft's wrapper around the frozen and the trained layer
        outer.modules_to_save["default"] = new
    assert output_layer(model) is new


def choose(kind: str, problem: str | None) -> str:
    """liger or chunked, for a `kind` of auto or liger; `problem` is why liger cannot be used."""
    if kind == "liger" and problem:
        raise UserError(f"model.cross_entropy=liger: {problem}, or set model.cross_entropy=auto.")
    return "chunked" if problem else "liger"


def liger_problem() -> str | None:
    """Why Liger-Kernel's loss cannot be used on this machine, and what to do; None if it can."""
    if not torch.cuda.is_available():
        return "it needs a GPU, and none was found. Set model.cross_entropy=chunked"
    if importlib.util.find_spec("liger_kernel") is None:
        return "the package liger-kernel is not installed. Run pip install liger-kernel"
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy as kernel

    if "accum_dtype" not in inspect.signature(kernel).parameters:
        return "this liger-kernel sums the weight's gradient in bf16. Run pip install -U liger-kernel"
    return None


def output_layer(model: Any) -> Any:
    """The layer that computes the logits; the trained one if an adapter keeps two."""
    head = model.get_output_embeddings()
    return head.modules_to_save["default"] if hasattr(head, "modules_to_save") else head


def measure(model: Any) -> None:
    """From now on record, with every loss, how many trained tokens the model would have predicted and the
    entropy of its prediction; `take_measures` returns the means."""
    _measures[output_layer(model)] = []


def take_measures(model: Any, world: "World") -> dict[str, float]:
    """Token accuracy and entropy (nats) since the last call, over all trained tokens of all processes, and
    as TRL logs them: the mean of the micro-batches' means. Empty without `measure`; collective."""
    recorded = _measures.get(output_layer(model))
    if not recorded:
        return {}
    sums = world.sum(torch.stack(recorded))
    recorded.clear()
    tokens, hits, entropy = sums.sum(0).tolist()
    means = (sums[:, 1:] / sums[:, :1].clamp(min=1)).mean(0).tolist()
    return {
        "token_accuracy": hits / max(1, tokens),
        "entropy": entropy / max(1, tokens),
        "mean_token_accuracy_trl": means[0],
        "entropy_trl": means[1],
    }


def summed_loss(engine: "Engine | torch.nn.Module", batch: Batch) -> torch.Tensor:
    """The sum of token losses (nats) of one micro-batch, in fp32."""
    model: Any = getattr(engine, "module", engine)
    measures = _measures.get(output_layer(model))
    before = len(measures) if measures is not None else 0
    losses = [_loss_of(engine, each, measures) for each in varlen_attention.passes(model, batch)]
    if measures is not None and len(losses) > 1:  # one entry per micro-batch
        measures[before:] = [torch.stack(measures[before:]).sum(0)]
    return reduce(torch.add, losses)


def _loss_of(engine: Any, batch: Batch, measures: Measures | None) -> torch.Tensor:
    """The summed loss of one forward pass."""
    head = output_layer(getattr(engine, "module", engine))
    if isinstance(head, LossHead):
        with head.computing(lambda h, w, b, labels: head.loss(h, w, b, labels, measures), batch):
            loss: torch.Tensor = varlen_attention.forward(engine, batch)
        return loss
    logits = varlen_attention.forward(engine, batch)
    if measures is not None:
        measures.append(measures_of(logits.detach().flatten(0, -2), batch["labels"].flatten()[:, None]))
    return full_loss(logits, batch["labels"])


def token_losses(engine: Any, batch: Batch) -> torch.Tensor:
    """The loss (nats) of each position of a forward pass that is `learnt`, or of all: (N,), in fp32; 0 where
    the label is ignored. For objectives that are no sum over tokens."""
    head = output_layer(getattr(engine, "module", engine))
    if isinstance(head, LossHead):
        with head.computing(_TokenLosses.apply, batch):
            losses: torch.Tensor = varlen_attention.forward(engine, batch)
        return losses
    logits = learnt(varlen_attention.forward(engine, batch).flatten(0, -2), batch)
    labels = learnt(batch["labels"].flatten(), batch)
    return cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="none")


def learnt(flat: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Of values for all positions those for the learnt ones."""
    return flat.index_select(0, batch["learnt"]) if "learnt" in batch else flat


def full_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The summed token loss of logits (B, L, V) for labels (B, L)."""
    flat = logits.float().flatten(0, -2)
    return cross_entropy(flat, labels.flatten(), ignore_index=IGNORED, reduction="sum")


def chunked_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    measures: Measures | None = None,
) -> torch.Tensor:
    """The same from hidden states (B, L, H) and the output layer's weight (V, H). Appends to `measures`."""
    loss: torch.Tensor = _ChunkedLoss.apply(hidden.flatten(0, -2), weight, bias, labels.flatten(), measures)
    return loss


def chunk_places(vocabulary: int, device: str = "cuda") -> int:
    """Number of positions whose logits are held at a time on a kind of device."""
    device = device if device in CHUNK else "cuda"
    return max(16, min(CHUNK[device], CHUNK_ELEMENTS[device] // vocabulary))


def _chunks(hidden: torch.Tensor, weight: torch.Tensor) -> Iterator[slice]:
    """The positions whose logits are held at a time, one after the other."""
    rows = chunk_places(len(weight), hidden.device.type)
    return (slice(start, start + rows) for start in range(0, len(hidden), rows))


class _Gradients:
    """Gradients of hidden states (N, H), an output layer's weight (V, H) and its bias (V,), each if wanted,
    from those of logits; sums over positions are in fp32."""

    def __init__(
        self, hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, wanted: Any
    ) -> None:
        self.hidden = torch.empty_like(hidden) if wanted[0] else None
        self.weight = torch.zeros_like(weight, dtype=torch.float32) if wanted[1] else None
        self.bias = torch.zeros_like(bias, dtype=torch.float32) if bias is not None and wanted[2] else None

    def add(self, gradient: torch.Tensor, part: torch.Tensor, weight: torch.Tensor, places: slice) -> None:
        """From the gradient (n, V), fp32, of the logits of the hidden states `part` (n, H)."""
        if self.bias is not None:
            self.bias += gradient.sum(0)
        gradient = gradient.to(part.dtype)
        if self.hidden is not None:
            torch.mm(gradient, weight, out=self.hidden[places])
        if self.weight is not None and self.weight.dtype == gradient.dtype:
            self.weight.addmm_(gradient.T, part)
        elif self.weight is not None:
            self.weight += gradient.T @ part


class _ChunkedLoss(torch.autograd.Function):
    """Gradients are computed in the forward pass, together with the logits that they need."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, labels: Any, measures: Any) -> torch.Tensor:
        wanted = ctx.needs_input_grad
        gradients = _Gradients(hidden, weight, bias, wanted)
        loss = torch.zeros((), device=hidden.device)
        found = torch.zeros(3, device=hidden.device, dtype=torch.float64)
        for places in _chunks(hidden, weight):
            part, label = hidden[places], labels[places, None]
            logits = linear(part, weight, bias).float()
            trained = label != IGNORED
            label = label.clamp(min=0)
            likeliest = logits.argmax(1, keepdim=True) if measures is not None else label
            logits.sub_(logits.amax(1, keepdim=True))
            right = logits.gather(1, label)
            # Softmax, in the logits' own memory if they are not needed any more.
            gradient = logits.exp_() if measures is None else logits.exp()
            total = gradient.sum(1, keepdim=True)
            loss += ((total.log() - right) * trained).sum()
            if measures is not None:
                entropy = total.log() - torch.linalg.vecdot(gradient, logits)[:, None] / total
                seen = (trained, (likeliest == label) & trained, entropy * trained)
                found += torch.stack([each.sum(dtype=torch.float64) for each in seen])
            if any(wanted):
                gradient.mul_(trained / total).scatter_add_(1, label, -trained.to(gradient.dtype))
                gradients.add(gradient, part, weight, places)
        if measures is not None:
            measures.append(found)
        ctx.dtype = weight.dtype
        ctx.save_for_backward(gradients.hidden, gradients.weight, gradients.bias)
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        scale = upstream[0]
        hidden, weight, bias = ctx.saved_tensors
        scaled = [None if grad is None else (grad * scale).to(ctx.dtype) for grad in (weight, bias)]
        return None if hidden is None else hidden * scale.to(hidden.dtype), *scaled, None, None


class _TokenLosses(torch.autograd.Function):
    """The loss of each position, (N,). What each counts is not known before the backward pass, which computes
    the logits again."""

    @staticmethod
    def forward(ctx: Any, hidden: Any, weight: Any, bias: Any, labels: Any) -> torch.Tensor:
        losses = torch.empty(len(hidden), device=hidden.device)
        for places in _chunks(hidden, weight):
            logits = linear(hidden[places], weight, bias).float()
            losses[places] = cross_entropy(logits, labels[places], ignore_index=IGNORED, reduction="none")
        ctx.save_for_backward(hidden, weight, bias, labels)
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: torch.Tensor) -> Any:
        hidden, weight, bias, labels = ctx.saved_tensors
        gradients = _Gradients(hidden, weight, bias, ctx.needs_input_grad)
        for places in _chunks(hidden, weight):
            part, label = hidden[places], labels[places, None]
            gradient = linear(part, weight, bias).float().softmax(1)
            gradient.scatter_add_(1, label.clamp(min=0), torch.full_like(upstream[0][places, None], -1.0))
            gradient.mul_((label != IGNORED) * upstream[0][places, None])
            gradients.add(gradient, part, weight, places)
        sums = [
            None if grad is None else grad.to(weight.dtype) for grad in (gradients.weight, gradients.bias)
        ]
        return gradients.hidden, *sums, None


class Objective(NamedTuple):
    """What a step minimises: a sum over a micro-batch, its divisor, and numbers for the log."""

    loss: Callable[["Engine", Batch], torch.Tensor]
    divisor: Callable[[Batch], torch.Tensor]
    take: Callable[[Any, "World"], dict[str, float]]
    """Returns the numbers since the last call; collective."""
    unit: str = "tokens"
    """What the divisor counts."""


TOKENS = Objective(summed_loss, lambda batch: (batch["labels"] != IGNORED).sum(), take_measures)
"""The mean loss per trained token."""


def measures_of(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """Trained tokens, correct predictions and summed entropy (nats) of logits (N, V) for labels (N, 1): (3,)
    float64."""
    trained = (label != IGNORED).squeeze(1)
    logits, label = logits[trained].float(), label[trained]
    hits = (logits.argmax(1, keepdim=True) == label).sum()
    logs = logits.log_softmax(1)
    entropy = -torch.linalg.vecdot(logs.exp(), logs).sum()
    return torch.stack([trained.sum().double(), hits.double(), entropy.double()])


def liger_loss(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    labels: torch.Tensor,
    measures: Measures | None = None,
) -> torch.Tensor:
    """As `chunked_loss`, by Liger's kernel."""
    if measures is not None or not len(hidden):  # Liger's kernel gives no logits, and takes no empty batch
        return chunked_loss(hidden, weight, bias, labels, measures)
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    loss: torch.Tensor = liger_fused_linear_cross_entropy(
        hidden.flatten(0, -2), weight, labels.flatten(), bias, ignore_index=IGNORED, reduction="sum",
        accum_dtype=torch.float32,
    )  # fmt: skip
    return loss
