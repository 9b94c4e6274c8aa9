"""kill -9 of every process of a place that learns: python benchmarks/live_crash.py [--quick] [--json FILE] [--kills N]

`rewardloop up` with its learner, and people who ask and judge without a pause, each judgment under an idempotency key
that is sent again until it is acknowledged. Gateway, engine, learner and supervisor are killed in turns that chance
decides, N times each (default 50; 3 with --quick); after the supervisor, `up` is started again on the same data. A
third of the kills is aimed: at learner and supervisor while a part of a version is being written, at engine and gateway
while a person has another version served that passed its gate. Counted afterwards, in the log and in the registry:

    judgments   acknowledged and not in the log, or twice in it
    registry    manifests that cannot be read, parts that are not what they say, a note of an active version without one
    events      versions published or gated twice, served without a passed gate, taken back unserved
    people      activations that were acknowledged and are not in the log
    learning    versions that have read less of the log than their parent: what they would read again is trained twice
    served      another version in the engine than the active one, in the end

Measured: seconds from a kill until the place answers again (for the learner: until it says what it does).
"""

from __future__ import annotations

import argparse
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import httpx2
import psutil

from harness import Figure, parse_options, report, spread
from rewardloop.errors import StoreError
from rewardloop.feedback.log.database import data_url
from rewardloop.feedback.log.event_log import LogReader
from rewardloop.feedback.log.events import Event
from rewardloop.loop.live.crowd import Crowd, move_in
from rewardloop.loop.manifests import WEIGHTS, active_version, is_intact, manifest_path, read_manifest
from rewardloop.loop.processes.operator_file import read_operator
from rewardloop.sandbox.annotators import SimulatedAnnotator
from rewardloop.sandbox.dialogues import training_prompts
from rewardloop.sandbox.world import build_world
from serving import HOST, free_port, single

MODULES: Final = {
    "gateway": "rewardloop.serve",
    "engine": "rewardloop.loop.processes.engine_server",
    "learner": "rewardloop.loop.live",
}
TARGETS: Final = (*MODULES, "supervisor")
PEOPLE: Final = 4  # of one account: nobody is fitted, so that there is time for more rounds
PER_SECOND: Final = 0.5  # judgments
# From being whole again to the next kill, at most. The learner needs some of it to come as far as to a version.
LONGEST_LIFE_S: Final = {"gateway": 2.0, "engine": 2.0, "learner": 8.0, "supervisor": 8.0}
AIMED: Final = 3  # one kill in so many
AIMING_S: Final = 30.0  # how long a moment is waited for
SWAP_S: Final = 0.1  # from a wish for another version to the kill, at most
PATIENCE_S: Final = 180.0  # until the place must be whole again
# Small rounds, so that kills fall into all of their parts; large enough for some versions to pass.
RECIPE: Final = "reference_samples: 64\nsampling:\n  prompts: 8\n  group_size: 4\n"
ANY, WRITING, LETTING_IN = "at any time", "while a version was written", "while a version was let in"


def main() -> None:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--kills", type=int)
    given, rest = parser.parse_known_args()
    options = parse_options(__doc__, rest)
    kills = given.kills or (3 if options.quick else 50)
    with tempfile.TemporaryDirectory(prefix="rl-") as name:
        folder = Path(name)
        recipe = folder / "recipe.yaml"
        recipe.write_text(RECIPE)
        with living(folder / "data", recipe) as place:
            fate = under_fire(place, kills)
            served = what_is_served(place)
        figures = [*judged(fate, folder / "data"), *kept(folder / "data", fate), *served, *waits(fate)]
    settings = {"kills": kills, "people": PEOPLE, "per_second": PER_SECOND}
    settings |= {"phases": dict(fate.phases), "moments": dict(fate.moments)}
    notes = [f"The learner was killed in: {counted(fate.phases)}.", f"Kills: {counted(fate.moments)}."]
    report("A place that learns, under kill -9", figures, options, settings, notes)


def counted(what: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in what.most_common())


# ---------------------------------------------------------------- the place


