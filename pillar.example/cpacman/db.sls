cpacman:
  class: production
  level: rest              # named outright: no level's match is asked then
  meta:
    role: [db, backup]     # a list: any of them fits a match such as "role:db"
    ring: 1
