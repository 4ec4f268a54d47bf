"""What a cell is told of keys that it gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from byzerllm_adapters.parameters import Parameters


def tell_notes(parameters: Parameters) -> None:
    """Print what there is to know about keys that were given: without effect here, something else in its place."""
    from byzerllm_adapters.keys import notes

    for note in notes(parameters):
        print(note)
