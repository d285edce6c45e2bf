"""Questions, kept for some days if the operator wants it: RUN/questions/2026-11-30.jsonl, one file a day."""

import json
import os
from datetime import UTC, date, datetime, timedelta
from pathlib import Path


class QuestionLog:
    """With 0 days nothing is written, and what an earlier service kept is removed."""

    def __init__(self, run: Path, keep_days: int = 0) -> None:
        self.folder, self.keep_days = run / "questions", keep_days
        self.day: date | None = None
        self._remove_old(datetime.now(UTC).date())

    def add(self, question: str) -> None:
        """Keep a question, if any are kept."""
        if not self.keep_days:
            return
        now = datetime.now(UTC)
        if self.day != now.date():
            self.day = now.date()
            self.folder.mkdir(exist_ok=True, mode=0o700)
            self._remove_old(self.day)
        line = json.dumps(
            {"time": now.isoformat(timespec="seconds"), "question": question}, ensure_ascii=False
        )
        file = self.folder / f"{self.day.isoformat()}.jsonl"
        descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, line.encode() + b"\n")
        finally:
            os.close(descriptor)

    def _remove_old(self, today: date) -> None:
        first = today - timedelta(days=max(0, self.keep_days - 1))
        for file in self.folder.glob("*.jsonl"):
            if self.keep_days == 0 or file.stem < first.isoformat():
                file.unlink()
