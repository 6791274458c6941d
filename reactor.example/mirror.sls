# A mirror changed: the engine takes snapshots, and plans the first class, once mirrors are quiet.
#
# In the master's configuration:
#   reactor:
#     - cpacman/mirror/changed: [/srv/reactor/mirror.sls]
#
# Whoever fills the mirror says so on the master, as the last step:
#   salt-run event.send cpacman/mirror/changed
#
# Any host can fire such an event, too. So nothing of the event is used here, many are one look,
# and what comes of it is decided from the database and the configuration.
look at mirrors:
  runner.cpacman.wake: []
