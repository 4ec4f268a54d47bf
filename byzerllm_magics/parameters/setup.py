"""The settings of `%%byzerllm setup`, and the modes that they begin with."""

from __future__ import annotations

import difflib
import getpass
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AliasChoices, Field
from pydantic.config import JsonDict

from byzerllm_adapters.parameters import (
    AnyText,
    OpenParameters,
    ParameterError,
    Parameters,
    Problem,
    Text,
    as_text,
    read,
)
from byzerllm_adapters.registry import METHODS

MODES: Mapping[str, Mapping[str, object]] = {
    "single": {"num_gpus": 1, "maxConcurrency": 1},
    **{method: {"num_gpus": 1} for method in METHODS},
}
"""A mode's settings, where they matter to it; every other setting takes its own default."""

_REFUSED = {
    "data": "notebooks hold their data in DataFrames: a variable's name may stand for a table",
    "retrieval": "it is not needed here: no retrieval service is started",
}

_OF_THE_JVM: JsonDict = {"note": "without meaning here: it tells Byzer's JVM engine how to run, and there is none"}
REQUESTS: JsonDict = {"unit": "requests"}


class Resources(OpenParameters):
    """Ray's custom resources, by name."""

    __pydantic_extra__: dict[str, Annotated[float, Field(gt=0)]] = Field(init=False)


class SetupSettings(Parameters):
    """What holds for every later cell of this kernel, until the next setup."""

    num_gpus: int = Field(
        1,
        ge=0,
        description="GPUs: of each replica when deploying, of the node for sft and dpo, workers for sfft.",
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
    worker_max_concurrency: int | None = Field(
        None,
        gt=0,
        alias="workerMaxConcurrency",
        description="Requests that one replica answers at a time; none: as many as its engine takes.",
        json_schema_extra=REQUESTS,
    )
    master_max_concurrency: int = Field(
        1000,
        gt=0,
        alias="masterMaxConcurrency",
        description="Requests to a model that may wait; more are refused.",
        json_schema_extra=REQUESTS,
    )
    load_balance: Literal["lru", "round_robin"] = Field(
        "lru",
        description="Accepted; a request goes to the less busy of two replicas.",
        json_schema_extra={"note": "without effect: a request goes to the less busy of two replicas"},
    )
    infer_backend: Literal["transformers"] = Field("transformers", description="The engine that serves models.")
    ray_address: Text | None = Field(
        None, alias="rayAddress", description="The Ray cluster to use; none: one of this machine's own."
    )
    owner: Text = Field(
        default_factory=getpass.getuser,
        validation_alias=AliasChoices("owner", "OWNER"),
        description="Whose models and jobs these are.",
        json_schema_extra={"default": "your login name"},
    )
    resource: Resources = Field(
        default_factory=Resources,
        description="How much of a custom Ray resource each worker or replica takes.",
    )
    run_in: AnyText | None = Field(
        None, alias="runIn", description="Without meaning here.", json_schema_extra=_OF_THE_JVM
    )
    # Python's own attribute is in the way of the name that Byzer gives it
    schema_: AnyText | None = Field(
        None, alias="schema", description="Without meaning here.", json_schema_extra=_OF_THE_JVM
    )
    python_exec: AnyText | None = Field(
        None,
        alias="pythonExec",
        description="Without meaning here.",
        json_schema_extra={"note": "without meaning here: workers run the Python that the notebook runs"},
    )
    data_mode: AnyText | None = Field(
        None,
        alias="dataMode",
        description="Without meaning here.",
        json_schema_extra={"note": "without meaning here: tables reach the workers through the job's folder"},
    )
    standalone: AnyText | None = Field(
        None,
        description="Without meaning here.",
        json_schema_extra={"note": "without meaning here: rayAddress says which cluster is used"},
    )

    def as_sys_conf(self) -> dict[str, str]:
        """Return the settings as adapters get them: text under the language's names, `resource.NAME` included."""
        dumped = self.model_dump(by_alias=True, exclude_none=True)
        resources = {f"resource.{name}": amount for name, amount in dumped.pop("resource").items()}
        return {key: as_text(value) for key, value in {**dumped, **resources}.items()}


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
    given = _given(read(SetupSettings, before))
    resources = {**_group(given), **_group(changes)}
    return SetupSettings.model_validate({**given, **changes, **({"resource": resources} if resources else {})})


def _given(settings: SetupSettings) -> dict[str, object]:
    """Return what was set, by field names; defaults are left out."""
    return settings.model_dump(exclude_unset=True)


def _group(given: Mapping[str, object]) -> dict[str, object]:
    """Return the custom resources among what was set."""
    found = given.get("resource", {})
    return dict(found) if isinstance(found, Mapping) else {}


def _refused(mode: str) -> Problem:
    if mode in _REFUSED:
        return Problem(mode, f"the mode {mode} does not exist here", _REFUSED[mode])
    near = difflib.get_close_matches(mode, MODES, n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(MODES)}"
    return Problem(mode, f"{mode} is not a mode", f"{hint} (a setting takes =, e.g. num_gpus=2)")
