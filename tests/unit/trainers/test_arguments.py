"""Every key of `sft.` and `sfft.` has an effect: a case for each, and a test that none is without one."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from byzerllm_adapters.errors import ByzerError
from byzerllm_magics.parameters import keys_of
from byzerllm_trainers import recipe
from byzerllm_trainers.checkpoint import best_checkpoint, committed
from byzerllm_trainers.engine import Rank, interface_of
from byzerllm_trainers.evaluation import evaluate
from byzerllm_trainers.job_folder import JobFolder, write_json
from byzerllm_trainers.loop_settings import LoopSettings
from byzerllm_trainers.model_options import add_embedding_noise, check_compiler
from byzerllm_trainers.optimizers import build_optimizer
from byzerllm_trainers.packing import GroupedRows, Layout
from byzerllm_trainers.report import Report
from byzerllm_trainers.shards import open_shards
from byzerllm_trainers.submit import _kept
from tests.tiny import instructions, make_model, texts
from tests.unit.trainers.helpers import Ran, examples, load, plain_loss, run, settings, shards_of

pytestmark = pytest.mark.usefixtures("group")

ROWS = examples([40, 7, 23, 12, 3, 31, 18, 9])
OTHERS = examples([20, 11, 30, 8], seed=5)
ALL = {"per_device_train_batch_size": 8, "learning_rate": 1e-2, "warmup_steps": 0, "lr_scheduler_type": "constant"}
"""All rows in a step, at one learning rate."""

Case = Callable[["Bench"], None]
CASES: dict[tuple[str, ...], Case] = {}
"""What shows the effect of some keys."""


def case(*names: str) -> Callable[[Case], Case]:
    def keep(check: Case) -> Case:
        CASES[names] = check
        return check

    return keep


@dataclass
class Bench:
    """What the cases work with: the tiny model, folders, jobs."""

    model_dir: Path
    root: Path
    make_job: Callable[..., recipe.Job]
    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]
    numbers: Any = field(default_factory=itertools.count)

    def folder(self) -> JobFolder:
        folder = JobFolder(self.root / f"run-{next(self.numbers)}")
        folder.create({})
        return folder

    def run(self, steps: int = 3, *, folder: JobFolder | None = None, rows: Any = None, **keys: Any) -> Ran:
        model = load(self.model_dir, lora=keys.pop("lora", False), dropout=keys.pop("dropout", 0.0))
        more = {name: keys.pop(name) for name in ("should_stop", "held_out") if name in keys}
        chosen = settings(**{**ALL, **keys})
        return run(model, rows or ROWS, chosen, steps, folder or self.folder(), **more)

    def plain(
        self, optimizer: Callable[..., Any], steps: int = 3, clip: float = 1.0, decay: float = 0.0
    ) -> list[float]:
        """The losses of a loop without an engine, with a torch optimizer."""
        model = load(self.model_dir)
        matrices = [p for p in model.parameters() if p.ndim >= 2]
        others = [p for p in model.parameters() if p.ndim < 2]
        made = optimizer(
            [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}], lr=1e-2
        )
        losses = []
        for _ in range(steps):
            loss = plain_loss(model, ROWS)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), clip or math.inf)
            made.step()
            made.zero_grad()
            losses.append(loss.item())
        return losses

    def job(self, method: str = "sft", rows: int = 16, **keys: Any) -> recipe.Job:
        table = instructions(rows) if method == "sft" else texts(rows)
        return self.make_job(method, pa.Table.from_pandas(table), **keys)

    def steps_of(self, method: str = "sft", **keys: Any) -> int:
        job, found = self.job(method, **keys), recipe.find(method)
        found.prepare(job)
        return recipe.total_steps(found, job, found.plan(job))


@pytest.fixture
def bench(
    tiny_model: Path,
    tmp_path: Path,
    make_job: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Bench:
    return Bench(tiny_model, tmp_path, make_job, monkeypatch, capsys)


# -- how the weights change ---------------------------------------------------------------------------------------


@case("learning_rate")
def _(bench: Bench) -> None:
    assert [r["learning_rate"] for r in bench.run(learning_rate=3e-3).records] == [3e-3] * 3


@case("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon")
def _(bench: Bench) -> None:
    def adamw(groups: Any, lr: float) -> Any:
        return torch.optim.AdamW(groups, lr=lr, betas=(0.5, 0.6), eps=1e-3)

    found = bench.run(4, weight_decay=0.9, adam_beta1=0.5, adam_beta2=0.6, adam_epsilon=1e-3).losses
    assert found == pytest.approx(bench.plain(adamw, 4, decay=0.9), rel=1e-3)
    for left_out in ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon"):
        keys = {"weight_decay": 0.9, "adam_beta1": 0.5, "adam_beta2": 0.6, "adam_epsilon": 1e-3}
        del keys[left_out]
        assert bench.run(4, **keys).losses != pytest.approx(found, rel=1e-5), left_out


@case("max_grad_norm")
def _(bench: Bench) -> None:
    clipped = bench.run(optim="sgd", max_grad_norm=0.1)
    assert clipped.records[0]["grad_norm"] > 0.1, "told before clipping"
    assert clipped.losses == pytest.approx(bench.plain(torch.optim.SGD, clip=0.1), rel=1e-4)
    assert bench.run(optim="sgd", max_grad_norm=0).losses == pytest.approx(
        bench.plain(torch.optim.SGD, clip=0), rel=1e-4
    )


@case("optim")
def _(bench: Bench) -> None:
    from transformers.optimization import Adafactor

    def adafactor(groups: Any, lr: float) -> Any:
        return Adafactor(groups, lr=lr, scale_parameter=False, relative_step=False)

    adamw = bench.plain(torch.optim.AdamW)
    for name, expected in {
        "adamw_torch": adamw,
        "adamw_torch_fused": adamw,
        "paged_adamw_32bit": adamw,  # no GPU whose memory could be paged out
        "sgd": bench.plain(torch.optim.SGD),
        "adafactor": bench.plain(adafactor),
    }.items():
        assert bench.run(optim=name).losses == pytest.approx(expected, rel=1e-3), name
    for name in ("adamw_bnb_8bit", "paged_adamw_8bit"):
        with pytest.raises(ByzerError, match=f"optim={name} needs a GPU"):
            bench.run(optim=name)


@case("lr_scheduler_type", "lr_scheduler_kwargs")
def _(bench: Bench) -> None:
    """After the warm-up, transformers' own schedules."""
    from transformers import get_scheduler

    for name, options in {
        "linear": {},
        "cosine": {"num_cycles": 0.75},
        "cosine_with_restarts": {"num_cycles": 3},
        "polynomial": {"power": 2.0, "lr_end": 0.1},
        "constant_with_warmup": {},
        "inverse_sqrt": {"timescale": 7},
    }.items():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
        theirs = get_scheduler(name, optimizer, 4, 20, dict(options))
        rates = []
        for _step in range(20):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            theirs.step()
        ours = settings(lr_scheduler_type=name, lr_scheduler_kwargs=options, warmup_steps=4, learning_rate=1.0)
        assert [ours.learning_rate_at(step, 20) for step in range(4, 20)] == pytest.approx(rates[4:]), name
    with pytest.raises(ByzerError, match="linear has no option power"):
        settings(lr_scheduler_type="linear", lr_scheduler_kwargs={"power": 2})


