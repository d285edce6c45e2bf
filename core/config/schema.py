"""What can be configured about a model and its training; every stage puts its own configuration together from
these.

No torch here: `--help`, `--keys` and the check of a configuration are quick.
"""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from core.config.loader import Config
from core.errors import UserError

Precision = Literal["bf16", "fp32"]


class AdapterConfig(Config):
    """A LoRA adapter, over weights of 4 bits where `load_in_4bit` is set (QLoRA)."""

    path: str | None = None
    """A trained adapter of the same base to go on from; its own rank, alpha and modules hold then."""
    r: int = Field(16, ge=1)
    """Rank of the update of each matrix."""
    alpha: int = Field(32, ge=1)
    """The update is scaled by alpha / r."""
    dropout: float = Field(0.05, ge=0, lt=1)
    """Share of the inputs of A that is set to zero while training."""
    target_modules: tuple[str, ...] | Literal["all-linear"] = "all-linear"
    """Names of the layers that get an adapter, as q_proj; `all-linear`: all but the output layer."""
    embeddings: bool = False
    """Train the input embedding and the output layer whole, beside the adapter."""
    load_in_4bit: bool = False
    """Keep the frozen weights in 4 bits (bitsandbytes)."""
    quant_type: Literal["nf4", "fp4"] = "nf4"
    """What the 4 bits mean; bitsandbytes' own default is fp4."""
    double_quant: bool = True
    """Quantise the scales too."""
    compute_dtype: Literal["auto", "bf16", "fp32"] = "auto"
    """Type in which 4-bit weights are multiplied; auto: the run's."""

    @model_validator(mode="after")
    def _has_targets(self) -> Self:
        if not self.target_modules:
            raise ValueError("`target_modules` is empty: name a layer, or all-linear")
        return self


