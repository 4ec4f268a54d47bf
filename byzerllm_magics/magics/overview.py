"""``%byzerllm`` alone: what there is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..widgets.job_state import ACTIVE
from . import SUBCOMMANDS

if TYPE_CHECKING:
    from ..session import Session


def call(session: Session) -> None:
    """Print the subcommands and what this user has."""
    width = max(map(len, SUBCOMMANDS)) + 1
    lines = ["byzerllm-magics: deploy, fine-tune and pretrain language models from a cell", ""]
    for name, purpose in SUBCOMMANDS.items():
        marks = "%%" if name in ("setup", "run", "estimate") else " %"
        lines.append(f"  {marks}byzerllm {name.ljust(width)} {purpose}")
    lines += [
        f"   {'%llm_chat'.ljust(width + 10)} talk to a deployed model",
        "",
        '"%byzerllm NAME --help" explains each; "%byzerllm params sft" lists the keys of a fine-tuning cell.',
    ]
    active = [job.name for job in session.jobs() if job.state in ACTIVE]
    if active:
        lines.append(f"Running jobs: {', '.join(active)}")
    print("\n".join(lines))
