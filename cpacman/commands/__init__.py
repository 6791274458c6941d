"""What each command does: one function a command, plain values in and out, no Salt."""
