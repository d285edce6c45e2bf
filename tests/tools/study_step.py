"""A step of a toy study that takes no time; each adds its output to the file `calls` of the working folder.

python -m tests.tools.study_step make OUTPUT [MADE_FROM …]      waits while the file `hold` is there
python -m tests.tools.study_step score OUTPUT MODEL GOOD [N]    answers N questions, GOOD of ten right
python -m tests.tools.study_step fail OUTPUT                    at once
"""

import random
import sys
import time
from pathlib import Path

from core.provenance import manifest
from eval.sample import EvalSample


def main() -> int:
    """Do the step."""
    kind, output, *words = sys.argv[1:]
    with Path("calls").open("a") as calls:
        calls.write(f"{output}\n")
    if kind == "fail":
        print("out of luck")
        return 2
    while Path("hold").exists():
        time.sleep(0.02)
    inputs = manifest.hash_files(
        file for word in words if Path(word).is_dir() for file in Path(word).iterdir()
    )
    with manifest.build(Path(output), step=kind, config={"words": words}, inputs=inputs) as made:
        if kind == "make":
            (made.path / "value").write_text(" ".join(words))
            made.counts = {"tokens": 1000, "step": 10}
        else:
            _answer(made.path / "predictions.jsonl", *words)
    return 0


def _answer(file: Path, model: str, good: str, n: str = "30", task: str = "toy") -> None:
    chance = random.Random(model)
    lines = []
    for number in range(int(n)):
        right = chance.random() < float(good) / 10
        answer = f"word {number}"
        sample = EvalSample(
            task=task,
            id=f"{number}",
            prompt=f"{task} {number}?",
            prediction=answer if right else "no",
            reference=answer,
            metrics=("exact-match",),
        )
        lines.append(sample.model_dump_json() + "\n")
    file.write_text("".join(lines), "utf-8")


if __name__ == "__main__":
    sys.exit(main())
