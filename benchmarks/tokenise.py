"""`tokenise_*`: preparing a job's data, from a table on disk to packed token shards on disk.

Speed: tokens per second of our preparation over those of Hugging Face datasets' batched `map` on the same Parquet file
with the same tokenizer, to its Arrow file. Pretraining: texts with the end token, joined and cut into windows of 1,024.
Fine-tuning: conversations to ids and the mask of the answers' tokens, cut at 1,024. The peer's side is what its
documentation shows (`add_special_tokens=False`, `return_assistant_tokens_mask`, `group_texts`), in one process with
the tokenizer's threads, as ours; a second figure is over one process a core. Both begin with libraries imported and the
tokenizer loaded, without caches. Fair, because both tokenise with the same Rust library and every token is written; the
numbers of tokens are compared.

Linearity: seconds a row at 10^7 short texts over those at 10^4, in a task on the embedded cluster as a job does it: up
to 10^5 rows in one process, more by Ray tasks on two cores. Both without the imports of the first process.

Memory: meanwhile, at 10^7 rows, the resident memory of everything together: this process, in place of a kernel (what
makes the model and the rows has ended), and all of the cluster's. Proportional set sizes, so that shared pages count
once, are sampled twice a second.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from measure import Figure, interleaved, ratio_of_medians
from tiny_model import tiny_model

if TYPE_CHECKING:
    import pyarrow as pa

    from byzerllm_trainers.recipe import Job

T = TypeVar("T")

SMOKE = {"documents": 200, "conversations": 200, "rounds": 1, "sizes": (1_000, 10_000)}
CORES = 2
WINDOW = 1024
CHUNK = 1_000_000
SAMPLE_SECONDS = 0.5


def measure(
    work: Path,
    documents: int = 40_000,
    conversations: int = 40_000,
    rounds: int = 5,
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000, 10_000_000),
) -> list[Figure]:
    """About ten minutes, and 1.5 GB of disk."""
    model = _in_a_new_process(_model, work)
    tables = {
        "sfft": _in_a_new_process(_documents, work, documents),
        "sft": _in_a_new_process(_conversations, work, conversations),
    }
    return [
        *chain.from_iterable(_speed(work, model, method, rows, rounds) for method, rows in tables.items()),
        *_large(work, model, sizes),
    ]


# -- speed ------------------------------------------------------------------------------------------------


def _speed(work: Path, model: Path, method: str, rows: Path, rounds: int) -> list[Figure]:
    sides = {
        "ours": partial(_in_a_new_process, _ours, work, model, method, rows),
        "map": partial(_in_a_new_process, _map, work, model, method, rows, 1),
        f"map_{CORES}_processes": partial(_in_a_new_process, _map, work, model, method, rows, CORES),
    }
    measured = interleaved(sides, rounds)
    assert len({tokens for results in measured.values() for _, tokens in results}) == 1, "not the same tokens"
    speeds = {side: [tokens / seconds for seconds, tokens in results] for side, results in measured.items()}
    raw = {f"{side}_tokens_per_s": values for side, values in speeds.items()}
    ours = speeds.pop("ours")
    goals = {"map": 1.0}
    return [
        Figure(f"tokenise_{method}_over_{side}", ratio_of_medians(ours, theirs), "ratio", raw, at_least=goals.get(side))
        for side, theirs in speeds.items()
    ]


def _in_a_new_process(function: Callable[..., T], *arguments: object) -> T:
    """Call a function whose libraries and memory are not to stay."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def _ours(work: Path, model: Path, method: str, rows: Path) -> tuple[float, int]:
    """Return seconds and tokens."""
    from byzerllm_trainers import recipe

    job = _job(work, model, method, rows)
    recipe.find(method).tokenizer(job)  # imports
    begun = time.perf_counter()
    counts = recipe.find(method).prepare(job)
    return time.perf_counter() - begun, int(counts["tokens"])


def _map(work: Path, model: Path, method: str, rows: Path, processes: int) -> tuple[float, int]:
    """Return seconds and tokens."""
    import datasets
    from transformers import AutoTokenizer

    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(model)
    cache = _new_folder(work / "map")
    table = datasets.load_dataset("parquet", data_files=str(rows), split="train", cache_dir=str(cache))
    run = {"batched": True, "num_proc": processes if processes > 1 else None, "remove_columns": table.column_names}
    begun = time.perf_counter()
    if method == "sft":
        made = table.map(partial(_templated, tokenizer), **run)
    else:
        made = table.map(partial(_with_end, tokenizer), **run)
        made = made.map(_grouped, batched=True, num_proc=run["num_proc"])
    seconds = time.perf_counter() - begun
    return seconds, sum(len(ids) for batch in made.with_format("arrow").iter(1000) for ids in batch["input_ids"])


def _with_end(tokenizer: Any, batch: dict[str, list[str]]) -> dict[str, list[list[int]]]:
    found = tokenizer(batch["text"], add_special_tokens=False, return_attention_mask=False)["input_ids"]
    return {"input_ids": [[*ids, tokenizer.eos_token_id] for ids in found]}


def _grouped(batch: dict[str, list[list[int]]]) -> dict[str, list[list[int]]]:
    """Join and cut, as transformers' run_clm.py does it; the last, short window is kept, as ours is."""
    joined = list(chain.from_iterable(batch["input_ids"]))
    return {"input_ids": [joined[begin : begin + WINDOW] for begin in range(0, len(joined), WINDOW)]}


