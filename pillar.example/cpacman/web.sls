# What CPacMan reads of a host's pillar. Pillar is compiled on the master, so a host can't forge it.
# Only what no earlier source says counts: membership.sources, by default files, pillar, grains.
cpacman:
  class: development       # a stage of promotion, one of `classes`
  meta:                    # free fields, for the matches of levels and policy
    role: web
    rack: r7
    ring: 2                # with the level `canary: {match: "ring:0"}` these hosts come after it
