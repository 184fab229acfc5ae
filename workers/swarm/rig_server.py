"""A simulated rig: an engine behind a socket, for trying out what will drive an experiment (docs/rig.md)."""

import argparse
import json
import math
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from workers.errors import ConfigError, EigensweepError, RigLost
from workers.swarm.contacts import Rod
from workers.swarm.engine import Body, Engine
from workers.swarm.friction import spheroid
from workers.swarm.resolution import Resolution, needed_substeps
from workers.swarm.rig_link import PROTOCOL, Link, address_of, listen
from workers.swarm.rig_messages import UNITS

if TYPE_CHECKING:
    from torch import Tensor

    from workers.swarm.engine import State

# one policy and one environment; N agents; D dimensions


# body lengths a second
USUAL_SPEED = 5.0


class SimulatedRig:
    """Answers messages by what an engine does; a message that cannot be is a ValueError and changes nothing."""

    def __init__(self, engine: Engine, state: "State") -> None:
        import torch

        if engine.shape[:2] != (1, 1):
            raise ConfigError(f"a rig is one policy's and one environment, got an engine of the shape {engine.shape}")
        self.engine, self.state = engine, state
        self.forces, self.torques = (torch.zeros(engine.shape, dtype=engine.dtype) for _ in range(2))
        self.greeted = self.ended = False

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """To one message."""
        kinds = {"hello": self._hello, "state": self._seen, "act": self._act, "integrate": self._integrate, "end": self._end}
        kind = message["type"]
        if kind not in kinds:
            raise ValueError(f"there is no message {kind!r}; there are {', '.join(kinds)}")
        if not self.greeted and kind != "hello":
            raise ValueError(f"the first message must be hello, got {kind}")
        return kinds[kind](message)

    def _hello(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if message.get("protocol") != PROTOCOL:
            raise ValueError(f"this rig speaks protocol {PROTOCOL}, got {message.get('protocol')!r}; update the older of the two")
        self.greeted = True
        rod = self.engine.rod
        return {
            "type": "hello",
            "protocol": PROTOCOL,
            "num_agents": self.engine.shape[2],
            "num_dimensions": self.engine.num_dimensions,
            **UNITS,
            "radius_um": float(self.engine.radius),
            "rod": None if rod is None else {"length_um": rod.length, "num_beads": rod.num_beads},
        }

    def _seen(self, message: Mapping[str, Any]) -> dict[str, Any]:
        rods = self.state.rods
        if not bool(self.state.positions.isfinite().all() and self.state.directors.isfinite().all()):
            raise ValueError("the simulated agents are nowhere: their engine's numbers are no longer finite")
        return {
            "type": "state",
            "seconds": self.engine.seconds,
            "ids": list(range(self.engine.shape[2])),
            "positions": self.state.positions[:, 0, 0].T.tolist(),
            "directors": self.state.directors[:, 0, 0].T.tolist(),
            **({} if rods is None else {"rod_angle": float(rods)}),
        }

    def _act(self, message: Mapping[str, Any]) -> dict[str, Any]:
        ids = message.get("ids")
        number = self.engine.shape[2]
        if not isinstance(ids, list) or not all(type(one) is int and 0 <= one < number for one in ids) or len(set(ids)) < len(ids):
            raise ValueError(f"ids must be different whole numbers from 0 to {number - 1}, got {ids!r}")
        self.forces, self.torques = (self._told(message, name, ids) for name in ("forces_pn", "torques_pn_um"))
        return {"type": "done"}

    def _told(self, message: Mapping[str, Any], name: str, ids: list[int]) -> "Tensor":
        """(1, 1, N), 0 for who is not named."""
        import torch

        values = message.get(name)
        if not isinstance(values, list) or len(values) != len(ids) or not all(isinstance(one, int | float) for one in values):
            raise ValueError(f"{name} must be {len(ids)} numbers, one for each id, got {values!r}")
        found = torch.zeros(self.engine.shape, dtype=self.engine.dtype)
        found[0, 0, ids] = torch.tensor(values, dtype=torch.float64).to(self.engine.dtype)
        if not bool(found.isfinite().all()):
            raise ValueError(f"{name} must be finite, got {values!r}")
        return found

    def _integrate(self, message: Mapping[str, Any]) -> dict[str, Any]:
        seconds, own = message.get("seconds"), self.engine.slice_seconds
        if not isinstance(seconds, int | float) or not math.isclose(seconds, own, rel_tol=1e-9):
            raise ValueError(f"this rig goes on by its slice of {own} s, got {seconds!r}; make RigEngine with slice_seconds={own}")
        self.engine.advance(self.state, self.forces, self.torques)
        return self._seen(message)

    def _end(self, message: Mapping[str, Any]) -> dict[str, Any]:
        self.ended = True
        return {"type": "done"}


def serve(engine: Engine, state: "State", address: str, ready: Callable[[str], None] = lambda address: None) -> None:
    """Let one client after another drive the engine on from where it stands, until one says end; `ready` is told the address."""
    rig = SimulatedRig(engine, state)
    with listen(address) as listener:
        ready(address_of(listener))
        try:
            while not rig.ended:
                connection, _ = listener.accept()
                rig.greeted = False
                with Link(connection, "the client") as link:
                    _talk(rig, link)
        finally:
            if isinstance(listener.getsockname(), str):
                with suppress(FileNotFoundError):
                    os.unlink(listener.getsockname())


def _talk(rig: SimulatedRig, link: Link) -> None:
    """Until the client goes, or sends what is no message."""
    with suppress(RigLost):
        while not rig.ended:
            try:
                answer = rig.answer(link.receive())
            except (ValueError, OverflowError) as error:
                answer = {"type": "error", "message": str(error)}
            except RigLost as error:
                # a line that cannot be read; of one that has gone this send fails as well
                link.send({"type": "error", "message": str(error)})
                return
            link.send(answer)


def simulated(argv: Sequence[str]) -> tuple[Engine, "State", str]:
    """Engine, state and address by options of the command line."""
    import torch

    options = _options().parse_args(argv)
    for name, least in (("agents", 1), ("radius", 1e-6), ("slice_seconds", 1e-9), ("temperature", 0.0)):
        if not getattr(options, name) >= least:
            raise ConfigError(f"--{name.replace('_', '-')} must be at least {least:g}, got {getattr(options, name)}")
    if options.substeps is not None and options.substeps < 1:
        raise ConfigError(f"--substeps must be at least 1, got {options.substeps}; leave it out for as many as are needed")
    body = Body(
        radius=options.radius,
        friction=spheroid(options.radius, options.aspect, options.viscosity),
        temperature=options.temperature,
        contact_temperature=300.0,
    )
    engine = Engine(
        [body],
        [options.seed],
        num_environments=1,
        num_agents=options.agents,
        slice_seconds=options.slice_seconds,
        num_substeps=options.substeps or _needed(body, options),
        num_dimensions=options.dimensions,
        rod=Rod() if options.rod else None,
        dtype=getattr(torch, options.dtype),
    )
    return engine, engine.start(options.start_radius), options.unix or f"{options.host}:{options.port}"


def _needed(body: Body, options: argparse.Namespace) -> int:
    resolution = Resolution(
        friction=body.friction,
        temperature=body.temperature,
        radius=body.radius,
        speed=USUAL_SPEED * 2.0 * body.radius,
        contact_temperature=body.contact_temperature,
        walls=options.rod,
        aspect=options.aspect,
    )
    return needed_substeps(resolution, options.slice_seconds)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m workers.swarm.rig_server", description="A simulated rig for RigEngine; see docs/rig.md.")
    add = parser.add_argument
    add("--host", default="127.0.0.1", help="where to listen; there is no password, so let others in by ssh -L alone (127.0.0.1)")
    add("--port", type=int, default=0, help="0: a free one, which the first line printed tells (0)")
    add("--unix", help="the path of a Unix socket, in place of host and port")
    add("--agents", type=int, default=5, help="how many (5)")
    add("--radius", type=float, default=2.5, help="um (2.5)")
    add("--aspect", type=float, default=1.0, help="length over width of spheroids (1: spheres)")
    add("--dimensions", type=int, choices=(2, 3), default=2, help="(2)")
    add("--rod", action="store_true", help="with a rod of 100 um about the origin")
    add("--temperature", type=float, default=300.0, help="K (300)")
    add("--viscosity", type=float, default=8.9e-4, help="Pa s (8.9e-4)")
    add("--slice-seconds", type=float, default=0.1, help="between two decisions (0.1)")
    add("--substeps", type=int, help="of a slice (as many as turns and contacts need, at swim speeds of up to 5 lengths a second)")
    add("--start-radius", type=float, default=100.0, help="of the disc in which agents start, um (100)")
    add("--seed", type=int, default=0, help="of starts and noise (0)")
    add("--dtype", choices=("float32", "float64"), default="float32", help="(float32)")
    return parser


def main(argv: Sequence[str]) -> int:
    """The command; the first line that it prints tells where it listens."""

    def ready(address: str) -> None:
        port = None if "/" in address else int(address.rpartition(":")[2])
        print(json.dumps({"protocol": PROTOCOL, "address": address, "port": port}), flush=True)

    try:
        engine, state, address = simulated(argv)
        serve(engine, state, address, ready)
    except EigensweepError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
