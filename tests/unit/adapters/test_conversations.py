import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from byzerllm_adapters.conversations import encode_conversation, encode_prompt, encode_row, encode_text
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.templates import frame

KINDS = ["bytes", "metaspace"]
MARKED = ["default", "llama2"]
UNMARKED = ["chatml", "llama3", "inst"]


def turns(*texts, system=None):
    """Alternating user and assistant turns, after a system message if there is one."""
    head = [{"role": "system", "content": system}] if system else []
    return head + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def written(tokenizers, question, answer):
    """A byte-level tokenizer whose template writes turns this way."""
    tokenizer = tokenizers("bytes", None, eos_token="</s>")
    tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'user' %}"
        + question
        + "{% else %}"
        + answer
        + "{% endif %}{% endfor %}"
    )
    return tokenizer


FRAGMENTS = [
    " ",
    "\n",
    ":",
    "Hello",
    "</s>",
    "<s>",
    "[INST]",
    "你好",
    "<|im_end|>",
    "<|eot|>",
    "User:",
    "Assistant:",
]
text = (
    st.lists(st.one_of(st.sampled_from(FRAGMENTS), st.characters(codec="utf-8")), min_size=1, max_size=8)
    .map("".join)
    .filter(str.strip)
)
conversations = st.builds(
    lambda pairs, system: turns(*[t for pair in pairs for t in pair], system=system),
    st.lists(st.tuples(text, text), min_size=1, max_size=3),
    st.one_of(st.none(), text),
)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", MARKED + UNMARKED)
@settings(max_examples=40, deadline=None)
@given(messages=conversations)
def test_every_prompt_is_the_prefix_of_what_was_trained(tokenizers, kind, template, messages):
    tokenizer = tokenizers(kind, template)
    trained = encode_conversation(tokenizer, messages)
    assert len(trained.ids) == len(trained.mask)
    starts = [i for i, on in enumerate(trained.mask) if on and not (i and trained.mask[i - 1])]
    answers = [k for k, m in enumerate(messages) if m["role"] == "assistant"]
    assert len(starts) == len(answers)
    for start, k in zip(starts, answers, strict=True):
        assert encode_prompt(tokenizer, messages[:k]) == trained.ids[:start]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", MARKED + UNMARKED)
def test_each_learned_run_is_one_answer_and_its_end_token(tokenizers, kind, template):
    tokenizer = tokenizers(kind, template)
    encoded = encode_conversation(tokenizer, turns("Hello", "Paris is.", "And?", "你好", system="You are."))
    runs, previous = [], False
    for token, on in zip(encoded.ids, encoded.mask, strict=True):
        if on:
            runs[-1:] = [[*runs[-1], token]] if previous else [*runs[-1:], [token]]
        previous = on
    assert [tokenizer.decode(run, skip_special_tokens=True).strip() for run in runs] == ["Paris is.", "你好"]
    ends = [[token for token in run if tokenizer.decode([token]).strip()][-1] for run in runs]
    assert ends == [frame(tokenizer).end_id] * 2
    assert all(run.count(frame(tokenizer).end_id) == 1 for run in runs)


def test_the_mask_of_a_conversation_token_by_token(tokenizers):
    tokenizer = tokenizers("bytes", "chatml")
    encoded = encode_conversation(tokenizer, turns("Hi", "Yo", "a", "b"))
    pieces = [tokenizer.decode([token]) for token in encoded.ids]
    learned = "".join(f"[{piece}]" if on else piece for piece, on in zip(pieces, encoded.mask, strict=True))
    learned = learned.replace("][", "")
    assert learned == (
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n[Yo<|im_end|>\n]"
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n[b<|im_end|>\n]"
    )


def test_no_merge_crosses_the_border_of_a_prompt(tokenizers):
    tokenizer = written(tokenizers, "{{ m.content }}", "{{ m.content + eos_token }}")
    encoded = encode_conversation(tokenizer, turns("The qu", "ick"))
    assert encoded.ids != tokenizer.encode("The quick</s>", add_special_tokens=False)
    assert tokenizer.decode([i for i, on in zip(encoded.ids, encoded.mask, strict=True) if on]) == "ick</s>"


def test_the_answer_starts_with_the_token_that_a_byte_level_model_would_write(tokenizers):
    tokenizer = tokenizers("bytes", "default")
    encoded = encode_conversation(tokenizer, turns("Hi", "Hello"))
    first = encoded.ids[encoded.mask.index(True)]
    assert tokenizer.decode([first]) == " Hello"


