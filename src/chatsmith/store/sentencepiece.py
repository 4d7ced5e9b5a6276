"""SentencePiece vocabularies as tokenizer.json and back, without the sentencepiece library.

Two files are read: the `.model` of SentencePiece (a protocol buffer, of which we need the pieces and two settings)
and the `tokenizer.bin` of llama2.c (scores and bytes). Such a vocabulary merges the neighbours whose joined piece
scores best; as a byte-pair vocabulary that is a list of merges in falling order of score.
"""

from __future__ import annotations

import math
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chatsmith.errors import RequestError, WorkError
from chatsmith.text.tokenizer_files import Document

_MAX_FILE_BYTES = 64 * 2**20
_MAX_PIECES = 2**20
_MAX_PIECE_BYTES = 1024
_MAX_MERGES = 2**22  # Llama 2 has 61,249
_SPACE = "▁"  # SentencePiece's mark for a space
_BPE, _CHARACTERS = 2, 4  # TrainerSpec.ModelType
UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"
_BYTES = frozenset(f"<0x{byte:02X}>" for byte in range(256))


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Pieces by id and their scores; ids 0, 1, 2 are unknown, begin and end.

    `added` names the pieces beyond these three that no merge makes, and whether each is special (a control token);
    `prefix` says that a space is put before every text.
    """

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    added: Mapping[str, bool] = field(default_factory=dict)
    prefix: bool = True

    def __post_init__(self) -> None:
        if self.pieces[:3] != (UNKNOWN, BEGIN, END):
            begin = " ".join(piece[:20] for piece in self.pieces[:3])
            raise RequestError(f"the vocabulary begins with {begin}, not with {UNKNOWN} {BEGIN} {END}")
        if len(self.pieces) > _MAX_PIECES:
            raise RequestError(f"the vocabulary has {len(self.pieces):,} pieces; at most {_MAX_PIECES:,} are read")
        sizes = [len(piece.encode("utf-8", "surrogatepass")) for piece in self.pieces]
        if max(sizes) > _MAX_PIECE_BYTES or sum(sizes) > _MAX_FILE_BYTES:
            raise RequestError(f"the vocabulary has a piece of {max(sizes):,} bytes, in all {sum(sizes):,}")
        [(twice, count)] = Counter(self.pieces).most_common(1)
        if count > 1:
            raise RequestError(f"the vocabulary has the piece {twice!r} twice")
        if not all(map(math.isfinite, self.scores)):
            raise RequestError("the vocabulary has a score that is not a number")

    @property
    def byte_fallback(self) -> bool:
        """Whether every byte has a piece of its own, so that no text is unknown."""
        return set(self.pieces) >= _BYTES

    def is_byte(self, piece: str) -> bool:
        """Whether a piece stands for a byte of characters that have no piece."""
        return piece in _BYTES

    def merged(self, piece: str) -> bool:
        """Whether a piece is text that merges make: no byte, and none of the added ones."""
        return piece not in _BYTES and piece not in (UNKNOWN, BEGIN, END) and piece not in self.added


def read_vocabulary(path: Path) -> Vocabulary:
    """Read a `.model` or a llama2.c `.bin` vocabulary; `RequestError` when it is missing, `WorkError` when damaged."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > _MAX_FILE_BYTES:
            raise RequestError(f"{path} is {size} bytes; a vocabulary has at most {_MAX_FILE_BYTES}")
        data = path.read_bytes()
    except OSError as error:
        raise RequestError(f"cannot read the vocabulary {path}: {error.strerror}") from None
    try:
        return _read_model(data) if path.suffix == ".model" else _read_llama2c(data)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise WorkError(f"{path} is damaged or not a vocabulary: {error}", "copy or download it again") from None
    except RequestError as error:
        raise RequestError(f"{path}: {error.message}", error.hint) from None


