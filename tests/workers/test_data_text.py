"""Text as tokens: documents and splits, bytes and BPE against slow versions, and the files that are kept of them."""

import gzip
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from workers.data import text as text_module
from workers.data.text import PIECE_BYTES, Text
from workers.errors import ConfigError
from workers.reading import cache, text_data, tokenization
from workers.reading.lazy import Lazy

WORDS = "the kernel of a network moves while the network learns and the loss falls as the kernel turns".split()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, and a process that remembers nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    text_data.text_samples.cache_clear()
    return tmp_path / "cache" / "eigensweep" / "data"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine documents in files of several kinds."""
    place, draw = tmp_path / "texts", np.random.default_rng(0)
    (place / "below").mkdir(parents=True)
    for number in range(9):
        text = f"document {number}\n" + " ".join(draw.choice(WORDS, 60)) + "\nnaïve ∞ 12 isn't\n"
        name = ("a{}.txt", "b{}.md", "below/c{}.rst.gz")[number % 3].format(number)
        (place / name).write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    (place / "picture.png").write_bytes(b"no text")
    return place


def rejoined(inputs: Lazy, targets: Lazy) -> np.ndarray:
    return np.append(inputs[:].ravel(), targets[-1:].ravel()[-1])


def test_bytes_of_a_folder_are_its_documents_one_after_the_other(folder):
    data = Text(path=str(folder), sequence_length=7, test_every=4)
    names = ["a0.txt", "a3.txt", "a6.txt", "b1.md", "b4.md", "b7.md", "below/c2.rst.gz", "below/c5.rst.gz", "below/c8.rst.gz"]
    contents = [gzip.decompress(raw) if name.endswith(".gz") else raw for name in names for raw in [(folder / name).read_bytes()]]
    slow = {
        split: [token for number, one in enumerate(contents, 1) if (number % 4 == 0) == (split == "test") for token in [*one, 256]]
        for split in ("train", "test")
    }
    samples = data.load()
    for split, inputs, targets in (
        ("train", samples.train_inputs, samples.train_targets),
        ("test", samples.test_inputs, samples.test_targets),
    ):
        whole = rejoined(inputs, targets)
        assert whole.tolist() == slow[split][: len(whole)]
        assert len(slow[split]) - len(whole) < 7
        np.testing.assert_array_equal(inputs[:][:, 1:], targets[:][:, :-1])
    assert (samples.num_outputs, samples.counted()) == (257, {"sequences": 1, "tokens": 7})


def test_a_long_file_is_cut_at_the_ends_of_lines_and_none_of_it_is_lost(tmp_path):
    text = b"".join(b"line %d of a long file\n" % number for number in range(9000)) + b"x" * (PIECE_BYTES + 5)
    (tmp_path / "long.txt").write_bytes(text)
    data = Text(path=str(tmp_path / "long.txt"), test_every=2)
    pieces = [None] * 10
    pieces[0::2], pieces[1::2] = ([*data.documents(split), *[b""] * 5][:5] for split in ("train", "test"))
    assert b"".join(pieces) == text
    assert all(len(piece) <= PIECE_BYTES for piece in pieces)
    assert all(piece.endswith(b"\n") for piece in pieces[:3])


def words_of(text: str) -> list[str]:
    """The pieces within which pairs are merged (ASCII), as GPT-2's rule says."""
    return re.findall(r"'(?:[stmd]|re|ve|ll)| ?[A-Za-z]+| ?[0-9]+| ?[^\sA-Za-z0-9]+|\s+(?!\S)|\s+", text)


def merged(parts: list[str], pair: tuple[str, str]) -> list[str]:
    found: list[str] = []
    for part in parts:
        if found and (found[-1], part) == pair:
            found[-1] += part
        else:
            found.append(part)
    return found


def slow_bpe(text: str, alphabet: list[str], num_merges: int) -> tuple[list[tuple[str, str]], list[list[str]]]:
    """The most frequent pair becomes a token, of equal ones that of the tokens that came first; until none occurs twice."""
    words = [list(word.replace(" ", "Ġ").replace("\n", "Ċ")) for word in words_of(text)]
    order, merges = {one: number for number, one in enumerate(alphabet)}, []
    while len(merges) < num_merges:
        counts = Counter(pair for word in words for pair in zip(word, word[1:]))
        pair = min(counts, key=lambda pair: (-counts[pair], order[pair[0]], order[pair[1]]))
        if counts[pair] < 2:
            break
        merges.append(pair)
        order.setdefault("".join(pair), len(order))
        words = [merged(word, pair) for word in words]
    return merges, words


