"""The repositories of a snapshot as the solver reads them."""

from __future__ import annotations

from cpacman.depot.snapshot import SnapshotRepository
from cpacman.planner.solver import Source


def source_of(repository: SnapshotRepository) -> Source:
    """Return where the metadata of a repository is, and how it may be used."""
    metadata, checksums = repository.metadata, repository.checksums
    return Source(
        name=repository.name,
        primary=str(metadata.primary),
        checksum=checksums.get("primary", ""),
        filelists=str(metadata.filelists or ""),
        updateinfo=str(metadata.updateinfo or ""),
        autoupdate=repository.autoupdate,
        priority=repository.priority,
        modules=str(metadata.modules or ""),
        modules_checksum=checksums.get("modules", ""),
        module_hotfixes=repository.module_hotfixes,
        origin=repository.origin,
    )
