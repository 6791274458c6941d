"""Plans without a master: what the console makes of directories, inventories and files."""
