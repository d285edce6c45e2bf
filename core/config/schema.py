"""The configuration sections for a model and its training; each stage builds its own schema from them.

torch is not imported here, so `--help`, `--keys` and configuration checks are quick.
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.config.loader import Config
from core.errors import UserError

Precision = Literal["bf16", "fp32"]


class AdapterConfig(Config):
    """A LoRA adapter; over 4-bit weights if `load_in_4bit` is set (QLoRA)."""

    path: str | None = None
    """Continue training this adapter (of the same base). Its own rank, alpha and modules are used."""
    r: int = Field(16, ge=1)
    """LoRA rank."""
    alpha: int = Field(32, ge=1)
    """The LoRA update is scaled by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Dropout on the adapter's input during training."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers to adapt, e.g. q_proj. all-linear: every linear layer except the output layer."""
    embeddings: bool = False
    """Also train the input embedding and the output layer in full."""
    load_in_4bit: bool = False
    """Load the frozen weights in 4 bits (bitsandbytes)."""
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """4-bit data type. bitsandbytes' own default is fp4."""
    double_quant: bool = True
    """Quantise the quantisation scales too (double quantisation)."""
    compute_dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Data type for multiplying 4-bit weights. auto: the run's precision."""

    @model_validator(mode="after")
    def _has_targets(self) -> Self:
        if not self.target_modules:
            raise ValueError("`target_modules` is empty; name at least one layer, or set it to all-linear")
        return self


class ModelConfig(Config):
    """The model to start from: a folder or hub id, or an architecture with random weights."""

    path: str | None = None
    """A folder in transformers format (safetensors or .bin, one file or sharded), or a hub id."""
    architecture: dict[str, Any] | None = None
    """To start from random weights: the keys of a transformers configuration, including `model_type`."""
    seed: int = Field(0, ge=0)
    """Seed for random weights."""
    adapter: AdapterConfig | None = None
    """Train a LoRA adapter over frozen weights (QLoRA if they are in 4 bits). null: train all weights."""
    attention: Literal["documents", "flash_attention_2", "sdpa", "eager"] = "documents"
    """documents: core/model/varlen_attention.py, which needs no extra package; models that it does not suit
    (docs/families.md) use their own. The others are transformers'. sdpa, eager: one document a row."""
    trust_remote_code: bool = False
    """Run the Python code in the model's folder, for models that transformers lacks. Read it first."""
    activation_checkpointing: Literal["none", "full", "selective"] = "none"
    """What the backward pass recomputes to save memory. none: nothing. full: every layer (about a third more
    compute). selective: each layer except attention and half of its matrix products. See
    core/model/activation_checkpointing.py."""
    compile: bool = False
    """Compile each layer with torch.compile: a slow first step, faster ones after it. Not with ZeRO 3."""
    trained: Literal["all", "embeddings"] = "all"
    """embeddings: train only the input and output embeddings, e.g. after extending the vocabulary. Start
    the next run, with `all`, from the result."""
    cross_entropy: Literal["auto", "liger", "chunked", "full"] = "auto"
    """liger (GPU only) and chunked never hold all logits in memory; full does. auto: liger or chunked."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.path is None) == (self.architecture is None):
            raise ValueError("set either `path` or `architecture`, and the other to null")
        if self.adapter is not None and self.trained != "all":
            raise ValueError("`trained` cannot be used with `adapter`; use `adapter.embeddings`")
        if self.architecture is not None and "model_type" not in self.architecture:
            raise ValueError("`architecture` needs `model_type`, e.g. llama")
        return self


class OptimizerConfig(Config):
    """AdamW (arXiv:1711.05101)."""

    name: Literal["adamw", "paged_adamw_32bit"] = "adamw"
    """adamw: torch's fused AdamW. paged_adamw_32bit: bitsandbytes', which moves its states to host memory
    when the GPU is full."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate; 1e-5 to 3e-5 for continued pretraining of a 7B model."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of the moving averages of the gradient and the squared gradient."""
    epsilon: float = Field(1e-8, gt=0)
    """Added to the denominator for numerical stability."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled weight decay, on matrices only (not on norms and biases)."""