class ModelConfig(Config):
    """The model that training starts from: a folder (or hub id), or an architecture with random weights."""

    path: str | None = None
    """A folder that transformers wrote (safetensors or .bin, one file or shards), or a hub id."""
    architecture: dict[str, Any] | None = None
    """Keys of a transformers configuration, `model_type` among them, for random weights."""
    seed: int = Field(0, ge=0)
    """Seed of the random weights."""
    adapter: AdapterConfig | None = None
    """Train a LoRA adapter (with 4-bit weights: QLoRA) and leave the weights as they are; null trains all."""
    attention: Literal["documents", "flash_attention_2", "sdpa", "eager"] = "documents"
    """`documents`: core/model/varlen_attention.py, which needs nothing installed; else one of transformers'
    own. On packed blocks `sdpa` and `eager` build a mask of length x length, so a GPU refuses them."""
    activation_checkpointing: Literal["none", "full", "selective"] = "none"
    """What the backward pass computes again to save memory: nothing; every layer (about a third more work);
    or all of a layer but attention and half of its matrix products. See
    core/model/activation_checkpointing.py."""
    compile: bool = False
    """Compile each layer with torch.compile: quicker steps, a slow first one. Not with ZeRO 3."""
    trained: Literal["all", "embeddings"] = "all"
    """embeddings: a first run that trains both embeddings only, as after an extension of the vocabulary; the
    next one starts from its result."""
    cross_entropy: Literal["auto", "liger", "chunked", "full"] = "auto"
    """chunked: logits are never held whole; liger: so too, by Liger-Kernel on a GPU; auto: one of these."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.path is None) == (self.architecture is None):
            raise ValueError("give `path` or `architecture`, and set the other to null")
        if self.adapter is not None and self.trained != "all":
            raise ValueError("`trained` is of a run without `adapter`, which has `embeddings` of its own")
        if self.architecture is not None and "model_type" not in self.architecture:
            raise ValueError("`architecture` needs `model_type`, as llama")
        return self


class OptimizerConfig(Config):
    """AdamW (arXiv:1711.05101)."""

    name: Literal["adamw", "paged_adamw_32bit"] = "adamw"
    """adamw: torch's, fused; paged_adamw_32bit: bitsandbytes', whose states leave a full GPU."""
    learning_rate: float = Field(2e-5, gt=0)
    """Peak learning rate; 1e-5 to 3e-5 for continued pretraining of a 7B model."""
    betas: tuple[float, float] = (0.9, 0.95)
    """Decay rates of the moving averages of gradient and squared gradient."""
    epsilon: float = Field(1e-8, gt=0)
    """Added to the denominator."""
    weight_decay: float = Field(0.1, ge=0)
    """Decoupled; on matrices only, not on norms and biases."""


class TrainingConfig(Config):
    """Batches, length of the run, and when to look and to save."""

    global_batch_size: int = Field(8, ge=1)
    """Samples of one optimiser step, over all processes."""
    micro_batch_size: int = Field(1, ge=1)
    """Samples of one forward and backward pass on one process; what memory allows."""
    epochs: float | None = Field(1.0, gt=0)
    """Passes over the data; not used where `steps` is given."""
    steps: int | None = Field(None, ge=1)
    """Optimiser steps."""
    seed: int = Field(0, ge=0)
    """Seed of the data order and of dropout."""
    max_gradient_norm: float | None = Field(1.0, gt=0)
    """Gradients are scaled down to this 2-norm; null for no limit."""
    validate_every_steps: int | None = Field(500, ge=1)
    """Validation loss every so many steps, and before the first and after the last; null for never."""
    save_every_steps: int | None = Field(500, ge=1)
    """A checkpoint every so many steps, and after the last; null for the last only."""
    keep_checkpoints: int = Field(2, ge=1)
    """How many of the newest checkpoints stay on the disk."""
    spike_z: float | None = Field(10, gt=0)
    """A step is skipped when its loss or gradient norm stands so many robust standard deviations above those
    of the last 128 steps; null applies every step whose gradients are finite."""
    max_skipped_steps: int = Field(10, ge=0)
    """The run ends when more than so many steps in a row were skipped."""
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    """auto: bf16 weights with fp32 masters on a GPU, fp32 on a CPU."""
    timeout_minutes: float = Field(30, gt=0)
    """A process that does not answer the others for so long ends the run."""

    @model_validator(mode="after")
    def _has_a_length(self) -> Self:
        if self.steps is None and self.epochs is None:
            raise ValueError("give `epochs` or `steps`")
        return self

    def total_samples(self, dataset_size: int) -> int:
        """Samples of the whole run; the last step may be smaller than the others."""
        if self.steps is not None:
            return self.steps * self.global_batch_size
        assert self.epochs is not None
        return max(1, round(self.epochs * dataset_size))

    def accumulation(self, world_size: int) -> int:
        """Micro-batches of one step on one process; UserError where the step cannot be shared out evenly."""
        share = self.micro_batch_size * world_size
        if self.global_batch_size % share:
            raise UserError(
                f"training.global_batch_size={self.global_batch_size} is not a multiple of"
                f" training.micro_batch_size={self.micro_batch_size} x {world_size} processes. Change one."
            )
        return self.global_batch_size // share


class ScheduleConfig(Config):
    """Warm-up, then decay. Rates are shares of `optimizer.learning_rate`."""

    kind: Literal["cosine", "linear", "constant", "warmup-stable-decay"] = "cosine"
    """How the rate falls after the warm-up; `warmup-stable-decay` (arXiv:2404.06395) holds it, then falls
    linearly."""
    warmup_share: float = Field(0.02, ge=0, le=1)
    """Share of all steps over which the rate rises linearly from near zero."""
    warmup_steps: int | None = Field(None, ge=0)
    """The same in steps; where given, `warmup_share` is not used."""
    warmup_from_share: float = Field(0.0, ge=0, lt=1)
    """Where the warm-up begins. To re-warm a base (arXiv:2403.08763), its last rate over this run's peak; 0
    for a new model, and for a base whose optimiser is not at hand."""
    decay_share: float = Field(0.2, ge=0, le=1)
    """Share of all steps over which `warmup-stable-decay` falls, at the end."""
    decay_steps: int | None = Field(None, ge=0)
    """The same in steps; where given, `decay_share` is not used."""
    final_share: float = Field(0.1, ge=0, le=1)
    """What is left of the peak at the last step, where `kind` falls."""


class ForgettingConfig(Config):
    """How much worse the model may get on general text, as a share of its loss before training."""

    warn_share: float = Field(0.02, ge=0)
    """A warning where the general loss has risen by more."""
    stop_share: float | None = Field(None, ge=0)
    """The run ends where it has risen by more; null for never."""


class CollapseConfig(Config):
    """What the model writes now and then, and whether it repeats itself."""

    prompts: tuple[str, ...] = ()
    """Beginnings of texts that the model goes on from at every validation; none for no look."""
    max_new_tokens: int = Field(64, ge=1)
    """How far."""
    ngram: int = Field(4, ge=1)
    """Repetition is the share of n-grams of so many tokens that stood in the text before."""
    warn_share: float = Field(0.5, ge=0, le=1)
    """A warning where more of them are repeated."""


class DeepSpeedConfig(Config):
    """How the model and its training state are spread over the processes (ZeRO, arXiv:1910.02054)."""

    zero_stage: Literal[0, 1, 2, 3] = 2
    """0: every process holds everything; 1: optimiser states are split; 2: gradients too; 3: weights too."""
    gradient_dtype: Precision = "fp32"
    """In what bf16 training accumulates gradients. fp32 is exact over many micro-batches and costs 2 bytes
    more a parameter; bf16 is what fits a 7B model on one 141 GB card."""
    json_file: str | None = None
    """A DeepSpeed JSON file; merged over the settings that are written here."""


class LoggingConfig(Config):
    """Where numbers go besides `metrics.jsonl`."""

    every_steps: int = Field(10, ge=1)
    """A line of numbers every so many steps."""
    tensorboard: bool = True
    """Write TensorBoard event files too."""
    wandb_project: str | None = None
    """Weights & Biases project to report to; needs the package `wandb`."""


class CardConfig(Config):
    """What only its maker knows of a model; the rest of the model card is written from the run's records."""

    name: str | None = None
    """Name of the model; null for the name of its folder."""
    language: tuple[str, ...] = ()
    """Languages, e.g. zh."""
    licence: str | None = None
    """Licence under which the model is released."""
    intended_use: str | None = None
    """What the model is for."""
    out_of_scope: str | None = None
    """What the model is not for."""
    limitations: str | None = None
    """Known limitations."""
    watts: float | None = Field(None, gt=0)
    """Stated power of all GPUs together, from which the card gives the energy; null: the card gives none."""
    version: str = "1"
    """Version of this model."""
    former: str | None = None
    """Card (README.md) of the previous version, whose version history is continued."""


