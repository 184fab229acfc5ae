"""The same physics as one compiled loop by numba, on one thread: every substep draws, turns, looks at all pairs and moves."""

import sys
from math import cos, sin, sqrt
from pathlib import Path

import numba
import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
from swarm_scene import arguments, serve


@numba.njit(fastmath=True, error_model="numpy")
def advance(x, y, theta, steps, speed, turn, move, mobility, sigma2, depth):
    """`steps` substeps of all environments (E, N), in place."""
    num, cutoff2 = x.shape[1], sigma2 * 2 ** (1 / 3)
    fx, fy = np.zeros(num, x.dtype), np.zeros(num, x.dtype)
    for e in range(x.shape[0]):
        for _ in range(steps):
            fx[:], fy[:] = 0, 0
            for i in range(num):
                for j in range(i):
                    dx, dy = x[e, i] - x[e, j], y[e, i] - y[e, j]
                    square = dx * dx + dy * dy
                    if square < cutoff2:
                        inverse = sigma2 / max(square, 0.36 * sigma2)
                        sixth = inverse * inverse * inverse
                        force = 24 / sigma2 * depth * inverse * sixth * (2 * sixth - 1)
                        fx[i] += force * dx
                        fy[i] += force * dy
                        fx[j] -= force * dx
                        fy[j] -= force * dy
            for i in range(num):
                x[e, i] += speed * cos(theta[e, i]) + mobility * fx[i] + move * np.random.normal()
                y[e, i] += speed * sin(theta[e, i]) + mobility * fy[i] + move * np.random.normal()
                theta[e, i] += turn * np.random.normal()


def main() -> None:
    """Serve."""
    scene, slices = arguments()
    shape, random = (scene.environments, scene.agents), np.random.default_rng(0)
    translation, rotation = scene.friction
    step = np.float32(scene.step)
    speed, mobility = np.float32(scene.force / translation) * step, np.float32(scene.step / translation)
    turn, move = (np.float32(sqrt(2 * scene.energy / one * scene.step)) for one in (rotation, translation))
    theta = random.uniform(0, 2 * np.pi, shape).astype(np.float32)
    x = y = theta
    done = 0

    def go() -> float:
        nonlocal x, y, done
        for _ in range(slices):
            if done % 100 == 0:
                distance, angle = scene.disc * np.sqrt(random.random(shape)), random.uniform(0, 2 * np.pi, shape)
                x, y = (distance * np.cos(angle)).astype(np.float32), (distance * np.sin(angle)).astype(np.float32)
            advance(x, y, theta, scene.substeps, speed, turn, move, mobility, np.float32(scene.sigma**2), np.float32(scene.energy))
            done += 1
        return 1.0

    serve(go)


if __name__ == "__main__":
    main()
