"""How calls and bytes reach a host. Apart from the doors, the only room that knows Salt."""
