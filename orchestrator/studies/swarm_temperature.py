"""Swarms that learn at different temperatures (after arXiv 2307.00994): to search a source, and to turn a rod."""

from orchestrator.study import Study
from orchestrator.swarm import gradient_sections, rod_sections, schedule_sections, transfer_sections

STUDY = Study(
    name="swarm_temperature",
    title="What swarms learn at different temperatures",
    sweeps={
        gradient_sections.SEARCH: "success, distance to the source and policies, by the temperature of training",
        transfer_sections.GRADIENT: "policies that search a source, deployed at temperatures that they were not trained at",
        schedule_sections.GRADIENT: "policies that search a source, trained while the temperature rises, falls or is drawn anew",
        rod_sections.ROTATION: "revolutions per hour of a rod and places beside it, by the temperature of training",
        transfer_sections.ROD: "policies that turn a rod, deployed at temperatures that they were not trained at",
        schedule_sections.ROD: "policies that turn a rod, trained while the temperature rises, falls or is drawn anew",
    },
    sections=(
        gradient_sections.searching,
        gradient_sections.policies,
        transfer_sections.gradient,
        schedule_sections.gradient,
        rod_sections.rotating,
        transfer_sections.rod,
        schedule_sections.rod,
    ),
)