@pytest.mark.parametrize(("template", "learned"), [("default", "▁Hello</s>"), ("chatml", "Hello<|im_end|><0x0A>")])
def test_sentencepiece_puts_no_space_of_its_own_before_an_answer(tokenizers, template, learned):
    tokenizer = tokenizers("metaspace", template)
    encoded = encode_conversation(tokenizer, turns("Hi", "Hello"))
    ids = [token for token, on in zip(encoded.ids, encoded.mask, strict=True) if on]
    assert "".join(tokenizer.convert_ids_to_tokens(ids)) == learned


@pytest.mark.parametrize(
    ("kind", "template", "times"),
    [
        ("metaspace", "chatml", 1),  # the tokenizer writes it, the template does not
        ("metaspace", "default", 1),  # both do
        ("bytes", "default", 1),  # only the template does
        ("bytes", "chatml", 0),  # neither does
    ],
)
def test_bos_comes_once_where_template_or_tokenizer_writes_it(tokenizers, kind, template, times):
    tokenizer = tokenizers(kind, template)
    encoded = encode_conversation(tokenizer, turns("a", "b", "c", "d"))
    prompt = encode_prompt(tokenizer, turns("a"))
    assert encoded.ids.count(tokenizer.bos_token_id) == prompt.count(tokenizer.bos_token_id) == times
    assert (encoded.ids[0] == tokenizer.bos_token_id) == bool(times)
    assert not encoded.mask[0]


def test_an_answer_that_quotes_the_end_token_is_learned_to_its_real_end(tokenizers):
    for template in ("chatml", "llama2"):
        tokenizer = tokenizers("bytes", template)
        end = frame(tokenizer).end
        encoded = encode_conversation(tokenizer, turns("q", f"it is {end} here", "thanks", "ok"))
        learned = [token for token, on in zip(encoded.ids, encoded.mask, strict=True) if on]
        assert learned.count(frame(tokenizer).end_id) == 3
        assert "here" in tokenizer.decode(learned)
        assert "thanks" not in tokenizer.decode(learned)


def test_an_empty_answer_of_white_space_is_still_ended(tokenizers):
    encoded = encode_conversation(tokenizers("bytes", "llama3"), turns("q", " \n "))
    assert sum(encoded.mask) == 1


def test_an_answer_of_weight_0_is_not_learned(tokenizers):
    messages = turns("q", "a", "r", "b")
    messages[1]["weight"] = 0
    encoded = encode_conversation(tokenizers(), messages)
    assert encoded.ids == encode_conversation(tokenizers(), turns("q", "a", "r", "b")).ids
    learned = [token for token, on in zip(encoded.ids, encoded.mask, strict=True) if on]
    assert tokenizers().decode(learned) == " b</s>"
    messages[3]["weight"] = 0
    with pytest.raises(ByzerError, match="no assistant turn to learn from"):
        encode_conversation(tokenizers(), messages)


@pytest.mark.parametrize("template", MARKED + UNMARKED)
def test_only_answers_from_the_first_on_are_learned(tokenizers, template):
    tokenizer, messages = tokenizers("bytes", template), turns("q", "a", "r", "b")
    whole, late = encode_conversation(tokenizer, messages), encode_conversation(tokenizer, messages, first=3)
    messages[1]["weight"] = 0
    assert late == encode_conversation(tokenizer, messages)
    assert late.ids == whole.ids
    assert 0 < sum(late.mask) < sum(whole.mask)
    messages[3]["weight"] = 0
    with pytest.raises(ByzerError, match="no assistant turn to learn from"):
        encode_conversation(tokenizer, messages, first=3)
    with pytest.raises(ByzerError, match="no assistant turn to learn from"):
        encode_conversation(tokenizer, turns("q", "a", "r"), first=2)


def test_a_message_that_the_template_leaves_out_is_refused(tokenizers):
    deaf = "{% if m.role == 'user' %}{{ m.content }}{% endif %}"
    tokenizer = written(tokenizers, deaf, "{% if m.role == 'assistant' %}{{ m.content + eos_token }}{% endif %}")
    with pytest.raises(ByzerError, match=r"leaves out message 1 \(system\)"):
        encode_conversation(tokenizer, turns("q", "a", system="be kind"))


def test_truncation_cuts_at_the_right_and_may_leave_nothing_to_learn(tokenizers):
    tokenizer = tokenizers()
    whole = encode_conversation(tokenizer, turns("Hello there", "Hello"))
    cut = encode_conversation(tokenizer, turns("Hello there", "Hello"), max_length=4)
    assert cut.ids == whole.ids[:4]
    assert cut.mask == [False] * 4
    assert encode_conversation(tokenizer, turns("Hello there", "Hello"), max_length=999) == whole