def _read_llama2c(data: bytes) -> Vocabulary:
    """Int32 longest piece, then per piece: float32 score, int32 length, bytes (spaces written as spaces)."""
    pieces: list[str] = []
    scores: list[float] = []
    place = 4
    while place < len(data):
        score, length = struct.unpack_from("<fi", data, place)
        place += 8
        if not 0 < length <= _MAX_PIECE_BYTES or place + length > len(data) or len(pieces) == _MAX_PIECES:
            raise IndexError(f"piece {len(pieces)} claims {length} bytes")
        text = data[place : place + length].decode("utf-8")
        # llama2.c puts the two markers on lines of their own, for printing.
        pieces.append(text.strip("\n") if len(pieces) in (1, 2) else text.replace(" ", _SPACE))
        scores.append(score)
        place += length
    return Vocabulary(tuple(pieces), tuple(scores))


def _read_model(data: bytes) -> Vocabulary:
    """ModelProto: 1 repeated piece {1 text, 2 score}, 2 trainer {3 model type}, 3 normaliser {1 name, 3 prefix}."""
    pieces: list[str] = []
    scores: list[float] = []
    for number, value in _fields(data):
        if number == 1:
            inner = dict(_fields(_as_bytes(value)))
            pieces.append(_as_bytes(inner.get(1, b"")).decode("utf-8"))
            (score,) = struct.unpack("<f", _as_bytes(inner.get(2, bytes(4))))
            scores.append(score)
        elif number == 2:
            kind = dict(_fields(_as_bytes(value))).get(3, 1)
            if kind not in (_BPE, _CHARACTERS):
                raise RequestError("not a byte-pair or character vocabulary (unigram and word models are not read)")
        elif number == 3:
            inner = dict(_fields(_as_bytes(value)))
            if inner.get(1, b"identity") != b"identity" or inner.get(3, 1) != 1:
                raise RequestError("its text normalisation is not the identity with a space put before the text")
        if len(pieces) > _MAX_PIECES:
            raise RequestError(f"more than {_MAX_PIECES} pieces")
    return Vocabulary(tuple(pieces), tuple(scores))


def _as_bytes(value: bytes | int) -> bytes:
    if isinstance(value, int):
        raise IndexError("a number stands where text should")
    return value


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """The fields of a protocol buffer message: number and value, a varint as int and all else as bytes."""
    place = 0

    def varint() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = data[place]
            place += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise IndexError("a number is too long")

    while place < len(data):
        number, wire = divmod(varint(), 8)
        if wire == 0:
            yield number, varint()
            continue
        length = {1: 8, 5: 4}.get(wire)
        if length is None:
            if wire != 2:
                raise IndexError(f"field {number} is of an unknown kind")
            length = varint()
        if place + length > len(data):
            raise IndexError(f"field {number} runs past the end")
        yield number, data[place : place + length]
        place += length


def merges(vocabulary: Vocabulary) -> list[tuple[str, str]]:
    """The merges that build the pieces, best score first.

    Every way to cut a piece into two pieces is a merge; cuts of one piece stand together, as SentencePiece ranks
    pairs by the score of the piece they make, not by the pair. Raises `RequestError` where two pieces have one score:
    which of them is made first depends on where they stand, and merges cannot say so. (Runs of one character, as
    Llama 2 has them of spaces, come to the same in any order.)
    """
    ids = {piece: index for index, piece in enumerate(vocabulary.pieces) if vocabulary.merged(piece)}
    found: list[tuple[float, int, tuple[int, int]]] = []
    scored: dict[float, str] = {}
    for piece, index in ids.items():
        cuts = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = sorted((ids[a], ids[b]) for a, b in cuts if a in ids and b in ids)
        score = vocabulary.scores[index]
        other = scored.setdefault(score, piece) if known else piece
        if other != piece and not _run(piece) == _run(other) != "":
            raise RequestError(f"the pieces {other!r} and {piece!r} have the same score, {score:g}")
        found += [(-score, index, pair) for pair in known]
        if len(found) > _MAX_MERGES:
            raise RequestError(f"the vocabulary makes its pieces in more than {_MAX_MERGES:,} ways")
    return [(vocabulary.pieces[a], vocabulary.pieces[b]) for _, _, (a, b) in sorted(found)]


