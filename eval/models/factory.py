"""The model that a command line names: a folder, an endpoint, a predictions file, or the copy baseline.

--model FOLDER | --endpoint URL --model NAME | --replay FILE | --copy ──open_backend──▶ Backend
"""

import argparse
from functools import partial
from typing import Any

from core.openai_client import from_options
from eval.models import openai_api
from eval.models.base import Backend, continuation_of
from eval.models.openai_api import EvalEndpointConfig
from eval.ranks import Ranks


def open_backend(arguments: argparse.Namespace, name: str, ranks: Ranks, is_base: bool = False) -> Backend:
    """Open the model `name`; --replay and --copy replace the model, not its base."""
    if (arguments.replay or arguments.copy) and not is_base:
        from eval.models import replay

        return replay.open_backend(arguments.replay) if arguments.replay else replay.open_copy()
    if arguments.endpoint:
        return openai_api.open_backend(endpoint(arguments, name))
    from eval.models import fit, hf, loglikelihood

    (hashes, *_) = ranks.gather(hf.inputs(name) if ranks.rank == 0 else None)
    names = ("chat", "four_bit", "dtype", "context")
    settings: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    local = hf.open_model(name, arguments.batch_tokens, **settings)
    backend = Backend(
        hf.identity(hashes, **settings),
        partial(hf.generate, local),
        partial(loglikelihood.log_likelihood, local),
        partial(loglikelihood.rolling_log_likelihood, local),
        partial(loglikelihood.answer_likelihood, local),
        partial(loglikelihood.position_likelihood, local),
        partial(fit.fit, local),
        hashes,
    )
    return backend if arguments.chat else backend._replace(depends_on=continuation_of)


def endpoint(arguments: argparse.Namespace, name: str) -> EvalEndpointConfig:
    """The model `name` at --endpoint; UserError if the address cannot be one."""
    return from_options(
        EvalEndpointConfig,
        {"url": "--endpoint"},
        url=arguments.endpoint,
        model=name,
        chat=arguments.chat,
        log_probabilities=arguments.log_probabilities,
        concurrency=max(1, arguments.concurrency),
    )
