"""Many scans on many processes or machines, by Dask; or a job array for SLURM without Dask."""

import argparse
import logging
import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from seran.errors import BadInput
from seran.machine import allowed, cpus, needed, prepare, told
from seran.progress import log, plain

ANSWER = "10s"  # for which a worker of this machine, which may have died with what it had made, is asked
OF_A_JOB = {
    "cluster": ("--cluster",),
    "workers": ("--workers",),
    "cpus": ("--threads", "--n-cpus", "--n_cpus", "--nprocs", "--nthreads"),
    "memory": ("--mem-mb", "--mem_mb"),
    "work": ("--work-dir", "--work_dir", "-w"),
}
"""Options that a script for a job array has in a way of its own."""
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Cluster:
    """Where several scans are sharpened.

    Attributes:
        cluster: ``local``: processes on this machine; ``slurm``: jobs that dask-jobqueue starts, as its own
            configuration says; the address of a scheduler (``tcp://host:8786``); ``sbatch``: nothing is run,
            a script for a job array is printed, with CPUs and memory as asked for. Without it this process,
            one scan after the other.
        workers: processes or jobs; 0: one per CPU (``local``), those that are there (an address), or 8 jobs.
        tries: how often a scan is begun when its worker dies or cannot write, before it counts as failed.
        part: ``I/N``: only every N-th scan, beginning with the I-th; for job arrays.
        dry_run: nothing is sharpened or written, and no scan is opened: of each it is listed what would be
            made of it and where, that this is there already, or why nothing can be made.
    """

    cluster: str = ""
    workers: int = 0
    tries: int = 3
    part: Annotated[str, "I/N"] = ""
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.cluster and not re.fullmatch(r"local|slurm|sbatch|(tcp|tls)://[\w.:\[\]-]+", self.cluster):
            raise BadInput(
                f"--cluster {self.cluster}: expected local, slurm, sbatch or an address like tcp://host:8786"
            )
        if self.workers < 0:
            raise BadInput(f"--workers {self.workers}: must be 0 or more")
        if self.tries < 1:
            raise BadInput(f"--tries {self.tries}: must be 1 or more")
        self.share()
        if self.part and self.cluster == "sbatch":
            raise BadInput("--part: the script that --cluster sbatch prints states it; leave it out")
        if self.dry_run and self.cluster == "sbatch":
            raise BadInput("--dry-run: --cluster sbatch only prints a script; leave one out")

    @property
    def runs(self) -> bool:
        """Whether anything is sharpened, and not merely told."""
        return self.cluster != "sbatch" and not self.dry_run

    def share(self) -> tuple[int, int]:
        """I and N of `part`, or `BadInput` if it is not like 3/16."""
        matched = re.fullmatch(r"(\d+)/(\d+)", self.part or "1/1")
        if matched is None or not 1 <= int(matched[1]) <= int(matched[2]):
            raise BadInput(f"--part {self.part}: must be like 3/16, from 1/16 to 16/16")
        return int(matched[1]), int(matched[2])

    def script(self, words: Sequence[str], count: int, resume: bool = False) -> str:
        """A batch script for SLURM: a job array whose every member does its part of so many scans.

        Args:
            words: of the command that asks for it. CPUs, memory and scratch folder become those of a job.
            count: of scans.
            resume: whether ``--resume`` is added.
        """
        if spelt := [word for word in words if plain(word) != word]:
            raise BadInput(f"{spelt[0]}: expected a name that a script can hold; rename it")
        if "--" in words:
            raise BadInput("--: a script has its options last; leave it out")
        asking = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        for name, flags in OF_A_JOB.items():
            asking.add_argument(*flags, dest=name)
        asked, left = asking.parse_known_args(words)
        command = shlex.join(["seran", *left, *["--resume"] * resume])
        if asked.memory:
            command += f" --mem-mb {asked.memory}"  # so that a scan that needs more is named
        if asked.work:
            command += f" --work-dir {_quoted(asked.work)}"
        text, jobs = Path(__file__).with_name("array.sh").read_text(), max(1, min(self.workers or 8, count))
        memory = f"{int(asked.memory)}M" if asked.memory else "4G"
        cpus = int(asked.cpus or 0) or 4
        return text.format(command=command, count=count, jobs=jobs, cpus=cpus, memory=memory)


def _quoted(folder: str) -> str:
    """A folder for the shell; a variable in front (``$TMPDIR``) stands for its value where the job runs."""
    held = re.match(r"\$(\w+|\{\w+\})(?=/|$)", folder)
    if held is None:
        return shlex.quote(folder)
    rest = folder[held.end() :]
    return f'"{held[0]}"' + (shlex.quote(rest) if rest else "")