class Place:
    """`rewardloop up` as a process that can be killed and started again on the same data."""

    def __init__(self, data: Path, recipe: Path) -> None:
        self.data, self.recipe, self.port = data, recipe, free_port()
        self.url = f"http://{HOST}:{self.port}"
        self.refused_starts = 0
        self.key = ""
        self.supervisor = self._start()

    def child(self, name: str) -> psutil.Process | None:
        """The process that runs now under this name."""
        if name == "supervisor":
            return psutil.Process(self.supervisor.pid)
        try:
            children = psutil.Process(self.supervisor.pid).children()
        except psutil.NoSuchProcess:
            return None
        for child in children:
            try:
                command = child.cmdline()
            except psutil.Error:
                continue
            if MODULES[name] in command:
                return child
        return None

    def start_again(self) -> None:
        """As a service manager does it: until it stays."""
        self.supervisor.wait()
        self.supervisor = self._start()

    def keep_trying(self) -> None:
        """`up` ends where the port or the data are still in other hands."""
        if self.supervisor.poll() is not None:
            self.refused_starts += 1
            self.supervisor = self._start()

    def state(self) -> dict[str, Any]:
        """What GET /api/policy says; empty where nobody answers."""
        try:
            reply = httpx2.get(f"{self.url}/api/policy", headers={"authorization": f"Bearer {self.key}"}, timeout=5)
            return dict(reply.json()) if reply.status_code == 200 else {}
        except (httpx2.HTTPError, ValueError):
            return {}

    def ready(self) -> bool:
        try:
            return httpx2.get(f"{self.url}/readyz", timeout=5).status_code == 200
        except httpx2.HTTPError:
            return False

    def _start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", "from rewardloop.cli import main; main()", "up", "--data", str(self.data)]
        command += ["--port", str(self.port), "--recipe", str(self.recipe)]
        self.said: list[str] = []
        # In a session of its own, so that its learner yields to its engine alone, and not to this program.
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        process = subprocess.Popen(command, start_new_session=True, **pipes)
        threading.Thread(target=self._listen, args=(process,), daemon=True).start()
        return process

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.said.append(line)


@contextmanager
def living(data: Path, recipe: Path) -> Iterator[Place]:
    """A place with an owner; it is stopped in the end as Ctrl-C does it."""
    place = Place(data, recipe)
    try:
        wait_for(lambda: any("/setup#" in line for line in place.said), "`rewardloop up` did not come up")
        token = re.search(r"/setup#(\S+)", "".join(place.said))
        assert token is not None
        place.key = move_in(place.url, token[1])
        yield place
    finally:
        place.supervisor.send_signal(signal.SIGINT)
        try:
            place.supervisor.wait(30)
        except subprocess.TimeoutExpired:
            place.supervisor.kill()


def wait_for(condition: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(problem)
        time.sleep(0.05)


# ---------------------------------------------------------------- the kills


@dataclass
class Fate:
    """What was done to the place, and what the crowd saw."""

    acknowledged: list[int]  # place in the log of each judgment
    refused: list[str]  # what a client was told that no retry would mend
    up_again_s: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in TARGETS})
    orphans_s: list[float] = field(default_factory=list)  # how long children outlived their supervisor
    phases: Counter[str] = field(default_factory=Counter)  # what the learner was doing when it was killed
    moments: Counter[str] = field(default_factory=Counter)  # what the kills were aimed at
    promised: list[tuple[int, int]] = field(default_factory=list)  # place in the log before, version that was let in
    refused_starts: int = 0


def under_fire(place: Place, kills: int) -> Fate:
    """Kill every process `kills` times while people ask and judge."""
    refused: list[str] = []
    threading.excepthook = lambda told: refused.append(repr(told.exc_value))
    world = build_world(0)
    people = [SimulatedAnnotator(world, "careful", name="person", seed=at) for at in range(PEOPLE)]
    crowd = Crowd(place.url, place.key, people, training_prompts(world), seed=0, tries=4 * int(PATIENCE_S))
    over = threading.Event()
    speaking = threading.Thread(target=crowd.speak, args=(10**9, PER_SECOND, lambda: not over.is_set()), daemon=True)
    speaking.start()
    rng = random.Random(0)
    turns = [(name, turn % AIMED == 1) for name in TARGETS for turn in range(kills)]
    rng.shuffle(turns)
    fate = Fate([], refused)
    until_whole(place, time.time())
    for number, (name, aimed) in enumerate(turns):
        print(f"kill {number + 1} of {len(turns)}: ", end="", file=sys.stderr, flush=True)
        fate.moments[await_moment(place, name, aimed, fate, rng)] += 1
        kill(place, name, fate)
    time.sleep(max(LONGEST_LIFE_S.values()))
    over.set()
    speaking.join(PATIENCE_S)
    fate.acknowledged, fate.refused_starts = [each.seq for each in crowd.given], place.refused_starts
    return fate


