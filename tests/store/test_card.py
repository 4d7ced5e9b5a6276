"""A card says what was measured, and is silent on what was not."""

from __future__ import annotations

from dataclasses import replace

from chatsmith.specs import PRESETS
from chatsmith.store.card import Measured, model_card

SPEC = PRESETS["gpt2-124m"]


def test_the_card_states_what_was_measured() -> None:
    measured = Measured(
        steps=1200, tokens=2_457_600, minutes=3.02, held_out_bits_per_byte=1.234, xz_bits_per_byte=2.1,
        data_fingerprint="abc123", chat=True,
    )  # fmt: skip
    card = model_card("runs/tiny", SPEC, measured)
    for words in (
        "124,439,808",
        "1,200",
        "2,457,600",
        "3.0 minutes",
        "1.234",
        "2.100 bits",
        "abc123",
    ):
        assert words in card
    assert "chatsmith chat runs/tiny" in card
    assert card.startswith("---\n")


def test_nothing_is_said_of_what_was_not_measured() -> None:
    card = model_card("tiny", SPEC, Measured())
    assert "## Results" not in card
    assert "## Training" not in card
    assert "None" not in card


def test_a_model_that_began_with_another_is_not_from_scratch() -> None:
    card = model_card("tiny", SPEC, Measured(started_from="runs/<first>", data_bytes=100_000, chat=True))
    assert "trained further with chatsmith from runs/&lt;first> and tuned to talk." in card
    assert "It knows 0.1 MB of text and what the model had read that it started from." in card
    assert "from scratch" not in card


def test_text_from_outside_cannot_break_the_card() -> None:
    nasty = Measured(sources=("a|b\n# heading <script>",))
    card = model_card("x", SPEC, nasty)
    assert "\n# heading" not in card
    assert "<script>" not in card


def test_a_shape_of_our_own_is_not_offered_to_other_programs() -> None:
    card = model_card("x", replace(SPEC, band=128), Measured())
    assert "transformers" not in card
    assert "last 128 tokens" in card
