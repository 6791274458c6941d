"""What people read: screens, tables, progress."""