def _run(piece: str) -> str:
    """The character that a piece repeats; "" where there are several."""
    return piece[0] if piece == piece[0] * len(piece) else ""


def vocabulary_of(document: Document) -> Vocabulary:
    """The vocabulary behind a tokenizer.json that `tokenizer_json` would give; the scores only rank its pieces.

    Raises `RequestError` for a document that encodes otherwise than SentencePiece would.
    """
    model, added = document["model"], document.get("added_tokens") or []
    if model.get("type", "BPE") != "BPE" or not isinstance(model["vocab"], dict) or "merges" not in model:
        raise RequestError(f"the vocabulary is {model.get('type')}, not BPE")
    ids = model["vocab"] | {token["content"]: token["id"] for token in added}
    if sorted(ids.values()) != list(range(len(ids))):
        raise RequestError("the ids of the vocabulary have gaps")
    listed = [tuple(pair.split(" ", 1)) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
    pieces = tuple(sorted(ids, key=ids.__getitem__))
    marks = {token["content"]: bool(token.get("special", True)) for token in added if token["id"] > 2}
    prefix = document.get("normalizer") == _normalizer(True)
    found = Vocabulary(pieces, _scores(pieces, listed), marks, prefix)
    wanted = tokenizer_json(found)
    parts = ("normalizer", "pre_tokenizer", "decoder")
    same = all(document.get(part) == wanted[part] for part in parts) and all(
        (model.get(key) or None) == (value or None)
        for key, value in wanted["model"].items()
        if key not in ("type", "vocab", "merges")
    )
    if not same or set(listed) != set(map(tuple, wanted["model"]["merges"])):
        raise RequestError("the vocabulary cuts texts, or merges what it cut, in a way of its own")
    return found


def _scores(pieces: Sequence[str], listed: Sequence[tuple[str, ...]]) -> tuple[float, ...]:
    """Scores that fall from piece to piece in the order in which merges make them.

    Cuts of several pieces stand in between each other where these had one score: then they get one again.
    """
    places: dict[str, list[int]] = {}
    for place, pair in enumerate(listed):
        places.setdefault("".join(pair), [place, place])[1] = place
    scores: dict[str, float] = {}
    level, reach = 0, -1
    for piece, (first, last) in places.items():
        level -= first > reach
        reach = max(reach, last)
        scores[piece] = float(level)
    return tuple(scores.get(piece, float(level - 1)) for piece in pieces)


def _normalizer(prefix: bool) -> dict[str, Any]:
    replaced = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    return (
        {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": _SPACE}, replaced]} if prefix else replaced
    )


def tokenizer_json(vocabulary: Vocabulary, begins: bool = True) -> Document:
    """The vocabulary as the tokenizer.json that Hugging Face's tokenizers load; `begins` puts <s> before every text."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    begin = {"SpecialToken": {"id": BEGIN, "type_id": 0}}
    added = {UNKNOWN: True, BEGIN: True, END: True, **vocabulary.added}
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": index, "content": piece} | plain | {"special": added[piece]}
            for index, piece in enumerate(vocabulary.pieces)
            if piece in added
        ],
        "normalizer": _normalizer(vocabulary.prefix),
        "pre_tokenizer": None,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [begin, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [
                begin,
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": BEGIN, "type_id": 1}},
                {"Sequence": {"id": "B", "type_id": 1}},
            ],
            "special_tokens": {BEGIN: {"id": BEGIN, "ids": [1], "tokens": [BEGIN]}},
        }
        if begins
        else None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *([strip] if vocabulary.prefix else []),
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": UNKNOWN,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": vocabulary.byte_fallback,
            "ignore_merges": False,
            "vocab": {piece: index for index, piece in enumerate(vocabulary.pieces)},
            "merges": [list(pair) for pair in merges(vocabulary)],
        },
    }


def tokenizer_config(begins: bool = True) -> dict[str, Any]:
    """The tokenizer_config.json that goes with `tokenizer_json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "add_bos_token": begins,
        "clean_up_tokenization_spaces": False,
    }
