"""Vocabulary files: what others read of ours, what we read of theirs, and files that lie."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from chatsmith.errors import RequestError
from chatsmith.text.bpe import train_tokenizer
from chatsmith.text.tokenizer import SPECIALS, Tokenizer

SAMPLE = (
    "The sea otter's children don't sleep; they'll drift, and I'VE seen 12,345 of them in 2024!\n\n"
    "\tdef f(x):\n\t\treturn x  # naïve café — слово 中文字 <|end|>\r\n   Well...   (Really?)\n"
)


@pytest.fixture(scope="module")
def small() -> Tokenizer:
    return train_tokenizer([SAMPLE * 4, "Once upon a time there was a little otter. " * 20], 400)


@pytest.fixture(scope="module")
def gpt2(shared: Path) -> Tokenizer:
    return Tokenizer.load(shared / "data/tokenizers/gpt2")


def test_others_read_what_we_save(small: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    small.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(SAMPLE.replace("<|end|>", "")) == small.encode(SAMPLE.replace("<|end|>", ""))
    assert theirs.eos_token_id == small.end_of_text == 0
    assert theirs.decode(small.encode(SAMPLE)) == SAMPLE
    assert [theirs.convert_tokens_to_ids(name) for name in SPECIALS] == [0, 1, 2, 3, 4]
    ours = Tokenizer.load(tmp_path)
    assert ours.fingerprint == small.fingerprint
    assert ours.encode(SAMPLE) == small.encode(SAMPLE)
    assert (ours.stop_ids, ours.chat_template) == ({0, 4}, small.chat_template)
    theirs.save_pretrained(tmp_path / "again")  # transformers writes the template to a file of its own
    again = Tokenizer.load(tmp_path / "again")
    assert (again.encode(SAMPLE), again.chat_template) == (small.encode(SAMPLE), small.chat_template)


def test_an_end_of_text_known_by_its_name_is_named_for_others(small: Tokenizer, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    small.save(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    Tokenizer.load(tmp_path).save(tmp_path / "again")
    assert AutoTokenizer.from_pretrained(tmp_path / "again").eos_token_id == small.end_of_text
    again = Tokenizer.load(tmp_path / "again")
    assert (again.end_of_text, again.encode(SAMPLE)) == (small.end_of_text, small.encode(SAMPLE))


@pytest.mark.parametrize("file", ["generation_config.json", "config.json"])
def test_the_ids_that_a_folder_publishes_end_texts(small: Tokenizer, tmp_path: Path, file: str) -> None:
    small.save(tmp_path)
    (tmp_path / file).write_text(json.dumps({"eos_token_id": [4, 97, -1, 10**9]}))
    found = Tokenizer.load(tmp_path)
    assert found.stop_ids == {0, 4, 97}
    assert found.end_of_text == 0
    assert found.fingerprint == small.fingerprint
    found.save(tmp_path / "again")
    assert Tokenizer.load(tmp_path / "again").stop_ids == {0, 4, 97}
    (tmp_path / file).write_text(json.dumps({"eos_token_id": 98}))
    assert Tokenizer.load(tmp_path).stop_ids == {0, 4, 98}
    (tmp_path / file).write_text(json.dumps({"eos_token_id": "</s>"}))
    with pytest.raises(RequestError, match="eos_token_id must be the id of a token"):
        Tokenizer.load(tmp_path)


def test_fingerprint_is_of_the_content(small: Tokenizer, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(small._document, sort_keys=True))
    assert Tokenizer.load(path).fingerprint == small.fingerprint
    document = json.loads(path.read_text())
    document["model"]["merges"].pop()
    assert Tokenizer(document).fingerprint != small.fingerprint


def test_gpt2s_newer_file_names(gpt2: Tokenizer, shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/tokenizers/gpt2"
    (tmp_path / "vocab.json").write_bytes((folder / "encoder.json").read_bytes())
    (tmp_path / "merges.txt").write_bytes((folder / "vocab.bpe").read_bytes())
    assert Tokenizer.load(tmp_path).fingerprint == gpt2.fingerprint


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("model"), "no model"),
        (lambda d: d["model"].update(vocab=7), "neither a table nor a list"),
        (lambda d: d["model"]["vocab"].update(a=-1), "id -1"),
        (lambda d: d["model"]["vocab"].update(a=10**12), "id 1000000000000"),
        (lambda d: d["model"]["vocab"].update(a=True), "id True"),
        (lambda d: d["model"]["vocab"].update(a=9), "one id to several"),
        (lambda d: d["added_tokens"].append({"id": 9, "content": "<x>"}), "at odds with the vocabulary about id 9"),
        (lambda d: d["added_tokens"].append({"id": 4}), "needs an id and a content"),
        (lambda d: d["added_tokens"].append(d["added_tokens"][0]), "twice"),
        (lambda d: d["model"].update(vocab=[1]), "neither a table nor a list"),
    ],
)
def test_contradictory_files_are_refused(small: Tokenizer, tmp_path: Path, change: Any, message: str) -> None:
    document = json.loads(json.dumps(small._document))
    change(document)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(RequestError, match=message):
        Tokenizer.load(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["model"].update(merges=None),
        lambda d: d["model"]["merges"].insert(0, 3),
        lambda d: d["model"].update(continuing_subword_prefix="a b"),  # at which the library panics
        lambda d: d["pre_tokenizer"].update(pretokenizers=1.5),
        lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(pattern="x"),
        lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": []}),
    ],
)
def test_files_that_no_library_reads_are_refused(small: Tokenizer, tmp_path: Path, change: Any) -> None:
    document = json.loads(json.dumps(small._document))
    change(document)
    (tmp_path / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(RequestError, match="the tokenizers library cannot read"):
        Tokenizer.load(tmp_path).encode(SAMPLE)


def test_missing_and_damaged_files_are_refused(
    small: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match="no such tokenizer"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(RequestError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    path = tmp_path / "tokenizer.json"
    whole = json.dumps(small._document)
    for content, message in (
        (whole[: len(whole) // 2], "truncated"),
        ("", "truncated"),
        ("[1]", "JSON object"),
        ("[" * 100_000, "truncated"),
        ('{"a": 1, "a": 2}', "'a' twice"),
        ('{"a": ' + "9" * 5000 + "}", "truncated"),
    ):
        path.write_text(content)
        with pytest.raises(RequestError, match=message):
            Tokenizer.load(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RequestError, match="not UTF-8"):
        Tokenizer.load(tmp_path)
    monkeypatch.setattr("chatsmith.text.tokenizer_files.MAX_FILE", 1)
    with pytest.raises(RequestError, match="at most 1"):
        Tokenizer.load(tmp_path)


def test_merges_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "b": 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    with pytest.raises(RequestError, match="does not merge two tokens"):
        Tokenizer.load(tmp_path)


def test_damaged_rank_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "r50k_base.tiktoken.gz"
    for data, message in (
        (gzip.compress(b"IQ== 0\n")[:-4], "truncated"),
        (gzip.compress(b"IQ== 0\n"), "256 single bytes"),
        (gzip.compress(b"%% 0\n"), "not a list of base64"),
        (b"plain", "not a list of base64"),
    ):
        path.write_bytes(data)
        with pytest.raises(RequestError, match=message):
            Tokenizer.load(path)
    (tmp_path / "mine.tiktoken").write_bytes(b"IQ== 0\n")
    with pytest.raises(RequestError, match="how text is cut"):
        Tokenizer.load(tmp_path / "mine.tiktoken")


def test_a_file_only_the_library_can_judge(tmp_path: Path, small: Tokenizer) -> None:
    tokenizer = Tokenizer(small._document | {"pre_tokenizer": {"type": "Nonsense"}})
    with pytest.raises(RequestError, match="cannot read"):
        tokenizer.encode("a")


def test_a_vocabulary_without_an_end(small: Tokenizer) -> None:
    document = json.loads(json.dumps(small._document))
    document["added_tokens"] = []
    document["model"]["vocab"] = {name: number for name, number in document["model"]["vocab"].items() if number > 4}
    with pytest.raises(RequestError, match="no end-of-text token"):
        _ = Tokenizer(document).end_of_text
