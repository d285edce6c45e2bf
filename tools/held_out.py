"""Held-out text for `make eval`: abstracts of synthetic inventions that no tiny model was trained on.

    python -m tools.held_out --output corpora/tiny-held-out

The inventions are drawn with another seed than those of configs/data/tiny.yaml. A line of abstracts.jsonl has
`id`, `language` and `text`; the files of `python -m data synthesize` are next to it.
"""

import argparse
import json
from pathlib import Path

from core.errors import run_command
from core.provenance import manifest

INVENTIONS, SEED = 40, 1


def main() -> None:
    """Write the folder, unless it exists."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.held_out",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--output", type=Path, required=True)
    write(parser.parse_args().output)


def write(output: Path) -> None:
    """Make the inventions and write their abstracts, each with an id of its own."""
    from data.synthetic.patents import synthesize

    if output.exists():
        return
    settings = {"inventions": INVENTIONS, "seed": SEED}
    with manifest.build(output, step="held-out", config=settings, inputs={}) as built:
        built.counts = synthesize(built.path, INVENTIONS, SEED)
        records = map(json.loads, (built.path / "records.jsonl").read_text("utf-8").splitlines())
        lines = [
            {"id": f"{each['id']}-{each['language']}", "language": each["language"], "text": each["abstract"]}
            for each in records  # an invention's records in both languages have one id
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (built.path / "abstracts.jsonl").write_text(text, "utf-8")
    print(f"{INVENTIONS} held-out inventions: {output}")


if __name__ == "__main__":
    run_command(main)
