"""Many scans: each by a network that is loaded once; a bad one is named and counted, and stops no other."""

import logging
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from seran import __version__, files, progress
from seran.engines import Engine
from seran.errors import BadInput, Incomplete, counted
from seran.job import cluster, display, pages, record
from seran.job import run as job
from seran.job.options import Options
from seran.job.resume import done, fits, is_unchanged
from seran.machine import cpus, told
from seran.quality import report

WAIT = 1.0  # seconds between two looks at what another run is at work on
NAMED = 3
"""Results with a FAIL that are named in the summary; all of them have a line of their own."""


class Outcome(NamedTuple):
    """What became of a scan: a line, and the result with the checks that say FAIL, if any do."""

    kind: str  # ``sharpened``, ``there`` or ``failed``
    text: str
    facts: dict[str, Any]  # see `display.outcome`
    fails: str = ""
    log: Path | None = None  # where a reason to fail is noted
    why: str = ""  # it failed
    assumed: bool = False  # that it is not skull-stripped, though its background is constant
    disputed: bool = False  # the record states another verdict than its checks


@dataclass(frozen=True)
class Task:
    """A scan and where its result goes."""

    source: Path
    out: Path
    facts: Callable[[], dict[str, Any]] = dict  # gives what the record states besides
    wrong: str = ""  # why nothing can become of it, where that is known before it is tried
    work: Path | None = None  # folder for arrays that are kept on disk; that of the result without it
    page: Path | None = None  # about scan and result, if there shall be one
    shared: Path | None = None  # a folder whose viewer this page shares with others; None: it has its own
    above: Path | None = None  # a page of all scans, to which this one leads back
    log: Path | None = None  # a text that says why it failed when it was last tried, if that shall be noted

    def refuse_page(self, force: bool, resume: bool) -> None:
        """Raise `BadInput` if its page could not be written, or would replace what must not go."""
        if self.page is not None:
            renew = force or (resume and pages.is_page(self.page))
            pages.refuse_page(self.page, renew, self.source, self.out, record.sidecar(self.out))


def _one(
    task: Task, options: Options, engine: Engine, force: bool, resume: bool, verify: bool, shared: bool = True
) -> Outcome | None:
    """Sharpen one scan of several; what is wrong with it is told, not raised: only faults of others are.

    None if another process is at work on it; not asked where a scheduler shared them out.
    """
    if task.wrong:
        return _failed(task, task.wrong)
    try:
        there = (task.source, task.out, options, engine, verify, task.facts)
        seen = record.identity(task.out)
        kind, made = "there", done(*there) if resume else None
        if made is None:
            claiming = files.claim(task.out) if resume and not shared else nullcontext(True)
            with files.folder_for(task.out), claiming as ours:
                if not ours:
                    return None
                if resume and record.identity(task.out) != seen:  # it has just been made
                    made = done(*there)
                if made is None:
                    task.refuse_page(force, resume)
                    display.begin(task.source)
                    how = options, engine, force, task.facts(), resume, task.work
                    kind, made = "sharpened", job.run(task.source, task.out, *how)
        if task.page is not None and (kind == "sharpened" or pages.about(task.page)[0] != made.key):
            task.refuse_page(force, resume)
            pages.write(task.source, task.out, task.page, options.read, task.shared, task.above)
            progress.log.info("page: %s", task.page)
        return _told(kind, made, task)
    except BadInput as error:
        return _failed(task, str(error))


def _alone(task: Task, *how: Any) -> Outcome | None:  # noqa: ANN401
    """The same in this process, where nobody else tries again: whatever is wrong with one stops no other."""
    try:
        return _one(task, *(*how, False))
    except Exception as error:
        progress.log.info("%s", task.source, exc_info=error)
        return _failed(task, told(error))


def _in_turn(tasks: Sequence[Task], *how: Any) -> Iterator[Outcome]:  # noqa: ANN401
    """The same of many; what another run is at work on comes last, and is waited for."""
    left = []
    for task in tasks:
        if (one := _alone(task, *how)) is None:
            progress.log.info("%s: another run is at work on it", task.source)
            left.append(task)
        else:
            yield one
    if left:
        told = f"another run is at work on {counted(len(left), 'scan')} ({left[0].source} …); waiting for it"
        progress.say(f"seran: {told}", "stderr", logging.WARNING)
    for task in left:
        while (one := _alone(task, *how)) is None:
            time.sleep(WAIT)
        yield one


