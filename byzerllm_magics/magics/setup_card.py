"""The answer of ``setup`` and ``status``: where Ray is, what is free, which settings differ from the default."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..cluster.connection import ClusterInfo
    from ..cluster.deployments import Deployment
    from ..cluster.jobs import Job
    from ..parameters import SetupSettings

_ROW = '<tr><td style="text-align:left;opacity:.7;padding:1px 12px 1px 0;white-space:nowrap">{}</td>'
_ROW += '<td style="text-align:left;padding:1px 0">{}</td></tr>'


class SetupCard:
    """A small table with an HTML and a plain form.

    Args:
        info: The cluster.
        settings: The session's settings.
        models: Deployed models to list, if any.
        jobs: Running jobs to list, if any.
    """

    def __init__(
        self,
        info: ClusterInfo,
        settings: SetupSettings,
        models: list[Deployment] | None = None,
        jobs: list[Job] | None = None,
    ) -> None:
        self.rows = [("Ray", _place(info)), ("free", _free(info)), ("workers", _workers(info, settings))]
        if info.dashboard:
            self.rows.append(("dashboard", _dashboard(info)))
        self.rows.append(("settings", _differences(settings)))
        if models is not None:
            named = ", ".join(
                f"{m.owner}/{m.name} ({m.status.lower()}, {m.replicas} replica{'s' * (m.replicas != 1)})"
                for m in models
            )
            self.rows.append(("models", named or "none deployed"))
        if jobs is not None:
            self.rows.append(("jobs", ", ".join(f"{j.name} ({j.state})" for j in jobs) or "none running"))

    def __repr__(self) -> str:
        width = max(len(name) for name, _ in self.rows)
        return "\n".join(f"{name.ljust(width)}  {text}" for name, text in self.rows)

    def _repr_html_(self) -> str:
        body = "".join(_ROW.format(name, html.escape(text)) for name, text in self.rows)
        return f'<table style="border-collapse:collapse;margin:2px 0">{body}</table>'


def _place(info: ClusterInfo) -> str:
    kind = "embedded cluster on this machine; it outlives the kernel" if info.embedded else "cluster"
    return f"{info.address} · {kind} · {info.nodes} node{'s' * (info.nodes != 1)}"


def _free(info: ClusterInfo) -> str:
    parts = [f"{info.free.get('CPU', 0):g} of {info.total.get('CPU', 0):g} CPUs"]
    if info.total.get("GPU"):
        parts.append(f"{info.free.get('GPU', 0):g} of {info.total['GPU']:g} GPUs")
    gib = [info.free.get("memory", 0) / 2**30, info.total.get("memory", 0) / 2**30]
    parts.append(f"{gib[0]:.1f} of {gib[1]:.1f} GiB")
    return " · ".join(parts)


def _workers(info: ClusterInfo, settings: SetupSettings) -> str:
    if info.total.get("GPU"):
        return f"num_gpus={settings.num_gpus}: GPUs"
    return f"num_gpus={settings.num_gpus}: no GPU in this cluster, so it counts CPU workers (gloo)"


def _dashboard(info: ClusterInfo) -> str:
    from ..cluster.embedded import token_file
    from ..paths import shown

    port = info.dashboard.rpartition(":")[2]
    return (
        f"{info.dashboard} · it asks for the token in {shown(token_file())} · "
        f"from another machine: ssh -L {port}:{info.dashboard.removeprefix('http://')} THIS_MACHINE"
    )


def _differences(settings: SetupSettings) -> str:
    defaults = type(settings)()
    ours, theirs = settings.model_dump(by_alias=True), defaults.model_dump(by_alias=True)
    return ", ".join(f"{key}={value}" for key, value in ours.items() if value != theirs[key]) or "all default"
