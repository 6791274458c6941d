# One release, from development to production. Look first, then do it; both are safe to repeat:
#
#   salt-run state.orchestrate orch.release test=True
#   salt-run state.orchestrate orch.release
#
# A state that fails stops those that require it. What is done already is not done again, so after
# a soak or a refusal the same command goes on where it was. After a halt a person says first how that
# rollout goes on: salt-run cpacman.retry, resume or cancel.

# The mirrors as they are now, for the first class.
freeze the mirrors:
  cpacman.snapshot_present: []

development:
  cpacman.deployed:
    - class: development
    - wait: 2h
    - require:
      - cpacman: freeze the mirrors

to production:
  cpacman.promoted:
    - to: production
    - ticket: CHG0012345
    - require:
      - cpacman: development

production:
  cpacman.deployed:
    - class: production
    - levels: [canary, rest]
    - wait: 2h
    - ticket: CHG0012345
    - require:
      - cpacman: to production