class RunConfig(Config):
    """What every training run has, whatever it trains."""

    run_dir: str
    """Folder of this run: checkpoints, logs, the finished model."""
    resume: Literal["auto", "never"] = "auto"
    """auto: continue from the newest checkpoint in `run_dir`; never: refuse a `run_dir` that has one."""
    branch_from: str | None = None
    """Checkpoint of another run to start from, with its optimizer and its position in the data: for example
    to branch the decay of `schedule.kind=warmup-stable-decay` off a stable run, which itself continues."""
    model: ModelConfig
    general_dir: str | None = None
    """Finished corpus of general text with the same tokenizer; its held-out part measures what is
    forgotten."""
    forgetting: ForgettingConfig = ForgettingConfig()
    collapse: CollapseConfig = CollapseConfig()
    validation_tokens: int | None = Field(1_000_000, ge=1)
    """Approximate number of held-out tokens per validation, in whole documents; null for all."""
    patience: int | None = Field(None, ge=1)
    """End the run after this many validations in a row without a lower loss; null for never."""
    publish: Literal["best", "last"] = "last"
    """Which model becomes `run_dir`/model: the one with the lowest validation loss, or the last."""
    training: TrainingConfig = TrainingConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    schedule: ScheduleConfig = ScheduleConfig()
    deepspeed: DeepSpeedConfig = DeepSpeedConfig()
    logging: LoggingConfig = LoggingConfig()
    card: CardConfig = CardConfig()