def spread(
    work: Callable[[T], R],
    items: Sequence[T],
    where: Cluster,
    failed: Callable[[T, str], R],
    named: Callable[[T], object] = str,
) -> Iterator[R]:
    """Results of ``work`` on every item, as they come; `BadInput` without Dask, or without a scheduler.

    Args:
        work: what a worker does; must be picklable, and may be begun again after it was cut off.
        items: what to do it to.
        where: the cluster.
        failed: the result of an item that could not be done, and why.
        named: what an item is called, to tell whose worker died.
    """
    try:
        import dask
        import distributed
    except ModuleNotFoundError as error:
        raise needed("--cluster", error) from error
    for name in ("distributed", "distributed.client"):  # what matters is said by what it raises
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = {
        "distributed.scheduler.allowed-failures": where.tries - 1,
        "distributed.scheduler.worker-saturation": 1.0,  # who waits at a dead worker is blamed
        "distributed.comm.retry.count": 3,
        "distributed.worker.daemon": False,
        "distributed.worker.preload": [__name__],  # see `dask_setup`
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    if where.cluster == "local":
        settings["distributed.comm.timeouts.connect"] = ANSWER
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(settings))
        client = stack.enter_context(_client(where, stack))
        of: dict[str, T] = {}
        _watch(client, lambda key: named(of[key]) if key in of else None, where.tries)
        stack.callback(_unwatch, client)
        futures = client.map(work, items, retries=where.tries - 1, pure=False, batch_size=1000)
        of |= {future.key: item for future, item in zip(futures, items, strict=True)}
        for future in distributed.as_completed(futures):
            item = of.pop(future.key)
            try:
                yield future.result()
            except distributed.scheduler.KilledWorker:
                yield failed(item, f"its worker died {where.tries} times; out of memory, or killed?")
            except Exception as error:
                if future.status != "error":  # the work raised nothing; what it gave cannot be fetched
                    again = "start one and give the same command, upscale with --resume, to continue"
                    raise BadInput(f"{where.cluster}: the scheduler is lost; {again}") from error
                cause = error.__cause__ or error
                if isinstance(cause, ImportError):
                    there = "where the scheduler or a worker runs; install the same seran there"
                    raise BadInput(f"{where.cluster}: {cause} {there}") from error
                yield failed(item, told(error))


def _watch(client: Any, named: Callable[[str], object], tries: int) -> None:  # noqa: ANN401
    """Tell of every worker that dies, and of what it was at work on."""
    died, here = Counter[str](), copy_context()

    def heard(event: tuple[float, Mapping[str, Any]]) -> None:  # in a thread of Dask's
        told = event[1]
        if told.get("action") != "remove-worker" or told.get("expected"):
            return
        for key in told["processing-tasks"]:
            if (item := named(key)) is not None:
                died[key] += 1
                text = "%s: its worker died, try %d of %d; out of memory, or killed?"
                here.copy().run(log.warning, text, item, died[key], tries)

    client.subscribe_topic("all", heard)


def _unwatch(client: Any) -> None:  # noqa: ANN401
    """Ask for no more events: a scheduler that sends one to a client that is gone calls that critical."""
    from distributed.client import ClosedClientError

    with suppress(ClosedClientError):  # the scheduler is lost
        client.unsubscribe_topic("all")


def dask_setup(worker: Any) -> None:  # noqa: ANN401
    """Close the web server that Dask opens for every worker: this is called in each of ours."""
    worker.http_server.stop()
    if allowed() < math.inf:
        prepare()  # while there is memory


def _client(where: Cluster, stack: ExitStack) -> Any:  # noqa: ANN401
    """A client of the cluster; to one of ``local`` nobody else speaks, for want of its certificate."""
    import dask
    import distributed

    unseen = {"dashboard": False, "dashboard_address": "127.0.0.1:0"}
    if where.cluster == "local":
        try:
            security = distributed.Security.temporary()
        except ImportError as error:
            raise needed("--cluster local", ModuleNotFoundError(name="cryptography")) from error
        size = {"n_workers": where.workers or cpus(), "threads_per_worker": 1, "memory_limit": 0}
        private = {"host": "127.0.0.1", "protocol": "tls://", "security": security}
        local = distributed.LocalCluster(**size, **private, dashboard_address=None, scheduler_kwargs=unseen)
        stack.enter_context(local).scheduler.http_server.stop()
        return distributed.Client(local)
    if where.cluster == "slurm":
        try:
            from dask_jobqueue import SLURMCluster
        except ModuleNotFoundError as error:
            raise needed("--cluster slurm", error) from error
        if None in (dask.config.get(f"jobqueue.slurm.{name}", None) for name in ("cores", "memory")):
            lacks = "~/.config/dask/jobqueue.yaml states no cores and memory for slurm"
            raise BadInput(f"--cluster slurm: {lacks}; docs/cluster.md has an example")
        jobs = stack.enter_context(SLURMCluster(scheduler_options=unseen))
        jobs.scheduler.http_server.stop()
        jobs.scale(jobs=where.workers or 8)
        return distributed.Client(jobs)
    try:
        return distributed.Client(where.cluster, timeout="10s")
    except (OSError, TimeoutError) as error:
        raise BadInput(f"{where.cluster}: no scheduler answers there ({error}); start one first") from error
