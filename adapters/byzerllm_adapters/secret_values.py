"""Values that are named like secrets: what counts as one, what is shown in its place, where it may come from."""

from __future__ import annotations

import os
import re

from .errors import ByzerError

MASK = "***"

_WHOLE_WORDS = re.compile(r"(key|keys|token|pwd)$")
_ANYWHERE = re.compile(r"secret|password|passwd|credential")
_FROM_ENVIRONMENT = "env:"


def is_secret(name: str) -> bool:
    """Return whether a key is named like a secret: `saas.api_key`, `hubToken`, `password`; not `max_new_tokens`."""
    words = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name).lower()
    return bool(_ANYWHERE.search(words)) or any(_WHOLE_WORDS.search(word) for word in re.split(r"[^a-z0-9]+", words))


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
            where="in the process that uses it: a worker's environment is the cluster's, not the notebook's",
            do=f"set {name} before the cluster starts",
        )
    return os.environ[name]
