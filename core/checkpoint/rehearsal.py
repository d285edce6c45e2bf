"""What a run would save is saved before it trains, without the weights, so that no save fails hours later.

the base's configuration ──▶ a model without memory ──adapter──▶ the files of a checkpoint and a merge
"""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from core import dry_run
from core.checkpoint.save import write_settings
from core.config.schema import ModelConfig
from core.errors import UserError
from core.model import loading, lora


def rehearse(base: str, config: ModelConfig) -> None:
    """Save a model of the base's configuration with its adapter, tokenizer and generation settings, and the
    merged one, to a temporary folder; UserError if that fails. Nothing is done for a base that is not here or
    that transformers cannot build, which loading it reports."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    if not (Path(base).is_dir() or dry_run.is_cached(base)):
        return
    trust = config.trust_remote_code
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(
                AutoConfig.from_pretrained(base, trust_remote_code=trust), trust_remote_code=trust
            )
    except Exception:  # any error of any architecture's code
        return
    with _refused(base):
        if (Path(base) / "generation_config.json").is_file():
            model.generation_config = GenerationConfig.from_pretrained(base)
        tokenizer = loading.own_tokenizer(base)
        if tokenizer is not None:
            loading.prompt_as_trained(model, tokenizer)
        loading.repair_generation(model)
        if config.adapter is not None:
            with torch.device("meta"):
                model = lora.attach(model, _present(config.adapter), base, config.seed, load=False)
        _write(model, tokenizer)
        if config.adapter is not None:
            try:
                merged = model.merge_and_unload()
            except NotImplementedError:  # an operation that needs memory
                return
            _write(merged, tokenizer)


def rehearse_loaded(model: Any, tokenizer: Any, base: str) -> None:
    """As `rehearse`, of the model that is about to be trained."""
    with _refused(base):
        _write(model, tokenizer)


def _write(model: Any, tokenizer: Any) -> None:
    """Write everything but the weights, whose place an empty tensor takes."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        if lora.is_adapted(model):
            trained = {name: torch.empty(0) for name, p in model.named_parameters() if p.requires_grad}
            lora.write(model, trained, Path(folder))
        else:
            write_settings(model, Path(folder))
        if tokenizer is not None:
            tokenizer.save_pretrained(folder)


def _present(adapter: Any) -> Any:
    """The adapter's configuration; as that of a new adapter if the stage before has not written it yet."""
    there = adapter.path is None or Path(adapter.path).is_dir()
    return adapter if there else adapter.model_copy(update={"path": None})


@contextmanager
def _refused(base: str) -> Iterator[None]:
    """Tell any error as one of the base's."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"{base}: a model trained from this base could not be saved ({type(error).__name__}:"
            f" {loading.first_line(error)}). Nothing was trained. Correct the base's configuration,"
            " generation settings or tokenizer, or model.adapter."
        ) from error
