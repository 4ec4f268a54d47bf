"""Llama 2: the format its chat models were trained on, for folders whose tokenizer has no template."""

from __future__ import annotations

from functools import partial

from byzerllm_adapters import causal_lm, loading
from byzerllm_adapters.causal_lm import load_model, stream_chat

__all__ = ["DEFAULT_TEMPLATE", "init_model", "load_model", "load_tokenizer", "stream_chat"]

DEFAULT_TEMPLATE = (
    "{% set ns = namespace(system='') %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'system' and loop.first %}"
    "{% set ns.system = '<<SYS>>\\n' + message['content'] + '\\n<</SYS>>\\n\\n' %}"
    "{% elif message['role'] == 'user' %}"
    "{{ bos_token }}{{ '[INST] ' + ns.system + message['content'] | trim + ' [/INST]' }}"
    "{% set ns.system = '' %}"
    "{% elif message['role'] == 'assistant' %}"
    "{% generation %}{{ ' ' + message['content'] | trim + ' ' + eos_token }}{% endgeneration %}"
    "{% else %}{{ raise_exception('a system message comes first; the other roles are user and assistant') }}"
    "{% endif %}{% endfor %}"
)
"""Each question opens a sequence of its own (BOS … EOS), as Llama 2's chat models saw it."""

load_tokenizer = partial(loading.load_tokenizer, template=DEFAULT_TEMPLATE)
init_model = partial(causal_lm.init_model, load_tokenizer=load_tokenizer)