class TrainingConfig(Config):
    """Batch sizes, length of the run, and how often to validate and save."""

    global_batch_size: int = Field(8, ge=1)
    """Samples per optimiser step, over all processes."""
    micro_batch_size: int = Field(1, ge=1)
    """Samples per forward and backward pass on one process; limited by memory."""
    sequence_parallel_size: int = Field(1, ge=1)
    """Processes that share each row of tokens, for rows whose activations do not fit one GPU (Ulysses,
    arXiv:2309.14509). It must divide the number of processes, the rows' length and the attention heads.
    1: each process has rows of its own."""
    epochs: float | None = Field(1.0, gt=0)
    """Passes over the data. Ignored if `steps` is set."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps to train for."""
    seed: int = Field(0, ge=0)
    """Seed for the data order and dropout."""
    max_gradient_norm: float | None = Field(1.0, gt=0)
    """Clip gradients to this 2-norm; null: no clipping."""
    validate_every_steps: int | None = Field(500, ge=1)
    """Validate every N steps, and before the first and after the last step; null: never."""
    save_every_steps: int | None = Field(500, ge=1)
    """Save a checkpoint every N steps, and after the last step; null: after the last only."""
    keep_checkpoints: int = Field(2, ge=1)
    """Number of checkpoints to keep; older ones are deleted."""
    spike_z: float | None = Field(10, gt=0)
    """Skip a step if its loss or gradient norm is more than this many robust standard deviations above the
    last 128 steps, and it is not like several others of the last 512. null: apply every step with finite
    gradients."""
    max_skipped_steps: int = Field(10, ge=0)
    """Stop the run if more than N steps in a row are skipped."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 weights with fp32 master weights on a GPU, fp32 on a CPU."""
    timeout_minutes: float = Field(30, gt=0)
    """Stop the run if a process does not respond for N minutes, or none makes progress. To read and write
    files is progress."""

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if self.steps is None and self.epochs is None:
            raise ValueError("set `epochs` or `steps`")
        return self

    def total_samples(self, dataset_size: int) -> int:
        """Number of samples in the whole run; the last step may be smaller than the others."""
        if self.steps is not None:
            return self.steps * self.global_batch_size
        assert self.epochs is not None
        return max(1, round(self.epochs * dataset_size))

    def accumulation(self, world_size: int) -> int:
        """Micro-batches per step and process; UserError if the step cannot be divided evenly."""
        together = self.sequence_parallel_size
        if world_size % together:
            raise UserError(
                f"training.sequence_parallel_size={together} does not divide the number of processes,"
                f" {world_size}. Start a multiple of {together}, or set it to a divisor of {world_size}."
            )
        share = self.micro_batch_size * world_size // together
        if self.global_batch_size % share:
            shared = "" if together == 1 else f" / {together} that share a row"
            raise UserError(
                f"training.global_batch_size={self.global_batch_size} is not a multiple of"
                f" training.micro_batch_size={self.micro_batch_size} x {world_size} processes{shared}."
                " Change one of them."
            )
        return self.global_batch_size // share


class ScheduleConfig(Config):
    """Warm-up, then decay. Rates are fractions of `optimizer.learning_rate`."""

    kind: Literal["cosine", "linear", "constant", "warmup-stable-decay"] = "cosine"
    """How the learning rate decays after warm-up. `warmup-stable-decay` (arXiv:2404.06395): constant, then a
    linear decay."""
    warmup_share: float = Field(0.02, ge=0, le=1)
    """Length of the linear warm-up, as a fraction of all steps."""
    warmup_steps: int | None = Field(None, ge=0)
    """Length of the warm-up in steps; replaces `warmup_share`."""
    warmup_from_share: float = Field(0.0, ge=0, lt=1)
    """Learning rate at the start of warm-up, as a fraction of the peak. To re-warm a base (arXiv:2403.08763):
    its last learning rate divided by this run's peak. 0 for a new model, or if the base's optimiser state
    is missing."""
    decay_share: float = Field(0.2, ge=0, le=1)
    """Length of the final decay of `warmup-stable-decay`, as a fraction of all steps."""
    decay_steps: int | None = Field(None, ge=0)
    """Length of the final decay in steps; replaces `decay_share`."""
    final_share: float = Field(0.1, ge=0, le=1)
    """Learning rate at the last step, as a fraction of the peak. Not used by `constant`."""


class ForgettingConfig(Config):
    """How far the loss on general text may rise, as a fraction of its value before training."""

    warn_share: float = Field(0.02, ge=0)
    """Warn if the general loss has risen by more than this."""
    stop_share: float | None = Field(None, ge=0)
    """Stop the run if it has risen by more than this; null: never stop."""


