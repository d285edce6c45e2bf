"""Frees what DeepSpeed's engine holds, so that another one can follow in the same process."""

import functools
import gc
import io
import sys
from contextlib import redirect_stdout
from typing import Any, cast

from core.distributed.deepspeed_backend import OFFLOAD, Engine, zero_stage


def release(engine: Engine) -> None:
    """Have DeepSpeed let go of an engine that is done with: the last reference to it then frees its memory.

    Without this, hooks on the weights' gradients keep the optimizer with its states, masters and buckets. At
    ZeRO 3 a list of modules and a function's cache, both global to the process, keep the model, too.
    """
    with redirect_stdout(io.StringIO()):  # it prints which hooks it removed
        cast(Any, engine).destroy()
    if zero_stage(engine) == 3:
        cast(Any, sys.modules[OFFLOAD]).FWD_MODULE_STACK.clear()
    for each in gc.get_objects():
        if type(each) is functools._lru_cache_wrapper and each.__module__.startswith("deepspeed."):
            each.cache_clear()
