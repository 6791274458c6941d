# A host came back: the engine asks who was out of reach in rollouts that wait, and lets those join that
# answer, where the configuration says `budget: {late: join}`. Without this it asks every five minutes.
#
# In the master's configuration:
#   reactor:
#     - salt/minion/*/start: [/srv/reactor/host-back.sls]
#
# Any host can fire such an event. Nothing of it is used here, many are one look, and that
# asks hosts and starts nothing: what happens then is decided by the rollout's own rules.
look for hosts:
  runner.cpacman.wake:
    - args:
      - hosts: True