class CollapseConfig(Config):
    """Samples generated at validation, and how much they repeat themselves."""

    prompts: tuple[str, ...] = ()
    """Prompts that the model continues at every validation; empty: no samples."""
    max_new_tokens: int = Field(64, ge=1)
    """Maximum length of a sample in tokens."""
    ngram: int = Field(4, ge=1)
    """Repetition is the fraction of n-grams of N tokens that already occurred in the same text."""
    warn_share: float = Field(0.5, ge=0, le=1)
    """Warn if more than this fraction is repeated."""

    @model_validator(mode="after")
    def _can_be_continued(self) -> Self:
        for prompt in self.prompts:
            if not prompt:
                raise ValueError("a prompt in `prompts` is empty; a model needs some text to continue")
            if prompt.endswith(" "):
                # To most tokenizers the space is part of the next word: few words can follow one.
                raise ValueError(f"the prompt {prompt!r} ends with a space; remove it")
        return self


class DeepSpeedConfig(Config):
    """How the model and its training state are partitioned over the processes (ZeRO, arXiv:1910.02054)."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """What is partitioned. 0: nothing. 1: optimiser states. 2: and gradients. 3: and weights."""
    gradient_dtype: Precision = "fp32"
    """Data type in which bf16 training accumulates gradients. fp32 is exact over many micro-batches; bf16
    takes less at ZeRO 1 and 3, and nothing less at ZeRO 2, where DeepSpeed then holds gradients twice."""
    json_file: str | None = None
    """A DeepSpeed JSON file with further settings. "auto" in it counts as not given. What this configuration
    sets too (batch sizes, precision, ZeRO stage, clipping) must be equal or absent; `optimizer` and
    `scheduler` must be absent."""


class LoggingConfig(Config):
    """Where metrics are written, in addition to `metrics.jsonl`."""

    every_steps: int = Field(10, ge=1)
    """Log metrics every N steps."""
    tensorboard: bool = True
    """Also write TensorBoard event files."""
    wandb_project: str | None = None
    """Also log to this Weights & Biases project; needs the package `wandb`."""


class CardConfig(Config):
    """Model card fields that only you know; the rest is generated from the run's records."""

    name: str | None = None
    """Name of the model; null: the folder's name."""
    base_model: str | None = Field(None, pattern=r"^[\w.-]+/[\w.-]+$")
    """Name of the base on the hub, e.g. meta-llama/Llama-3.1-8B; null: `model.path` if that is such a name.
    The hub refuses a card whose base is a folder of yours, so the card's metadata never has one."""
    language: tuple[str, ...] = ()
    """Languages, e.g. zh."""
    licence: str | None = None
    """Licence of the published model."""
    intended_use: str | None = None
    """Intended use."""
    out_of_scope: str | None = None
    """Uses that are out of scope."""
    limitations: str | None = None
    """Known limitations."""
    watts: float | None = Field(None, gt=0)
    """Total rated power of all GPUs in watts, for the energy estimate; null: no estimate."""
    version: str = "1"
    """Version of this model."""
    former: str | None = None
    """Model card (README.md) of the previous version; its version history is continued."""


class RunConfig(Config):
    """What every training run has, whatever it trains."""

    run_dir: str
    """Output folder of the run."""
    resume: Literal["auto", "never"] = "auto"
    """auto: resume from the newest checkpoint in `run_dir`. never: refuse a `run_dir` that has one."""
    branch_from: str | None = None
    """Start from another run's checkpoint, including its optimiser state and position in the data. Use it to
    branch the decay of `schedule.kind=warmup-stable-decay` off a stable run, which can continue."""
    model: ModelConfig
    general_dir: str | None = None
    """A packed corpus of general text (same tokenizer); its validation loss measures forgetting."""
    forgetting: ForgettingConfig = ForgettingConfig()
    collapse: CollapseConfig = CollapseConfig()
    validation_tokens: int | None = Field(1_000_000, ge=1)
    """Approximate number of held-out tokens per validation (whole documents); null: all."""
    patience: int | None = Field(None, ge=1)
    """Stop the run after N validations in a row without a lower loss; null: never."""
    publish: Literal["best", "last"] = "last"
    """Which model becomes `run_dir`/model: the one with the lowest validation loss, or the last."""
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    logging: LoggingConfig = LoggingConfig()
    card: CardConfig = CardConfig()