@case("warmup_steps", "warmup_ratio")
def _(bench: Bench) -> None:
    by_steps = bench.run(4, warmup_steps=3, lr_scheduler_type="linear")
    assert [r["learning_rate"] for r in by_steps.records] == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2])
    by_ratio = settings(warmup_ratio=0.75, lr_scheduler_type="linear", learning_rate=1e-2)
    assert [by_ratio.learning_rate_at(step, 4) for step in range(4)] == pytest.approx([2.5e-3, 5e-3, 7.5e-3, 1e-2])
    assert settings(lr_scheduler_type="constant", learning_rate=1.0).learning_rate_at(0, 100) == 1.0


@case("neftune_noise_alpha")
def _(bench: Bench) -> None:
    quiet, noisy = bench.run(neftune_noise_alpha="none"), bench.run(neftune_noise_alpha=50)
    assert noisy.losses != quiet.losses
    model = load(bench.model_dir, lora=True)
    ids = torch.arange(6).reshape(1, 6)
    embeddings = model.get_base_model().get_input_embeddings()
    before = embeddings(ids)
    add_embedding_noise(model, 5.0)
    model.train()
    noise = (embeddings(ids) - before).abs()
    bound = 5.0 / math.sqrt(6 * before.shape[-1])
    assert bound / 2 < noise.max() <= bound * 1.001
    model.eval()
    assert torch.equal(embeddings(ids), before), "no noise but in training"


