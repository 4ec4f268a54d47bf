"""The settings of `%%byzerllm setup`, and the modes that they begin with."""

from __future__ import annotations

import difflib
import getpass
from collections.abc import Mapping
from typing import Literal

from pydantic import AliasChoices, Field

from byzerllm_adapters.parameters import ParameterError, Parameters, Problem, Text, read

MODES: Mapping[str, Mapping[str, object]] = {
    "single": {"num_gpus": 1, "maxConcurrency": 1},
    "sft": {"num_gpus": 1},
    "sfft": {"num_gpus": 1},
}
"""A mode's settings, where they matter to it; every other setting takes its own default."""

_REFUSED = {
    "data": "notebooks hold their data in DataFrames: a variable's name may stand for a table",
    "retrieval": "it is not needed here: no retrieval service is started",
}


class SetupSettings(Parameters):
    """What holds for every later cell of this kernel, until the next setup."""

    num_gpus: int = Field(
        1,
        ge=0,
        description="GPUs: of each replica when deploying, of the node for sft, workers for sfft.",
        json_schema_extra={"unit": "GPUs"},
    )
    num_cpus: float | None = Field(
        None,
        gt=0,
        description="CPUs of each worker; none: as little as the work needs.",
        json_schema_extra={"unit": "CPUs"},
    )
    max_concurrency: int = Field(
        1,
        gt=0,
        alias="maxConcurrency",
        description="Replicas of a model.",
        json_schema_extra={"unit": "replicas"},
    )
    ray_address: Text | None = Field(
        None, alias="rayAddress", description="The Ray cluster to use; none: one of this machine's own."
    )
    owner: Text = Field(
        default_factory=getpass.getuser,
        validation_alias=AliasChoices("owner", "OWNER"),
        description="Whose models and jobs these are; your login name by default.",
    )
    infer_backend: Literal["transformers"] = Field("transformers", description="The engine that serves models.")


def configure(current: SetupSettings, mode: str | None, raw: Mapping[str, object]) -> SetupSettings:
    """Return the settings after a setup: a mode resets all of them, then the raw settings are applied.

    Raises:
        ParameterError: The mode or a setting cannot be used. A problem of the mode has the mode as its key.

    """
    problems: list[Problem] = []
    before: Mapping[str, object] = _given(current)
    if mode is not None:
        before = MODES.get(mode, {})
        problems += [_refused(mode)] if mode not in MODES else []
    try:
        changes = _given(read(SetupSettings, raw))
    except ParameterError as error:
        problems += error.problems
    if problems:
        raise ParameterError(tuple(problems))
    return SetupSettings(**_given(read(SetupSettings, before)) | changes)


def _given(settings: SetupSettings) -> dict[str, object]:
    """Return what was set, by field names; defaults are left out."""
    return settings.model_dump(exclude_unset=True)


def _refused(mode: str) -> Problem:
    if mode in _REFUSED:
        return Problem(mode, f"the mode {mode} does not exist here", _REFUSED[mode])
    near = difflib.get_close_matches(mode, MODES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(MODES)}"
    return Problem(mode, f"{mode} is not a mode", f"{hint} (a setting takes =, e.g. num_gpus=2)")
