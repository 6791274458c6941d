# Which hosts get which pillar: ordinary Salt. Copy into your pillar_roots.
base:
  'web*.fra':
    - cpacman.web
  'db*':
    - cpacman.db
