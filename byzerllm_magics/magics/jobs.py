"""``%byzerllm jobs``: training jobs compared, as a table; with ``--clean``, what ended ones do not need any more."""

from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .dispatch import Context, Parser

if TYPE_CHECKING:
    from ..cluster.jobs import Job


def parser() -> Parser:
    """How to sort, what to bind, and what to remove."""
    parser = Parser("jobs")
    parser.add_argument("jobs", nargs="*", metavar="JOB", help="only these; * stands for any characters")
    parser.add_argument("--by", metavar="COLUMN", help="the best by this column first, e.g. eval_loss")
    parser.add_argument("-o", "--output", metavar="NAME", help="bind the DataFrame to this variable")
    parser.add_argument("--clean", action="store_true", help="say what ended jobs hold on the disk and do not need")
    parser.add_argument("--yes", action="store_true", help="with --clean: remove it")
    return parser


def call(context: Context) -> Any:
    """Return a DataFrame, one row a job, the newest first; or clean up."""
    if context.options.clean:
        _clean(context)
        return None
    from ..leaderboard import leaderboard

    board = leaderboard(_chosen(context), context.options.by)
    context.bind(context.options.output, board)
    for name in board.loc[board["state"] == "lost", "name"]:
        print(f'{name} lost its cluster: "%byzerllm resume {name}" goes on from its last checkpoint')
    return board


def _chosen(context: Context) -> list[Job]:
    """Return the jobs that the line names, or all.

    Raises:
        ByzerError: a name fits none.
    """
    jobs, patterns = context.session.jobs(), context.options.jobs
    for pattern in patterns:
        if not fnmatch.filter([job.name for job in jobs], pattern):
            raise ByzerError(f"no job {pattern!r}", do='"%byzerllm jobs" lists them all; * stands for any characters')
    return [job for job in jobs if not patterns or any(fnmatch.fnmatchcase(job.name, each) for each in patterns)]


def _clean(context: Context) -> None:
    """Say, or remove, what ended jobs do not need: results, records and logs stay."""
    from byzerllm_trainers import disk

    from ..estimate_card import size

    total, remove = 0, context.options.yes
    for job in _chosen(context):
        paths = disk.dispensable(job.folder)
        if not paths:
            continue
        freed = disk.clean(job.folder) if remove else sum(map(disk.size, paths))
        total += freed
        print(f"{job.name}: {', '.join(path.name for path in paths)}, {size(freed)}")
    if not total:
        print("There is nothing to remove: ended jobs hold only what they need.")
    elif remove:
        print(f"Removed {size(total)}. A finished job without checkpoints cannot be trained on; its model is there.")
    else:
        print(f'{size(total)} in all: "%byzerllm jobs --clean --yes" removes it. Models, records and logs stay.')