def _refuse_twins(tasks: Sequence[Task], maps: Sequence[str]) -> None:
    """Raise `BadInput` for two scans whose results, or `maps`, would share a name but for the ending."""
    taken: dict[Path, Path] = {}
    for task in (task for task in tasks if not task.wrong):
        with suppress(OSError):  # of a name that cannot be one: told when its turn comes
            named = map(record.sidecar, record.outputs(task.out, maps))
            for beside in (*named, *([task.page] if task.page else [])):
                if taken.setdefault(beside, task.source) is not task.source:
                    both = f"{task.source} and {taken[beside]} would both become {task.out}"
                    raise BadInput(f"{both}, or share its record {beside.name}; sharpen them apart")


def _told(kind: str, made: record.Record, task: Task) -> Outcome:
    fails = f"{task.out} ({', '.join(made.failed)})" * bool(made.failed)
    facts = display.outcome(kind, task.source, task.out, made)
    assumed = bool(made.masked) and made.facts.get("SkullStrippedBy") == "assumed"
    disputed = bool(made.disputed)
    return Outcome(kind, facts["text"], facts, fails, task.log, assumed=assumed, disputed=disputed)


def _failed(task: Task, why: str) -> Outcome:
    named = " ".join((why if str(task.source) in why else f"{task.source}: {why}").split())
    facts = display.outcome("failed", task.source, task.out, None, named)
    return Outcome("failed", f"failed: {named}", facts, log=task.log, why=why)


def _note(one: Outcome) -> None:
    """Write down why a scan failed, for who sums up later; or remove what was written of an earlier try."""
    if one.log is None:
        return
    with suppress(OSError):  # it has been said already
        if one.why:
            one.log.parent.mkdir(exist_ok=True)
            with files.atomic(one.log) as part:
                part.write_text(" ".join(one.why.split()) + "\n", "utf-8", "backslashreplace")
        else:
            one.log.unlink(missing_ok=True)


def run(
    tasks: Sequence[Task],
    options: Options,
    engine: Engine,
    force: bool = False,
    resume: bool = False,
    where: cluster.Cluster = cluster.Cluster(),  # noqa: B008
    strict: bool = True,
    verify: bool = False,
    first: Callable[[], None] = lambda: None,
) -> str:
    """Sharpen every scan and sum up, by `Incomplete` if some failed; or give the script for a job array.

    Args:
        tasks: what, and where to; folders are made.
        options: how.
        engine: how the network is run.
        force: replace existing results.
        resume: pass over results that are there, made from the same scan in the same way; replace others
            of seran's.
        where: in this process, or on a cluster.
        strict: also by `Incomplete` if the checks of some results say FAIL.
        verify: of resuming, hash every scan and result, see `seran.job.resume.done`.
        first: called once, as soon as there is a result.
    """
    options.refuse_unfit()
    _refuse_twins(tasks, options.beside)
    if any(task.page for task in tasks):
        report.viewer()  # or it says what is missing
    start, step = where.share()
    tasks = tasks[start - 1 :: step]
    if where.cluster == "sbatch":  # for the command line that is running, without what asks for a script
        return where.script(sys.argv[1:], len(tasks), not resume)
    if where.dry_run:
        return _foreseen(tasks, options, engine, force, resume or (force and bool(where.cluster)), verify)
    for folder in {task.shared for task in tasks if task.page and task.shared}:
        pages.share(folder)
    counts, assumed = dict.fromkeys(("sharpened", "there", "failed"), 0), 0
    fails: list[str] = []
    with _interruptible(counts, len(tasks), resume), display.shown(len(tasks)) as work:
        if where.cluster:
            outcomes = _spread(tasks, options, engine, force, resume, verify, where)
        else:
            outcomes = _in_turn(tasks, options, engine, force, resume, verify)
        for i, one in enumerate(outcomes):
            if one.kind != "failed" and not counts["sharpened"] + counts["there"]:
                first()
            work.finished, counts[one.kind] = i + 1, counts[one.kind] + 1
            work.made += one.kind != "there"
            progress.tell("scan", number=i + 1, scans=len(tasks), **one.facts)
            fails, assumed = fails + [one.fails] * bool(one.fails), assumed + one.assumed
            _note(one)
            wrong = one.kind == "failed" or (one.fails and strict) or one.disputed
            if wrong or one.kind == "sharpened" or one.fails:
                level = logging.WARNING if wrong else logging.INFO
                progress.say(f"[{i + 1}/{len(tasks)}] {one.text}", "stderr", level)
            elif one.kind == "there":
                progress.log.info("[%d/%d] there already: %s", i + 1, len(tasks), one.facts["result"])
    if assumed:
        told = (
            f"{counted(assumed, 'result')} with a constant background: SkullStripped is not stated in the "
            "raw data, and false is assumed; if it is true, state it in the JSON of the scan and use --force"
        )
        progress.say(f"seran: {told}", "stderr", logging.WARNING)
    summary = "{sharpened} sharpened, {there} there already, {failed} failed".format(**counts)
    if fails:
        more = f" and {len(fails) - NAMED} more" * (len(fails) > NAMED)
        summary += f"; FAIL in {counted(len(fails), 'result')}: {', '.join(fails[:NAMED])}{more}"
    if fails and strict:
        raise Incomplete(f"{summary}; look at each before you use it, or say --strict off if you know why")
    if counts["failed"]:
        raise Incomplete(summary)
    return summary


