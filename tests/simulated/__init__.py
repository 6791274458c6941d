"""Whole rollouts at speed: the real commands, machine, store and engine, around simulated hosts."""