def test_bpe_merges_the_most_frequent_pairs():
    """A version of the library that trains another tokenizer fails here: then `version` of the data sets of text rises."""
    text = "\n".join(" ".join(np.random.default_rng(seed).choice(WORDS, 40)) + ", isn't it? 123 12" for seed in range(6))
    body = json.loads(tokenization.trained_bpe([text.encode()], 340))
    by_number = sorted(body["model"]["vocab"], key=body["model"]["vocab"].get)
    merges, words = slow_bpe(text, by_number[1:257], 340 - 257)
    assert [tuple(pair) for pair in body["model"]["merges"]] == merges
    assert by_number[0] == tokenization.END
    (tokens,) = tokenization.bpe_tokens(json.dumps(body), [text.encode()])
    assert [by_number[token] for token in tokens] == [part for word in words for part in word] + [tokenization.END]


def test_bpe_tokens_are_the_text_again(folder):
    data = Text(path=str(folder), sequence_length=5, tokenizer="bpe", vocabulary_size=300, test_every=3)
    samples = data.load()
    assert samples.num_outputs == 300
    (path,) = cache._folder().glob("*.tokenizer.json")
    tokens = np.fromfile(next(cache._folder().glob("*-train.uint16.bin")), "<u2")
    documents = list(data.documents("train"))
    ends = np.flatnonzero(tokens == 0)
    assert len(ends) == len(documents)
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(path))
    found = [tokenizer.decode(part[part != 0].tolist()) for part in np.split(tokens, ends + 1)[:-1]]
    assert found == [document.decode() for document in documents]


def test_two_processes_make_equal_files(folder, tmp_path):
    """Hashes of Python and Rust differ from process to process."""
    code = (
        "import sys; from workers.data.text import Text; "
        "Text(path=sys.argv[1], sequence_length=5, tokenizer='bpe', vocabulary_size=320, test_every=3).load()"
    )
    found = []
    for name in ("one", "two"):
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / name), "PYTHONPATH": os.getcwd()}
        subprocess.run([sys.executable, "-c", code, str(folder)], env=environment, check=True)
        found.append({path.name: path.read_bytes() for path in (tmp_path / name / "eigensweep" / "data").iterdir()})
    assert len(found[0]) == 3
    assert found[0] == found[1]


