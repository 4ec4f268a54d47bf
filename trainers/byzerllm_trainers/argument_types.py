"""The types of training arguments that several ways of training share, and how values that a cell writes are read."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field
from pydantic.config import JsonDict

from byzerllm_adapters.parameters import load_json, problem

LearningRate = Annotated[
    float, Field(gt=0, description="The highest learning rate of the schedule, reached after the warmup.")
]
WeightDecay = Annotated[float, Field(ge=0, description="Decoupled weight decay; norms and biases have none.")]
AdamBeta2 = Annotated[float, Field(ge=0, lt=1, description="AdamW's decay rate of the squared gradients' average.")]
LoraDropout = Annotated[
    float,
    Field(
        ge=0,
        lt=1,
        validation_alias=AliasChoices("lora_dropout", "dropout"),
        description="Dropout before the LoRA matrices.",
    ),
]
ResizeVocab = Annotated[
    bool,
    Field(
        validation_alias=AliasChoices("resize_vocab", "resize_token_embeddings"),
        description="Give tokens that the model lacks an embedding, the mean of the others.",
    ),
]
TOKENS: JsonDict = {"unit": "tokens"}
STEPS: JsonDict = {"unit": "steps"}
EPOCHS: JsonDict = {"unit": "epochs"}
ROWS: JsonDict = {"unit": "rows"}

Schedule = Literal[
    "cosine",
    "linear",
    "constant",
    "constant_with_warmup",
    "cosine_with_restarts",
    "polynomial",
    "inverse_sqrt",
]
Optimizer = Literal[
    "adamw_torch",
    "adamw_torch_fused",
    "sgd",
    "adafactor",
    "adamw_bnb_8bit",
    "paged_adamw_32bit",
    "paged_adamw_8bit",
]
AdapterType = Literal["lora", "dora", "qlora"]
FinetuningType = Literal["lora", "dora", "qlora", "full"]
OPTIMIZER_NOTES: JsonDict = {
    "paged_adamw_32bit": "paged where the workers have GPUs; on CPUs it is adamw_torch, which computes the same"
}


def no_limit(value: object) -> object:
    """Read transformers' way of saying that there is no limit."""
    return None if str(value).strip() == "-1" else value


def read_names(value: object) -> object:
    """Read names as a cell may write them: one, several with commas, or a JSON list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return load_json(value)
    return [name for name in (part.strip() for part in value.split(",")) if name]


def read_prompts(value: object) -> object:
    """Read prompts as a cell may write them: a JSON list, or one prompt as it is."""
    if not isinstance(value, str):
        return value
    return load_json(value) if value.lstrip().startswith("[") else [value]


def with_a_reference(value: object) -> object:
    """Refuse to train the weights that preference tuning compares with."""
    if value == "full":
        what = "leaves nothing of the base as the reference that preference tuning compares with"
        raise problem(what, 'write "lora", "dora" or "qlora", or train every weight with sft/… first')
    return value


ModuleNames = Annotated[list[str], BeforeValidator(read_names)]
