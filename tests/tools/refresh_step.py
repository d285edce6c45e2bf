"""A step of a toy recipe that takes no time.

python -m tests.tools.refresh_step data FOLDER OUTPUT [EARLIER,…]      exit code 3: nothing new
python -m tests.tools.refresh_step make OUTPUT VALUE                   waits while the file `hold` is there
python -m tests.tools.refresh_step compare BEFORE OUTPUT VALUE         exit code 1: VALUE is `worse`
"""

import json
import sys
import time
from pathlib import Path

from core.provenance import manifest


def main() -> int:
    """Do the step."""
    kind, *words = sys.argv[1:]
    match kind:
        case "data":
            files = manifest.hash_files(sorted(Path(words[0]).iterdir()))
            earlier = [Path(folder) for folder in words[2].split(",") if folder]
            known = {digest for each in earlier for digest in manifest.read(each / "pack")["inputs"].values()}
            new = {name: digest for name, digest in files.items() if digest not in known}
            if not new:
                print("nothing new: all files are known")
                return 3
            with manifest.build(Path(words[1]) / "pack", step="data", config={}, inputs=new) as made:
                (made.path / "text").write_text("".join(Path(name).read_text("utf-8") for name in new))
        case "make":
            with manifest.build(Path(words[0]), step="make", config={"value": words[1]}, inputs={}) as made:
                (made.path / "value").write_text(words[1])
                while Path("hold").exists():
                    time.sleep(0.05)
            return 9 if words[1] == "broken" else 0
        case "compare":
            row = {"task": "t", "metric": "m", "primary": True, "verdict": words[2], "before": words[0]}
            Path(words[1]).write_text(json.dumps([row]))
            print(f"t: m {words[2]}")
            return int(words[2] == "worse")
    return 0


if __name__ == "__main__":
    sys.exit(main())
