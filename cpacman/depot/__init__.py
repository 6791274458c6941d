"""Repositories as they are, and the depot: the files and snapshots that CPacMan keeps."""