def test_processes_that_make_the_same_tokens_at_once_do_not_disturb_each_other(folder, own_cache, tmp_path):
    code = (
        "import sys; from workers.data.text import Text; "
        "samples = Text(path=sys.argv[1], sequence_length=5, tokenizer='bpe', vocabulary_size=320, test_every=3).load(); "
        "print(samples.train_inputs[:].tolist())"
    )
    command = [sys.executable, "-c", code, str(folder)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.getcwd()}) for _ in range(3)
    ]
    answers = {process.communicate()[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    assert len(answers) == 1
    assert sorted(path.name.partition(".")[0][32:] for path in own_cache.iterdir()) == ["", "-test", "-train"]


def test_a_tokenizer_of_the_users_own_is_used_and_enters_the_content(folder, tmp_path):
    trained = tokenization.trained_bpe(Text(path=str(folder)).documents("train"), 290)
    (tmp_path / "tokenizer.json").write_text(trained)
    data = Text(path=str(folder), sequence_length=5, tokenizer="file", tokenizer_path=str(tmp_path / "tokenizer.json"), test_every=3)
    assert data.load().num_outputs == 290
    assert data.files()[-1] == tmp_path / "tokenizer.json"
    (tmp_path / "tokenizer.json").write_text("{}")
    text_data.text_samples.cache_clear()
    with pytest.raises(ConfigError, match=r"tokenizer\.json is no tokenizer .* data\.tokenizer_path= takes"):
        data.load()
    with pytest.raises(ConfigError, match="data.tokenizer=file needs data.tokenizer_path=, a tokenizer.json that exists, got None"):
        Text(path=str(folder), tokenizer="file").files()


def test_tokens_are_made_once_and_again_only_for_another_text_or_setting(folder, own_cache, monkeypatch):
    data = Text(path=str(folder), sequence_length=5, test_every=3)
    first = data.load()
    text_data.text_samples.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(tokenization, "write_tokens", lambda *_: pytest.fail("made again"))
        other_length = Text(path=str(folder), sequence_length=9, test_every=3).load()
    assert rejoined(other_length.train_inputs, other_length.train_targets)[:40].tolist() == first.train_inputs[:].ravel()[:40].tolist()
    Text(path=str(folder), sequence_length=5, test_every=4).load()
    assert len(list(own_cache.iterdir())) == 4
    (folder / "a0.txt").write_text("another text of the first document, which makes other tokens")
    text_data.text_samples.cache_clear()
    assert data.load().train_inputs[:].ravel()[:4].tolist() == list(b"anot")
    assert len(list(own_cache.iterdir())) == 6


def test_what_a_killed_process_left_is_not_taken_for_the_tokens(folder, own_cache):
    data = Text(path=str(folder), sequence_length=5, test_every=3)
    whole = data.load().train_inputs[:].tolist()
    name = next(own_cache.glob("*-train*")).name
    (own_cache / name).unlink()
    (own_cache / f".{name}.1-00000000").write_bytes(b"half")
    text_data.text_samples.cache_clear()
    assert data.load().train_inputs[:].tolist() == whole


def test_a_cache_that_cannot_be_written_says_what_to_set(folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nowhere")
    with pytest.raises(ConfigError, match="cannot be written .* set XDG_CACHE_HOME to a folder that can be written"):
        Text(path=str(folder)).load()


def test_absent_text_is_named_with_its_package_or_path(monkeypatch, tmp_path):
    monkeypatch.setattr(text_module, "SHARES", (tmp_path / "none",))
    for source, package in (("gcide", "dict-gcide"), ("linux_doc", "linux-doc-6.1")):
        with pytest.raises(
            ConfigError, match=f"Debian's package {package}; `make texts` or `sudo apt-get install {package}` gives it, or give"
        ):
            Text(source=source).files()
    with pytest.raises(ConfigError, match=f"no text at {tmp_path}/none: data.path= must be a text file that exists, or a folder with .txt"):
        Text(path=str(tmp_path / "none")).files()


def test_too_little_text_is_refused_by_name(tmp_path):
    (tmp_path / "short.txt").write_text("one document only")
    with pytest.raises(ConfigError, match="data=text has no documents in its test split; give more text or a smaller data.test_every"):
        Text(path=str(tmp_path / "short.txt")).load()
    (tmp_path / "second.txt").write_text("x" * 40)
    (tmp_path / "third.txt").write_text("end")
    message = "the test split has 18 tokens, and a sequence of data.sequence_length=30 and the token after it are 31; take shorter"
    with pytest.raises(ConfigError, match=message):
        Text(path=str(tmp_path), sequence_length=30, test_every=2).load()


def test_a_garbled_gzip_file_is_named(folder):
    (folder / "below" / "c2.rst.gz").write_bytes(gzip.compress(b"whole")[:-3])
    with pytest.raises(ConfigError, match=r"c2\.rst\.gz cannot be read .* fetch it again"):
        Text(path=str(folder)).load()


def test_without_the_library_the_error_says_which_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(ConfigError, match=r"pip install 'eigensweep\[text\]'`; data.tokenizer=bytes needs none"):
        Text(path=str(folder), tokenizer="bpe").load()


def installed(source: str) -> bool:
    return any((share / text_module.PLACES[source]).exists() for share in text_module.SHARES)


@pytest.mark.parametrize(("source", "word"), [("gcide", b"Webster"), ("linux_doc", b"kernel")])
def test_text_of_the_debian_packages(source, word):
    if not installed(source):
        pytest.skip(f"the package {text_module.PACKAGES[source]} is not installed")
    data = Text(source=source, test_every=64)
    samples = data.load()
    assert len(samples.test_inputs) > 1000
    assert word in samples.test_inputs[:].astype(np.uint8).tobytes()
