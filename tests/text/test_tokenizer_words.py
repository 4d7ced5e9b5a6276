"""Cutting text into words, against the regular expressions that define it."""

from __future__ import annotations

from typing import Any

import pytest
import tiktoken
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from chatsmith.text import tokenizer_words
from chatsmith.text.tokenizer_words import GPT2, LLAMA3, QWEN2, SMOLLM, Lexicon, words_of

# Text that sits on the edges of the word patterns: clitics, digits, kinds of space, marks, letters of all sorts.
EDGES = st.sampled_from(
    [*"aZsStTlLreREvVmd''  \n\r\t12½(.-é़жſ中\u00a0\u3000\u2028", "'s", "'LL", " '", "\U0010ffff", "😀"]
)
TEXTS = st.lists(EDGES, max_size=40).map("".join) | st.text(max_size=40)

SAMPLE = (
    "The sea otter's children don't sleep; they'll drift, and I'VE seen 12,345 of them in 2024!\n\n"
    "\tdef f(x):\n\t\treturn x  # naïve café — слово 中文字 <|end|>\r\n   Well...   (Really?)\n"
)


@pytest.mark.parametrize("block", [1 << 18, 12, 7])
@pytest.mark.parametrize("pattern", [GPT2, LLAMA3, QWEN2, SMOLLM], ids=lambda pattern: pattern.name)
def test_words_are_those_of_the_regular_expression(pattern: Any, block: int) -> None:
    expression = pre_tokenizers.Split(tokenizers.Regex(pattern.regex), behavior="isolated")
    tokenizer_words._keys()  # sized for whole blocks

    @settings(max_examples=400, deadline=None)
    @given(TEXTS)
    def check(text: str) -> None:
        wanted = [word for word, _ in expression.pre_tokenize_str(text)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tokenizer_words, "BLOCK", block)
            patch.setattr(tokenizer_words, "MAX_WORD", max(3, block // 2))
            longest = tokenizer_words.MAX_WORD
            found = [w.text[a:b] for w in words_of(text, pattern) for a, b in zip(w.bounds, w.bounds[1:], strict=False)]
        assert "".join(found) == text
        assert max(map(len, found), default=0) <= longest
        if max(map(len, wanted), default=0) <= longest:
            assert found == wanted

    check()


def test_both_engines_agree_on_what_every_character_is() -> None:
    """What makes tiktoken's words those of the tokenizers library: the same Unicode tables."""
    characters = "".join(chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000)
    for kind in (r"\p{L}", r"\p{N}", r"\s"):
        engine = tiktoken.Encoding(
            kind, pat_str=f"{kind}+", mergeable_ranks={bytes([value]): value for value in range(256)}, special_tokens={}
        )
        split = pre_tokenizers.Split(tokenizers.Regex(f"{kind}+"), behavior="removed", invert=True)
        assert engine.decode(engine.encode_ordinary(characters)) == "".join(
            [text for text, _ in split.pre_tokenize_str(characters)]
        )


def test_lexicon_numbers_words_consistently() -> None:
    lexicon = Lexicon()
    text = SAMPLE * 3 + "x" * 100 + " " + "x" * 100 + SAMPLE
    for _ in range(2):
        for words in words_of(text, QWEN2):
            numbers = lexicon.numbers(words)
            assert numbers is not None
            spelled = [words.text[a:b] for a, b in zip(words.bounds, words.bounds[1:], strict=False)]
            assert [lexicon.words[number] for number in numbers] == spelled
    assert len(set(lexicon.words)) == len(lexicon.words)


def test_ascii_is_classed_as_the_engine_does() -> None:
    for newlines in (False, True):
        wanted = tokenizer_words._classes(newlines, False)[:0x80]
        assert tokenizer_words._ascii_classes(newlines).tolist() == wanted.tolist()