def await_moment(place: Place, name: str, aimed: bool, fate: Fate, rng: random.Random) -> str:
    """Return when the process shall be killed; what for."""
    if aimed and name in ("learner", "supervisor"):
        learner, deadline = place.child("learner"), time.monotonic() + AIMING_S
        while learner is not None and time.monotonic() < deadline:
            if any(entry.name.endswith(f".{learner.pid}.tmp") for entry in os.scandir(place.data / WEIGHTS)):
                return WRITING
            time.sleep(0.002)
        return ANY
    time.sleep(rng.uniform(0.0, LONGEST_LIFE_S[name]))
    state = place.state() if aimed else {}
    good = [row["version"] for row in state.get("versions", ()) if row["passed"] and row["kept"] and not row["active"]]
    if not good:
        return ANY
    threading.Thread(target=let_in, args=(place, rng.choice(good), fate), daemon=True).start()
    time.sleep(rng.uniform(0.0, SWAP_S))
    return LETTING_IN


def let_in(place: Place, version: int, fate: Fate) -> None:
    """Somebody wants this version, once; what is not answered was not promised."""
    operator = read_operator(place.data)
    assert operator is not None
    headers = {"authorization": f"Bearer {operator.token}"}
    with LogReader(data_url(place.data)) as log, suppress(httpx2.HTTPError):
        before = log.last_seq()
        body = {"version": version, "reason": "benchmark"}
        if httpx2.post(f"{place.url}/api/policy/activate", headers=headers, json=body, timeout=30).status_code == 200:
            fate.promised.append((before, version))


def kill(place: Place, name: str, fate: Fate) -> None:
    """End one process as a power cut does, and wait until the place is whole again."""
    victim = place.child(name)
    assert victim is not None, f"no {name} is running"
    children = [found for each in MODULES if (found := place.child(each)) is not None]
    phase = (place.state().get("progress") or {}).get("phase", "starting")
    print(f"{name} (the learner: {phase})", file=sys.stderr, flush=True)
    killed_at, began = time.time(), time.monotonic()
    victim.send_signal(signal.SIGKILL)
    if name in ("learner", "supervisor"):
        fate.phases[phase] += 1
    if name == "supervisor":
        place.start_again()
        threading.Thread(target=bury, args=(children, began, fate), daemon=True).start()
    else:
        psutil.wait_procs([victim], timeout=10)
    if name != "learner":
        wait_for(lambda: place.keep_trying() or place.ready(), f"no answer after a kill of the {name}")
        fate.up_again_s[name].append(time.monotonic() - began)
    speaks = until_whole(place, killed_at if name in ("learner", "supervisor") else 0.0)
    if name == "learner":
        fate.up_again_s[name].append(speaks - began)


def bury(children: list[psutil.Process], began: float, fate: Fate) -> None:
    psutil.wait_procs(children, timeout=PATIENCE_S)
    fate.orphans_s.append(time.monotonic() - began)


def until_whole(place: Place, since: float) -> float:
    """Until gateway, engine and learner are there, and the learner has said something since then; when that was."""

    def whole() -> bool:
        place.keep_trying()
        progress = place.state().get("progress") or {}
        spoke = "at" in progress and datetime.fromisoformat(progress["at"]).timestamp() > since
        return spoke and place.ready() and all(place.child(name) is not None for name in MODULES)

    wait_for(whole, "the place did not become whole again")
    return time.monotonic()


# ---------------------------------------------------------------- what is left


def judged(fate: Fate, data: Path) -> list[Figure]:
    """Acknowledged judgments against the log."""
    with LogReader(data_url(data)) as log:
        stored = events_of(log, ("feedback.created",))
    keys = Counter((event.actor_id, event.idem_key) for event in stored)
    lost = set(fate.acknowledged) - {event.seq for event in stored}
    return [
        single("judgments acknowledged", len(fate.acknowledged)),
        single("acknowledged and lost", len(lost), 0, "lower"),
        single("stored twice", sum(count > 1 for count in keys.values()), 0, "lower"),
        single("acknowledged twice", len(fate.acknowledged) - len(set(fate.acknowledged)), 0, "lower"),
        single("clients refused for good", len(fate.refused), 0, "lower"),
    ]


