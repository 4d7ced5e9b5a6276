"""Vocabularies as GGUF files, both ways: byte-level BPE (`gpt2` there) and SentencePiece's BPE (`llama`).

llama.cpp gives every token a type. Added tokens are of type control where they are special, user-defined where they
stand for text, as <think> does; rows of the model that are no token are unused.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from chatsmith.errors import RequestError, WorkError
from chatsmith.store import sentencepiece
from chatsmith.store.gguf import Gguf
from chatsmith.store.sentencepiece import UNKNOWN, Vocabulary, vocabulary_of
from chatsmith.store.tensors import AGAIN
from chatsmith.text.tokenizer import Tokenizer
from chatsmith.text.tokenizer_files import DIGITS, Document, byte_level_document, checked
from chatsmith.text.tokenizer_merges import ByteLevel, byte_level
from chatsmith.text.tokenizer_words import GPT2, LLAMA3, QWEN2, SMOLLM

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE = 1, 2, 3, 4, 5, 6
# How text is cut into words, by llama.cpp's names; of each the first is written.
_NAMES = {
    GPT2: ("gpt-2", "phi-2", "mpt", "olmo", "trillion", "mellum", "granite-docling"),
    LLAMA3: ("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "midm-2.0"),
    QWEN2: ("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez"),
    SMOLLM: ("smollm", "starcoder", "refact", "command-r", "minerva-7b"),
}
_CUTS = {name: pattern for pattern, names in _NAMES.items() for name in names}
_HAN_AND_YI = "[一-龥ࠀ-一가-퟿]+"  # as published: the second range runs up to the first, and takes in far more
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_LINES = r"\s*[\r\n]+|\s+(?!\S)|\s+"


def _splits(*steps: str | dict[str, Any]) -> dict[str, Any]:
    """A `pre_tokenizer` entry that cuts by these expressions, one after the other."""
    cuts = [
        {"type": "Split", "pattern": {"Regex": step}, "behavior": "Isolated", "invert": False}
        if isinstance(step, str)
        else step
        for step in steps
    ]
    whole = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return {"type": "Sequence", "pretokenizers": [*cuts, whole]}


# Cuts that only the tokenizers library makes, as the tokenizer.json of these models says them.
_OTHERS = {
    "tekken": _splits(
        rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
        rf"| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_LINES}"
    ),
    "deepseek-coder": _splits(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _HAN_AND_YI, DIGITS),
    "deepseek-v3": _splits(
        r"\p{N}{1,3}",
        "[一-龥぀-ゟ゠-ヿ]+",
        r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
        rf"| ?[\p{{P}}\p{{S}}]+[\r\n]*|{_LINES}",
    ),
    "seed-coder": _splits(
        r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}"
        rf"| ?[^\s\p{{L}}\p{{N}}\r\n]+|{_LINES}"
    ),
}
_WHOLE_WORDS = {*_NAMES[LLAMA3], "tekken"}
"""Where words that are tokens are looked up before any merge, and texts begin with a token unless the file says not."""
_ANY_CUT = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}
_END, _MORE_ENDS = "eos_token_id", ("eot_token_id", "eom_token_id")


def vocabulary_values(tokenizer: Tokenizer, rows: int, stops: Collection[int]) -> dict[str, Any]:
    """What a file says of a vocabulary and of the ids that end a text, besides the tokenizer's own.

    Raises `RequestError` for a vocabulary that llama.cpp would read in another way.
    """
    names, kinds = [f"[PAD{number}]" for number in range(rows)], [_UNUSED] * rows
    named = next((name for name, cutter in _OTHERS.items() if tokenizer.document.get("pre_tokenizer") == cutter), None)
    found = tokenizer.byte_level if named is None else byte_level(tokenizer.document | {"pre_tokenizer": _ANY_CUT})
    if found is not None:
        for token, number in found.vocabulary.items():
            names[number], kinds[number] = token, _NORMAL
        values = _byte_level_values(found, named or _NAMES[found.pattern][0])
    else:
        try:
            pieces = vocabulary_of(tokenizer.document)
        except RequestError as error:
            raise RequestError(
                f"only byte-level BPE and SentencePiece's BPE are written as GGUF: {error.message}",
                "convert to a folder instead",
            ) from None
        for number, piece in enumerate(pieces.pieces):
            names[number], kinds[number] = piece, _BYTE if pieces.is_byte(piece) else _NORMAL
        values = _sentencepiece_values(pieces, rows)
    for token in tokenizer.document.get("added_tokens") or []:
        kind = _CONTROL if token["content"] in tokenizer.specials else _USER_DEFINED
        names[token["id"]], kinds[token["id"]] = token["content"], _UNKNOWN if token["content"] == UNKNOWN else kind
    begin, end = tokenizer.begin_of_text, tokenizer.end_of_text
    ends = sorted({number for number in {*stops, *tokenizer.stop_ids} if 0 <= number < rows} - {end})
    if len(ends) > len(_MORE_ENDS):
        raise RequestError(f"GGUF has names for three tokens that end a text, and this model has {len(ends) + 1}")
    return (
        {"tokenizer.ggml.tokens": names, "tokenizer.ggml.token_type": kinds}
        | {f"tokenizer.ggml.{key}": value for key, value in values.items()}
        | {"tokenizer.ggml.bos_token_id": end if begin is None else begin, f"tokenizer.ggml.{_END}": end}
        | {f"tokenizer.ggml.{key}": number for key, number in zip(_MORE_ENDS, ends, strict=False)}
        | {"tokenizer.ggml.add_bos_token": begin is not None}
        | ({"tokenizer.chat_template": tokenizer.chat_template} if tokenizer.chat_template else {})
    )


def _byte_level_values(found: ByteLevel, cut: str) -> dict[str, Any]:
    if found.whole_words and cut not in _WHOLE_WORDS:
        raise RequestError(
            "this vocabulary looks words up that no merges make, which llama.cpp does for Llama 3's and Tekken alone",
            "convert to a folder instead",
        )
    return {
        "model": "gpt2",
        "pre": cut,
        "merges": [" ".join(pair) for pair in found.merges],
    }


def _sentencepiece_values(found: Vocabulary, rows: int) -> dict[str, Any]:
    return {
        "model": "llama",
        "pre": "default",
        "scores": [*found.scores, *[0.0] * (rows - len(found.scores))],
        "unknown_token_id": 0,
        "add_space_prefix": found.prefix,
    }


def read_vocabulary(file: Gguf) -> tuple[Tokenizer, dict[str, Any]]:
    """The vocabulary of a file, and what generation_config.json says of one: the ids that end a text.

    Raises `RequestError` for a kind that is not read, and `WorkError` where the file contradicts itself.
    """
    kind = file.get("tokenizer.ggml.model", str)
    if kind not in ("gpt2", "llama"):
        raise RequestError(
            f"{file.path}: vocabularies of type {kind!r} are not read",
            "byte-level BPE (gpt2) and SentencePiece (llama) are",
        )
    tokens = file.get("tokenizer.ggml.tokens", list)
    types = file.get("tokenizer.ggml.token_type", np.ndarray, np.full(len(tokens), _NORMAL))
    if not tokens or len(types) != len(tokens) or not all(isinstance(token, str) for token in tokens):
        raise _contradiction(file, "its list of tokens")
    kinds = types.tolist()
    used = [token for token, kind in zip(tokens, kinds, strict=True) if kind != _UNUSED]
    if len(set(used)) < len(used) or not set(kinds) <= {_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED, _UNUSED, _BYTE}:
        raise _contradiction(file, "its list of tokens")
    ends = {_token(file, key, len(tokens)) for key in (_END, *_MORE_ENDS) if f"tokenizer.ggml.{key}" in file.values}
    config: dict[str, Any] = {"eos_token": tokens[_token(file, _END, len(tokens))]}
    # Files from before llama.cpp told ways of cutting apart do not say; of GPT-2 there is but one.
    unsaid = "gpt-2" if file.get("general.architecture", str, "") == "gpt2" else ""
    cut = file.get("tokenizer.ggml.pre", str, unsaid)
    begins = file.get("tokenizer.ggml.add_bos_token", bool, kind == "llama" or cut in _WHOLE_WORDS)
    if begins:
        begin = _token(file, "bos_token_id", len(tokens), 1 if kind == "llama" else None)
        config |= {"bos_token": tokens[begin], "add_bos_token": True}
    if "tokenizer.chat_template" in file.values:
        config["chat_template"] = file.get("tokenizer.chat_template", str)
    try:
        if kind == "llama":
            document = _sentencepiece_document(file, tokens, kinds, begins)
            config = sentencepiece.tokenizer_config(begins) | config
        else:
            document = _byte_level_document(file, tokens, kinds, cut)
        tokenizer = Tokenizer(checked(document, Path("the vocabulary")), config)
    except RequestError as error:
        raise RequestError(f"{file.path}: {error.message}", error.hint) from None
    return tokenizer, {"eos_token_id": sorted(ends | tokenizer.stop_ids)}


def _contradiction(file: Gguf, what: str) -> WorkError:
    return WorkError(f"{file.path} is damaged: {what} contradicts itself", AGAIN)


def _token(file: Gguf, key: str, count: int, default: int | None = None) -> int:
    number: int = file.get(f"tokenizer.ggml.{key}", int, default)
    if not 0 <= number < count:
        raise WorkError(f"{file.path} is damaged: its {key} is {number}, of {count} tokens", AGAIN)
    return number


def _byte_level_document(file: Gguf, tokens: list[str], kinds: list[int], cut: str) -> Document:
    if not cut:
        raise RequestError("it does not say how its vocabulary cuts text", "make it anew with a llama.cpp of today")
    if cut not in _CUTS and cut not in _OTHERS:
        readable = ", ".join((*_CUTS, *_OTHERS))
        raise RequestError(f"its vocabulary cuts text as {cut!r}, which is not read", f"readable: {readable}")
    merges = file.get("tokenizer.ggml.merges", list)
    pairs = [(left, right) for left, _, right in (str(merge).partition(" ") for merge in merges)]
    vocabulary = {
        token: number for number, (token, kind) in enumerate(zip(tokens, kinds, strict=True)) if kind != _UNUSED
    }
    marks = _added(tokens, kinds)
    specials, words = {token: vocabulary[token] for token in marks}, {token for token in marks if not marks[token]}
    document = byte_level_document(vocabulary, pairs, _CUTS.get(cut, GPT2), specials, words)
    document |= {"pre_tokenizer": _OTHERS[cut]} if cut in _OTHERS else {}
    if cut in _WHOLE_WORDS:
        # Llama 3 has words that no merges make: they are looked up whole.
        made = {left + right for left, right in pairs} | marks.keys()
        document["model"]["ignore_merges"] = any(len(token) > 1 and token not in made for token in vocabulary)
    return document


def _sentencepiece_document(file: Gguf, tokens: list[str], kinds: list[int], begins: bool) -> Document:
    count = max((number + 1 for number, kind in enumerate(kinds) if kind != _UNUSED), default=0)
    scores = file.get("tokenizer.ggml.scores", np.ndarray)
    if len(scores) != len(tokens):
        raise _contradiction(file, "its list of scores")
    if _UNUSED in kinds[:count]:
        raise RequestError("its vocabulary has unused pieces between others, which is not read")
    if file.get("tokenizer.ggml.remove_extra_whitespaces", bool, False):
        raise RequestError("its vocabulary takes spaces out of texts, which is not read")
    added = {token: special for token, special in _added(tokens, kinds).items() if token not in tokens[:3]}
    prefix = file.get("tokenizer.ggml.add_space_prefix", bool, True)
    found = Vocabulary(tuple(tokens[:count]), tuple(scores[:count].tolist()), added, prefix)
    if any(kind == _BYTE and not found.is_byte(token) for token, kind in zip(tokens, kinds, strict=True)):
        raise _contradiction(file, "its list of tokens")
    if begins and _token(file, "bos_token_id", count, 1) != 1:
        raise RequestError("its texts begin with another token than <s>, which is not read")
    return sentencepiece.tokenizer_json(found, begins)


def _added(tokens: list[str], kinds: list[int]) -> dict[str, bool]:
    """The added tokens, and whether each is special."""
    added = (_CONTROL, _UNKNOWN, _USER_DEFINED)
    return {token: kind != _USER_DEFINED for token, kind in zip(tokens, kinds, strict=True) if kind in added}
