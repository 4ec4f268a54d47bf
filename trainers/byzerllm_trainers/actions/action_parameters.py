"""The keys of `action="merge"`, `"convert"` and `"evaluate"`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field

from byzerllm_adapters.parameters import AnyText, Parameters, Text, as_text

NO_METRIC = "none"
"""The value of `metric` that asks for no answers."""


def _listed(value: object) -> object:
    """Python may give several models as a list."""
    return ",".join(map(str, value)) if isinstance(value, list | tuple) else as_text(value)


class ActionParameters(Parameters):
    """Keys that every action has."""

    output_table: Text | None = Field(None, alias="outputTable", description="The name that the table of results gets.")
    dummy_table: str = Field(
        "command",
        validation_alias=AliasChoices("modelTable", "model"),
        description="Without effect here; accepted because Byzer asks for it.",
    )


class MergeParameters(ActionParameters):
    """What `run command as LLM` takes to merge an adapter into its base."""

    action: Literal["merge"] = Field("merge", description="What to do: merge an adapter into its base.")
    adapter: Text = Field(
        validation_alias=AliasChoices("localModelDir", "adapterNameOrPath"),
        description="The adapter: a job's name or folder, or any folder of a peft LoRA or DoRA adapter.",
    )
    base: Text | None = Field(
        None,
        validation_alias=AliasChoices("modelNameOrPath"),
        description="The folder of the base; none: where the adapter's configuration says it is.",
    )
    target: Text | None = Field(
        None,
        validation_alias=AliasChoices("savePath", "targetModelDir"),
        description="The new folder of the result; none: merged in the job's folder.",
    )
    pretrained_model_type: Text = Field(
        "auto", alias="pretrainedModelType", description="The family of the base; auto reads it from its configuration."
    )
    dtype: Literal["bfloat16", "float16", "float32"] = Field(
        "bfloat16", description="The number format in which the base is loaded again and the result is written."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that the base's folder brings along.")


class ConvertParameters(ActionParameters):
    """What `run command as LLM` takes to make a model folder of a training checkpoint."""

    action: Literal["convert"] = Field("convert", description="What to do: a checkpoint to a model folder.")
    checkpoint: Text = Field(
        validation_alias=AliasChoices("checkpointDir", "localModelDir"),
        description="The checkpoint: a job's name or folder (its newest one), or its checkpoints/step-N.",
    )
    tag: AnyText | None = Field(None, description="Which checkpoint of the job, e.g. step-40; none: the newest.")
    base: Text | None = Field(
        None,
        validation_alias=AliasChoices("modelNameOrPath"),
        description="The folder of the model that the job began with; none: where it was then.",
    )
    target: Text | None = Field(
        None,
        validation_alias=AliasChoices("savePath", "targetModelDir"),
        description="The new folder of the result; none: converted-step-N in the job's folder.",
    )
    pretrained_model_type: Text | None = Field(
        None, alias="pretrainedModelType", description="Without effect here: the job knows its family."
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="The weights' number format; auto: what the job computed in; float32: its master weights."
    )


class EvaluateParameters(ActionParameters):
    """What `run command as LLM` takes to evaluate models on a table."""

    action: Literal["evaluate"] = Field("evaluate", description="What to do: evaluate models on a table.")
    models: Annotated[Text, BeforeValidator(_listed)] = Field(
        alias="localModelDir",
        description="Commas between: model or adapter folders, jobs, deployed models (these: answers only).",
    )
    input_table: Text = Field(
        alias="inputTable", description="The table or DataFrame variable to evaluate on; rows as for training."
    )
    metric: Text = Field(
        "exact_match",
        description="exact_match, none (loss only), or your f(prediction, reference): its name or module:name.",
    )
    pretrained_model_type: Text = Field(
        "auto",
        alias="pretrainedModelType",
        description="The family of the models; auto reads it from their configuration.",
    )
    max_seq_length: Annotated[int, Field(ge=2)] | None = Field(
        None,
        description="Where rows are cut for the loss; none: the model's context, for text windows of 1024.",
        json_schema_extra={"unit": "tokens"},
    )
    max_new_tokens: Annotated[int, Field(ge=1)] = Field(
        256, description="The most tokens of an answer.", json_schema_extra={"unit": "tokens"}
    )
    per_device_eval_batch_size: Annotated[int, Field(ge=1)] = Field(
        8, description="Rows whose loss is computed together.", json_schema_extra={"unit": "rows"}
    )
    dtype: Literal["auto", "bfloat16", "float32", "float16"] = Field(
        "auto", description="The number format of the weights; auto takes what the device computes fast."
    )
    trust_remote_code: bool = Field(False, description="Run Python code that a model's folder brings along.")

    @property
    def names(self) -> list[str]:
        """The models, one by one."""
        return [name for part in self.models.split(",") if (name := part.strip())]

    @property
    def asks(self) -> bool:
        """Whether models are asked for answers."""
        return self.metric.lower() != NO_METRIC