# -- how much is computed at a time, and how long -----------------------------------------------------------------


@case("max_steps")
def _(bench: Bench) -> None:
    assert [bench.steps_of(max_steps=3), bench.steps_of(max_steps="-1"), bench.steps_of(max_steps="none")] == [3, 2, 2]


@case("per_device_train_batch_size", "gradient_accumulation_steps")
def _(bench: Bench) -> None:
    whole = bench.run()
    parts = bench.run(per_device_train_batch_size=2, gradient_accumulation_steps=4)
    assert parts.losses == pytest.approx(whole.losses, rel=1e-4)
    assert bench.steps_of(per_device_train_batch_size=2) == 4 * bench.steps_of(per_device_train_batch_size=8)
    few = {"per_device_train_batch_size": 2}
    assert bench.steps_of(gradient_accumulation_steps=4, **few) == bench.steps_of(per_device_train_batch_size=8)


@case("seed", "data_seed")
def _(bench: Bench) -> None:
    keys = {"per_device_train_batch_size": 2, "lora": True, "dropout": 0.3, "group_by_length": False}

    def seen(**seeds: int) -> tuple[list[int], str]:
        ran = bench.run(4, **keys, **seeds)
        return [record["tokens"] for record in ran.records], ran.digest()

    first, other_seed, other_order = seen(seed=1), seen(seed=2, data_seed=1), seen(seed=1, data_seed=2)
    assert first == seen(seed=1)
    assert other_seed[0] == first[0], "the same order of the data"
    assert other_seed[1] != first[1], "other dropout"
    assert other_order[0] != first[0]
    assert seen(seed=2)[0] != first[0], "without data_seed, seed decides the order too"


@case("bf16")
def _(bench: Bench) -> None:
    for wish, dtype in ((True, torch.bfloat16), (False, torch.float32)):
        ran = bench.run(1, bf16=wish)
        assert {p.dtype for p in ran.engine.module.parameters()} == {dtype}


@case("fp16")
def _(bench: Bench) -> None:
    with pytest.raises(ByzerError, match="fp16 needs a GPU") as caught:
        bench.run(fp16=True)
    assert 'bf16="true"' in caught.value.do
    with pytest.raises(ByzerError, match=r"sft\.fp16 and sft\.bf16 are both asked for"):
        settings(fp16=True, bf16=True)


@case("gradient_checkpointing")
def _(bench: Bench) -> None:
    plain, saving = bench.run(lora=True), bench.run(lora=True, gradient_checkpointing=True)
    assert saving.losses == pytest.approx(plain.losses, rel=1e-5)

    def recomputes(ran: Ran) -> bool:
        return any(getattr(module, "gradient_checkpointing", False) for module in ran.engine.module.modules())

    assert (recomputes(plain), recomputes(saving)) == (False, True)


@case("torch_compile")
def _(bench: Bench) -> None:
    from torch._dynamo.utils import counters

    bench.model_dir = make_model(bench.root / "one-layer", hidden=16, layers=1)
    plain = bench.run(1, lora=True)
    counters.clear()
    compiled = bench.run(1, lora=True, torch_compile=True)
    assert counters["stats"]["unique_graphs"] > 0
    assert compiled.records[0]["grad_norm"] == pytest.approx(plain.records[0]["grad_norm"], rel=1e-3)
    assert compiled.losses == pytest.approx(plain.losses, rel=1e-4)
    bench.monkeypatch.setenv("PATH", "")
    with pytest.raises(ByzerError, match=r"torch_compile needs a C\+\+ compiler"):
        check_compiler()
    with pytest.raises(ByzerError, match="ZeRO stage 3 do not go together"):
        settings(deepspeed={"zero_optimization": {"stage": 3}}, torch_compile=True)


@case("group_by_length")
def _(bench: Bench) -> None:
    shards = shards_of(bench.root, examples([5, 50] * 40))

    def spread(grouped: bool) -> float:
        plan = GroupedRows(shards, Layout(rows=8, accumulation=1, world=1, seed=1), grouped=grouped)
        steps = [plan.step(index, 0) for index in range(plan.steps_per_epoch)]
        padded = sum(batch.input_ids.size for step in steps for batch in step.batches)
        assert sum(step.tokens for step in steps) == sum(shards.lengths), "each row once, either way"
        return padded / sum(shards.lengths)

    assert spread(True) < 1.1
    assert spread(False) > 1.4
    job = bench.job(group_by_length=False)
    recipe.find("sft").prepare(job)
    plain = recipe.find("sft").plan(job).step(0, 0).batches[0].input_ids
    assert plain.shape[0] == 8


