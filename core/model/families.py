"""How each family of transformers is trained: docs/families.md, by tiny models with default settings.

python -m core.model.families > docs/families.md
"""

import argparse
import logging
import re
import sys
from collections.abc import Iterable
from typing import Any

from core.errors import UserError

INTRODUCTION = """\
# Base models

`python -m core.model.families > docs/families.md` wrote this page with transformers {version}. A tiny random
model of each family of causal language models, with default settings (those of a published model where the
default ones are incomplete), was tried out (`core/model/proof.py`): two packed rows must have the loss of
their documents, each by itself under transformers' eager attention, to 1e-4, and no gradient may cross
documents or come from later tokens. Every start and `--dry-run` try this out with your model's own settings,
so what counts is the line `attention` of `--dry-run`; this page is an overview.

| attention | meaning |
|---|---|
| documents | attention inside documents that share rows: the default, and the fastest |
| eager, sdpa | the model's own, one document a row: right, but slower; a line in the log says so |
| not tried | no tiny model could be built: refused, unless `model.attention=eager` asks for it |
| refused | no causal language model as it is, or it needs more than tokens: ends before training |

Loss `chunked`: without whole logits (`model.cross_entropy`); `full`: the model changes its logits.
Positions: learnt ones, which samples may not exceed.

| family | attention | loss | positions | why |
|---|---|---|---|---|
"""

PUBLISHED: dict[str, dict[str, Any]] = {
    "deepseek_v2": {
        "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6, "q_lora_rank": None,
        "first_k_dense_replace": 1, "n_group": 1, "topk_group": 1,
    },
    "dots1": {
        "n_routed_experts": 128, "n_shared_experts": 2, "num_experts_per_tok": 6, "first_k_dense_replace": 1,
        "n_group": 1, "topk_group": 1,
    },
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 64, "moe_topk": 8},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention", "conv"] * 8},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8, "head_dim": 128},
}  # fmt: skip
"""Settings of published models of families whose default settings make no model."""


def line(family: str) -> str:
    """The family's row in the table."""
    from transformers import AutoConfig

    from core.model import proof

    try:
        way = proof.prove(AutoConfig.for_model(family, **PUBLISHED.get(family, {})), "documents")
    except UserError as error:
        kind = "not tried" if proof.UNTRIED in str(error) else "refused"
        return f"| {family} | {kind} | | | {_cell(str(error))} |"
    except Exception as error:  # of transformers: some families have no default settings
        return f"| {family} | not tried | | | {_cell(str(error))} |"
    loss = "chunked" if way.plain_head else "full"
    return f"| {family} | {way.attention} | {loss} | {way.positions or ''} | {_cell(way.why)} |"


def families() -> list[str]:
    """The names of all families that transformers has a causal language model of."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def page(names: Iterable[str]) -> str:
    """The page about these families."""
    import transformers

    lines = (f"{line(name)}\n" for name in names)
    return INTRODUCTION.format(version=transformers.__version__) + "".join(lines)


def _cell(text: str) -> str:
    """One line, without how far a loss is off: that differs by the processor that the page is made on."""
    return re.sub(r"is [\d.]+% off", "is off", " ".join(text.split())).replace("|", "/")[:120]


def main() -> None:
    """Write the page to the standard output."""
    argparse.ArgumentParser(prog="python -m core.model.families", description=__doc__).parse_args()
    logging.disable(logging.WARNING)
    sys.stdout.write(page(families()))


if __name__ == "__main__":
    main()
