# What turned out bad, kept in version control beside the releases: salt-run state.orchestrate orch.blocked
# "until" is quoted: YAML would make a date of it.
httpd-2.4.57-11:
  cpacman.blocked:
    - reason: crashes under load, CHG0012399
    - until: "2999-12-31"