@case("num_train_epochs", "epoches")
def _(bench: Bench) -> None:
    assert [bench.steps_of(num_train_epochs=n) for n in (1, 2.5)] == [2, 5]
    once = bench.steps_of("sfft", epoches=1, max_length=16)
    assert [bench.steps_of("sfft", **{name: 3}, max_length=16) for name in ("epoches", "num_train_epochs")] == [
        3 * once
    ] * 2


@case("steps_per_epoch")
def _(bench: Bench) -> None:
    assert bench.steps_of("sfft", epoches=2, steps_per_epoch=3) == 6


# -- what is written meanwhile ------------------------------------------------------------------------------------


def reported(bench: Bench, **keys: Any) -> tuple[list[str], list[tuple[int, float]]]:
    """What a run of seven steps prints, and the losses that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = bench.folder()
    bench.capsys.readouterr()
    with Report(settings(**keys), folder, 7) as report:
        for step in range(1, 8):
            report.add({"step": step, "loss": float(step), "learning_rate": 0.1, "tokens": 9})
    shown = EventAccumulator(str(folder.tensorboard)).Reload() if list(folder.tensorboard.rglob("events*")) else None
    losses = [(event.step, event.value) for event in shown.Scalars("loss")] if shown else []
    return bench.capsys.readouterr().out.splitlines(), losses


@case("logging_steps")
def _(bench: Bench) -> None:
    lines, losses = reported(bench, logging_steps=3)
    assert [line.split(":")[0] for line in lines] == ["step 3/7", "step 6/7", "step 7/7"]
    assert losses == [(3, 2.0), (6, 5.0), (7, 7.0)], "the mean since the last one"
    assert len(bench.run(5, logging_steps=2).records) == 5, "metrics.jsonl has every step"


@case("report_to")
def _(bench: Bench) -> None:
    assert len(reported(bench, report_to="tensorboard", logging_steps=1)[1]) == 7
    lines, losses = reported(bench, report_to="none", logging_steps=1)
    assert (len(lines), losses) == (7, [])
    with pytest.raises(ByzerError, match='report_to="wandb" is not allowed'):
        settings(report_to="wandb")


@case("save_strategy", "save_steps")
def _(bench: Bench) -> None:
    small = {"per_device_train_batch_size": 4}  # two steps an epoch
    assert bench.run(5, save_strategy="no", **small).saved == [5]
    assert bench.run(5, save_strategy="epoch", **small).saved == [2, 4, 5]
    assert bench.run(5, save_strategy="steps", save_steps=3, **small).saved == [3, 5]
    assert bench.run(5, save_steps=3, **small).saved == [3, 5]
    assert settings(save_strategy="steps").saving.steps == 500
    with pytest.raises(ByzerError, match='save_steps is without effect with save_strategy="epoch"'):
        settings(save_strategy="epoch", save_steps=3)


@case("save_total_limit")
def _(bench: Bench) -> None:
    folder = bench.folder()
    bench.run(4, folder=folder, save_steps=1, save_total_limit=2)
    assert [path.name for path in committed(folder)] == ["step-3", "step-4"]


@case("resume_from_checkpoint")
def _(bench: Bench) -> None:
    keys = {"per_device_train_batch_size": 2, "lora": True, "dropout": 0.2, "save_steps": 2, "save_total_limit": 9}
    whole = bench.run(6, **keys)
    earlier = bench.folder()
    bench.run(6, folder=earlier, should_stop=lambda step: step == 4, **keys)
    for place, begins in ((earlier.root, 5), (earlier.checkpoints / "step-2", 3)):
        ran = bench.run(6, resume_from_checkpoint=str(place), **keys)
        assert ran.records[0]["step"] == begins
        assert ran.digest() == whole.digest(), "as if it had not been another job"
    assert [path.name for path in committed(earlier)] == ["step-2", "step-4"], "it is left as it was"
    with pytest.raises(ByzerError, match="the checkpoint is at step 4, and this job ends at step 3"):
        bench.run(3, resume_from_checkpoint=str(earlier.root), **keys)
    with pytest.raises(ByzerError, match="there is no whole checkpoint at"):
        bench.run(6, resume_from_checkpoint=str(bench.root / "nowhere"), **keys)
    with pytest.raises(ByzerError, match="does not fit the model"):
        bench.run(6, resume_from_checkpoint=str(earlier.root), **{**keys, "lora": False})
    bench.monkeypatch.chdir(earlier.root.parent)
    kept = bench.job(resume_from_checkpoint=earlier.root.name).request.train
    assert _kept(kept)["sft"]["resume_from_checkpoint"] == str(earlier.root), "workers do not share the folder"


# -- evaluation ---------------------------------------------------------------------------------------------------


@case("eval_ratio")
def _(bench: Bench) -> None:
    for method in ("sft", "sfft"):
        found = recipe.find(method)
        job = bench.job(method, 20, eval_ratio=0.25)
        counts, whole = found.prepare(job), found.prepare(bench.job(method, 20))
        assert counts["held_out"] == 5
        examples_of = "examples" if method == "sft" else "documents"
        assert counts[examples_of] == whole[examples_of] - 5
        evaluated = found.held_out(job)
        assert evaluated is not None
        tokens = sum(evaluated.step(index, 0).tokens for index in range(evaluated.steps_per_epoch))
        assert whole["tokens"] - counts["tokens"] - tokens in (0, 1), (
            "none is lost; the first of a stream has no target"
        )
    with pytest.raises(ByzerError, match=r"nothing can be held out of 1 row "):
        recipe.find("sft").prepare(bench.job(rows=1, eval_ratio=0.5))


@case("eval_strategy", "eval_steps")
def _(bench: Bench) -> None:
    def evaluated(**keys: Any) -> list[int]:
        small = {"per_device_train_batch_size": 4, "eval_table": "t", "held_out": OTHERS}  # two steps an epoch
        return [record["step"] for record in bench.run(5, **small, **keys).records if "eval_loss" in record]

    assert evaluated(eval_strategy="no") == []
    assert evaluated(eval_strategy="steps", eval_steps=3) == evaluated(eval_steps=3) == [3, 5]
    assert evaluated(eval_strategy="steps", logging_steps=2) == [2, 4, 5]
    assert evaluated(eval_strategy="epoch") == evaluated(evaluation_strategy="epoch") == evaluated() == [2, 4, 5]
    with pytest.raises(ByzerError, match=r"sft\.eval_steps: there is no data to evaluate on"):
        settings(eval_steps=3)


def test_an_evaluation_is_the_mean_over_the_held_out_tokens_and_disturbs_nothing(bench: Bench) -> None:
    keys = {"lora": True, "dropout": 0.2}
    undisturbed = bench.run(3, **keys)
    ran = bench.run(3, eval_table="t", eval_steps=1, held_out=OTHERS, **keys)
    assert ran.digest() == undisturbed.digest()
    ran.engine.module.eval()
    assert ran.records[-1]["eval_loss"] == pytest.approx(plain_loss(ran.engine.module, OTHERS).item(), rel=1e-4)
    assert 0 <= ran.records[-1]["eval_accuracy"] <= 1


@case("per_device_eval_batch_size")
def _(bench: Bench) -> None:
    job = bench.job(rows=20, eval_ratio=0.5, per_device_eval_batch_size=3)
    recipe.find("sft").prepare(job)
    evaluated = recipe.find("sft").held_out(job)
    assert evaluated is not None
    assert [len(evaluated.step(i, 0).batches[0].input_ids) for i in range(evaluated.steps_per_epoch)].count(3) == 3
    losses = [
        bench.run(1, eval_table="t", held_out=OTHERS, per_device_eval_batch_size=size).records[0]["eval_loss"]
        for size in (1, 4)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5), "only memory and time depend on it"


def overfitted(bench: Bench, folder: JobFolder, **keys: Any) -> Ran:
    """Twelve steps on a few random rows: what is held out suffers."""
    keys = {"learning_rate": 3e-2, "eval_steps": 2, **keys}
    return bench.run(12, folder=folder, rows=ROWS[:2], eval_table="t", held_out=OTHERS, **keys)


@case("load_best_model_at_end", "metric_for_best_model")
def _(bench: Bench) -> None:
    for metric, best in (("eval_loss", min), ("loss", min), ("eval_accuracy", max), ("accuracy", max)):
        folder = bench.folder()
        ran = overfitted(bench, folder, load_best_model_at_end=True, metric_for_best_model=metric)
        name = "eval_" + metric.removeprefix("eval_")
        scores = {record["step"]: record[name] for record in ran.records if name in record}
        assert ran.saved == list(scores) == [2, 4, 6, 8, 10, 12]
        assert ran.outcome.model_step == next(step for step, score in scores.items() if score == best(scores.values()))
        assert {path.name for path in committed(folder)} == {f"step-{ran.outcome.model_step}", "step-12"}
        layout = Layout(rows=4, accumulation=1, world=1, seed=0)
        again = evaluate(ran.engine, GroupedRows(open_shards(folder.held_out), layout), Rank(0, 1))
        assert again[name] == pytest.approx(best(scores.values()), rel=1e-5), "the best weights are back"
    last = overfitted(bench, bench.folder())
    assert last.outcome.model_step == 12
    assert last.saved == [12]


def test_the_best_checkpoint_is_known_from_the_folder_alone(folder: JobFolder) -> None:
    """Whoever resumes has no memory."""
    for step, loss, accuracy in ((2, 3.0, 0.1), (4, 2.0, 0.3), (6, 2.0, 0.2), (8, 2.5, 0.3)):
        target = folder.checkpoints / f"step-{step}"
        target.mkdir()
        write_json(target / "manifest.json", {"step": step, "metrics": {"eval_loss": loss, "eval_accuracy": accuracy}})
    assert best_checkpoint(folder, "eval_loss") == folder.checkpoints / "step-4"
    assert best_checkpoint(folder, "eval_accuracy") == folder.checkpoints / "step-4"


# -- what only one of the methods has -----------------------------------------------------------------------------


@case("max_seq_length", "max_length")
def _(bench: Bench) -> None:
    for method, name in (("sft", "max_seq_length"), ("sfft", "max_length")):
        job = bench.job(method, 40, **{name: 48})
        recipe.find(method).prepare(job)
        plan = recipe.find(method).plan(job)
        widths = [plan.step(i, 0).batches[0].input_ids.shape[1] for i in range(plan.steps_per_epoch)]
        assert max(widths) == (47 if method == "sft" else 48)


@case("lora_rank", "lora_alpha", "lora_dropout")
def _(bench: Bench) -> None:
    model: Any = recipe.find("sft").model(bench.job(lora_rank=8, lora_alpha=24, lora_dropout=0.25))
    layer = model.get_base_model().model.layers[0].self_attn.q_proj
    assert layer.lora_A["default"].weight.shape[0] == 8
    assert layer.scaling["default"] == 3.0
    assert layer.lora_dropout["default"].p == 0.25


@case("tokenizer_path")
def _(bench: Bench) -> None:
    other = bench.root / "tokenizer"
    other.mkdir()
    for file in bench.model_dir.glob("tokenizer*"):
        (other / file.name).write_bytes(file.read_bytes())
    job = bench.job("sfft", tokenizer_path=str(other))
    assert recipe.find("sfft").tokenizer(job).name_or_path == str(other)


@case("setup_nccl_socket_ifname_by_ip")
def _(bench: Bench) -> None:
    """The worker then joins over this interface (see `engine.join_group`)."""
    assert bench.job("sfft", setup_nccl_socket_ifname_by_ip=True).request.train.sfft.setup_nccl_socket_ifname_by_ip
    assert interface_of("127.0.0.1")


# -- all of them --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("check", CASES.values(), ids=["-".join(names) for names in CASES])
def test_an_argument_has_its_effect(bench: Bench, check: Case) -> None:
    check(bench)


def test_no_declared_key_is_without_a_case() -> None:
    names = {key.name.partition(".")[2] for group in ("sft", "sfft") for key in keys_of(group)}
    assert sorted(names | {"num_train_epochs"}) == sorted(itertools.chain(*CASES))


def test_every_optimizer_that_may_be_written_is_built(bench: Bench) -> None:
    """Where there is no GPU; `device.check_device` has refused the others."""
    [optim] = [key for key in keys_of("sft") if key.name == "sft.optim"]
    for name in set(optim.values) - {"adamw_bnb_8bit", "paged_adamw_8bit"}:
        chosen: LoopSettings = settings(optim=name)
        assert isinstance(build_optimizer(load(bench.model_dir), chosen), torch.optim.Optimizer)
