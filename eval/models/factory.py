"""The model that a command line names: a folder, an endpoint, a predictions file, or the copy baseline.

--model FOLDER | --endpoint URL --model NAME | --replay FILE | --copy ──open_backend──▶ Backend
"""

import argparse
from functools import partial

from eval.models.base import Backend
from eval.ranks import Ranks


def open_backend(arguments: argparse.Namespace, name: str, ranks: Ranks, is_base: bool = False) -> Backend:
    """Open the model `name`; --replay and --copy replace the model, not its base."""
    if (arguments.replay or arguments.copy) and not is_base:
        from eval.models import replay

        return replay.open_backend(arguments.replay) if arguments.replay else replay.open_copy()
    if arguments.endpoint:
        from eval.models import openai_api

        config = openai_api.EvalEndpointConfig(
            url=arguments.endpoint,
            model=name,
            chat=arguments.chat,
            log_probabilities=arguments.log_probabilities,
            concurrency=max(1, arguments.concurrency),
        )
        return openai_api.open_backend(config)
    from eval.models import hf, loglikelihood

    (hashes, *_) = ranks.gather(hf.inputs(name) if ranks.rank == 0 else None)
    settings = {"chat": arguments.chat, "four_bit": arguments.four_bit, "context": arguments.context}
    local = hf.open_model(name, arguments.batch_tokens, **settings)
    return Backend(
        hf.identity(hashes, **settings),
        partial(hf.generate, local),
        partial(loglikelihood.log_likelihood, local),
        partial(loglikelihood.rolling_log_likelihood, local),
        partial(loglikelihood.answer_likelihood, local),
        partial(hf.cut, local),
        hashes,
    )