def kept(data: Path, fate: Fate) -> list[Figure]:
    """The registry, and what the log says of its versions."""
    registry = data / WEIGHTS
    unreadable, damaged, digests = 0, 0, {}
    for path in registry.glob("v*.json"):
        try:
            manifest = read_manifest(path)
        except StoreError:
            unreadable += 1
            continue
        damaged += not is_intact(manifest)
        digests[manifest.version] = manifest.digest
    active = active_version(registry)
    missing = active is not None and not manifest_path(registry, active).exists()
    with LogReader(data_url(data)) as log:
        events = events_of(log, ("policy.published", "policy.gated", "policy.activated", "policy.rolled_back"))
    published = [event.body for event in events if event.kind == "policy.published"]
    otherwise = sum(body["digest"] != digests.get(body["version"], body["digest"]) for body in published)
    unreported = set(digests) - {body["version"] for body in published}
    return [
        single("versions published", len({body["version"] for body in published})),
        single("manifests that cannot be read", unreadable, 0, "lower"),
        single("versions with a damaged part", damaged, 0, "lower"),
        single("active version that is not there", missing, 0, "lower"),
        single("versions that the log knows otherwise, or not", otherwise + len(unreported), 0, "lower"),
        single("versions published twice", doubled(events, "policy.published"), 0, "lower"),
        single("versions gated twice", doubled(events, "policy.gated"), 0, "lower"),
        *decided(events),
        single("activations acknowledged and lost", broken_promises(events, fate), 0, "lower"),
        single("versions that have read less than their parent", fallen(published), 0, "lower"),
    ]


def decided(events: list[Event]) -> list[Figure]:
    """Whether what was served followed from gates and people alone."""
    passed: set[int] = set()
    waiting: int | None = None  # passed its gate, and is not served yet
    serving, by_gate, by_person, unfounded, stray, passed_over = [0], 0, 0, 0, 0, 0
    for event in events:
        version = event.body["version"]
        if event.kind == "policy.gated":
            passed_over += waiting is not None
            waiting = version if event.body["passed"] else None
            passed |= {version} if event.body["passed"] else set()
        elif event.kind == "policy.activated":
            by_hand = event.actor_kind != "system" or event.actor_id == "operator"
            by_person, by_gate, waiting = by_person + by_hand, by_gate + (not by_hand), None
            unfounded += version not in passed
            stray += event.body["before"] != serving[-1] or version == serving[-1]
            serving.append(version)
        elif event.kind == "policy.rolled_back":
            waiting = None
            stray += event.body["from"] != serving[-1] or version not in serving
            del serving[serving.index(version) + 1 if version in serving else len(serving) :]
    return [
        single("versions that passed their gate", len(passed)),
        single("versions let in by the gate", by_gate, 1.0),
        single("versions let in by a person", by_person),
        single("served without a passed gate", unfounded, 0, "lower"),
        single("activated or taken back though it makes no sense", stray, 0, "lower"),
        single("passed their gate and passed over", passed_over, 0, "lower"),
    ]


def broken_promises(events: list[Event], fate: Fate) -> int:
    """Activations that somebody was told of, and that are not in the log."""
    stored = [(event.seq, event.body["version"]) for event in events if event.kind == "policy.activated"]
    return sum(not any(seq > before and version == of for seq, of in stored) for before, version in fate.promised)


def fallen(published: list[dict[str, Any]]) -> int:
    """Versions whose place in the log is before that of their parent."""
    read = {body["version"]: body.get("last_seq") or 0 for body in published}
    return sum((body.get("last_seq") or 0) < read.get(body.get("parent"), 0) for body in published)


def doubled(events: list[Event], kind: str) -> int:
    return sum(count > 1 for count in Counter(e.body["version"] for e in events if e.kind == kind).values())


def events_of(log: LogReader, kinds: tuple[str, ...]) -> list[Event]:
    found: list[Event] = []
    while events := log.read(found[-1].seq if found else 0, kinds):
        found += events
    return found


def what_is_served(place: Place) -> list[Figure]:
    """The engine, the log and the note in the registry, once nothing is killed any more."""

    def agreed() -> bool:
        state = place.state()
        model = httpx2.get(f"{place.url}/v1/models", headers={"authorization": f"Bearer {place.key}"}, timeout=10)
        served = model.json()["data"][0]["weight_version"]
        note = active_version(place.data / WEIGHTS) or 0
        return bool(state) and served == f"v{state['active']}" and state["active"] == note and not state["trouble"]

    deadline = time.monotonic() + 30
    while not (same := agreed()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return [single("another version served than the active one", not same, 0, "lower")]


def waits(fate: Fate) -> list[Figure]:
    targets = {"gateway": 5.0, "engine": None, "learner": None, "supervisor": None}
    return [
        *(
            spread(
                f"up again after a kill of the {name}, s", fate.up_again_s[name], target=targets[name], better="lower"
            )
            for name in TARGETS
        ),
        spread("children outlive their supervisor, s", fate.orphans_s),
        single("starts of `up` refused while the old one was dying", fate.refused_starts),
    ]


if __name__ == "__main__":
    main()
