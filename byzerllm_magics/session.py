"""Everything that a magic does, from a script: settings, tables, models, jobs and chats of one kernel."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cached_property
from numbers import Real
from typing import TYPE_CHECKING, Any

from byzerllm_adapters.errors import ByzerError

from .tables import Catalog

if TYPE_CHECKING:
    from .cluster.chat import Chats, Exchange
    from .cluster.connection import ClusterInfo
    from .cluster.deployments import Deployment
    from .cluster.jobs import Job
    from .estimate_card import EstimateCard
    from .evaluation import Evaluation
    from .model_actions import MadeModel
    from .parameters import SetupSettings
    from .script import Observer
    from .tables import Table

Lookup = Callable[[], Mapping[str, Any]]


class Session:
    """What one kernel knows. The truth of models and jobs is elsewhere: another session finds them by name.

    Args:
        namespace: Returns the variables whose DataFrames count as tables; none by default.

    Example:
        >>> session = Session()                                            # doctest: +SKIP
        >>> session.setup("sft", num_gpus=2)                               # doctest: +SKIP
        >>> job = session.run(pretrainedModelType="sft/llama", …)          # doctest: +SKIP
        >>> job.wait()                                                     # doctest: +SKIP
    """

    def __init__(self, namespace: Lookup = dict) -> None:
        self._namespace = namespace
        self._settings: SetupSettings | None = None
        self._last_model: str | None = None
        self.variables: dict[str, str] = {}
        self.tables = Catalog(namespace)
        self.bound: dict[str, Any] = {}
        self.beside: dict[str, Any] = {}

    def texts(self) -> dict[str, str]:
        """What ``${name}`` may stand for: `variables` first, then the namespace's texts and numbers."""
        simple = {
            name: str(value)
            for name, value in self._namespace().items()
            if isinstance(value, str | Real) and not name.startswith("_")
        }
        return simple | self.variables

    def secrets(self) -> set[str]:
        """Values that are never shown: of variables that are named like secrets."""
        from byzerllm_adapters.secret_values import is_secret

        return {value for name, value in self.texts().items() if is_secret(name)}

    def variable(self, name: str) -> Any:
        """Return what a name stands for in the namespace; None: nothing."""
        return self._namespace().get(name)

    # -- settings and cluster -----------------------------------------------------------------------------

    @property
    def settings(self) -> SetupSettings:
        """The settings that hold now."""
        from .parameters import SetupSettings

        if self._settings is None:
            self._settings = SetupSettings()
        return self._settings

    def configure(self, mode: str | None = None, settings: Mapping[str, object] | None = None) -> None:
        """Change settings without connecting; a mode resets all of them first.

        Raises:
            ParameterError: an unknown mode or setting, or a wrong value; nothing was changed.
        """
        from byzerllm_adapters.parameters import read

        from .parameters import SetupSettings, configure
        from .parameters.notes import tell_notes

        self._settings = configure(self.settings, mode, settings or {})
        tell_notes(read(SetupSettings, settings or {}))

    def setup(self, mode: str | None = None, **settings: object) -> ClusterInfo:
        """Change settings, connect to the cluster (start the embedded one) and describe it.

        Ray Serve starts behind this call.

        Raises:
            ByzerError: a bad setting, more GPUs than the cluster has, or no cluster.
        """
        self.configure(mode, settings)
        info = self.connect()
        gpus = info.total.get("GPU", 0)
        if gpus and self.settings.num_gpus > gpus:
            raise ByzerError(
                f"num_gpus={self.settings.num_gpus}, and the cluster has {gpus:g} GPUs",
                where=f"{info.free.get('GPU', 0):g} of them are free",
                do=f"ask for {gpus:g} or less, or add nodes",
            )
        return info

    def connect(self, *, start: bool = True) -> ClusterInfo:
        """Connect if this kernel is not connected yet; Serve starts in the background.

        Args:
            start: Whether to start the embedded cluster when it is not running.

        Raises:
            ByzerError: there is no cluster.
        """
        from .cluster import connection
        from .cluster.deployments import ensure_serve

        first = not connection.is_connected()
        info = connection.connect(self.settings.ray_address, start=start)
        if first:
            threading.Thread(target=ensure_serve, name="serve", daemon=True).start()
        return info

    def shutdown(self, *, force: bool = False) -> bool:
        """Disconnect, and end the embedded cluster; return whether there was one.

        Raises:
            ByzerError: a job is running on it, unless ``force``.
        """
        from .cluster import connection, jobs

        if not force:
            jobs.refuse_while_running()
        self.chats.clear()
        return connection.shutdown()

    # -- the LLM statement --------------------------------------------------------------------------------

    def run(
        self,
        parameters: Mapping[str, object] | None = None,
        *,
        wait: bool | None = None,
        progress: Callable[[str], None] | None = None,
        **more: object,
    ) -> Deployment | Job | MadeModel | Evaluation:
        """Do what ``action`` says and return what it made.

        ``infer`` deploys a model; ``finetune`` (or no action) starts a training job, which goes on by itself;
        ``merge`` and ``convert`` make a model folder, ``evaluate`` a table, and are waited for.

        Args:
            parameters: Keys of the language, e.g. ``{"sft.lora_rank": 8}``. ``inputTable`` may be a DataFrame or a
                Ray Dataset, and ``metric`` a function.
            wait: Whether to wait for a job's end; None: when ``detached`` is false.
            progress: Told what an action that is waited for is doing.
            **more: The same as keywords.

        Raises:
            ByzerError: bad input; nothing was started then. Whatever keeps the action from succeeding.
        """
        from .llm_statement import act, deploy, train
        from .parameters import route

        raw = {**(parameters or {}), **more}
        action = route(raw)
        if action == "infer":
            deployment = deploy(self, raw)
            self._last_model = deployment.name
            return deployment
        if action != "finetune":
            return act(self, action, raw, progress or (lambda _: None))
        job = train(self, raw)
        if wait or (wait is None and not job.detached):
            job.wait()
        return job

    def estimate(self, parameters: Mapping[str, object] | str | None = None, **more: object) -> EstimateCard:
        """Estimate what training will take: memory, disk, tokens, steps and time. Nothing is started.

        Args:
            parameters: Keys as `run` takes them, or the name of a job.
            **more: Keys as keywords.

        Raises:
            ByzerError: bad input, or no such job.
        """
        from .estimation import estimate, estimate_job

        if isinstance(parameters, str):
            return estimate_job(self, self.job(parameters))
        return estimate(self, {**(parameters or {}), **more})

    # -- tables -------------------------------------------------------------------------------------------

    def load(self, format: str, path: str, table: str, options: Mapping[str, str] | None = None) -> Table:
        """Read files into a table: ``session.load("csv", "data/*.csv", "rows", {"header": "true"})``.

        Raises:
            ByzerError: an unknown format or option, no such file, or one that cannot be read.
        """
        from .tables.load import load

        self.tables[table] = found = load(format, path, options or {})
        return found

    def select(
        self,
        sql: str,
        table: str | None = None,
        *,
        progress: Callable[[str], None] | None = None,
        first_line: int = 1,
    ) -> Table:
        """Run a query in Spark's dialect over tables and DataFrame variables; it may call deployed models.

        Args:
            sql: One query; ``${name}`` is replaced inside its texts.
            table: The name that the result gets.
            progress: Told how many calls of models were answered.
            first_line: The line of a cell that the query begins in, for what is printed of it.

        Raises:
            ByzerError: the query cannot be read or run, or a call of a model with ``on_error="fail"`` failed.
        """
        from .queries import run

        found = run(self, sql, progress or (lambda _: None), first_line=first_line)
        if table is not None:
            self.tables[table] = found
        return found

    def repartition(self, source: str, table: str, options: Mapping[str, str]) -> Table:
        """Cut a table into partitions: ``partitionNum``, ``partitionCols`` (names with commas between).

        Raises:
            ByzerError: an unknown table, column or option, or a number that is none.
        """
        from byzerllm_adapters.parameters import read

        from .parameters.repartition import RepartitionParameters
        from .tables.repartition import repartition

        wanted = read(RepartitionParameters, options)
        self.tables[table] = found = repartition(self.table(source), wanted.partition_num, wanted.columns)
        return found

    def script(self, text: str, observer: Observer | None = None) -> Any:
        """Run the statements of a script one after another; return the last result: a table, a job, a model, …

        Raises:
            ByzerError: the script cannot be read (nothing was run then), or a statement failed.
        """
        from .script import Silent, run_script

        return run_script(self, text, observer or Silent())

    def table(self, data: object) -> Table:
        """Return a table: one of the session's or a DataFrame variable by its name, or a DataFrame itself.

        Raises:
            ByzerError: there is none of that name (the nearest name), or it is not a table.
        """
        from .tables.catalog import table_of

        return self.tables.table(data) if isinstance(data, str) else table_of(data)

    def rows(self, data: object) -> Any:
        """Return rows to train on: a table, as `table` finds it, or a Ray Dataset itself, by its name or as it is.

        Raises:
            ByzerError: as of `table`.
        """
        from byzerllm_trainers.corpus import is_dataset

        named = self.tables.get(data, self._namespace().get(data)) if isinstance(data, str) else data
        return named if is_dataset(named) else self.table(data)

    def table_names(self) -> list[str]:
        """Names of all tables and DataFrame variables."""
        return self.tables.names()

    def columns(self, name: str) -> list[str]:
        """Return a table's columns as far as they are known without work; none of a job that runs or a name unknown."""
        return self.tables.columns(name)

    # -- models and chats ---------------------------------------------------------------------------------

    def models(self) -> list[Deployment]:
        """Deployed models, all owners', the last deployed first."""
        from .cluster import deployments

        self.connect(start=False)
        return deployments.listed()

    def own_models(self) -> list[str]:
        """Names of one's own deployed models; none without a cluster, and none is started."""
        from .cluster import connection, deployments

        if not connection.runs(self.settings.ray_address):
            return []
        self.connect(start=False)
        return [model.name for model in deployments.listed(self.settings.owner)]

    def model(self, name: str | None = None) -> Deployment:
        """Return one's own deployed model: by name (or ``OWNER/NAME``), else the last one deployed.

        Raises:
            ByzerError: there is none.
        """
        from .cluster import deployments

        self.connect(start=False)
        name = name or self._last_model
        return deployments.get(name, self.settings.owner) if name else deployments.last(self.settings.owner)

    def undeploy(self, name: str) -> None:
        """Delete a deployed model and free what it holds.

        Raises:
            ByzerError: there is none of that name.
        """
        from .cluster import deployments

        self.connect(start=False)
        deployments.undeploy(name, self.settings.owner)
        self.chats.forget(name)
        if self._last_model == name:
            self._last_model = None

    def pause(self, name: str, job: str) -> None:
        """Delete a deployed model until a job has ended, which then brings it back.

        Args:
            name: The model's.
            job: The name of the job that waits for what the model holds.

        Raises:
            ByzerError: there is no such model or job, or the job has ended.
        """
        from .cluster.pausing import pause

        pause(self.model(name), self.job(job))

    @cached_property
    def chats(self) -> Chats:
        """What was said to each model in this kernel."""
        from .cluster.chat import Chats

        return Chats()

    def chat(
        self,
        text: str,
        *,
        model: str | None = None,
        new: bool = False,
        system: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
    ) -> Exchange:
        """Ask a model; iterate over what is returned for the pieces of the answer.

        Args:
            text: The question, taken literally.
            model: A deployed model; the last one deployed by default.
            new: Forget the conversation so far.
            system: A system message; begins a new conversation.
            temperature: 0 takes the likeliest token always; None: the adapter's default.
            max_tokens: The most tokens of the answer.

        Raises:
            ByzerError: no such model; while iterating, whatever keeps it from answering.
        """
        asked = self.model(model)
        return self.chats.ask(asked, text, new=new, system=system, temperature=temperature, max_tokens=max_tokens)

    # -- jobs ---------------------------------------------------------------------------------------------

    def jobs(self) -> list[Job]:
        """All jobs that this user started, the newest first; needs no cluster."""
        from .cluster import jobs

        return jobs.listed()

    def job(self, name: str) -> Job:
        """Return a job by name or folder; needs no cluster.

        Raises:
            ByzerError: none is known.
        """
        from .cluster import jobs

        return jobs.find(name)
