# SPDX-License-Identifier: Apache-2.0
"""Sees that the store holds what a site needs: asks each artifact's sources in order, several at once, and builds two side by side."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from .builder import Builder, machine
from .catalogue import ARCHITECTURES, CODENAME, KINDS, Artifact, ArtifactCatalogue, Go, Program, write_sums
from .errors import ArtifactError, Cancelled, ChecksumMismatch, NotAsked, SourceUnavailable
from .forecast import Forecast
from .progress import Progress, size
from .sources import Context, Target, held_to, obtain
from .store import Index, Store
from .trust import LOCK, POLICIES, Lock
from .web import plain

DOWNLOADS = 4
# One build alone leaves a core idle while it links or downloads modules.
BUILDS = min(2, os.cpu_count() or 1)


@dataclass(frozen=True)
class Options:
    """What a run may do: which architectures and distributions, which kinds of sources in which order, and where the mirror is.

    ``checksums``: which checksums of publishers' downloads are accepted, `trust.POLICIES`; ``lock``: the site's lock file, by default the store's own.
    """

    architectures: Sequence[str] = ()
    codenames: Sequence[str] = ("trixie",)
    sources: Sequence[str] = KINDS
    mirror: str = ""
    checksums: str = POLICIES[0]
    lock: Path | None = None
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
        if self.checksums not in POLICIES:
            raise ArtifactError(f"checksums is {self.checksums!r}; allowed: {', '.join(POLICIES)}")
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
        self, store: Store, catalogue: ArtifactCatalogue, options: Options, say: Callable[[str], None], interval: float = 10.0
    ) -> None:  # fmt: skip
        options.check()
        self.store, self.catalogue, self.options, self.say, self.interval = store, catalogue, options, say, interval
        self._stop = threading.Event()
        self.build_directory = store.root.parent / "build"
        self.builder = Builder(self.build_directory, self._stop.is_set)
        self.forecast = Forecast()
        # Checkouts share the caches and the processors: the builds of all of them together take these locks.
        self._slots: queue.SimpleQueue[str] = queue.SimpleQueue()
        for number in range(BUILDS):
            self._slots.put(f".build-{number + 1}")
        self.lock = Lock(options.lock or store.root / LOCK)
        self.locked: list[str] = []
        self.context = Context(store, self.builder, self.build_directory, self.lock, options.mirror, options.checksums, options.record, self._stop.is_set)

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
        """What the store has of a target, unless the catalogue or the lock file records other bytes, or the site's policy does not accept what
        another site did: then it is obtained anew."""
        index = self.store.read(target.artifact.name, target.version, target.key)
        if index is None:
            return None
        recorded = target.artifact.sums(target.version)
        held = {f"{index.source}/{target.key}/{file.path}": file.sha256 for file in index.files}
        if not all(recorded.get(name, sha) == sha for name, sha in held.items()):
            return None
        if index.source == "upstream":
            if self.options.checksums == "pinned" and not self.options.mirror and not target.pinned():
                return None
            if any(len(one.checksum) == len(index.download) and one.checksum != index.download for one in held_to(self.lock, target)):
                return None
        return index

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
        self._hold(done)
        return sorted(done, key=lambda one: (one.target.artifact.name, one.target.version, one.target.key))

    def _hold(self, done: Iterable[Obtained]) -> None:
        """Write into the lock file what was downloaded without a checksum of the catalogue; also what the store had from another site's run."""
        found = {
            plain(one.target.download.url): one.index.download
            for one in done
            if one.index and one.index.source == "upstream" and one.index.download and one.target.download and not one.target.pinned()
        }
        if found.keys() - self.lock.read().keys():
            with self.store.lock(".checksums", limit=60.0):
                self.locked = self.lock.add(found)
            self.say(f"{self.lock.path}: checksums of {len(self.locked)} downloads added; commit it, they hold from now on")

    def _run(self, missing: Iterable[Target]) -> list[Obtained]:
        """Network sources in several threads; what has come to `go` waits for a builder, the longest first so that no core idles at the end."""
        done: list[Obtained] = []
        problems: list[ArtifactError] = []
        with (
            self.store.adding(),
            ThreadPoolExecutor(self.options.downloads, "obtain") as network,
            ThreadPoolExecutor(BUILDS, "build") as building,
        ):
            jobs = sorted((self._job(target) for target in missing), key=lambda job: -job.seconds)
            running: dict[Future[Obtained | None], _Job] = {network.submit(self._advance, job, False): job for job in jobs}
            waiting: list[_Job] = []
            builds = 0
            try:
                while running:
                    ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                    for future in ended:
                        job = running.pop(future)
                        builds -= job.building
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
                            self.forecast.end(job.target.title)
                        else:
                            self.forecast.expect(job.target.title, job.seconds)
                            waiting.append(job)
                    waiting.sort(key=lambda job: -job.seconds)
                    while waiting and builds < BUILDS and not self._stop.is_set():
                        job = waiting.pop(0)
                        job.building, builds = True, builds + 1
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
                if kind == "go":
                    self.forecast.begin(target.title)
                try:
                    index = obtain(self.context, target, kind, progress)
                except ChecksumMismatch:
                    raise
                except SourceUnavailable as error:
                    job.reasons.append(f"{kind}: {error}")
                    job.next += 1
                    if not isinstance(error, NotAsked):
                        rest = job.kinds[job.next] if job.next < len(job.kinds) else "no other source"
                        self.say(f"{target.title}: {kind} cannot be used ({error}); next: {rest}")
                    continue
            seconds = time.monotonic() - started
            self.say(f"{target.title}: {_PAST[kind]}, {len(index.files)} files, {size(index.size)}, {seconds:.0f} s")
            return Obtained(target, kind, index, changed=True, seconds=seconds)
        reasons = "; ".join(job.reasons) or f"none of its sources is allowed ({', '.join(s.kind for s in target.artifact.sources)})"
        raise ArtifactError(f"{target.title} cannot be obtained: {reasons}. Reach one of the sources, name a mirror (artifacts_mirror), or import a bundle")

    def _job(self, target: Target) -> _Job:
        seconds = next((source.seconds for source in target.artifact.sources if isinstance(source, Go)), 0.0)
        return _Job(target, self.kinds(target.artifact), Progress(target.title, self.say, self.interval, outlook=self.forecast.__str__), seconds)

    @contextmanager
    def _turn(self, kind: str, progress: Progress) -> Iterator[None]:
        """No more builds at once than BUILDS, over all runs on this machine."""
        if kind != "go":
            yield
            return
        slot = self._slots.get()
        try:
            with self.store.lock(slot, lambda: progress.still("another run is building")):
                yield
        finally:
            self._slots.put(slot)

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
            with ExitStack() as idle:
                for number in range(BUILDS):
                    idle.enter_context(self.store.lock(f".build-{number + 1}", limit=0.0))
                self.say(f"build caches removed, {size(self.builder.clean())} freed")
        except ArtifactError:
            pass  # another run builds; it removes them


@dataclass
class _Job:
    target: Target
    kinds: list[str]
    progress: Progress
    seconds: float = 0.0
    building: bool = False
    next: int = 0
    reasons: list[str] = field(default_factory=list)


_PAST = {
    "mirror": "from the mirror",
    "upstream": "from its publisher",
    "go": "built from source",
    "package": "from the distribution",
    "program": "from this checkout",
}
