"""Plans as text: what a case says, turned into a plan, and a plan into a case."""
