# Which hosts get which pillar: ordinary Salt. Copy into your pillar_roots. Match by id: who matches by
# grain lets a host choose.
base:
  'web*':
    - cpacman.web
  'db*':
    - cpacman.db
