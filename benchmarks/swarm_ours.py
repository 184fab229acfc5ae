"""Our engine, on one thread; says which share of environments it moved by substeps."""

import torch
from swarm_scene import arguments, serve

from workers.swarm.engine import Body, Engine
from workers.swarm.friction import sphere


def main() -> None:
    """Serve."""
    torch.set_num_threads(1)
    scene, slices = arguments()
    body = Body(
        radius=scene.radius, friction=sphere(scene.radius, scene.viscosity), temperature=scene.kelvin, contact_temperature=scene.kelvin
    )
    engine = Engine(
        [body], [0], num_environments=scene.environments, num_agents=scene.agents, slice_seconds=scene.seconds, num_substeps=scene.substeps
    )
    state = engine.start(scene.disc)
    forces = torch.full(engine.shape, scene.force)
    torques = torch.zeros_like(forces)

    def go() -> float:
        engine.num_by_substeps = 0
        for _ in range(slices):
            # agents swim away: each turn begins with the same density
            if engine.slices % 100 == 0:
                state.positions = engine.start(scene.disc).positions
            engine.advance(state, forces, torques)
        return engine.num_by_substeps / slices / scene.environments

    serve(go)


if __name__ == "__main__":
    main()