def _foreseen(
    tasks: Sequence[Task], options: Options, engine: Engine, force: bool, resume: bool, verify: bool
) -> str:
    """Tell of each scan what a run would do, and sum up; records are read, scans and results are not."""
    counts = dict.fromkeys(("make", "again", "there", "compare", "skip"), 0)
    for task in tasks:
        try:
            what, why = _plan(task, options, engine, force, resume, verify)
        except (BadInput, OSError) as error:
            what, why = "skip", str(error)
        counts[what] += 1
        why = " ".join(why.split()).removeprefix(f"{task.source}: ")
        made = "" if what == "skip" else f" -> {task.out}"
        progress.say(f"{what}: {task.source}{made}{f' ({why})' * bool(why)}")
        result = str(task.out) if made else None
        progress.tell("plan", scan=str(task.source), status=what, result=result, reason=why)
    told = "{make} to make, {again} to make again, {there} there already, {compare} to compare, "
    return f"{told}{{skip}} to skip; nothing was done (--dry-run)".format(**counts)


def _plan(
    task: Task, options: Options, engine: Engine, force: bool, resume: bool, verify: bool
) -> tuple[str, str]:
    """What a run would do with a scan, and why; `BadInput` if it could not."""
    if task.wrong:
        raise BadInput(task.wrong)
    found = record.read(task.out) if resume else None
    if found is not None and fits(found, task.source, options, engine, task.facts):
        if not verify and is_unchanged(found, task.source, task.out):
            return "there", found.judged_as(task.out).removeprefix("; ")
        asked = "--verify" if verify else "size or time of the scan or the result is not as recorded"
        return "compare", f"{asked}: made again if their bytes are others"
    if task.out.parent.is_dir():  # else it is made
        job.refuse_output(task.out, force, task.source, resume)
    task.refuse_page(force, resume)
    task.facts()
    if not record.there(task.out):
        return "make", ""
    if found is None:
        return "again", "--force" if force else "its result is not whole"
    other = f"by seran {found.version}" if found.version != __version__ else "in another way"
    return "again", f"it was made {other}"


@contextmanager
def _interruptible(counts: Mapping[str, int], scans: int, resume: bool) -> Iterator[None]:
    """Whoever stops what is within is told how far it came."""
    try:
        yield
    except KeyboardInterrupt as stop:
        done = counts["sharpened"] + counts["there"]
        again = "the same command continues" if resume else "the same command with --resume continues"
        are = "is" if done == 1 else "are"
        told = f"{done} of {counted(scans, 'scan')} {are} done; {again}"
        raise KeyboardInterrupt(f"interrupted: {told}") from stop


def _spread(
    tasks: Sequence[Task],
    options: Options,
    engine: Engine,
    force: bool,
    resume: bool,
    verify: bool,
    where: cluster.Cluster,
) -> Iterator[Outcome]:
    """The same on a cluster, where a scan may be begun twice: so a worker passes over what is done."""
    renew, free = force or resume, []
    for task in tasks:
        if task.wrong:
            yield _failed(task, task.wrong)
            continue
        with suppress(OSError, BadInput):  # of a name that cannot be one: a worker tells it
            if not renew and (there := record.there(task.out)):
                yield _failed(task, f"{there[0]} exists; give --force to replace it")
                continue
        free.append(task)
    if where.cluster == "local" and not engine.threads:
        engine = replace(engine, threads=max(1, cpus() // (where.workers or cpus())))
    work = partial(_one, options=options, engine=engine, force=force, resume=True, verify=verify)
    for one in filter(None, cluster.spread(work, free, where, _failed, lambda task: task.source)):
        # what was not there before was made now, by a worker that died before it was asked what it did
        yield one._replace(kind="sharpened") if one.kind == "there" and not renew else one
