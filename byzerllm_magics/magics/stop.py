"""``%byzerllm stop JOB``: save a checkpoint and end a job; with ``--now``, end it as it is."""

from __future__ import annotations

from byzerllm_trainers.checkpoint import committed

from .dispatch import Context, Parser


def parser() -> Parser:
    """Which job."""
    parser = Parser("stop")
    parser.add_argument("job", help="its name, or its folder")
    parser.add_argument("--now", action="store_true", help="at once: what came after the last checkpoint is lost")
    return parser


def call(context: Context) -> None:
    """Ask the job to end after its current step."""
    context.session.connect()
    job = context.session.job(context.options.job)
    job.stop(now=context.options.now)
    how = "saves a checkpoint and ends after its step"
    if context.options.now:
        how = f"ends now, with {'its last checkpoint' if committed(job.folder) else 'no checkpoint: it has saved none'}"
    print(f'Job {job.name} {how}; "%byzerllm resume {job.name}" goes on with it.')
