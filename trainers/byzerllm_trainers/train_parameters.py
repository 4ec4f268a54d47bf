"""The keys of a cell that trains a model, in the way that `pretrainedModelType="METHOD/FAMILY"` says.

A method is a group here, of a declaration derived from `OptimizationParameters`.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, AliasChoices, Field, model_validator

from byzerllm_adapters.parameters import (
    JsonObject,
    ParameterError,
    Parameters,
    Problem,
    Text,
    groups,
    problem,
)

from .on_finish import KINDS
from .optimization_parameters import (
    DpoParameters,
    FineTuningParameters,
    OptimizationParameters,
    SfftParameters,
    SftParameters,
)


def _training_type(value: str) -> str:
    method, _, family = value.partition("/")
    if method not in methods() or not re.fullmatch(r"[^/\s]+", family):
        family = value.rpartition("/")[2] or "llama"
        ways = ", ".join(f'"{name}/{family}" to {kind.hint}' for name, kind in methods().items())
        raise problem("does not say how to train", f'write {ways}, or action="infer" to deploy')
    return value


def _announcement(value: str) -> str:
    if not value.startswith(KINDS) or value in KINDS:
        raise problem("does not say whom to tell", 'write "shell:COMMAND", or an address: "http://…", "https://…"')
    return value


def _job_name(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value):
        do = "use letters, digits, . _ and -, and begin with a letter or digit"
        raise problem("is not a name for a job", do)
    return value


class TrainParameters(Parameters):
    """What `run command as LLM` takes to train a model."""

    action: Literal["finetune"] = Field("finetune", description="What to do: train a model.")
    pretrained_model_type: Annotated[Text, AfterValidator(_training_type)] = Field(
        alias="pretrainedModelType",
        description="The way to train and the family: sft/llama2 fine-tunes, sfft/ pretrains, dpo/ prefers.",
    )
    local_model_dir: Text = Field(alias="localModelDir", description="The folder of the model to begin with.")
    local_data_dir: Text | None = Field(
        None, alias="localDataDir", description="A folder of data files, instead of inputTable."
    )
    local_path_prefix: Text = Field(
        "jobs",
        alias="localPathPrefix",
        description="The folder of the jobs' folders; `s3://bucket/folder` keeps a copy of each there.",
    )
    input_table: Text | None = Field(
        None, alias="inputTable", description="The table or DataFrame variable with the data."
    )
    eval_table: Text | None = Field(
        None, alias="evalTable", description="The table or DataFrame variable to evaluate on; rows as inputTable's."
    )
    output_table: Text | None = Field(None, alias="outputTable", description="The name that the table of results gets.")
    name: Annotated[Text, AfterValidator(_job_name)] | None = Field(
        None, description="The name of the job; none: made from the way to train, the owner and the time."
    )
    detached: bool = Field(True, description="Return at once and let the job run; false: wait for its end.")
    on_finish: Annotated[Text, AfterValidator(_announcement)] | None = Field(
        None,
        description="Told when the job has ended: shell:COMMAND, or http(s)://…, which gets its result row.",
    )
    keep_partition_num: bool = Field(
        False,
        alias="keepPartitionNum",
        description="Each worker trains on its own partitions of inputTable; false: an equal share of rows.",
    )
    deepspeed_config: JsonObject | None = Field(
        None, alias="deepspeedConfig", description="DeepSpeed's own configuration, as a JSON object."
    )
    dummy_table: str = Field(
        "command",
        validation_alias=AliasChoices("modelTable", "model"),
        description="Without effect here; accepted because Byzer asks for it.",
    )
    sft: SftParameters = Field(default_factory=SftParameters)
    sfft: SfftParameters = Field(default_factory=SfftParameters)
    dpo: DpoParameters = Field(default_factory=DpoParameters)

    @property
    def method(self) -> str:
        """The way to train, before the slash of `pretrainedModelType`: one of `methods`."""
        return self.pretrained_model_type.partition("/")[0]

    @property
    def family(self) -> str:
        """The family of the model, after the slash of `pretrainedModelType`."""
        return self.pretrained_model_type.partition("/")[2]

    @property
    def optimization(self) -> OptimizationParameters:
        """The parameters of the way to train that was chosen."""
        chosen: OptimizationParameters = getattr(self, self.method)
        return chosen

    @property
    def fine_tunes(self) -> bool:
        """Whether the way to train begins with a finished model, of which it makes an adapter or new weights."""
        return isinstance(self.optimization, FineTuningParameters)

    @property
    def packs(self) -> bool:
        """Whether conversations are packed into rows."""
        return self.method == "sft" and self.sft.packing

    @property
    def fine_tuning(self) -> FineTuningParameters:
        """The same, of a way that begins with a finished model."""
        keys = self.optimization
        assert isinstance(keys, FineTuningParameters), f"{self.method} is not such a way"
        return keys

    @property
    def evaluates(self) -> bool:
        """Whether there is data to evaluate on."""
        return self.eval_table is not None or self.optimization.eval_ratio > 0

    def require_data(self) -> None:
        """Check that the data is named, for a caller that does not bring it along.

        Raises:
            ParameterError: Neither `inputTable` nor `localDataDir` is given.

        """
        if self.input_table is None and self.local_data_dir is None:
            do = 'add inputTable="…" (a table or a DataFrame variable) or localDataDir="…" (a folder)'
            raise ParameterError((Problem("inputTable", "there is no data to train on", do),))

    @model_validator(mode="after")
    def _one_source_of_data(self) -> Self:
        if self.input_table is not None and self.local_data_dir is not None:
            do = "keep inputTable (a table) or localDataDir (a folder)"
            raise problem("inputTable and localDataDir are both given", do, key="localDataDir")
        return self

    @model_validator(mode="after")
    def _one_source_of_evaluation(self) -> Self:
        chosen, group = self.optimization, self.method
        if self.eval_table is not None and chosen.eval_ratio:
            do = "keep evalTable (a table) or eval_ratio (a share of the rows)"
            raise problem(f"evalTable and {group}.eval_ratio are both given", do, key="evalTable")
        wishes = {
            "eval_strategy": chosen.eval_strategy in ("steps", "epoch"),
            "eval_steps": chosen.eval_steps is not None,
            "load_best_model_at_end": chosen.load_best_model_at_end,
            "early_stopping_patience": chosen.early_stopping_patience is not None,
        }
        wished = [f"{group}.{name}" for name, wish in wishes.items() if wish]
        if wished and not self.evaluates:
            do = f'add {group}.eval_ratio="0.1" (a share of the rows) or evalTable="…" (a table)'
            raise problem(f"{wished[0]}: there is no data to evaluate on", do, key=wished[0])
        return self

    @model_validator(mode="after")
    def _only_the_chosen_group(self) -> Self:
        others = methods().keys() - {self.method}
        given = [f"{other}.{name}" for other in others for name in getattr(self, other).model_fields_set]
        if given:
            what = f"{', '.join(sorted(given))}: without effect in {self.pretrained_model_type}"
            raise problem(what, f"write {self.method}.… instead, or leave it out", key=min(given))
        return self


def method_of(keys: OptimizationParameters) -> str:
    """Return the way to train whose parameters these are."""
    return next(name for name, kind in methods().items() if type(keys) is kind)


@cache
def methods() -> dict[str, type[OptimizationParameters]]:
    """Return the ways to train, by name, in the order of their declaration."""
    return {name: kind for name, kind in groups(TrainParameters).items() if issubclass(kind, OptimizationParameters)}
