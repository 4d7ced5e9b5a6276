"""Stop texts in streams, cut anyhow."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chatsmith.generate.stopping import StopText


def expected(text: str, stops: list[str]) -> tuple[str, bool]:
    """What a reader who sees one character at a time would keep."""
    for end in range(1, len(text) + 1):
        starts = [end - len(stop) for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], True
    return text, False


@settings(max_examples=300, deadline=None)
@given(st.lists(st.text("abc", max_size=4), max_size=12), st.lists(st.text("abc", min_size=1, max_size=5), max_size=4))
def test_any_cutting_gives_the_same_text_and_shows_no_piece_of_a_stop(pieces: list[str], stops: list[str]) -> None:
    stopper, shown = StopText(stops), ""
    wanted, ends = expected("".join(pieces), stops)
    for piece in pieces:
        shown += stopper.push(piece)
        assert wanted.startswith(shown)
        if stopper.stopped:
            break
    assert shown + stopper.flush() == wanted
    assert stopper.stopped == ends


def test_text_that_cannot_become_a_stop_is_shown_at_once() -> None:
    stopper = StopText(["\nUser:"])
    assert stopper.push("Hello there") == "Hello there"
    assert stopper.push("\n") == ""
    assert stopper.push("No") == "\nNo"
    assert stopper.push("\nUs") == ""
    assert stopper.push("er: hi") == ""
    assert stopper.stopped
