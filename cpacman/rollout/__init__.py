"""The carrying out of a plan: states, gates, effects."""
