"""A command as if it were typed in another folder: python -m tests.frozen.at FOLDER MODULE [ARGUMENT ...]"""

import os
import runpy
import sys

if __name__ == "__main__":
    os.chdir(sys.argv[1])
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
