"""A tokenizer may be one file: tokenizer.json, or a sentencepiece model."""

import shutil
from itertools import product

import pytest
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from byzerllm_adapters import registry
from byzerllm_adapters.conversations import encode_prompt, encode_text
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.model_folder import check_tokenizer_path
from tests.tiny import texts

TEXTS = [
    "The red stone.",
    "hello  world",
    "\nfoo bar",
    "这是房子 é",
    " lead",
    "tail  ",
    "tab\tx",
    "",
    "ＡＢＣ ﬁ",
    "a\n\n b🙂",
]
KINDS = list(product(("unigram", "bpe"), ("nmt_nfkc", "identity"), (True, False)))


def make_sentencepiece(file, kind="bpe", normalisation="identity", dummy_prefix=True, **options):
    with file.open("wb") as model:
        SentencePieceTrainer.train(
            sentence_iterator=iter(list(texts().text)),
            model_writer=model,
            model_type=kind,
            normalization_rule_name=normalisation,
            add_dummy_prefix=dummy_prefix,
            remove_extra_whitespaces=normalisation == "nmt_nfkc",
            vocab_size=360,
            hard_vocab_limit=False,
            byte_fallback=True,
            minloglevel=2,
            **options,
        )
    return file


def load(path):
    return registry.find("llama").load_tokenizer(str(path))


@pytest.mark.parametrize(("kind", "normalisation", "dummy_prefix"), KINDS)
def test_a_sentencepiece_model_gives_its_own_ids_and_texts(tmp_path, kind, normalisation, dummy_prefix):
    file = make_sentencepiece(tmp_path / "tokenizer.model", kind, normalisation, dummy_prefix)
    model, tokenizer = SentencePieceProcessor(model_file=str(file)), load(file)
    for text in TEXTS:
        assert tokenizer.encode(text, add_special_tokens=False) == model.encode(text)
        assert tokenizer.decode(model.encode(text)) == model.decode(model.encode(text))
    assert (tokenizer.eos_token_id, tokenizer.bos_token_id) == (model.eos_id(), model.bos_id())
    assert encode_text(tokenizer, "The red stone.").ids == [*model.encode("The red stone."), model.eos_id()]


def test_a_converted_tokenizer_is_saved_and_loaded_with_a_llama_unchanged(tmp_path, make_model):
    tokenizer = load(make_sentencepiece(tmp_path / "any-name.model"))
    make_model(len(tokenizer)).save_pretrained(tmp_path / "result")
    tokenizer.save_pretrained(tmp_path / "result")
    again = load(tmp_path / "result")
    messages = [{"role": "user", "content": "The red  stone"}]
    assert encode_prompt(again, messages) == encode_prompt(tokenizer, messages)
    assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


def test_a_tokenizer_json_alone_is_enough(tmp_path, model_dir):
    shutil.copy(model_dir / "tokenizer.json", tmp_path / "tokenizer.json")
    alone, whole = load(tmp_path / "tokenizer.json"), load(model_dir)
    assert encode_text(alone, "Hello there") == encode_text(whole, "Hello there")
    assert (alone.eos_token, alone.bos_token, alone.chat_template) == ("</s>", "<s>", whole.chat_template)


def test_a_file_beside_its_configuration_stands_for_the_folder(model_dir):
    assert load(model_dir / "tokenizer.json").name_or_path == str(model_dir)


def test_a_tokenizer_json_without_an_end_token_is_refused(tmp_path):
    from tokenizers import Tokenizer, models

    Tokenizer(models.BPE()).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ByzerError, match="neither a chat template nor an end-of-sequence token"):
        load(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("tokenizer.json", b"{}", "is not a tokenizer.json"),
        ("tokenizer.json", b"\xff", "is not a tokenizer.json"),
        ("tokenizer.model", b"IQ== 0\n", "is not a sentencepiece model"),  # a tiktoken file
        ("tokenizer.model", b"", "is not a sentencepiece model"),
        ("notes.txt", b"text", "is not a sentencepiece model"),
    ],
)
def test_a_file_that_is_no_tokenizer_is_an_error(tmp_path, name, content, what):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ByzerError, match=what) as caught:
        load(tmp_path / name)
    assert str(tmp_path / name) in caught.value.where
    assert len(caught.value.render()) <= 5


def test_a_look_at_the_path_finds_what_cannot_be_a_tokenizer(tmp_path, model_dir):
    check_tokenizer_path(str(model_dir))
    check_tokenizer_path(str(model_dir / "tokenizer.json"))
    (tmp_path / "notes.txt").write_text("text")
    for path, what in (("notes.txt", "is no tokenizer"), ("", "holds no tokenizer"), ("note.txt", "no folder or file")):
        with pytest.raises(ByzerError, match=what):
            check_tokenizer_path(str(tmp_path / path))
    with pytest.raises(ByzerError) as caught:
        check_tokenizer_path(str(tmp_path / "note.txt"))
    assert "notes.txt" in caught.value.do
