"""What a run may use of its machine, as BIDS Apps are told."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

import tyro

from seran import machine
from seran.engines import Engine, refuse_threads
from seran.errors import BadInput
from seran.job.cluster import Cluster
from seran.machine import cpus

LEAST = 600  # MB that a process needs at least
SPARE = 50_000_000  # bytes with which a process can start the thread that tells of the work


@dataclass(frozen=True)
class Limits:
    """What BIDS Apps are told of the machine.

    Attributes:
        n_cpus: CPU threads of all processes together; of one process, and of a job of --cluster sbatch, the
            same as --threads.
        mem_mb: MB (10^6 bytes) of memory that all processes together may take (Linux); a scan that needs more
            fails, and the others go on. Arrays of 128 MB or more lie on disk and do not count.
        work_dir: folder for arrays of 128 MB or more while a scan is sharpened; made if it is not there,
            empty afterwards. Without it they lie beside the result.
        skip_bids_validation: accepted as by other BIDS Apps, and has no effect: seran runs no validator
            either way, and names what it cannot use.
    """

    n_cpus: Annotated[int | None, tyro.conf.arg(name="n-cpus", aliases=("--nprocs", "--nthreads")), "N"] = (
        None
    )
    mem_mb: Annotated[int | None, "MB"] = None
    work_dir: Annotated[Path | None, tyro.conf.arg(name="work-dir", aliases=("-w",)), "FOLDER"] = None
    skip_bids_validation: bool = False

    def __post_init__(self) -> None:
        if self.n_cpus is not None and self.n_cpus < 1:
            raise BadInput(f"--n-cpus {self.n_cpus}: must be 1 or more")

    def shared(self, engine: Engine, where: Cluster) -> tuple[Engine, Cluster]:
        """The engine of each process, and how many of these there are, so that they keep to the limits."""
        far = [name for name in ("n_cpus", "mem_mb", "work_dir") if getattr(self, name) is not None]
        if far and where.cluster not in ("", "local", "sbatch"):
            named = far[0].replace("_", "-")
            raise BadInput(f"--{named}: is for this machine, not --cluster {where.cluster}; leave it out")
        if self.n_cpus is not None:
            refuse_threads(self.n_cpus)
            if engine.threads:
                raise BadInput("--n-cpus and --threads: give only one of them")
            processes = 1
            if where.cluster == "local":
                processes = min(where.workers or cpus(), self.n_cpus)
                where = replace(where, workers=processes)
            engine = replace(engine, threads=self.n_cpus // processes)
        if self.mem_mb is not None:
            if not sys.platform.startswith("linux") and where.cluster != "sbatch":
                raise BadInput("--mem-mb: only Linux bounds the memory of a process; leave it out")
            if self.mem_mb < (least := LEAST * self._processes(where)):
                raise BadInput(f"--mem-mb {self.mem_mb}: must be {least} or more, {LEAST} for each process")
        return engine, where

    @staticmethod
    def _processes(where: Cluster) -> int:
        """This one, and the workers; of a job array those of one job."""
        return 1 + (where.workers or cpus()) * (where.cluster == "local")

    @contextmanager
    def bounded(self, where: Cluster) -> Iterator[None]:
        """Within, this process, and those that it starts, take no more than their share of the memory."""
        if self.mem_mb is None or where.cluster == "sbatch":
            yield
            return
        processes = self._processes(where)
        share = self.mem_mb * 10**6 // processes
        machine.prepare()
        if (least := machine.held() + SPARE) > share:
            told = f"each process takes {machine.amount(least)} before it reads a scan"
            raise BadInput(
                f"--mem-mb {self.mem_mb}: {told}; give {machine.rounded(processes * least)} or more"
            )
        with machine.bounded(share):
            yield

    def refuse_work(self, raw: Path) -> None:
        """Make the folder for arrays; `BadInput` if it lies in the raw data or cannot be written to."""
        if self.work_dir is None:
            return
        if self.work_dir.resolve().is_relative_to(raw.resolve()):
            raise BadInput(f"--work-dir {self.work_dir}: lies among the raw data; name another folder")
        try:
            self.work_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInput(f"--work-dir {self.work_dir}: {error.strerror}; name another folder") from error
        if not os.access(self.work_dir, os.W_OK):
            raise BadInput(f"--work-dir {self.work_dir}: is not writable; name another folder")
