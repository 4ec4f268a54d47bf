"""The keys of a cell that deploys a model: `action="infer"`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, model_validator

from .parameters import Parameters, Text, problem


def _function_name(name: str) -> str:
    if not (name.isidentifier() and name.isascii()):
        raise problem(
            "is not a name for a function",
            "use letters, digits and _, and begin with a letter, e.g. llama_chat",
        )
    return name


def _served_family(family: str) -> str:
    method, _, name = family.partition("/")
    if method in ("sft", "sfft"):
        raise problem("is a way to train, not a family to serve", f'write pretrainedModelType="{name or "auto"}"')
    return family


class InferParameters(Parameters):
    """What `run command as LLM` takes to deploy a model."""

    action: Literal["infer"] = Field("infer", description="What to do: deploy a model.")
    pretrained_model_type: Annotated[Text, AfterValidator(_served_family)] = Field(
        "auto",
        alias="pretrainedModelType",
        description="The family of the model, e.g. llama; auto reads it from the model's configuration.",
    )
    local_model_dir: Text | None = Field(
        None, alias="localModelDir", description="The folder of the model; needed unless reconnect is true."
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
    trust_remote_code: bool = Field(False, description="Run Python code that the model's folder brings along.")

    @model_validator(mode="after")
    def _has_a_source(self) -> Self:
        if self.local_model_dir is None and not self.reconnect:
            do = 'add localModelDir="…" (the folder of the model), or reconnect="true"'
            raise problem("localModelDir is missing", do, key="localModelDir")
        return self
