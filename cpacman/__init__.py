"""CPacMan: a centralized, push-only package manager for fleets, built on Salt."""

__version__ = "0.1.0"
