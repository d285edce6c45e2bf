"""Scores translations with COMET, in an environment of its own (eval/metrics/comet_values.py starts it).

    python comet_worker.py INPUT OUTPUT --model NAME_OR_CKPT --batch-size 8 --gpus 0

INPUT has a line {"src", "mt", "ref"} for each sample, all of them with "ref" or none. OUTPUT gets a JSON
list of scores for each part, in order. Needs Python 3.8 and unbabel-comet, and nothing of this project.
"""

import argparse
import json
import os
import sys

PART = 1000
"""Samples in a part, whose scores are kept if a later part fails."""


def main() -> None:
    """Load the model and score the parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("input")
    parser.add_argument("output")
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--gpus", type=int, required=True)
    arguments = parser.parse_args()
    # The folder of a script is searched first: its neighbours would hide packages of the same names.
    here = os.path.realpath(os.path.dirname(__file__))  # noqa: PTH120
    sys.path[:] = [path for path in sys.path if os.path.realpath(path) != here]
    from comet import download_model, load_from_checkpoint  # type: ignore[import-not-found]

    with open(arguments.input, encoding="utf-8") as lines:  # noqa: PTH123
        samples = [json.loads(line) for line in lines]
    local = os.path.isfile(arguments.model)  # noqa: PTH113
    model = load_from_checkpoint(arguments.model if local else download_model(arguments.model))
    if "ref" not in samples[0] and model.requires_references():
        sys.exit(f"{arguments.model} needs references, and these samples have none")
    # With several GPUs, the other processes end with the first call.
    size = PART if arguments.gpus < 2 else len(samples)
    with open(arguments.output, "w", encoding="utf-8") as out:  # noqa: PTH123
        for start in range(0, len(samples), size):
            part = samples[start : start + size]
            found = model.predict(part, batch_size=arguments.batch_size, gpus=arguments.gpus).scores
            if len(found) != len(part):
                sys.exit(f"COMET gave {len(found)} scores for {len(part)} samples")
            out.write(json.dumps([float(score) for score in found]) + "\n")
            out.flush()


if __name__ == "__main__":
    main()
