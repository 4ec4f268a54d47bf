"""Versions of Python and the key libraries: the same wherever a job runs, or it is refused."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version

from byzerllm_adapters.errors import ByzerError

KEY_LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "ray", "numpy")
"""Libraries whose versions decide whether a run can be repeated."""

MISSING = "missing"


def installed_versions() -> dict[str, str]:
    """Return the versions of Python and the key libraries here."""
    return {"python": platform.python_version(), **{name: _version(name) for name in KEY_LIBRARIES}}


def check_versions(ours: Mapping[str, str], theirs: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse nodes whose versions differ from ours.

    Builds of one version (``2.13.0+cpu``, ``2.13.0+cu130``) and patch levels of Python are the same.

    Args:
        ours: Where the job is asked for.
        theirs: By node.

    Raises:
        ByzerError: what differs, and where.
    """
    for node, found in theirs.items():
        different = [
            f"{name} {found.get(name, MISSING)} (here {expected})"
            for name, expected in ours.items()
            if _comparable(name, found.get(name, MISSING)) != _comparable(name, expected)
        ]
        if different:
            raise ByzerError(
                f"a worker's node has other versions: {', '.join(different)}",
                where=f"node {node[:12]}",
                do="install the same there, or start the kernel in the node's environment",
            )


def _version(library: str) -> str:
    try:
        return version(library)
    except PackageNotFoundError:
        return MISSING


def _comparable(name: str, version: str) -> str:
    public = version.partition("+")[0]
    return ".".join(public.split(".")[:2]) if name == "python" else public
