"""The first chats of a prepared folder, as the model sees them, with trained tokens in colour."""

from itertools import pairwise
from typing import Any

import numpy as np

from data.chat.prepare import ChatSet
from data.packing.indexed_dataset import Documents

TRAINED, PLAIN = "\x1b[32m", "\x1b[0m"


def preview(
    chat_set: ChatSet, tokenizer: Any, *, chats: int = 3, split: str = "train", colour: bool = True
) -> str:
    """The first chats of a split: trained tokens in green, or between ⟦ and ⟧ without colour."""
    begin, end = (TRAINED, PLAIN) if colour else ("⟦", "⟧")
    documents, marks = Documents(chat_set.split(split)), chat_set.trained(split)
    sources = np.load(chat_set.split(split).with_name(f"{split}.sources.npy"), mmap_mode="r")
    names = list(chat_set.counts["sources"])
    shown = []
    for number in range(min(chats, len(documents))):
        ids, first = documents[number], documents.first_token(number)
        trained = np.concatenate([[0], marks[first : first + len(ids)], [0]]).astype(np.int8)
        edges = [0, *np.flatnonzero(np.diff(trained)).tolist(), len(ids)]
        text = ""
        for piece, (start, stop) in enumerate(pairwise(edges)):
            part = tokenizer.decode(ids[start:stop])
            text += f"{begin}{part}{end}" if piece % 2 else part
        count = int(trained.sum())
        shown.append(f"{names[sources[number]]}: {len(ids)} tokens, {count} trained\n{text}\n")
    return "\n".join(shown)
