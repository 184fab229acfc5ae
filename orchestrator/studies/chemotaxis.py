"""Chemotaxis (after arXiv 2404.01999): where it emerges over shape, size and speed, how well it does, and by which strategies."""

from orchestrator.study import Study
from orchestrator.swarm import efficiency_sections, emergence_sections, strategy_sections

STUDY = Study(
    name="chemotaxis",
    title="How chemotaxis emerges over shape, size and speed",
    sweeps={emergence_sections.CHEMOTAXIS: "success, distance, time, reward and policies over shape, radius and speed of robots"},
    sections=(emergence_sections.emergence, efficiency_sections.efficiency, strategy_sections.kinds),
)
