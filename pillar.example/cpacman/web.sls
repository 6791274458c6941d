# What CPacMan reads of a host's pillar. Pillar is compiled on the master, so a host can't forge it.
# Only what no earlier source says counts: membership.sources, by default files, pillar, grains.
cpacman:
  class: production        # a stage of promotion, one of `classes`
  meta:                    # free fields, for the matches of levels and policy
    role: web
    rack: r7
    ring: 2                # with the level `early: {match: "ring:1"}` these hosts come after it
