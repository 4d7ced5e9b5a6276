"""Stop texts in a stream: what may be shown now, and whether the answer ends here."""

from __future__ import annotations

from collections.abc import Sequence


class StopText:
    """Passes text through until one of the stop texts is complete, and never lets out a piece of one.

    The result does not depend on how the text was cut into pushes: the stop text that is complete first ends it (of
    two complete at the same character, the longer).
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stops)
        self.stopped = False
        self._held = ""

    def copy(self) -> StopText:
        """A second one that goes on from here."""
        other = StopText(self.stops)
        other.stopped, other._held = self.stopped, self._held
        return other

    def push(self, text: str) -> str:
        """The text that is certain not to belong to a stop text; `stopped` turns true when one is complete."""
        if not self.stops:
            return text
        if self.stopped:
            return ""
        text = self._held + text
        found = [(start + len(stop), start) for stop in self.stops if (start := text.find(stop)) >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)[1]]
        keep = max(self._beginning(text, stop) for stop in self.stops)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back, now that no more text comes."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _beginning(text: str, stop: str) -> int:
        """The length of the longest end of `text` that could be the beginning of `stop`."""
        for length in range(min(len(stop) - 1, len(text)), 0, -1):
            if text.endswith(stop[:length]):
                return length
        return 0
