"""SentencePiece vocabularies as tokenizer.json, without the sentencepiece library.

Two files are read: the `.model` of SentencePiece (a protocol buffer, of which we need the pieces and two settings)
and the `tokenizer.bin` of llama2.c (scores and bytes). Such a vocabulary merges the neighbours whose joined piece
scores best; as a byte-pair vocabulary that is a list of merges in falling order of score.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chatsmith.errors import RequestError, WorkError

_MAX_FILE_BYTES = 64 * 2**20
_MAX_PIECES = 2**20
_MAX_PIECE_BYTES = 1024
_SPACE = "▁"  # SentencePiece's mark for a space
_BPE, _CHARACTERS = 2, 4  # TrainerSpec.ModelType
UNKNOWN, BEGIN, END = "<unk>", "<s>", "</s>"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Pieces by id and their scores; ids 0, 1, 2 are unknown, begin and end."""

    pieces: tuple[str, ...]
    scores: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.pieces[:3] != (UNKNOWN, BEGIN, END):
            raise RequestError(f"the vocabulary begins with {self.pieces[:3]}, not with {UNKNOWN} {BEGIN} {END}")
        if len(set(self.pieces)) != len(self.pieces):
            twice = next(piece for index, piece in enumerate(self.pieces) if piece in self.pieces[:index])
            raise RequestError(f"the vocabulary has the piece {twice!r} twice")

    @property
    def byte_fallback(self) -> bool:
        """Whether every byte has a piece of its own, so that no text is unknown."""
        return {f"<0x{byte:02X}>" for byte in range(256)} <= set(self.pieces)


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
    for field, value in _fields(data):
        if field == 1:
            inner = dict(_fields(_as_bytes(value)))
            pieces.append(_as_bytes(inner.get(1, b"")).decode("utf-8"))
            (score,) = struct.unpack("<f", _as_bytes(inner.get(2, bytes(4))))
            scores.append(score)
        elif field == 2:
            kind = dict(_fields(_as_bytes(value))).get(3, 1)
            if kind not in (_BPE, _CHARACTERS):
                raise RequestError("not a byte-pair or character vocabulary (unigram and word models are not read)")
        elif field == 3:
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
    pairs by the score of the piece they make, not by the pair.
    """
    ids = {piece: index for index, piece in enumerate(vocabulary.pieces) if not _reserved(piece)}
    found = []
    for piece, index in ids.items():
        cuts = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        known = sorted((ids[a], ids[b]) for a, b in cuts if a in ids and b in ids)
        found += [(-vocabulary.scores[index], index, pair) for pair in known]
    return [(vocabulary.pieces[a], vocabulary.pieces[b]) for _, _, (a, b) in sorted(found)]


def _reserved(piece: str) -> bool:
    return piece in (UNKNOWN, BEGIN, END) or (len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"))


def tokenizer_json(vocabulary: Vocabulary) -> dict[str, Any]:
    """The vocabulary as the tokenizer.json that Hugging Face's tokenizers load, <s> put before every text."""
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    begin = {"SpecialToken": {"id": BEGIN, "type_id": 0}}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": index, "content": vocabulary.pieces[index]} | special for index in range(3)],
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": _SPACE},
                {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
            ],
        },
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
        },
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
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


def tokenizer_config() -> dict[str, Any]:
    """The tokenizer_config.json that goes with `tokenizer_json`."""
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BEGIN,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "add_bos_token": True,
        "clean_up_tokenization_spaces": False,
    }
