"""LLaMA-Factory's training command, step by step, in an environment of its own.

torchvision and torchaudio come with it as builds that do not match torch's; it uses them for images and
sound, and imports torchaudio by name, so that one is empty here and the other is absent.
"""

import importlib.machinery
import sys
import types
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))

from benchmarks.peers.turns import Turns, follow_trainer


def main() -> None:
    """Train with the settings of the first line, one turn after the other."""
    turns = Turns()
    sys.modules["torchvision"] = None  # type: ignore[assignment]
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    sys.modules["torchaudio"].__spec__ = importlib.machinery.ModuleSpec("torchaudio", None)
    from llamafactory.train.tuner import run_exp

    follow_trainer(turns)
    run_exp(turns.settings())
    turns.end()


if __name__ == "__main__":
    main()
