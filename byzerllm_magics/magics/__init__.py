"""The magics: one small module a subcommand, found by a dispatch table. Importing this imports nothing heavy."""

from __future__ import annotations

SUBCOMMANDS = {
    "setup": "settings, and the cluster: started here, or connected to",
    "run": "deploy a model, fine-tune or pretrain one; merge, convert, evaluate",
    "estimate": "what training will take: memory, disk, tokens, steps, time",
    "jobs": "training jobs compared, as a table",
    "models": "deployed models, as a table",
    "attach": "show a job again, live, in any kernel",
    "wait": "wait for a job's end",
    "stop": "save a checkpoint and end a job",
    "resume": "go on with a job that was stopped, failed or lost its cluster",
    "logs": "a job's logs",
    "undeploy": "delete a deployed model",
    "pause": "a model lends its place to a job, until that has ended",
    "status": "the cluster, its models and jobs",
    "params": "the keys that a cell may hold",
    "shutdown": "end the embedded cluster",
}
"""A new subcommand is one module of this name with ``parser()`` and ``call(context)``, and its line here."""
