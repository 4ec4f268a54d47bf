"""Qwen: ChatML for folders whose tokenizer brings no template; its own template wins, as with every family.

Source: the format that Qwen's chat models are trained on, `<|im_start|>ROLE … <|im_end|>`.
"""

from __future__ import annotations

from functools import partial

from byzerllm_adapters import causal_lm, loading
from byzerllm_adapters.causal_lm import load_model, stream_chat

__all__ = ["DEFAULT_TEMPLATE", "init_model", "load_model", "load_tokenizer", "stream_chat"]

DEFAULT_TEMPLATE = (
    "{% if messages and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'] + '<|im_end|>' }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ message['content'] + '<|im_end|>\\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

load_tokenizer = partial(loading.load_tokenizer, template=DEFAULT_TEMPLATE)
init_model = partial(causal_lm.init_model, load_tokenizer=load_tokenizer)
