"""Micro-robots in a fluid, in units of micrometres, seconds and piconewtons: many policies, environments and agents at once."""
