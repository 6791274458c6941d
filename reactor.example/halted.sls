# A rollout stopped by itself: tell somebody. Put here what your site calls people with; this one
# passes the event on under a tag of your own, where a returner or another engine takes it up.
#
# In the master's configuration:
#   reactor:
#     - cpacman/rollout/*/halted: [/srv/reactor/halted.sls]
#     - cpacman/rollout/*/paused: [/srv/reactor/halted.sls]
#
# The event says which rollout; the truth about it is asked for: salt-run cpacman.rollout ID.
call somebody:
  runner.event.send:
    - args:
      - tag: ops/pager
      - data: {{ {"text": "a rollout of packages stopped, look: salt-run cpacman.rollouts active=True"} | json }}
