"""Where hosts belong, and which are meant: pure rules, but for the reading of host files."""
