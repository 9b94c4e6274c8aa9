"""kill -9 of the gateway while a hundred clients send: python benchmarks/gateway_crash.py [--quick] [--json FILE]

After each kill it is started again on the same data. What a client was told is stored must be there afterwards, once;
what is sent again under the same idempotency key must get the same answer.
"""

from __future__ import annotations

import sqlite3
import sys
import tempfile
from pathlib import Path

from harness import Figure, parse_options, report, spread

sys.path.insert(
    0, str(Path(__file__).parent.parent / "tests")
)  # whose `serving` is meant, not the benchmark of that name


def main() -> None:
    from gateway_under_fire import running, stored, under_fire
    from serving import StubEngine, served

    options = parse_options(__doc__)
    kills, clients = (5, 20) if options.quick else (50, 100)
    with tempfile.TemporaryDirectory(prefix="rl-") as name:
        folder = Path(name)
        with (
            served(StubEngine().app(), uds=str(folder / "e.sock")),
            running(folder / "data", folder / "e.sock") as (gateway, key),
        ):
            fire = under_fire(gateway, key, kills=kills, clients=clients, seed=0)
            found = stored(gateway, key)
        with sqlite3.connect(folder / "data" / "rewardloop.db") as database:
            intact = database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        database.close()
    lost = len(set(fire.acknowledged) - set(found))
    doubled = sum(count > 1 for count in found.values())
    figures = [
        exact("acknowledged", len(fire.acknowledged)),
        exact("acknowledged and lost", lost, 0),
        exact("stored twice", doubled, 0),
        exact("answered differently when sent again", len(fire.changed), 0),
        Figure("database intact", intact, intact, intact, 1),
        spread("up again, s", fire.up_again_s, target=3.0, better="lower"),
    ]
    report("Kills of the gateway under load", figures, options, {"kills": kills, "clients": clients})


def exact(name: str, value: float, target: float | None = None) -> Figure:
    return Figure(name, value, value, value, target, "lower")


if __name__ == "__main__":
    main()
