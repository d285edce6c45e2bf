"""Is there a model under this name: a folder here, or an id of the Hugging Face hub?

transformers answers a missing folder with the hub's rules for names, and an id without a network with a
minute of retries. Here both end at once, with the reason.
"""

import os
import re
import socket
from pathlib import Path
from urllib.parse import urlsplit

from core.errors import UserError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
"""`gpt2`, `meta-llama/Llama-2-7b-hf`."""
CONNECT_S = 5.0


def check_location(path: str) -> None:
    """UserError if `path` is neither a folder nor an id that the hub or its cache could have."""
    if not path:
        raise UserError("no model folder given")
    if Path(path).is_dir():
        return
    if Path(path).exists():
        raise UserError(f"{path}: not a folder. Give the folder that the file is in.")
    if not HUB_ID.fullmatch(path):
        raise UserError(f"{path}: no such folder")
    if not _is_cached(path) and not _hub_answers():
        raise UserError(
            f"{path}: no such folder, and not in the Hugging Face cache; the hub cannot be reached from here"
        )


def _is_cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    files = ("config.json", "tokenizer_config.json", "adapter_config.json")
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


def _hub_answers() -> bool:
    """Whether a connection to the hub opens; taken for granted behind a proxy."""
    from huggingface_hub.constants import ENDPOINT, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        return False
    if any(os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")):
        return True
    url = urlsplit(ENDPOINT)
    address = (url.hostname or "", url.port or (80 if url.scheme == "http" else 443))
    try:
        socket.create_connection(address, timeout=CONNECT_S).close()
    except OSError:
        return False
    return True
