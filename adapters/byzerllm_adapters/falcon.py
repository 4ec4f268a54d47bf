"""Falcon: the format of its instruct models, for folders whose tokenizer brings no template.

Source: Falcon's instruct models, which are asked with "User: … Falcon:"; a turn ends with the end of sequence.
"""

from __future__ import annotations

from functools import partial

from byzerllm_adapters import causal_lm, loading
from byzerllm_adapters.causal_lm import load_model, stream_chat

__all__ = ["DEFAULT_TEMPLATE", "init_model", "load_model", "load_tokenizer", "stream_chat"]

DEFAULT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and loop.first %}{{ 'System: ' + message['content'] + '\\n' }}"
    "{% elif message['role'] == 'user' %}{{ (user_role or 'User') + ': ' + message['content'] + '\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ (assistant_role or 'Falcon') + ':' }}"
    "{% generation %}{{ ' ' + message['content'] + eos_token }}{% endgeneration %}{{ '\\n' }}"
    "{% else %}{{ raise_exception('a system message comes first; the other roles are user and assistant') }}"
    "{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ (assistant_role or 'Falcon') + ':' }}{% endif %}"
)

load_tokenizer = partial(loading.load_tokenizer, template=DEFAULT_TEMPLATE)
init_model = partial(causal_lm.init_model, load_tokenizer=load_tokenizer)
