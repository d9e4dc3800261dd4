"""Many scans: one after the other, by one network; a bad one is named and counted, and stops no other."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from seran import infer, job
from seran.errors import BadInput, Incomplete
from seran.job import Options
from seran.methods import Engine


@dataclass(frozen=True)
class Task:
    """A scan, where its result goes, and what gives that which the record states besides."""

    source: Path
    out: Path
    facts: Callable[[], dict[str, Any]] = dict


@contextmanager
def bars() -> Iterator[job.Watch]:
    """A progress bar for each volume, on a terminal; nothing in a log."""
    shown: list[tqdm] = []

    def watch(name: str, total: int) -> infer.Progress:
        while shown:
            shown.pop().close()
        shown.append(tqdm(total=total, unit="slice", desc=name, leave=False, disable=None))
        return shown[-1].update

    try:
        yield watch
    finally:
        while shown:
            shown.pop().close()


def run(
    tasks: Sequence[Task], options: Options, engine: Engine, force: bool = False, resume: bool = False
) -> str:
    """Sharpen every scan; a line to stderr for each.

    Args:
        tasks: what, and where to; folders are made.
        options: how.
        engine: how the network is run.
        force: replace existing results.
        resume: pass over results that are there, made from the same scan by the same weights, options and
            version; replace others.

    Returns:
        A summary.

    Raises:
        Incomplete: with the summary, if some could not be sharpened.
        OSError: if a result cannot be written.
    """
    made, there, failed = 0, 0, 0
    with bars() as watch:
        for i, task in enumerate(tasks):
            try:
                if resume and job.is_done(task.out, job.key(task.source, options)):
                    there += 1
                    continue
                task.out.parent.mkdir(parents=True, exist_ok=True)
                record = job.run(task.source, task.out, options, engine, watch, force or resume, task.facts())
                made += 1
                text = job.told(record, task.out)
            except BadInput as error:
                failed += 1
                text = f"failed: {' '.join(str(error).split())}"
            sys.stderr.write(f"[{i + 1}/{len(tasks)}] {text}\n")
    summary = f"{made} sharpened, {there} there already, {failed} failed"
    if failed:
        raise Incomplete(summary)
    return summary
