import pytest

from byzerllm_adapters import causal_lm
from byzerllm_adapters.conversations import encode_conversation, encode_prompt
from byzerllm_adapters.errors import ByzerError
from byzerllm_adapters.templates import Frame, ensure_template, fix_roles, frame, render, roles_taken


def turns(*texts, system=None):
    """Alternating user and assistant turns, after a system message if there is one."""
    head = [{"role": "system", "content": system}] if system else []
    return head + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def test_the_frame_of_an_answer_is_found_in_the_template(tokenizers):
    def of(template):
        return frame(tokenizers("bytes", template))

    ids = {token: tokenizers().convert_tokens_to_ids(token) for token in ("</s>", "<|im_end|>", "<|eot|>")}
    assert of("default") == Frame(" ", "", "</s>", ids["</s>"], after="\n")
    assert of("llama2") == of("inst") == Frame(" ", " ", "</s>", ids["</s>"])
    assert of("chatml") == Frame("", "", "<|im_end|>", ids["<|im_end|>"], after="\n")
    assert of("llama3") == Frame("", "", "<|eot|>", ids["<|eot|>"])


def test_the_default_template_is_given_only_where_there_is_none(tokenizers):
    bare = tokenizers("bytes", None, eos_token="</s>")
    with pytest.raises(ByzerError, match="no chat template"):
        encode_prompt(bare, turns("q"))
    ensure_template(bare, "mine")
    ensure_template(bare, "other")
    assert bare.chat_template == "mine"
    with pytest.raises(ByzerError, match="end-of-sequence"):
        ensure_template(tokenizers("bytes", None, eos_token=None), "mine")


def test_the_llama2_template_is_the_format_of_its_chat_models(tokenizers):
    messages = turns("q1", "a1", "q2", system="be kind")
    assert render(tokenizers("bytes", "llama2"), messages, True) == (
        "<s>[INST] <<SYS>>\nbe kind\n<</SYS>>\n\nq1 [/INST] a1 </s><s>[INST] q2 [/INST]"
    )


def test_a_template_of_ours_takes_the_names_of_who_talks(tokenizers):
    tokenizer = tokenizers()
    roles = {"user_role": "Human", "assistant_role": "Bot"}
    assert render(tokenizer, turns("q", "a", "r"), True) == "<s>User: q\nAssistant: a</s>\nUser: r\nAssistant:"
    assert render(tokenizer, turns("q", "a", "r"), True, None, roles) == "<s>Human: q\nBot: a</s>\nHuman: r\nBot:"
    assert [roles_taken(tokenizers("bytes", name)) for name in ("default", "llama2", "chatml")] == [
        ("user_role", "assistant_role"),
        (),
        (),
    ]


@pytest.mark.parametrize("given", [{}, {"user_role": '人"\\'}, {"user_role": "Human", "assistant_role": "Bot"}])
def test_names_that_were_trained_are_saved_and_not_a_requests_any_more(tokenizers, tmp_path, given):
    tokenizer = tokenizers("bytes", "default", eos_token="</s>")
    fix_roles(tokenizer, given)
    tokenizer.save_pretrained(tmp_path)
    served = causal_lm.load_tokenizer(str(tmp_path))
    user, assistant = given.get("user_role", "User"), given.get("assistant_role", "Assistant")
    wished = {"user_role": "x", "assistant_role": "y"}
    assert render(served, turns("q"), True, None, wished) == f"<s>{user}: q\n{assistant}:"
    assert roles_taken(served) == ()
    trained = encode_conversation(tokenizer, turns("q", "a", "r", "b")).ids
    prompt = encode_prompt(served, turns("q", "a", "r"))
    assert trained[: len(prompt)] == prompt


def test_our_own_template_has_a_place_for_tools(tokenizers):
    tokenizer = tokenizers("bytes", "default", eos_token="</s>")
    tools = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Gent"}}}
    conversation = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "rain?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "wet"},
        {"role": "assistant", "content": "yes"},
    ]
    encoded = encode_conversation(tokenizer, conversation, tools=tools)
    assert tokenizer.decode(encoded.ids).startswith('<s>Tools:\n{"type": "function", "function": {"name": "weather"')
    learned = [token for token, counts in zip(encoded.ids, encoded.mask, strict=True) if counts]
    called = ' <tool_call>{"name": "weather", "arguments": {"city": "Gent"}}</tool_call></s>'
    assert tokenizer.decode(learned) == f"{called} yes</s>"
    prompt = encode_prompt(tokenizer, conversation[:4], tools)
    assert encoded.ids[: len(prompt)] == prompt
    assert tokenizer.decode(prompt).endswith("Tool: wet\nAssistant:")


def test_a_template_that_refuses_a_row_says_where_another_one_belongs(tokenizers):
    tokenizer = tokenizers("bytes", "llama2", eos_token="</s>")
    with pytest.raises(ByzerError, match="the chat template refuses the conversation") as caught:
        encode_conversation(tokenizer, [*turns("q"), {"role": "tool", "content": "x"}, *turns("q", "a")])
    assert "chat_template.jinja" in caught.value.do


def test_names_that_a_template_has_no_place_for_are_refused(tokenizers):
    tokenizer = tokenizers("bytes", "chatml", eos_token="</s>")
    before = tokenizer.chat_template
    fix_roles(tokenizer, {})
    assert tokenizer.chat_template == before
    with pytest.raises(ByzerError, match="user_role is without effect"):
        fix_roles(tokenizer, {"user_role": "Human"})
