# SPDX-License-Identifier: Apache-2.0
"""Sees that the store holds what a site needs: asks each artifact's sources in order, several at once, and builds one after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

from .builder import Builder, machine
from .catalogue import ARCHITECTURES, CODENAME, KINDS, Artifact, Catalogue, Go, Program, write_sums
from .errors import ArtifactError, Cancelled, ChecksumMismatch, SourceUnavailable
from .progress import Progress, size
from .sources import Context, Target, obtain
from .store import Index, Store

DOWNLOADS = 4


@dataclass(frozen=True)
class Options:
    """What a run may do: which architectures and distributions, which kinds of sources in which order, and where the mirror is."""

    architectures: Sequence[str] = ()
    codenames: Sequence[str] = ("trixie",)
    sources: Sequence[str] = KINDS
    mirror: str = ""
    record: bool = False
    keep_caches: bool = False
    downloads: int = DOWNLOADS

    def check(self) -> None:
        """:raises ArtifactError: naming the option that is wrong."""
        for name, values, allowed in (("architectures", self.architectures, ARCHITECTURES), ("sources", self.sources, KINDS)):
            for value in values:
                if value not in allowed:
                    raise ArtifactError(f"{name} has {value!r}; allowed: {', '.join(allowed)}")
        for codename in self.codenames:
            if not isinstance(codename, str) or not CODENAME.fullmatch(codename):
                raise ArtifactError(f"codenames has {codename!r}; allowed: codenames of distributions such as trixie")
        if self.mirror and not self.mirror.startswith(("http://", "https://")):
            raise ArtifactError(f"mirror is {self.mirror!r}; allowed: an address that begins with https:// or http://")


@dataclass(frozen=True)
class Obtained:
    """What became of one target. ``changed`` is False when the store had it."""

    target: Target
    source: str
    index: Index | None
    changed: bool
    seconds: float = 0.0


@dataclass
class Plan:
    """The targets of a run: those the store has, and those it lacks, with the sources that would be asked."""

    present: list[tuple[Target, Index]] = field(default_factory=list)
    missing: list[Target] = field(default_factory=list)


class Obtainer:
    """Fills a store from a catalogue. ``say`` prints one line of progress; ``warn`` one line that matters after the run as well."""

    def __init__(
        self, store: Store, catalogue: Catalogue, options: Options, say: Callable[[str], None], interval: float = 10.0
    ) -> None:  # fmt: skip
        options.check()
        self.store, self.catalogue, self.options, self.say, self.interval = store, catalogue, options, say, interval
        self._stop = threading.Event()
        self.build_directory = store.root.parent / "build"
        self.builder = Builder(self.build_directory, self._stop.is_set)
        self.context = Context(store, self.builder, self.build_directory, options.mirror, options.record, self._stop.is_set)

    def targets(self, wanted: Mapping[str, str]) -> list[Target]:
        """Every index file that a site with these artifacts (name -> version) needs."""
        found = []
        for name, version in sorted(wanted.items()):
            artifact = self.catalogue.get(name, version)
            for architecture in self.options.architectures or (machine(),):
                for codename in self.options.codenames if artifact.packages else ("",):
                    found.append(Target(artifact, version, architecture, codename))
        return found

    def plan(self, wanted: Mapping[str, str]) -> Plan:
        """What the store has of it and what it lacks."""
        plan = Plan()
        for target in self.targets(wanted):
            index = self._held(target)
            if index:
                plan.present.append((target, index))
            else:
                plan.missing.append(target)
        return plan

    def _held(self, target: Target) -> Index | None:
        """What the store has of a target, unless the catalogue records other bytes: then the source changed, and it is obtained anew."""
        index = self.store.read(target.artifact.name, target.version, target.key)
        if index is None:
            return None
        recorded = target.artifact.sums(target.version)
        held = {f"{index.source}/{target.key}/{file.path}": file.sha256 for file in index.files}
        return index if all(recorded.get(name, sha) == sha for name, sha in held.items()) else None

    def kinds(self, artifact: Artifact) -> list[str]:
        """The kinds of sources of an artifact that a run asks, in its order: the run's own order when it has one, else the catalogue's."""
        # What needs nothing but this checkout is nobody's to forbid.
        if any(isinstance(source, Program) for source in artifact.sources):
            return ["program"]
        allowed = [source.kind for source in artifact.sources if source.kind in self.options.sources]
        ordered = sorted(allowed, key=list(self.options.sources).index) if tuple(self.options.sources) != KINDS else allowed
        return [kind for kind in ordered if kind != "mirror" or self.options.mirror]

    def ensure(self, wanted: Mapping[str, str]) -> list[Obtained]:
        """Obtain what is missing.

        :raises ArtifactError: with one sentence for every artifact that could not be had; what was obtained stays.
        """
        plan = self.plan(wanted)
        done = [Obtained(target, index.source, index, changed=False) for target, index in plan.present]
        if plan.missing:
            self.store.sweep()
            done += self._run(plan.missing)
            self._tidy()
        if self.options.record:
            done = [self._record(one) for one in done]
        return sorted(done, key=lambda one: (one.target.artifact.name, one.target.version, one.target.key))

    def _run(self, missing: Iterable[Target]) -> list[Obtained]:
        """Network sources in several threads; who has come to `go` waits in line for the one builder."""
        done: list[Obtained] = []
        problems: list[ArtifactError] = []
        with (
            self.store.adding(),
            ThreadPoolExecutor(self.options.downloads, "obtain") as network,
            ThreadPoolExecutor(1, "build") as building,
        ):
            jobs = [_Job(target, self.kinds(target.artifact), Progress(target.title, self.say, self.interval)) for target in missing]
            running: dict[Future[Obtained | None], _Job] = {network.submit(self._advance, job, False): job for job in jobs}
            try:
                while running:
                    ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in ended:
                        job = running.pop(future)
                        try:
                            result = future.result()
                        except Cancelled:
                            continue
                        except (ArtifactError, OSError) as error:
                            problems.append(error if isinstance(error, ArtifactError) else ArtifactError(f"{job.target.title}: {error}"))
                            self._stop.set()
                            continue
                        if result:
                            done.append(result)
                        else:
                            running[building.submit(self._advance, job, True)] = job
            except BaseException:
                self._stop.set()
                raise
        if problems:
            raise type(problems[0])("; ".join(str(problem) for problem in problems))
        return done

    def _advance(self, job: _Job, may_build: bool) -> Obtained | None:
        """Ask the job's sources from where it stands; None when the next one is a build and this thread may not."""
        target, progress = job.target, job.progress
        name = target.artifact.name
        if self._stop.is_set():
            raise Cancelled(f"{target.title}: given up")
        while job.next < len(job.kinds):
            kind = job.kinds[job.next]
            if kind == "go" and not may_build:
                return None
            with self._turn(kind, progress), self.store.lock(f"{name}-{target.key}", lambda: progress.still("another run is obtaining it")):
                index = self._held(target)
                if index:
                    return Obtained(target, index.source, index, changed=True, seconds=progress.seconds)
                started = time.monotonic()
                progress.restart()
                try:
                    index = obtain(self.context, target, kind, progress)
                except ChecksumMismatch:
                    raise
                except SourceUnavailable as error:
                    job.reasons.append(f"{kind}: {error}")
                    job.next += 1
                    if kind != "upstream" or "no checksum" not in str(error):
                        rest = job.kinds[job.next] if job.next < len(job.kinds) else "no other source"
                        self.say(f"{target.title}: {kind} cannot be used ({error}); next: {rest}")
                    continue
            seconds = time.monotonic() - started
            self.say(f"{target.title}: {_PAST[kind]}, {len(index.files)} files, {size(index.size)}, {seconds:.0f} s")
            return Obtained(target, kind, index, changed=True, seconds=seconds)
        reasons = "; ".join(job.reasons) or f"none of its sources is allowed ({', '.join(s.kind for s in target.artifact.sources)})"
        raise ArtifactError(f"{target.title} cannot be obtained: {reasons}. Reach one of the sources, name a mirror (artifacts_mirror), or import a bundle")

    def _turn(self, kind: str, progress: Progress) -> AbstractContextManager[None]:
        """Builds of several checkouts come one after another: they share the caches and the processors."""
        if kind == "go":
            return self.store.lock(".build", lambda: progress.still("another run is building"))
        return nullcontext()

    def _record(self, one: Obtained) -> Obtained:
        """Write what a reproducible build gave into the catalogue; `sources` records what it downloads from upstream."""
        target = one.target
        source = next((source for source in target.artifact.sources if isinstance(source, Go)), None)
        if one.index and one.index.source == "go" and source and not source.cgo and not any(file.image for file in target.artifact.files):
            sums = {f"go/{target.key}/{file.path}": file.sha256 for file in one.index.files}
            if write_sums(target.artifact, target.version, sums):
                self.say(f"{target.title}: checksums recorded in {target.artifact.folder(target.version)}")
                return Obtained(target, one.source, one.index, changed=True, seconds=one.seconds)
        return one

    def _tidy(self) -> None:
        """After the last build its caches are of no more use: the store has what they were for."""
        if self.options.keep_caches or not any(path.exists() for path in self.builder.caches):
            return
        try:
            with self.store.lock(".build", limit=0.0):
                self.say(f"build caches removed, {size(self.builder.clean())} freed")
        except ArtifactError:
            pass  # another run builds; it removes them


@dataclass
class _Job:
    target: Target
    kinds: list[str]
    progress: Progress
    next: int = 0
    reasons: list[str] = field(default_factory=list)


_PAST = {
    "mirror": "from the mirror",
    "upstream": "from its publisher",
    "go": "built from source",
    "package": "from the distribution",
    "program": "from this checkout",
}