@pytest.mark.parametrize(
    "answer", ["{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}{{ eos_token }}"]
)
def test_a_template_that_never_ends_an_answer_is_refused(tokenizers, answer):
    tokenizer = written(tokenizers, "{{ 'Q' + m.content }}", answer)
    with pytest.raises(ByzerError, match="no end-of-turn token follows the answer in message 2"):
        encode_conversation(tokenizer, turns("q", "a"))


def test_an_end_after_the_last_answer_only_is_refused(tokenizers):
    tokenizer = written(tokenizers, "{{ m.content }}", "{{ m.content }}{% if loop.last %}{{ eos_token }}{% endif %}")
    encode_conversation(tokenizer, turns("q", "a"))
    with pytest.raises(ByzerError, match="message 2"):
        encode_conversation(tokenizer, turns("q", "a", "r", "b"))


def test_a_template_that_rewrites_earlier_turns_serves_but_does_not_train(tokenizers):
    # What stands before the last question moves on with it, as the system message of some Mistral templates.
    late = "{% if loop.index > messages|length - 2 %}S{% endif %}"
    tokenizer = written(tokenizers, late + "{{ '[' + m.content + ']' }}", "{{ m.content + eos_token }}")
    encode_conversation(tokenizer, turns("q", "a"))
    with pytest.raises(ByzerError, match="changes what comes before message 2"):
        encode_conversation(tokenizer, turns("q", "a", "r", "b"))
    assert tokenizer.decode(encode_prompt(tokenizer, turns("q", "a", "r"))) == "[q]a</s>S[r]"


def test_thoughts_that_a_template_puts_before_the_last_answer_are_learned_too(tokenizers):
    # As Qwen 3 does it: the prompt of an earlier turn is still the prefix of the whole conversation.
    think = "{% if loop.last %}{{ '<think>\n\n</think>\n\n' }}{% endif %}"
    tokenizer = written(tokenizers, "{{ m.content }}", think + "{{ m.content + eos_token }}")
    encoded = encode_conversation(tokenizer, turns("q", "a", "r", "b"))
    learned = tokenizer.decode([i for i, on in zip(encoded.ids, encoded.mask, strict=True) if on])
    assert learned == "a</s><think>\n\n</think>\n\nb</s>"


def test_an_answer_that_the_template_rewrites_is_refused(tokenizers):
    tokenizer = written(tokenizers, "{{ m.content }}", "{{ m.content.split('</think>')[-1] + eos_token }}")
    with pytest.raises(ByzerError, match="or the template rewrites it"):
        encode_conversation(tokenizer, turns("q", "<think>hm</think>a"))


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (turns("only a question"), "no assistant turn"),
        ([{"role": "assistant", "content": "first"}], "starts with an answer"),
        ([*turns("q", "a"), {"role": "system", "content": "late"}], "template refuses.*comes first"),
    ],
)
def test_conversations_that_teach_nothing_are_refused(tokenizers, messages, reason):
    with pytest.raises(ByzerError, match=reason):
        encode_conversation(tokenizers(), messages)


def test_plain_text_is_learned_with_its_end(tokenizers):
    tokenizer = tokenizers("metaspace")
    encoded = encode_text(tokenizer, "Hello there")
    assert encoded.ids == [*tokenizer.encode("Hello there"), tokenizer.eos_token_id]
    assert encoded.mask == [False] + [True] * (len(encoded.ids) - 1)
    assert encode_row(tokenizer, {"text": "Hello there"}, "text") == encoded
    with pytest.raises(ByzerError, match="text is empty"):
        encode_row(tokenizer, {"text": None}, "text")


def test_a_row_is_encoded_as_its_conversation(tokenizers):
    tokenizer = tokenizers()
    row = {"instruction": "Hi", "output": "Hello"}
    assert encode_row(tokenizer, row, "alpaca", 6) == encode_conversation(tokenizer, turns("Hi", "Hello"), 6)


def test_two_thousand_rows_take_seconds(tokenizers):
    tokenizer = tokenizers("bytes", "chatml")
    start = time.perf_counter()
    for number in range(2000):
        encode_conversation(tokenizer, turns(f"question {number}", "an answer " * 20, "more?", "yes " * 20))
    assert time.perf_counter() - start < 20  # about 3 on one free core
