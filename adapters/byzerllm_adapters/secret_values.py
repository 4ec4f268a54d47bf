"""Values that are named like secrets: what counts as one, what is shown in its place, where it may come from."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping

from .errors import ByzerError

MASK = "***"
LEAST = 4
"""Characters of a secret that is looked for in texts: a shorter one would mask what has nothing to do with it."""

_WHOLE_WORDS = re.compile(r"(key|keys|token|pwd)$")
_ANYWHERE = re.compile(r"secret|password|passwd|credential")
_FROM_ENVIRONMENT = "env:"


def is_secret(name: str) -> bool:
    """Return whether a key is named like a secret: `saas.api_key`, `hubToken`, `password`; not `max_new_tokens`."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return bool(_ANYWHERE.search(words)) or any(_WHOLE_WORDS.search(word) for word in re.split(r"[^a-z0-9]+", words))


def hidden(text: str, secrets: Iterable[str]) -> str:
    """Return a text with every secret in it masked; a secret of less than `LEAST` characters hides nothing."""
    for secret in sorted(secrets, key=len, reverse=True):
        if len(secret) >= LEAST:
            text = text.replace(secret, MASK)
    return text


def revealed(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return parameters in which every secret is what it stands for.

    Raises:
        ByzerError: The environment of this process has no such variable.

    """
    return {key: reveal(value, key) if is_secret(key) else value for key, value in parameters.items()}


def known_here(parameters: Mapping[str, str]) -> dict[str, str]:
    """Return parameters in which every secret that this process' environment has is replaced by it."""
    return {
        key: os.environ.get(value.removeprefix(_FROM_ENVIRONMENT), value)
        if is_secret(key) and value.startswith(_FROM_ENVIRONMENT)
        else value
        for key, value in parameters.items()
    }


def reveal(value: str, key: str) -> str:
    """Return what a secret's value stands for: `env:NAME` is the environment's NAME, anything else is itself.

    Called where the secret is used, so that neither a cell nor a job's folder holds it.

    Raises:
        ByzerError: The environment of this process has no such variable.

    """
    if not value.startswith(_FROM_ENVIRONMENT):
        return value
    name = value.removeprefix(_FROM_ENVIRONMENT)
    if name not in os.environ:
        raise ByzerError(
            f"{key} is to come from the environment, which has no {name}",
            where="neither here nor in the notebook",
            do=f"set it in the notebook, os.environ[{name!r}] = …, or before the cluster starts",
        )
    return os.environ[name]
