"""How each family of transformers is trained: docs/families.md, by tiny models with default settings.

python -m core.model.families > docs/families.md
"""

import argparse
import logging
import sys
from collections.abc import Iterable

from core.errors import UserError

INTRODUCTION = """\
# Base models

`python -m core.model.families > docs/families.md` wrote this page with transformers {version}. A tiny random
model of each family of causal language models, with default settings, was tried out
(`core/model/proof.py`): two packed rows must have the loss of their documents, each by itself under
transformers' eager attention, to 1e-4, and no gradient may cross documents or come from later tokens. Every
start and `--dry-run` try this out with your model's own settings, so what counts is the line `attention` of
`--dry-run`; this page is an overview.

| attention | meaning |
|---|---|
| documents | attention inside documents that share rows: the default, and the fastest |
| eager, sdpa | the model's own, one document a row: right, but slower; a line in the log says so |
| not tried | no tiny model of the default settings: eager and one document a row |
| refused | no causal language model as it is, or it needs more than tokens: ends before training |

Loss `chunked`: without whole logits (`model.cross_entropy`); `full`: the model changes its logits.
Positions: learnt ones, which samples may not exceed.

| family | attention | loss | positions | why |
|---|---|---|---|---|
"""


def line(family: str) -> str:
    """The family's row in the table."""
    from transformers import AutoConfig

    from core.model import proof

    try:
        way = proof.prove(AutoConfig.for_model(family), "documents")
    except UserError as error:
        return f"| {family} | refused | | | {_cell(str(error))} |"
    except Exception as error:  # of transformers: some families have no default settings
        return f"| {family} | not tried | | | {_cell(str(error))} |"
    kind = "not tried" if way.why.startswith("it could not be tried out") else way.attention
    loss = "chunked" if way.plain_head else "full"
    return f"| {family} | {kind} | {loss} | {way.positions or ''} | {_cell(way.why)} |"


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
    return " ".join(text.split()).replace("|", "/")[:120]


def main() -> None:
    """Write the page to the standard output."""
    argparse.ArgumentParser(prog="python -m core.model.families", description=__doc__).parse_args()
    logging.disable(logging.WARNING)
    sys.stdout.write(page(families()))


if __name__ == "__main__":
    main()
