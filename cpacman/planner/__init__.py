"""What every host needs, worked out: rules of ours over a solver that is not ours."""
