"""The keys of a cell that deploys a model: `action="infer"`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, model_validator

from .declaration import AnyText, OpenParameters, Parameters, Text, as_text, problem
from .registry import METHODS


def _function_name(name: str) -> str:
    if not (name.isidentifier() and name.isascii()):
        raise problem(
            "is not a name for a function",
            "use letters, digits and _, and begin with a letter, e.g. llama_chat",
        )
    return name


def _served_family(family: str) -> str:
    method, _, name = family.partition("/")
    if method in METHODS:
        raise problem("is a way to train, not a family to serve", f'write pretrainedModelType="{name or "auto"}"')
    return family


def _bits(value: object) -> str:
    text = as_text(value).strip().lower()
    return "false" if text in ("none", "no", "0") else text


class InferGroup(Parameters):
    """Keys that Byzer writes as `infer.bool.NAME`."""

    load_in_4bit: bool = Field(False, description='The same as quatization="nf4".')


class BackendOptions(OpenParameters):
    """Options of the engine that serves the model; it says which it knows."""

    __pydantic_extra__: dict[str, AnyText] = Field(init=False)


class RemoteOptions(OpenParameters):
    """Where a model is that runs elsewhere: for an adapter of the user's own, there is none of ours yet."""

    __pydantic_extra__: dict[str, AnyText] = Field(init=False)

    api_key: AnyText | None = Field(
        None, description="For an adapter of your own (custom/MODULE): a remote key, best as env:NAME."
    )
    base_url: AnyText | None = Field(None, description="For an adapter of your own: a remote address.")
    model: AnyText | None = Field(None, description="For an adapter of your own: a remote model's name.")


class InferParameters(Parameters):
    """What `run command as LLM` takes to deploy a model."""

    action: Literal["infer"] = Field("infer", description="What to do: deploy a model.")
    pretrained_model_type: Annotated[Text, AfterValidator(_served_family)] = Field(
        "auto",
        alias="pretrainedModelType",
        description="The family of the model, e.g. llama; auto reads it from the model's configuration.",
    )
    local_model_dir: Text | None = Field(
        None, alias="localModelDir", description="The folder of the model; not needed to reconnect."
    )
    udf_name: Annotated[Text, AfterValidator(_function_name)] = Field(
        alias="udfName", description="The name that the model is called by."
    )
    reconnect: bool = Field(False, description="Attach to the running deployment of this name; start nothing.")
    dummy_table: str = Field(
        "command",
        validation_alias=AliasChoices("modelTable", "model"),
        description="Without effect here; accepted because Byzer asks for it.",
    )
    ready_timeout: Annotated[float, Field(gt=0)] = Field(
        300.0,
        alias="modelWaitServerReadyTimeout",
        description="How long the cell waits until the model answers.",
        json_schema_extra={"unit": "seconds"},
    )
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = Field(
        "auto", description="The number format of the weights; auto takes what the device computes fast."
    )
    quantization: Annotated[Literal["false", "4", "8", "nf4"], BeforeValidator(_bits)] = Field(
        "false",
        validation_alias=AliasChoices("quatization", "quantization"),
        description="Load the weights in 8 bits, or in 4 (nf4): less memory, a little less quality.",
        json_schema_extra={"unit": "bits"},
    )
    trust_remote_code: bool = Field(False, description="Run Python code that the model's folder brings along.")
    devices: AnyText | None = Field(
        None,
        description="Without effect here: each replica gets GPUs of its own.",
        json_schema_extra={"note": "without effect here: Ray gives each replica its GPUs; num_gpus says how many"},
    )
    infer: InferGroup = Field(default_factory=InferGroup)
    backend: BackendOptions = Field(
        default_factory=BackendOptions, description="Any option of the engine that serves, under its own name."
    )
    saas: RemoteOptions = Field(
        default_factory=RemoteOptions, description="For an adapter of your own: any other remote option."
    )

    def notes_of_several(self) -> list[str]:
        """Return that keys of a remote model say nothing to a local one."""
        if self.pretrained_model_type.startswith(("saas/", "custom/")):
            return []
        return [f"saas.{name}: without effect, for the model runs here" for name in sorted(self.saas.model_fields_set)]

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        remote = self.pretrained_model_type.startswith("saas/")
        if self.local_model_dir is None and not self.reconnect and not remote:
            do = 'add localModelDir="…" (the folder of the model), or reconnect="true"'
            raise problem("localModelDir is missing", do, key="localModelDir")
        return self

    @model_validator(mode="after")
    def _one_quantization(self) -> Self:
        if self.infer.load_in_4bit and self.quantization == "8":
            what = 'infer.load_in_4bit and quatization="8" contradict each other'
            raise problem(what, "keep one of them", key="infer.load_in_4bit")
        return self