def _templated(tokenizer: Any, batch: dict[str, list[str]]) -> dict[str, Any]:
    rows = zip(batch["instruction"], batch["input"], batch["output"], strict=True)
    messages = [
        [{"role": "user", "content": f"{instruction}\n{more}"}, {"role": "assistant", "content": answer}]
        for instruction, more, answer in rows
    ]
    found = tokenizer.apply_chat_template(
        messages, return_dict=True, return_assistant_tokens_mask=True, truncation=True, max_length=WINDOW
    )
    return {"input_ids": found["input_ids"], "assistant_masks": found["assistant_masks"]}


# -- many rows --------------------------------------------------------------------------------------------


def _large(work: Path, model: Path, sizes: tuple[int, ...]) -> list[Figure]:
    import ray

    from byzerllm_magics.cluster.connection import connect

    connect(num_cpus=CORES)
    seconds, peaks = {}, {}
    for size in sizes:
        job = _job(work, model, "sfft", _in_a_new_process(_short_texts, work, size))
        with _peak_memory() as sampled:
            begun_and_done = ray.remote(num_cpus=0)(_prepare).remote(str(job.folder.root))
            seconds[size] = ray.get(begun_and_done)
        peaks[size] = max(sampled)
    largest, smallest = max(sizes), min(sizes)
    ratio = (seconds[largest] / largest) / (seconds[smallest] / smallest)
    raw = {f"{size}_rows_s": [value] for size, value in seconds.items()}
    memory = {f"{size}_rows_gib": [value] for size, value in peaks.items()}
    return [
        Figure("tokenise_linearity", ratio, "ratio", raw, at_most=1.2),
        Figure("tokenise_memory", peaks[largest], "GiB", memory, at_most=2.0),
    ]


def _prepare(root: str) -> float:
    """What the coordinator's task does; return its seconds."""
    from byzerllm_trainers import recipe
    from byzerllm_trainers.coordinator import prepare
    from byzerllm_trainers.job_folder import JobFolder
    from byzerllm_trainers.job_request import read_request

    folder = JobFolder(root)
    attempt = folder.take_lease("benchmark")
    recipe.find("sfft").tokenizer(recipe.Job(folder, read_request(folder)))  # imports
    begun = time.perf_counter()
    prepare(root, attempt)
    return time.perf_counter() - begun


@contextmanager
def _peak_memory() -> Iterator[list[float]]:
    """Sample the memory of this process and the embedded cluster's, in GiB, while the block runs."""
    samples, ended = [_memory()], threading.Event()

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            samples.append(_memory())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        ended.set()
        thread.join()


def _memory() -> float:
    import psutil

    from byzerllm_magics.cluster import embedded

    cluster = embedded.find()
    assert cluster is not None
    found = {os.getpid()}
    for process in embedded.daemons(cluster.folder, cluster.address):
        try:
            found |= {process.pid, *(child.pid for child in process.children(recursive=True))}
        except psutil.NoSuchProcess:
            continue
    return sum(map(_pss, found)) / 2**30


def _pss(pid: int) -> int:
    """Return a process's proportional set size in bytes; 0 once it has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


# -- rows -------------------------------------------------------------------------------------------------


def _job(work: Path, model: Path, method: str, rows: Path) -> Job:
    """Make a job of which only the data is prepared, below a folder of its own: nothing is found again."""
    from byzerllm_trainers.corpus import ROWS_FILE
    from byzerllm_trainers.job_folder import JobFolder
    from byzerllm_trainers.job_request import JobRequest, read_request
    from byzerllm_trainers.recipe import Job

    limit = {"sft": "sft.max_seq_length", "sfft": "sfft.max_length"}[method]
    parameters = {"pretrainedModelType": f"{method}/llama", "localModelDir": str(model), limit: WINDOW}
    request = JobRequest(parameters, "bench", CORES, gpu=False, cpus_per_worker=1, threads_per_worker=1)
    folder = JobFolder(_new_folder(work / "jobs") / "job")
    folder.create(request.as_record())
    os.link(rows, folder.data / ROWS_FILE)
    return Job(folder, read_request(folder))


def _new_folder(parent: Path) -> Path:
    folder = parent / f"{time.time_ns()}"
    folder.mkdir(parents=True)
    return folder


def _documents(work: Path, number: int) -> Path:
    """Write paragraphs of the standard library's source as texts, over and over."""
    import pyarrow as pa

    sources = [file.read_text() for file in sorted(tiny_model(work).text.iterdir())]
    paragraphs = [part for source in sources for part in source.split("\n\n") if part.strip()]
    return _written(work / "documents.parquet", pa.table({"text": _repeated(paragraphs, number)}))


def _conversations(work: Path, number: int) -> Path:
    import pyarrow.json as arrow_json

    rows = arrow_json.read_json(tiny_model(work).rows / "rows.jsonl")
    return _written(work / "conversations.parquet", rows.take(_repeated(range(len(rows)), number)))


def _repeated(values: Any, number: int) -> list[Any]:
    return [values[index % len(values)] for index in range(number)]


def _model(work: Path) -> Path:
    return tiny_model(work).model


def _short_texts(work: Path, number: int) -> Path:
    """Write texts of about ten tokens, a million at a time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    path = work / f"short-{number}.parquet"
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for begin in range(0, number, CHUNK):
            ids = pa.array(np.arange(begin, min(begin + CHUNK, number))).cast(pa.string())
            texts = pc.binary_join_element_wise("return self.value", ids, "if not done else", ids, " ")
            writer.write_table(pa.table({"text": texts}), row_group_size=1 << 15)
    return path


def _written(path: Path, table: pa.Table) -> Path:
    import pyarrow.parquet as pq

    pq.write_table(table, path, row_group_size=1 << 15)
    return path
